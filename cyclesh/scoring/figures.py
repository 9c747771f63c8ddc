"""The paper's Figure 4 of a run: sources over their translations, three orthogonal cuts each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cyclesh.scoring.ranking import agreement, directions
from cyclesh.scoring.report_data import CaseImages, ReportData
from cyclesh.scoring.slices import PLANES, Plane, cut, cut_sizes_mm
from cyclesh.scoring.style import MUTED, plot_style

CUTS_WIDTH_INCHES = 4.2  # the three cuts of one case, side by side

# One case as each of the runs shown translated it: one, or two that are compared.
Sample = Sequence[CaseImages]


def figure4(
    samples: Sequence[Sequence[Sample]],
    spacing_mm: tuple[float, float, float],
    attribution: str,
    names: Sequence[str] = ("",),
) -> Figure:
    """Figure 4 of the paper: a row a direction, three samples in each, six in all.

    A sample is three orthogonal cuts through the centre of a volume, over the same of its
    translation, or of its translation by each of two runs.

    Args:
        samples: for each direction its samples, every case with a translation, all of one shape.
        attribution: a line below the figure; may be empty.
        names: of the runs; empty where there is but one.
    """
    sheet = Sheet.of(samples[0][0][0].source.shape, spacing_mm, len(names))
    footer = 0.4 if attribution else 0.0
    width = sheet.sample_width * max(len(row) for row in samples)
    height = sheet.sample_height * len(samples) + footer
    with plot_style():
        figure = Figure(figsize=(width, height))
        for row, line in enumerate(samples):
            for column, sample in enumerate(line):
                top = height - row * sheet.sample_height
                _draw_sample(figure, sheet, sample, names, column * sheet.sample_width, top)
        if attribution:
            figure.text(
                0.5, 0.08 / height, attribution,
                fontsize=7, color=MUTED, ha="center", va="bottom", wrap=True,
            )  # fmt: skip
    return figure


def samples_of(runs: Sequence[ReportData], count: int) -> list[list[Sample]]:
    """For each direction, as in the paper MR to CT first, the first `count` samples by rank.

    Of the first run's cases those that every run translated, in the order of `directions`.
    """
    translated = [
        {(case.case, case.source.shape): case for case in run.cases if case.translation is not None}
        for run in runs
    ]
    shared = [case for key, case in translated[0].items() if all(key in t for t in translated)]
    return [
        [[t[case.case, case.source.shape] for t in translated] for case in group[:count]]
        for group in reversed(directions(shared))
    ]


class Sheet(NamedTuple):
    """Where things lie in a sample of the figure, in inches; millimetres keep their proportions."""

    cuts: tuple[tuple[float, float], ...]  # height and width of the cut in each plane
    rows: int  # the source's, and one for each run
    left: float  # for the names of the rows
    gap: float = 0.05
    title: float = 0.27

    @classmethod
    def of(
        cls, shape: tuple[int, ...], spacing_mm: tuple[float, float, float], runs: int
    ) -> "Sheet":
        sizes = cut_sizes_mm(shape, spacing_mm)
        scale = CUTS_WIDTH_INCHES / sum(width for _, width in sizes)
        cuts = tuple((height * scale, width * scale) for height, width in sizes)
        return cls(cuts, rows=1 + runs, left=0.25 if runs == 1 else 0.4)

    @property
    def row_height(self) -> float:
        return max(height for height, _ in self.cuts)

    @property
    def sample_width(self) -> float:
        return self.left + sum(width + self.gap for _, width in self.cuts) + 0.1

    @property
    def sample_height(self) -> float:
        return self.title + self.rows * (self.row_height + self.gap) + 0.08


def _draw_sample(
    figure: Figure, sheet: Sheet, sample: Sample, names: Sequence[str], left: float, top: float
) -> None:
    """One case, its upper left corner at `left` and `top` inches from the lower left."""
    width, height = figure.get_size_inches()
    x_title, y_title = left + sheet.left, top - 0.19
    figure.text(x_title / width, y_title / height, _title(sample), fontsize=8.5)
    case = sample[0]
    centre = tuple(length // 2 for length in case.source.shape)
    synthetic = f"synthetic {case.target_modality.upper()}"
    rows = [(case.source, case.source_modality.upper())]
    for made, name in zip(sample, names, strict=True):
        rows.append((made.translation, f"{synthetic}\n{name}" if name else synthetic))
    for row, (volume, name) in enumerate(rows):
        middle = top - sheet.title - (row + 0.5) * sheet.row_height - row * sheet.gap
        x_name = (left + sheet.left - 0.06) / width
        size = min(8.0, 120 * sheet.row_height / max(map(len, name.split("\n"))))  # it must fit
        figure.text(
            x_name, middle / height, name, fontsize=size, color=MUTED,
            rotation=90, ha="right", va="center", multialignment="center",
        )  # fmt: skip
        x = left + sheet.left
        for plane, (cut_height, cut_width) in zip(PLANES, sheet.cuts, strict=True):
            corner = x / width, (middle - cut_height / 2) / height
            axis = figure.add_axes((*corner, cut_width / width, cut_height / height))
            _draw_slice(axis, cut(volume, plane, centre), plane if row == 0 else None)
            x += cut_width + sheet.gap


def _title(sample: Sample) -> str:
    """The case, and what it is ranked by; of each run."""
    scores = [agreement(case) for case in sample]
    values = " | ".join(f"{score.value:.2f}" for score in scores if math.isfinite(score.value))
    return f"{sample[0].case}   {scores[0].measure} {values}" if values else sample[0].case


def _draw_slice(axis: Axes, pixels: np.ndarray, sides: Plane | None) -> None:
    """Fill the axes with a slice; `sides` asks for the letters of the patient's sides."""
    axis.imshow(pixels, "gray", vmin=-1, vmax=1, interpolation="bicubic", aspect="auto")
    axis.set_axis_off()
    for x, y, letter in ((0.04, 0.5, sides.left), (0.5, 0.94, sides.top)) if sides else ():
        axis.text(
            x, y, letter, color="white", fontsize=6.5, ha="center", va="center",
            transform=axis.transAxes, path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )  # fmt: skip
