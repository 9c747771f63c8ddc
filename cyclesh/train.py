"""A run from its config: data, judges, the loop, the test scores, the report.

Everything here is order and side effects; what a step does is in `step`.
"""

import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from cyclesh import __version__, evaluate, settings, state
from cyclesh.cache import cache_folder, key_of, locked
from cyclesh.data.augment import Augment
from cyclesh.data.locate import open_store
from cyclesh.data.pipeline import Loader, Subset, choose_subset
from cyclesh.data.store import Store
from cyclesh.domains import DOMAINS, per_domain
from cyclesh.errors import NonFiniteError, Stopped, UserError
from cyclesh.methods import apply_method
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.devices import use_compilation_cache
from cyclesh.runtime.logs import Progress, RunLog, read_rows
from cyclesh.scoring.cases import write_cases
from cyclesh.scoring.report import write_report
from cyclesh.scoring.report_data import ReportData
from cyclesh.state import Phase, Players, TrainState
from cyclesh.step import make_step, make_weights

CONFIG, DATA, RESULTS, CASES, REPORT = (
    "config.json",
    "data.json",
    "results.json",
    "cases.csv",
    "report.html",
)
# Fields that a run may be continued with another value of.
FREE_FIELDS = ("steps", "data.path", "data.processes", "log.report_cases", "log.keep_every_steps")


@dataclass(frozen=True)
class Run:
    """All that the loop needs, built once from the config and the data."""

    config: ConfigDict
    workdir: Path
    store: Store
    loader: Loader
    nets: Players
    optimisers: Players
    rates: Players
    phases: tuple[Phase, ...]
    epoch_steps: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule, or the cap if that is less."""
        total = sum(phase.epochs for phase in self.phases) * self.epoch_steps
        return min(total, self.config.steps or total)

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """The phase that makes step ``step`` (from 0), and the step at which it began."""
        begin = 0
        for phase in self.phases:
            end = begin + phase.epochs * self.epoch_steps
            if step < end:
                return phase, begin
            begin = end
        return self.phases[-1], begin - self.phases[-1].epochs * self.epoch_steps

    def validates_after(self, step: int) -> bool:
        """Whether ``step`` steps end in a validation: every so many epochs, and at the end."""
        every = max(1, round(self.config.log.validate_epochs * self.epoch_steps))
        return step % every == 0 or step == self.total_steps


def build_run(config: ConfigDict, workdir: Path, store: Store) -> Run:
    """Networks, optimisers and loader for a config on a store."""
    subset = choose_subset(store, config.data.real, config.data.synthetic, config.seed)
    augment = Augment(**config.augment.to_dict())
    epoch_steps = subset.epoch_steps(config.batch)
    return Run(
        config=config,
        workdir=Path(workdir),
        store=store,
        loader=Loader(store, subset, augment, config.batch, config.seed),
        nets=state.make_networks(config, store.description.classes),
        optimisers=state.make_optimisers(config, epoch_steps),
        rates=state.make_rates(config, epoch_steps),
        phases=state.make_phases(config),
        epoch_steps=epoch_steps,
    )


def train(config: ConfigDict, workdir: str | Path, quiet: bool = False) -> dict:
    """Train or resume, score the best checkpoint on the test split, write the report.

    Returns the content of results.json. The same call again resumes, or finds the run finished.
    Raises: UserError, NonFiniteError (the last good checkpoint stays), Stopped (state saved).
    """
    begin = time.time()
    settings.validate(config)
    use_compilation_cache(cache_folder("compiled"))
    workdir = claim_workdir(config, Path(workdir))
    store = open_store(config, progress=not quiet)
    run = build_run(config, workdir, store)
    record_data(run)
    judge = None if is_judge(config) else judges(config, store, quiet)
    fit(run, judge, quiet)
    results = workdir / RESULTS
    if results.exists():
        done = json.loads(results.read_text())
        if done["checkpoint"]["last_step"] == run.total_steps:
            return done
    return score(run, judge, "test", "best", wall_s=time.time() - begin)


# --------------------------------------------------------------------------------- the workdir


def claim_workdir(config: ConfigDict, workdir: Path) -> Path:
    """Make the workdir, or check that it belongs to this config."""
    path = workdir / CONFIG
    wanted = settings.to_json(config)
    if path.exists():
        found = json.loads(path.read_text())
        differing = [
            field
            for field, value in flat(wanted).items()
            if field not in FREE_FIELDS and flat(found).get(field) != value
        ]
        if differing:
            raise UserError(
                f"{workdir}: was made with another {', '.join(differing[:3])}; "
                "give another --workdir, or that config"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
    except OSError as error:
        raise UserError(f"{workdir}: cannot be written ({error.strerror}); give another --workdir")
    return workdir


def flat(entries: dict, prefix: str = "") -> dict:
    """Nested dicts as one with dotted keys."""
    rows = {}
    for key, value in entries.items():
        rows |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return rows


def write_json(path: Path, content) -> None:
    """Atomically; NaN is refused, since JSON has none."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def record_data(run: Run) -> None:
    """data.json: what the run was trained on; a store that changed under the run is refused."""
    store, subset, path = run.store, run.loader.subset, run.workdir / DATA
    if path.exists() and json.loads(path.read_text())["sha256"] != store.sha256:
        raise UserError(
            f"{run.workdir}: began on other data than {store.root} now holds; "
            "give another --workdir, or those data"
        )

    def ids(kind: str) -> dict:
        return {
            m: [v.id for v in getattr(subset, kind)[d]]
            for d, m in zip(DOMAINS, store.description.modalities, strict=True)
        }

    write_json(
        path,
        {
            "description": store.description.to_json(),
            "windows": {m: list(store.window(m)) for m in store.description.modalities},
            "sha256": store.sha256,
            "split_sha256": store.split_sha256,
            "real": ids("real"),
            "source": ids("source"),
        },
    )


# ------------------------------------------------------------------------------------- the loop


def fit(run: Run, judge: dict | None, quiet: bool) -> None:
    """Train from the newest checkpoint, or from the start, to the last step."""
    config, total = run.config, run.total_steps
    with Checkpoints(run.workdir / "checkpoints", config.log.keep_every_steps) as checkpoints:
        current, step = first_state(run, checkpoints)
        if step >= total or stalled(run, read_rows(run.workdir)):
            return
        with (
            RunLog(run.workdir, step) as log,
            Progress(total, step, quiet) as progress,
            stop_signals() as stopping,
        ):
            loop(run, current, step, checkpoints, log, progress, judge, stopping)


def loop(
    run: Run,
    current: TrainState,
    step: int,
    checkpoints: Checkpoints,
    log: RunLog,
    progress: Progress,
    judge: dict | None,
    stopping: Callable[[], bool],
) -> None:
    forward = evaluate.make_forward(run.nets)
    begin = time.time() - (log.rows[-1]["wall_s"] if log.rows else 0.0)
    phase, stepper, waiting = None, None, None

    def settle(pending) -> dict:
        """Metrics of a step that was dispatched earlier; stops the run if one is not finite."""
        made, values = pending
        values = {name: float(value) for name, value in values.items()}
        if not values.pop("finite"):
            bad = [name for name, value in values.items() if not np.isfinite(value)]
            raise NonFiniteError(
                f"{run.workdir}: step {made}: {', '.join(bad)} not finite, on volumes "
                f"{', '.join(run.loader.volumes_at(made - 1))}; lower the rates or clip gradients "
                "(--config.optim.clip_norm=1); the last good checkpoint is kept"
            )
        progress.advance(phase.name, short(values))
        return values

    for batch in run.loader.batches(step):
        now, _ = run.phase_at(step)
        if now is not phase:
            if waiting:
                settle(waiting)
                waiting = None
            phase = now
            weights = make_weights(run.config)
            # Compiled once a phase; the old state's buffers become the new one's.
            stepper = jax.jit(
                make_step(run.nets, run.optimisers, phase, weights, run.config.seed),
                donate_argnums=0,
            )
        current, metrics = stepper(current, batch)
        step += 1
        if waiting:  # one step behind, so that the device never waits for the host
            settle(waiting)
        waiting = (step, metrics)
        validates, stop = run.validates_after(step), stopping()
        if not (validates or stop or step % run.config.log.row_steps == 0):
            continue
        values = settle(waiting)
        waiting = None
        row = {
            "step": step,
            "epoch": step / run.epoch_steps,
            "phase": phase.name,
            "wall_s": time.time() - begin,
            **values,
        }
        if validates:
            row |= evaluate.validate(scored_model(forward, current.params, judge), run.store)
            progress.note(note(row, run.total_steps))
            show(run, forward, current.params, log, step)
        if validates or step % run.config.log.row_steps == 0:
            log.write(row)
        if validates or stop:
            checkpoints.save(
                step,
                as_trees(current),
                {"store": run.store.sha256, "step": step},
                validation_score(run.config, row),
            )
        if step >= run.total_steps or stalled(run, log.rows):
            break
        if stop:
            checkpoints.wait()
            raise Stopped(f"{run.workdir}: stopped at step {step}, state saved; run again to go on")
    checkpoints.wait()


def as_trees(current: TrainState) -> dict:
    """What a checkpoint holds, by name: each player's networks, and what only training needs."""
    trees = {name: tree for name, tree in current.params._asdict().items() if tree is not None}
    opt = {name: tree for name, tree in current.opt._asdict().items() if tree is not None}
    return trees | {"training": {"opt": opt, "pools": current.pools, "step": current.step}}


def from_trees(trees: dict) -> TrainState:
    """Inverse of `as_trees`."""
    training = trees["training"]
    return TrainState(
        training["step"],
        Players(*(trees.get(name) for name in Players._fields)),
        Players(*(training["opt"].get(name) for name in Players._fields)),
        training["pools"],
    )


def make_state(run: Run, key) -> TrainState:
    shape = run.store.description.shape
    return state.init_state(key, run.nets, run.optimisers, run.config, shape)


def first_state(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, int]:
    """The newest readable checkpoint, or a fresh state with the trees that `init` names."""
    key = jax.random.key(run.config.seed)
    shapes = jax.eval_shape(partial(make_state, run), key)
    found = checkpoints.restore_newest(**as_trees(shapes))
    if found:
        return from_trees(found[1]), found[0]
    fresh = jax.jit(partial(make_state, run))(key)
    taken = {
        name: load_tree(Path(workdir), "best", name, getattr(shapes.params, name))
        for name, workdir in run.config.init.items()
        if workdir
    }
    return fresh._replace(params=fresh.params._replace(**taken)), 0


def load_tree(workdir: Path, which: str, name: str, shapes: dict) -> dict:
    """One player's networks of a run's checkpoint, which must have the architecture of ``shapes``.

    Raises: UserError where there is no such checkpoint or it does not fit.
    """
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{workdir}: is no workdir with checkpoints; train there first")
    with Checkpoints(folder) as checkpoints:
        step = checkpoints.resolve(which)
        try:
            return checkpoints.restore(step, **{name: shapes})[name]
        except (ValueError, KeyError) as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"{workdir}: its {name} networks do not fit this config ({reason}); "
                "use its filters, depth and structures"
            ) from None


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has asked the run to stop; the old handlers come back after."""
    asked = []
    signals = (signal.SIGTERM, signal.SIGINT)
    try:
        old = [signal.signal(s, lambda *_: asked.append(True)) for s in signals]
    except ValueError:  # not in the main thread (a notebook's): such runs are interrupted plainly
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for s, handler in zip(signals, old, strict=True):
            signal.signal(s, handler)


def validation_score(config: ConfigDict, row: dict) -> float | None:
    """What the best checkpoint is best in: Dice of both segmentors, or the S-score (gan)."""
    return row.get("val/dice" if "seg" in config.moves else "val/s_score")


def stalled(run: Run, rows: list[dict]) -> bool:
    """Early stop (4.2): no new minimum of the validation segmentation loss for `patience` rows."""
    schedule = run.config.schedule
    if not schedule.early_stop:
        return False
    _, begin = run.phase_at(run.total_steps - 1)
    first = begin / run.epoch_steps + schedule.from_epoch
    best, since = float("inf"), 0
    for row in rows:
        if row["epoch"] > first and row.get("val/seg_loss") is not None:
            better = row["val/seg_loss"] < best - schedule.min_delta
            best, since = (row["val/seg_loss"], 0) if better else (best, since + 1)
    return since >= schedule.patience


def short(values: dict) -> str:
    """The losses on the live line."""
    names = {"gen": "G", "disc": "D", "seg": "S"}
    shown = [
        f"{label} {values[f'{name}/total']:.3f}"
        for name, label in names.items()
        if f"{name}/total" in values
    ]
    return ", " + "  ".join(shown)


def note(row: dict, total: int) -> str:
    """The line that a validation leaves on the terminal."""
    figures = "  ".join(
        f"{key.removeprefix('val/')} {value:.3f}"
        for key, value in row.items()
        if key.startswith("val/") and key.count("_") != 0
    )
    per_step = row["wall_s"] / row["step"]
    left = time.strftime("%H:%M:%S", time.gmtime(per_step * (total - row["step"])))
    return f"{row['phase']} {row['step']}/{total}  {short(row)[2:]}  |  {figures}  |  ETA {left}"


def show(run: Run, forward, params: Players, log: RunLog, step: int) -> None:
    """The same fixed validation case over time, for TensorBoard: source, fake, reconstruction."""
    if "gen" not in run.config.moves:
        return
    for domain, modality in zip(DOMAINS, run.store.description.modalities, strict=True):
        volume = run.store.select(modality, "val")[0]
        image = run.store.image(volume)
        other = DOMAINS[1 - DOMAINS.index(domain)]
        fake = np.asarray(forward.translate(params.gen[other], image))
        rec = np.asarray(forward.translate(params.gen[domain], fake))
        middle = image.shape[0] // 2
        strip = np.concatenate([v[middle, ::-1] for v in (image, fake, rec)], axis=1)
        log.picture(f"slices/{volume.id}", np.clip(strip / 2 + 0.5, 0, 1), step)


# ------------------------------------------------------------------------------- judges, scores


def is_judge(config: ConfigDict) -> bool:
    """Baselines need no judge: they translate nothing."""
    return "gen" not in config.moves and not (config.loss.seg_fake or config.loss.seg_rec)


def judge_config(config: ConfigDict) -> ConfigDict:
    """The `baseline` on all real training data, with the run's segmentor and its own budget."""
    judge = config.copy_and_resolve_references()
    apply_method(judge, "baseline")
    constant = judge.judge.epochs - judge.judge.epochs // 2
    judge.update_from_flattened_dict(
        {
            "seed": judge.judge.seed,
            "steps": 0,
            "data.real": (),
            "data.synthetic": -1,
            "schedule.pretrain_seg_epochs": 0,
            "schedule.pretrain_gan_epochs": 0,
            "schedule.constant_epochs": constant,
            "schedule.decay_epochs": judge.judge.epochs - constant,
            "schedule.early_stop": False,
            "optim.seg.rate": judge.judge.rate,
            "model.generator": "unet",
            "loss.pool_size": 0,
            "log.validate_epochs": max(judge.judge.epochs / 10, 1.0),
            **{f"init.{name}": "" for name in Players._fields},
        }
    )
    return judge


def judges(config: ConfigDict, store: Store, quiet: bool) -> dict:
    """S_A and S_B of the S-score, trained once a store and seed, kept in the cache folder."""
    judge = judge_config(config)
    content = flat(settings.to_json(judge))
    ignored = ("data.path", "data.processes", "data.override", "preset")
    key = key_of([store.sha256, {k: v for k, v in content.items() if k not in ignored}])
    folder = cache_folder("judges", key)
    with locked(folder):
        claim_workdir(judge, folder)
        run = build_run(judge, folder, store)
        record_data(run)
        fit(run, None, quiet)
    return load_params(run, "best").seg


def load_params(run: Run, which: str) -> Players:
    """All networks of a checkpoint of the run; None for those it has no use for."""
    shapes = jax.eval_shape(partial(make_state, run), jax.random.key(0)).params
    return Players(
        *(
            None if tree is None else load_tree(run.workdir, which, name, tree)
            for name, tree in shapes._asdict().items()
        )
    )


def scored_model(forward, params: Players, judge: dict | None) -> evaluate.Model:
    """What of a run can be scored."""
    return evaluate.Model(forward, params.gen, params.seg, judge)


def rescore(workdir: Path, split: str, which: str, quiet: bool = False) -> dict:
    """`--mode=evaluate`: score any checkpoint of a finished or running run on any split."""
    path = Path(workdir) / CONFIG
    if not path.exists():
        raise UserError(f"{workdir}: is no workdir (no {CONFIG}); train first")
    if split not in ("train", "val", "test"):
        raise UserError(f"--split={split}: use train, val or test")
    use_compilation_cache(cache_folder("compiled"))
    config = settings.from_json(json.loads(path.read_text()))
    run = build_run(config, Path(workdir), open_store(config, progress=not quiet))
    record_data(run)
    judge = None if is_judge(config) else judges(config, run.store, quiet)
    begin = time.time()
    return score(run, judge, split, which, wall_s=time.time() - begin)


def score(run: Run, judge: dict | None, split: str, which: str, wall_s: float) -> dict:
    """Score a checkpoint on a split; write results.json, cases.csv and the report."""
    with Checkpoints(run.workdir / "checkpoints") as checkpoints:
        step, steps, validation = (
            checkpoints.resolve(which),
            checkpoints.steps(),
            checkpoints.scores(),
        )
    params = load_params(run, str(step))
    model = scored_model(evaluate.make_forward(run.nets), params, judge)
    entries = [
        evaluate.score_volume(model, run.store, domain, volume)
        for domain, volume in evaluate.domain_volumes(run.store, split)
    ]
    rows = [row for entry in entries for row in entry.rows]
    results = {
        **evaluate.summarise(entries, run.store),
        "checkpoint": {
            "step": step,
            "validation": validation.get(step),
            "last_step": steps[-1],
        },
        "config": settings.to_json(run.config),
        "seed": run.config.seed,
        "split": run.store.split_sha256,
        "data": run.store.sha256,
        "scored_split": split,
        "git": git_revision(),
        "versions": versions(),
        "wall_s": wall_s,
    }
    write_json(run.workdir / RESULTS, results)
    write_cases(rows, run.workdir / CASES)
    chosen = evaluate.choose_cases(entries, run.config.log.report_cases)
    write_report(
        ReportData(
            title=run.workdir.name,
            modalities=run.store.description.modalities,
            structures=run.store.description.names,
            spacing_mm=run.store.description.spacing_mm,
            results=results,
            metrics=read_rows(run.workdir),
            case_scores=rows,
            cases=[evaluate.case_images(model, run.store, entry) for entry in chosen],
        ),
        run.workdir / REPORT,
    )
    return results


def git_revision() -> str:
    """The commit of the checkout that the package runs from; empty where there is none."""
    try:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions() -> dict[str, str]:
    """Of everything that may change a number."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy")
    return {
        "cyclesh": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }
