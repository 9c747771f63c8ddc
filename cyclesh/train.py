"""A run from its config: data, judges, the loop, the test scores, the report."""

import json
import sys
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cyclesh import reports, settings
from cyclesh.cache import cache_folder
from cyclesh.claims import alone, check_data, check_workdir
from cyclesh.data.locate import open_store
from cyclesh.errors import UserError
from cyclesh.judges import differing_judges, get_judges
from cyclesh.loop import fit
from cyclesh.methods import translates
from cyclesh.parents import check_init, check_parents, check_taught
from cyclesh.reports import Scored
from cyclesh.results import RESULTS, kept_checkpoints, load_scored, score
from cyclesh.run import (
    Run,
    build_run,
    cut_off,
    real_subjects,
)
from cyclesh.runtime.devices import cores_are_devices, set_up_training
from cyclesh.runtime.distributed import from_first, is_first
from cyclesh.workdir import read_config


def train(
    config: ConfigDict, workdir: str | Path, quiet: bool = False, verbose: bool = False
) -> dict:
    """Train or resume, score the best checkpoint on the test split, write the report.

    Returns the content of results.json. The same call again resumes, or finds the run finished.
    Raises: UserError, another process's training in the workdir included; NonFiniteError (the last
    good checkpoint stays); Stopped (state saved).
    """
    begin = time.time()
    settings.validate(config)
    set_up_training(cache_folder("compiled"))
    workdir = Path(workdir)
    check_taught(config)
    check_workdir(config, workdir)
    quiet = quiet or not is_first()
    store = open_store(config, progress=not quiet)
    run = build_run(config, workdir, store)
    devices = 1 if run.mesh is None else run.mesh.size  # may refuse, before anything is written
    check_init(config, workdir, run.state_shapes.params)  # by all processes: it holds a barrier
    check_parents(config, workdir, store, run.loader.subset)
    with ExitStack() as stack:
        from_first(lambda: stack.enter_context(alone(run)))
        if jax.device_count() > 1 and not (quiet or cores_are_devices()):
            print(f"{devices} of {jax.device_count()} devices in use", file=sys.stderr)
        if not quiet:
            for line in [*real_subjects(run), *cut_off(run)]:
                print(line, file=sys.stderr)
        judge = cache(lambda: get_judges(config, store, quiet) if translates(config) else None)
        last_step = fit(run, judge, quiet, verbose)
        _, best = kept_checkpoints(run)  # by all processes: it holds a barrier
        results = from_first(lambda: finished_results(run, (best, last_step), quiet))
        return results or score(run, judge(), "test", "best", wall_s=time.time() - begin)


def finished_results(run: Run, best_and_last: tuple[int, int], quiet: bool) -> dict | None:
    """The best checkpoint's test results of a run that was finished before; None where none are."""
    finished = run.workdir / RESULTS
    if not finished.exists():
        return None
    try:
        results = json.loads(finished.read_text(encoding="utf-8"))
        found = results["checkpoint"]["step"], results["checkpoint"]["last_step"]
        if (found, results["scored_split"]) != (best_and_last, "test"):
            return None
    except (KeyError, TypeError, ValueError):  # damaged: it is made once more
        return None
    if not quiet:
        print(f"{run.workdir}: finished at step {best_and_last[1]}", file=sys.stderr)
    return results


def rescore(workdir: str | Path, split: str, which: str, quiet: bool = False) -> dict:
    """`--mode=evaluate`: score any checkpoint of a run on any split; rewrites its results."""
    begin = time.time()
    if split not in ("train", "val", "test"):
        raise UserError(f"--split={split}: use train, val or test")
    config = read_config(Path(workdir))
    set_up_training(cache_folder("compiled"))
    run = build_run(config, Path(workdir), open_store(config, progress=not quiet))
    kept_checkpoints(run, which)  # before judges are trained in vain
    check_data(run)
    judge = get_judges(config, run.store, quiet) if translates(config) else None
    return score(run, judge, split, which, wall_s=time.time() - begin)


def rereport(workdir: str | Path, compare: str | Path = "", quiet: bool = False) -> Path:
    """`--mode=report`: report.html and figures/ anew, beside another run's if one is named.

    Nothing is trained and no score is rewritten. Returns the report's path.
    """
    set_up_training(cache_folder("compiled"))

    def load(folder: Path, cases_of: str = "") -> Scored:
        config = read_config(folder)
        run = build_run(config, folder, open_store(config, progress=not quiet))
        check_data(run)
        judge = get_judges(config, run.store, quiet, train=False) if translates(config) else None
        return load_scored(run, judge, cases_of)

    shown = load(Path(workdir))
    if not compare:
        return reports.write(shown)
    beside = load(Path(compare), cases_of=shown.results["scored_split"])
    configs = [scored.run.config for scored in (shown, beside)]
    judged = all(map(translates, configs))
    return reports.write(shown, beside, differing_judges(*configs) if judged else ())
