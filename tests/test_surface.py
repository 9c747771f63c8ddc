"""Surface distances against numbers by hand and against an exhaustive search."""

import numpy as np
import pytest

from cyclesh.scoring.surface import assd_mm, hd95_mm, surface_distances_mm

SPACING_MM = (2.0, 1.0, 0.5)


def _voxels(shape, *where):
    mask = np.zeros(shape, bool)
    for index in where:
        mask[index] = True
    return mask


def _box(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.mark.parametrize("axis, steps, expected_mm", [(0, 3, 6.0), (1, 3, 3.0), (2, 3, 1.5)])
def test_two_voxels_apart_along_each_axis(axis, steps, expected_mm):
    a, b = [1, 1, 1], [1, 1, 1]
    b[axis] += steps
    distances = surface_distances_mm(
        _voxels((6, 6, 6), tuple(a)), _voxels((6, 6, 6), tuple(b)), SPACING_MM
    )
    assert assd_mm(distances) == hd95_mm(distances) == expected_mm


def test_equal_masks_are_at_distance_zero():
    mask = _box((8, 9, 10), (1, 2, 3), (6, 7, 8))
    distances = surface_distances_mm(mask, mask, SPACING_MM)
    assert assd_mm(distances) == hd95_mm(distances) == 0.0


def test_surface_is_the_shell_of_faces_and_the_edge_of_the_volume_is_outside():
    full = np.ones((4, 5, 6), bool)
    distances = surface_distances_mm(full, full, SPACING_MM)
    assert distances.from_truth_mm.size == 4 * 5 * 6 - 2 * 3 * 4
    # A missing corner neighbour alone does not make a surface: the 6-neighbourhood has no corners.
    notched = np.ones((5, 5, 5), bool)
    notched[0, 0, 0] = False
    assert surface_distances_mm(notched, notched, SPACING_MM).from_truth_mm.size == 5**3 - 3**3 - 1


def test_pooled_mean_and_directed_percentile_by_hand():
    # predicted: one voxel at x = 0; truth: voxels at x = 0, 2, 6 (1 mm apart, each its own surface)
    shape = (3, 3, 9)
    predicted = _voxels(shape, (1, 1, 0))
    truth = _voxels(shape, (1, 1, 0), (1, 1, 2), (1, 1, 6))
    distances = surface_distances_mm(predicted, truth, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(distances.from_predicted_mm, [0])
    np.testing.assert_array_equal(distances.from_truth_mm, [0, 2, 6])
    assert assd_mm(distances) == (0 + 0 + 2 + 6) / 4  # pooled: not (0 + 8/3) / 2
    assert hd95_mm(distances) == pytest.approx(2 + 0.9 * 4)  # rank 1.9 of {0, 2, 6}


def test_concentric_boxes():
    inner, outer = _box((11,) * 3, (4, 4, 4), (7, 7, 7)), _box((11,) * 3, (2, 2, 2), (9, 9, 9))
    distances = surface_distances_mm(inner, outer, (1.0, 1.0, 1.0))
    assert set(distances.from_predicted_mm) == {2.0}
    assert max(distances.from_truth_mm) == pytest.approx(np.sqrt(12))


def test_equals_an_exhaustive_search_on_noise():
    rng = np.random.default_rng(3)
    # Far from the edge and sparse, so that the crop to the masks' box has something to cut off.
    predicted, truth = np.zeros((2, 20, 22, 24), bool)
    predicted[6:12, 5:13, 7:15] = rng.random((6, 8, 8)) < 0.6
    truth[8:14, 7:15, 5:12] = rng.random((6, 8, 7)) < 0.6
    distances = surface_distances_mm(predicted, truth, SPACING_MM)
    surfaces = [_surface_by_hand(mask) * SPACING_MM for mask in (predicted, truth)]
    between = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
    np.testing.assert_allclose(distances.from_predicted_mm, between.min(1), rtol=1e-12)
    np.testing.assert_allclose(distances.from_truth_mm, between.min(0), rtol=1e-12)


def test_swapping_the_masks_swaps_the_directions_only():
    shape = (9, 9, 9)
    a, b = _box(shape, (1, 1, 1), (5, 6, 7)), _box(shape, (2, 3, 3), (8, 8, 8))
    there, back = surface_distances_mm(a, b, SPACING_MM), surface_distances_mm(b, a, SPACING_MM)
    np.testing.assert_array_equal(there.from_predicted_mm, back.from_truth_mm)
    assert assd_mm(there) == pytest.approx(assd_mm(back), rel=1e-15)
    assert hd95_mm(there) == hd95_mm(back)


@pytest.mark.parametrize("empty", ["predicted", "truth", "both"])
def test_an_empty_mask_has_no_distance(empty):
    mask, nothing = _voxels((4, 4, 4), (1, 1, 1)), np.zeros((4, 4, 4), bool)
    predicted = nothing if empty in ("predicted", "both") else mask
    truth = nothing if empty in ("truth", "both") else mask
    distances = surface_distances_mm(predicted, truth, SPACING_MM)
    assert np.isnan(assd_mm(distances)) and np.isnan(hd95_mm(distances))


def _surface_by_hand(mask):
    padded = np.pad(mask, 1)
    neighbours = [
        np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)
    ]
    return np.argwhere(mask & ~np.logical_and.reduce(neighbours))
