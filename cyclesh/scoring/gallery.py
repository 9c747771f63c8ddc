"""The test cases of a report: the worst, the median and the best first, the others folded away."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from cyclesh.scoring.panels import svg_panel
from cyclesh.scoring.ranking import agreement, directions, worst_median_best
from cyclesh.scoring.report_data import CaseImages, ReportData
from cyclesh.scoring.slices import PLANES, Plane, centre_of_structures, cut, pixel_mm
from cyclesh.scoring.style import structure_colour


class View(NamedTuple):
    """One column of a case: a volume and the class indices outlined on it."""

    name: str
    image: np.ndarray
    label: np.ndarray | None
    predicted: np.ndarray | None


def gallery(data: ReportData) -> str:
    """All cases, or "" if there are none."""
    return "".join(_direction(group, data) for group in directions(data.cases))


def legend(structures: Sequence[str]) -> str:
    """Structure colours, line styles and the two switches that hide the outlines."""
    swatches = "".join(
        f'<span><i style="background:{structure_colour(i)}"></i>{escape(name)}</span>'
        for i, name in enumerate(structures)
    )
    styles = "".join(
        f'<label><input type="checkbox" id="show-{style}" checked>'
        f'<svg viewBox="0 0 34 10" aria-hidden="true">{_sample_line(style)}</svg>{name}</label>'
        for style, name in (("label", "label"), ("predicted", "prediction"))
    )
    return f'<div class="legend">{swatches}{styles}</div>'


def _direction(group: Sequence[CaseImages], data: ReportData) -> str:
    """Cases of one direction, already in order."""
    source, target = group[0].source_modality.upper(), group[0].target_modality.upper()
    translated = any(case.translation is not None for case in group)
    title = f"{source} to {target}" if translated else source
    ranking = worst_median_best([agreement(case).value for case in group])
    ranks = {position: rank for rank, position in ranking.items()}
    drawn = [_case(case, ranks.get(i, ""), data) for i, case in enumerate(group)]
    shown = len(ranks) or 3
    rest = "".join(drawn[shown:])
    plural = "case" if len(drawn) - shown == 1 else "cases"
    more = f"<details><summary>{len(drawn) - shown} more {plural}</summary>{rest}</details>"
    return f"<h3>{escape(title)}</h3>{''.join(drawn[:shown])}{more if rest else ''}"


def _case(case: CaseImages, rank: str, data: ReportData) -> str:
    measure, value = agreement(case)
    score = f"{measure} {value:.3f}" if math.isfinite(value) else ""
    badge = f'<span class="rank">{rank}</span>' if rank else ""
    views = _views(case)
    names = "".join(f'<div class="head">{escape(view.name)}</div>' for view in views)
    centre = centre_of_structures(case.label, case.source.shape)
    rows = "".join(_plane_row(case, plane, views, centre, data) for plane in PLANES)
    return (
        f'<article class="case"><h4>{escape(case.case)} {badge}'
        f'<span class="score">{score}</span></h4>'
        f'<div class="views" style="--views:{len(views)}">{names}{rows}</div></article>'
    )


def _views(case: CaseImages) -> list[View]:
    source, target = case.source_modality.upper(), case.target_modality.upper()
    candidates = (
        (f"{source} source", case.source, case.predicted_source),
        (f"Synthetic {target}", case.translation, case.predicted_translation),
        (f"True {target}", case.truth, None),
        (f"Reconstructed {source}", case.reconstruction, None),
    )
    return [
        View(name, image, case.label, predicted)
        for name, image, predicted in candidates
        if image is not None
    ]


def _plane_row(
    case: CaseImages,
    plane: Plane,
    views: Sequence[View],
    centre: tuple[int, ...],
    data: ReportData,
) -> str:
    cells = []
    for number, view in enumerate(views):
        slices = [
            None if volume is None else cut(volume, plane, centre)
            for volume in (view.image, view.label, view.predicted)
        ]
        description = escape(f"{case.case}, {view.name}, {plane.name}", quote=True)
        picture = svg_panel(slices[0], pixel_mm(plane, data.spacing_mm), *slices[1:], description)
        sides = f'<b class="left">{plane.left}</b><b class="top">{plane.top}</b>'
        cells.append(f'<div class="cell">{picture}{sides if number == 0 else ""}</div>')
    return "".join(cells)


def _sample_line(style: str) -> str:
    casing = '<path class="outline predicted-casing" d="M1,5 H33"/>' if style != "label" else ""
    return f'{casing}<path class="outline {style}" stroke="{structure_colour(0)}" d="M1,5 H33"/>'
