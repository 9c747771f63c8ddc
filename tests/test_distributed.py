"""Several processes of one run: where they find one another, and that they end as one."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from processes import Group, free_port
from tiny_store import run_words
from workdirs import arrays_of, without_times

from cyclesh.errors import Stopped, UserError
from cyclesh.runtime import distributed, watch
from cyclesh.runtime.distributed import Place, find_place, first_host
from cyclesh.runtime.logs import read_rows

SLURM = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NODELIST": "gpu[07-10],big1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_a_process_on_its_own_joins_nobody():
    assert find_place("", 0, 0, {}) is None
    assert find_place("host:1", 1, 0, {}) is None


def test_flags_say_who_it_is():
    assert find_place("host:1", 4, 3, SLURM) == Place("host:1", 4, 3)
    assert find_place("auto", 0, 0, {}).coordinator == "auto"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("host", 2, 0), "--coordinator=host: give HOST:PORT"),
        (("", 2, 0), "--coordinator=: give HOST:PORT"),
        (("host:1", 2, 2), "--process=2: give 0 to N-1"),
        (("host:1", 0, 1), "--processes=N"),
    ],
)
def test_flags_that_do_not_say_enough(flags, said):
    with pytest.raises(UserError, match=said):
        find_place(*flags, {})


def test_slurm_says_who_it_is():
    place = find_place("", 0, 0, SLURM)
    host, port = place.coordinator.split(":")
    assert host == "gpu07" and 20000 <= int(port) < 30000
    assert (place.processes, place.process, place.local_device) == (8, 5, 1)
    # The same in all tasks of a step; another job on the node has, most likely, another port.
    others = SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert find_place("", 0, 0, others).coordinator == place.coordinator
    later = find_place("", 0, 0, SLURM | {"SLURM_JOB_ID": "1234568"})
    assert later.coordinator != place.coordinator


@pytest.mark.parametrize(
    ("visible", "local"), [("", 1), ("0,1", 1), ("1", 0), ("GPU-8f2c", 0), ("MIG-1,MIG-2", 1)]
)
def test_a_task_takes_the_device_of_its_number_or_the_only_one_it_sees(visible, local):
    place = find_place("", 0, 0, SLURM | {"CUDA_VISIBLE_DEVICES": visible})
    assert place.local_device == local


@pytest.mark.parametrize("change", [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_NODELIST": None}])
def test_a_job_of_one_task_and_a_batch_script_join_nobody(change):
    env = {name: value for name, value in (SLURM | change).items() if value is not None}
    assert find_place("", 0, 0, env) is None


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[007-010]", "gpu007"),
        ("gpu[3,5-7],big1", "gpu3"),
        ("big1,gpu[1-2]", "big1"),
        ("rack-a[12]", "rack-a12"),
    ],
)
def test_the_first_host_of_a_list(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize("port", [free_port, lambda: "many"], ids=["nobody's", "no number"])
def test_a_coordinator_that_does_not_answer_is_named(monkeypatch, port):
    monkeypatch.setattr(distributed, "JOIN_S", 0.0)
    address = f"127.0.0.1:{port()}"
    with pytest.raises(UserError, match=f"{address}: process 0 does not answer"):
        distributed.together(Place(address, 2, 1), lambda: 0)


def test_a_process_alone_is_the_first():
    assert distributed.is_first() and not distributed.several()
    assert distributed.from_first(lambda: {"dice": 0.5}) == {"dice": 0.5}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_told_in_training_and_ends_what_else_there_is(number):
    before = signal.getsignal(number)
    with distributed.stop_signals() as stopping:
        assert not stopping()
        os.kill(os.getpid(), number)
        assert stopping()
    with pytest.raises(Stopped, match=number.name), distributed.ended_by_signals():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) is before


# ------------------------------------------------------------------------- processes for real


@pytest.fixture(scope="module")
def words(store) -> list[str]:
    """Of a run of eight steps."""
    return run_words(store, "baseline", "batch=2,epochs=4")


def require_equal_runs(a: Path, b: Path, step: int) -> None:
    """Two workdirs hold the same numbers but for the order of sums."""
    rows_a, rows_b = (without_times(read_rows(workdir)) for workdir in (a, b))
    assert [row.keys() for row in rows_a] == [row.keys() for row in rows_b] and rows_a
    first_a, first_b = rows_a[0], rows_b[0]
    for key in ("seg/total", "seg/real"):
        assert first_a[key] == pytest.approx(first_b[key], rel=1e-5), key
    # Adam divides by a gradient's size, so what is nothing but rounding becomes a step's size.
    for row_a, row_b in zip(rows_a, rows_b, strict=True):
        assert row_a["seg/total"] == pytest.approx(row_b["seg/total"], rel=1e-3)
    arrays_a, arrays_b = arrays_of(a, step), arrays_of(b, step)
    assert arrays_a.keys() == arrays_b.keys()
    for name, array in arrays_a.items():
        scale = np.linalg.norm(array.astype(np.float64)) + 1e-6
        assert np.linalg.norm(arrays_b[name] - array.astype(np.float64)) < 0.05 * scale, name


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_and_go_on_as_one(tmp_path, words):
    (status, _, err), *_ = Group(tmp_path / "one", 1, *words).wait()
    assert status == 0, err

    # As SLURM starts them; stopped by a signal to the second.
    tasks = [
        {**SLURM, "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": "2"}
        | {"SLURM_PROCID": str(p), "SLURM_LOCALID": str(p)}
        for p in range(2)
    ]
    group = Group(tmp_path / "two", 2, *words, env=tasks)
    group.signal_after(2, 1, signal.SIGTERM)
    ends = group.wait()
    assert [status for status, *_ in ends] == [75, 75], ends
    assert all("state saved; run again" in err for *_, err in ends)
    stopped_at = read_rows(tmp_path / "two")[-1]["step"]
    assert stopped_at < 8

    # On with flags, to the end: the first process alone says what came out.
    ends = Group(tmp_path / "two", 2, *words).wait()
    assert [status for status, *_ in ends] == [0, 0], ends
    assert "shell" in ends[0][1] and "shell" not in ends[1][1]
    require_equal_runs(tmp_path / "one", tmp_path / "two", 8)
    results = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("one", "two")]
    assert results[0]["checkpoint"]["step"] == results[1]["checkpoint"]["step"]

    # Once more: both find it finished, and nothing is scored again.
    before = (tmp_path / "two" / "results.json").stat().st_mtime_ns
    ends = Group(tmp_path / "two", 2, *words).wait()
    assert [status for status, *_ in ends] == [0, 0], ends
    assert "finished at step 8" in ends[0][2] and "finished" not in ends[1][2]
    assert (tmp_path / "two" / "results.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_one_that_dies_ends_the_other_soon_and_one_alone_goes_on(tmp_path, words, killed):
    group = Group(tmp_path / "run", 2, *words)
    begin = group.signal_after(5, killed, signal.SIGKILL)  # the checkpoint of step 2 is done
    status, _, err = group.wait()[1 - killed]
    assert time.monotonic() - begin < 2 * watch.SILENCE_S + 10
    assert status == 75 and ("is gone; the same command goes on" in err)
    kept = [row for row in without_times(read_rows(tmp_path / "run")) if row["step"] <= 2]

    # On one process and one device, from the checkpoint of two.
    (status, _, err), *_ = Group(tmp_path / "run", 1, *words).wait()
    assert status == 0, err
    rows = without_times(read_rows(tmp_path / "run"))
    assert [row["step"] for row in rows] == list(range(1, 9)) and rows[:2] == kept


@pytest.mark.slow
def test_a_batch_that_processes_cannot_share_is_refused_by_all(tmp_path, words):
    ends = Group(tmp_path / "run", 2, words[0].replace("batch=2", "batch=3"), *words[1:]).wait()
    assert [status for status, *_ in ends] == [2, 2], ends
    for _, _, err in ends:
        assert "batch is 3; 2 devices of 2 processes must all share it; use a multiple of 2" in err
    assert not (tmp_path / "run").exists()
