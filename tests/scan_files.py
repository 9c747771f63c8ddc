"""Small NIfTI files for the tests of reading, checking and preparing."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from configs import default
from cyclesh.data.description import Description, description_of
from cyclesh.data.prepare import prepare
from cyclesh.data.recipe import draw_up
from cyclesh.data.store import Store

HEART = description_of(default.fields().data)  # MM-WHS, at the paper's grid

LPS = np.diag([-2.0, -2, 2, 1])

BALLS = Description(
    modalities=("ct", "mr"),
    structures=(("shell", 3), ("core", 7)),
    aliases=((8, 7),),
    dropped=(5,),
    spacing_mm=(2, 2, 2),
    shape=(12, 14, 16),
    windows=(("fixed", -500, 500), ("percentile", 0.5, 99.5)),
)


def described(*names: str, **fields) -> Description:
    """A CT and MR description of structures of these names, labelled 1, 2, ..."""
    structures = tuple((name, value) for value, name in enumerate(names, start=1))
    return replace(BALLS, **{"structures": structures, "aliases": (), "dropped": (), **fields})


def save(path: Path, xyz: np.ndarray, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(xyz, affine), path)
    return path


def balls(seed: int = 0, shape_xyz=(20, 18, 16)) -> np.ndarray:
    """A shell (3) of radius 5 voxels about a core (7) of radius 2.5, near the middle."""
    shift = np.random.default_rng(seed).uniform(-1, 1, 3)
    centre = (np.array(shape_xyz) - 1) / 2 + shift
    away = np.linalg.norm(np.moveaxis(np.indices(shape_xyz), 0, -1) - centre, axis=-1)
    return np.where(away < 2.5, 7, np.where(away < 5, 3, 0)).astype(np.uint8)


def voxels(label: np.ndarray, modality: str, seed: int = 0) -> np.ndarray:
    """Noisy intensities of a label map: HU for ct, arbitrary and positive for mr."""
    level = {"ct": (-300, 100, 350), "mr": (40, 300, 150)}[modality]
    means = np.choose(np.searchsorted((3, 7), label, side="right"), level)
    noise = np.random.default_rng([seed, 1]).normal(0, 12, label.shape)
    return np.maximum(means + noise, -1000 if modality == "ct" else 0).astype(np.int16)


def write_case(root: Path, modality: str, number: int, affine: np.ndarray = LPS) -> Path:
    """One case in MM-WHS's layout; returns the image's path."""
    seed = number + (1000 if modality == "mr" else 0)
    label = balls(seed)
    stem = root / f"{modality}_train" / f"{modality}_train_{number}"
    save(stem.with_name(f"{stem.name}_label.nii.gz"), label, affine)
    image = stem.with_name(f"{stem.name}_image.nii.gz")
    return save(image, voxels(label, modality, seed), affine)


def write_raw(root: Path, subjects: int = 4) -> Path:
    """A raw folder of both modalities."""
    for modality in ("ct", "mr"):
        for number in range(1, subjects + 1):
            write_case(root, modality, number)
    return root


def prepared(
    raw: Path | str, target: Path | str, description: Description = BALLS, **options
) -> Store | None:
    """The store of a raw folder, without a word; options of `draw_up` and of `prepare`."""
    drawn = {key: options.pop(key) for key in ("fractions", "seed", "fold") if key in options}
    recipe = draw_up(raw, target, description, **drawn)
    return prepare(recipe, **{"processes": 1, "progress": False, **options})
