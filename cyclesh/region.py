"""Where in a scan the networks look: about the structures, which they find themselves.

Training volumes are centred on the bounding box of their labelled structures. A new scan has no
labels, so a coarse pass of the segmentor over all of it takes their place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from cyclesh.data.crop import sample_scan
from cyclesh.data.geometry import Grid, covering_grid, crop_grid, inside, mask_box_mm
from cyclesh.data.nifti import Scan
from cyclesh.data.store import normalise
from cyclesh.deployed import Deployed
from cyclesh.errors import UserError

SMALLEST_VOXELS = 8  # of the training grid, in one piece: less is not a structure found
ROUNDS = 3  # of looking again from nearer; one suffices but for a centre that was far off
STARTS = 4  # from which to look
WHOLE = 0.8  # `wholeness` from which on no other start is tried


@dataclass(frozen=True)
class Region:
    """A part of a scan on the networks' grid."""

    grid: Grid
    image: np.ndarray  # float32 (z, y, x) in [-1, 1]
    window: tuple[float, float]  # the scan's intensities that are -1 and 1
    centre_mm: tuple[float, float, float]  # RAS+ (x, y, z) of the crop
    centred_on: str  # "structures", "center" (the user's) or "volume"


def look(
    model: Deployed,
    scan: Scan,
    path: Path,
    modality: str,
    *,
    extent: str,
    centre_mm: tuple[float, float, float] | None,
    warn: Callable[[str], None],
) -> Region:
    """The crop about the structures or, for the extent "whole", all of the scan.

    A percentile window is measured within the crop in either case, as it is in training.
    centre_mm: RAS+ (x, y, z) of the crop's centre; None: find it.
    Raises UserError (naming `path`) when the centre lies outside the scan, or nothing is there.
    """
    description = model.description
    rule = description.window(modality)
    if centre_mm is None:
        centre, centred_on = _find_centre(model, scan, path, modality, warn)
    else:
        centre, centred_on = np.asarray(centre_mm, float), "center"
        _require_inside(scan.grid, centre, path)
    crop = crop_grid(centre, description.spacing_mm, description.shape)
    values, window = sample_scan(scan, crop, rule, path)
    if extent == "whole":
        crop = whole_grid(scan.grid, description.spacing_mm)
        values, _ = sample_scan(scan, crop, ("fixed", *window), path)
    place = tuple(float(v) for v in np.round(centre, 3))
    return Region(crop, normalise(values, window), window, place, centred_on)


def whole_grid(source: Grid, spacing_mm: tuple[float, ...]) -> Grid:
    """The networks' grid over all of a scan, its sides rounded up.

    So scans of about one size share one compiled program. Sides of 32 voxels or more grow by a
    quarter at most.
    """
    cover = covering_grid(source, spacing_mm)
    steps = [max(8, 2 ** (n.bit_length() - 3)) for n in cover.shape]
    shape = [-(-n // step) * step for n, step in zip(cover.shape, steps, strict=True)]
    start = [-((n - old) // 2) for n, old in zip(shape, cover.shape, strict=True)]
    return cover.block(tuple(start), tuple(shape))


def _find_centre(
    model: Deployed, scan: Scan, path: Path, modality: str, warn: Callable[[str], None]
) -> tuple[np.ndarray, str]:
    """Centre of the structures, first in all of the scan, then from nearer until it stays.

    Far from the structures a segmentor, which learned about them, may imagine others. Where these
    pull the centre away, each structure is seen in two places: then other starts are tried.
    """
    description = model.description

    def seen(grid: Grid) -> np.ndarray:
        values, window = sample_scan(scan, grid, description.window(modality), path)
        return model.segment(modality, normalise(values, window)).argmax(-1).astype(np.uint8)

    def closed_in(centre: np.ndarray) -> tuple[float, np.ndarray]:
        """How whole the structures are about the centre that is come to, and that centre."""
        whole = 0.0
        for _ in range(ROUNDS):
            grid = crop_grid(centre, description.spacing_mm, description.shape)
            classes = seen(grid)
            whole = wholeness(classes, description.classes)
            nearer = structures_centre_mm(classes, grid, description.shape)
            if nearer is None:
                break
            moved, centre = np.abs(nearer - centre)[::-1], nearer
            if (moved <= np.asarray(description.spacing_mm) / 2).all():
                break
        return whole, centre

    starts = []
    if model.has("seg"):
        grid = whole_grid(scan.grid, description.spacing_mm)
        starts = starting_points(seen(grid), grid, description.shape)
    if not starts:
        reason = "found no structure" if model.has("seg") else "this model has no segmentor"
        warn(f"{path}: {reason}; the crop is about the volume's centre (--center=x,y,z overrides)")
        return scan.grid.corners_mm().mean(axis=0), "volume"
    found = [closed_in(starts[0])]
    if found[0][0] < WHOLE:
        found += map(closed_in, starts[1:])
    return max(found, key=lambda one: one[0])[1], "structures"


def wholeness(classes: np.ndarray, count: int) -> float:
    """Mean over structures of the share of a structure's voxels that lie in its largest piece.

    A structure that is not seen counts 0. count: of the classes, background included.
    """
    every, kept = (
        np.bincount(voxels.ravel(), minlength=count)[1:]
        for voxels in (classes, largest_pieces(classes))
    )
    return float((kept / np.maximum(every, 1)).mean())


def starting_points(
    classes: np.ndarray, grid: Grid, crop_shape: tuple[int, int, int]
) -> list[np.ndarray]:
    """RAS+ (x, y, z) of where to look, the likeliest first; empty where there is no structure.

    The middle of all structures, then of each group of structures that touch, the largest first.
    """
    centre = structures_centre_mm(classes, grid, crop_shape)
    if centre is None:
        return []
    labelled, _ = ndimage.label(classes > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(labelled.ravel())[1:]
    groups = np.argsort(-sizes, kind="stable")[: STARTS - 1] + 1
    return [centre, *(np.mean(mask_box_mm(labelled == group, grid), axis=0) for group in groups)]


def structures_centre_mm(
    classes: np.ndarray, grid: Grid, crop_shape: tuple[int, int, int]
) -> np.ndarray | None:
    """RAS+ (x, y, z) of the middle of the structures' bounding box; None where there are none.

    Of each structure only its largest connected piece counts; pieces that do not fit into one crop
    with the others are left out, so that a phantom of one structure far away does no harm.
    """
    pieces = largest_pieces(classes)
    if not pieces.any():
        return None
    box = _fullest_box(pieces, crop_shape)
    within = pieces[box] > 0
    return np.mean(mask_box_mm(within, grid.block([s.start for s in box], within.shape)), axis=0)


def largest_pieces(classes: np.ndarray) -> np.ndarray:
    """Class indices with only the largest connected piece of each structure, if it is no speck."""
    kept = np.zeros_like(classes)
    for index, box in enumerate(ndimage.find_objects(classes), start=1):
        if box is None:
            continue
        labelled, _ = ndimage.label(classes[box] == index)
        sizes = np.bincount(labelled.ravel())[1:]
        if sizes.max() >= SMALLEST_VOXELS:
            kept[box][labelled == sizes.argmax() + 1] = index
    return kept


def _fullest_box(pieces: np.ndarray, shape: tuple[int, int, int]) -> tuple[slice, ...]:
    """The box of `shape` voxels with most of the structures, each counted by its share."""
    (bounds,) = ndimage.find_objects((pieces > 0).astype(np.uint8))
    if all(s.stop - s.start <= n for s, n in zip(bounds, shape, strict=True)):
        return bounds
    share = np.zeros(pieces.shape, np.float32)
    for index in np.unique(pieces[pieces > 0]):
        mask = (pieces == index).astype(np.float32)
        share += ndimage.uniform_filter(mask / mask.sum(), shape, mode="constant")
    centre = np.unravel_index(share.argmax(), share.shape)
    return tuple(
        slice(max(int(c) - n // 2, 0), int(c) - n // 2 + n)
        for c, n in zip(centre, shape, strict=True)
    )


def _require_inside(grid: Grid, centre_mm: np.ndarray, path: Path) -> None:
    if inside(grid, Grid((1, 1, 1), _at(centre_mm))).all():
        return
    corners = grid.corners_mm()
    spans = ", ".join(
        f"{axis} {low:.0f}..{high:.0f}"
        for axis, low, high in zip("xyz", corners.min(axis=0), corners.max(axis=0), strict=True)
    )
    given = ",".join(f"{v:g}" for v in centre_mm)
    raise UserError(f"{path}: --center={given} lies outside of it ({spans} mm, RAS+)")


def _at(point_mm: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, 3] = point_mm
    return affine
