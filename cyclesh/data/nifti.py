"""NIfTI files: read whole or refused by name; written on exactly the grid they belong to."""

import errno
import gzip
import hashlib
import logging
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from cyclesh.data.geometry import Grid
from cyclesh.errors import UserError

Header = nib.Nifti1Header  # NIfTI-2's is one, too
# What of a header says where its voxels lie, but for their size.
PLACE = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)
SINGULAR = 1e-12  # mm^3: of voxels that are none
GZIP = b"\x1f\x8b"  # how a packed file begins


class Unreadable(UserError):
    """A file that is missing, damaged or no NIfTI of scalars."""


class NotOneVolume(UserError):
    """A file with another number of axes than three."""


class NotLabels(UserError):
    """A label file whose values are no label values."""


@dataclass(frozen=True)
class Scan:
    """One read file: (z, y, x) voxels, where they lie, and what exactly was read."""

    values: np.ndarray
    grid: Grid
    dtype: str  # of the voxels in the file
    sha256: str  # of the file; of several, of what they hold together
    notes: tuple[str, ...] = ()  # what its header contradicts itself in, or leaves open


def read_image(path: Path | str) -> Scan:
    """A scalar 3D NIfTI with slope and intercept applied: float32 (z, y, x).

    Raises Unreadable or NotOneVolume (UserErrors that name the file).
    """
    image, sha256 = _load(Path(path))
    with _blame(Path(path)):
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
    return _scan(Path(path), image, values, sha256)


def read_labels(path: Path | str) -> Scan:
    """A 3D NIfTI of whole numbers: int32 (z, y, x). Raises as `read_image`, and NotLabels."""
    path = Path(path)
    image, sha256 = _load(path)
    with _blame(path):
        values = np.asanyarray(image.dataobj)
    fractional = values.dtype.kind == "f" and not np.array_equal(values, np.rint(values))
    if fractional or not np.isfinite(values).all():
        wrong = values[~np.isfinite(values) | (values != np.rint(values))].flat[0]
        raise NotLabels(
            f"{path}: a label file must hold whole numbers only, not {wrong:.9g}; resample labels "
            "by the nearest neighbour, or round them"
        )
    if values.size and (values.max() >= 2**31 or values.min() < -(2**31)):
        raise NotLabels(f"{path}: a label value does not fit 32 bits")
    return _scan(path, image, values.astype(np.int32), sha256)


def read_header(path: Path | str) -> nib.Nifti1Image:
    """The NIfTI with its header and affine, its voxels not yet converted. Raises Unreadable."""
    return _load(Path(path))[0]


def stated_spacing_mm(path: Path | str) -> tuple[float, float, float]:
    """The voxels' sizes as a readable NIfTI's header gives them, (z, y, x).

    nibabel mends what is 0 or NaN, missing that is, to 1 mm.
    """
    with open(path, "rb") as file:
        unpacked = gzip.open if file.read(len(GZIP)) == GZIP else open
    with unpacked(path, "rb") as file:
        content = file.read(nib.Nifti2Header.sizeof_hdr)  # the larger one
    kind = _kind(content).header_class
    header = kind(content[: kind.template_dtype.itemsize], check=False)
    return tuple(header["pixdim"][3:0:-1].astype(float).tolist())


def file_sha256(path: Path | str) -> str:
    """Hash of a file's bytes, the `sha256` that reading it gives."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_DAMAGE = (
    OSError,
    EOFError,
    MemoryError,  # what a header may ask for
    ValueError,
    OverflowError,
    zlib.error,
    nib.wrapstruct.WrapStructError,
    nib.spatialimages.HeaderDataError,
    nib.filebasedimages.ImageFileError,
)


class _blame:
    """Turns what nibabel, gzip and zlib raise for a damaged file into an Unreadable naming it."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, _DAMAGE):
            reason = getattr(error, "strerror", None) or str(error) or kind.__name__
            reason = " ".join(reason.split())
            raise Unreadable(f"{self.path}: cannot be read as NIfTI ({reason})") from None


def _load(path: Path) -> tuple[nib.Nifti1Image, str]:
    """One pass: the bytes that are hashed are those that are parsed; gzip verifies its checksum."""
    with _blame(path):
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        content = gzip.decompress(data) if data.startswith(GZIP) else data
        # It logs what it mends in a header without saying whose; what it cannot mend raises.
        nib.imageglobals.logger.setLevel(logging.CRITICAL)
        image = _kind(content).from_bytes(content)
        if image.get_data_dtype().kind not in "iufb":
            raise ValueError(f"voxels of type {image.get_data_dtype()}; need scalars")
        if (
            not np.isfinite(image.affine).all()
            or abs(np.linalg.det(image.affine[:3, :3])) < SINGULAR
        ):
            used = "sform" if image.header["sform_code"] else "qform"
            other = "; if its qform is right, set sform_code to 0" if used == "sform" else ""
            raise ValueError(f"the affine of its {used} is singular{other}")
        if image.dataobj.offset < image.header.sizeof_hdr:
            raise ValueError("by its vox_offset the voxels begin within the header")
        return image, sha256


def _kind(content: bytes) -> type[nib.Nifti1Image]:
    return nib.Nifti2Image if content[4:8] == b"n+2\0" else nib.Nifti1Image


def _scan(path: Path, image, values: np.ndarray, sha256: str) -> Scan:
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or 0 in values.shape:
        size = "x".join(map(str, values.shape))
        raise NotOneVolume(f"{path}: must be one 3D volume, not {size}")
    grid = Grid(values.shape[::-1], np.asarray(image.affine, float))
    return Scan(values.T, grid, str(image.get_data_dtype()), sha256)


def nifti_bytes(values: np.ndarray, grid: Grid, header: Header | None) -> bytes:
    """A .nii.gz file of (z, y, x) or (channel, z, y, x) values; the same bytes each time.

    header: of the scan that lies on `grid`, when it is a NIfTI: its affine, codes and unit are
    kept to the bit. What else it says is of the scan's own voxels, or of a patient, and goes.
    """
    if header is None:
        image = nib.Nifti1Image(values.T, grid.affine, dtype=values.dtype)
        image.set_sform(grid.affine, code="scanner")
        image.header.set_xyzt_units("mm")
    else:
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        image = kind(values.T, None, _bare(header, values.dtype))
    image.header["descrip"] = "cyclesh"
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def _bare(header: Header, dtype: np.dtype) -> Header:
    """A new header, of the same kind, that has no more of this one than its place."""
    bare = type(header)(endianness=header.endianness)
    for field in PLACE:
        bare[field] = header[field]
    bare["pixdim"][:4] = header["pixdim"][:4]  # the others are of axes beyond space
    bare.set_data_dtype(dtype)
    return bare


def publish(files: Mapping[Path, bytes]) -> None:
    """Writes all of them or, should writing fail, none; the last is the one that says "done".

    Raises UserError when a folder cannot be written.
    """
    partials = {  # short, however long the files' own names are
        path: path.with_name(f".{number}-{path.name[:40]}.partial-{os.getpid()}")
        for number, path in enumerate(files)
    }
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # which would be noticed when others were replaced already
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            partials[path].write_bytes(content)
        for path, partial in partials.items():
            os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        for partial in partials.values():
            with suppress(OSError):
                partial.unlink()
