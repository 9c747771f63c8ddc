"""Histogram matching: the reference's distribution, the image's order."""

import numpy as np

from cyclesh.scoring.histogram import match_histogram

STEPS = np.linspace(0, 1, 257)


def test_the_result_has_the_reference_s_distribution_and_the_image_s_order():
    rng = np.random.default_rng(0)
    image, other = rng.normal(size=(8, 9, 10)), rng.exponential(size=4000)
    matched = match_histogram(image, np.quantile(other, STEPS))
    assert (np.diff(matched.ravel()[np.argsort(image, axis=None)]) >= 0).all()
    np.testing.assert_allclose(np.median(matched), np.median(other), rtol=0.01)
    np.testing.assert_allclose((matched.min(), matched.max()), (other.min(), other.max()))


def test_by_hand():
    # The middle of 0..4 goes to the middle quantile, a quarter to the first quarter.
    matched = match_histogram(np.array([[0.0, 1, 2], [3, 4, 2]]), np.array([0.0, 10, 40, 50, 90]))
    assert matched[0, 2] == matched[1, 2] == 40
    assert (matched[0, 0], matched[1, 1]) == (0, 90)


def test_an_image_matched_to_itself_stays():
    image = np.random.default_rng(1).uniform(-1, 1, (6, 6, 6))
    matched = match_histogram(image, np.quantile(image, STEPS))
    np.testing.assert_allclose(matched, image, atol=1e-2)


def test_a_constant_stays_within_the_reference():
    matched = match_histogram(np.zeros((2, 2, 2)), np.array([1.0, 2.0]))
    assert ((matched >= 1) & (matched <= 2)).all()
