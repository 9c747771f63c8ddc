"""Paired differences: numbers by hand, and how often the interval holds the truth."""

import math

import numpy as np
import pytest

from cyclesh.scoring.statistics import mean_and_sd, paired_difference


def test_the_mean_is_of_pairs_and_a_constant_difference_has_no_width():
    worse = np.arange(12.0).reshape(3, 4)
    found = paired_difference(worse + 0.25, worse)
    assert found == pytest.approx((0.25, 0.25, 0.25, 3, 4)) and found.sign == 1
    assert paired_difference(worse, worse + 0.25).sign == -1


def test_two_seeds_by_hand():
    """Seeds' means 0 and 1: a standard error of 1/2, times t(0.975, 1 degree) = 12.706."""
    better = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    found = paired_difference(better, np.zeros((2, 3)))
    assert found == pytest.approx((0.5, 0.5 - 6.353, 0.5 + 6.353, 2, 3), abs=1e-3)
    assert found.sign == 0


def test_half_widths_of_seeds_and_subjects_add_as_squares():
    """Seeds' means 0, 1, 2: 4.303 / sqrt(3). Subjects' means 0, 2: 12.706. Root of the squares."""
    better = np.array([[-1.0, 1.0], [0.0, 2.0], [1.0, 3.0]])
    found = paired_difference(better, np.zeros((3, 2)))
    assert (found.mean, found.high - 1) == pytest.approx((1.0, (2.484**2 + 12.706**2) ** 0.5), 1e-3)
    assert found.high - 1 == pytest.approx(1 - found.low)


def test_a_subject_without_a_score_under_some_seed_is_left_out():
    better = np.array([[1.0, 5.0], [1.0, math.nan], [1.0, 5.0]])
    assert paired_difference(better, np.zeros((3, 2))).subjects == 1
    assert paired_difference(better, np.zeros((3, 2))).mean == 1.0


def test_one_seed_has_no_interval_and_none_has_nothing():
    found = paired_difference(np.ones((1, 6)), np.zeros((1, 6)))
    assert found.mean == 1.0 and math.isnan(found.low) and found.sign == 0
    assert math.isnan(paired_difference(np.zeros((0, 6)), np.zeros((0, 6))).mean)


def coverage(seeds: int, deviations: tuple[float, float, float], trials: int = 2000) -> float:
    """How often the interval holds the truth, with effects of seeds, of subjects, of both."""
    rng, held = np.random.default_rng(7), 0
    for _ in range(trials):
        shapes = ((seeds, 1), (1, 20), (seeds, 20))
        table = sum(sd * rng.normal(size=s) for sd, s in zip(deviations, shapes, strict=True))
        found = paired_difference(0.3 + table, np.zeros((seeds, 20)))
        held += found.low <= 0.3 <= found.high
    return held / trials


@pytest.mark.parametrize("residual", [0.3, 1.0])
@pytest.mark.parametrize("of_seeds_and_subjects", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.3, 1.0)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_holds_the_truth(seeds, of_seeds_and_subjects, residual):
    # 95 % less three standard errors of 2000 trials is 93.5 %.
    assert coverage(seeds, (*of_seeds_and_subjects, residual)) >= 0.935


def test_the_interval_is_no_wider_than_it_must_be_where_only_seeds_or_only_subjects_differ():
    for deviations in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
        assert coverage(3, deviations) == pytest.approx(0.95, abs=0.015)


def test_mean_and_sd():
    assert mean_and_sd([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0))
    assert mean_and_sd([2.0]) == (2.0, None) and mean_and_sd([]) == (None, None)
