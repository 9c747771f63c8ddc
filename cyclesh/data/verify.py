"""All faults of a raw folder at once, before anything is prepared from it.

An error is what `prepare` refuses or what would spoil the result; a warning is what it copes with
but its owner should know.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from cyclesh.data.description import DATASET_JSON, Description, read_dataset_json
from cyclesh.data.geometry import Grid, mask_box_mm, misalignment_voxels
from cyclesh.data.prepare import MISALIGNED_VOXELS
from cyclesh.data.raw import (
    Case,
    NotLabels,
    NotOneVolume,
    Scan,
    Unreadable,
    cases_by_name,
    find_cases,
    read_header,
    read_image,
    read_labels,
    split_cases,
    unmatched_files,
)
from cyclesh.data.workers import in_parallel
from cyclesh.errors import UserError

ERROR, WARNING = "error", "warning"
PLAUSIBLE_SPACING_MM = (0.05, 25.0)  # between micro-CT of a mouse and a scout scan
HEADER_ROUNDING_VOXELS = 0.01  # what float32 headers may disagree by
AIR_HU = (-1100, -900)
CODES = {Unreadable: "unreadable", NotOneVolume: "not-3d", NotLabels: "not-whole-numbers"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one file (or with the folder)."""

    file: str  # path within the folder
    severity: str  # error or warning
    code: str
    message: str


@dataclass(frozen=True)
class Report:
    """What `verify` found."""

    folder: str
    volumes: tuple[tuple[str, int], ...]  # (modality, number of volumes)
    faults: tuple[Fault, ...]  # errors first, then by file

    @property
    def ok(self) -> bool:
        """Whether there is no error (warnings may be)."""
        return not self.count(ERROR)

    def count(self, severity: str) -> int:
        """How many faults of a severity there are."""
        return sum(fault.severity == severity for fault in self.faults)

    def to_table(self) -> str:
        """A line for each fault and one for the sum."""
        width = max((len(fault.code) for fault in self.faults), default=0)
        lines = [f"{f.severity:7}  {f.code:{width}}  {f.file}: {f.message}" for f in self.faults]
        volumes = ", ".join(f"{number} {modality}" for modality, number in self.volumes)
        verdict = "ok" if self.ok else "not ok"
        counts = f"{self.count(ERROR)} errors, {self.count(WARNING)} warnings"
        return "\n".join([*lines, f"{verdict}: {counts} in {volumes} volumes of {self.folder}"])

    def to_json(self) -> dict:
        """Plain types."""
        return {
            "folder": self.folder,
            "ok": self.ok,
            "volumes": dict(self.volumes),
            "faults": [asdict(fault) for fault in self.faults],
        }


@dataclass(frozen=True)
class Inspection:
    """What one case's files tell: their faults, and what other cases are compared with."""

    faults: tuple[Fault, ...]
    axes: str | None  # of the image, e.g. LPS
    image_digest: str | None  # of the voxels, whatever the file around them
    label_digest: str | None


def verify(
    folder: Path | str,
    description: Description,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> Report:
    """Checks every file of a raw folder, and whether its split leaves enough to train on.

    `description` is what `describe(folder, default)` gave. Raises UserError only when there is
    nothing to check: no such folder, or no volume in a layout that is understood.
    """
    root = Path(folder)
    roster: list[Fault] = []
    try:
        cases = find_cases(root, description)
    except UserError as error:
        cases = sorted(cases_by_name(root, description).values(), key=lambda case: case.id)
        roster = [Fault(DATASET_JSON, ERROR, "roster", str(error))]
    work = partial(inspect, root=root, description=description)
    found = in_parallel(work, cases, title="verify", processes=processes, progress=progress)
    faults = [
        *roster,
        *_strays(root, description),
        *(fault for inspection in found for fault in inspection.faults),
        *_duplicates(root, cases, found),
        *_mixed_orientations(root, cases, found),
        *([] if roster else _splits(root, cases, description)),
    ]
    faults.sort(key=lambda fault: (fault.severity, fault.file, fault.code))
    counts = Counter(case.modality for case in cases)
    volumes = tuple((modality, counts[modality]) for modality in description.modalities)
    return Report(str(folder), volumes, tuple(faults))


def inspect(case: Case, root: Path, description: Description) -> Inspection:
    """One case's own faults. Runs in a worker."""
    faults: list[Fault] = []
    image = _read(read_image, case.image, root, faults)
    label = _read(read_labels, case.label, root, faults) if case.label else None
    name = _name(case.image, root)
    if case.label is None:
        faults.append(Fault(name, ERROR, "missing-label", "has no label file"))
    if image is not None:
        faults += _header_faults(case.image, name)
        faults += _grid_faults(image.grid, name)
        faults += _intensity_faults(image.values, name, case.modality, description)
    if label is not None:
        faults += _header_faults(case.label, _name(case.label, root))
        faults += _label_faults(label, _name(case.label, root), description)
    if image is not None and label is not None:
        faults += _alignment_faults(image.grid, label.grid, _name(case.label, root))
    axes = "".join(nib.aff2axcodes(image.grid.affine)) if image else None
    return Inspection(tuple(faults), axes, _digest(image), _digest(label))


def _read(read, path: Path, root: Path, faults: list[Fault]) -> Scan | None:
    try:
        return read(path)
    except tuple(CODES) as error:
        reason = str(error).removeprefix(f"{path}: ")
        faults.append(Fault(_name(path, root), ERROR, CODES[type(error)], reason))
        return None


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _digest(scan: Scan | None) -> str | None:
    if scan is None:
        return None
    content = hashlib.blake2b(str(scan.grid.shape).encode())
    content.update(np.ascontiguousarray(scan.values))
    return content.hexdigest()


def _header_faults(path: Path, name: str) -> Iterator[Fault]:
    """Contradictions within one NIfTI header, which other programs may resolve another way."""
    image = read_header(path)
    header, shape = image.header, image.shape[2::-1]
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        yield Fault(name, ERROR, "unit", f"gives its spacing in {unit}s, not millimetres")
    scanner, standard = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if scanner is None and standard is None:
        message = "has neither qform nor sform: which side is left is a guess"
        yield Fault(name, WARNING, "no-orientation", message)
    elif scanner is not None and standard is not None:
        apart = misalignment_voxels(Grid(shape, standard), Grid(shape, scanner))
        if apart > MISALIGNED_VOXELS:
            message = f"qform and sform are up to {apart:.2g} voxels apart; the sform is used"
            yield Fault(name, WARNING, "two-orientations", message)
    columns = np.linalg.norm(image.affine[:3, :3], axis=0)
    stated = np.abs(header["pixdim"][1:4].astype(float))
    if not np.allclose(columns, stated, rtol=0.01):
        message = f"pixdim says {_mm(stated[::-1])}, the affine {_mm(columns[::-1])}, which is used"
        yield Fault(name, WARNING, "header-spacing", message)


def _grid_faults(grid: Grid, name: str) -> Iterator[Fault]:
    low, high = PLAUSIBLE_SPACING_MM
    if min(grid.spacing_mm) < low or max(grid.spacing_mm) > high:
        message = f"voxels of {_mm(grid.spacing_mm)} (z, y, x) are not plausible; mend the header"
        yield Fault(name, ERROR, "spacing", message)


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
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if value not in known:
            message = f"value {value} ({count} voxels) is no structure's, alias or dropped value"
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
    foreground = np.isin(label.values, [value for value, index in known.items() if index])
    yield from _extent_faults(foreground, label.grid, name, description)


def _structure(value: int, description: Description) -> str:
    names = {number: name for name, number in description.structures}
    return names.get(value, "background")


def _extent_faults(
    foreground: np.ndarray, grid: Grid, name: str, description: Description
) -> Iterator[Fault]:
    low, high = mask_box_mm(foreground, grid)
    span = (high - low)[::-1]
    crop = np.multiply(description.shape, description.spacing_mm)
    if (span > crop).any():
        message = f"the structures span {_mm(span)}, the crop {_mm(crop)} (z, y, x) cuts them"
        yield Fault(name, WARNING, "larger-than-crop", message)


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


def _mm(sizes: Iterable[float]) -> str:
    return "x".join(f"{size:.4g}" for size in sizes) + " mm"


def _strays(root: Path, description: Description) -> Iterator[Fault]:
    orphans, strangers = unmatched_files(root, description)
    for path in orphans:
        yield Fault(_name(path, root), ERROR, "label-without-image", "has no image file")
    for path in strangers:
        yield Fault(_name(path, root), WARNING, "ignored", "fits no layout that is understood")


def _duplicates(root: Path, cases: list[Case], found: list[Inspection]) -> Iterator[Fault]:
    """Equal voxels under two names; of two subjects they may land in train and in test."""
    first: dict[str, Case] = {}
    labelled: dict[str, Case] = {}
    for case, inspection in zip(cases, found, strict=True):
        name = _name(case.image, root)
        twin = first.setdefault(inspection.image_digest or case.id, case)
        if twin != case:
            same = twin.subject == case.subject
            message = f"has the voxels of {_name(twin.image, root)}" + (
                "" if same else f"; if it is one subject, say so in {DATASET_JSON}"
            )
            yield Fault(name, WARNING if same else ERROR, "duplicate", message)
            continue
        twin = labelled.setdefault(inspection.label_digest or case.id, case)
        if twin.subject != case.subject:
            message = f"has the labels of {_name(twin.label, root)}, which shows another subject"
            yield Fault(_name(case.label, root), WARNING, "duplicate-label", message)


def _mixed_orientations(root: Path, cases: list[Case], found: list[Inspection]) -> Iterator[Fault]:
    for modality in sorted({case.modality for case in cases}):
        axes = {
            case: inspection.axes
            for case, inspection in zip(cases, found, strict=True)
            if case.modality == modality and inspection.axes
        }
        counts = Counter(axes.values())
        if len(counts) < 2:
            continue
        usual, number = counts.most_common(1)[0]
        for case, codes in axes.items():
            if codes != usual:
                message = f"is {codes}, {number} of {len(axes)} {modality} are {usual}"
                yield Fault(_name(case.image, root), WARNING, "mixed-orientation", message)


def _splits(root: Path, cases: list[Case], description: Description) -> Iterator[Fault]:
    try:
        splits = split_cases(cases, read_dataset_json(root))
    except UserError as error:
        yield Fault(DATASET_JSON, ERROR, "split", str(error))
        return
    for modality in description.modalities:
        members = [case for case in cases if case.modality == modality]
        if not members:
            yield Fault(".", ERROR, "no-volumes", f"holds no volume of {modality}")
            continue
        subjects = {
            split: len({case.subject for case in members if splits[case.id] == split})
            for split in ("train", "val", "test")
        }
        if subjects["train"] < 2 or not subjects["val"] or not subjects["test"]:
            numbers = ", ".join(f"{number} in {split}" for split, number in subjects.items())
            message = f"{modality} has {numbers} subjects; training needs 2, 1 and 1"
            yield Fault(DATASET_JSON, ERROR, "too-few-subjects", message)
