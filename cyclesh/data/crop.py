"""One volume on the training grid: axes, spacing and crop, intensities and class indices."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclesh.data import store as stores
from cyclesh.data.description import Description, Window
from cyclesh.data.geometry import (
    Grid,
    crop_grid,
    extended,
    inside,
    mask_box_mm,
    misalignment_voxels,
    resample_image,
    resample_labels,
)
from cyclesh.data.nifti import Scan
from cyclesh.data.raw import Case
from cyclesh.errors import UserError

MISALIGNED_VOXELS = 0.25  # headers round; beyond this a label is not where its image is


@dataclass(frozen=True)
class Crop:
    """One volume on the training grid."""

    image: np.ndarray  # int16 (z, y, x)
    label: np.ndarray  # uint8 (z, y, x)
    grid: Grid
    window: tuple[float, float]
    cut: dict[str, float]


def crop_case(
    image: Scan, label: Scan, case: Case, description: Description, pair: Scan | None = None
) -> Crop:
    """One volume on the training grid, centred on the bounding box of its labelled structures.

    A paired volume gets the crop of its case instead, whose labels are `pair`: translations are
    compared with it voxel by voxel.
    Raises UserError when the label's grid is not the image's, a label value is unknown, or no
    structure is labelled.
    """
    _require_one_grid(image.grid, label.grid, case)
    classes, (low, high) = _located(label, description, case.label)
    box = (low, high) if pair is None else _located(pair, description, Path(case.pair_of))[1]
    centre = np.mean(box, axis=0)
    # To the micrometre, so that no rounding error of the machine enters the store's identity.
    grid = crop_grid(np.round(centre, 3), description.spacing_mm, description.shape)
    half_mm = max(image.grid.spacing_mm) / 2  # from a voxel's centre to its rim
    whole, inner = extended(grid, low - half_mm, high + half_mm)
    labels = resample_labels(classes, image.grid, whole)
    if pair is not None and not labels[inner].any():
        raise UserError(f"{case.image}: lies elsewhere than {case.pair_of}; register the two first")
    intensities, window = sample_scan(image, grid, description.window(case.modality), case.image)
    cut = _cut(labels, labels[inner], description)
    return Crop(stores.encode(intensities, window), labels[inner], grid, window, cut)


def _located(
    label: Scan, description: Description, path: Path
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Class indices, and the bounding box (low, high) of the structures in RAS+ mm."""
    classes = class_indices(label.values, description, path)
    if not classes.any():
        raise UserError(f"{path}: no voxel of {', '.join(description.names)} is labelled")
    return classes, mask_box_mm(classes > 0, label.grid)


def sample_scan(
    image: Scan, grid: Grid, rule: Window, path: Path
) -> tuple[np.ndarray, tuple[float, float]]:
    """The scan on `grid` in its own units, float32, and its window by `rule`.

    A percentile is measured within this very grid. Voxels that the scan did not measure (outside
    of it, NaN, Inf) get the window's low end. `path` is for the message of the UserError that a
    scan without contrast raises.
    """
    intensities, measured = _intensities(image, grid)
    window = intensity_window(rule, intensities[measured], path)
    return np.where(measured, intensities, np.float32(window[0])), window


def _intensities(image: Scan, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The scan on `grid`, and which voxels it measured: those within it that are no NaN or Inf."""
    measured = inside(image.grid, grid)
    finite = np.isfinite(image.values)
    if finite.all():
        return resample_image(image.values, image.grid, grid, fill=0.0), measured
    share = resample_image(finite, image.grid, grid, fill=0.0)
    total = resample_image(np.where(finite, image.values, 0), image.grid, grid, fill=0.0)
    return total / np.maximum(share, 0.5), measured & (share >= 0.5)


def class_indices(values: np.ndarray, description: Description, path: Path | None) -> np.ndarray:
    """Label values of the files -> class indices (uint8); UserError names an unknown value."""
    known = description.class_of_value()
    unknown = 255
    lowest, highest = min(known), max(known)
    table = np.full(highest - lowest + 3, unknown, np.uint8)  # one more at each end: out of range
    for value, index in known.items():
        table[value - lowest + 1] = index
    classes = table[np.clip(values, lowest - 1, highest + 1) - (lowest - 1)]
    strange = np.unique(values[classes == unknown]) if (classes == unknown).any() else ()
    if len(strange):
        listed, expected = (", ".join(map(str, v)) for v in (strange[:5], sorted(known)))
        raise UserError(
            f"{path}: unknown label value {listed}; known are {expected}: "
            "add it to structures, aliases or dropped in dataset.json"
        )
    return classes


def intensity_window(rule: Window, values: np.ndarray, path: Path) -> tuple[float, float]:
    """The source intensities (low, high) that become -1 and 1, from the values within the scan."""
    kind, low, high = rule
    if kind == "percentile":
        if not values.size:
            raise UserError(f"{path}: has no finite voxel where its structures are")
        low, high = (float(f"{v:.6g}") for v in np.percentile(values, [low, high]))
    if not low < high:
        raise UserError(f"{path}: is constant ({low:g}) where its structures are")
    return low, high


def _cut(whole: np.ndarray, crop: np.ndarray, description: Description) -> dict[str, float]:
    """Share of each structure's voxels that the crop leaves outside."""
    bins = description.classes
    total = np.bincount(whole.ravel(), minlength=bins)[1:]
    kept = np.bincount(crop.ravel(), minlength=bins)[1:]
    shares = 1 - kept / np.maximum(total, 1)
    pairs = zip(description.names, np.where(total > 0, shares, 0.0), strict=True)
    return {name: round(float(share), 6) for name, share in pairs}


def _require_one_grid(image: Grid, label: Grid, case: Case) -> None:
    apart = misalignment_voxels(image, label)
    if apart <= MISALIGNED_VOXELS:
        return
    how = f"corners up to {apart:.2g} voxels apart"
    if image.shape != label.shape:
        how = f"{_by(label.shape)} voxels against {_by(image.shape)}"
    raise UserError(
        f"{case.label}: does not lie on the grid of {case.image.name} ({how}); "
        "resample it or mend its header (verify lists all such files)"
    )


def _by(shape: Iterable[int]) -> str:
    return "x".join(str(n) for n in shape)
