"""kill -9 at any moment, and the same command again: bit for bit the run that was never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from command_line import ROOT
from tiny_store import run_words
from workdirs import arrays_of, without_times

from cyclesh.methods import METHODS
from cyclesh.runtime.logs import read_rows
from cyclesh.workdir import CHECKPOINTS

SOAK_KILLS = int(os.environ.get("CYCLESH_SOAK_KILLS", "30"))  # of each config


# ------------------------------------------------------------------------ moments to be killed at


class Moment(NamedTuple):
    """When to kill: as soon as a workdir looks so."""

    name: str
    has_come: Callable[[Path], bool]


def last_row(workdir: Path) -> int:
    rows = read_rows(workdir)
    return rows[-1]["step"] if rows else 0


def saved_steps(workdir: Path) -> list[int]:
    folder = workdir / CHECKPOINTS
    return sorted(int(p.name) for p in folder.glob("[0-9]*") if p.name.isdecimal())


def is_saving(workdir: Path) -> bool:
    """Orbax writes beside the finished checkpoints and renames."""
    return any((workdir / CHECKPOINTS).glob("*.orbax-checkpoint-tmp"))


def scored(workdir: Path) -> bool:
    """Whether all that a finished run holds is there."""
    return (workdir / "results.json").exists()


def moments(last: int, every: int) -> list[Moment]:
    """In a run of ``last`` steps with a validation after ``every`` so many."""
    return [
        Moment("validating", lambda w: last_row(w) % every == every - 1),
        Moment("saving", is_saving),
        Moment("training", lambda w: last_row(w) > last // 2),
        Moment("scoring", lambda w: last in saved_steps(w) and not scored(w)),
        Moment("reporting", lambda w: (w / "cases.csv").exists() and not scored(w)),
    ]


class Life(NamedTuple):
    """A process's end: killed or not, and the steps that it found saved."""

    killed: bool
    saved: list[int]


def live(words: list[str], workdir: Path, has_come: Callable[[Path], bool]) -> Life:
    """Run the command until the moment, or the end."""
    command = [sys.executable, "-m", "cyclesh.main", *words, f"--workdir={workdir}", "--quiet"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    while process.poll() is None:
        if has_come(workdir):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    return Life(process.returncode != 0, saved_steps(workdir))


def require_same(workdir: Path, straight: Path, last: int) -> None:
    """Every row, every array and every score."""
    rows, expected = (without_times(read_rows(w)) for w in (workdir, straight))
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    assert rows == expected
    found, arrays = arrays_of(workdir, last), arrays_of(straight, last)
    assert found.keys() == arrays.keys()
    different = [name for name in arrays if not np.array_equal(found[name], arrays[name])]
    assert different == []
    assert (workdir / "report.html").exists()
    assert (workdir / "cases.csv").read_text() == (straight / "cases.csv").read_text()
    scores = [json.loads((w / "results.json").read_text()) for w in (workdir, straight)]
    for entry in scores:
        del entry["wall_s"], entry["git"]  # of the checkout, which may move meanwhile
    assert scores[0] == scores[1]


def never(_: Path) -> bool:
    return False


def require_scores_of_what_it_has(workdir: Path, method: str) -> None:
    """Generators have S-scores, segmentors Dice."""
    results = json.loads((workdir / "results.json").read_text())
    assert (results["s_score"]["ct"] is not None) == (method != "baseline")
    assert (results["test"]["mr"] is not None) == (method not in ("gan", "cyclegan"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_every_kind_of_moment_a_run_goes_on_exactly(store, tmp_path, method):
    words = run_words(store, method)
    assert not live(words, tmp_path / "straight", never).killed
    require_scores_of_what_it_has(tmp_path / "straight", method)
    last = saved_steps(tmp_path / "straight")[-1]
    for moment in moments(last, every=3):
        assert live(words, tmp_path / "run", moment.has_come).killed, moment.name
    live(words, tmp_path / "run", never)
    require_same(tmp_path / "run", tmp_path / "straight", last)


@pytest.mark.soak
@pytest.mark.parametrize("method", METHODS)
def test_soak(store, tmp_path, method, capsys):
    """Killed at random moments, from the start of the program to its last words.

    By hand: pytest -m soak tests/test_resume.py -s (CYCLESH_SOAK_KILLS changes how often).
    """
    words = [*run_words(store, method, "epochs=100"), "--config.log.validate_epochs=5.0"]
    begin = time.monotonic()
    assert not live(words, tmp_path / "straight", never).killed
    whole_s = time.monotonic() - begin
    last, every = saved_steps(tmp_path / "straight")[-1], 15

    chance = random.Random(list(METHODS).index(method))
    known = {moment.name: moment.has_come for moment in moments(last, every)}
    names = ("at random", "at random", "validating", "saving", "scoring", "reporting")
    kills, lost, runs = dict.fromkeys(names, 0), [0], 0
    while sum(kills.values()) < SOAK_KILLS:
        runs += 1
        workdir = tmp_path / f"run{runs}"
        while not scored(workdir):
            name = chance.choice(names) if sum(kills.values()) < SOAK_KILLS else "never"
            until = time.monotonic() + chance.uniform(0.0, 0.7 * whole_s)
            at_random = {"at random": lambda _, end=until: time.monotonic() > end, "never": never}
            life = live(words, workdir, (known | at_random)[name])
            if life.killed:
                kills[name] += 1
                lost.append(last_row(workdir) - max(life.saved, default=0))
                # While a checkpoint is written the next steps are made, and it is not one yet.
                assert lost[-1] <= 2 * every, (name, life)
        require_same(workdir, tmp_path / "straight", last)
    with capsys.disabled():
        print(f"\n{method}: killed {kills}; {runs} runs; at most {max(lost)} of {last} steps lost")
