"""A slice of a volume with outlines, as SVG for the page.

An outline runs half-way between the centres of the voxels inside and outside of a structure, so
nothing is smoothed away. Labels are wide solid lines, predictions narrow dashed ones on black:
where both agree the dashes lie inside the solid line, and a missing prediction shows as a line
without dashes.
"""

import io
from collections.abc import Sequence

import matplotlib.image
import numpy as np
from contourpy import contour_generator  # what matplotlib itself draws contours with
from scipy import ndimage

from cyclesh.scoring.style import data_url, structure_colour

SHORTEST_SIDE_PIXELS = 160  # of a picture; coarser slices are interpolated for display


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


def svg_panel(
    image: np.ndarray,
    size_mm: tuple[float, float],
    label: np.ndarray | None,
    predicted: np.ndarray | None,
    description: str,
) -> str:
    """One slice as an <svg> in millimetres: the picture, label outlines, predicted outlines.

    Args:
        image: shape (rows, columns), intensity in [-1, 1].
        size_mm: height and width of a pixel.
        label, predicted: class indices of the same shape, or None.
        description: for readers who do not see the picture.
    """
    height, width = (n * mm for n, mm in zip(image.shape, size_mm, strict=True))
    return (
        f'<svg class="slice" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{description}">'
        f'<image width="{width:g}" height="{height:g}" preserveAspectRatio="none" '
        f'href="{data_url(_png(image))}"/>'
        + _svg_outlines(label, size_mm, ("label",))
        + _svg_outlines(predicted, size_mm, ("predicted-casing", "predicted"))
        + "</svg>"
    )


def _svg_outlines(
    classes: np.ndarray | None, size_mm: tuple[float, float], styles: Sequence[str]
) -> str:
    if classes is None:
        return ""
    paths = []
    for index in _outer_first(classes):
        lines = outlines(classes == index, size_mm)
        points = " ".join(f"M{_points(line)}Z" for line in lines)
        colour = structure_colour(index - 1)
        paths += [
            f'<path class="outline {style}" stroke="{colour}" d="{points}"/>' for style in styles
        ]
    return "".join(paths)


def _outer_first(classes: np.ndarray) -> list[int]:
    """The classes of a slice: where two share a border, the enclosed one's outline is on top."""
    boxes = enumerate(ndimage.find_objects(classes), start=1)
    areas = {
        index: (rows.stop - rows.start) * (columns.stop - columns.start)
        for index, (rows, columns) in ((index, box) for index, box in boxes if box)
    }
    return sorted(areas, key=lambda index: -areas[index])


def _points(line: np.ndarray) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in line[:-1])


def _png(image: np.ndarray) -> bytes:
    factor = max(1, -(-SHORTEST_SIDE_PIXELS // min(image.shape)))
    # grid_mode keeps the outer edges of the picture where they are; outlines rely on it.
    fine = ndimage.zoom(image, factor, order=3, mode="nearest", grid_mode=True)
    buffer = io.BytesIO()
    matplotlib.image.imsave(
        buffer, fine, format="png", cmap="gray", vmin=-1, vmax=1, metadata={"Software": None}
    )
    return buffer.getvalue()
