"""Random rigid moves and scalings of training volumes; labels move with their voxels.

Intensities are left alone: they are what a domain is, and what the generators learn.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class Augment:
    """Ranges are symmetric and uniform; all zero and no flip leaves volumes as they are."""

    shift_mm: float
    rotate_deg: float
    scale: float
    flip: bool  # left-right, half of the time

    @property
    def active(self) -> bool:
        return bool(self.shift_mm or self.rotate_deg or self.scale or self.flip)


def draw_matrix(augment: Augment, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random (3x3 matrix, shift in mm), output to input, about the volume's centre, z y x."""
    angles = rng.uniform(-1, 1, 3) * augment.rotate_deg
    scale = 1 + rng.uniform(-1, 1) * augment.scale
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
    if augment.flip and rng.random() < 0.5:
        matrix = matrix @ np.diag([1.0, 1.0, -1.0])  # the last axis is left-right
    return matrix, rng.uniform(-1, 1, 3) * augment.shift_mm


def apply_matrix(
    image: np.ndarray,
    label: np.ndarray,
    matrix: np.ndarray,
    shift_mm: np.ndarray,
    spacing_mm: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Resample both arrays (z, y, x) once: linear for the image, nearest for the label.

    Beyond the volume the nearest face is repeated, in both alike.
    """
    spacing = np.asarray(spacing_mm)
    in_voxels = matrix * spacing[None, :] / spacing[:, None]
    centre = (np.asarray(image.shape) - 1) / 2
    offset = centre - in_voxels @ centre + shift_mm / spacing
    moved = ndimage.affine_transform(image, in_voxels, offset, order=1, mode="nearest")
    return moved, ndimage.affine_transform(label, in_voxels, offset, order=0, mode="nearest")


def augment_volume(
    image: np.ndarray,
    label: np.ndarray,
    augment: Augment,
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One random move of a volume and its labels; a function of ``rng``'s state."""
    if not augment.active:
        return image, label
    return apply_matrix(image, label, *draw_matrix(augment, rng), spacing_mm)
