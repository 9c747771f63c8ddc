"""Paired differences over seeds and subjects, with their 95 % intervals."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Difference(NamedTuple):
    """A mean difference, its 95 % interval, and over how many seeds and subjects it was taken."""

    mean: float
    low: float
    high: float
    seeds: int
    subjects: int

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below zero; else 0."""
        return int(self.low > 0) - int(self.high < 0)


def paired_difference(better: np.ndarray, worse: np.ndarray) -> Difference:
    """Mean of better - worse and its interval.

    Args:
      better, worse: scores, shape (seeds, subjects), of the same seeds and subjects; NaN where
        there is none. A subject without a value under some seed is left out.

    Seeds and subjects are both drawn from larger populations, and every seed is scored on every
    subject: the mean errs as that of the seeds' means does, and as that of the subjects' means
    does. Each has Student's half-width for its own number, and their squares add up. That holds
    95 % or more of normal effects however few seeds there are (Banerjee, Sankhya 22, 1960, 357);
    what varies from one seed and subject to the next counts twice, which errs on the wide side.
    A single seed has no interval: it is NaN.
    """
    differences = np.asarray(better, np.float64) - np.asarray(worse, np.float64)
    differences = differences[:, np.isfinite(differences).all(axis=0)]
    seeds, subjects = differences.shape
    if not differences.size:
        return Difference(math.nan, math.nan, math.nan, seeds, subjects)
    mean = float(differences.mean())
    if seeds < 2 or subjects < 2:
        return Difference(mean, math.nan, math.nan, seeds, subjects)
    half = math.hypot(*(_half_width(differences.mean(axis=axis)) for axis in (0, 1)))
    return Difference(mean, mean - half, mean + half, seeds, subjects)


def _half_width(values: np.ndarray) -> float:
    """Of Student's interval of the mean of independent values."""
    quantile = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
    return float(quantile * values.std(ddof=1)) / math.sqrt(len(values))


def mean_and_sd(values: list[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None where there are too few values for it."""
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
