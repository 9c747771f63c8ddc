"""The prepared data set: a folder with a manifest and two memory-mapped .npy files a volume.

It holds
    manifest.json                     what the data are, their splits, windows, grids and sources
    volumes/<id>.image.npy            int16 (z, y, x); value / 32767 is the intensity in [-1, 1]
    volumes/<id>.label.npy            uint8 (z, y, x); class index, 0 is background
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from cyclesh.data.description import Description
from cyclesh.errors import UserError

FORMAT = 1  # raise it when the layout changes, or the voxels that prepare makes of the same files
MANIFEST = "manifest.json"
VOLUMES = "volumes"
INT16_STEPS = 32767
LEAST_INT16 = -(2**15)

Affine = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Source:
    """The files a volume was made from."""

    image: str  # path within the raw folder
    label: str
    shape_xyz: tuple[int, int, int]
    affine: Affine  # of the original grid, (x, y, z) indices -> RAS+ mm
    dtype: str
    sha256_image: str
    sha256_label: str


@dataclass(frozen=True)
class Volume:
    """One entry of the manifest."""

    id: str
    subject: str
    modality: str
    split: str  # train, val, test, extra or paired
    pair_of: str | None  # the test case whose anatomy this paired hold-out shows
    window: tuple[float, float]  # source units that became -1 and 1
    affine: Affine  # of the stored crop, (x, y, z) indices -> RAS+ mm
    source: Source
    cut: Mapping[str, float] = field(hash=False)  # structure -> share that the crop cuts off

    @staticmethod
    def from_json(entry: Mapping) -> "Volume":
        """Inverse of `to_json`."""
        source = dict(entry["source"])
        source["shape_xyz"] = tuple(source["shape_xyz"])
        source["affine"] = as_affine(source["affine"])
        changed = {
            "window": tuple(entry["window"]),
            "affine": as_affine(entry["affine"]),
            "source": Source(**source),
        }
        return Volume(**{**entry, **changed})

    def to_json(self) -> dict:
        """Plain types, as in the manifest."""
        return asdict(self)


class Store:
    """Read access to a prepared data set. Open one with `Store.open(path)`."""

    def __init__(self, root: Path, manifest: Mapping):
        self.root = root
        self.description = Description.from_json(manifest["description"])
        self.volumes = tuple(Volume.from_json(entry) for entry in manifest["volumes"])
        self.split_sha256: str = manifest["split_sha256"]
        self._quantiles: dict[str, np.ndarray] = {}

    @staticmethod
    def open(path: Path | str) -> "Store":
        """Raises UserError when the folder is no store, of another format, or incomplete."""
        root = Path(path)
        if not (root / MANIFEST).is_file():
            raise UserError(f"{root}: is no prepared store (no {MANIFEST}); make one with prepare")
        try:
            manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise UserError(
                    f"{root}: store format {manifest['format']}, this version reads {FORMAT}; "
                    "prepare the data again"
                )
            store = Store(root, manifest)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{root / MANIFEST}: damaged ({error}); prepare again") from None
        for volume in store.volumes:
            for path in volume_paths(root, volume.id):
                if not path.is_file():
                    raise UserError(f"{path}: missing from the store; prepare the data again")
        return store

    def select(self, modality: str, split: str) -> tuple[Volume, ...]:
        """The volumes of a modality and split, in the manifest's order (by id)."""
        return tuple(v for v in self.volumes if (v.modality, v.split) == (modality, split))

    def truth_of(self, volume: Volume) -> Volume | None:
        """The true volume of the other modality of the same subject, where the data have it."""
        return next((v for v in self.volumes if v.pair_of == volume.id), None)

    def image(self, volume: Volume) -> np.ndarray:
        """float32 (z, y, x) in [-1, 1]."""
        return decode(self._read(volume, 0))

    def label(self, volume: Volume) -> np.ndarray:
        """uint8 (z, y, x) class indices."""
        return np.array(self._read(volume, 1))

    def window(self, modality: str) -> tuple[float, float]:
        """The median window of a modality's training volumes: what its synthetic volumes use."""
        chosen = self.select(modality, "train") or self._of(modality)
        if not chosen:
            raise UserError(f"{self.root}: holds no volume of modality {modality!r}")
        low, high = np.median([v.window for v in chosen], axis=0)
        return float(low), float(high)

    def quantiles(self, modality: str) -> np.ndarray:
        """257 quantiles of a modality's training intensities, in equal steps from 0 to 1."""
        if modality not in self._quantiles:
            voxels = (self._read(v, 0).ravel() for v in self.select(modality, "train"))
            places = (v.astype(np.int32) - LEAST_INT16 for v in voxels)
            counts = sum(np.bincount(place, minlength=2**16) for place in places)
            self._quantiles[modality] = quantiles_of(counts, np.linspace(0, 1, 257))
        return self._quantiles[modality]

    @cached_property
    def sha256(self) -> str:
        """Identifies the data: format, description, splits, windows, grids and source hashes."""
        entries = [volume.to_json() for volume in self.volumes]
        content = {"format": FORMAT, "description": self.description.to_json(), "volumes": entries}
        return digest(content)

    def _of(self, modality: str) -> tuple[Volume, ...]:
        return tuple(v for v in self.volumes if v.modality == modality)

    def _read(self, volume: Volume, which: int) -> np.ndarray:
        path = volume_paths(self.root, volume.id)[which]
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:  # gone, or cut short
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise UserError(
                f"{path}: cannot be read ({reason}); bring the store back, or prepare the data "
                "again; the same command goes on"
            ) from None
        if array.shape != self.description.shape:
            raise UserError(f"{path}: shape {array.shape} is not the manifest's; prepare again")
        return array


def quantiles_of(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """`np.quantile` of decoded voxels by how many there are of each of int16's values.

    So all volumes of a modality need not be in memory together.
    """
    upto = counts.cumsum()  # voxels that are no larger than each value
    places = shares * (upto[-1] - 1)
    below, above = (
        decode(np.searchsorted(upto, edge(places), side="right") + LEAST_INT16)
        for edge in (np.floor, np.ceil)
    )
    return below + (above - below) * (places % 1)


def is_store(path: Path | str) -> bool:
    """Whether a folder is a finished store (rather than a raw folder)."""
    return (Path(path) / MANIFEST).is_file() and (Path(path) / VOLUMES).is_dir()


def volume_paths(root: Path, volume_id: str) -> tuple[Path, Path]:
    """The files of a volume's image and label."""
    folder = Path(root) / VOLUMES
    return folder / f"{volume_id}.image.npy", folder / f"{volume_id}.label.npy"


def as_affine(matrix) -> Affine:
    """A 4x4 matrix as hashable, JSON-able tuples."""
    return tuple(tuple(float(x) for x in row) for row in matrix)


def normalise(intensity: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Source units -> [-1, 1], clipped; float32."""
    low, high = window
    unit = (np.asarray(intensity, np.float32) - low) * (2 / (high - low)) - 1
    return np.clip(unit, -1, 1).astype(np.float32)


def restore(unit: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """[-1, 1] -> source units; the inverse of `normalise` within the window; float32."""
    low, high = window
    return ((np.asarray(unit, np.float32) + 1) * ((high - low) / 2) + low).astype(np.float32)


def encode(intensity: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Source units -> int16 of the store."""
    return np.rint(normalise(intensity, window) * INT16_STEPS).astype(np.int16)


def decode(stored: np.ndarray) -> np.ndarray:
    """int16 of the store -> float32 in [-1, 1]."""
    return stored.astype(np.float32) / np.float32(INT16_STEPS)


def digest(content) -> str:
    """sha256 of JSON-able content; the order of keys counts, since it is the order of classes."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
