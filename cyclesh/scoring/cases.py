"""From the volumes of one case to rows, and from rows to the blocks of results.json."""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cyclesh.files import replacing
from cyclesh.scoring.dice import dice
from cyclesh.scoring.similarity import Similarity
from cyclesh.scoring.surface import assd_mm, hd95_mm, surface_distances_mm

MEASURES = ("dice", "assd_mm", "hd95_mm")
Empty = Literal["", "prediction", "truth", "both"]


@dataclass(frozen=True)
class CaseScore:
    """One structure of one case. Undefined scores are NaN; `empty` says which mask was empty."""

    case: str
    modality: str
    structure: str
    dice: float
    assd_mm: float
    hd95_mm: float
    empty: Empty


def score_case(
    case: str,
    modality: str,
    predicted: np.ndarray,
    truth: np.ndarray,
    structures: Sequence[str],
    spacing_mm: tuple[float, float, float],
) -> list[CaseScore]:
    """One row for each structure.

    Args:
        predicted, truth: class indices, shape (z, y, x); structure i has index i + 1.
        spacing_mm: voxel spacing along (z, y, x).
    """
    overlaps = dice(predicted, truth, len(structures) + 1)
    rows = []
    for index, (structure, overlap) in enumerate(zip(structures, overlaps, strict=True), start=1):
        masks = predicted == index, truth == index
        distances = surface_distances_mm(*masks, spacing_mm)
        rows.append(
            CaseScore(
                case=case,
                modality=modality,
                structure=structure,
                dice=float(overlap),
                assd_mm=assd_mm(distances),
                hd95_mm=hd95_mm(distances),
                empty=_which_is_empty(*masks),
            )
        )
    return rows


def summarise(rows: Sequence[CaseScore]) -> dict[str, Any]:
    """One modality's block of results.json: dice, assd_mm, hd95_mm, n (cases) and empty.

    `empty` counts, for each structure, the cases whose prediction or truth has none of it. Such a
    case has no surface distances; its Dice is 0, or undefined if both are empty.
    """
    structures = list(dict.fromkeys(row.structure for row in rows))
    cases = list(dict.fromkeys(row.case for row in rows))
    by_key = {(row.case, row.structure): row for row in rows}

    def table(measure: str) -> np.ndarray:
        return np.array([[getattr(by_key[c, s], measure) for s in structures] for c in cases])

    return {
        **{name: average(table(name), structures) for name in MEASURES},
        "n": len(cases),
        "empty": {s: sum(bool(by_key[c, s].empty) for c in cases) for s in structures},
    }


def average(
    values: np.ndarray | Sequence[np.ndarray], structures: Sequence[str]
) -> dict[str, float | None]:
    """Means over the cases, then over the structures: {"mean": ..., structure: ...}.

    Args:
        values: array or list of rows, shape (cases, structures); NaN where a case has no value,
            which leaves it out of the means.

    Returns:
        Plain floats; None, never NaN, where nothing is left to average.
    """
    per_case = np.asarray(values, dtype=np.float64).reshape(len(values), len(structures))
    per_structure = [_mean(column) for column in per_case.T]
    named = {name: _or_none(value) for name, value in zip(structures, per_structure, strict=True)}
    return {"mean": _or_none(_mean(np.array(per_structure))), **named}


def summarise_similarity(scores: Sequence[Similarity]) -> dict[str, float | None]:
    """Mean over the cases of each similarity measure; None where no case has a finite value."""
    columns = np.array(scores, dtype=np.float64).reshape(len(scores), len(Similarity._fields)).T
    return {
        name: _or_none(_mean(column))
        for name, column in zip(Similarity._fields, columns, strict=True)
    }


def write_cases(rows: Sequence[CaseScore], path: Path) -> None:
    """cases.csv: one line for each case and structure, undefined scores as empty fields."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(CaseScore)])
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _blank_if_nan(value) for key, value in asdict(row).items()})


def read_cases(path: Path) -> list[CaseScore]:
    """The rows that `write_cases` wrote."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [_parse(row) for row in csv.DictReader(file)]


def _parse(row: dict[str, str]) -> CaseScore:
    measures = {name: float(row[name] or "nan") for name in MEASURES}
    return CaseScore(**{**row, **measures})


def _which_is_empty(predicted: np.ndarray, truth: np.ndarray) -> Empty:
    if predicted.any():
        return "" if truth.any() else "truth"
    return "prediction" if truth.any() else "both"


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _blank_if_nan(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value
