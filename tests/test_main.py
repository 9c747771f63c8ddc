"""The command line as a whole."""

import errno
import os
import subprocess
import sys

import pytest
from command_line import ROOT, started_with

from cyclesh.main import MODES, MODES_OF_FLAGS, parse, status_of, workdir


@pytest.mark.parametrize("words", (["--help"], ["--mode=segment", "--help"]))
def test_help_lists_modes_and_flags_and_does_nothing(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cyclesh.main", *words],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "CYCLESH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(mode in done.stdout for mode in MODES)
    for flag in MODES_OF_FLAGS:
        assert f"--{flag}:" in done.stdout or f"--[no]{flag}:" in done.stdout, flag
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "folder"),
    [("", "runs/mine"), (":seed=3", "runs/mine"), (":tiny,seed=3", "runs/mine-tiny")],
)
def test_a_run_lies_where_its_config_file_says(argument, folder, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from configs import default\n\n"
        "def get_config(argument=None):\n    return default.build(argument, 'joint')\n"
    )
    with started_with([f"--config={tmp_path / 'mine.py'}{argument}"]) as words:
        parse(words)
        assert str(workdir()) == folder


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "make room there"), (errno.EDQUOT, "make room"), (errno.EROFS, "name another")],
)
def test_a_disk_that_takes_no_more_is_one_line(number, advice, capsys):
    def work() -> int:
        raise OSError(number, os.strerror(number), "out/store")

    assert status_of(work) == 2
    told, words = capsys.readouterr().err, os.strerror(number)
    assert told.startswith(f"cyclesh: out/store: cannot be written ({words}); {advice}")
    assert told.count("\n") == 1


def test_without_an_output_it_ends_by_its_status_all_the_same(tmp_path):
    command = f'"{sys.executable}" -m cyclesh.main --mode=prepare >&- 2>"{tmp_path}/said"'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, timeout=60)
    said = (tmp_path / "said").read_text()
    assert done.returncode == 2 and "Traceback" not in said and "--config" in said


def test_it_ends_without_a_word_when_nobody_reads_on():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cyclesh.main", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=-1, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")  # as of a program that SIGPIPE has ended
