"""Three orthogonal cuts through a volume, as a radiologist expects to see them.

Volumes are (z, y, x) with indices that grow to the patient's superior, anterior and right. The
pictures follow the radiological convention: the patient's right on the left of the axial and
coronal cuts, anterior up in the axial cut, superior up in the others, and in the sagittal cut
anterior on the left. With these axes that takes one rule for all: turn both axes around.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Plane(NamedTuple):
    """`axis` of (z, y, x) is cut across; `left` and `top` are the patient's sides drawn there."""

    name: str
    axis: int
    left: str
    top: str


PLANES = (
    Plane("axial", 0, left="R", top="A"),
    Plane("coronal", 1, left="R", top="S"),
    Plane("sagittal", 2, left="A", top="S"),
)


def cut(volume: np.ndarray, plane: Plane, centre: tuple[int, int, int]) -> np.ndarray:
    """The slice of `volume` through the voxel `centre`: rows downwards, columns to the right."""
    return np.take(volume, centre[plane.axis], axis=plane.axis)[::-1, ::-1]


def pixel_mm(plane: Plane, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    """Height and width of a pixel of a cut."""
    height_mm, width_mm = (mm for axis, mm in enumerate(spacing_mm) if axis != plane.axis)
    return height_mm, width_mm


def cut_sizes_mm(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> list[tuple[float, ...]]:
    """Height and width of a volume's cut in each of `PLANES`."""
    sides = [n * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    return [tuple(side for axis, side in enumerate(sides) if axis != p.axis) for p in PLANES]


def centre_of_structures(label: np.ndarray | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Centre voxel of the bounding box of all structures; of the volume where there are none.

    The box, unlike the centroid, does not sink into the largest structure.
    """
    boxes = ndimage.find_objects((label > 0).astype(np.uint8)) if label is not None else []
    if not boxes:
        return tuple(length // 2 for length in shape)
    return tuple((side.start + side.stop) // 2 for side in boxes[0])
