"""What the scores of the test cases give reason to look at."""

from collections.abc import Sequence
from statistics import median

import numpy as np

from cyclesh.scoring.cases import CaseScore
from cyclesh.scoring.report_data import ReportData

LOW_SHARE_OF_MEDIAN = 0.8  # a case below this share of the median Dice is worth a look


def find_warnings(data: ReportData) -> list[str]:
    """The caller's warnings, and what the scores of the cases give reason to look at."""
    found = list(data.warnings)
    for row in data.case_scores:
        if row.empty in ("prediction", "truth"):
            what = {"prediction": "was not predicted", "truth": "is not in the label"}[row.empty]
            found.append(f"{row.case}: {row.structure} {what}")
    for modality in data.modalities:
        name = modality.upper()
        found += _low(data.case_scores, modality, "Dice", f"{name} case")
        found += _low(data.s_scores, modality, "S-score", f"synthetic {name}")
    return found


def _low(rows: Sequence[CaseScore], modality: str, measure: str, what: str) -> list[str]:
    """The cases far below the median of their kind."""
    means = _mean_by_case(rows, modality)
    middle = median(means.values()) if means else 0.0
    return [
        f"{case}: low agreement, {measure} {value:.3f} where the median {what} has {middle:.3f}"
        for case, value in means.items()
        if value < LOW_SHARE_OF_MEDIAN * middle
    ]


def _mean_by_case(rows: Sequence[CaseScore], modality: str) -> dict[str, float]:
    by_case: dict[str, list[float]] = {}
    for row in rows:
        if row.modality == modality and np.isfinite(row.dice):
            by_case.setdefault(row.case, []).append(row.dice)
    return {case: float(np.mean(values)) for case, values in by_case.items()}
