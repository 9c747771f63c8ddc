"""Which files are scans: the endings of their names, in upper or lower case."""

from pathlib import Path

NIFTI = (".nii.gz", ".nii")
FORMATS = (*NIFTI, ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm")  # that scans.py reads


def suffix_of(path: Path) -> str:
    """The one of FORMATS that a name ends in, in any case; "" for none."""
    return next((s for s in FORMATS if path.name.casefold().endswith(s)), "")


def stem_of(path: Path) -> str:
    """A file's name without its format."""
    return path.name[: len(path.name) - len(suffix_of(path))]
