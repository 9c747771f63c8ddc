"""A trained model put to new scans, one or a folder of them; what is written is in `outputs`."""

import errno
import sys
import time
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cyclesh import outputs, region
from cyclesh.cache import cache_folder
from cyclesh.data import scans
from cyclesh.data.nifti import publish
from cyclesh.deployed import Deployed, load
from cyclesh.errors import UserError
from cyclesh.outputs import Source, Task
from cyclesh.runtime.devices import require_devices, use_compilation_cache

RESULT = ".nii.gz"


@dataclass(frozen=True)
class Job:
    """One scan and the file to be made of it."""

    scan: Path
    target: Path


@dataclass
class Tally:
    """What became of the scans."""

    done: int = 0
    skipped: int = 0  # their results were there already
    failed: tuple[Path, ...] = ()

    def __str__(self) -> str:
        """One line, with the names of those that failed."""
        names = ", ".join(path.name for path in self.failed)
        failed = f", {len(self.failed)} failed: {names}" if names else ""
        exist = f", {self.skipped} exist already (--overwrite)" if self.skipped else ""
        return f"{self.done} done{exist}{failed}"


def parse_center(text: str) -> tuple[float, float, float] | None:
    """ "x,y,z" in millimetres; None for an empty text."""
    try:
        numbers = tuple(float(part) for part in text.split(",")) if text else None
    except ValueError:
        numbers = ()
    if numbers is not None and (len(numbers) != 3 or not np.isfinite(numbers).all()):
        raise UserError(f"--center={text}: give x,y,z in mm (RAS+), as in 12.5,-40,1180")
    return numbers


def run(
    workdir: Path | str,
    task: Task,
    source: Path | str,
    target: Path | str,
    *,
    checkpoint: str = "best",
    pass_voxels: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> Tally:
    """Translates or segments one scan into the file `target`, or those of a folder into a folder.

    A file, or a folder that holds the slices of one DICOM series, is one scan. Within a folder, a
    scan that cannot be used is reported and does not stop the others.

    Args:
      checkpoint: best, last or a step.
      pass_voxels: the largest volume, in voxels of the networks' grid, that goes through a network
        in one pass; larger ones go in tiles. 0: what half of the free memory holds.
    Raises UserError for a wrong task, model or place, and for a single scan that cannot be used.
    """
    use_compilation_cache(cache_folder("compiled"))
    require_devices()
    source, target = Path(source), Path(target)
    model = load(workdir, checkpoint, pass_voxels)
    task = completed(task, model)
    single = source.is_file() or scans.is_series(source)
    if source.is_dir() and single and not quiet:
        for name in scans.beside_series(source):
            _say(f"warning: {source}: is taken for one DICOM series; {name} is left out")
    jobs = [_job(source, target)] if single else _jobs(source, target, model, task, quiet)
    tally, begin = Tally(), time.monotonic()
    for number, job in enumerate(jobs, start=1):
        try:
            if job.target.exists() and not overwrite:
                tally.skipped += 1
                continue
            _require_own(task, job, overwrite)
            line = _one(model, task, job)
            tally.done += 1
        except (UserError, OSError) as error:
            too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
            if single or not (too_long or isinstance(error, UserError)):
                raise
            line = f"{job.scan}: its results' names are too long" if too_long else str(error)
            tally.failed = (*tally.failed, job.scan)
        if line and (not quiet or job.scan in tally.failed):
            left_s = (time.monotonic() - begin) / number * (len(jobs) - number)
            _say(line if single else f"[{number}/{len(jobs)}, {left_s:.0f} s left] {line}")
    return tally


def completed(task: Task, model: Deployed) -> Task:
    """The task with its scans' modality in it. Raises UserError when the model cannot do it."""
    known = model.description.modalities
    for flag, name in (("--to", task.to), ("--modality", task.modality)):
        if name and name not in known:
            raise UserError(f"{flag}={name}: {model.name} knows {' and '.join(known)}")
    player, kind = ("gen", "generators") if task.to else ("seg", "segmentors")
    if not model.has(player):
        raise UserError(f"{model.name}: is a {model.config.method} run and has no trained {kind}")
    modality = model.other_modality(task.to) if task.to else task.modality
    if task.modality not in ("", modality):
        raise UserError(f"--modality={task.modality}: what becomes {task.to} here is {modality}")
    if task.to and task.probabilities:
        raise UserError("--probabilities: a translation has none; they go with --mode=segment")
    return replace(task, modality=modality)


def _one(model: Deployed, task: Task, job: Job) -> str:
    """Reads, computes and writes one scan; a line about it."""
    source = Source(job.scan, *scans.read_scan(job.scan))
    rule = model.description.window(task.modality)
    for doubt in scans.doubts(source.scan, task.modality, rule):
        _say(f"warning: {job.scan}: {doubt}")
    seen = region.look(
        model,
        source.scan,
        job.scan,
        task.modality,
        extent=task.extent,
        centre_mm=task.centre_mm,
        warn=lambda text: _say(f"warning: {text}"),
    )
    make = outputs.translated if task.to else outputs.segmented
    files, line = make(model, task, source, seen, job.target)
    stale = outputs.written_before(job.target) - files.keys()  # by a call with other flags
    publish(files)
    for path in stale:
        path.unlink(missing_ok=True)
    return f"{job.target}: {line}"


def _job(scan: Path, target: Path) -> Job:
    """Raises UserError when the result cannot have this name."""
    if not target.name.endswith(RESULT):
        raise UserError(f"--output={target}: name a file that ends in {RESULT}")
    if target.is_dir():
        raise UserError(f"--output={target}: is a folder; for one scan name a {RESULT} file")
    if target.exists() and target.samefile(scan):
        raise UserError(f"--output={target}: is the input; name another file")
    return Job(scan, target)


def _require_own(task: Task, job: Job, overwrite: bool) -> None:
    """Raises UserError where what goes beside the result would replace the scan or the user's own.

    What stands beside a result of this program, as its sidecar tells, may go.
    """
    before = outputs.written_before(job.target)
    for path in sorted(path for path in before | outputs.beside(task, job.target) if path.exists()):
        if job.scan.exists() and path.samefile(job.scan):  # a broken link is told when it is read
            raise UserError(f"{path}: is the input, and would be replaced; name another --output")
        if not before and not overwrite:
            raise UserError(
                f"{path}: exists and is no result of this program; name another --output, or give "
                "--overwrite"
            )


def _jobs(source: Path, target: Path, model: Deployed, task: Task, quiet: bool) -> list[Job]:
    """The scans of a folder, without labels and scans of the other modality.

    Names tell which they are or, of a result, which bears the name of what it was made of, its
    sidecar.
    """
    if not source.is_dir():
        raise UserError(f"--input={source}: no such file or folder")
    if target.is_file():
        raise UserError(f"--output={target}: is a file; for a folder of scans name a folder")
    if target.resolve() == source.resolve():
        raise UserError(f"--output={target}: is the input; name another folder")
    other = f"{model.other_modality(task.modality)}_".casefold()

    def meant(name: str, names: Set[str]) -> bool:
        about = outputs.read_sidecar(source / f"{name}{RESULT}")
        if about:
            return about.get("to") == task.modality
        no_scan = name.endswith("_label") or outputs.is_part(name, names)
        return not no_scan and not name.casefold().startswith(other)

    found, left_out = scans.find_scans(source, meant)
    if left_out and not quiet:
        names = ", ".join(path.name for path in left_out[:3]) + (" ..." if left_out[3:] else "")
        kinds = f"{len(left_out)} labels, masks or scans of another modality"
        _say(f"{source}: leaves out {kinds}: {names}")
    jobs = [Job(path, target / f"{scans.name_of(path)}{RESULT}") for path in found]
    inputs = {_identity(path): path for path in found if path.is_file()}
    for job in jobs:
        if job.target.exists() and _identity(job.target) in inputs:
            scan = inputs[_identity(job.target)]
            raise UserError(f"--output={target}: {job.target.name} is the input {scan}, by a link")
    return jobs


def _identity(path: Path) -> tuple[int, int]:
    """Of the file that a path or a link leads to."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _say(text: str) -> None:
    print(f"cyclesh: {text}", file=sys.stderr, flush=True)
