"""Paired differences over seeds and subjects, with 95 % intervals by the bootstrap."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 20_000
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


def paired_difference(better: np.ndarray, worse: np.ndarray, seed: int = 0) -> Difference:
    """Mean of better - worse and its interval.

    Args:
      better, worse: scores, shape (seeds, subjects), of the same seeds and subjects; NaN where
        there is none. A subject without a value under some seed is left out.
      seed: of the bootstrap's draws.

    Seeds and subjects are resampled independently (both are drawn from larger populations, and
    every seed is scored on every subject). With few seeds, percentiles of the bootstrap come out
    too narrow; they are taken further out, as far as Student's t lies beyond the normal quantile
    for that number of seeds (Hesterberg, The American Statistician 69, 2015, section 5.3). A
    single seed has no interval: it is NaN.
    """
    differences = np.asarray(better, np.float64) - np.asarray(worse, np.float64)
    differences = differences[:, np.isfinite(differences).all(axis=0)]
    seeds, subjects = differences.shape
    if not differences.size:
        return Difference(math.nan, math.nan, math.nan, seeds, subjects)
    mean = float(differences.mean())
    if seeds < 2 or subjects < 2:
        return Difference(mean, math.nan, math.nan, seeds, subjects)
    rng = np.random.default_rng(seed)
    draws = _resampled_means(differences, rng)
    tail = _expanded_tail(seeds)
    low, high = np.quantile(draws, (tail, 1 - tail))
    return Difference(mean, float(low), float(high), seeds, subjects)


def _resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means of tables with as many rows and columns, drawn with replacement."""
    rows, columns = (
        rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count
        for count in values.shape
    )
    return np.einsum("dr,rc,dc->d", rows, values, columns, optimize=True)


def _expanded_tail(count: int) -> float:
    """Which percentile of the bootstrap bounds 95 % for a mean of ``count`` values."""
    quantile = stats.t.ppf((1 + LEVEL) / 2, count - 1) * math.sqrt(count / (count - 1))
    return float(stats.norm.cdf(-quantile))


def mean_and_sd(values: list[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None where there are too few values for it."""
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None
