"""MetaImage, NRRD and DICOM, read by SimpleITK.

ITK's world is LPS+ millimetres; ours, as NIfTI's, is RAS+: x and y change their sign.
"""

import hashlib
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from cyclesh.data import packed
from cyclesh.data.formats import suffix_of
from cyclesh.data.geometry import Grid
from cyclesh.data.nifti import NotOneVolume, Scan, Unreadable, file_sha256
from cyclesh.errors import disk_trouble

DETACHED = (".mhd", ".nhdr")  # headers that name a file of voxels
DICOM_MAGIC = (128, b"DICM")  # offset and content
POSITION = "0020|0032"
UNEVEN = 0.1  # of the slice distance: how far a slice may lie from its place
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_volume(path: Path) -> Scan:
    """One file that holds a volume. Raises Unreadable or NotOneVolume."""
    with _blame(path):
        packed.require_whole(path)
        image = sitk.ReadImage(str(path))
    _require_volume(image, path)
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    return _scan(image, _affine(image), image.GetPixelID(), _sha256(path, image))


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
    files_beside = {path for path in folder.iterdir() if path.is_file()}
    strays = {path for path in files_beside if is_dicom(path) or not os.access(path, os.R_OK)}
    strays -= {Path(name) for name in files[0]}
    if strays:
        raise Unreadable(f"{min(strays)}: cannot be read as a DICOM slice; remove or mend it")
    if len(files[0]) == 1:
        return read_volume(Path(files[0][0]))
    with _blame(folder):
        slices = [_header(name) for name in files[0]]
    _require_scalars(slices[0].GetNumberOfComponents(), slices[0].GetPixelID(), folder)
    positions = np.array(
        [_position(reader, name) for reader, name in zip(slices, files[0], strict=True)]
    )
    with _blame(folder):
        # As numbers with a point: ITK would cut all slices to the first one's type, whose slope
        # may be a whole number where the others' are not.
        image = sitk.ReadImage(files[0], sitk.sitkFloat32)
    _require_volume(image, folder)
    content = hashlib.sha256()
    for name in files[0]:
        content.update(bytes.fromhex(file_sha256(name)))
    affine, dtype = _series_affine(image, positions, folder), slices[0].GetPixelID()
    return _scan(image, affine, dtype, content.hexdigest())


def _header(path: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return reader


def _position(reader: sitk.ImageFileReader, path: str) -> list[float]:
    if not reader.HasMetaDataKey(POSITION):
        raise Unreadable(f"{path}: a DICOM slice without position (0020,0032)")
    try:
        x, y, z = (float(number) for number in reader.GetMetaData(POSITION).split("\\"))
    except ValueError:
        raise Unreadable(f"{path}: its position (0020,0032) is not three numbers") from None
    return [x, y, z]


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


def _scan(image: sitk.Image, affine: np.ndarray, pixel_id: int, sha256: str) -> Scan:
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
            f"{path}: cannot be read: it is damaged, cut off, not what its name says, or a part of "
            "it is missing"
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
