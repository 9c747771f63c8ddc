"""report.html: what a run reached, how it got there, and what its volumes look like.

One file that needs no network, and its figures as PNG and SVG in figures/ beside it. A run that has
no generators, no segmentors, no judge or no paired truth gets the sections it has data for. Two
runs stand side by side.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from cyclesh.files import write_text
from cyclesh.scoring import curves, facts, tables
from cyclesh.scoring.browser import browser
from cyclesh.scoring.figures import figure4, samples_of
from cyclesh.scoring.findings import find_warnings
from cyclesh.scoring.headline import headline
from cyclesh.scoring.page import page, paragraph, section
from cyclesh.scoring.report_data import CaseImages, ReportData
from cyclesh.scoring.style import data_url, inline_svg, save_figure

__all__ = ["CaseImages", "ReportData", "write_report"]

SAMPLES_PER_DIRECTION = 3  # of Figure 4: the worst, the median and the best
COMPARED = "figure4_compared"  # Figure 4 of two runs
SHEET_DPI = 110  # of Figure 4 within the page
WARNINGS_SHOWN = 5

DEFINITIONS = (
    "Dice is counted per case and structure on the training grid, then averaged over cases, then "
    "over structures; the background does not count, nor does a structure that neither the label "
    "nor the prediction has. ASSD and HD95 are symmetric surface distances; a case in which either "
    "mask is empty has none and is counted in the column “empty”. The bar under a score is its "
    "length in [0, 1], the tick what it is held against."
)
S_SCORE = (
    "S-score: a judge, trained on all real training volumes of a modality, segments the synthetic "
    "volume, and its result is compared by Dice with the label of the volume it was made from. "
    "The ceiling is the judge's Dice on true volumes of the target modality of the same subjects; "
    "synthetic volumes that are easier to segment than true ones, smooth or free of noise, may lie "
    "above it."
)
EVENTS = (
    "Shaded bands are the stretches of the run; the dashed green line with the star is the "
    "checkpoint that was scored. Thin lines are single steps, thick ones their running median."
)
FIGURE_4 = (
    "Figure 4 of the paper: three orthogonal cuts through the centre of each volume, above the "
    "source, below {}; of each direction the worst, the median and the best case."
)
CONVENTION = (
    "Of each direction the worst, the median and the best test case, and others evenly between "
    "them. "
    "Drag or tap in a picture, or use the arrow keys, and all others follow. Radiological "
    "convention: the patient's right (R) is on the left of axial and coronal cuts, anterior (A) "
    "is up in axial and on the left in sagittal cuts. Millimetre proportions; black is −1, white "
    "is 1. Predictions on the source are the run's own, those on the synthetic volume the judge's. "
    "In differences orange is brighter, blue darker than the source, at full colour from half of "
    "the range on."
)


def write_report(runs: Sequence[ReportData], path: Path) -> None:
    """Write report.html to `path` and the figures to the folder figures/ beside it.

    Every file appears whole or not at all. All cases of the first run are in the browser, those of
    a second run where the first has them, too.
    """
    path = Path(path)
    drawn = figures(runs)
    for name, figure in drawn.items():
        save_figure(figure, path.parent / "figures" / name)
    if COMPARED not in drawn:  # that of an earlier report would seem to belong to this one
        for old in (path.parent / "figures").glob(f"{COMPARED}.*"):
            old.unlink()
    title = " against ".join(run.title for run in runs)
    body = "\n".join(
        (
            _header(title, runs),
            _scores(runs),
            section("Training", _beside(runs, _curves, "curves"), _with(EVENTS, runs[0].metrics)),
            section(
                f"{tables.split_word(runs[0].results).capitalize()} cases",
                browser(runs),
                _with(CONVENTION, runs[0].cases),
                _sheet(drawn),
                paragraph(runs[0].attribution),
            ),
            section(
                "The run" if len(runs) == 1 else "The runs",
                facts.differences(runs),
                _beside(runs, _provenance, "side"),
            ),
        )
    )
    write_text(path, page(title, body))


def figures(runs: Sequence[ReportData]) -> dict[str, Figure]:
    """File name -> figure, for the folder figures/: the first run's, and Figure 4 of both."""
    data, found = runs[0], {}
    draws = [draw for _, draw in _panels(data).values()]
    if draws:
        found["training"] = curves.curves_figure(draws)
    sheets = {"figure4": runs[:1]} | ({COMPARED: runs} if len(runs) > 1 else {})
    for name, shown in sheets.items():
        if samples := samples_of(shown, SAMPLES_PER_DIRECTION):
            titles = [run.title for run in shown] if len(shown) > 1 else [""]
            found[name] = figure4(samples, data.spacing_mm, data.attribution, titles)
    return found


def _header(title: str, runs: Sequence[ReportData]) -> str:
    names = " and ".join(modality.upper() for modality in runs[0].modalities)
    missing = (
        "No test scores yet."
        if not headline(runs)
        else "No S-score: it takes a judge and generators."
        if not any(tables.s_score(run) for run in runs)
        else ""
    )
    return (
        f"<header><h1>{escape(title)}</h1>"
        + paragraph(f"{names}; {', '.join(runs[0].structures)}", "lead")
        + headline(runs)
        + paragraph(missing)
        + "".join(_warnings(run, len(runs) > 1) for run in runs)
        + "</header>"
    )


def _warnings(run: ReportData, named: bool) -> str:
    """A box of them; all but the first few folded away."""
    items = [f"<li>{escape(text)}</li>" for text in find_warnings(run)]
    if not items:
        return ""
    shown, rest = "".join(items[:WARNINGS_SHOWN]), "".join(items[WARNINGS_SHOWN:])
    count = len(items) - WARNINGS_SHOWN
    more = f"<details><summary>{count} more</summary><ul>{rest}</ul></details>" if rest else ""
    title = f"Worth a look in {escape(run.title)}" if named else "Worth a look"
    return f'<div class="warnings"><strong>{title}</strong><ul>{shown}</ul>{more}</div>'


def _scores(runs: Sequence[ReportData]) -> str:
    return section(
        "Segmentation and shape",
        _beside(runs, tables.segmentation, "tables"),
        _with(DEFINITIONS, any(any(tables.segmentation(run)) for run in runs)),
        _beside(runs, _shape, "tables"),
        _with(S_SCORE, any(tables.s_score(run) for run in runs)),
        _beside(runs, _boxes, "curves"),
    )


def _shape(run: ReportData) -> list[str]:
    return [tables.s_score(run), tables.translation(run)]


def _boxes(run: ReportData) -> list[str]:
    """Box plots by structure: of the segmentors' Dice and of the S-score."""
    kinds = (("Dice of every case", run.case_scores), ("S-score of every case", run.s_scores))
    return [
        _plot(
            partial(
                curves.draw_boxes,
                title=title,
                scores=scores,
                structures=run.structures,
                modalities=run.modalities,
            ),
            f"{title}, by structure and modality",
        )
        for title, scores in kinds
        if scores
    ]


def _panels(run: ReportData) -> Mapping[str, tuple[str, curves.Draw]]:
    best_step = tables.lookup(run.results, "checkpoint", "step")
    return curves.panels(run.metrics, run.events, best_step, run.modalities)


def _curves(run: ReportData) -> list[str]:
    return [_plot(draw, f"{title}, by training step") for title, draw in _panels(run).values()]


def _provenance(run: ReportData) -> list[str]:
    parts = facts.provenance(run) + facts.configuration(run.results)
    return [f"<div>{parts}</div>"] if parts else []


def _plot(draw: curves.Draw, description: str) -> str:
    return f"<figure>{inline_svg(curves.panel_figure(draw), description)}</figure>"


def _sheet(drawn: Mapping[str, Figure]) -> str:
    """Figure 4 within the page, folded away; it needs no program."""
    figure = drawn.get(COMPARED, drawn.get("figure4"))
    if figure is None:
        return ""
    told = FIGURE_4.format("its translation" + " by either run" * (COMPARED in drawn))
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.facecolor": "white"}):
        figure.savefig(buffer, format="png", dpi=SHEET_DPI, metadata={"Software": None})
    return (
        '<details class="sheet"><summary>Six samples at a glance (Figure 4)</summary>'
        f'<img alt="{escape(told)}" src="{data_url(buffer.getvalue())}">'
        f"{paragraph(told)}</details>"
    )


def _beside(
    runs: Sequence[ReportData], parts: Callable[[ReportData], Sequence[str]], style: str
) -> str:
    """The parts of one run in a grid; of two runs, a column each."""
    if len(runs) == 1:
        cells = "".join(parts(runs[0]))
    else:
        columns = ["".join(parts(run)) for run in runs]
        if not any(columns):
            return ""
        cells = "".join(
            f"<div><h3>{escape(run.title)}</h3>{column or paragraph('Nothing of this yet.')}</div>"
            for run, column in zip(runs, columns, strict=True)
        )
    return f'<div class="{style}">{cells}</div>' if cells else ""


def _with(note: str, content: object) -> str:
    """The note as a paragraph if there is content that it explains."""
    return paragraph(note) if content else ""
