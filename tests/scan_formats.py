"""One volume written in each format that is read, a DICOM series included."""

import locale
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


def itk_image(xyz: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An ITK image (LPS) of voxels (x, y, z) with a NIfTI affine (RAS)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(xyz.T))
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_itk(path: Path, xyz: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(itk_image(xyz, affine), str(path), path.suffix == ".nrrd")
    return path


def write_series(
    folder: Path,
    xyz: np.ndarray,
    affine: np.ndarray,
    slope: float = 1,
    intercept: float = 0,
    uid: str = "1.2.826.0.1.3680043.2.1125.1",
) -> Path:
    """CT slices, int16, rescaled by slope and intercept; file names in no order of space."""
    folder.mkdir(parents=True, exist_ok=True)
    image = itk_image(xyz, affine)
    direction = np.reshape(image.GetDirection(), (3, 3))
    for number in range(image.GetDepth()):
        part = image[:, :, number]
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",  # CT image storage
            "0008|0018": f"{uid}.{number + 1}",
            "0008|0060": "CT",
            "0020|000d": f"{uid}.100",
            "0020|000e": f"{uid}.200",
            "0020|0037": "\\".join(f"{v:.10g}" for v in direction[:, :2].T.ravel()),
            "0020|0032": "\\".join(
                f"{v:.10g}" for v in image.TransformIndexToPhysicalPoint((0, 0, number))
            ),
            "0020|0013": str(number),
            "0028|1052": f"{intercept:g}",
            "0028|1053": f"{slope:g}",
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        write_slice(folder / f"{(number * 5) % image.GetDepth():03d}.dcm", part)
    return folder


def write_slice(path: Path, part: sitk.Image) -> None:
    """One DICOM file, with the identifiers that the image carries."""
    spoken = locale.setlocale(locale.LC_ALL)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(part)
    locale.setlocale(locale.LC_ALL, spoken)  # the writer sets the process's to "C"


def patch_header(path: Path, **fields) -> Path:
    """Sets fields of an uncompressed NIfTI's header as no library would."""
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + content[348:])
    return path
