"""One trial of a plan: trained, scored, recorded. `experiments` starts a process for each."""

import time
from pathlib import Path

from ml_collections import ConfigDict

from cyclesh import evaluate, judges, train
from cyclesh.cache import cache_folder, locked
from cyclesh.claims import claim_workdir, record_data
from cyclesh.data.locate import open_store
from cyclesh.errors import NonFiniteError, UserError
from cyclesh.evaluate import Model
from cyclesh.evidence import records
from cyclesh.evidence.displacement import train_displaced
from cyclesh.evidence.plan import plan_for
from cyclesh.evidence.records import RUNS, has_lost_networks, is_finished, unsettled
from cyclesh.evidence.trials import config_of
from cyclesh.provenance import git_revision, versions
from cyclesh.results import CASES, score_volumes
from cyclesh.run import build_run
from cyclesh.runtime.devices import set_up_training
from cyclesh.scoring.cases import write_cases
from cyclesh.workdir import read_config


def run_trial(workdir: str | Path, name: str, quiet: bool = False) -> None:
    """Train, score and record one trial of a claimed workdir; nothing if that was done.

    Raises: UserError where there is no such trial or a parent has no result; as `train.train`.
    """
    workdir = Path(workdir)
    plan = plan_for(read_config(workdir))
    if name not in plan.trials:
        raise UserError(f"--trial={name}: is not in the plan of {workdir}; --dry_run lists it")
    trial = plan.trials[name]
    with locked(workdir / RUNS / name):
        if not unsettled(plan, [trial], workdir) and not has_lost_networks(workdir, trial):
            return
        missing = [name for name in trial.after if not is_finished(workdir, plan.trials[name])]
        parents = [plan.trials[name] for name in dict.fromkeys(trial.init.values())]
        missing += [parent.name for parent in parents if has_lost_networks(workdir, parent)]
        if missing:
            raise UserError(f"--trial={name}: starts from {', '.join(missing)}; run that first")
        config, folder = config_of(plan, trial, workdir / RUNS), workdir / RUNS / name
        store, more = open_store(config, progress=not quiet), {}
        records.check_data(plan, workdir, {config.phantom.extra: store})
        try:
            if trial.arm == "judge":
                results = train_judge(config, folder, quiet)
            elif trial.shift_voxels:
                results, rows = train_displaced(config, folder, trial.shift_voxels, quiet)
                more["displacement"] = rows
            else:
                results = train.train(config, folder, quiet)
        except NonFiniteError as error:
            records.write_failed(plan, trial, workdir, records.NON_FINITE, error.what)
            told = "the plan's tables name it and go on without it"
            raise NonFiniteError(name, error.what, told) from None
        tested = (v for v in store.volumes if v.split == "test")
        more["subjects"] = {volume.id: volume.subject for volume in tested}
        records.write_finished(plan, trial, workdir, results, more)


def train_judge(config: ConfigDict, folder: Path, quiet: bool) -> dict:
    """The judges of a store and their own scores on its test split."""
    begin = time.time()
    set_up_training(cache_folder("compiled"))
    store = open_store(config, progress=not quiet)
    trees = judges.get_judges(config, store, quiet)
    run = build_run(judges.judge_config(config), folder, store)
    claim_workdir(config, folder)
    record_data(run)
    model = Model(evaluate.make_forward(run.nets), None, trees, None)
    entries = score_volumes(run, model, "test")
    write_cases([row for entry in entries for row in entry.rows], folder / CASES)
    return {
        **evaluate.summarise(entries, store),
        "checkpoint": None,
        "data": store.sha256,
        "split": store.split_sha256,
        "git": git_revision(),
        "versions": versions(),
        "wall_s": time.time() - begin,
    }
