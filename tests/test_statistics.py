"""Paired differences: numbers by hand, and how often the interval holds the truth."""

import math

import numpy as np
import pytest

from cyclesh.scoring import statistics
from cyclesh.scoring.statistics import mean_and_sd, paired_difference


def test_the_mean_is_of_pairs_and_a_constant_difference_has_no_width():
    worse = np.arange(12.0).reshape(3, 4)
    found = paired_difference(worse + 0.25, worse)
    assert found == pytest.approx((0.25, 0.25, 0.25, 3, 4)) and found.sign == 1
    assert paired_difference(worse, worse + 0.25).sign == -1


def test_two_seeds_by_hand():
    """Differences of 0 under one seed, of 1 under the other, for all subjects: means 0, 1/2, 1."""
    better = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    found = paired_difference(better, np.zeros((2, 3)))
    assert found == pytest.approx((0.5, 0.0, 1.0, 2, 3)) and found.sign == 0


def test_the_tail_is_that_of_students_t():
    # t(0.975, 4 degrees) = 2.776, times sqrt(5/4) = 3.104; normal tail beyond it: 0.00095.
    assert statistics._expanded_tail(5) == pytest.approx(0.00095, abs=1e-5)
    assert statistics._expanded_tail(10_000) == pytest.approx(0.025, abs=1e-4)


def test_a_subject_without_a_score_under_some_seed_is_left_out():
    better = np.array([[1.0, 5.0], [1.0, math.nan], [1.0, 5.0]])
    assert paired_difference(better, np.zeros((3, 2))).subjects == 1
    assert paired_difference(better, np.zeros((3, 2))).mean == 1.0


def test_one_seed_has_no_interval_and_none_has_nothing():
    found = paired_difference(np.ones((1, 6)), np.zeros((1, 6)))
    assert found.mean == 1.0 and math.isnan(found.low) and found.sign == 0
    assert math.isnan(paired_difference(np.zeros((0, 6)), np.zeros((0, 6))).mean)


def test_the_same_numbers_give_the_same_interval():
    scores = np.random.default_rng(1).normal(size=(2, 5, 24))
    assert paired_difference(*scores) == paired_difference(*scores)


@pytest.mark.parametrize("deviations", [(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_holds_the_truth(seeds, deviations, monkeypatch):
    """Effects of seeds, of subjects, and of both together, in several proportions."""
    monkeypatch.setattr(statistics, "DRAWS", 2000)
    rng, held, trials = np.random.default_rng(7), 0, 150
    for _ in range(trials):
        shapes = ((seeds, 1), (1, 20), (seeds, 20))
        table = sum(sd * rng.normal(size=s) for sd, s in zip(deviations, shapes, strict=True))
        found = paired_difference(0.3 + table, np.zeros((seeds, 20)))
        held += found.low <= 0.3 <= found.high
    assert held / trials > 0.9  # 95 % less three standard errors of 150 trials


def test_mean_and_sd():
    assert mean_and_sd([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0))
    assert mean_and_sd([2.0]) == (2.0, None) and mean_and_sd([]) == (None, None)
