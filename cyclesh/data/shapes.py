"""Implicit shapes: signed distances in millimetres, negative inside.

Points are float32 arrays (3, ...) of world coordinates in mm, RAS+ (x to the patient's right,
y anterior, z superior). Distances of ellipsoids are first-order (exact on the surface), which is
all that an edge one voxel wide needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Array = np.ndarray


class Shape(Protocol):
    """A solid: its signed distance, and a world-aligned box that holds it."""

    def distance_mm(self, points: Array) -> Array: ...

    def bounds_mm(self) -> tuple[Array, Array]: ...


@dataclass(frozen=True)
class Layer:
    """One coat of the painter: a tissue fills a shape, grown outwards by `grow_mm`."""

    tissue: str
    shape: Shape
    grow_mm: float = 0.0


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid; the columns of `axes` are its unit axes in world coordinates."""

    centre_mm: Array
    semi_mm: Array
    axes: Array

    def distance_mm(self, points: Array) -> Array:
        unit = [
            (along(points, axis) - np.float32(axis @ self.centre_mm)) / np.float32(semi)
            for axis, semi in zip(self.axes.T, self.semi_mm, strict=True)
        ]
        level = np.sqrt(_sum_of_squares(unit))
        slope = np.sqrt(
            _sum_of_squares([u / np.float32(r) for u, r in zip(unit, self.semi_mm, strict=True)])
        )
        # f / |grad f| for f = level - 1; the small constant only matters at the very centre.
        return level * (level - 1) / (slope + np.float32(1e-6))

    def bounds_mm(self) -> tuple[Array, Array]:
        reach = np.sqrt(((self.axes * self.semi_mm) ** 2).sum(axis=1))
        return self.centre_mm - reach, self.centre_mm + reach


@dataclass(frozen=True, eq=False)
class Tube:
    """A chain of tapered capsules through `path_mm` (n, 3) with radii (n,)."""

    path_mm: Array
    radii_mm: Array

    def distance_mm(self, points: Array) -> Array:
        pieces = zip(
            self.path_mm[:-1], self.path_mm[1:], self.radii_mm[:-1], self.radii_mm[1:], strict=True
        )
        nearest: Array | None = None
        for start, stop, first, last in pieces:
            step = stop - start
            axis = step / (step @ step)
            share = np.clip(along(points, axis) - np.float32(axis @ start), 0, 1)
            offsets = [
                points[i] - (np.float32(start[i]) + np.float32(step[i]) * share) for i in range(3)
            ]
            radius = np.float32(first) + np.float32(last - first) * share
            piece = np.sqrt(_sum_of_squares(offsets)) - radius
            nearest = piece if nearest is None else np.minimum(nearest, piece)
        return nearest

    def bounds_mm(self) -> tuple[Array, Array]:
        radii = self.radii_mm[:, None]
        return (self.path_mm - radii).min(axis=0), (self.path_mm + radii).max(axis=0)


@dataclass(frozen=True, eq=False)
class Cut:
    """The part of a shape on the far side of a plane: (p - point) . normal > 0."""

    shape: Shape
    point_mm: Array
    normal: Array

    def distance_mm(self, points: Array) -> Array:
        plane = np.float32(self.normal @ self.point_mm) - along(points, self.normal)
        return np.maximum(self.shape.distance_mm(points), plane)

    def bounds_mm(self) -> tuple[Array, Array]:
        return self.shape.bounds_mm()


@dataclass(frozen=True, eq=False)
class Union:
    """Several shapes melted together over `blend_mm` (polynomial smooth minimum)."""

    shapes: Sequence[Shape]
    blend_mm: float

    def distance_mm(self, points: Array) -> Array:
        blend = np.float32(self.blend_mm)
        total = self.shapes[0].distance_mm(points)
        for shape in self.shapes[1:]:
            other = shape.distance_mm(points)
            overlap = np.maximum(blend - np.abs(total - other), 0) / blend
            total = np.minimum(total, other) - overlap * overlap * (blend / 4)
        return total

    def bounds_mm(self) -> tuple[Array, Array]:
        lows, highs = zip(*(shape.bounds_mm() for shape in self.shapes), strict=True)
        return np.min(lows, axis=0) - self.blend_mm / 4, np.max(highs, axis=0) + self.blend_mm / 4


@dataclass(frozen=True, eq=False)
class Slices:
    """The slabs of a shape about z = start + n * period, each `thickness_mm` thick: discs.

    `slope` tilts the slabs: dz per mm of y, so that ribs fall towards the front.
    """

    shape: Shape
    start_mm: float
    period_mm: float
    thickness_mm: float
    slope: float = 0.0

    def distance_mm(self, points: Array) -> Array:
        height = points[2] - np.float32(self.slope) * points[1] - np.float32(self.start_mm)
        period = np.float32(self.period_mm)
        off = np.abs(height - period * np.round(height / period))
        return np.maximum(self.shape.distance_mm(points), off - np.float32(self.thickness_mm / 2))

    def bounds_mm(self) -> tuple[Array, Array]:
        return self.shape.bounds_mm()


@dataclass(frozen=True, eq=False)
class Shell:
    """The skin of a shape, `thickness_mm` thick, centred on its surface."""

    shape: Shape
    thickness_mm: float

    def distance_mm(self, points: Array) -> Array:
        return np.abs(self.shape.distance_mm(points)) - np.float32(self.thickness_mm / 2)

    def bounds_mm(self) -> tuple[Array, Array]:
        low, high = self.shape.bounds_mm()
        return low - self.thickness_mm / 2, high + self.thickness_mm / 2


def rotation_matrix(angles_rad: Array) -> Array:
    """Rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def along(points: Array, direction: Array) -> Array:
    """points . direction, written out: how BLAS rounds depends on its threads."""
    x, y, z = (np.float32(value) for value in direction)
    return points[0] * x + points[1] * y + points[2] * z


def _sum_of_squares(parts: Sequence[Array]) -> Array:
    return parts[0] * parts[0] + parts[1] * parts[1] + parts[2] * parts[2]
