"""The loop of training: steps, and what follows them: rows, validations, checkpoints.

Everything here is order and side effects; what a step does is in `step`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from cyclesh import evaluate
from cyclesh.compiling import Steps, told_if_too_large
from cyclesh.domains import DOMAINS, other
from cyclesh.errors import NonFiniteError, Stopped
from cyclesh.evaluate import Model
from cyclesh.home_devices import kept_state, working_state
from cyclesh.provenance import git_revision
from cyclesh.run import Run, as_trees, first_state
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.distributed import from_first, is_first, stop_signals
from cyclesh.runtime.logs import RunLog, read_rows
from cyclesh.runtime.progress import Progress
from cyclesh.runtime.sharding import on_one_device
from cyclesh.scoring.slices import PLANES, cut
from cyclesh.settings import STOP_METRICS
from cyclesh.state import Phase, Players, TrainState
from cyclesh.workdir import CHECKPOINTS


@dataclass(frozen=True)
class Outputs:
    """Where a loop's results go."""

    checkpoints: Checkpoints
    log: RunLog
    progress: Progress
    skips: "Skips"
    commits: tuple[str, ...]  # that have trained the run, in their order


@dataclass
class Skips:
    """Steps that were left out, since a loss or gradient was not finite."""

    allowed: int
    count: int = 0


def fit(
    run: Run,
    get_judge: Callable[[], dict | None],
    quiet: bool,
    verbose: bool = False,
    name: str = "",
) -> int:
    """Train from the newest checkpoint, or from the start, to the end; returns the last step.

    get_judge: gives the judges of the S-score, or None; not asked where nothing is left to do.
    """
    keep = run.config.log.keep_every_steps
    with Checkpoints(run.workdir / CHECKPOINTS, keep) as checkpoints:
        make_state, step = first_state(run, checkpoints)
        if step >= run.total_steps or stalled(run, read_rows(run.workdir, step)):
            return step
        meta = checkpoints.meta(step) if step else {"commits": []}
        skipped = meta.get("skipped", 0)
        commits = tuple(dict.fromkeys([*meta.get("commits", ["unknown"]), git_revision()]))
        with told_if_too_large(run), Steps(run, run.phase_at(step)) as steps:
            judge, current = get_judge(), working_state(make_state(), run.mesh)
            del make_state  # which holds what was restored
            with (
                RunLog(run.workdir, step, writes=is_first()) as log,
                Progress(run.stretches, step, quiet, verbose, name) as progress,
                stop_signals() as stopping,
            ):
                skips = Skips(run.config.optim.skip_nonfinite, skipped)
                out = Outputs(checkpoints, log, progress, skips, commits)
                return loop(run, steps, current, step, out, judge, stopping)


def loop(
    run: Run,
    steps: Steps,
    current: TrainState,
    step: int,
    out: Outputs,
    judge: dict | None,
    stopping: Callable[[], bool],
) -> int:
    """Steps, and what follows them: rows, validations, checkpoints. Returns the last step."""
    forward = evaluate.make_forward(run.nets)
    begin = time.time() - (out.log.rows[-1]["wall_s"] if out.log.rows else 0.0)
    pending: tuple[int, Phase, dict] | None = None  # a step whose metrics were not looked at yet
    for batch in run.batches(step):
        phase = run.phase_at(step)
        current, metrics = steps.of(phase)(current, batch)
        if pending:  # one step behind, so that the device does not wait for the host
            settle(run, pending, out)
        step, pending = step + 1, (step + 1, phase, metrics)
        validates, stop = run.validates_after(step), stopping()
        saves = validates or stop or run.keeps_after(step)
        logs = validates or step % run.config.log.row_steps == 0
        if not (logs or saves):
            continue
        row = {"step": step, "epoch": step / run.epoch_steps, "phase": phase.name}
        row |= settle(run, pending, out)
        pending = None
        if saves:
            kept = kept_state(current, run.mesh)
        if validates:
            params = kept.params if run.mesh is None else on_one_device(kept.params)
            model = Model(forward, *run.learned(params, step), judge)
            row |= from_first(partial(validated, run, model, out.log, step))
        row["wall_s"] = time.time() - begin
        if logs:
            out.log.write(row)
            out.progress.logged(row)
        if saves:
            save(run, kept, step, row, out)
        # Freed before the next step: with a device for each home it is a state in addition.
        kept = model = None
        if stop or step >= run.total_steps or stalled(run, out.log.rows):
            break
    out.checkpoints.wait()
    if stop or stopping():  # asked since, as in a last validation
        raise Stopped(f"{run.workdir}: stopped at step {step}, state saved; run again to go on")
    return step


def settle(run: Run, pending: tuple[int, Phase, dict], out: Outputs) -> dict[str, float]:
    """A step's metrics as numbers; raises NonFiniteError where one is not finite.

    So many steps as `optim.skip_nonfinite` are counted instead: they changed nothing.
    """
    step, phase, metrics = pending
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not values.pop("finite"):
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        volumes = ", ".join(run.loader.volumes_at(step - 1))
        what = f"step {step}: {', '.join(bad)} not finite, on volumes {volumes}"
        if out.skips.count >= out.skips.allowed:
            advice = (
                "the last good checkpoint is kept; leave such steps out "
                f"(--config.optim.skip_nonfinite={out.skips.allowed + 10}), or lower the rates or "
                "clip gradients in another --workdir, which --config.init can start from this one"
            )
            raise NonFiniteError(run.workdir, what, advice)
        out.skips.count += 1
        count = f"{out.skips.count} of {out.skips.allowed}"
        out.progress.note(f"{run.workdir}: {what}; left out, {count}")
    if out.skips.allowed:
        values["run/skipped"] = out.skips.count
    out.progress.advance(phase.name, values)
    return values


def save(run: Run, kept: TrainState, step: int, row: dict, out: Outputs) -> None:
    """A checkpoint of a step, and what is to be known of it."""
    meta = {
        "step": step,
        "store": run.store.sha256,
        "skipped": out.skips.count,
        "commits": list(out.commits),
        "learned": [name for name in Players._fields if run.has_learned(name, step)],
    }
    out.checkpoints.save(step, as_trees(kept), meta, validation_score(run, row))


def validated(run: Run, model: Model, log: RunLog, step: int) -> dict[str, float]:
    """The validation figures of a step; their pictures go to the log."""
    figures = evaluate.validate(model, run.store)
    log_slices(run, model, log, step)
    return figures


def validation_score(run: Run, row: dict) -> float | None:
    """What the best checkpoint is best in: Dice of both segmentors, or the S-score (gan).

    None before the method's own phase: networks that were only pre-trained are not its result.
    """
    if row["phase"] != run.phases[-1].name:
        return None
    return row.get("val/dice" if "seg" in run.config.moves else "val/s_score")


def stalled(run: Run, rows: list[dict]) -> bool:
    """Early stop (4.2): `patience` validations in a row without a new best of `schedule.metric`.

    A figure that is not finite, None in the rows, is none.
    """
    schedule = run.config.schedule
    if not schedule.early_stop:
        return False
    sign = STOP_METRICS[schedule.metric].sign
    method = run.phases[-1]
    first = sum(phase.epochs for phase in run.phases) - method.epochs + schedule.from_epoch
    best, since = float("inf"), 0
    for row in rows:
        if row["epoch"] <= first or schedule.metric not in row:
            continue
        figure = row[schedule.metric]
        better = figure is not None and sign * figure < best - schedule.min_delta
        best, since = (sign * figure, 0) if better else (best, since + 1)
    return since >= schedule.patience


def log_slices(run: Run, model: Model, log: RunLog, step: int) -> None:
    """The same validation cases over time, for TensorBoard, side by side.

    The source; its translation and reconstruction, once there are generators; the predicted
    classes, where there are segmentors. Axial, through the middle, the patient's right on the left
    as everywhere else.
    """
    for domain in DOMAINS:
        volume = run.store.select(run.modality(domain), "val")[0]
        image = run.store.image(volume)
        views = [image]
        if model.gen is not None:
            fake = model.translate(other(domain), image)
            views += [fake, model.translate(domain, fake)]
        if model.seg is not None:
            # Shades from black, the background, to white, the last structure.
            predicted = model.segment(model.seg[domain], image).astype(np.float32)
            views.append(predicted * 2 / (run.store.description.classes - 1) - 1)
        middle = tuple(n // 2 for n in image.shape)
        strip = np.concatenate([cut(v, PLANES[0], middle) for v in views], axis=1)
        log.picture(f"slices/{volume.id}", np.clip(strip / 2 + 0.5, 0, 1), step)
