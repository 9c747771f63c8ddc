"""Work on many files at once, from whatever kind of script."""

import os
import subprocess
import sys

import pytest

from cyclesh.data.workers import in_parallel
from cyclesh.errors import UserError

SCRIPT = """
import operator
from cyclesh.data.workers import in_parallel
print(in_parallel(operator.neg, [1, 2, 3], title="test", processes=2, progress=False))
"""


@pytest.mark.parametrize("from_stdin", [False, True])
def test_a_script_needs_no_main_guard(tmp_path, from_stdin):
    """Workers run nothing of it; else each would begin it anew."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = [sys.executable, "-" if from_stdin else str(script)]
    done = subprocess.run(
        words,
        input=SCRIPT if from_stdin else None,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[-1, -2, -3]\n", "")


def test_a_worker_that_is_killed_is_told_with_what_helps():
    with pytest.raises(UserError, match=r"one of 2 .* killed.*data\.processes=1"):
        in_parallel(os._exit, [9, 9, 9, 9], title="test", processes=2, progress=False)
