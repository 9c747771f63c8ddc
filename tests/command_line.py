"""The program within this process, as often as a test likes, and as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from absl import flags
from absl.testing import flagsaver
from ml_collections import ConfigDict

import cyclesh.train  # noqa: F401  defines the flags of grain: those not known here are lost
from cyclesh import main
from cyclesh.settings import validate

ROOT = Path(__file__).parent.parent
UNPARSED = flagsaver.save_flag_values(flags.FLAGS)


class Outcome(NamedTuple):
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str


@contextmanager
def started_with(words: Sequence[str]) -> Iterator[list[str]]:
    """This process's arguments for a while; flags and the import path are as before afterwards."""
    path, argv = list(sys.path), sys.argv
    sys.argv = ["cyclesh", *map(str, words)]  # where --config.a.b=v is looked for
    try:
        yield sys.argv
    finally:
        sys.argv = argv
        flagsaver.restore_flag_values(UNPARSED)
        flags.FLAGS.unparse_flags()
        sys.path[:] = path


def call(capfd, *words: str) -> Outcome:
    """`python -m cyclesh.main WORDS` without the start of a new Python."""
    capfd.readouterr()
    with started_with(words) as argv:
        status = main.run(argv)
    return Outcome(status, *capfd.readouterr())


def parsed(*words: str) -> ConfigDict | None:
    """The checked config of a command that is not run; None where it names none.

    Raises UserError for an unknown flag, key, field or mode.
    """
    with started_with(words) as argv:
        main.parse(argv)
        config = flags.FLAGS.config
    if config is not None:
        validate(config)
    return config


def spawn(*words: str, program: str = "") -> Outcome:
    """The same as a process; ``program`` is what it runs instead of the module."""
    start = ["-c", program] if program else ["-m", "cyclesh.main"]
    done = subprocess.run(
        [sys.executable, *start, *map(str, words)],
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
