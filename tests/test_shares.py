"""Shares of a machine: which cores or GPUs each has, and that what is started there has no more."""

import os

import pytest

from cyclesh.errors import UserError
from cyclesh.evidence import shares
from cyclesh.evidence.shares import Share, divide


def seen() -> tuple[set[int], str | None]:
    return os.sched_getaffinity(0), os.environ.get("CUDA_VISIBLE_DEVICES")


def test_a_share_confines_what_is_started_and_nothing_else(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before, core = seen(), min(os.sched_getaffinity(0))
    with Share(cores=(core,), gpus=("2", "3")).confined():
        assert shares.in_fresh_process(seen) == ({core}, "2,3")
    assert seen() == before
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with pytest.raises(KeyError), Share(gpus=("5",)).confined():
        assert seen() == (before[0], "5")
        raise KeyError
    assert seen() == (before[0], "5,7")
    with Share().confined():
        assert seen() == (before[0], "5,7")


@pytest.mark.parametrize(
    ("devices", "visible", "jobs", "expected"),
    [
        (("gpu", 4), "", 2, [("0", "1"), ("2", "3")]),
        (("gpu", 3), "", 2, [("0",), ("1", "2")]),
        (("gpu", 2), "4,6", 2, [("4",), ("6",)]),
    ],
)
def test_gpus_are_divided_where_there_are_some(monkeypatch, devices, visible, jobs, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(shares, "in_fresh_process", lambda function: devices)
    assert divide(jobs) == [Share(gpus=part) for part in expected]


def test_cores_are_divided_where_there_is_nothing_else(monkeypatch):
    monkeypatch.setattr(shares, "in_fresh_process", lambda function: ("cpu", 1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {8, 3, 5, 6, 7})
    assert divide(1) == [Share()]
    assert divide(2) == [Share(cores=(3, 5)), Share(cores=(6, 7, 8))]
    with pytest.raises(UserError, match="--jobs=6: this machine has 5 cores; give at most that"):
        divide(6)
    monkeypatch.setattr(shares, "in_fresh_process", lambda function: ("tpu", 4))
    with pytest.raises(UserError, match="--jobs=2: a process holds the whole TPU; leave it out"):
        divide(2)


def test_threads_of_one_core_go_to_one_share(monkeypatch):
    monkeypatch.setattr(shares, "in_fresh_process", lambda function: ("cpu", 1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    topology = {"core_id": [0, 1, 0, 1], "physical_package_id": [0, 0, 0, 0]}
    monkeypatch.setattr(
        shares.Path,
        "read_text",
        lambda self: str(topology[self.name][int(self.parts[-3].removeprefix("cpu"))]),
    )
    assert divide(2) == [Share(cores=(0, 2)), Share(cores=(1, 3))]
