"""Reproduce with real training: stopped, killed, gone on with, to the same tables in the end."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import ROOT
from PIL import Image

# The smallest networks, with CPUs' own lowering: it takes a tenth of the time that the native one
# takes for a step of this grid. One case a direction is drawn.
WORDS = (
    "--mode=reproduce",
    "--config=configs/joint.py:tiny,epochs=2",
    "--config.model.filters=2",
    "--config.model.depth=1",
    "--config.judge.epochs=2",
    "--config.log.report_cases=1",
    "--quiet",
)


def rows(path: Path) -> list[dict]:
    with path.open() as file:
        return list(csv.DictReader(file))


def comparable(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in sorted(folder.glob("*.csv"))}


def start(workdir: Path, only: str, jobs: int = 1) -> subprocess.Popen:
    words = (*WORDS, f"--only={only}", f"--jobs={jobs}")
    command = [sys.executable, "-m", "cyclesh.main", *words]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}"], cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def complete(workdir: Path, only: str, jobs: int = 1) -> None:
    process = start(workdir, only, jobs)
    said = process.communicate()
    assert process.returncode == 0, said


def finished(workdir: Path) -> dict[Path, int]:
    """Records of trials, and when they were written."""
    return {p: p.stat().st_mtime_ns for p in workdir.glob("runs/*.json")}


def stop_after(process: subprocess.Popen, workdir: Path, more: int, how: signal.Signals) -> int:
    """Stop it once so many further trials are done; its exit status."""
    enough = len(finished(workdir)) + more
    while len(finished(workdir)) < enough and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, how) if how == signal.SIGKILL else process.send_signal(how)
    process.communicate()
    return process.returncode


@pytest.mark.slow
def test_a_plan_runs_to_its_table_and_its_figure_and_may_be_stopped_on_the_way(tmp_path):
    outputs = "table1,displacement"
    assert stop_after(start(tmp_path, outputs, jobs=2), tmp_path, 3, signal.SIGTERM) == 75
    before = finished(tmp_path)
    assert len(before) >= 3
    complete(tmp_path, outputs, jobs=2)
    after = finished(tmp_path)
    assert len(after) == 13 and all(after[path] == time for path, time in before.items())
    scores = {}
    for row in rows(tmp_path / "table1.csv"):
        if row["structure"] == "mean" and row["method"] in ("no_sc", "sc"):
            scores[row["method"], row["modality"]] = float(row["mean"])
            assert row["n"] == "2"
    assert len(scores) == 4 and all(0 <= score < 1 for score in scores.values())
    # At first, the anatomy lies where the generators were shifted to, in both arms alike.
    first = [
        float(row["mean"])
        for row in rows(tmp_path / "displacement.csv")
        if (row["x"], row["structure"]) == ("0", "phase")
    ]
    assert len(first) == 4 and first[:2] == first[2:]
    assert "sc - no_sc" in (tmp_path / "table1.md").read_text()
    assert Image.open(tmp_path / "displacement.png").size > (400, 300)
    complete(tmp_path, outputs)
    assert finished(tmp_path) == after


@pytest.mark.soak  # two plans of many trials, each a process
def test_killed_in_the_middle_and_started_again_it_ends_in_the_same_tables(tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    complete(straight, "table1")
    for how in (signal.SIGTERM, signal.SIGKILL):
        status = stop_after(start(broken, "table1"), broken, 2, how)
        assert status in (75, -signal.SIGKILL)
    times = finished(broken)
    assert len(times) >= 3
    complete(broken, "table1")
    assert all(finished(broken)[path] == time for path, time in times.items())
    assert comparable(straight) == comparable(broken) != {}
