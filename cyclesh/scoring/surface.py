"""Distances between the surfaces of two masks, in millimetres.

Definitions, because packages differ in all of them:

- The surface of a mask is the mask minus its erosion by the 6-neighbourhood: every voxel of the
  mask with a face on something outside it. Beyond the edge of the volume counts as outside.
- A directed distance goes from the centre of a surface voxel of one mask to the nearest centre of
  a surface voxel of the other, voxel spacing included. A surface voxel weighs 1, whatever the area
  of its faces.
- ASSD is the mean over both directed sets pooled, so the larger surface has the larger say.
- HD95 is the larger of the two directed 95th percentiles (linear interpolation between ranks).
- If either mask is empty no distance exists: both measures are NaN. `cases` counts such cases and
  reports them, since leaving them out silently would reward a network for predicting nothing.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class SurfaceDistances(NamedTuple):
    """One distance (mm) per surface voxel; both arrays are empty if either mask is."""

    from_predicted_mm: np.ndarray
    from_truth_mm: np.ndarray


def surface_distances_mm(
    predicted: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, float, float]
) -> SurfaceDistances:
    """Both sets of directed surface distances of two masks on one grid.

    Args:
        predicted, truth: bool, shape (z, y, x).
        spacing_mm: distance of neighbouring voxel centres along (z, y, x).

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction has shape {predicted.shape}, truth has {truth.shape}")
    if not (predicted.any() and truth.any()):
        return SurfaceDistances(np.empty(0), np.empty(0))
    # Exact, not an approximation: outside the box both masks are empty, and no margin is needed
    # as the erosion treats what lies beyond its array as outside the mask.
    (box,) = ndimage.find_objects((predicted | truth).astype(np.uint8))
    surface_predicted, surface_truth = (_surface(mask[box]) for mask in (predicted, truth))
    return SurfaceDistances(
        _distance_to(surface_truth, spacing_mm)[surface_predicted],
        _distance_to(surface_predicted, spacing_mm)[surface_truth],
    )


def assd_mm(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance; NaN if a mask was empty."""
    pooled = np.concatenate(distances)
    return float(pooled.mean()) if pooled.size else float("nan")


def hd95_mm(distances: SurfaceDistances) -> float:
    """95th percentile of the Hausdorff distance; NaN if a mask was empty."""
    if not distances.from_predicted_mm.size:
        return float("nan")
    return float(max(np.percentile(directed, 95) for directed in distances))


def _surface(mask: np.ndarray) -> np.ndarray:
    six_neighbours = ndimage.generate_binary_structure(mask.ndim, 1)
    return mask & ~ndimage.binary_erosion(mask, six_neighbours)


def _distance_to(surface: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    return ndimage.distance_transform_edt(~surface, sampling=spacing_mm)
