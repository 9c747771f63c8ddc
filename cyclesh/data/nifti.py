"""Results as NIfTI on exactly the grid they belong to, and files written all or none."""

import gzip
import os
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from cyclesh.data.geometry import Grid
from cyclesh.errors import UserError

Header = nib.Nifti1Header  # NIfTI-2's is one, too


def nifti_bytes(values: np.ndarray, grid: Grid, header: Header | None) -> bytes:
    """A .nii.gz file of (z, y, x) or (channel, z, y, x) values; the same bytes each time.

    header: of the scan that lies on `grid`, when it is a NIfTI: its affine, codes and unit are
    kept to the bit. What else it says is of the scan's own voxels and goes.
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
    header = header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(None, None)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    header.extensions.clear()
    return header


def publish(files: Mapping[Path, bytes]) -> None:
    """Writes all of them or, should writing fail, none; the last is the one that says "done".

    Raises UserError when a folder cannot be written.
    """
    partials = {path: path.with_name(f".{path.name}.partial-{os.getpid()}") for path in files}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partials[path].write_bytes(content)
        for path, partial in partials.items():
            os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        for partial in partials.values():
            if partial.exists():
                partial.unlink()
