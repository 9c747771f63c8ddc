"""One JSON file a trial: config, scores of every case, times. Tables are made of these alone."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cyclesh import settings
from cyclesh.claims import FREE_FIELDS
from cyclesh.cores import available_cores
from cyclesh.data.store import Store, is_store
from cyclesh.errors import UserError
from cyclesh.evidence.trials import DICE, S_SCORE, Plan, Trial, config_of, steps_of
from cyclesh.files import write_json
from cyclesh.results import CASES, S_SCORES
from cyclesh.runtime.checkpoint import saved_steps
from cyclesh.runtime.logs import read_rows
from cyclesh.scoring.cases import read_cases
from cyclesh.workdir import CHECKPOINTS, DATA, read_as, read_json

RUNS = "runs"  # the folder of workdirs NAME/ and records NAME.json
FINISHED, NON_FINITE, NO_PARENT = "finished", "non-finite loss", "parent failed"
# Fields that a run may be continued with another value of, but that its scores depend on.
SCORED_WITH = ("steps", "optim.skip_nonfinite")
# Of results.json, what a record keeps.
KEPT = ("test", "s_score", "judge", "translation", "checkpoint", "data", "split", "git", "versions")


def record_path(workdir: Path, name: str) -> Path:
    return Path(workdir) / RUNS / f"{name}.json"


def read_record(workdir: Path, name: str) -> dict | None:
    """The record of a settled trial; None while there is none."""
    path = record_path(workdir, name)
    return _read(path) if path.exists() else None


def read_records(workdir: Path) -> dict[str, dict]:
    """All of a folder that holds runs/NAME.json, by name. Raises UserError for what is none."""
    return {path.stem: _read(path) for path in sorted((Path(workdir) / RUNS).glob("*.json"))}


def _read(path: Path) -> dict:
    record = read_json(path)
    with read_as(path, "the record of a trial"):
        if record["status"] == FINISHED:
            record["test"], record["cases"]
    return record


def write_finished(plan: Plan, trial: Trial, workdir: Path, results: Mapping, more: dict) -> None:
    """The record of a trial that was trained and scored in runs/NAME."""
    folder = Path(workdir) / RUNS / trial.name
    data = json.loads((folder / DATA).read_text(encoding="utf-8"))
    record = {
        **_heading(plan, trial, workdir, FINISHED),
        **{key: results[key] for key in KEPT},
        "real": {modality: len(ids) for modality, ids in data["real"].items()},
        "source": {modality: len(ids) for modality, ids in data["source"].items()},
        "cores": available_cores(),
        "step_s": median_step_s(read_rows(folder)),
        "wall_s": results["wall_s"],
        "cases": {
            DICE: by_structure(folder / CASES),
            S_SCORE: by_structure(folder / S_SCORES),
        },
        **more,
    }
    write_json(record_path(workdir, trial.name), record)


def write_failed(plan: Plan, trial: Trial, workdir: Path, status: str, message: str) -> None:
    """The record of a trial without scores; tables name it. It is published: no local paths."""
    record = {**_heading(plan, trial, workdir, status), "message": message}
    write_json(record_path(workdir, trial.name), record)


def _heading(plan: Plan, trial: Trial, workdir: Path, status: str) -> dict:
    config = settings.to_json(config_of(plan, trial, Path(workdir) / RUNS))
    # By name, since records outlive folders and are published.
    config["init"] = dict(trial.init)
    config["data"]["path"] = Path(config["data"]["path"]).name
    return {
        "name": trial.name,
        "status": status,
        "arm": trial.arm,
        "seed": trial.seed,
        "after": list(trial.after),
        "shift_voxels": trial.shift_voxels and list(trial.shift_voxels),
        "config": config,
    }


def differing_fields(plan: Plan, trial: Trial, record: Mapping) -> list[str]:
    """Fields in which a record's config is not the plan's: it belongs to another plan.

    Where generators were shifted, by how much counts, too, and how often it was measured.
    """
    wanted = settings.to_json(config_of(plan, trial, Path(RUNS)))
    wanted["init"] = dict(trial.init)
    wanted, found = settings.flat(wanted), settings.flat(record["config"])
    fields = {*wanted, *found}
    free = set(FREE_FIELDS).difference(SCORED_WITH)
    if trial.shift_voxels:
        free -= {"log.keep_every_steps"}
    differing = [f for f in fields if f not in free and wanted.get(f, "") != found.get(f, "")]
    shift = trial.shift_voxels and list(trial.shift_voxels)
    return sorted([*differing, *(["shift_voxels"] if record.get("shift_voxels") != shift else [])])


def check_data(plan: Plan, workdir: Path, present: Mapping[int, Store]) -> None:
    """Raises UserError where the plan's records are not all of the same data.

    present: the stores that are known to be there now, by `phantom.extra`, since a phantom with
    source-only subjects is another store than the one without.
    """
    known = {extra: (_identity(store), store.root) for extra, store in present.items()}
    for name in plan.trials:
        record = read_record(workdir, name)
        if record is None or record["status"] != FINISHED:
            continue
        path, identity = record_path(workdir, name), (record["data"], record["split"])
        expected, where = known.setdefault(record["config"]["phantom"]["extra"], (identity, path))
        if identity != expected:
            raise UserError(
                f"{path}: was made on other data than {where}; give another --workdir, or delete "
                "the records of data that are out of date"
            )


def check_published(plan: Plan, workdir: Path, folder: Path) -> None:
    """Raises UserError where a folder to publish in holds records of another plan or other data."""
    known = {extra: _identity(store) for extra, store in present_stores(plan.base).items()}
    known |= {
        record["config"]["phantom"]["extra"]: (record["data"], record["split"])
        for record in read_records(workdir).values()
        if record["status"] == FINISHED
    }
    for name, record in read_records(folder).items():
        of_plan = name in plan.trials and not differing_fields(plan, plan.trials[name], record)
        if of_plan and record["status"] == FINISHED:
            identity = record["data"], record["split"]
            of_plan = known.setdefault(record["config"]["phantom"]["extra"], identity) == identity
        if not of_plan:
            raise UserError(
                f"{record_path(folder, name)}: is of another plan or of other data; give another "
                "--output, or clear that folder"
            )


def _identity(store: Store) -> tuple[str, str]:
    return store.sha256, store.split_sha256


def present_stores(config: ConfigDict) -> dict[int, Store]:
    """Those that can be opened without preparing anything."""
    path = config.data.path
    return {config.phantom.extra: Store.open(path)} if path and is_store(path) else {}


def unsettled(plan: Plan, trials: Iterable[Trial], workdir: Path) -> list[Trial]:
    """Those without a record, or with one of a parent's failure that has been mended since.

    Mended are parents that have finished, or are unsettled themselves and so run before.
    Raises UserError where a record belongs to another plan, any of the plan to other data, or what
    goes on has more steps than the plan.
    """
    check_data(plan, workdir, present_stores(plan.base))
    missing: dict[str, Trial] = {}
    for trial in trials:
        record = read_record(workdir, trial.name)
        if record is None:
            missing[trial.name] = trial
        elif differing := differing_fields(plan, trial, record):
            raise UserError(
                f"{record_path(workdir, trial.name)}: was made with another "
                f"{', '.join(differing[:3])}; give another --workdir, or delete it"
            )
        elif record["status"] == NO_PARENT:
            parents = (plan.trials[name] for name in trial.after)
            if all(p.name in missing or is_finished(workdir, p) for p in parents):
                missing[trial.name] = trial
    for trial in missing.values():
        check_steps(plan, trial, workdir)
    return list(missing.values())


def check_steps(plan: Plan, trial: Trial, workdir: Path) -> None:
    """Raises UserError where a trial that would be gone on with has trained for too long."""
    folder = Path(workdir) / RUNS / trial.name
    saved = saved_steps(folder / CHECKPOINTS)
    if saved and saved[-1] > (steps := steps_of(config_of(plan, trial, Path(RUNS)))):
        raise UserError(
            f"{folder}: has trained for {saved[-1]} steps, the plan has {steps}; delete "
            f"{RUNS}/{trial.name}* to train it anew, or give the steps that it began with"
        )


def to_run(plan: Plan, trials: Sequence[Trial], workdir: Path) -> list[Trial]:
    """Those that are unsettled, and of their parents those whose networks are gone.

    So records alone, copied from elsewhere, are enough to go on from. ``trials`` are in an order in
    which each comes after its parents. Raises: as `unsettled`.
    """
    names = {trial.name for trial in unsettled(plan, trials, workdir)}
    for trial in reversed(trials):
        if trial.name in names:
            parents = (plan.trials[parent] for parent in trial.init.values())
            names |= {parent.name for parent in parents if has_lost_networks(workdir, parent)}
    return [trial for trial in trials if trial.name in names]


def has_lost_networks(workdir: Path, trial: Trial) -> bool:
    """Whether a trial was scored, but its last checkpoint is not here. (Judges leave none here.)

    Earlier ones are of a training for the record's networks that was ended on its way.
    """
    if trial.arm == "judge" or not is_finished(workdir, trial):
        return False
    saved = saved_steps(Path(workdir) / RUNS / trial.name / CHECKPOINTS)
    last = read_record(workdir, trial.name)["checkpoint"]["last_step"]
    return max(saved, default=-1) < last


def is_finished(workdir: Path, trial: Trial) -> bool:
    record = read_record(workdir, trial.name)
    return record is not None and record["status"] == FINISHED


def by_structure(path: Path) -> dict[str, dict[str, dict[str, float | None]]]:
    """{modality: {structure: {case: Dice}}} of a cases file; None where there is no value."""
    table: dict = {}
    for row in read_cases(path) if path.exists() else ():
        cases = table.setdefault(row.modality, {}).setdefault(row.structure, {})
        cases[row.case] = None if math.isnan(row.dice) else round(row.dice, 5)
    return table


def median_step_s(rows: list[dict]) -> float | None:
    """Seconds of a training step, from rows without a validation between them; None without any."""
    paces = [
        (after["wall_s"] - before["wall_s"]) / (after["step"] - before["step"])
        for before, after in zip(rows, rows[1:], strict=False)
        if not any(key.startswith("val/") for key in before)
        and after["phase"] == before["phase"]
        and not any(key.startswith("val/") for key in after)
    ]
    return float(np.median(paces)) if paces else None
