"""Scans that a trained model is put to: which files and folders are one, and reading them.

Understood are NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), and a folder with
the slices of one DICOM series.
"""

import warnings
from collections.abc import Callable, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from cyclesh.data.description import Window
from cyclesh.data.formats import FORMATS, NIFTI, stem_of, suffix_of
from cyclesh.data.inspection import AIR_HU, ERROR, header_faults, odd_spacing
from cyclesh.data.itk import is_dicom, read_series, read_volume
from cyclesh.data.nifti import Header, Scan, Unreadable, read_header, read_image, stated_spacing_mm
from cyclesh.errors import UserError

SMALLEST_AXIS = 8  # voxels


def name_of(path: Path) -> str:
    """The scan's name: of the file without its format, or of the series' folder."""
    return path.name if path.is_dir() else stem_of(path)


def is_series(path: Path) -> bool:
    """Whether a folder holds DICOM slices itself. Raises Unreadable when it may not be listed."""
    try:
        return path.is_dir() and any(p.is_file() and is_dicom(p) for p in sorted(path.iterdir()))
    except PermissionError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror})") from None


def beside_series(folder: Path) -> list[str]:
    """Names of scans in other formats that lie among a series' slices."""
    kinds = {path.name: suffix_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
    return [name for name, kind in kinds.items() if kind not in ("", ".dcm")]


def find_scans(
    folder: Path, meant: Callable[[str, Set[str]], bool]
) -> tuple[list[Path], list[Path]]:
    """The scans of a folder, sorted: its files of known formats, its folders of DICOM slices.

    Those that cannot be read are among them: that is told when their turn comes.
    meant: takes a scan's name and the names of all, and says whether it is one of those to use.
    Returns those and the others. Raises UserError when there is none, or two have one name.
    """
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    found = [path for path in entries if _seems_a_scan(path)]
    names = {name_of(path) for path in found}
    used = [path for path in found if meant(name_of(path), names)]
    others = [path for path in found if path not in used]
    if not used:
        left = f" ({len(others)} left out by their names)" if others else ""
        raise UserError(f"{folder}: holds no scan{left}; understood are {', '.join(FORMATS)}")
    first: dict[str, Path] = {}
    for path in used:
        twin = first.setdefault(name_of(path), path)
        if twin != path:
            raise UserError(f"{path}: would be written under the name of {twin.name}; rename one")
    return used, others


def _seems_a_scan(path: Path) -> bool:
    if not path.is_dir():
        return bool(suffix_of(path))
    try:
        return is_series(path)
    except Unreadable:
        return True


def read_scan(path: Path) -> tuple[Scan, Header | None]:
    """A scan, intensities in its own units, and its header where it is a NIfTI.

    Raises UserError, naming the file, for what no network can work on: damaged or not a scalar
    volume, NaN or Inf, constant, fewer than 8 voxels along an axis, absurd spacing.
    """
    try:
        scan, header = _read(path)
    except MemoryError:
        raise UserError(f"{path}: says that it holds more voxels than memory does") from None
    _require_sound(scan, path)
    return scan, header


def doubts(scan: Scan, modality: str, rule: Window) -> list[str]:
    """What makes a scan doubtful that can be used: it may be another modality, or mirrored."""
    found = list(scan.notes)
    kind, low, high = rule
    if kind == "fixed" and low < 0 <= scan.values.min():
        found.append(f"no value below 0 (window {low:g}..{high:g}): is it {modality}?")
    if (
        kind == "percentile"
        and ((scan.values > AIR_HU[0]) & (scan.values < AIR_HU[1])).mean() > 0.05
    ):
        found.append(f"holds voxels like a CT's air: is it {modality}?")
    return found


def _read(path: Path) -> tuple[Scan, Header | None]:
    header = None
    if is_series(path):
        scan = read_series(path)
    elif suffix_of(path) in NIFTI:
        with warnings.catch_warnings(action="ignore"):  # of what the checks tell better
            scan, image = read_image(path), read_header(path)
        header, faults = image.header, [*header_faults(image, stated_spacing_mm(path), path.name)]
        for fault in faults:
            if fault.severity == ERROR:
                raise UserError(f"{path}: {fault.message}")
        scan = replace(scan, notes=tuple(fault.message for fault in faults))
    elif suffix_of(path) and path.is_file():
        scan = read_volume(path)
    elif path.exists():
        raise UserError(f"{path}: is no scan; understood are {', '.join(FORMATS)} and DICOM series")
    else:
        raise UserError(f"{path}: no such file or folder")
    return scan, header


def _require_sound(scan: Scan, path: Path) -> None:
    size = "x".join(map(str, scan.grid.shape))
    if min(scan.grid.shape) < SMALLEST_AXIS:
        raise UserError(f"{path}: is {size} voxels (z, y, x); needs {SMALLEST_AXIS} on each axis")
    if odd := odd_spacing(scan.grid):  # of a NIfTI, `header_faults` did
        raise UserError(f"{path}: {odd}")
    finite = np.isfinite(scan.values).sum()
    if finite < scan.values.size:
        raise UserError(f"{path}: {scan.values.size - finite} voxels are NaN or infinite")
    if scan.values.min() == scan.values.max():
        raise UserError(f"{path}: every voxel is {scan.values.flat[0]:g}")
