"""The phantom's anatomy: complete, enclosed, of the right size, different between cohorts."""

import numpy as np
import pytest
from scipy import ndimage

from cyclesh.data import anatomy
from cyclesh.data.anatomy import LABELS, LARGEST_MM, STRUCTURES, draw_heart, draw_subject
from cyclesh.data.appearance import label_map, rasterise
from cyclesh.data.phantom import grid_points

HEART = [LABELS[name] for name in STRUCTURES]


def labels_of(seed, side, spacing_mm=5.0):
    """The label map of one subject on an axis-aligned grid, int16 (z, y, x)."""
    counts = np.ceil(np.array([180.0, 190.0, 190.0]) / spacing_mm).astype(int)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = -spacing_mm * (counts[::-1] - 1) / 2
    subject = draw_subject(np.random.default_rng([seed, 7]), side)
    coats = rasterise(subject, grid_points(affine, tuple(counts)), affine, edge_mm=spacing_mm)
    return label_map(coats, counts)


def sizes_mm(side, count=24):
    """Volume-equivalent linear size of the five regions of several subjects."""
    return np.array([np.cbrt(np.isin(labels_of(i, side), HEART).sum()) * 5.0 for i in range(count)])


@pytest.fixture(scope="module", params=range(6))
def labels(request):
    return labels_of(request.param, side=0.5 if request.param % 2 else -0.5)


def test_every_region_is_there_and_in_one_piece(labels):
    for name in STRUCTURES:
        region = labels == LABELS[name]
        assert region.sum() * 0.125 > 10, name  # ml
        pieces = ndimage.label(region, np.ones((3, 3, 3)))[0]
        assert np.bincount(pieces.ravel())[1:].max() > 0.99 * region.sum(), name


def test_the_myocardium_encloses_the_left_ventricle(labels):
    cavity = labels == LABELS["LV"]
    around = labels[ndimage.binary_dilation(cavity) & ~cavity]
    assert np.mean(around == LABELS["Myo"]) > 0.7
    assert not np.any(around == LABELS["RV"])
    assert not np.any(around == LABELS["RA"])


def test_the_heart_lies_as_hearts_do(labels):
    middle = {n: np.argwhere(labels == LABELS[n]).mean(axis=0) for n in STRUCTURES}
    z, y, x = 0, 1, 2
    assert middle["RA"][x] > middle["LV"][x]  # x runs to the patient's right
    assert middle["RV"][y] > middle["LA"][y]  # y runs to the front
    assert middle["LA"][z] > middle["LV"][z]


def test_the_heart_fits_the_training_crop(labels):
    inside = np.argwhere(np.isin(labels, HEART))
    assert np.all((np.ptp(inside, axis=0) + 1) * 5.0 <= [130, 160, 160])


def test_no_heart_outgrows_the_crop_and_few_are_shrunk():
    shrunk = 0
    for seed in range(200):
        heart = draw_heart(np.random.default_rng(seed), side=0.5)
        fitting = anatomy._shrunk_to_fit(heart)
        shrunk += fitting.size < heart.size
        boxes = [
            layer.shape.bounds_mm()
            for layer in anatomy.heart_layers(fitting)
            if layer.tissue in STRUCTURES
        ]
        low = np.min([low for low, _ in boxes], axis=0)
        high = np.max([high for _, high in boxes], axis=0)
        assert np.all(high - low <= LARGEST_MM * 1.01)
    assert shrunk <= 20


def test_cohorts_differ_in_size_only_when_told_to():
    small, large = sizes_mm(-0.5), sizes_mm(0.5)
    assert 1.17 < large.mean() / small.mean() < 1.29
    same = sizes_mm(0.0)  # the same random numbers
    assert small.mean() < same.mean() < large.mean()
    assert large.mean() - small.mean() > 2 * small.std()


def test_cohorts_differ_in_phase_and_pose():
    small, large = (
        [draw_heart(np.random.default_rng(seed), side) for seed in range(40)]
        for side in (-0.5, 0.5)
    )
    assert np.mean([h.phase for h in large]) > np.mean([h.phase for h in small]) + 0.2
    turn = np.mean([h.rotation for h in large], 0) - np.mean([h.rotation for h in small], 0)
    assert np.abs(turn).max() > 0.1


def test_subjects_of_a_cohort_differ():
    volumes = [[(labels_of(seed, 0.0) == LABELS[n]).sum() for n in STRUCTURES] for seed in range(8)]
    spread = np.std(volumes, axis=0) / np.mean(volumes, axis=0)
    assert np.all(spread > 0.1)


def test_volumes_do_not_depend_on_the_grid():
    coarse, fine = labels_of(3, 0.0, spacing_mm=5.0), labels_of(3, 0.0, spacing_mm=3.0)
    for name in STRUCTURES:
        ml = [(coarse == LABELS[name]).sum() * 0.125, (fine == LABELS[name]).sum() * 0.027]
        assert ml[0] == pytest.approx(ml[1], rel=0.06), name
