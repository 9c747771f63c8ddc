"""The program as people run it: real processes, files on disk, the smallest preset."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import ROOT, call, parsed, require_one_clear_line
from event_files import shown
from tiny_runs import build
from tiny_store import run_words
from workdirs import arrays_of, without_times

from cyclesh.claims import claim_workdir, make_workdir, record_data
from cyclesh.data.store import Store
from cyclesh.run import as_trees, build_run
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.logs import read_rows
from cyclesh.workdir import CHECKPOINTS

JOINT = "--config=configs/joint.py:tiny,epochs=5"
STRUCTURES = ["LV", "RV", "LA", "RA", "Myo"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cyclesh.main", *arguments]


def cyclesh(*arguments: str) -> subprocess.CompletedProcess:
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A whole run of joint:tiny, of half its epochs: its workdir and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "joint-tiny"
    done = cyclesh(JOINT, f"--workdir={workdir}")
    return workdir, done


def test_the_main_job_writes_everything_that_it_promises(finished):
    workdir, done = finished
    for name in ("config.json", "data.json", "metrics.jsonl", "results.json", "cases.csv"):
        assert (workdir / name).stat().st_size > 0
    assert list((workdir / "tensorboard").iterdir())
    assert list((workdir / "figures").glob("*.png"))
    assert "<html" in (workdir / "report.html").read_text()[:500]
    assert "LV" in done.stdout and "S-score" in done.stdout and "report.html" in done.stdout
    # A progress line names the step, the losses, the scores and the time to go.
    assert "20/20" in done.stderr and "ETA" in done.stderr and "s-score" in done.stderr


def test_metrics_have_twenty_rows_with_their_time_and_all_checkpoints_are_kept(finished):
    workdir, _ = finished
    rows = read_rows(workdir)
    assert [row["step"] for row in rows] == list(range(1, 21))
    times = [row["wall_s"] for row in rows]
    assert times == sorted(times) and times[0] > 0
    assert {"gen/cycle", "gen/shape", "gen/adv", "disc/total", "seg/rec"} <= set(rows[0])
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        assert checkpoints.steps() == [4, 8, 12, 16, 20]


def test_results_are_complete_and_hold_no_nan(finished):
    workdir, _ = finished
    results = json.loads((workdir / "results.json").read_text(), parse_constant=pytest.fail)
    for modality in ("ct", "mr"):
        test = results["test"][modality]
        assert test["n"] == 5  # half of ten subjects
        assert set(test["dice"]) == {"mean", *STRUCTURES} == set(test["assd_mm"])
        assert set(test["empty"]) == set(STRUCTURES)
        assert set(results["s_score"][modality]) == {"mean", *STRUCTURES}
        assert 0 <= results["judge"][modality]["ceiling"] <= 1
        assert set(results["translation"][modality]) == {"mae", "psnr_db", "ssim"}
        values = [v for k, v in test["dice"].items() if k != "mean" and v is not None]
        assert test["dice"]["mean"] == pytest.approx(np.mean(values))
    assert results["seed"] == 0 and len(results["split"]) == 64
    assert results["config"]["method"] == "joint" and results["versions"]["jax"]


def test_cases_have_a_row_for_each_case_and_structure_and_agree_with_the_results(finished):
    workdir, _ = finished
    with (workdir / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5 * len(STRUCTURES)
    results = json.loads((workdir / "results.json").read_text())
    values = [float(r["dice"]) for r in rows if (r["modality"], r["structure"]) == ("ct", "LV")]
    assert results["test"]["ct"]["dice"]["LV"] == pytest.approx(np.mean(values))


def test_the_same_command_again_finds_the_run_finished(finished):
    workdir, first = finished
    before = (workdir / "results.json").stat().st_mtime_ns
    again = cyclesh(JOINT, f"--workdir={workdir}")
    assert again.stdout.splitlines()[:3] == first.stdout.splitlines()[:3]
    assert "finished" in again.stderr
    assert (workdir / "results.json").stat().st_mtime_ns == before
    assert len(read_rows(workdir)) == 20


def test_another_config_may_not_use_the_workdir(finished, capfd):
    workdir, _ = finished
    done = call(capfd, f"{JOINT},seed=5", f"--workdir={workdir}")
    require_one_clear_line(done, "seed")


def test_evaluate_scores_any_checkpoint_and_split(finished, tmp_path, capfd):
    workdir = shutil.copytree(finished[0], tmp_path / "joint-tiny")
    cyclesh("--mode=evaluate", f"--workdir={workdir}", "--split=val", "--checkpoint=8")
    results = json.loads((workdir / "results.json").read_text())
    assert results["checkpoint"]["step"] == 8
    assert results["test"]["ct"]["n"] == 1 and results["scored_split"] == "val"
    assert results["judge"]["ct"]["ceiling"] is None  # only test cases have a paired truth
    assert call(capfd, "--mode=evaluate", f"--workdir={workdir}", "--checkpoint=7").status == 2


def test_the_report_is_built_again_as_it_was_and_beside_another_run(finished, tmp_path, capfd):
    workdir = tmp_path / "joint-tiny"
    shutil.copytree(finished[0], workdir)
    report, results = workdir / "report.html", workdir / "results.json"
    html, scores = report.read_text(), results.stat().st_mtime_ns
    report.unlink()
    shutil.rmtree(workdir / "figures")
    done = cyclesh("--mode=report", f"--workdir={workdir}")
    assert done.stdout == f"report: {report}\n"
    assert report.read_text() == html and results.stat().st_mtime_ns == scores
    assert {path.name for path in (workdir / "figures").iterdir()} >= {"figure4.png", "figure4.svg"}

    # Another run, still under way: no results yet.
    other = shutil.copytree(workdir, tmp_path / "twin")
    (other / "results.json").unlink()
    cyclesh("--mode=report", f"--workdir={workdir}", f"--compare={other}")
    compared = report.read_text()
    assert "<h1>joint-tiny against twin</h1>" in compared and "Synthetic MR, twin" in compared
    cyclesh("--mode=report", f"--workdir={other}")
    assert "No test scores yet" in (other / "report.html").read_text()

    for words, told in (
        ((f"--workdir={workdir}", f"--compare={tmp_path}"), f"{tmp_path}: is no workdir"),
        ((), "--mode=report: give --workdir"),
    ):
        require_one_clear_line(call(capfd, "--mode=report", *words), told)


def test_stopped_by_a_signal_and_by_a_kill_a_run_goes_on_as_if_never_stopped(finished, tmp_path):
    straight, _ = finished
    argv = command(JOINT, f"--workdir={tmp_path / 'run'}")

    def run_until(step: int, how: signal.Signals) -> int:
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            rows = read_rows(tmp_path / "run")
            if rows and rows[-1]["step"] >= step:
                os.kill(process.pid, how)
                break
            time.sleep(0.05)
        return process.wait()

    assert run_until(6, signal.SIGTERM) == 75
    assert run_until(14, signal.SIGKILL) == -signal.SIGKILL
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    assert without_times(read_rows(tmp_path / "run")) == without_times(read_rows(straight))
    assert shown(tmp_path / "run") == shown(straight)  # in TensorBoard, pictures included
    expected, found = arrays_of(straight, 20), arrays_of(tmp_path / "run", 20)
    assert expected.keys() == found.keys()
    different = [name for name in expected if not np.array_equal(expected[name], found[name])]
    assert different == []


def test_a_non_finite_loss_stops_the_run_and_names_step_loss_and_volumes(store, tmp_path, capfd):
    workdir = tmp_path / "run"
    trained = [
        *run_words(store, "baseline"),
        "--config.schedule.pretrain_seg_epochs=1",
        "--config.optim.seg.pretrain_rate=2e-3",
    ]
    # The step after the first checkpoint is the last finite one.
    words = [*trained, "--config.optim.seg.rate=1e9", f"--workdir={workdir}"]
    done = call(capfd, *words)
    assert done.status == 3, done.err
    assert "seg/" in done.err and "step 5" in done.err and re.search(r"on volumes ct_\d", done.err)
    rows = read_rows(workdir)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(row["seg/total"]) for row in rows)
    with Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        assert checkpoints.steps() == [3]
    kept = arrays_of(workdir, 3)
    assert all(np.isfinite(array).all() for array in kept.values())

    # What it advises can be followed: in the same workdir, and in another that starts from it.
    stopped = shutil.copytree(workdir, tmp_path / "stopped")
    said = re.search(r"--config.optim.skip_nonfinite=\d+", done.err)[0]
    gone_on = call(capfd, *words, said)
    assert gone_on.status == 0 and "left out, 1 of 10" in gone_on.err
    started = [*trained, f"--config.init.seg={stopped}", f"--workdir={tmp_path / 'other'}"]
    assert call(capfd, *started).status == 0


@pytest.mark.slow
def test_a_run_starts_from_the_best_trees_of_another(store, tmp_path, capfd):
    workdir = tmp_path / "run"
    parent = build_run(parsed(*run_words(store, "joint")), tmp_path / "parent", Store.open(store))
    make_workdir(parent.workdir)
    claim_workdir(parent.config, parent.workdir)
    record_data(parent)
    with Checkpoints(parent.workdir / CHECKPOINTS) as checkpoints:
        for step, score in ((1, 0.9), (2, 0.1)):
            trees = as_trees(build(parent.config, seed=step).state)
            checkpoints.save(step, trees, {"step": step}, score)
    init = [f"--config.init.{name}={parent.workdir}" for name in ("gen", "seg")]
    words = [*run_words(store, "ada", "epochs=1"), *init, f"--workdir={workdir}"]
    done = call(capfd, *words)
    assert done.status == 0, done.err
    best, last = arrays_of(parent.workdir, 1), arrays_of(workdir, 3)
    # ADA's generators are frozen: after training they are still the parent's. Segmentors learn.
    same = {name: np.array_equal(best[name], last[name]) for name in best if name in last}
    assert all(same[name] for name in same if name.startswith("gen"))
    assert not any(same[name] for name in same if name.startswith("seg") and "kernel" in name)
    assert {name[:3] for name in same} >= {"gen", "seg"}
