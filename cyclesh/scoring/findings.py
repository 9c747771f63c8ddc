"""What the scores of the test cases give reason to look at."""

from statistics import median

import numpy as np

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
        means = _mean_dice_by_case(data, modality)
        middle = median(means.values()) if means else 0.0
        found += [
            f"{case}: low agreement, Dice {value:.3f} where the median {modality.upper()} case "
            f"has {middle:.3f}"
            for case, value in means.items()
            if value < LOW_SHARE_OF_MEDIAN * middle
        ]
    return found


def _mean_dice_by_case(data: ReportData, modality: str) -> dict[str, float]:
    by_case: dict[str, list[float]] = {}
    for row in data.case_scores:
        if row.modality == modality and np.isfinite(row.dice):
            by_case.setdefault(row.case, []).append(row.dice)
    return {case: float(np.mean(values)) for case, values in by_case.items()}
