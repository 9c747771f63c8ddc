"""The same plan on a SLURM cluster: one job array a level, each after the level below.

A level begins when the one below has ended, however it ended: a trial whose parent has no result
says so and ends. A last job runs whatever is missing and writes the tables.
"""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cyclesh.errors import UserError
from cyclesh.evidence.trials import Plan, Trial
from cyclesh.files import write_text

SCRIPT = Path(__file__).parents[2] / "launch" / "reproduce_slurm.sh"
LEVELS = "slurm"  # folder of the lists of names, one file a level
PREVIOUS = "ID-OF-THE-JOB-BEFORE"


def levels(plan: Plan, trials: Sequence[Trial]) -> list[list[str]]:
    """Names of the trials to run, level by level, the lowest first; empty levels left out."""
    by_level: dict[int, list[str]] = {}
    for trial in trials:
        by_level.setdefault(plan.level(trial), []).append(trial.name)
    return [by_level[level] for level in sorted(by_level)]


def submissions(workdir: Path, ranks: Sequence[Sequence[str]], only: Sequence[str]) -> list[list]:
    """The sbatch commands; PREVIOUS stands for the id of the job before."""
    workdir = Path(workdir).absolute()
    commands = []
    for number, names in enumerate(ranks):
        size, names_file = len(names) - 1, workdir / LEVELS / f"level-{number}.txt"
        commands.append(
            [*_sbatch(f"level{number}", commands), f"--array=0-{size}", SCRIPT, workdir, names_file]
        )
    commands.append([*_sbatch("tables", commands), SCRIPT, workdir, ",".join(only)])
    return [[str(word) for word in command] for command in commands]


def _sbatch(name: str, before: list) -> list[str]:
    waits = [f"--dependency=afterany:{PREVIOUS}"] if before else []
    return ["sbatch", "--parsable", f"--job-name=cyclesh-{name}", *waits]


def submit(workdir: Path, ranks: Sequence[Sequence[str]], only: Sequence[str]) -> list[str]:
    """Write the lists of names and submit all jobs; returns a line for each."""
    if not SCRIPT.is_file():
        raise UserError(f"{SCRIPT}: missing; --launch=slurm needs a checkout, not a package")
    folder = Path(workdir) / LEVELS
    folder.mkdir(exist_ok=True)
    for number, names in enumerate(ranks):
        write_text(folder / f"level-{number}.txt", "\n".join(names) + "\n")
    lines, jobs = [], []
    for command in submissions(workdir, ranks, only):
        words = [word.replace(PREVIOUS, jobs[-1]) if jobs else word for word in command]
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except FileNotFoundError:
            raise UserError("sbatch: not found; submit from a machine of the cluster") from None
        if done.returncode:
            said = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            undo = f"; take back what was submitted: scancel {' '.join(jobs)}" if jobs else ""
            raise UserError(f"sbatch: {said}{undo}")
        jobs.append(done.stdout.strip().partition(";")[0])
        lines.append(f"{jobs[-1]}: {shlex.join(words)}")
    return lines
