"""One scan through the networks and back: what the files beside it hold.

NAME.nii.gz is the result on the scan's own grid or on the networks'. NAME.json says where the
networks looked, what they used, and how far to trust the result. For the extent "crop" there is
NAME_mask.nii.gz, 1 where the result was computed; elsewhere labels are 0 and intensities the low
end of the window that they are restored to (the sidecar's "fill").
On request NAME_probabilities.nii.gz (a channel a class, background first) and NAME.png.
"""

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclesh import __version__
from cyclesh.data.geometry import Grid, inside, resample_image
from cyclesh.data.nifti import Header, Scan, nifti_bytes
from cyclesh.data.store import restore
from cyclesh.deployed import Deployed
from cyclesh.region import Region
from cyclesh.scoring.dice import dice
from cyclesh.scoring.overlay import View, overlay_png

SIDECAR, PICTURE = ".json", ".png"
MASK, PROBABILITIES = "_mask.nii.gz", "_probabilities.nii.gz"


@dataclass(frozen=True)
class Task:
    """What is asked of every scan: `to` translates to a modality, else it is segmented.

    One of the first two is enough: what becomes the one modality is of the other.
    """

    modality: str = ""  # of the scans
    to: str = ""
    grid: str = "input"  # of the result: the scan's own, or the "network"'s
    extent: str = "crop"  # about the structures, or the "whole" scan
    centre_mm: tuple[float, float, float] | None = None  # of the crop, RAS+ (x, y, z); None: found
    probabilities: bool = False  # of a segmentation
    overlay: bool = False


@dataclass(frozen=True)
class Source:
    """A scan as it was read."""

    path: Path
    scan: Scan
    header: Header | None  # of a NIfTI


@dataclass(frozen=True)
class Place:
    """The grid of a result, and what is known of it."""

    grid: Grid
    header: Header | None
    computed: np.ndarray  # bool (z, y, x): where there is a result


def place_result(task: Task, source: Source, seen: Region) -> Place:
    """Where the result goes."""
    if task.grid == "input":
        return Place(source.scan.grid, source.header, inside(seen.grid, source.scan.grid))
    return Place(seen.grid, None, inside(source.scan.grid, seen.grid))


def translated(model: Deployed, task: Task, source: Source, seen: Region, target: Path):
    """Files of a translation, the volume last, and one line about it."""
    fake = model.translate(task.to, seen.image)
    place, window = place_result(task, source, seen), model.windows[task.to]
    values = restore(fake, window)
    values = values if task.grid == "network" else resample_image(values, seen.grid, place.grid, 0)
    values = np.where(place.computed, values, np.float32(window[0]))
    scanned = inside(source.scan.grid, seen.grid)  # beyond, there is nothing to agree about
    classes = fake_classes = agreement = None
    if model.has("seg"):
        classes = _classes(model.segment(task.modality, seen.image), scanned)
        fake_classes = _classes(model.segment(task.to, fake), scanned)
        agreement = agreement_of(classes, fake_classes, model.description.names)
    share = "not known" if agreement is None else f"{agreement['share']:.2f}"
    made = f"synthetic {task.to} (agreement {share})"
    views = [
        View(f"{task.modality}, as read", seen.image, classes),
        View(made, np.where(scanned, fake, np.float32(-1)), fake_classes),
    ]
    sidecar = _sidecar(model, task, source, seen) | {
        "window_of_result": list(window),
        "fill": window[0],
        "agreement": agreement,
        "seam": seam_of(model, task.to, seen.image, fake),
    }
    files = _files(model, task, seen, place, views, sidecar, target)
    return files | {target: nifti_bytes(values, place.grid, place.header)}, f"agreement {share}"


def segmented(model: Deployed, task: Task, source: Source, seen: Region, target: Path):
    """Files of a segmentation, the labels last, and one line about it."""
    probabilities = model.segment(task.modality, seen.image)
    place, description = place_result(task, source, seen), model.description
    kept = []
    classes = np.zeros(place.grid.shape, np.uint8)
    best = np.full(place.grid.shape, -1, np.float32)
    for index, share in enumerate(_on_grid(probabilities, task, seen, place)):
        classes[share > best] = index
        np.maximum(best, share, out=best)
        if task.probabilities:
            kept.append(share)
    ml = float(abs(np.linalg.det(place.grid.affine[:3, :3]))) / 1000
    counts = np.bincount(classes.ravel(), minlength=description.classes)[1:].tolist()
    volumes = {n: round(c * ml, 3) for n, c in zip(description.names, counts, strict=True)}
    scanned = inside(source.scan.grid, seen.grid)
    views = [View(task.modality, seen.image, _classes(probabilities, scanned))]
    sidecar = _sidecar(model, task, source, seen) | {
        "labels": dict(description.structures),
        "fill": 0,
        "volume_ml": volumes,
    }
    files = _files(model, task, seen, place, views, sidecar, target)
    if task.probabilities:
        stacked = np.stack(kept)
        files[_beside(target, PROBABILITIES)] = nifti_bytes(stacked, place.grid, place.header)
    labels = label_values(classes, description.structures)
    line = ", ".join(f"{name} {volume:.1f} ml" for name, volume in volumes.items())
    return files | {target: nifti_bytes(labels, place.grid, place.header)}, line


def _on_grid(
    probabilities: np.ndarray, task: Task, seen: Region, place: Place
) -> Iterator[np.ndarray]:
    """Each class's probability, (z, y, x), on the grid of the result; background outside."""
    for index in range(probabilities.shape[-1]):
        share, outside = probabilities[..., index], np.float32(index == 0)
        if task.grid == "input":
            share = resample_image(share, seen.grid, place.grid, fill=outside)
        yield np.where(place.computed, share, outside)


def label_values(classes: np.ndarray, structures: tuple[tuple[str, int], ...]) -> np.ndarray:
    """Class indices -> the values of the data's label files, in the smallest type for them."""
    table = np.array([0, *(value for _, value in structures)])
    types = (np.uint8, np.int16, np.uint16, np.int32)
    kind = next(t for t in types if (table == table.astype(t)).all())
    return table.astype(kind)[classes]


def agreement_of(
    before: np.ndarray, after: np.ndarray, names: tuple[str, ...]
) -> dict[str, object] | None:
    """How far two segmentations of one anatomy agree; None where neither sees a structure.

    share: of the voxels in which either sees a structure, those in which both see the same.
    dice: of each structure; null where neither sees it.
    """
    either = (before > 0) | (after > 0)
    if not either.any():
        return None
    scores = dice(after, before, len(names) + 1)
    return {
        "share": round(float((before == after)[either].mean()), 4),
        "dice": {
            name: None if np.isnan(score) else round(float(score), 4)
            for name, score in zip(names, scores, strict=True)
        },
    }


def seam_of(
    model: Deployed, target: str, image: np.ndarray, fake: np.ndarray
) -> dict[str, object] | None:
    """What it changed that a translation was made in tiles; None where it was made in one pass.

    In the result's units: the mean and the 99th percentile of voxels' distance from a single pass
    over a sample (`shape`: its voxels, z, y, x) that lies half-way between tiles.
    """
    if model.in_one_pass("gen", image.shape):
        return None
    low, high = model.windows[target]
    gap = model.seam(target, image, fake) * (high - low) / 2
    return {
        "mean": round(float(gap.mean()), 3),
        "p99": round(float(np.percentile(gap, 99)), 3),
        "shape": list(gap.shape),
    }


def _classes(probabilities: np.ndarray, scanned: np.ndarray) -> np.ndarray:
    """Class indices, background where there is no scan."""
    return np.where(scanned, probabilities.argmax(-1), 0).astype(np.uint8)


def _sidecar(model: Deployed, task: Task, source: Source, seen: Region) -> dict:
    return {
        "cyclesh": __version__,
        "model": {"workdir": model.name, **model.provenance},
        "scan": {"file": source.path.name, "sha256": source.scan.sha256},
        "modality": task.modality,
        "to": task.to or None,
        "grid": task.grid,
        "extent": task.extent,
        "center_mm": list(seen.centre_mm),  # RAS+ x, y, z
        "centered_on": seen.centred_on,
        "window": list(seen.window),  # of the scan: became -1 and 1
        "spacing_mm": list(model.description.spacing_mm),  # z, y, x: of the networks' grid,
        "shape": list(seen.grid.shape),  # and its voxels
        "in_one_pass": model.in_one_pass("gen" if task.to else "seg", seen.image.shape),
    }


def _files(
    model: Deployed,
    task: Task,
    seen: Region,
    place: Place,
    views: list[View],
    sidecar: dict,
    target: Path,
) -> dict[Path, bytes]:
    """What stands beside every result."""
    text = json.dumps(sidecar, indent=2, allow_nan=False) + "\n"
    files = {_beside(target, SIDECAR): text.encode()}
    if task.extent == "crop":
        mask = place.computed.astype(np.uint8)
        files[_beside(target, MASK)] = nifti_bytes(mask, place.grid, place.header)
    if task.overlay:
        description = model.description
        name = target.name.removesuffix(".gz").removesuffix(".nii")
        files[_beside(target, PICTURE)] = overlay_png(
            views, description.names, description.spacing_mm, name, _centre(seen)
        )
    return files


def _centre(seen: Region) -> tuple[int, int, int]:
    """The voxel that the region was centred on."""
    nearest = seen.grid.index(np.array([seen.centre_mm]))[0].round().astype(int)
    return tuple(np.clip(nearest, 0, np.array(seen.grid.shape) - 1).tolist())


def is_part(name: str, names: Set[str]) -> bool:
    """Whether a file of this name (without format) goes with a result that is among `names`."""
    endings = (ending.removesuffix(".nii.gz") for ending in (MASK, PROBABILITIES))
    return any(name.endswith(end) and name.removesuffix(end) in names for end in endings)


def read_sidecar(target: Path) -> dict:
    """What the JSON beside a result says; {} when there is none that was written here."""
    try:
        about = json.loads(_beside(target, SIDECAR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) and {"cyclesh", "scan"} <= about.keys() else {}


def beside(task: Task, target: Path) -> set[Path]:
    """Where the files go that a task writes beside a result."""
    asked = {
        SIDECAR: True,
        MASK: task.extent == "crop",
        PROBABILITIES: task.probabilities,
        PICTURE: task.overlay,
    }
    return {_beside(target, ending) for ending, wanted in asked.items() if wanted}


def written_before(target: Path) -> set[Path]:
    """Where files beside an earlier result of this name may be; empty when there was none.

    Without a sidecar that was written here, files of these names may be the user's own.
    """
    endings = (SIDECAR, PICTURE, MASK, PROBABILITIES) if read_sidecar(target) else ()
    return {_beside(target, ending) for ending in endings}


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name.removesuffix(".gz").removesuffix(".nii") + ending)
