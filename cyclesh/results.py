"""A checkpoint's scores, written where people look: results.json, cases.csv, report.html."""

from cyclesh import evaluate, reports, settings
from cyclesh.errors import UserError
from cyclesh.evaluate import Model, VolumeScores
from cyclesh.files import write_json
from cyclesh.provenance import git_revision, versions
from cyclesh.reports import Scored
from cyclesh.run import Run, load_params
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.distributed import from_first
from cyclesh.scoring.cases import write_cases
from cyclesh.workdir import CHECKPOINTS, read_as, read_json

RESULTS, CASES = "results.json", "cases.csv"
S_SCORES = "s_scores.csv"  # as cases.csv, of synthetic volumes by the judges; Dice only


def score(run: Run, judge: dict | None, split: str, which: str, wall_s: float) -> dict:
    """Score a checkpoint ("best", "last" or a step) on a split; returns results.json's content."""
    with Checkpoints(run.workdir / CHECKPOINTS, read_only=True) as checkpoints:
        step = checkpoints.resolve(which)
        last, validation = checkpoints.steps()[-1], checkpoints.scores().get(step)
        commits = checkpoints.meta(step).get("commits", [])
    model = load_model(run, judge, step)
    checkpoint = {"step": step, "validation": validation, "last_step": last, "commits": commits}
    return from_first(lambda: score_model(run, model, split, checkpoint, wall_s))


def score_model(run: Run, model: Model, split: str, checkpoint: dict, wall_s: float) -> dict:
    """Score a model on a split and write it all down; ``checkpoint`` says which model it is.

    results.json comes last, and an older one goes first: where it is, all that belongs to it is.
    """
    entries = score_volumes(run, model, split)
    results = {
        **evaluate.summarise(entries, run.store),
        "checkpoint": checkpoint,
        "config": settings.to_json(run.config),
        "seed": run.config.seed,
        "split": run.store.split_sha256,
        "data": run.store.sha256,
        "scored_split": split,
        "git": git_revision(),
        "versions": versions(),
        "wall_s": wall_s,
    }
    (run.workdir / RESULTS).unlink(missing_ok=True)
    write_cases([row for entry in entries for row in entry.rows], run.workdir / CASES)
    write_cases(evaluate.s_score_rows(entries, run.store), run.workdir / S_SCORES)
    reports.write(Scored(run, model, entries, results))
    write_json(run.workdir / RESULTS, results)
    return results


def load_scored(run: Run, judge: dict | None, cases_of: str = "") -> Scored:
    """What a report shows of a run that was scored before; of one under way, its validation.

    Nothing is written. `cases_of` names another split than the results' to take the cases from.
    Raises UserError where there is no checkpoint yet.
    """
    path = run.workdir / RESULTS
    steps, best = kept_checkpoints(run)
    if path.exists():
        results = read_json(path)
        with read_as(path, "the results of a run; score it again with --mode=evaluate"):
            step, split = results["checkpoint"]["step"], results["scored_split"]
    else:
        step, split = best, "val"
        results = {
            "checkpoint": {"step": step},
            "config": settings.to_json(run.config),
            "seed": run.config.seed,
            "scored_split": split,
            "data": run.store.sha256,
        }
    if step not in steps:
        raise UserError(
            f"{path}: is of checkpoint {step}, which is gone; score another with --mode=evaluate"
        )
    model = load_model(run, judge, step)
    return Scored(run, model, score_volumes(run, model, cases_of or split), results)


def kept_checkpoints(run: Run, which: str = "best") -> tuple[list[int], int]:
    """The steps of a run's checkpoints, and the one asked for. UserError where there is none."""
    with Checkpoints(run.workdir / CHECKPOINTS, read_only=True) as checkpoints:
        return checkpoints.steps(), checkpoints.resolve(which)


def load_model(run: Run, judge: dict | None, step: int) -> Model:
    """A checkpoint's networks, ready to be scored; those that no step has trained yet are none."""
    learned = run.learned(load_params(run, str(step)), step)
    return Model(evaluate.make_forward(run.nets), *learned, judge)


def score_volumes(run: Run, model: Model, split: str) -> list[VolumeScores]:
    """The scores of every volume of a split."""
    volumes = evaluate.domain_volumes(run.store, split)
    return [evaluate.score_volume(model, run.store, *volume) for volume in volumes]
