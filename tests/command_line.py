"""The program within this process, as often as a test likes, and as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags
from absl.testing import flagsaver

import cyclesh.train  # noqa: F401  defines the flags of grain: those not known here are lost
from cyclesh import main

ROOT = Path(__file__).parent.parent
UNPARSED = flagsaver.save_flag_values(flags.FLAGS)


class Outcome(NamedTuple):
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str


def call(capfd, *words: str) -> Outcome:
    """`python -m cyclesh.main WORDS` without the start of a new Python."""
    capfd.readouterr()
    path, argv = list(sys.path), sys.argv
    sys.argv = ["cyclesh", *map(str, words)]  # where --config.a.b=v is looked for
    try:
        status = main.run(sys.argv)
    finally:
        sys.argv = argv
        flagsaver.restore_flag_values(UNPARSED)
        flags.FLAGS.unparse_flags()
        sys.path[:] = path
    return Outcome(status, *capfd.readouterr())


def spawn(*words: str) -> Outcome:
    """The same as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "cyclesh.main", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def require_one_clear_line(done: Outcome, *said: str) -> None:
    """What every mistake ends in."""
    assert done.status == 2, done
    assert done.err.startswith("cyclesh: ") and done.err.count("\n") == 1, done.err
    assert done.err.endswith("\n") and len(done.err) < 500
    assert "Traceback" not in done.err and "Error(" not in done.err
    for text in said:
        assert text in done.err
