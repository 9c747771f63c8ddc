"""`--mode=reproduce`: the plan of the paper's experiments, run trial by trial, then tabulated.

The folder holds config.json (what the plan was made from), runs/NAME/ (an ordinary workdir for each
trial), runs/NAME.json (its record) and, once their trials are done, tables and figures. Each trial
is a process of its own: its memory goes when it ends, and its exit status says how it ended.
"""

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from cyclesh.claims import check_workdir, claim_workdir
from cyclesh.errors import NonFiniteError, Stopped, UserError
from cyclesh.evidence import figures, records, slurm, writing
from cyclesh.evidence.durations import Durations, duration
from cyclesh.evidence.jobs import Jobs
from cyclesh.evidence.pages import COMMAND
from cyclesh.evidence.plan import OUTPUTS, plan_for
from cyclesh.evidence.records import RUNS, is_finished, record_path, to_run
from cyclesh.evidence.shares import Share, divide, in_fresh_process
from cyclesh.evidence.trials import Plan, Trial, config_of, steps_of
from cyclesh.files import write_text
from cyclesh.workdir import read_config

PUBLISHED = ("*.csv", "*.md", "*.png", "*.svg")  # and the plan's records
PICTURED = ("figure3", "figure6")  # made with networks, so once no trial runs
Start = Callable[[Trial, Share], subprocess.Popen]  # of a trial's process


def reproduce(
    config: ConfigDict,
    workdir: str | Path,
    only: Sequence[str] = OUTPUTS,
    quiet: bool = False,
    start: Start | None = None,
    command: str = "",
    publish_in: str = "",
    jobs: int = 1,
) -> list[Path]:
    """Run what is missing of the outputs ``only``, then write them; returns their files.

    As many trials as ``jobs`` run at once, each on its share of the machine's cores or GPUs. With
    ``publish_in``, a folder, what is worth keeping is copied there, named failures and all.

    Raises: UserError; Stopped (the trials' states are saved: the same call goes on); NonFiniteError
    after all else is done, where the loss of any trial stopped being finite.
    """
    workdir, only, shares = Path(workdir), check_outputs(only), divide(jobs)
    if publish_in:
        records.check_published(plan_for(config), workdir, Path(publish_in))
    plan = claim(config, workdir, [*only, *(with_page(workdir) if publish_in else [])], command)
    silent = quiet or jobs > 1  # their lines would mix
    start = start or (lambda trial, share: start_process(workdir, trial, share, silent))
    if not quiet:
        print(describe(plan, workdir, only, shares), file=sys.stderr, flush=True)
    progress = Durations(plan, workdir, shares)
    missing = to_run(plan, plan.wanted(only), workdir)
    left, files = {trial.name for trial in missing}, {}

    def write_settled(outputs: Iterable[str]) -> None:
        for output in outputs:
            if output not in files and not left & {t.name for t in plan.wanted([output])}:
                files[output] = write(plan, output, workdir)

    with Jobs(start, shares) as running:
        for settled in run_all(plan, missing, workdir, running, progress, quiet):
            left -= settled
            write_settled(output for output in only if output not in PICTURED)
    write_settled(only)
    written = [path for output in only for path in files[output]]
    if publish_in:
        written += publish(workdir, publish_in, fresh=only)
    failed = [t.name for t in plan.wanted(only) if not is_finished(workdir, t)]
    if failed:
        what = f"{len(failed)} trials without result, left out of the tables and named there"
        advice = "delete their runs/NAME* to try again"
        raise NonFiniteError(workdir, f"{what}: {', '.join(failed[:5])}", advice)
    return written


def run_all(
    plan: Plan,
    trials: Sequence[Trial],
    workdir: Path,
    jobs: Jobs,
    durations: Durations,
    quiet: bool,
) -> Iterator[set[str]]:
    """Run these trials, each after its parents; yields the names of those that are settled.

    First of none, before any has begun. Raises: as `reproduce`.
    """
    left, begun = list(trials), 0
    yield set()
    while left:
        unsettled = {trial.name for trial in left}
        for trial in [t for t in left if t.name not in jobs.names and not unsettled & {*t.after}]:
            missing = [p for p in trial.after if not is_finished(workdir, plan.trials[p])]
            if missing:
                message = f"{', '.join(missing)} has no result"
                records.write_failed(plan, trial, workdir, records.NO_PARENT, message)
                left.remove(trial)
                yield {trial.name}
            elif not jobs.full and not jobs.asked:
                begun += 1
                if not quiet:
                    said = durations.announce(trial, left, jobs.spent_s)
                    print(f"[{begun}/{len(trials)}] {said}", file=sys.stderr, flush=True)
                jobs.start(trial)
        if jobs.names:
            trial, status = jobs.wait()
            require_settled(workdir, trial, status, jobs)
            left.remove(trial)
            yield {trial.name}
        elif jobs.asked:
            break
    if jobs.asked:
        raise Stopped(f"{workdir}: stopped; run again to go on")


def require_settled(workdir: Path, trial: Trial, status: int, jobs: Jobs) -> None:
    """Raises, once all others have stopped, where a trial ended without a record."""
    if status in (0, 3):
        return
    ended = [(trial, status), *jobs.stop()]
    for trial, status in ended:
        if status == 2:
            raise UserError(f"{trial.name}: refused, see above; mend it and run again")
        if status == -signal.SIGKILL:
            wants = "give fewer --jobs or a smaller step"
            raise UserError(f"{trial.name}: was killed, as for want of memory: {wants}")
        if status not in (0, 3, 75):
            raise RuntimeError(f"{trial.name}: its process ended with status {status}")
    names = ", ".join(trial.name for trial, status in ended if status == 75)
    raise Stopped(f"{workdir}: stopped in {names}, state saved; run again to go on")


def claim(
    config: ConfigDict, workdir: Path, only: Iterable[str] = OUTPUTS, command: str = ""
) -> Plan:
    """The plan of a workdir, which keeps its config and what was typed.

    Raises UserError, the workdir left as it is, where it is another plan's or its records are.
    """
    plan = plan_for(config)
    check_workdir(config, workdir)
    records.unsettled(plan, plan.wanted(only), workdir)
    claim_workdir(config, workdir)
    (workdir / RUNS).mkdir(exist_ok=True)
    if command:
        write_text(workdir / COMMAND, command + "\n")
    return plan


def write(plan: Plan, output: str, workdir: Path) -> list[Path]:
    """`writing.write`, in a process of its own where it takes networks."""
    if output in PICTURED:
        return in_fresh_process(write_output, workdir, output)
    return writing.write(plan, output, workdir)


def write_output(workdir: Path, output: str) -> list[Path]:
    """`writing.write` of a claimed workdir."""
    return writing.write(plan_for(read_config(workdir)), output, workdir)


def check_outputs(only: Iterable[str]) -> list[str]:
    """In the plan's order. Raises UserError for one that is unknown."""
    for output in only:
        if output not in OUTPUTS:
            raise UserError(f"--only={output}: unknown; use some of {', '.join(OUTPUTS)}")
    return [output for output in OUTPUTS if output in set(only)]


def with_page(workdir: Path) -> list[str]:
    """The outputs that have been written there, in the plan's order."""
    return [output for output in OUTPUTS if (Path(workdir) / f"{output}.md").exists()]


def start_process(workdir: Path, trial: Trial, share: Share, quiet: bool) -> subprocess.Popen:
    """One trial as a process of its own."""
    command = trial_command(workdir, trial.name) + ["--quiet"] * quiet
    with share.confined():
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def trial_command(workdir: Path, name: str) -> list[str]:
    """What runs one trial of a claimed workdir, here or on another machine."""
    return [
        *(sys.executable, "-m", "cyclesh.main", "--mode=reproduce"),
        *(f"--workdir={workdir}", f"--trial={name}"),
    ]


def dry_run(
    config: ConfigDict,
    workdir: str | Path,
    only: Sequence[str] = OUTPUTS,
    launch: str = "here",
    jobs: int = 1,
    publish_in: str | Path = "",
) -> str:
    """What `reproduce` (or, with ``launch`` "slurm", `submit`) would do; nothing is done."""
    workdir, plan, shares = Path(workdir), plan_for(config), divide(jobs)
    check_workdir(config, workdir)
    if publish_in:
        records.check_published(plan, workdir, Path(publish_in))
    return describe(plan, workdir, check_outputs(only), shares, launch)


def describe(
    plan: Plan, workdir: Path, only: Sequence[str], shares: Sequence[Share], launch: str = "here"
) -> str:
    """The plan with the time that it will take: a line for each trial, then for each output.

    Where it would be submitted no step is taken to measure that: other machines will run it.
    """
    wanted = plan.wanted(only)
    missing = to_run(plan, wanted, workdir)
    durations = Durations(plan, workdir, shares)
    seconds = durations.seconds(missing, measure=launch == "here")
    times = dict(zip((t.name for t in missing), seconds, strict=True))
    lines = [f"{len(wanted)} trials for {', '.join(only)}; {len(wanted) - len(missing)} settled"]
    for trial in wanted:
        own = config_of(plan, trial, workdir / RUNS)
        parents = ", ".join(dict.fromkeys(trial.init.values()))
        lines.append(
            f"{plan.level(trial)}  {trial.name:28} {own.method:9} {steps_of(own):6} steps  "
            f"{duration(times[trial.name]) if trial.name in times else 'settled':8}"
            + (f"  from {parents}" if parents else "")
        )
    for output in only:  # by itself: outputs share trials
        own = {t.name: times[t.name] for t in plan.wanted([output]) if t.name in times}
        left = f"{len(own)} trials to run, {duration(durations.together(own))}"
        lines.append(f"{output}: {left if own else 'trials settled'}")
    steps = sum(steps_of(config_of(plan, trial, workdir / RUNS)) for trial in missing)
    order = "one trial after another" if len(shares) == 1 else f"{len(shares)} trials at once"
    lines.append(f"all: {duration(durations.together(times))}, {steps} steps, {order}")
    if launch == "slurm":
        ranks = slurm.levels(plan, missing)
        for number, names in enumerate(ranks):
            lines += [f"{slurm.LEVELS}/level-{number}.txt:", *(f"  {name}" for name in names)]
        lines += map(shlex.join, slurm.submissions(workdir, ranks, only))
    return "\n".join(lines)


def submit(
    config: ConfigDict, workdir: str | Path, only: Sequence[str] = OUTPUTS, command: str = ""
) -> list[str]:
    """Submit what is missing to SLURM; a line for each job."""
    workdir, only = Path(workdir), check_outputs(only)
    plan = claim(config, workdir, only, command)
    missing = to_run(plan, plan.wanted(only), workdir)
    return slurm.submit(workdir, slurm.levels(plan, missing), only)


def publish(workdir: str | Path, folder: str | Path, fresh: Sequence[str] = ()) -> list[Path]:
    """Copy what is worth keeping of a reproduce folder: tables, figures, records.

    Outputs that have a page there are written anew before, but for those that are ``fresh``, so
    that none is older than the records beside it. Pictures that they have no longer are removed
    from the folder, too. Raises: UserError where the folder holds another plan's.
    """
    workdir, folder = Path(workdir), Path(folder)
    plan = plan_for(read_config(workdir))
    records.check_published(plan, workdir, folder)
    for output in with_page(workdir):
        if output not in fresh:
            write(plan, output, workdir)
        for path in [*figures.pictures(output, folder), *writing.tables_beside(output, folder)]:
            if not (workdir / path.name).exists():
                path.unlink(missing_ok=True)
    kept = [path for kind in PUBLISHED for path in sorted(workdir.glob(kind))]
    kept += [path for name in plan.trials if (path := record_path(workdir, name)).exists()]
    copies = []
    for path in kept:
        copy = folder / path.relative_to(workdir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copies.append(copy)
    return copies
