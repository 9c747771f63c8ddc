"""Dice against counts done by hand, and its undefined cases."""

import numpy as np
import pytest

from cyclesh.scoring.dice import dice


def test_counts_by_hand():
    truth = np.array([[0, 1, 1, 1], [2, 2, 0, 0]], np.uint8)
    predicted = np.array([[1, 1, 1, 0], [2, 1, 0, 0]], np.uint8)
    # class 1: 3 true, 4 predicted, 2 shared; class 2: 2 true, 1 predicted, 1 shared
    np.testing.assert_allclose(dice(predicted, truth, 3), [2 * 2 / 7, 2 * 1 / 3], rtol=1e-15)


def test_shifted_cube_overlaps_by_the_shared_slabs():
    truth = np.zeros((12, 12, 12), np.uint8)
    predicted = truth.copy()
    truth[2:8, 2:8, 2:8] = 1
    predicted[4:10, 2:8, 2:8] = 1
    np.testing.assert_allclose(dice(predicted, truth, 2), [4 / 6], rtol=1e-15)


def test_absent_from_both_is_nan_and_from_one_is_zero():
    truth = np.array([0, 1, 0, 4], np.uint8)
    predicted = np.array([0, 0, 2, 4], np.uint8)
    np.testing.assert_array_equal(dice(predicted, truth, 5), [0.0, 0.0, np.nan, 1.0])


def test_background_agreement_counts_for_nothing():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 6, 6, 6))
    padded = (np.pad(labels, 5) for labels in (predicted, truth))
    np.testing.assert_array_equal(dice(*padded, 3), dice(predicted, truth, 3))


def test_symmetric_and_equal_to_the_definition_on_noise():
    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 6, (2, 7, 8, 9)).astype(np.uint8)
    by_sets = [
        2 * np.sum((predicted == c) & (truth == c)) / (np.sum(predicted == c) + np.sum(truth == c))
        for c in range(1, 6)
    ]
    scores = dice(predicted, truth, 6)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, by_sets, rtol=1e-15)
    np.testing.assert_array_equal(dice(truth, predicted, 6), scores)


def test_a_class_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match="class index 3 in a volume of 3 classes"):
        dice(np.array([0, 3]), np.array([0, 1]), 3)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        dice(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)
