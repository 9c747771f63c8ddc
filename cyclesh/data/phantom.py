"""An embedded phantom: unpaired CT and MR hearts as NIfTI files in MM-WHS's layout.

Two cohorts of synthetic subjects, whose anatomies come from different distributions, go through
verify and prepare like any other data. Every test subject is also rendered in the other modality
(`paired/`), so that a translation can be compared with the truth. Not for clinical use: the
shapes are drawn, not measured.
"""

import functools
import gzip
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np

from cyclesh.data.anatomy import LABELS, STRUCTURES, draw_subject
from cyclesh.data.appearance import RENDERERS, label_map, rasterise
from cyclesh.data.shapes import rotation_matrix
from cyclesh.data.splits import FEWEST, split_sizes
from cyclesh.data.workers import in_parallel
from cyclesh.errors import UserError

Array = np.ndarray

# Raise it when the same spec gives other files: it is part of the key of a cache folder.
VERSION = 7
DROPPED = ("ascending aorta", "pulmonary artery")
TRAINING_SPACING_MM = (4.0, 4.0, 4.0)
TRAINING_SHAPE = (32, 40, 40)
# The sign of a cohort's anatomy: hearts are smaller in the CT cohort.
SIDES = {"ct": -0.5, "mr": 0.5}
# Independent streams of random numbers of one subject.
ANATOMY, GRID, APPEARANCE = 0, 1, 2


@dataclass(frozen=True)
class PhantomSpec:
    """What is drawn. Equal specs give equal bytes; a subject depends on none of the counts."""

    seed: int = 0  # of all randomness
    subjects_ct: int = 48  # CT subjects that are split into train, val and test
    subjects_mr: int = 48  # MR subjects that are split into train, val and test
    extra_ct: int = 0  # further CT subjects, split "extra": source volumes for synthesis only
    fractions: tuple[float, float, float] = (0.4, 0.1, 0.5)  # of train, val, test
    spacing_ct_mm: tuple[float, float, float] = (3.5, 2.8, 2.8)  # z, y, x; each subject's +-8 %
    spacing_mr_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)  # z, y, x; each subject's +-8 %
    field_of_view_mm: tuple[float, float, float] = (168.0, 200.0, 200.0)  # z, y, x of each file
    cohort_difference: float = 1.0  # 0: both cohorts share one anatomy distribution
    noise_ct: float = 1.0  # multiplies the noise of 20 to 30 HU
    noise_mr: float = 1.0  # multiplies the noise of 3.5 to 5.5 % of the signal of blood

    def __post_init__(self) -> None:
        for name in ("subjects_ct", "subjects_mr"):
            if getattr(self, name) < FEWEST:
                raise UserError(f"phantom: {name} is {getattr(self, name)}; a split needs {FEWEST}")
        if self.extra_ct < 0:
            raise UserError(f"phantom: extra_ct is {self.extra_ct}; give 0 or more")
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise UserError(f"phantom: fractions {self.fractions} are no shares that add to 1")


def phantom_key(spec: PhantomSpec) -> str:
    """A short name of what write_phantom(spec) writes, for a cache folder."""
    text = json.dumps([VERSION, asdict(spec)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_phantom(
    spec: PhantomSpec,
    folder: str | os.PathLike,
    processes: int | None = None,
    progress: bool = True,
) -> None:
    """Write the phantom to `folder` (see the module's docstring), all of it or nothing.

    The bytes depend on `spec` alone. `processes` defaults to one for each core. A folder that
    already holds this phantom is left alone; UserError when it holds anything else.
    """
    folder = Path(folder)
    if _holds(folder, spec):
        return
    jobs = _jobs(spec)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        for name in ("ct_train", "mr_train", "paired"):
            (partial / name).mkdir(parents=True)
        write = functools.partial(_write_case, spec, partial)
        in_parallel(write, jobs, title="phantom", processes=processes, progress=progress)
        (partial / "dataset.json").write_text(json.dumps(dataset_json(spec), indent=1) + "\n")
        record = {"key": phantom_key(spec), "spec": asdict(spec)}
        (partial / "phantom.json").write_text(json.dumps(record, indent=1) + "\n")
        os.rename(partial, folder)
    except OSError:
        if not _holds(folder, spec):  # unless another run has just written the same
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _holds(folder: Path, spec: PhantomSpec) -> bool:
    """Whether the folder is this phantom; UserError when it is something else."""
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return False
    record = folder / "phantom.json"
    if record.is_file() and json.loads(record.read_text()).get("key") == phantom_key(spec):
        return True
    raise UserError(f"{folder} exists and is not the phantom asked for; remove it or name another")


@dataclass(frozen=True)
class Job:
    """One file pair: the subject `index` of a cohort, rendered in `modality`."""

    cohort: str
    index: int
    modality: str

    @property
    def case(self) -> str:
        """The id of the case, also of a paired rendering."""
        source = f"{self.cohort}_train_{1001 + self.index}"
        return source if self.modality == self.cohort else f"{self.modality}_of_{source}"

    @property
    def folder(self) -> str:
        return f"{self.cohort}_train" if self.modality == self.cohort else "paired"


def _split(spec: PhantomSpec) -> dict[str, list[Job]]:
    split: dict[str, list[Job]] = {"train": [], "val": [], "test": [], "extra": []}
    for cohort, count in (("ct", spec.subjects_ct), ("mr", spec.subjects_mr)):
        train, val, _ = split_sizes(count, spec.fractions, f"phantom: {cohort}")
        # Subjects are independent draws, so consecutive ones make a random split.
        cases = [Job(cohort, index, cohort) for index in range(count)]
        split["train"] += cases[:train]
        split["val"] += cases[train : train + val]
        split["test"] += cases[train + val :]
    split["extra"] = [Job("ct", spec.subjects_ct + i, "ct") for i in range(spec.extra_ct)]
    return split


def _paired(test: list[Job]) -> list[Job]:
    return [Job(job.cohort, job.index, "mr" if job.cohort == "ct" else "ct") for job in test]


def _jobs(spec: PhantomSpec) -> list[Job]:
    split = _split(spec)
    return [*(job for part in split.values() for job in part), *_paired(split["test"])]


def dataset_json(spec: PhantomSpec) -> dict:
    """The dataset.json of the phantom: names, label values, training grid, split and pairs."""
    split = _split(spec)
    return {
        "modalities": ["ct", "mr"],
        "structures": {name: LABELS[name] for name in STRUCTURES},
        "aliases": {"421": 420},
        "dropped": [LABELS[name] for name in DROPPED],
        "spacing_mm": list(TRAINING_SPACING_MM),
        "shape": list(TRAINING_SHAPE),
        "windows": {"ct": ["fixed", -400, 600], "mr": ["percentile", 0.5, 99.5]},
        "split": {name: [job.case for job in jobs] for name, jobs in split.items()},
        "paired": {
            pair.case: source.case
            for pair, source in zip(_paired(split["test"]), split["test"], strict=True)
        },
    }


def _write_case(spec: PhantomSpec, folder: Path, job: Job) -> None:
    image, labels, affine = render_case(spec, job)
    stem = folder / job.folder / job.case
    for array, kind in ((image, "image"), (labels, "label")):
        _write_nifti(stem.with_name(f"{stem.name}_{kind}.nii.gz"), array, affine)


def _write_nifti(path: Path, array: Array, affine: Array) -> None:
    """int16 (z, y, x) to a gzip file that holds no time and no name."""
    nifti = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
    nifti.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0))


def render_case(spec: PhantomSpec, job: Job) -> tuple[Array, Array, Array]:
    """Image and labels, int16 (z, y, x), and the NIfTI affine (of x, y, z) of one case."""
    key = [spec.seed, sorted(SIDES).index(job.cohort), job.index]
    side = SIDES[job.cohort] * spec.cohort_difference
    subject = draw_subject(np.random.default_rng([*key, ANATOMY]), side)
    spacing = spec.spacing_ct_mm if job.cohort == "ct" else spec.spacing_mr_mm
    grid_rng = np.random.default_rng([*key, GRID])
    affine, shape = draw_grid(grid_rng, spacing, spec.field_of_view_mm)
    points = grid_points(affine, shape)
    coats = rasterise(subject, points, affine, edge_mm=1.2 * float(np.mean(spacing)))
    modality = sorted(RENDERERS).index(job.modality)
    rng = np.random.default_rng([*key, APPEARANCE, modality])
    noise = spec.noise_ct if job.modality == "ct" else spec.noise_mr
    image = RENDERERS[job.modality](coats, points, noise, rng)
    affine[:3, 3] += grid_rng.uniform(-60, 60, 3)  # a scanner's origin is not the heart
    return np.rint(image).astype(np.int16), label_map(coats, shape), affine


def draw_grid(
    rng: np.random.Generator,
    spacing_mm: tuple[float, float, float],
    field_of_view_mm: tuple[float, float, float],
) -> tuple[Array, tuple[int, int, int]]:
    """A scan's grid about the heart: affine of (x, y, z) voxels to RAS+ mm, shape (z, y, x).

    One scan in five has its axes the DICOM way (left, posterior, superior), one in five is
    slightly oblique: readers must take the affine at its word.
    """
    spacing = np.array(spacing_mm[::-1]) * rng.uniform(0.92, 1.08, size=3)[[0, 0, 1]]
    counts = np.ceil(np.array(field_of_view_mm[::-1]) / spacing).astype(int)
    axes, kind = np.eye(3), rng.random()
    angles = np.deg2rad(rng.uniform(-7, 7, size=3))
    if kind < 0.2:
        axes = np.diag([-1.0, -1.0, 1.0])
    elif kind < 0.4:
        axes = rotation_matrix(angles)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = rng.uniform(-6, 6, size=3) - affine[:3, :3] @ ((counts - 1) / 2)
    return affine, tuple(int(n) for n in counts[::-1])


def grid_points(affine: Array, shape: tuple[int, int, int]) -> Array:
    """World coordinates of the voxel centres: float32 (3, z, y, x), mm."""
    k, j, i = (np.arange(n, dtype=np.float32) for n in shape)
    matrix = affine.astype(np.float32)
    i, j, k = i[None, None, :], j[None, :, None], k[:, None, None]
    return np.stack([x * i + y * j + z * k + shift for x, y, z, shift in matrix[:3]])
