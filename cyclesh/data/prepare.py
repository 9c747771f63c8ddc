"""Raw folder -> store: common axes, spacing and crop, intensities to [-1, 1].

Every volume is written atomically into STORE.partial/ and gets its entry last, so a run that is
interrupted goes on where it was, several shards can share the work, and STORE itself appears by one
rename when everything is there.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cyclesh.data import store as stores
from cyclesh.data.description import SPLITS, Description, Window, read_dataset_json
from cyclesh.data.geometry import (
    Grid,
    crop_grid,
    extended,
    inside,
    mask_box_mm,
    misalignment_voxels,
    resample_image,
    resample_labels,
)
from cyclesh.data.raw import (
    PAIRED,
    Case,
    Scan,
    file_sha256,
    find_cases,
    read_image,
    read_labels,
    split_cases,
)
from cyclesh.data.store import Source, Store, Volume, as_affine, digest, volume_paths
from cyclesh.data.workers import in_parallel
from cyclesh.errors import UserError

ENTRIES = "entries"
MISALIGNED_VOXELS = 0.25  # headers round; beyond this a label is not where its image is


@dataclass(frozen=True)
class Crop:
    """One volume on the training grid."""

    image: np.ndarray  # int16 (z, y, x)
    label: np.ndarray  # uint8 (z, y, x)
    grid: Grid
    window: tuple[float, float]
    cut: dict[str, float]


def prepare(
    raw: Path | str,
    store_path: Path | str,
    description: Description,
    *,
    fractions: tuple[float, float, float] = (0.4, 0.1, 0.5),
    seed: int = 0,
    fold: int = 0,
    processes: int | None = None,
    progress: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> Store | None:
    """Makes (or finds finished) the store of a raw folder.

    `description` is what `describe(raw, default)` gave; `processes` defaults to one for each core.
    Without a split in dataset.json, `fractions`, `seed` and `fold` draw it; it is then a part of
    the store, and another one needs another store. `shard=(i, n)` does the i-th of n shares;
    the shard that finds everything complete finishes the store, the others return None.
    Raises UserError for faulty input, and when `store_path` holds something else.
    """
    raw, target, building = _places(raw, store_path)
    index, count = shard
    if not 0 <= index < count:
        raise UserError(f"shard {index} of {count}: the first number must lie in 0..{count - 1}")
    cases = find_cases(raw, description)
    splits = split_cases(cases, read_dataset_json(raw), fractions, seed, fold)
    _require_labels(cases)
    if stores.is_store(target):
        return _finished(target, raw, cases, splits, description)
    for folder in (stores.VOLUMES, ENTRIES):
        (building / folder).mkdir(parents=True, exist_ok=True)
    work, jobs = partial(_prepare_into, building, raw, description), _jobs(cases)
    try:
        in_parallel(
            work, jobs[index::count], title="prepare", processes=processes, progress=progress
        )
        entries = [_entry(building, case, description) for case in cases]
        if None not in entries:
            _finish(building, target, _manifest(entries, cases, splits, description, fractions))
            return Store.open(target)
    except OSError:
        if not stores.is_store(target):
            raise
    if not stores.is_store(target):
        return None
    # Another shard, or another run with the same inputs, has finished meanwhile: the folder under
    # construction has gone, or ours is one too many.
    shutil.rmtree(building, ignore_errors=True)
    return _finished(target, raw, cases, splits, description)


def plan(
    raw: Path | str,
    store_path: Path | str,
    description: Description,
    *,
    fractions: tuple[float, float, float] = (0.4, 0.1, 0.5),
    seed: int = 0,
    fold: int = 0,
) -> str:
    """What `prepare` would do, in a few lines. Writes nothing; raises UserError as it does."""
    raw, target, building = _places(raw, store_path)
    cases = find_cases(raw, description)
    splits = split_cases(cases, read_dataset_json(raw), fractions, seed, fold)
    _require_labels(cases)
    done = sum(_entry_path(building, case).exists() for case in cases)
    bytes_a_voxel = 3  # an int16 and a uint8
    size_mb = len(cases) * np.prod(description.shape) * bytes_a_voxel / 1e6
    spacing = "x".join(f"{mm:g}" for mm in description.spacing_mm)
    state = "finished already" if stores.is_store(target) else f"{done} of them done already"
    lines = [
        f"{len(cases)} volumes ({state}) -> {target}, {size_mb:.1f} MB",
        f"grid {_by(description.shape)} voxels of {spacing} mm (z, y, x)",
    ]
    for modality in description.modalities:
        counts = Counter(splits[case.id] for case in cases if case.modality == modality)
        parts = ", ".join(f"{counts[s]} {s}" for s in (*SPLITS, PAIRED) if counts[s])
        lines.append(f"{modality}: {parts or 'none'}; window {description.window(modality)}")
    return "\n".join(lines)


def crop_case(
    image: Scan, label: Scan, case: Case, description: Description, pair: Scan | None = None
) -> Crop:
    """One volume on the training grid, centred on the bounding box of its labelled structures.

    A paired volume gets the crop of its case instead, whose labels are `pair`: translations are
    compared with it voxel by voxel.
    Raises UserError when the label's grid is not the image's, a label value is unknown, or no
    structure is labelled.
    """
    _require_one_grid(image.grid, label.grid, case)
    classes, (low, high) = _located(label, description, case.label)
    box = (low, high) if pair is None else _located(pair, description, Path(case.pair_of))[1]
    centre = np.mean(box, axis=0)
    # To the micrometre, so that no rounding error of the machine enters the store's identity.
    grid = crop_grid(np.round(centre, 3), description.spacing_mm, description.shape)
    half_mm = max(image.grid.spacing_mm) / 2  # from a voxel's centre to its rim
    whole, inner = extended(grid, low - half_mm, high + half_mm)
    labels = resample_labels(classes, image.grid, whole)
    if pair is not None and not labels[inner].any():
        raise UserError(f"{case.image}: lies elsewhere than {case.pair_of}; register the two first")
    intensities, window = sample_scan(image, grid, description.window(case.modality), case.image)
    cut = _cut(labels, labels[inner], description)
    return Crop(stores.encode(intensities, window), labels[inner], grid, window, cut)


def _located(
    label: Scan, description: Description, path: Path
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Class indices, and the bounding box (low, high) of the structures in RAS+ mm."""
    classes = class_indices(label.values, description, path)
    if not classes.any():
        raise UserError(f"{path}: no voxel of {', '.join(description.names)} is labelled")
    return classes, mask_box_mm(classes > 0, label.grid)


def sample_scan(
    image: Scan, grid: Grid, rule: Window, path: Path
) -> tuple[np.ndarray, tuple[float, float]]:
    """The scan on `grid` in its own units, float32, and its window by `rule`.

    A percentile is measured within this very grid. Voxels that the scan did not measure (outside
    of it, NaN, Inf) get the window's low end. `path` is for the message of the UserError that a
    scan without contrast raises.
    """
    intensities, measured = _intensities(image, grid)
    window = intensity_window(rule, intensities[measured], path)
    return np.where(measured, intensities, np.float32(window[0])), window


def _intensities(image: Scan, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The scan on `grid`, and which voxels it measured: those within it that are no NaN or Inf."""
    measured = inside(image.grid, grid)
    finite = np.isfinite(image.values)
    if finite.all():
        return resample_image(image.values, image.grid, grid, fill=0.0), measured
    share = resample_image(finite, image.grid, grid, fill=0.0)
    total = resample_image(np.where(finite, image.values, 0), image.grid, grid, fill=0.0)
    return total / np.maximum(share, 0.5), measured & (share >= 0.5)


def class_indices(values: np.ndarray, description: Description, path: Path | None) -> np.ndarray:
    """Label values of the files -> class indices (uint8); UserError names an unknown value."""
    known = description.class_of_value()
    unknown = 255
    lowest, highest = min(known), max(known)
    table = np.full(highest - lowest + 3, unknown, np.uint8)  # one more at each end: out of range
    for value, index in known.items():
        table[value - lowest + 1] = index
    classes = table[np.clip(values, lowest - 1, highest + 1) - (lowest - 1)]
    strange = np.unique(values[classes == unknown]) if (classes == unknown).any() else ()
    if len(strange):
        listed, expected = (", ".join(map(str, v)) for v in (strange[:5], sorted(known)))
        raise UserError(
            f"{path}: unknown label value {listed}; known are {expected}: "
            "add it to structures, aliases or dropped in dataset.json"
        )
    return classes


def intensity_window(rule: Window, values: np.ndarray, path: Path) -> tuple[float, float]:
    """The source intensities (low, high) that become -1 and 1, from the values within the scan."""
    kind, low, high = rule
    if kind == "percentile":
        if not values.size:
            raise UserError(f"{path}: has no finite voxel where its structures are")
        low, high = (float(f"{v:.6g}") for v in np.percentile(values, [low, high]))
    if not low < high:
        raise UserError(f"{path}: is constant ({low:g}) where its structures are")
    return low, high


def _cut(whole: np.ndarray, crop: np.ndarray, description: Description) -> dict[str, float]:
    """Share of each structure's voxels that the crop leaves outside."""
    bins = description.classes
    total = np.bincount(whole.ravel(), minlength=bins)[1:]
    kept = np.bincount(crop.ravel(), minlength=bins)[1:]
    shares = 1 - kept / np.maximum(total, 1)
    pairs = zip(description.names, np.where(total > 0, shares, 0.0), strict=True)
    return {name: round(float(share), 6) for name, share in pairs}


def _require_one_grid(image: Grid, label: Grid, case: Case) -> None:
    apart = misalignment_voxels(image, label)
    if apart <= MISALIGNED_VOXELS:
        return
    how = f"corners up to {apart:.2g} voxels apart"
    if image.shape != label.shape:
        how = f"{_by(label.shape)} voxels against {_by(image.shape)}"
    raise UserError(
        f"{case.label}: does not lie on the grid of {case.image.name} ({how}); "
        "resample it or mend its header (verify lists all such files)"
    )


def _by(shape: Iterable[int]) -> str:
    return "x".join(str(n) for n in shape)


def _require_labels(cases: Iterable[Case]) -> None:
    without = [case.image for case in cases if case.label is None]
    if without:
        raise UserError(
            f"{without[0]}: has no label ({len(without)} such volumes); add the label file or take "
            "the volume out of the raw folder"
        )


@dataclass(frozen=True)
class Job:
    """The work on one case."""

    case: Case
    pair_label: Path | None  # of the case whose crop a paired volume shares

    def source_files(self) -> list[Path]:
        """Everything that is read for it."""
        return [path for path in (self.case.image, self.case.label, self.pair_label) if path]


def _jobs(cases: list[Case]) -> list[Job]:
    labels = {case.id: case.label for case in cases}
    return [Job(case, labels.get(case.pair_of)) for case in cases]


def _prepare_into(building: Path, raw: Path, description: Description, job: Job) -> None:
    """One case's files, its entry last; nothing when they are there already. Runs in a worker."""
    case = job.case
    entry = _entry(building, case, description)
    if entry is not None and entry["read"] == [file_sha256(path) for path in job.source_files()]:
        return
    image, label = read_image(case.image), read_labels(case.label)
    pair = read_labels(job.pair_label) if job.pair_label else None
    crop = crop_case(image, label, case, description, pair)
    for path, array in zip(volume_paths(building, case.id), (crop.image, crop.label), strict=True):
        with _replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, array)
    source = Source(
        image=case.image.relative_to(raw).as_posix(),
        label=case.label.relative_to(raw).as_posix(),
        shape_xyz=image.grid.shape[::-1],
        affine=as_affine(image.grid.affine),
        dtype=image.dtype,
        sha256_image=image.sha256,
        sha256_label=label.sha256,
    )
    entry = {
        "recipe": _recipe(case, description),
        "read": [scan.sha256 for scan in (image, label, pair) if scan is not None],
        "window": list(crop.window),
        "affine": as_affine(crop.grid.affine),
        "source": asdict(source),
        "cut": crop.cut,
    }
    with _replacing(_entry_path(building, case)) as temporary:
        temporary.write_text(json.dumps(entry), encoding="utf-8")


def _recipe(case: Case, description: Description) -> str:
    """Everything that decides a volume's voxels, but for the files that are read."""
    return digest([stores.FORMAT, case.modality, case.pair_of, description.to_json()])


def _entry_path(building: Path, case: Case) -> Path:
    return building / ENTRIES / f"{case.id}.json"


def _entry(building: Path, case: Case, description: Description) -> dict | None:
    """The entry of a case whose volume is complete and made by this recipe; else None."""
    path = _entry_path(building, case)
    if not path.exists() or not all(p.exists() for p in volume_paths(building, case.id)):
        return None
    entry = json.loads(path.read_text(encoding="utf-8"))
    return entry if entry["recipe"] == _recipe(case, description) else None


def _manifest(
    entries: list[dict],
    cases: list[Case],
    splits: dict[str, str],
    description: Description,
    fractions: tuple[float, float, float],
) -> dict:
    volumes = []
    for case, entry in zip(cases, entries, strict=True):
        volumes.append(
            {
                "id": case.id,
                "subject": case.subject,
                "modality": case.modality,
                "split": splits[case.id],
                "pair_of": case.pair_of,
                **{key: entry[key] for key in ("window", "affine", "source", "cut")},
            }
        )
    return {
        "format": stores.FORMAT,
        "description": description.to_json(),
        "split_sha256": digest(sorted(splits.items())),
        "fractions": list(fractions),
        "volumes": volumes,
    }


def _finish(building: Path, target: Path, manifest: dict) -> None:
    """The manifest, then the rename that makes the store exist, then the scaffolding's removal."""
    with _replacing(building / stores.MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.rename(building, target)
    shutil.rmtree(target / ENTRIES, ignore_errors=True)
    wanted = {path for v in manifest["volumes"] for path in volume_paths(target, v["id"])}
    for path in {*(target / stores.VOLUMES).iterdir(), *target.glob("*.tmp-*")} - wanted:
        path.unlink(missing_ok=True)


def _finished(
    target: Path,
    raw: Path,
    cases: list[Case],
    splits: dict[str, str],
    description: Description,
) -> Store:
    """The existing store, when it was made from the same inputs."""
    store = Store.open(target)
    reason = _difference(store, raw, cases, splits, description)
    if reason:
        raise UserError(
            f"{target}: was prepared from other inputs ({reason}); remove it or name another output"
        )
    return store


def _difference(
    store: Store,
    raw: Path,
    cases: list[Case],
    splits: dict[str, str],
    description: Description,
) -> str | None:
    if store.description != description:
        now, then = description.to_json(), store.description.to_json()
        changed = [key for key in now if now[key] != then[key]] or ["structures"]
        return f"{changed[0]} was {then[changed[0]]}, is {now[changed[0]]}"
    volumes = {volume.id: volume for volume in store.volumes}
    strays = sorted({case.id for case in cases} ^ volumes.keys())
    if strays:
        return f"{strays[0]} is in only one of store and {raw}"
    for case in cases:
        volume = volumes[case.id]
        if _roster(case, splits) != (volume.subject, volume.split, volume.pair_of):
            return f"{case.id}: subject, split or pair were {_roster_of(volume)}"
        hashes = (volume.source.sha256_image, volume.source.sha256_label)
        if hashes != (file_sha256(case.image), file_sha256(case.label)):
            return f"the files of {case.id} have changed"
    return None


def _roster(case: Case, splits: dict[str, str]) -> tuple[str, str, str | None]:
    return case.subject, splits[case.id], case.pair_of


def _roster_of(volume: Volume) -> str:
    return f"{volume.subject}, {volume.split}, {volume.pair_of or 'none'}"


def _places(raw: Path | str, store_path: Path | str) -> tuple[Path, Path, Path]:
    """(raw folder, store, folder under construction); an empty folder may become the store."""
    target = Path(os.path.abspath(store_path))
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty and not stores.is_store(target):
        raise UserError(f"{target}: exists and is no prepared store; name another output")
    return Path(raw), target, target.with_name(f"{target.name}.partial")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` when the block succeeds."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
