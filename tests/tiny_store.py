"""A store of a dozen small volumes, and the words of runs on it that take seconds."""

import json
from pathlib import Path

import numpy as np

from cyclesh.data.description import Description
from cyclesh.data.store import FORMAT, MANIFEST, VOLUMES, Source, Store, Volume, as_affine, encode

SHAPE = (16, 16, 16)
DESCRIPTION = Description(
    modalities=("ct", "mr"),
    structures=(("shell", 1), ("core", 2)),
    aliases=(),
    dropped=(),
    spacing_mm=(8, 8, 8),
    shape=SHAPE,
    windows=(("fixed", -1, 1), ("fixed", -1, 1)),
)
SPLITS = ("train", "train", "train", "val", "test")  # of the volumes of either modality
# Flags of a run that validates and saves after each of its steps, and keeps all it saved.
EACH_STEP = ("--config.log.validate_epochs=0.01", "--config.log.keep_every_steps=1")
GREY = {"ct": (-0.9, 0.1, 0.6), "mr": (-0.5, 0.7, -0.1)}  # of background, shell, core


def write_store(root: Path) -> Path:
    """Balls of noise: larger in one volume than in the next, and brighter in CT."""
    (root / VOLUMES).mkdir(parents=True)
    z, y, x = np.ogrid[-7.5:8, -7.5:8, -7.5:8]
    volumes = []
    for modality, greys in GREY.items():
        for n, split in enumerate(SPLITS):
            name, rng = f"{modality}_{n}", np.random.default_rng(len(volumes))
            radius = np.sqrt(z * z + y * y + x * x) / (1 + n / 10)
            label = ((radius < 6).astype(np.uint8) + (radius < 3)).astype(np.uint8)
            image = np.array(greys)[label] + rng.normal(0, 0.1, SHAPE)
            np.save(root / VOLUMES / f"{name}.image.npy", encode(image, (-1, 1)))
            np.save(root / VOLUMES / f"{name}.label.npy", label)
            volumes.append(_entry(name, modality, split))
    write_manifest(root, volumes)
    return root


def write_manifest(root: Path, volumes: list[Volume]) -> None:
    manifest = {
        "format": FORMAT,
        "description": DESCRIPTION.to_json(),
        "split_sha256": "0" * 64,
        "fractions": [0.4, 0.1, 0.5],
        "volumes": [volume.to_json() for volume in volumes],
    }
    (root / MANIFEST).write_text(json.dumps(manifest))


def change_store(root: Path) -> None:
    """As if it were prepared again from other files."""
    volumes = [*Store.open(root).volumes]
    source = Source(**{**vars(volumes[0].source), "sha256_image": "another"})
    write_manifest(root, [Volume(**{**vars(volumes[0]), "source": source}), *volumes[1:]])


def _entry(name: str, modality: str, split: str) -> Volume:
    eye = as_affine(np.eye(4))
    files = f"{name}.nii.gz", f"{name}_label.nii.gz"
    source = Source(*files, SHAPE, eye, "int16", f"{name} image", f"{name} label")
    cut = {"shell": 0.0, "core": 0.0}
    return Volume(name, name, modality, split, None, (-1.0, 1.0), eye, source, cut)


def run_words(store: Path, method: str, items: str = "") -> list[str]:
    """Flags of a run on the store: networks of one level, three steps an epoch, two epochs."""
    sizes = f"tiny,data={store},shape=16x16x16,filters=2"
    items = items if "epochs=" in items else f"epochs=2{',' if items else ''}{items}"
    return [
        f"--config=configs/{method}.py:{sizes},{items}",
        "--config.model.depth=1",
        "--config.model.residual_blocks=1",
        "--config.compute.lowering=native",
        "--config.judge.epochs=1",
        "--config.log.report_cases=1",
        "--config.log.keep_every_steps=0",
    ]
