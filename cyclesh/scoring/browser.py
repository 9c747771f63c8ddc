"""The case browser: what the page's program (assets/) needs to show the volumes of the cases.

A volume is a byte a voxel, zlib and base64; the program draws slices and outlines itself.
"""

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Any

import numpy as np

from cyclesh.scoring.page import asset, paragraph
from cyclesh.scoring.ranking import agreement, directions, worst_median_best
from cyclesh.scoring.report_data import CaseImages, ReportData
from cyclesh.scoring.slices import PLANES, centre_of_structures
from cyclesh.scoring.style import structure_colour

# Of all volumes together, before they are packed: to a report of less than 15 MB.
BUDGET_BYTES = 14_000_000
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


def browser(runs: Sequence[ReportData]) -> str:
    """The browser of the first run's cases, every run's volumes side by side; "" without cases."""
    if not runs[0].cases:
        return ""
    text = json.dumps(payload(runs), separators=(",", ":"), allow_nan=False)
    # Within <script> only "<" could end the element early.
    return Template(asset("cases.html")).substitute(
        data=text.replace("<", "\\u003c"), coarser=paragraph(_told(coarsening(runs)))
    )


def payload(runs: Sequence[ReportData]) -> dict[str, Any]:
    """The JSON that assets/browser.js reads. Runs after the first show the cases they have."""
    data = runs[0]
    factor = coarsening(runs)
    entries = [
        _entry(rank, [_match(run, case) for run in runs], runs, factor)
        for group in directions(data.cases)
        for case, rank in _ranked(group)
    ]
    shape = _coarser(data.cases[0].source, factor).shape
    return {
        "shape": shape,
        "spacing": [mm * factor for mm in data.spacing_mm],
        "structures": [
            {"name": name, "colour": structure_colour(i)} for i, name in enumerate(data.structures)
        ],
        "planes": [
            {
                "name": plane.name,
                "axis": plane.axis,
                "sides": {
                    "left": plane.left,
                    "right": OPPOSITE[plane.left],
                    "top": plane.top,
                    "bottom": OPPOSITE[plane.top],
                },
            }
            for plane in PLANES
        ],
        "cases": entries,
    }


def coarsening(runs: Sequence[ReportData]) -> int:
    """By how much the grid is coarsened along each axis so that all volumes fit the budget."""
    volumes = (
        value
        for run in runs
        for case in run.cases
        for value in vars(case).values()
        if isinstance(value, np.ndarray)
    )
    return max(1, math.ceil((sum(v.size for v in volumes) / BUDGET_BYTES) ** (1 / 3)))


def _told(factor: int) -> str:
    """That volumes are drawn coarser than they were scored; "" where they are not."""
    if factor == 1:
        return ""
    nth = {2: "2nd", 3: "3rd"}.get(factor, f"{factor}th")
    return (
        f"To keep this file small, volumes are shown at every {nth} voxel along each axis: images "
        "as means of blocks. Scores are of the whole grid."
    )


def _ranked(group: Sequence[CaseImages]) -> Iterator[tuple[CaseImages, str]]:
    """Cases of a direction, already in order, with "worst", "median", "best" or ""."""
    ranking = worst_median_best([agreement(case).value for case in group])
    ranks = {position: rank for rank, position in ranking.items()}
    for position, case in enumerate(group):
        yield case, ranks.get(position, "")


def _match(run: ReportData, wanted: CaseImages) -> CaseImages | None:
    same = (c for c in run.cases if (c.case, c.source.shape) == (wanted.case, wanted.source.shape))
    return next(same, None)


def _entry(
    rank: str,
    cases: Sequence[CaseImages | None],
    runs: Sequence[ReportData],
    factor: int,
) -> dict[str, Any]:
    """One case: its views, and the arrays that they refer to by number."""
    arrays: dict[bytes, int] = {}  # in order; what two runs share is kept once

    def number(volume: np.ndarray) -> int:
        return arrays.setdefault(_as_bytes(_coarser(volume, factor)), len(arrays))

    case = cases[0]
    several = len(runs) > 1
    blocks = [
        list(_views(found, f", {run.title}" if several else "", number, with_truth=found is case))
        for found, run in zip(cases, runs, strict=True)
        if found is not None
    ]
    # The same kind of volume of all runs side by side.
    views = sorted((view for block in blocks for view in block), key=lambda view: view["order"])
    scores = [_score(found) for found in cases if found is not None]
    source, target = case.source_modality.upper(), case.target_modality.upper()
    way = f"{source} to {target}" if case.translation is not None else source
    centre = centre_of_structures(case.label, case.source.shape)
    return {
        "id": case.case,
        "direction": f"{way}, by {agreement(case).measure}",
        "rank": rank,
        "score": " | ".join(score for score in scores if score),
        "centre": [
            min(i // factor, n // factor - 1)
            for i, n in zip(centre, case.source.shape, strict=True)
        ],
        "views": [
            {key: value for key, value in view.items() if key != "order"}
            | {"wide": not several or view["order"] < 3, "narrow": view["order"] < 2}
            for view in views
        ],
        "data": base64.b64encode(zlib.compress(b"".join(arrays), 9)).decode("ascii"),
    }


def _views(case: CaseImages, run: str, number, with_truth: bool) -> Iterator[Mapping[str, Any]]:
    """What is shown of a case of a run; `order` is the place of its kind."""
    source, target = case.source_modality.upper(), case.target_modality.upper()
    label = {} if case.label is None else {"label": number(case.label)}

    def view(order: int, name: str, image, predicted=None, **more) -> dict[str, Any]:
        outlined = {} if predicted is None else {"predicted": number(predicted)}
        return {"order": order, "name": name, "image": number(image), **label, **outlined, **more}

    yield view(0, f"{source} source{run}", case.source, case.predicted_source)
    if case.translation is not None:
        yield view(1, f"Synthetic {target}{run}", case.translation, case.predicted_translation)
    if case.truth is not None and with_truth:
        yield view(2, f"True {target}", case.truth)
    if case.reconstruction is not None:
        yield view(3, f"Reconstructed {source}{run}", case.reconstruction)
        yield view(
            4, f"Difference{run}", case.reconstruction,
            before=number(case.source), note="reconstruction − source",
        )  # fmt: skip


def _score(case: CaseImages) -> str:
    value = agreement(case).value
    return f"{value:.3f}" if math.isfinite(value) else ""


def _coarser(volume: np.ndarray, factor: int) -> np.ndarray:
    """Every `factor`-th voxel along each axis for labels, block means for images."""
    if factor == 1:
        return volume
    blocks = tuple(n // factor for n in volume.shape)
    inner = volume[tuple(slice(n * factor) for n in blocks)]
    if volume.dtype == np.uint8:
        return inner[(slice(factor // 2, None, factor),) * 3]
    z, y, x = blocks
    return inner.reshape(z, factor, y, factor, x, factor).mean(axis=(1, 3, 5))


def _as_bytes(volume: np.ndarray) -> bytes:
    """Labels as they are, intensities in [-1, 1] as 0 to 255."""
    if volume.dtype != np.uint8:
        volume = np.rint((np.clip(volume, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(volume).tobytes()
