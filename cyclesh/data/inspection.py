"""What is wrong with one case's own files.

An error keeps `train` from a raw folder: `prepare` could not use it, or (which `prepare` by itself
does not notice) the result would be spoilt. A warning is what it copes with but its owner should
know.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from cyclesh.data.crop import MISALIGNED_VOXELS, crop_case
from cyclesh.data.description import DATASET_JSON, PLAUSIBLE_SPACING_MM, Description
from cyclesh.data.geometry import Grid, misalignment_voxels
from cyclesh.data.nifti import (
    NotLabels,
    NotOneVolume,
    Scan,
    Unreadable,
    read_header,
    read_image,
    read_labels,
    stated_spacing_mm,
)
from cyclesh.data.raw import Case
from cyclesh.errors import UserError

ERROR, WARNING = "error", "warning"
LARGEST_EXTENT_MM = 3000.0  # of what lies in a scanner
HEADER_ROUNDING_VOXELS = 0.01  # what float32 headers may disagree by
AIR_HU = (-1100, -900)
CUT_WORTH_TELLING = 0.01  # share of a structure that the training crop cuts off
CODES = {Unreadable: "unreadable", NotOneVolume: "not-3d", NotLabels: "not-whole-numbers"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one file (or with the folder)."""

    file: str  # path within the folder
    severity: str  # error or warning
    code: str
    message: str


@dataclass(frozen=True)
class Inspection:
    """What one case's files tell: their faults, and what other cases are compared with."""

    faults: tuple[Fault, ...]
    axes: str | None  # of the image, e.g. LPS
    image_digest: str | None  # of the voxels, whatever the file around them
    label_digest: str | None


def inspect(
    case: Case, root: Path, description: Description, labels: Mapping[str, Path | None]
) -> Inspection:
    """One case's own faults; `labels` are the label files of all cases. Runs in a worker."""
    faults: list[Fault] = []
    image = _read(read_image, case.image, root, faults)
    label = _read(read_labels, case.label, root, faults) if case.label else None
    name = file_name(case.image, root)
    if case.label is None:
        faults.append(Fault(name, ERROR, "missing-label", "has no label file"))
    if image is not None:
        faults += header_faults(read_header(case.image), stated_spacing_mm(case.image), name)
        faults += _intensity_faults(image.values, name, case.modality, description)
    if label is not None:
        label_name, stated = file_name(case.label, root), stated_spacing_mm(case.label)
        faults += header_faults(read_header(case.label), stated, label_name)
        faults += _label_faults(label, label_name, description)
    if image is not None and label is not None:
        faults += _alignment_faults(image.grid, label.grid, file_name(case.label, root))
        if not any(fault.severity == ERROR for fault in faults):
            faults += _crop_faults(image, label, case, root, description, labels)
    axes = "".join(nib.aff2axcodes(image.grid.affine)) if image else None
    return Inspection(tuple(faults), axes, _digest(image), _digest(label))


def _read(read, path: Path, root: Path, faults: list[Fault]) -> Scan | None:
    try:
        return read(path)
    except tuple(CODES) as error:
        reason = str(error).removeprefix(f"{path}: ")
        faults.append(Fault(file_name(path, root), ERROR, CODES[type(error)], reason))
        return None


def file_name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _digest(scan: Scan | None) -> str | None:
    if scan is None:
        return None
    content = hashlib.blake2b(str(scan.grid.shape).encode())
    content.update(np.ascontiguousarray(scan.values))
    return content.hexdigest()


def header_faults(
    image: nib.Nifti1Image, stated_mm: tuple[float, float, float], name: str
) -> Iterator[Fault]:
    """What one NIfTI header may not say, and where other programs may resolve it another way.

    stated_mm: see `nifti.stated_spacing_mm`.
    """
    header, shape = image.header, image.shape[2::-1]
    unit = _unit(header)
    if unit not in ("mm", "unknown"):
        message = f"gives its spacing in {unit}s, not millimetres; mend the header"
        yield Fault(name, ERROR, "unit", message)
    if odd := odd_spacing(Grid(shape, image.affine), stated_mm):
        yield Fault(name, ERROR, "spacing", odd)
    standard = header.get_sform(coded=True)[0]
    try:
        scanner = header.get_qform(coded=True)[0]
    except ValueError as error:  # of a file whose sform serves: else it could not be read
        scanner, message = None, f"its qform is no rotation ({error}); the sform is used"
        yield Fault(name, WARNING, "two-orientations", message)
    if scanner is None and standard is None:
        message = "has neither qform nor sform: which side is left is a guess"
        yield Fault(name, WARNING, "no-orientation", message)
    elif scanner is not None and standard is not None:
        apart = misalignment_voxels(Grid(shape, standard), Grid(shape, scanner))
        if apart > MISALIGNED_VOXELS:
            message = f"qform and sform are up to {apart:.2g} voxels apart; the sform is used"
            yield Fault(name, WARNING, "two-orientations", message)
    columns = np.linalg.norm(image.affine[:3, :3], axis=0)
    stated = np.abs(stated_mm)
    if not np.allclose(columns[::-1], stated, rtol=0.01):
        message = f"pixdim says {_mm(stated)}, the affine {_mm(columns[::-1])}, which is used"
        yield Fault(name, WARNING, "header-spacing", message)


def _unit(header: nib.Nifti1Header) -> str:
    """Of the spacing; a code that no unit has counts as none."""
    try:
        return header.get_xyzt_units()[0]
    except KeyError:
        return "unknown"


def odd_spacing(grid: Grid, stated_mm: tuple[float, float, float] | None = None) -> str:
    """Why voxels cannot be of their size, in words; "" when they can.

    stated_mm: what a NIfTI's header gives, (z, y, x), which must be there even where the affine
    does not need it; None for other formats.
    """
    low, high = PLAUSIBLE_SPACING_MM
    given = stated_mm is None or all(mm > 0 for mm in stated_mm)
    sizes = grid.spacing_mm if given else stated_mm
    if not all(low <= mm <= high for mm in sizes):
        return f"voxels of {_mm(sizes)} (z, y, x) are not plausible; mend the header"
    extent = tuple(mm * n for mm, n in zip(sizes, grid.shape, strict=True))
    if max(extent) > LARGEST_EXTENT_MM:
        return f"an extent of {_mm(extent)} (z, y, x) is not plausible; mend the header's spacing"
    return ""


def _intensity_faults(
    values: np.ndarray, name: str, modality: str, description: Description
) -> Iterator[Fault]:
    finite = values[np.isfinite(values)]
    if finite.size < values.size:
        message = f"{values.size - finite.size} voxels are NaN or infinite"
        yield Fault(name, ERROR, "not-finite", message)
    if not finite.size:
        return
    lowest, highest = float(finite.min()), float(finite.max())
    if lowest == highest:
        yield Fault(name, ERROR, "constant", f"every voxel is {lowest:g}")
        return
    rule, low, high = description.window(modality)
    if rule == "fixed":
        if low < 0 <= lowest:
            message = f"{modality} with no value below 0 (window {low:g}..{high:g}): other units?"
            yield Fault(name, WARNING, "modality", message)
        share = ((finite > low) & (finite < high)).mean()
        if share < 0.01:
            message = f"{share:.1%} of the voxels lie within the window {low:g}..{high:g}"
            yield Fault(name, WARNING, "window", message)
    elif ((finite > AIR_HU[0]) & (finite < AIR_HU[1])).mean() > 0.05:
        yield Fault(name, WARNING, "modality", f"{modality} with voxels like a CT's air (-1000 HU)")


def _label_faults(label: Scan, name: str, description: Description) -> Iterator[Fault]:
    known = description.class_of_value()
    values, counts = np.unique(label.values, return_counts=True)
    unknown = [
        f"{value} ({count} voxels)"
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if value not in known
    ]
    if unknown:
        listed = ", ".join(unknown[:5]) + (" ..." if unknown[5:] else "")
        message = (
            f"value {listed}: no structure's, alias or dropped value; known are "
            f"{', '.join(map(str, sorted(known)))}, others go into {DATASET_JSON}"
        )
        yield Fault(name, ERROR, "unknown-label", message)
    for wrong, right in description.aliases:
        if wrong in values:
            message = (
                f"value {wrong} ({counts[values == wrong][0]} voxels) is a known mistake and is "
                f"read as {right}, {_structure(right, description)}"
            )
            yield Fault(name, WARNING, "alias", message)
    present = {known.get(value, 0) for value in values.tolist()}
    missing = [n for i, n in enumerate(description.names, start=1) if i not in present]
    if len(missing) == len(description.names):
        yield Fault(name, ERROR, "empty-label", f"no voxel of {', '.join(missing)} is labelled")
        return
    if missing:
        yield Fault(name, WARNING, "missing-structure", f"no voxel of {', '.join(missing)}")


def _structure(value: int, description: Description) -> str:
    names = {number: name for name, number in description.structures}
    return names.get(value, "background")


def _alignment_faults(image: Grid, label: Grid, name: str) -> Iterator[Fault]:
    if image.shape != label.shape:
        sizes = ("x".join(map(str, grid.shape)) for grid in (label, image))
        message = "{} voxels, its image has {} (z, y, x)".format(*sizes)
        yield Fault(name, ERROR, "shape-mismatch", message)
        return
    apart = misalignment_voxels(image, label)
    severity = ERROR if apart > MISALIGNED_VOXELS else WARNING
    if not np.allclose(image.spacing_mm, label.spacing_mm, rtol=1e-3):
        message = f"voxels of {_mm(label.spacing_mm)}, its image has {_mm(image.spacing_mm)}"
        yield Fault(name, severity, "spacing-mismatch", message)
    elif apart > HEADER_ROUNDING_VOXELS:
        message = f"lies up to {apart:.2g} voxels from its image (origin or orientation)"
        yield Fault(name, severity, "misaligned", message)


def _crop_faults(
    image: Scan,
    label: Scan,
    case: Case,
    root: Path,
    description: Description,
    labels: Mapping[str, Path | None],
) -> Iterator[Fault]:
    """What shows only on the training grid; a pair whose label is at fault has that told there."""
    try:
        pair_label = labels.get(case.pair_of)
        pair = read_labels(pair_label) if pair_label else None
        cut = crop_case(image, label, case, description, pair).cut
    except UserError as error:
        reason = str(error).removeprefix(f"{case.image}: ")
        yield Fault(file_name(case.image, root), ERROR, "crop", reason)
        return
    shares = ", ".join(f"{s:.0%} of {name}" for name, s in cut.items() if s >= CUT_WORTH_TELLING)
    if shares:
        size = _mm(np.multiply(description.shape, description.spacing_mm))
        message = f"the crop of {size} (z, y, x) cuts off {shares}"
        yield Fault(file_name(case.label, root), WARNING, "larger-than-crop", message)


def _mm(sizes: Iterable[float]) -> str:
    return "x".join(f"{size:.4g}" for size in sizes) + " mm"
