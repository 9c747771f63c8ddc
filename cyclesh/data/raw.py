"""Raw folders as users have them: which layouts are understood, and which cases they hold.

Layouts (`.nii` or `.nii.gz` in either case, at most three folders deep; M is a modality's name,
e.g. ct):
    M_train/NAME_image.nii.gz + M_train/NAME_label.nii.gz         MM-WHS
    M/images/NAME.nii.gz      + M/labels/NAME.nii.gz              plain
    M_01.nii.gz               + M_01_label.nii.gz                 flat, also within a folder M
    paired/M_of_CASE_image.nii.gz + ..._label.nii.gz              a true volume of CASE's anatomy
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cyclesh.data.description import DATASET_JSON, Description, read_dataset_json
from cyclesh.data.formats import NIFTI, stem_of, suffix_of
from cyclesh.errors import UserError

LAYOUTS = (
    "M_train/NAME_image.nii.gz + NAME_label.nii.gz; M/images/NAME.nii.gz + M/labels/NAME.nii.gz; "
    "or M_01.nii.gz + M_01_label.nii.gz"
)
PAIRED = "paired"
DEPTHS = ("*", "*/*", "*/*/*", "*/*/*/*")  # where cases are looked for: three folders deep
FOREIGN = (  # scans that nothing here reads
    *(".img", ".img.gz", ".mgz", ".mgh", ".mnc"),
    *(".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip"),
)


@dataclass(frozen=True)
class Case:
    """One volume of one subject, and where its files are."""

    id: str
    modality: str
    subject: str
    image: Path
    label: Path | None
    pair_of: str | None  # the case whose anatomy this paired hold-out shows in the other modality


def find_cases(folder: Path | str, description: Description) -> list[Case]:
    """Every case of a raw folder, sorted by id; `label` is None where the file is missing.

    Images without label in a folder named M_test (MM-WHS's challenge data) are no cases.
    Raises UserError when there is none, when two files claim one id, or when dataset.json names
    a case that does not exist.
    """
    root = Path(folder)
    cases, clashes = cases_by_name(root, description)
    if clashes:
        path, reason = next(iter(clashes.items()))
        raise UserError(f"{path}: {reason}")
    return with_roster(cases, root)


def cases_by_name(
    folder: Path | str, description: Description
) -> tuple[dict[str, Case], dict[Path, str]]:
    """The cases by id as the files' names alone tell, before dataset.json's subjects and pairs.

    And the files that are in none of them because an earlier one has their name, and why.
    Raises UserError when there is no case.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name a raw folder (layouts: {LAYOUTS})")
    images, labels, clashes = _images_and_labels(root, description)
    cases: dict[str, Case] = {}
    for (modality, where, name), image in images.items():
        label = labels.get((modality, where, name))
        if label is None and where and where[-1].casefold().endswith("_test"):
            continue
        case = _case(modality, where, name, image, label)
        first = cases.setdefault(case.id, case)
        if first is not case:
            other = first.image.relative_to(root).as_posix()
            clashes[image] = f"{case.id} is also {other}; rename one"
    if not cases:
        raise UserError(
            f"{root}: found no volume of {' or '.join(description.modalities)}; layouts that are "
            f"understood (M is a modality): {LAYOUTS}"
        )
    return cases, clashes


def no_case(name: str, known: Collection[str]) -> str:
    """That there is none of this id, and what some that exist are called."""
    some = ", ".join(sorted(known)[:3]) + (" ..." if len(known) > 3 else "")
    return f"there is no case {name!r}; there are {some}"


def with_roster(cases: Mapping[str, Case], root: Path) -> list[Case]:
    """The cases with dataset.json's subjects and pairs, sorted by id. Raises UserError."""
    dataset = read_dataset_json(root)
    subjects, paired = dataset.get("subjects", {}), dataset.get("paired", {})
    for key, names in (("subjects", subjects), ("paired", {**paired, **_flipped(paired)})):
        unknown = sorted(name for name in names if name not in cases)
        if unknown:
            raise UserError(f"{root / 'dataset.json'}: {key}: {no_case(unknown[0], cases)}")
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


def unmatched_files(
    folder: Path | str, description: Description
) -> tuple[list[Path], dict[Path, str]]:
    """What of a raw folder is in no case: (labels without image, what is ignored and why)."""
    root = Path(folder)
    images, labels, clashes = _images_and_labels(root, description)
    orphans = sorted(path for key, path in labels.items() if key not in images)
    known = {*images.values(), *labels.values(), *clashes}
    strangers = (path for path in _nifti_files(root) if path not in known)
    ignored = dict.fromkeys(strangers, "fits no layout that is understood")
    return orphans, ignored | dict(_unread(root))


def decisive_files(folder: Path | str) -> list[Path]:
    """All files that a store made of a raw folder depends on, sorted; folders may be links."""
    root = Path(folder)
    stated = root / DATASET_JSON
    return [*_nifti_files(root), *([stated] if stated.exists() else [])]


def _nifti_files(root: Path) -> list[Path]:
    """All NIfTI files where cases are looked for, sorted."""
    return [path for path in _visible(root, *DEPTHS) if suffix_of(path) in NIFTI]


def _visible(root: Path, *patterns: str) -> list[Path]:
    """What the patterns find, hidden files and folders left out, sorted."""
    found = {path for pattern in patterns for path in root.glob(pattern)}
    for path in sorted({root, *found}):  # of which `glob` says nothing
        if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
            raise UserError(f"{path}: may not be listed; change who may read it, or take it out")
    parts = {path: path.relative_to(root).parts for path in found}
    return sorted(p for p in found if not any(part.startswith(".") for part in parts[p]))


def _unread(root: Path) -> Iterator[tuple[Path, str]]:
    """Scans that can be no case, being of another format (DICOM by its folder) or too deep; why."""
    for path in _visible(root, *DEPTHS, "**/*"):
        suffix = suffix_of(path)
        if suffix == ".dcm":
            yield path.parent, "holds DICOM files; convert each series to one .nii.gz"
        elif suffix in NIFTI:
            if len(path.relative_to(root).parts) > len(DEPTHS):
                yield path, "lies more than three folders deep; move it up"
        elif suffix or path.name.casefold().endswith(FOREIGN):
            yield path, "is no NIfTI; convert it to .nii.gz"


def _images_and_labels(root: Path, description: Description) -> tuple[dict, dict, dict[Path, str]]:
    """Two tables (modality, folders, name) -> path; the same key joins an image and its label.

    And the files whose key another one has, and why they are in no table.
    """
    images: dict = {}
    labels: dict = {}
    clashes: dict[Path, str] = {}
    for path in _nifti_files(root):
        folders = path.relative_to(root).parts[:-1]
        name = stem_of(path)
        modality = _modality(folders, name, description.modalities)
        if modality is None:
            continue
        if (own := _modality((), name, description.modalities)) not in (None, modality):
            clashes[path] = f"its folder says {modality}, its name {own}; rename one"
            continue
        is_label = _ends(name, "_label") or "labels" in map(str.casefold, folders)
        name = next((name[: -len(e)] for e in ("_label", "_image") if _ends(name, e)), name)
        where = tuple(f for f in folders if f.casefold() not in ("images", "labels"))
        table = labels if is_label else images
        first = table.setdefault((modality, where, name), path)
        if first != path:
            other = first.relative_to(root).as_posix()
            clashes[path] = f"the same volume is also {other}; remove one"
    return images, labels, clashes


def _ends(name: str, ending: str) -> bool:
    """In upper or lower case, as everywhere in names."""
    return name.casefold().endswith(ending)


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


def _flipped(names: Mapping[str, str]) -> dict[str, str]:
    return {value: key for key, value in names.items()}
