"""All faults of a raw folder at once, before anything is prepared from it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from cyclesh.data.description import (
    DATASET_JSON,
    Description,
    read_dataset_json,
    require_levels,
)
from cyclesh.data.inspection import ERROR, WARNING, Fault, Inspection, file_name, inspect
from cyclesh.data.raw import Case, cases_by_name, unmatched_files, with_roster
from cyclesh.data.splits import FRACTIONS, split_cases
from cyclesh.data.workers import in_parallel
from cyclesh.errors import UserError


@dataclass(frozen=True)
class Report:
    """What `verify` found."""

    folder: str
    volumes: tuple[tuple[str, int], ...]  # (modality, number of volumes)
    faults: tuple[Fault, ...]  # errors first, then by file

    @property
    def ok(self) -> bool:
        """Whether there is no error (warnings may be)."""
        return not self.count(ERROR)

    def count(self, severity: str) -> int:
        """How many faults of a severity there are."""
        return sum(fault.severity == severity for fault in self.faults)

    def to_table(self) -> str:
        """A line for each fault and one for the sum."""
        width = max((len(fault.code) for fault in self.faults), default=0)
        lines = [f"{f.severity:7}  {f.code:{width}}  {f.file}: {f.message}" for f in self.faults]
        volumes = ", ".join(f"{number} {modality}" for modality, number in self.volumes)
        verdict = "ok" if self.ok else "not ok"
        counts = f"{self.count(ERROR)} errors, {self.count(WARNING)} warnings"
        return "\n".join([*lines, f"{verdict}: {counts} in {volumes} volumes of {self.folder}"])

    def to_json(self) -> dict:
        """Plain types."""
        return {
            "folder": self.folder,
            "ok": self.ok,
            "volumes": dict(self.volumes),
            "faults": [asdict(fault) for fault in self.faults],
        }


def verify(
    folder: Path | str,
    description: Description,
    *,
    downsamplings: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    processes: int | None = None,
    progress: bool = True,
) -> Report:
    """Checks every file of a raw folder, and whether its split leaves enough to train on.

    `description` is what `describe(folder, default)` gave; `downsamplings` are the networks', whose
    crop may not be smaller than they can halve; `fractions` and `seed` are those of the
    split that is drawn where dataset.json has none. Raises UserError only when there is nothing to
    check: no such folder, or no volume in a layout that is understood.
    """
    root = Path(folder)
    named, clashes = cases_by_name(root, description)
    roster: list[Fault] = []
    try:
        cases = with_roster(named, root)
    except UserError as error:
        cases = sorted(named.values(), key=lambda case: case.id)
        roster = [Fault(DATASET_JSON, ERROR, "roster", str(error))]
    labels = {case.id: case.label for case in cases}
    work = partial(inspect, root=root, description=description, labels=labels)
    found = in_parallel(work, cases, title="verify", processes=processes, progress=progress)
    faults = [
        *roster,
        *(Fault(file_name(p, root), ERROR, "name-clash", why) for p, why in clashes.items()),
        *_strays(root, description),
        *(fault for inspection in found for fault in inspection.faults),
        *_duplicates(root, cases, found),
        *_mixed_orientations(root, cases, found),
        *([] if roster else _splits(root, cases, description, fractions, seed)),
        *_grid(description, downsamplings),
    ]
    faults.sort(key=lambda fault: (fault.severity, fault.file, fault.code))
    counts = Counter(case.modality for case in cases)
    volumes = tuple((modality, counts[modality]) for modality in description.modalities)
    return Report(str(folder), volumes, tuple(faults))


def _strays(root: Path, description: Description) -> Iterator[Fault]:
    orphans, ignored = unmatched_files(root, description)
    for path in orphans:
        yield Fault(file_name(path, root), ERROR, "label-without-image", "has no image file")
    for path, reason in ignored.items():
        yield Fault(file_name(path, root), WARNING, "ignored", reason)


def _duplicates(root: Path, cases: list[Case], found: list[Inspection]) -> Iterator[Fault]:
    """Equal voxels under two names; of two subjects they may land in train and in test."""
    first: dict[str, Case] = {}
    labelled: dict[str, Case] = {}
    for case, inspection in zip(cases, found, strict=True):
        name = file_name(case.image, root)
        twin = first.setdefault(inspection.image_digest or case.id, case)
        if twin != case:
            same = twin.subject == case.subject
            message = f"has the voxels of {file_name(twin.image, root)}" + (
                "" if same else f"; if it is one subject, say so in {DATASET_JSON}"
            )
            yield Fault(name, WARNING if same else ERROR, "duplicate", message)
            continue
        twin = labelled.setdefault(inspection.label_digest or case.id, case)
        if twin.subject != case.subject:
            file, other = file_name(case.label, root), file_name(twin.label, root)
            message = f"has the labels of {other}, which shows another subject"
            yield Fault(file, WARNING, "duplicate-label", message)


def _mixed_orientations(root: Path, cases: list[Case], found: list[Inspection]) -> Iterator[Fault]:
    for modality in sorted({case.modality for case in cases}):
        axes = {
            case: inspection.axes
            for case, inspection in zip(cases, found, strict=True)
            if case.modality == modality and inspection.axes
        }
        counts = Counter(axes.values())
        if len(counts) < 2:
            continue
        usual, number = counts.most_common(1)[0]
        for case, codes in axes.items():
            if codes != usual:
                message = f"is {codes}, {number} of {len(axes)} {modality} are {usual}"
                yield Fault(file_name(case.image, root), WARNING, "mixed-orientation", message)


def _grid(description: Description, downsamplings: int) -> Iterator[Fault]:
    try:
        require_levels(description.shape, downsamplings, "shape")
    except UserError as error:
        yield Fault(DATASET_JSON, ERROR, "shape", str(error))


def _splits(
    root: Path,
    cases: list[Case],
    description: Description,
    fractions: tuple[float, float, float],
    seed: int,
) -> Iterator[Fault]:
    try:
        splits = split_cases(cases, read_dataset_json(root), fractions, seed)
    except UserError as error:
        yield Fault(DATASET_JSON, ERROR, "split", str(error))
        return
    for modality in description.modalities:
        members = [case for case in cases if case.modality == modality]
        if not members:
            yield Fault(".", ERROR, "no-volumes", f"holds no volume of {modality}")
            continue
        subjects = {
            split: len({case.subject for case in members if splits[case.id] == split})
            for split in ("train", "val", "test")
        }
        if subjects["train"] < 2 or not subjects["val"] or not subjects["test"]:
            numbers = ", ".join(f"{number} in {split}" for split, number in subjects.items())
            message = f"{modality} has {numbers} subjects; training needs 2, 1 and 1"
            yield Fault(DATASET_JSON, ERROR, "too-few-subjects", message)
