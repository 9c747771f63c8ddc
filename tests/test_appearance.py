"""What CT and MR show of the phantom: orders of contrast, noise, gain."""

import numpy as np
import pytest

from cyclesh.data.anatomy import draw_subject
from cyclesh.data.appearance import rasterise, render_ct, render_mr
from cyclesh.data.phantom import grid_points

SPACING_MM = 4.0
SHAPE = (42, 50, 50)
SUBJECTS = 5


@pytest.fixture(scope="module")
def affine():
    matrix = np.diag([SPACING_MM] * 3 + [1.0])
    matrix[:3, 3] = -SPACING_MM * (np.array(SHAPE[::-1]) - 1) / 2
    return matrix


@pytest.fixture(scope="module")
def subjects(affine):
    """Coats, points and the map of pure voxels, tissue -> mask, of several subjects."""
    points = grid_points(affine, SHAPE)
    found = []
    for seed in range(SUBJECTS):
        subject = draw_subject(np.random.default_rng(seed), side=0.0)
        coats = rasterise(subject, points, affine, edge_mm=SPACING_MM)
        found.append((coats, points, pure_voxels(coats)))
    return found


def pure_voxels(coats):
    names = sorted({coat.tissue for coat in coats})
    top = np.full(SHAPE, -1)
    for coat in coats:
        inside = top[coat.box]
        inside[coat.cover > 0] = -1
        inside[coat.cover >= 0.999] = names.index(coat.tissue)
    return {name: top == i for i, name in enumerate(names) if (top == i).sum() >= 12}


def means(render, subjects, noise=1.0):
    """Mean over subjects of each tissue's mean value."""
    rows = []
    for seed, (coats, points, pure) in enumerate(subjects):
        image = render(coats, points, noise, np.random.default_rng([seed, 9]))
        scale = image[pure["LV"]].mean() if render is render_mr else 1.0
        rows.append({name: image[mask].mean() / scale for name, mask in pure.items()})
    return {n: np.mean([r[n] for r in rows if n in r]) for n in set().union(*rows)}


def test_ct_has_the_hounsfield_units_of_an_angiogram(subjects):
    ct = means(render_ct, subjects)
    assert 300 < ct["LV"] < 450 and 300 < ct["LA"] < 450
    assert 170 < ct["RV"] < 300
    assert 80 < ct["Myo"] < 125
    assert -120 < ct["fat"] < -70
    assert 35 < ct["muscle"] < 75
    assert -900 < ct["lung"] < -760
    assert ct["LV"] > ct["RV"] > ct["Myo"] > ct["muscle"] > ct["fat"] > ct["lung"]


def test_mr_has_another_order(subjects):
    mr = means(render_mr, subjects)
    assert mr["fat"] > mr["LV"] > mr["marrow"] > mr["Myo"] > mr["lung"]
    ct = means(render_ct, subjects)  # contrast agent parts the chambers there, nothing does here
    assert abs(mr["RV"] / mr["LV"] - 1) < 0.1 < 1 - ct["RV"] / ct["LV"]
    assert abs(mr["Myo"] - mr["muscle"]) < 0.2 and abs(mr["liver"] - mr["muscle"]) < 0.2


def test_no_monotone_map_turns_ct_into_mr(subjects):
    ct, mr = means(render_ct, subjects), means(render_mr, subjects)
    common = sorted(set(ct) & set(mr))
    ranks = [np.argsort(np.argsort([table[n] for n in common])) for table in (ct, mr)]
    assert np.corrcoef(*ranks)[0, 1] < 0.75
    swapped = [
        (a, b) for a in common for b in common if ct[a] > ct[b] + 30 and mr[a] < mr[b] - 0.15
    ]
    assert {("LV", "fat"), ("cortex", "Myo"), ("muscle", "fat"), ("cortex", "marrow")} <= set(
        swapped
    )


@pytest.mark.parametrize("render", [render_ct, render_mr])
def test_contrast_to_noise_of_blood_and_myocardium_is_comfortable(render, subjects):
    for seed, (coats, points, pure) in enumerate(subjects):
        image = render(coats, points, 1.0, np.random.default_rng([seed, 9]))
        myo = image[pure["Myo"]]
        for chamber in ("LV", "RV", "LA", "RA"):
            noise = np.hypot(image[pure[chamber]].std(), myo.std()) / np.sqrt(2)
            assert (image[pure[chamber]].mean() - myo.mean()) / noise > 2.5, (seed, chamber)


def test_the_contrast_agent_differs_between_subjects_and_sides(subjects):
    left, right = [], []
    for seed, (coats, points, pure) in enumerate(subjects):
        image = render_ct(coats, points, 0.0, np.random.default_rng([seed, 9]))
        left.append(image[pure["LV"]].mean())
        right.append(image[pure["RV"]].mean())
        assert image[pure["RA"]].std() > 1.5 * image[pure["LV"]].std() + 1
    assert np.std(left) > 15 and np.std(right) > 10
    assert np.all(np.array(left) > np.array(right) + 20)


def test_gain_and_coil_sensitivity_vary(subjects):
    coats, points, pure = subjects[0]
    images = [render_mr(coats, points, 0.0, np.random.default_rng(seed)) for seed in range(8)]
    levels = [image[pure["LV"]].mean() for image in images]
    assert 1.5 < max(levels) / min(levels) < 4.5
    unevenness = [image[pure["fat"]].std() / image[pure["fat"]].mean() for image in images]
    assert np.mean(unevenness) > 0.08  # fat's own mixing alone gives 0.05


@pytest.mark.parametrize("render", [render_ct, render_mr])
def test_noise_follows_its_multiplier(render, subjects):
    coats, points, pure = subjects[0]

    def rendered(noise):
        return render(coats, points, noise, np.random.default_rng(3))

    clean, once, twice = (rendered(n)[pure["LV"]] for n in (0.0, 1.0, 2.0))
    assert (twice - clean).std() == pytest.approx(2 * (once - clean).std(), rel=0.1)


def test_mr_noise_is_a_magnitude(subjects):
    coats, points, pure = subjects[1]
    image = render_mr(coats, points, 1.0, np.random.default_rng(3))
    assert image.min() >= 0
    clean = render_mr(coats, points, 0.0, np.random.default_rng(3))
    dark = pure["air"] if "air" in pure else pure["lung"]
    assert image[dark].mean() > clean[dark].mean()  # the Rician floor
