"""report.html: what a run reached, how it got there, and what its volumes look like.

One file that needs no network, and its figures as PNG and SVG in figures/ beside it. A run that has
no generators, no segmentors, no judge or no paired truth gets the sections it has data for.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from cyclesh.scoring import curves, facts, tables
from cyclesh.scoring.figures import translation_figure
from cyclesh.scoring.findings import find_warnings
from cyclesh.scoring.gallery import gallery, legend
from cyclesh.scoring.page import page, paragraph, section
from cyclesh.scoring.ranking import directions
from cyclesh.scoring.report_data import CaseImages, ReportData
from cyclesh.scoring.style import inline_svg, save_figure

__all__ = ["CaseImages", "ReportData", "write_report"]

SAMPLES_PER_DIRECTION = 3  # of the figure: the worst, the median and the best
WARNINGS_SHOWN = 5

DEFINITIONS = (
    "Dice is counted per case and structure on the training grid, then averaged over cases, then "
    "over structures; the background does not count, nor does a structure that neither the label "
    "nor the prediction has. ASSD and HD95 are symmetric surface distances; a case in which either "
    "mask is empty has none and is counted in the column “empty”. The bar under a Dice is its "
    "length in [0, 1], the tick the judge's Dice."
)
S_SCORE = (
    "S-score: a judge, trained on all real training volumes of a modality, segments the synthetic "
    "volume, and its result is compared by Dice with the label of the volume it was made from. "
    "The judge's own Dice limits it. The ceiling is the judge's Dice on true volumes of the target "
    "modality of the same subjects."
)
CONVENTION = (
    "Radiological convention: the patient's right (R) is on the left of axial and coronal cuts, "
    "anterior (A) is up in axial and on the left in sagittal cuts, superior (S) is up otherwise. "
    "From the top: axial, coronal, sagittal, each through the centre of the labelled structures, "
    "in millimetre proportions, interpolated for display; black is −1, white is 1. Predictions on "
    "the source are the run's own, those on the synthetic volume the judge's."
)


def write_report(data: ReportData, path: Path) -> None:
    """Write report.html to `path` and the figures to the folder figures/ beside it.

    Every file appears whole or not at all. Every case of `data.cases` is drawn, about 0.3 MB each:
    hand over a few.
    """
    path = Path(path)
    best_step = tables.lookup(data.results, "checkpoint", "step")
    draws = curves.panels(data.metrics, best_step)
    for name, figure in _figures(data, draws).items():
        save_figure(figure, path.parent / "figures" / name)
    body = "\n".join(
        (
            _header(data),
            section(
                "Segmentation and shape",
                _grid(tables.segmentation(data)),
                _with(DEFINITIONS, tables.segmentation(data)),
                _grid(
                    _column(_dice_by_case(data), tables.translation(data)),
                    _column(tables.s_score(data), _with(S_SCORE, tables.s_score(data))),
                ),
            ),
            section("Training", _curves(draws)),
            section("Test cases", *_cases(data)),
            section("The run", facts.provenance(data.results), facts.configuration(data.results)),
        )
    )
    partial_path = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial_path.write_text(page(data.title, body), encoding="utf-8")
    os.replace(partial_path, path)


def _figures(data: ReportData, draws: Mapping[str, curves.Draw]) -> dict[str, Figure]:
    """File name -> figure, for the folder figures/."""
    figures = {}
    if draws:
        figures["training"] = curves.curves_figure(list(draws.values()))
    translated = [case for case in data.cases if case.translation is not None]
    if translated:
        samples = [group[:SAMPLES_PER_DIRECTION] for group in directions(translated)]
        figures["translation"] = translation_figure(samples, data.spacing_mm, data.attribution)
    return figures


def _header(data: ReportData) -> str:
    names = " and ".join(modality.upper() for modality in data.modalities)
    structures = ", ".join(data.structures)
    missing = (
        "No test scores yet."
        if not tables.tiles(data)
        else "No S-score: it takes a judge and generators."
        if not tables.s_score(data)
        else ""
    )
    return (
        f"<header><h1>{escape(data.title)}</h1>"
        + paragraph(f"{names}; {structures}", "lead")
        + tables.tiles(data)
        + paragraph(missing)
        + _warnings(find_warnings(data))
        + "</header>"
    )


def _warnings(texts: Sequence[str]) -> str:
    """A box of them; all but the first few folded away."""
    if not texts:
        return ""
    items = [f"<li>{escape(text)}</li>" for text in texts]
    shown, rest = "".join(items[:WARNINGS_SHOWN]), "".join(items[WARNINGS_SHOWN:])
    count = len(items) - WARNINGS_SHOWN
    more = f"<details><summary>{count} more</summary><ul>{rest}</ul></details>" if rest else ""
    return f'<div class="warnings"><strong>Worth a look</strong><ul>{shown}</ul>{more}</div>'


def _grid(*cells: str) -> str:
    return f'<div class="tables">{"".join(cells)}</div>' if any(cells) else ""


def _column(*parts: str) -> str:
    return f"<div>{''.join(parts)}</div>" if any(parts) else ""


def _with(note: str, content: str) -> str:
    """The note as a paragraph if there is content that it explains."""
    return paragraph(note) if content else ""


def _dice_by_case(data: ReportData) -> str:
    if not data.case_scores:
        return ""
    draw = partial(
        curves.draw_dice_by_case,
        scores=data.case_scores,
        structures=data.structures,
        modalities=data.modalities,
    )
    return f'<figure class="plot">{inline_svg(curves.panel_figure(draw))}</figure>'


def _curves(draws: Mapping[str, curves.Draw]) -> str:
    drawn = "".join(
        f"<figure>{inline_svg(curves.panel_figure(d))}</figure>" for d in draws.values()
    )
    return f'<div class="curves">{drawn}</div>' if drawn else ""


def _cases(data: ReportData) -> tuple[str, ...]:
    if not data.cases:
        return ()
    return (
        legend(data.structures),
        gallery(data),
        paragraph(CONVENTION),
        paragraph(data.attribution),
    )
