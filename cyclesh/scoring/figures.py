"""The paper's Figure 4 of a run: sources over their translations, three orthogonal cuts each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cyclesh.scoring.ranking import agreement
from cyclesh.scoring.report_data import CaseImages
from cyclesh.scoring.slices import PLANES, Plane, cut, cut_sizes_mm
from cyclesh.scoring.style import MUTED, plot_style

CUTS_WIDTH_INCHES = 4.2  # the three cuts of one case, side by side


def figure4(
    samples: Sequence[Sequence[CaseImages]],
    spacing_mm: tuple[float, float, float],
    attribution: str,
) -> Figure:
    """Figure 4 of the paper: a row a direction, three samples in each, six in all.

    A sample is three orthogonal cuts through the centre of a volume, over the same of its
    translation.

    Args:
        samples: for each direction its cases, every one with a translation, all of one shape.
        attribution: a line below the figure; may be empty.
    """
    sheet = Sheet.of(samples[0][0].source.shape, spacing_mm)
    footer = 0.4 if attribution else 0.0
    width = sheet.sample_width * max(len(cases) for cases in samples)
    height = sheet.sample_height * len(samples) + footer
    with plot_style():
        figure = Figure(figsize=(width, height))
        for row, cases in enumerate(samples):
            for column, case in enumerate(cases):
                top = height - row * sheet.sample_height
                _draw_sample(figure, sheet, case, column * sheet.sample_width, top)
        if attribution:
            figure.text(
                0.5, 0.08 / height, attribution,
                fontsize=7, color=MUTED, ha="center", va="bottom", wrap=True,
            )  # fmt: skip
    return figure


class Sheet(NamedTuple):
    """Where things lie in a sample of the figure, in inches; millimetres keep their proportions."""

    cuts: tuple[tuple[float, float], ...]  # height and width of the cut in each plane
    gap: float = 0.05
    left: float = 0.25  # for the names of the rows
    title: float = 0.27

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> "Sheet":
        sizes = cut_sizes_mm(shape, spacing_mm)
        scale = CUTS_WIDTH_INCHES / sum(width for _, width in sizes)
        return cls(tuple((height * scale, width * scale) for height, width in sizes))

    @property
    def row_height(self) -> float:
        return max(height for height, _ in self.cuts)

    @property
    def sample_width(self) -> float:
        return self.left + sum(width + self.gap for _, width in self.cuts) + 0.1

    @property
    def sample_height(self) -> float:
        return self.title + 2 * (self.row_height + self.gap) + 0.08


def _draw_sample(figure: Figure, sheet: Sheet, case: CaseImages, left: float, top: float) -> None:
    """One case, its upper left corner at `left` and `top` inches from the lower left."""
    width, height = figure.get_size_inches()
    measure, value = agreement(case)
    score = f"   {measure} {value:.2f}" if math.isfinite(value) else ""
    x_title, y_title = left + sheet.left, top - 0.19
    figure.text(x_title / width, y_title / height, f"{case.case}{score}", fontsize=8.5)
    centre = tuple(length // 2 for length in case.source.shape)
    rows = (
        (case.source, case.source_modality.upper()),
        (case.translation, f"synthetic {case.target_modality.upper()}"),
    )
    for row, (volume, name) in enumerate(rows):
        middle = top - sheet.title - (row + 0.5) * sheet.row_height - row * sheet.gap
        x_name = (left + sheet.left - 0.06) / width
        figure.text(
            x_name, middle / height, name,
            fontsize=8, color=MUTED, rotation=90, ha="right", va="center",
        )  # fmt: skip
        x = left + sheet.left
        for plane, (cut_height, cut_width) in zip(PLANES, sheet.cuts, strict=True):
            corner = x / width, (middle - cut_height / 2) / height
            axis = figure.add_axes((*corner, cut_width / width, cut_height / height))
            _draw_slice(axis, cut(volume, plane, centre), plane if row == 0 else None)
            x += cut_width + sheet.gap


def _draw_slice(axis: Axes, pixels: np.ndarray, sides: Plane | None) -> None:
    """Fill the axes with a slice; `sides` asks for the letters of the patient's sides."""
    axis.imshow(pixels, "gray", vmin=-1, vmax=1, interpolation="bicubic", aspect="auto")
    axis.set_axis_off()
    for x, y, letter in ((0.04, 0.5, sides.left), (0.5, 0.94, sides.top)) if sides else ():
        axis.text(
            x, y, letter, color="white", fontsize=6.5, ha="center", va="center",
            transform=axis.transAxes, path_effects=[withStroke(linewidth=1.5, foreground="black")],
        )  # fmt: skip
