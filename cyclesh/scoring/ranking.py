"""Which test cases to show first: by S-score, the worst, the median and the best of a direction."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cyclesh.scoring.dice import dice
from cyclesh.scoring.report_data import CaseImages


class Agreement(NamedTuple):
    """A score in [0, 1] and what it is called; NaN where a case has none."""

    measure: str
    value: float


def agreement(case: CaseImages) -> Agreement:
    """What cases are ranked by: the S-score; without one, mean Dice of the run's own segmentor."""
    if case.s_score is not None:
        return Agreement("S-score", case.s_score)
    if case.label is None or case.predicted_source is None:
        return Agreement("Dice", math.nan)
    classes = int(max(case.label.max(), case.predicted_source.max())) + 1
    scores = dice(case.predicted_source, case.label, classes)
    seen = scores[np.isfinite(scores)]
    return Agreement("Dice", float(seen.mean()) if seen.size else math.nan)


def worst_median_best(values: Sequence[float | None]) -> dict[str, int]:
    """Positions of the lowest, the middle and the highest value; {} of fewer than two values.

    None and NaN rank nowhere. Of an even number of values the middle is the lower of the two, of
    two values there is none.
    """
    ranked = [i for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    ranked.sort(key=lambda i: values[i])
    if len(ranked) < 2:
        return {}
    if len(ranked) == 2:
        return {"worst": ranked[0], "best": ranked[1]}
    return {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "best": ranked[-1]}


def directions(cases: Sequence[CaseImages]) -> list[list[CaseImages]]:
    """The cases by direction of translation, each in the order worst, median, best, the rest."""
    by_source: dict[str, list[CaseImages]] = {}
    for case in cases:
        by_source.setdefault(case.source_modality, []).append(case)
    return [[group[i] for i in _order(group)] for group in by_source.values()]


def _order(group: Sequence[CaseImages]) -> list[int]:
    first = list(worst_median_best([agreement(case).value for case in group]).values())
    return first + [i for i in range(len(group)) if i not in first]
