"""What the machine does to a run: one clear line, exit status 2 or 3, and nothing broken."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from command_line import ROOT, call, require_one_clear_line
from scan_files import BALLS, write_raw
from tiny_store import change_store, run_words
from workdirs import arrays_of, without_times

from cyclesh import evaluate, main
from cyclesh.data.store import Store
from cyclesh.errors import Stopped, UserError, disk_trouble
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.logs import read_rows


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of a size such as 300k, and mounts it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a file system")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------- devices


def test_devices_that_do_not_exist(store, tmp_path, capfd):
    words = run_words(store, "baseline", "batch=8")
    for flag, said in (
        ("--config.compute.data_devices=8", "data_devices is 8; there are 4 cpu devices"),
        ("--config.compute.depth_devices=8", "depth_devices is 8; there are 4 cpu devices"),
    ):
        done = call(capfd, *words, flag, f"--workdir={tmp_path / 'run'}")
        require_one_clear_line(done, said, "ask for fewer")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------- disks


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        ValueError(f'RESOURCE_EXHAUSTED: writing "x" failed: {os.strerror(errno.ENOSPC)}'),
    ],
)
def test_a_checkpoint_that_finds_no_room_is_told_in_one_line(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(1, {"seg": {"kernel": jnp.ones(3)}}, {}, None)
        checkpoints.wait()
        monkeypatch.setattr(checkpoints._manager, "save", fail)
        with pytest.raises(UserError, match=f"{tmp_path / 'c'}.*{disk_trouble(error)}"):
            checkpoints.save(2, {"seg": {"kernel": jnp.ones(3)}}, {}, None)
        assert checkpoints.steps() == [1]


def test_other_errors_are_ours():
    assert disk_trouble(ValueError("shapes differ")) is None
    assert disk_trouble(FileNotFoundError(errno.ENOENT, "No such file")) is None


def test_a_disk_that_fills_up_stops_the_run_and_with_room_it_goes_on(store, small_disk, capfd):
    words = run_words(store, "baseline")
    disk = small_disk("size=400k")  # a checkpoint takes half of it
    done = call(capfd, *words, f"--workdir={disk / 'run'}", "--quiet")
    require_one_clear_line(done, "No space left on device", "the same command goes on")
    with Checkpoints(disk / "run" / "checkpoints", read_only=True) as checkpoints:
        kept = checkpoints.steps()
    assert kept and kept[-1] < 6
    small_disk("remount,size=50m")
    assert call(capfd, *words, f"--workdir={disk / 'run'}", "--quiet").status == 0
    assert [row["step"] for row in read_rows(disk / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_workdir_that_cannot_be_written(store, small_disk, capfd):
    disk = small_disk("size=400k")
    small_disk("remount,ro")
    done = call(capfd, *run_words(store, "baseline"), f"--workdir={disk / 'run'}")
    require_one_clear_line(done, str(disk / "run"), "Read-only file system", "--workdir")


def test_results_that_were_cut_are_made_again_and_data_that_were_are_named(store, tmp_path, capfd):
    run = tmp_path / "run"
    words = [*run_words(store, "baseline"), f"--workdir={run}", "--quiet"]
    assert call(capfd, *words).status == 0
    scored = json.loads((run / "results.json").read_text())
    for damage in ("", '{"checkpoint"', "[]", '{"checkpoint": {}}'):
        (run / "results.json").write_text(damage)
        done = call(capfd, "--mode=report", f"--workdir={run}", "--quiet")
        require_one_clear_line(done, "results.json")
    assert call(capfd, *words).status == 0
    again = json.loads((run / "results.json").read_text())
    assert again | {"wall_s": 0} == scored | {"wall_s": 0}
    (run / "data.json").write_text("")
    require_one_clear_line(call(capfd, *words), "data.json: cannot be read")


def test_what_cannot_be_scored_is_refused_before_anything_is_made(
    store, tmp_path, capfd, own_cache
):
    run = tmp_path / "run"
    words = [*run_words(store, "joint"), "--config.steps=1"]
    assert call(capfd, *words, f"--workdir={run}", "--quiet").status == 0
    shutil.rmtree(own_cache / "judges")
    for which in ("7", "\u00b2"):
        before = content(run)
        done = call(capfd, "--mode=evaluate", f"--workdir={run}", f"--checkpoint={which}")
        require_one_clear_line(done, f"--checkpoint={which}", "holds best, last and 1")
        assert content(run) == before
    shutil.rmtree(run / "checkpoints")
    (run / "data.json").unlink()
    before = content(run)
    require_one_clear_line(call(capfd, "--mode=evaluate", f"--workdir={run}"), "has no checkpoints")
    assert content(run) == before and not (run / "checkpoints").exists()
    assert not (own_cache / "judges").exists()


@pytest.mark.parametrize("pattern", ["metrics/metrics", "seg/d/*"])
def test_a_run_passes_over_a_damaged_checkpoint_and_refuses_to_start_over(
    store, tmp_path, capfd, pattern
):
    words = [*run_words(store, "baseline"), f"--workdir={tmp_path / 'run'}", "--quiet"]
    assert call(capfd, *words).status == 0
    folder, rows = tmp_path / "run" / "checkpoints", read_rows(tmp_path / "run")
    expected = arrays_of(tmp_path / "run", 6)

    def cut(step: int) -> None:
        for path in (folder / str(step)).glob(pattern):
            path.write_bytes(path.read_bytes()[:10])

    cut(6)
    done = call(capfd, *words)
    assert done.status == 0 and "falling back to the one before" in done.err
    assert "Traceback" not in done.err and (folder / "damaged-6").is_dir()
    assert without_times(read_rows(tmp_path / "run")) == without_times(rows)
    found = arrays_of(tmp_path / "run", 6)
    assert all(np.array_equal(found[name], array) for name, array in expected.items())

    cut(3)
    cut(6)
    before = content(folder)
    done = call(capfd, *words)
    require_one_clear_line(done, str(folder), "none of the checkpoints can be read")
    assert content(folder) == before


# -------------------------------------------------------------------------------- other processes


def test_a_workdir_under_training_is_no_other_process_s_until_that_one_is_gone(
    store, tmp_path, capfd
):
    workdir = tmp_path / "run"
    words = [
        *run_words(store, "baseline", "epochs=1000"),
        "--config.log.keep_every_steps=3",  # all, so that none goes while it is reported
        f"--workdir={workdir}",
        "--quiet",
    ]
    first = subprocess.Popen([sys.executable, "-m", "cyclesh.main", *words], cwd=ROOT)
    try:
        while not list((workdir / "checkpoints").glob("[0-9]")):
            assert first.poll() is None
            time.sleep(0.05)
        unfinished = workdir / "checkpoints" / "0.orbax-checkpoint-tmp"
        unfinished.mkdir()  # as if it were saving
        steps = [words[0] + ",steps=4", *words[1:]]
        require_one_clear_line(call(capfd, *steps), str(workdir), "another process trains here")
        assert unfinished.is_dir() and first.poll() is None
        assert json.loads((workdir / "config.json").read_text())["steps"] == 0
        reported = call(capfd, "--mode=report", f"--workdir={workdir}", "--quiet")
        assert reported.status == 0 and first.poll() is None, reported.err
    finally:
        first.kill()
        first.wait()
    assert len(read_rows(workdir)) > 1
    enough = read_rows(workdir)[-1]["step"] + 1
    done = call(capfd, f"{words[0]},steps={enough}", *words[1:])
    assert done.status == 0 and read_rows(workdir)[-1]["step"] >= enough - 1, done.err


SLOW_PREPARE = """
import sys, time
from cyclesh import main
from cyclesh.data import prepare
crop = prepare.crop_case
prepare.crop_case = lambda *args: (time.sleep(0.3), crop(*args))[1]
sys.exit(main.run(["cyclesh", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_outside_of_training_is_one_line_and_the_same_command_goes_on(
    tmp_path, capfd, number
):
    raw, target = write_raw(tmp_path / "raw"), tmp_path / "s"
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json()))
    config = ("--config=configs/joint.py", "--config.data.processes=1", "--quiet")
    words = ["--mode=prepare", *config, f"--input={raw}", f"--output={target}"]
    command = [sys.executable, "-c", SLOW_PREPARE, *words]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    entries = tmp_path / "s.partial" / "entries"
    while child.poll() is None and len(list(entries.glob("*.json"))) < 2:
        time.sleep(0.02)
    child.send_signal(number)
    err = child.communicate()[1]
    assert child.returncode == 75
    assert err.startswith(f"cyclesh: stopped by {number.name}; the same") and err.count("\n") == 1
    finished = [path.stem for path in entries.glob("*.json")]
    assert 2 <= len(finished) < 8 and not target.exists()

    def made(folder: Path) -> list[int]:
        return [(folder / "volumes" / f"{name}.image.npy").stat().st_mtime_ns for name in finished]

    times = made(tmp_path / "s.partial")
    assert call(capfd, *words).status == 0
    assert len(Store.open(target).volumes) == 8 and made(target) == times


def test_ctrl_c_before_anything_is_begun_is_one_line(capsys):
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert main.status_of(interrupted) == 75
    err = capsys.readouterr().err
    assert err.startswith("cyclesh: stopped by SIGINT") and err.count("\n") == 1


def test_a_signal_is_not_taken_for_a_damaged_checkpoint(tmp_path, monkeypatch):
    with Checkpoints(tmp_path / "c") as checkpoints:
        tree = {"seg": {"kernel": jnp.ones(3)}}
        checkpoints.save(1, tree, {}, None)
        checkpoints.save(2, tree, {}, None)
        checkpoints.wait()

        def stop(*_, **__):
            raise Stopped("stopped by SIGTERM")

        monkeypatch.setattr(checkpoints, "restore", stop)
        with pytest.raises(Stopped):
            checkpoints.restore_newest(**tree)
        assert checkpoints.steps() == [1, 2]


# ----------------------------------------------------------------------------------- other data


def test_a_store_that_changed_under_the_run(store, tmp_path, capfd):
    data, workdir = Path(shutil.copytree(store, tmp_path / "store")), tmp_path / "run"
    words = [*run_words(data, "baseline", "steps=2"), f"--workdir={workdir}", "--quiet"]
    assert call(capfd, *words).status == 0
    change_store(data)
    before = content(workdir)
    words[0] = words[0].replace("steps=2", "steps=4")
    require_one_clear_line(call(capfd, *words), str(workdir), "began on other data")
    assert content(workdir) == before


@pytest.mark.parametrize("part", ["", "volumes/ct_1.image.npy"])
def test_a_store_that_vanishes_or_is_cut_during_the_run(store, tmp_path, capfd, monkeypatch, part):
    data, workdir = Path(shutil.copytree(store, tmp_path / "store")), tmp_path / "run"
    words = [*run_words(data, "baseline", "epochs=4"), f"--workdir={workdir}", "--quiet"]
    validate = evaluate.validate

    def damage(*args):
        figures = validate(*args)
        if part:
            (data / part).write_bytes(b"")
        else:
            shutil.rmtree(data, ignore_errors=True)
        return figures

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "validate", damage)
        done = call(capfd, *words)
    require_one_clear_line(done, str(data / part), "cannot be read", "bring the store back")
    shutil.copytree(store, data, dirs_exist_ok=True)
    assert call(capfd, *words).status == 0
    assert [row["step"] for row in read_rows(workdir)] == [*range(1, 13)]


# --------------------------------------------------------------------------- numbers that explode


def test_steps_that_are_not_finite_are_left_out_and_counted_if_so_wished(store, tmp_path, capfd):
    workdir = tmp_path / "run"
    words = [
        *run_words(store, "baseline", "epochs=4"),
        "--config.optim.seg.rate=1e9",  # the first step is finite, and nothing after it
        "--config.optim.skip_nonfinite=5",
        "--config.log.keep_every_steps=3",
        f"--workdir={workdir}",
    ]
    done = call(capfd, *words)
    assert done.status == 3 and done.err.count("left out") == 5
    assert "left out, 5 of 5" in done.err and "step 7" in done.err.splitlines()[-1]
    assert [row.get("run/skipped") for row in read_rows(workdir)] == [0, 1, 2, 3, 4, 5]
    # The last step left out and the first are the same but for their number.
    early, late = arrays_of(workdir, 3), arrays_of(workdir, 6)
    moved = [name for name in early if not np.array_equal(early[name], late[name])]
    assert moved == ["training['step']"]
    # The count goes on, too, where the run goes on.
    more = [*words, "--config.optim.skip_nonfinite=6"]
    done = call(capfd, *more)
    assert done.status == 3 and "left out, 6 of 6" in done.err and "step 8" in done.err
