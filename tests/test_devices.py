"""How steps are compiled: in place, and for memory where that is asked for."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import ROOT
from processes import virtual_devices
from tiny_runs import tiny_config

from configs import default
from cyclesh import bench
from cyclesh.compiling import pure_step
from cyclesh.errors import UserError
from cyclesh.runtime.devices import (
    jit_step,
    loader_threads,
    no_compilation_cache,
    require_devices,
)


@pytest.mark.parametrize("error", [RuntimeError("no cuda"), AssertionError()])
def test_a_platform_that_is_not_there_is_refused(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match="JAX_PLATFORMS=cuda: JAX has no such device here"):
        require_devices()
    monkeypatch.delenv("JAX_PLATFORMS")  # then it is nobody's mistake
    with pytest.raises(type(error)):
        require_devices()


def test_the_old_state_makes_room_for_the_new():
    step = jit_step(lambda state, x: (state + x, x.sum()))
    state = jnp.zeros(1000)
    new, _ = step(state, jnp.ones(1000))
    assert state.is_deleted() and float(new.sum()) == 1000


def test_compiled_programs_are_kept_but_where_that_is_off(tmp_path):
    kept = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in kept}
    try:
        for name, value in kept.items():
            jax.config.update(name, value)
        with no_compilation_cache():
            jax.jit(lambda x: jnp.sin(x) * 3)(1.0)
            assert list(tmp_path.iterdir()) == []
        jax.jit(lambda x: jnp.sin(x) * 5)(1.0)
        assert list(tmp_path.iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        with no_compilation_cache():  # JAX leaves the folder
            pass


def test_the_joint_step_is_in_place():
    work = bench.make_workload(tiny_config("joint"))
    batch = next(work.run.batches(0))
    step = work.jit_step().lower(work.state_shapes, batch).compile()
    old = work.state
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(old))
    assert step.memory_analysis().alias_size_in_bytes >= size
    jax.block_until_ready(step(old, batch))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))


PROGRAM = """
import sys
import jax, jax.numpy as jnp
from cyclesh.runtime.devices import use_compilation_cache
use_compilation_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(float(jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((3, 3))).sum()))
"""


def test_programs_of_a_cpu_run_inline():
    program = """
import jax, jax.numpy as jnp
from cyclesh.runtime.devices import run_inline
run_inline()
product = jax.jit(lambda x: x @ x @ x @ x)
x = jnp.ones((1000, 1000))
print(all(product(x).is_ready() for _ in range(5)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


CORES = """
import os, sys
import jax
from cyclesh.runtime.devices import cores_are_devices, use_cores
if sys.argv[1] == "one core":
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
if sys.argv[1] == "too late":
    jax.devices()
use_cores()
print(jax.device_count(), cores_are_devices())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize(
    ("case", "expected"),
    [("several cores", "2 True"), ("one core", "1 False"), ("said", "3 False"),
     ("too late", "1 False")],
)  # fmt: skip
def test_a_cpu_of_several_cores_is_two_devices(case, expected):
    env = {**os.environ, **(virtual_devices(3) if case == "said" else {})}
    command = [sys.executable, "-c", CORES, case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_compiled_program_that_was_cut_short_costs_only_its_compilation(tmp_path, share):
    def run() -> float:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    expected = run()
    entries = [path for path in tmp_path.iterdir() if path.name.endswith("-cache")]
    assert entries and expected == pytest.approx(27 * np.sin(1), rel=1e-5)
    for path in entries:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert run() == expected


@pytest.mark.slow
def test_a_step_that_saves_memory_takes_less_and_does_the_same():
    config = default.build("shape=24x32x32,filters=4", "joint")
    usual = bench.make_workload(config.copy_and_resolve_references())
    config.compute.save_memory = True
    saving = bench.make_workload(config)
    batch = next(saving.run.batches(0))

    def compiled(step):
        return step.lower(saving.state_shapes, batch).compile()

    def memory(step) -> int:
        return step.memory_analysis().temp_size_in_bytes

    step = compiled(saving.jit_step())
    assert memory(step) < 0.8 * memory(compiled(usual.jit_step()))
    run = saving.run
    plain = pure_step(config, run.nets, run.optimisers, saving.phase, run.mesh)
    in_usual_order = compiled(jit_step(plain))
    states = (f(jax.tree.map(jnp.copy, saving.state), batch)[0] for f in (step, in_usual_order))
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("backend", "cores", "threads"), [("cpu", 64, 1), ("gpu", 64, 8), ("gpu", 4, 3), ("tpu", 1, 1)]
)
def test_volumes_are_loaded_by_what_an_accelerator_leaves_idle(
    monkeypatch, backend, cores, threads
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr("cyclesh.runtime.devices.available_cores", lambda: cores)
    assert loader_threads() == threads
