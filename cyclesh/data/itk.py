"""MetaImage, NRRD and DICOM, read by SimpleITK.

ITK's world is LPS+ millimetres; ours, as NIfTI's, is RAS+: x and y change their sign.
"""

import hashlib
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from cyclesh.data import packed
from cyclesh.data.formats import suffix_of
from cyclesh.data.geometry import Grid
from cyclesh.data.nifti import SINGULAR, NotOneVolume, Scan, Unreadable, file_sha256
from cyclesh.errors import disk_trouble

DETACHED = (".mhd", ".nhdr")  # headers that name a file of voxels
DICOM_MAGIC = (128, b"DICM")  # offset and content
POSITION, ORIENTATION, SPACING = "0020|0032", "0020|0037", "0028|0030"
FRAMES, PHOTOMETRIC = "0028|0008", "0028|0004"
ALIKE = 1e-3  # how far the slices' orientation (cosines) and pixel spacing (mm) may differ
UNEVEN = 0.1  # of the slice distance: how far a slice may lie from its place
NO_SIDES = "its header does not say which side is left; the usual is assumed"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_volume(path: Path) -> Scan:
    """One file that holds a volume. Raises Unreadable or NotOneVolume."""
    if is_dicom(path):
        raise Unreadable(f"{path}: {_lone_dicom(path, 'for a series name its folder')}")
    with _blame(path):
        unstated = packed.unstated(path)
    if packed.SPACING in unstated:
        raise Unreadable(f"{path}: its header does not say how large voxels are; mend it")
    with _blame(path):
        packed.require_whole(path)
        image = sitk.ReadImage(str(path))
    _require_volume(image, path)
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    scan = _scan(path, image, _affine(image), image.GetPixelID(), _sha256(path, image))
    return replace(scan, notes=(NO_SIDES,)) if packed.ORIENTATION in unstated else scan


def _lone_dicom(path: Path, advice: str) -> str:
    """Why one DICOM file is no scan: a slice, or frames of which ITK does not tell the places.

    advice: how to go on from a slice.
    """
    with _blame(path):
        header = _header(str(path))
    frames = header.GetMetaData(FRAMES) if header.HasMetaDataKey(FRAMES) else "1"
    if frames.strip() in ("", "1"):
        return f"is one DICOM slice; {advice}"
    return (
        "is a multi-frame DICOM, whose frames may lie anywhere; convert it to .nii.gz, as with "
        "dcm2niix"
    )


def _sha256(path: Path, image: sitk.Image) -> str:
    """The file's hash or, where voxels lie in a file of their own, that of the header and them."""
    header = file_sha256(path)
    if suffix_of(path) not in DETACHED:
        return header
    content = hashlib.sha256(bytes.fromhex(header))
    content.update(np.ascontiguousarray(sitk.GetArrayViewFromImage(image)))
    return content.hexdigest()


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, or is at least named so; no index of a disc."""
    if path.suffix.casefold() == ".dcm":
        return True
    if not os.access(path, os.R_OK):
        return False
    offset, magic = DICOM_MAGIC
    with open(path, "rb") as file:
        begins = file.read(offset + len(magic))[offset:] == magic
    return begins and path.name != "DICOMDIR"


def read_series(folder: Path) -> Scan:
    """A folder with the slices of one DICOM series (rescaling applied, as GDCM does).

    Raises Unreadable when the slices are damaged, several series, or not evenly spaced.
    """
    with _blame(folder):
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        files = [
            sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name) for name in series
        ]
    if len(series) != 1:
        found = f"{len(series)} DICOM series" if series else "no readable DICOM slice"
        raise Unreadable(f"{folder}: holds {found}; give each series a folder of its own")
    listed = (path for path in folder.iterdir() if not path.name.startswith("."))
    files_beside = {path for path in listed if path.is_file()}
    strays = {path for path in files_beside if is_dicom(path) or not os.access(path, os.R_OK)}
    strays -= {Path(name) for name in files[0]}
    if strays:
        raise Unreadable(f"{min(strays)}: cannot be read as a DICOM slice; remove or mend it")
    if len(files[0]) == 1:
        only = Path(files[0][0])
        raise Unreadable(f"{only}: {_lone_dicom(only, 'its folder holds no other of its series')}")
    with _blame(folder):
        slices = {name: _header(name) for name in files[0]}
    first = next(iter(slices.values()))
    _require_scalars(first.GetNumberOfComponents(), first.GetPixelID(), folder)
    positions = np.array([_numbers(slices, name, POSITION, "position", 3) for name in slices])
    for tag, what, count in ((ORIENTATION, "orientation", 6), (SPACING, "pixel spacing", 2)):
        found = np.array([_numbers(slices, name, tag, what, count) for name in slices])
        other = np.abs(found - found[0]).max(axis=1) > ALIKE
        if other.any():
            name = files[0][int(other.argmax())]
            raise Unreadable(f"{name}: has another {what} than {files[0][0]}; separate the series")
    _require_upright_values(slices)
    with _blame(folder):
        # As numbers with a point: ITK would cut all slices to the first one's type, whose slope
        # may be a whole number where the others' are not.
        image = sitk.ReadImage(files[0], sitk.sitkFloat32)
    _require_volume(image, folder)
    content = hashlib.sha256()
    for name in files[0]:
        content.update(bytes.fromhex(file_sha256(name)))
    affine = _series_affine(image, positions, folder)
    return _scan(folder, image, affine, first.GetPixelID(), content.hexdigest())


def _header(path: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return reader


def _numbers(
    slices: Mapping[str, sitk.ImageFileReader], name: str, tag: str, what: str, count: int
) -> list[float]:
    """What a slice's header says of its place, which ITK would make up where it is not there."""
    called = f"({tag.replace('|', ',')})"
    if not slices[name].HasMetaDataKey(tag):
        raise Unreadable(f"{name}: a DICOM slice without {what} {called}")
    try:
        numbers = [float(number) for number in slices[name].GetMetaData(tag).split("\\")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise Unreadable(f"{name}: its {what} {called} is not {count} numbers")
    return numbers


def _require_upright_values(slices: Mapping[str, sitk.ImageFileReader]) -> None:
    """Raises Unreadable where large values are dark: ITK would turn them before rescaling."""
    for name, header in slices.items():
        kind = header.GetMetaData(PHOTOMETRIC) if header.HasMetaDataKey(PHOTOMETRIC) else ""
        if kind.strip() == "MONOCHROME1":
            raise Unreadable(f"{name}: is stored inverted (MONOCHROME1); convert the series")


def _series_affine(image: sitk.Image, positions: np.ndarray, folder: Path) -> np.ndarray:
    """The affine with the slices where their own headers put them (a tilted gantry included)."""
    count = len(positions)
    step = (positions[-1] - positions[0]) / (count - 1)
    apart = np.linalg.norm(positions - (positions[0] + np.outer(np.arange(count), step)), axis=1)
    if not np.linalg.norm(step) or apart.max() > UNEVEN * np.linalg.norm(step):
        raise Unreadable(
            f"{folder}: its {count} DICOM slices are not evenly spaced (missing slices, or several "
            "acquisitions); separate or complete them"
        )
    affine = _affine(image)
    affine[:3, 2] = LPS_TO_RAS[:3, :3] @ step
    affine[:3, 3] = LPS_TO_RAS[:3, :3] @ positions[0]
    return affine


def _affine(image: sitk.Image) -> np.ndarray:
    """Voxel indices (x, y, z, 1) -> RAS+ mm."""
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:3, :3]
    affine[:3, :3] = direction * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return LPS_TO_RAS @ affine


def _require_scalars(components: int, pixel_id: int, path: Path) -> None:
    kind = sitk.GetPixelIDValueAsString(pixel_id)
    if components > 1 or "complex" in kind:
        raise Unreadable(f"{path}: has voxels of {components} numbers ({kind}); need scalars")


def _require_volume(image: sitk.Image, path: Path) -> None:
    size = image.GetSize()
    _require_scalars(image.GetNumberOfComponentsPerPixel(), image.GetPixelID(), path)
    if len(size) < 3 or len(size) > 4 or set(size[3:]) - {1}:
        raise NotOneVolume(f"{path}: must be one 3D volume, not {'x'.join(map(str, size))}")


def _scan(path: Path, image: sitk.Image, affine: np.ndarray, pixel_id: int, sha256: str) -> Scan:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < SINGULAR:
        raise Unreadable(f"{path}: its header gives axes that span no volume; mend it")
    values = sitk.GetArrayFromImage(image).astype(np.float32, copy=False)
    dtype = sitk.GetPixelIDValueAsString(pixel_id)
    return Scan(values, Grid(values.shape, affine), dtype, sha256)


@contextmanager
def _blame(path: Path) -> Iterator[None]:
    """What SimpleITK raises becomes an Unreadable that names the file."""
    for name in (path, *(path.iterdir() if path.is_dir() else ())):
        if any("\ud800" <= letter <= "\udfff" for letter in str(name)):  # ITK would end the process
            raise Unreadable(f"{name}: its name is not UTF-8; rename it")
    try:
        with _silence():
            yield
    except OSError as error:
        if disk_trouble(error):  # of what is written meanwhile
            raise
        raise Unreadable(f"{path}: cannot be read ({error.strerror or error})") from None
    except (RuntimeError, zlib.error):  # whose text has ITK's source lines and rarely the cause
        raise Unreadable(
            f"{path}: cannot be read: it is damaged, cut off, packed in an unknown way, not what "
            "its name says, or a part of it is missing"
        ) from None


@contextmanager
def _silence() -> Iterator[None]:
    """ITK's libraries print their troubles straight to the process's stderr; ours is one line."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
