"""A checkpoint's scores, written where people look: results.json, cases.csv, report.html."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from cyclesh import __version__, evaluate, settings
from cyclesh.evaluate import Model, VolumeScores
from cyclesh.run import CHECKPOINTS, Run, load_params, write_json
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.logs import read_rows
from cyclesh.scoring.cases import write_cases
from cyclesh.scoring.report import write_report
from cyclesh.scoring.report_data import ReportData

RESULTS, CASES, REPORT = "results.json", "cases.csv", "report.html"


def score(run: Run, judge: dict | None, split: str, which: str, wall_s: float) -> dict:
    """Score a checkpoint ("best", "last" or a step) on a split; returns results.json's content."""
    with Checkpoints(run.workdir / CHECKPOINTS, read_only=True) as checkpoints:
        step = checkpoints.resolve(which)
        last, validation = checkpoints.steps()[-1], checkpoints.scores().get(step)
    params = load_params(run, str(step))
    model = Model(evaluate.make_forward(run.nets), params.gen, params.seg, judge)
    entries = [
        evaluate.score_volume(model, run.store, domain, volume)
        for domain, volume in evaluate.domain_volumes(run.store, split)
    ]
    results = {
        **evaluate.summarise(entries, run.store),
        "checkpoint": {"step": step, "validation": validation, "last_step": last},
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
    write_cases([row for entry in entries for row in entry.rows], run.workdir / CASES)
    report(run, model, entries, results)
    return results


def report(run: Run, model: Model, entries: list[VolumeScores], results: dict) -> None:
    """report.html and figures/ from the scores and the run's metrics."""
    chosen = evaluate.choose_cases(entries, run.config.log.report_cases)
    data = ReportData(
        title=run.workdir.name,
        modalities=run.store.description.modalities,
        structures=run.store.description.names,
        spacing_mm=run.store.description.spacing_mm,
        results=results,
        metrics=read_rows(run.workdir),
        case_scores=[row for entry in entries for row in entry.rows],
        cases=[evaluate.case_images(model, run.store, entry) for entry in chosen],
        attribution=run.config.data.attribution,
    )
    write_report(data, run.workdir / REPORT)


def git_revision() -> str:
    """The commit of the checkout that the package runs from; empty where there is none."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
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
