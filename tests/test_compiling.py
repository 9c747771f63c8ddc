"""The steps of a run's phases: each compiled once, the first one ahead of its need."""

import threading
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from tiny_runs import tiny_config
from tiny_store import SHAPE, write_store

from cyclesh import compiling
from cyclesh.bench import make_workload
from cyclesh.compiling import Steps, told_if_too_large
from cyclesh.data.store import Store
from cyclesh.errors import UserError
from cyclesh.run import Run, build_run, first_state
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.workdir import CHECKPOINTS


def tiny_run(folder: Path) -> Run:
    config = tiny_config("joint")
    config.data.shape = SHAPE
    return build_run(config, folder / "run", Store.open(write_store(folder / "balls")))


def test_a_phase_s_step_is_compiled_once(tmp_path):
    run = tiny_run(tmp_path)
    with Checkpoints(run.workdir / CHECKPOINTS) as checkpoints:
        make_state, _ = first_state(run, checkpoints)
    state = make_state()
    batches = run.batches(0)
    first = next(batches)
    with Steps(run, run.phases[-1]) as steps:
        step = steps.of(run.phases[-1])
        assert steps.of(run.phases[-1]) is step
    heard = []

    def hear(event: str, *_, **__) -> None:
        heard.append(event)

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        jax.jit(lambda x: x + 3)(1.0)
        assert any("compile" in event for event in heard)  # this is how it would sound
        heard.clear()
        for batch in (first, next(batches), next(batches)):
            state, _ = step(state, batch)
        assert not any("compile" in event for event in heard)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert int(state.step) == 3


class Lowered:
    """In place of a step: tells which thread compiled it."""

    def __init__(self, phase: str):
        self.phase, self.compiled_in = phase, None

    def compile(self) -> "Lowered":
        self.compiled_in = threading.current_thread()
        return self


@pytest.fixture
def tidied() -> list[str]:
    return []


@pytest.fixture
def lowered(monkeypatch, tidied) -> list[Lowered]:
    made = []

    def lower_step(run, phase):
        made.append(Lowered(phase.name))
        return made[-1]

    monkeypatch.setattr(compiling, "lower_step", lower_step)
    monkeypatch.setattr(compiling, "tidy_up", lambda step: tidied.append(step.phase))
    return made


def test_the_first_step_is_compiled_in_a_thread_and_the_others_when_asked_for(
    tmp_path, lowered, tidied
):
    run = tiny_run(tmp_path)
    last = run.phases[-1]
    first = replace(last, name="before")
    with Steps(run, first) as steps:
        assert not tidied
        for phase in (first, first, last):
            assert steps.of(phase).phase == phase.name
    assert tidied == [first.name, last.name]  # once each, before it runs
    assert [step.phase for step in lowered] == [first.name, last.name]
    assert lowered[0].compiled_in is not threading.current_thread()
    assert lowered[1].compiled_in is threading.current_thread()


def test_processes_that_train_together_compile_in_one_order(tmp_path, lowered, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    run = tiny_run(tmp_path)
    with Steps(run, run.phases[0]) as steps:
        assert not lowered
        steps.of(run.phases[0])
    assert lowered[0].compiled_in is threading.current_thread()


def test_an_error_of_the_compiler_comes_where_the_step_is_asked_for(tmp_path, lowered, monkeypatch):
    def fails(_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Lowered, "compile", fails)
    run = tiny_run(tmp_path)
    with Steps(run, run.phases[0]) as steps, pytest.raises(RuntimeError, match="out of memory"):
        steps.of(run.phases[0])


def test_a_step_that_does_not_fit_says_what_to_turn(tmp_path):
    run = tiny_run(tmp_path)
    said = "does not fit .*; turn --config.compute.save_memory=True"
    with pytest.raises(UserError, match=said), told_if_too_large(run):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    with pytest.raises(jax.errors.JaxRuntimeError), told_if_too_large(run):
        raise jax.errors.JaxRuntimeError("INTERNAL: else")


@pytest.mark.parametrize("devices", [1, 2])
def test_seeds_share_a_program_and_draw_each_its_own_way(devices):
    """Of several fakes that the pools hold, which are seen is a matter of the seed."""
    programs, seen, step = set(), set(), None
    for seed in range(4):
        config = tiny_config("gan", f"tiny,filters=2,seed={seed}")
        config.compute.home_devices = devices
        work = make_workload(config)
        batch = next(work.run.batches(0))
        lowered = work.jit_step().lower(work.state_shapes, batch)
        programs.add(lowered.as_text())
        step = step or lowered.compile()
        work.config.seed = 0  # the same networks to begin with
        current = work.state
        for _ in range(6):
            current, metrics = step(current, batch)
        seen.add(float(metrics["disc/fake"]))
    assert len(programs) == 1 and len(seen) > 1
