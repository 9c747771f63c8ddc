"""Curves with error bars, and grids of slices: the paper's figures as matplotlib figures."""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cyclesh.scoring.overlay import draw_outlined
from cyclesh.scoring.style import MUTED, line_colour, plot_style, structure_colour

STYLES = ("-", "--", "-.", ":")  # with the markers, tell lines apart without colour
NOTE_POINTS = 6.5
LETTER_INCHES = 0.58 * NOTE_POINTS / 72  # of the note, in the mean
MARKERS = ("o", "s", "^", "D")


class Line(NamedTuple):
    """One curve; ``sd`` may hold None. ``colour`` and ``style`` are positions in the legend."""

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    sd: Sequence[float | None]
    colour: int
    style: int


class Panel(NamedTuple):
    """One plot. A ``level`` is a horizontal line: (label, height)."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    levels: Sequence[tuple[str, float]] = ()


class Tile(NamedTuple):
    """One slice: intensities in [-1, 1], outlines of classes or None, pixel size, words above."""

    image: np.ndarray
    classes: np.ndarray | None
    size_mm: tuple[float, float]
    title: str


def curves_figure(panels: Sequence[Panel], note: str = "") -> Figure:
    """Panels side by side, one legend below; bars are one standard deviation over seeds."""
    with plot_style():
        figure = Figure(figsize=(4.2 * len(panels), 3.6))
        named: dict[tuple[str, str], Line2D] = {}  # what several panels show is named once
        for axis, panel in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            for handle in _draw_panel(axis, panel):
                named.setdefault((handle.get_label(), handle.get_linestyle()), handle)
        handles = list(named.values())
        widest = 0.9 + 0.075 * max(len(handle.get_label()) for handle in handles)  # inches
        columns = max(1, int(figure.get_figwidth() / widest))
        rows = math.ceil(len(handles) / columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * rows)
        figure.legend(handles=handles, loc="lower center", ncols=columns, handlelength=3)
        _footer(figure, note, rows)
    return figure


def _draw_panel(axis: Axes, panel: Panel) -> list[Line2D]:
    """Draws it; returns what its lines and levels look like, for a legend.

    Lines stand a little apart along x, so that no bar hides another.
    """
    handles, places = [], sorted({x for line in panel.lines for x in line.x})
    apart = 0.012 * (places[-1] - places[0] or 2 * places[0]) if places else 0.0
    for number, line in enumerate(panel.lines):
        looks = {
            "color": line_colour(line.colour),
            "linestyle": STYLES[line.style % len(STYLES)],
            "marker": MARKERS[line.colour % len(MARKERS)],
            "markersize": 4,
        }
        bars = [0.0 if sd is None else sd for sd in line.sd]
        shift = apart * (number - (len(panel.lines) - 1) / 2)
        axis.errorbar([x + shift for x in line.x], line.mean, yerr=bars, capsize=2, **looks)
        handles.append(Line2D([], [], label=line.label, **looks))
    for label, height in panel.levels:
        looks = {"color": MUTED, "linewidth": 0.9, "linestyle": ":"}
        axis.axhline(height, **looks)
        handles.append(Line2D([], [], label=label, **looks))
    if len(places) == 1:
        axis.set_xlim(0, 2 * places[0])  # else an axis of nothing but that point
    axis.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    return handles


def tiles_figure(
    rows: Sequence[Sequence[Tile]], names: Sequence[str], structures: Sequence[str], note: str = ""
) -> Figure:
    """A grid of slices, each row named at its left, the structures' colours below if outlined."""
    with plot_style(), matplotlib.rc_context({"axes.grid": False}):
        figure = Figure(figsize=(2.1 * len(rows[0]), 2.2 * len(rows) + 0.6))
        axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
        for line, name, tiles in zip(axes, names, rows, strict=True):
            for axis, tile in zip(line, tiles, strict=True):
                _draw_tile(axis, tile)
            line[0].set_ylabel(name)
        if any(tile.classes is not None for tiles in rows for tile in tiles):
            handles = [Line2D([], [], color=structure_colour(i)) for i in range(len(structures))]
            figure.legend(handles, structures, loc="lower center", ncols=len(structures))
        _footer(figure, note)
    return figure


def _draw_tile(axis: Axes, tile: Tile) -> None:
    draw_outlined(axis, tile.image, tile.classes, tile.size_mm, interpolation="bicubic")
    axis.set_title(tile.title, fontsize=7.5)
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)


def _footer(figure: Figure, note: str, rows: int = 1) -> None:
    """Room for a legend of so many rows and, where there is one, a note below everything."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(note, max(20, int(width / LETTER_INCHES)))
    noted = 0.12 * len(lines)  # inches
    room = 0.23 + noted + 0.2 * (rows - 1) if note or figure.legends else 0.0
    figure.tight_layout(rect=(0, room / height, 1, 1), h_pad=1)
    if note:
        text, looks = "\n".join(lines), {"fontsize": NOTE_POINTS, "color": MUTED}
        figure.text(0.5, 0.03 / height, text, ha="center", va="bottom", **looks)
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0.5, max(noted, 0.02) / height))
