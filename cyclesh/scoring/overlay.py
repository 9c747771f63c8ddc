"""A picture of one result for a quick look: slices with the segmentation's outlines."""

import io
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import matplotlib.patheffects
import numpy as np
from contourpy import contour_generator  # what matplotlib itself draws contours with
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cyclesh.scoring.slices import PLANES, Plane, cut, cut_sizes_mm, pixel_mm
from cyclesh.scoring.style import plot_style, structure_colour

CUTS_WIDTH_INCHES = 9.0


class View(NamedTuple):
    """A row of the picture: a volume in [-1, 1] and the class indices outlined on it, or None."""

    name: str
    image: np.ndarray
    classes: np.ndarray | None


def overlay_png(
    views: Sequence[View],
    structures: Sequence[str],
    spacing_mm: tuple[float, float, float],
    title: str,
    centre: tuple[int, int, int],
) -> bytes:
    """Three orthogonal cuts of each view through the voxel `centre` (z, y, x)."""
    shape = views[0].image.shape
    sizes = cut_sizes_mm(shape, spacing_mm)
    widths = [width for _, width in sizes]
    row = CUTS_WIDTH_INCHES * max(height for height, _ in sizes) / sum(widths)
    buffer = io.BytesIO()
    with plot_style(), matplotlib.rc_context({"axes.grid": False}):
        figure = Figure(figsize=(CUTS_WIDTH_INCHES, (row + 0.25) * len(views) + 0.7))
        axes = figure.subplots(
            len(views), len(PLANES), squeeze=False, gridspec_kw={"width_ratios": widths}
        )
        for view, line in zip(views, axes, strict=True):
            for plane, axis in zip(PLANES, line, strict=True):
                classes = None if view.classes is None else cut(view.classes, plane, centre)
                pixels, size_mm = cut(view.image, plane, centre), pixel_mm(plane, spacing_mm)
                draw_outlined(axis, pixels, classes, size_mm, "bilinear")
                _name_sides(axis, plane)
                axis.set_axis_off()
            line[0].set_title(view.name)
        lines = [Line2D([], [], color=structure_colour(i)) for i in range(len(structures))]
        legend = figure.legend(lines, structures, loc="lower center", ncols=len(structures))
        heading = figure.suptitle(_printable(title), fontsize=10)
        for text in (heading, *legend.get_texts()):  # in which a $ begins no formula
            text.set_parse_math(False)
        with warnings.catch_warnings(action="ignore"):  # of letters that the font has not
            figure.tight_layout(rect=(0, 0.3 / figure.get_figheight(), 1, 1))
            figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _printable(name: str) -> str:
    """With a question mark for what is not UTF-8 in a file's name."""
    return name.encode("utf-8", "replace").decode()


def _name_sides(axis: Axes, plane: Plane) -> None:
    """Which of the patient's sides is at the left and at the top."""
    rim = [matplotlib.patheffects.withStroke(linewidth=2, foreground="black")]
    for x, y, side in ((0.025, 0.5, plane.left), (0.5, 0.965, plane.top)):
        axis.text(
            x, y, side, color="white", ha="center", va="center", fontsize=8,
            path_effects=rim, transform=axis.transAxes,
        )  # fmt: skip


def outlines(mask: np.ndarray, size_mm: tuple[float, float]) -> list[np.ndarray]:
    """Closed outlines of a 2D mask, each (points, 2) as x, y in mm from the picture's top left.

    Args:
        mask: bool, shape (rows, columns).
        size_mm: height and width of a pixel.
    """
    if not mask.any():
        return []
    # The rim closes outlines of structures that reach the edge of the picture.
    rim = np.pad(mask, 1).astype(np.float64)
    lines = contour_generator(z=rim).lines(0.5)
    height_mm, width_mm = size_mm
    # contourpy counts from the centre of the rim's pixel, which lies half a pixel outside.
    return [(line - 0.5) * (width_mm, height_mm) for line in lines]


def draw_outlined(
    axis: Axes,
    pixels: np.ndarray,
    classes: np.ndarray | None,
    size_mm: tuple[float, float],
    interpolation: str | None = None,
) -> None:
    """A slice in [-1, 1] with its structures outlined, in mm; `interpolation` is that of imshow."""
    height, width = (n * mm for n, mm in zip(pixels.shape, size_mm, strict=True))
    extent = (0, width, height, 0)
    axis.imshow(pixels, "gray", vmin=-1, vmax=1, extent=extent, interpolation=interpolation)
    for index in _largest_first(classes) if classes is not None else ():
        for line in outlines(classes == index, size_mm):
            axis.plot(*line.T, color=structure_colour(index - 1), linewidth=1.2)


def _largest_first(classes: np.ndarray) -> np.ndarray:
    """The structures of a slice: where two share a border, the smaller one's outline is on top."""
    indices, sizes = np.unique(classes[classes > 0], return_counts=True)
    return indices[np.argsort(-sizes, kind="stable")]
