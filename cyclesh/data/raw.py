"""Raw folders as users have them: which layouts are understood, who is in which split, and reading.

Layouts (`.nii` or `.nii.gz`; M is a modality's name, e.g. ct):
    M_train/NAME_image.nii.gz + M_train/NAME_label.nii.gz         MM-WHS
    M/images/NAME.nii.gz      + M/labels/NAME.nii.gz              plain
    M_01.nii.gz               + M_01_label.nii.gz                 flat, also within a folder M
    paired/M_of_CASE_image.nii.gz + ..._label.nii.gz              a true volume of CASE's anatomy
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from cyclesh.data.description import SPLITS, Description, read_dataset_json
from cyclesh.data.geometry import Grid
from cyclesh.errors import UserError

LAYOUTS = (
    "M_train/NAME_image.nii.gz + NAME_label.nii.gz; M/images/NAME.nii.gz + M/labels/NAME.nii.gz; "
    "or M_01.nii.gz + M_01_label.nii.gz"
)
PAIRED = "paired"
_EXTENSIONS = (".nii.gz", ".nii")


class Unreadable(UserError):
    """A file that is missing, damaged or no NIfTI of scalars."""


class NotOneVolume(UserError):
    """A file with another number of axes than three."""


class NotLabels(UserError):
    """A label file whose values are no label values."""


@dataclass(frozen=True)
class Case:
    """One volume of one subject, and where its files are."""

    id: str
    modality: str
    subject: str
    image: Path
    label: Path | None
    pair_of: str | None  # the case whose anatomy this paired hold-out shows in the other modality


@dataclass(frozen=True)
class Scan:
    """One read file: (z, y, x) voxels, where they lie, and what exactly was read."""

    values: np.ndarray
    grid: Grid
    dtype: str  # of the voxels in the file
    sha256: str  # of the file


def find_cases(folder: Path | str, description: Description) -> list[Case]:
    """Every case of a raw folder, sorted by id; `label` is None where the file is missing.

    Images without label in a folder named M_test (MM-WHS's challenge data) are no cases.
    Raises UserError when there is none, when two files claim one id, or when dataset.json names
    a case that does not exist.
    """
    root = Path(folder)
    return _with_roster(cases_by_name(root, description), read_dataset_json(root), root)


def cases_by_name(folder: Path | str, description: Description) -> dict[str, Case]:
    """The cases by id as the files' names alone tell, before dataset.json's subjects and pairs."""
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name a raw folder (layouts: {LAYOUTS})")
    images, labels = _images_and_labels(root, description)
    cases: dict[str, Case] = {}
    for (modality, where, name), image in images.items():
        label = labels.get((modality, where, name))
        if label is None and where and where[-1].casefold().endswith("_test"):
            continue
        case = _case(modality, where, name, image, label)
        if case.id in cases:
            raise UserError(f"{image}: {case.id} is also {cases[case.id].image}; rename one")
        cases[case.id] = case
    if not cases:
        raise UserError(
            f"{root}: found no volume of {' or '.join(description.modalities)}; layouts that are "
            f"understood (M is a modality): {LAYOUTS}"
        )
    return cases


def unmatched_files(folder: Path | str, description: Description) -> tuple[list[Path], list[Path]]:
    """(labels that have no image, NIfTI files that fit no layout) of a raw folder."""
    root = Path(folder)
    images, labels = _images_and_labels(root, description)
    orphans = sorted(path for key, path in labels.items() if key not in images)
    known = {*images.values(), *labels.values()}
    return orphans, [path for path in _nifti_files(root) if path not in known]


def split_cases(
    cases: Iterable[Case],
    dataset: Mapping | None = None,
    fractions: tuple[float, float, float] = (0.4, 0.1, 0.5),
    seed: int = 0,
    fold: int = 0,
) -> dict[str, str]:
    """Case id -> "train", "val", "test", "extra" or "paired".

    The `split` of a dataset.json (its parsed content) is obeyed; without one, subjects are shuffled
    by (seed, fold) and cut by `fractions` (train, val, test), each modality for itself, a subject's
    volumes always together. The anatomy of a paired volume belongs to the test split.
    Raises UserError when a case is in no split or in two, or a modality has too few subjects.
    """
    cases = list(cases)
    given = (dataset or {}).get("split")
    regular = [case for case in cases if case.pair_of is None]
    if given is None:
        by_subject = _shuffled_split(cases, fractions, seed, fold)
    else:
        by_subject = _given_split(regular, given)
    splits = {case.id: by_subject[case.subject] for case in regular}
    for case in cases:
        if case.pair_of is not None:
            splits[case.id] = "paired"
            if splits.get(case.pair_of) != "test":
                where = splits.get(case.pair_of, "no split")
                raise UserError(
                    f"paired: {case.id} shows the anatomy of {case.pair_of}, which is in {where}; "
                    "put it into split.test of dataset.json"
                )
    return splits


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
        raise NotLabels(f"{path}: a label file must hold whole numbers only")
    if values.size and (values.max() >= 2**31 or values.min() < -(2**31)):
        raise NotLabels(f"{path}: a label value does not fit 32 bits")
    return _scan(path, image, values.astype(np.int32), sha256)


def read_header(path: Path | str) -> nib.Nifti1Image:
    """The NIfTI with its header and affine, its voxels not yet converted. Raises Unreadable."""
    return _load(Path(path))[0]


def file_sha256(path: Path | str) -> str:
    """Hash of a file's bytes, the `sha256` that reading it gives."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_DAMAGE = (
    OSError,
    EOFError,
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
            reason = " ".join(str(error).split()) or kind.__name__
            raise Unreadable(f"{self.path}: cannot be read as NIfTI ({reason})") from None


def _load(path: Path) -> tuple[nib.Nifti1Image, str]:
    """One pass: the bytes that are hashed are those that are parsed; gzip verifies its checksum."""
    with _blame(path):
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        kind = nib.Nifti2Image if data[4:8] == b"n+2\0" else nib.Nifti1Image
        image = kind.from_bytes(data)
        if image.get_data_dtype().kind not in "iufb":
            raise ValueError(f"voxels of type {image.get_data_dtype()}; need scalars")
        if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
            raise ValueError("the affine is singular")
        return image, sha256


def _scan(path: Path, image, values: np.ndarray, sha256: str) -> Scan:
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or 0 in values.shape:
        size = "x".join(map(str, values.shape))
        raise NotOneVolume(f"{path}: must be one 3D volume, not {size}")
    grid = Grid(values.shape[::-1], np.asarray(image.affine, float))
    return Scan(values.T, grid, str(image.get_data_dtype()), sha256)


def _nifti_files(root: Path) -> list[Path]:
    """All NIfTI files at most three folders deep, hidden ones left out, sorted."""
    files = (path for depth in ("*", "*/*", "*/*/*", "*/*/*/*") for path in root.glob(depth))
    return sorted(
        path
        for path in files
        if path.name.endswith(_EXTENSIONS)
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def _images_and_labels(root: Path, description: Description) -> tuple[dict, dict]:
    """Two tables (modality, folders, name) -> path; the same key joins an image and its label."""
    images: dict = {}
    labels: dict = {}
    for path in _nifti_files(root):
        folders = path.relative_to(root).parts[:-1]
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        modality = _modality(folders, name, description.modalities)
        if modality is None:
            continue
        is_label = name.endswith("_label") or "labels" in folders
        name = name.removesuffix("_label").removesuffix("_image")
        where = tuple(f for f in folders if f not in ("images", "labels"))
        table = labels if is_label else images
        other = table.setdefault((modality, where, name), path)
        if other != path:
            raise UserError(f"{path}: the same volume is also {other.name}; remove one")
    return images, labels


def _modality(folders: tuple[str, ...], name: str, modalities: tuple[str, str]) -> str | None:
    """By the file's name in paired/, else by the folder, else by the file's name."""
    places = [name] if PAIRED in folders else [*folders, name]
    for place in places:
        for modality in modalities:
            key = modality.casefold()
            if place.casefold() == key or place.casefold().startswith(f"{key}_"):
                return modality
    return None


def _case(modality: str, where: tuple[str, ...], name: str, image: Path, label: Path | None):
    """Ids begin with the modality, so that ct/images/01 and mr/images/01 differ."""
    begins = name.casefold().startswith(f"{modality.casefold()}_")
    case_id = name if begins else f"{modality}_{name}"
    of = name.partition("_of_")[2]
    pair_of = (of or None) if PAIRED in where else None
    return Case(case_id, modality, subject=case_id, image=image, label=label, pair_of=pair_of)


def _with_roster(cases: dict[str, Case], dataset: Mapping, root: Path) -> list[Case]:
    """Subjects and pairs of dataset.json put onto the cases."""
    subjects, paired = dataset.get("subjects", {}), dataset.get("paired", {})
    for key, names in (("subjects", subjects), ("paired", {**paired, **_flipped(paired)})):
        unknown = sorted(name for name in names if name not in cases)
        if unknown:
            raise UserError(f"{root / 'dataset.json'}: {key}: there is no case {unknown[0]!r}")
    result = []
    for case in cases.values():
        pair_of = paired.get(case.id, case.pair_of)
        if pair_of is not None and pair_of not in cases:
            raise UserError(f"{case.image}: the paired volume's case {pair_of!r} does not exist")
        if pair_of is None and PAIRED in case.image.relative_to(root).parts:
            raise UserError(f"{case.image}: whose? Name it M_of_CASE, or list it in paired")
        if pair_of is not None and cases[pair_of].modality == case.modality:
            raise UserError(f"{case.image}: a paired volume needs the other modality of {pair_of}")
        owner = pair_of or case.id
        result.append(replace(case, pair_of=pair_of, subject=subjects.get(owner, owner)))
    return sorted(result, key=lambda case: case.id)


def _flipped(names: Mapping[str, str]) -> dict[str, str]:
    return {value: key for key, value in names.items()}


def _given_split(cases: list[Case], given: Mapping[str, list[str]]) -> dict[str, str]:
    """Subject -> split from lists that name cases or subjects."""
    subject_of = {case.subject: case.subject for case in cases}
    subject_of |= {case.id: case.subject for case in cases}
    by_subject: dict[str, str] = {}
    for split in SPLITS:
        for name in given.get(split, ()):
            if name not in subject_of:
                raise UserError(f"dataset.json: split.{split}: there is no case {name!r}")
            subject = subject_of[name]
            if by_subject.setdefault(subject, split) != split:
                raise UserError(
                    f"dataset.json: split: {name!r} ({subject}) is in {by_subject[subject]} and in "
                    f"{split}; a subject belongs to one split"
                )
    left = sorted(case.id for case in cases if case.subject not in by_subject)
    if left:
        raise UserError(
            f"dataset.json: split: {left[0]} is in none ({len(left)} such cases); "
            "add it to train, val, test or extra"
        )
    return by_subject


def _shuffled_split(
    cases: list[Case], fractions: tuple[float, float, float], seed: int, fold: int
) -> dict[str, str]:
    """Subject -> split by chance, one draw for each set of modalities that subjects have."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"split fractions must be three numbers that add up to 1, not {fractions}")
    scanned: dict[str, set[str]] = {}
    for case in cases:
        if case.pair_of is None:
            scanned.setdefault(case.subject, set()).add(case.modality)
    held_out = {case.subject for case in cases if case.pair_of is not None}
    groups: dict[tuple[str, ...], list[str]] = {}
    for subject in sorted(scanned):
        groups.setdefault(tuple(sorted(scanned[subject])), []).append(subject)
    by_subject: dict[str, str] = {}
    for number, modalities in enumerate(sorted(groups)):
        rng = np.random.default_rng([seed, fold, number])
        order = [groups[modalities][i] for i in rng.permutation(len(groups[modalities]))]
        order.sort(key=lambda subject: subject in held_out)  # stable: the pinned go to test, last
        train, val = _counts(len(order), fractions, " and ".join(modalities))
        for position, subject in enumerate(order):
            split = "train" if position < train else "val" if position < train + val else "test"
            by_subject[subject] = split
    return by_subject


def _counts(subjects: int, fractions: tuple[float, float, float], who: str) -> tuple[int, int]:
    """Subjects in train (at least two) and val (at least one); at least one is left for test."""
    if subjects < 4:
        raise UserError(
            f"{who}: {subjects} subjects are too few for train, val and test (at least 4); "
            "add volumes, or give the split in dataset.json"
        )
    val = max(1, round(fractions[1] * subjects))
    train = min(max(2, round(fractions[0] * subjects)), subjects - val - 1)
    return train, val
