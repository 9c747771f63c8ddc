"""Trials that run at once: how many, on what, after whom, and what a signal or a failure ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import ROOT, call
from plan_runs import leave_record, tiny_config, tiny_plan
from scan_files import BALLS

from configs import default
from cyclesh import experiments
from cyclesh.data.description import description_of
from cyclesh.errors import NonFiniteError, Stopped, UserError
from cyclesh.evidence import jobs, records
from cyclesh.evidence.durations import Durations, measure_step_s
from cyclesh.evidence.plan import make_plan
from cyclesh.evidence.shares import Share
from cyclesh.settings import to_json

CORES = [Share(cores=(0,)), Share(cores=(1,))]


class Machine:
    """Stands for the processes of trials, each of which takes some looks to end."""

    def __init__(self, workdir: Path, looks=lambda name: 2, statuses=None):
        self.workdir, self.looks, self.statuses = workdir, looks, statuses or {}
        self.running, self.order, self.most, self.told = {}, [], 0, set()
        self.stopped = {}  # name -> how it ends when told to

    def start(self, trial, share):
        assert share not in self.running.values()
        assert all(records.is_finished(self.workdir, tiny_plan().trials[p]) for p in trial.after)
        self.running[trial.name] = share
        self.order.append(trial.name)
        self.most = max(self.most, len(self.running))
        left = [self.looks(trial.name)]

        def poll():
            left[0] -= 1
            if left[0] > 0 and trial.name not in self.told:
                return None
            self.running.pop(trial.name, None)
            if trial.name in self.told:
                return self.stopped.get(trial.name, 75)
            status = self.statuses.get(trial.name, 0)
            if status == 0:
                leave_record(tiny_plan(), trial, self.workdir)
            if status == 3:
                records.write_failed(tiny_plan(), trial, self.workdir, records.NON_FINITE, "step 3")
            return status

        return SimpleNamespace(poll=poll, send_signal=lambda _: self.told.add(trial.name))


@pytest.fixture
def reproduce(tmp_path, monkeypatch):
    monkeypatch.setattr(
        experiments, "divide", lambda count: CORES[:count] if count > 1 else [Share()]
    )
    monkeypatch.setattr(jobs, "POLL_S", 0)

    def run(machine: Machine, count: int = 2, only=("table1", "table2"), quiet=True):
        return experiments.reproduce(
            tiny_config(), machine.workdir, only, quiet, machine.start, jobs=count
        )

    return run


def tables(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.csv")}


def test_two_at_once_each_on_a_share_of_its_own_end_in_the_same_tables(tmp_path, reproduce):
    one, two = Machine(tmp_path / "one"), Machine(tmp_path / "two", lambda name: 1 + len(name) % 4)
    files = reproduce(one, 1)
    assert [path.name for path in files] == [path.name for path in reproduce(two, 2)]
    assert (one.most, two.most) == (1, 2)
    assert sorted(one.order) == sorted(two.order) and len(set(two.order)) == len(two.order)
    assert tables(one.workdir) == tables(two.workdir) != {}
    again = Machine(tmp_path / "two")
    reproduce(again)
    assert again.order == []


def test_a_table_is_written_once_its_own_trials_are_done_and_a_picture_at_the_end(
    tmp_path, reproduce, monkeypatch
):
    machine, pages, plan = Machine(tmp_path), {}, tiny_plan()

    def noted(_, output, workdir):
        pages[output] = set(records.read_records(workdir))
        assert output != "figure3" or not machine.running
        return []

    monkeypatch.setattr(experiments, "write", noted)
    outputs = ("table1", "figure3", "table2")
    reproduce(machine, only=outputs)
    for output in outputs:
        assert {trial.name for trial in plan.wanted([output])} <= pages[output]
    assert pages["table1"] < pages["table2"] <= pages["figure3"] == set(machine.order)


def test_each_start_is_announced_with_a_number_of_its_own(tmp_path, reproduce, monkeypatch, capsys):
    monkeypatch.setattr("cyclesh.evidence.durations.measured_step_s", lambda config, share: 90.0)
    machine = Machine(tmp_path)
    reproduce(machine, only=("table1",), quiet=False)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    numbers, names = zip(*(line.split(":")[0].split() for line in said), strict=True)
    assert list(names) == machine.order
    assert list(numbers) == [f"[{i + 1}/{len(names)}]" for i in range(len(names))]
    assert said[-1].endswith("1 min; all: 1 min to go")  # as long as those that have finished


def test_a_loss_that_is_not_finite_costs_its_children_alone(tmp_path, reproduce):
    machine = Machine(tmp_path, statuses={"all-gan-s0": 3})
    with pytest.raises(NonFiniteError, match="3 trials without result"):
        reproduce(machine, only=("table1",))
    assert not {"all-no_sc-s0", "all-ours-s0"} & set(machine.order)
    assert {"all-no_sc-s1", "all-ours-s1"} <= set(machine.order)


@pytest.mark.parametrize(("status", "error"), [(2, UserError), (1, RuntimeError), (75, Stopped)])
def test_a_trial_that_ends_otherwise_stops_the_one_beside_it(tmp_path, reproduce, status, error):
    machine = Machine(tmp_path, lambda name: 2 if name == "judge" else 50, {"judge": status})
    with pytest.raises(error, match="judge"):
        reproduce(machine)
    assert machine.order[0] == "judge" and len(machine.order) == 2
    assert machine.told == {machine.order[1]} and not machine.running
    assert not records.read_records(tmp_path)


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (0, Stopped, "stopped in judge, state"),
        (1, RuntimeError, "with status 1"),
        (2, UserError, "seg-s0: refused"),
        (-9, UserError, "fewer --jobs"),
    ],
)
def test_how_the_others_end_counts_too(tmp_path, reproduce, status, error, said):
    machine = Machine(tmp_path, lambda name: 2 if name == "judge" else 50, {"judge": 75})
    machine.stopped["all-seg-s0"] = status
    with pytest.raises(error, match=said):
        reproduce(machine, only=("table2", "table1"))
    assert machine.order == ["judge", "all-seg-s0"]


def test_a_signal_reaches_all_that_run_and_nothing_more_is_begun(tmp_path, reproduce, monkeypatch):
    machine = Machine(tmp_path, lambda name: 10**6)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def looked(_):
        if len(machine.running) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(jobs.time, "sleep", looked)
    with pytest.raises(Stopped) as stopped:
        reproduce(machine)
    assert len(machine.order) == 2 and machine.told == set(machine.order)
    assert all(name in str(stopped.value) for name in machine.order)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers


@pytest.mark.parametrize("within", ["announce", "start"])
def test_a_signal_while_a_trial_begins_reaches_that_too(tmp_path, reproduce, monkeypatch, within):
    machine = Machine(tmp_path, lambda name: 50)
    start = machine.start

    def stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        return "soon"

    def begin(trial, share):
        if within == "start":
            stop()
        return start(trial, share)

    machine.start = begin
    monkeypatch.setattr(
        Durations, "seconds", lambda self, trials, measure=True: [1.0] * len(trials)
    )
    if within == "announce":
        monkeypatch.setattr(Durations, "announce", stop)
    with pytest.raises(Stopped):
        reproduce(machine, quiet=False)
    assert machine.order and machine.told == set(machine.order) and len(machine.order) == 1


def test_a_process_that_a_signal_ends_before_it_listens_was_stopped_not_at_fault(tmp_path):
    program = (
        "import sys; from pathlib import Path; from cyclesh import experiments as e;"
        "from cyclesh.evidence.jobs import Jobs; from cyclesh.evidence.shares import Share;"
        "child = 'import sys, time; print(1, file=sys.stderr, flush=True); time.sleep(60)';"
        "e.trial_command = lambda *_: [sys.executable, '-c', child];"
        "start = lambda trial, share: e.start_process(Path('.'), trial, share, False)\n"
        "with Jobs(start, [Share()]) as jobs:\n"
        "    jobs.start(type('T', (), {'name': 'x'}))\n"
        "    sys.exit(jobs.wait()[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE)
    assert process.stderr.readline().strip() == b"1"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 75


def test_jobs_are_refused_where_they_cannot_be(tmp_path, capfd):
    words = ("--mode=reproduce", "--config=configs/joint.py:tiny", f"--workdir={tmp_path / 'new'}")
    for more, named in (
        ((*words, "--jobs=999"), "give at most that"),
        ((*words, "--jobs=2", "--launch=slurm"), "--launch=here"),
        ((*words, "--jobs=0"), "jobs"),
        (("--config=configs/joint.py:tiny", "--jobs=2"), "--jobs"),
    ):
        done = call(capfd, *more)
        assert done.status == 2 and named in done.err and done.err.count("\n") == 1, done.err
    assert not (tmp_path / "new").exists()


def test_trials_that_run_at_once_take_as_long_as_their_longest_line_of_parents(tmp_path):
    plan = tiny_plan()
    times = {"judge": 100.0, "all-seg-s0": 30.0, "all-gan-s0": 50.0, "all-ours-s0": 20.0}
    times |= {"all-no_sc-s0": 60.0}

    def together(count: int, known=times) -> float:
        return Durations(plan, tmp_path, CORES[:1] * count).together(known)

    assert together(1) == 260
    # Judge and seg at 0; gan needs the judge: 100 to 150; then no_sc and ours at once, to 210.
    assert together(2) == together(3) == 210
    assert together(2, {"all-no_sc-s0": 60.0, "all-ours-s0": 20.0}) == 60  # parents have ended
    assert together(2, {}) == 0 and np.isnan(together(2, {"judge": float("nan")}))


def test_what_trials_took_tells_of_those_with_as_many_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("cyclesh.evidence.durations.measured_step_s", lambda config, share: 90.0)
    plan = tiny_plan()
    done, trial = plan.trials["all-seg-s0"], plan.trials["all-seg-s1"]
    leave_record(plan, done, tmp_path)
    path = records.record_path(tmp_path, done.name)
    record = records.read_record(tmp_path, done.name)
    path.write_text(json.dumps(record | {"cores": 1, "step_s": 1000.0, "wall_s": 4000.0}))
    for share, seconds in ((Share(cores=(0,)), 4030), (Share(cores=(0, 1)), 420)):
        assert Durations(plan, tmp_path, [share]).seconds([trial]) == [seconds]


def test_trials_are_timed_on_the_grid_and_with_the_classes_of_the_data(tmp_path):
    subjects = {(m, split): 9 for m in ("ct", "mr") for split in ("train", "test")}
    plan = make_plan(default.build("abdomen,data=/somewhere", "joint"), BALLS, subjects)
    config = Durations(plan, tmp_path).config(plan.trials["all-seg-s0"])
    description = description_of(config.data)
    assert (description.shape, description.classes) == (BALLS.shape, BALLS.classes)
    assert BALLS.shape != default.build("abdomen", "joint").data.shape


def test_a_kind_of_trial_is_timed_on_random_volumes():
    small = ("compute.lowering", "native"), ("model.depth", 1), ("model.filters", 2)
    config = tiny_config()
    config.update_from_flattened_dict({**dict(small), "data.shape": (8, 8, 8)})
    assert measure_step_s(to_json(config)) > 0
