"""The figures of --mode=bench: what they count, and that they are of the config that was asked."""

import importlib.util
import json
import math
import sys

import jax
import numpy as np
import pytest

from configs import default
from cyclesh import bench
from cyclesh.domains import DOMAINS
from cyclesh.errors import UserError
from tests.tiny_runs import tiny_config

KEYS = {
    *("step_s", "gflop", "gflops", "gemm_gflops", "peak_memory_gb", "compile_s", "batch"),
    *("dtype", "shape", "filters", "device", "devices"),
}


def a_batch(config):
    return next(bench.make_workload(config).run.batches(0))


@pytest.mark.parametrize("method", ["baseline", "joint"])
def test_figures_are_of_the_config(method, monkeypatch):
    if method == "joint":  # what is timed beside its step is traced, not compiled

        def traced(part, *args, steps):
            assert jax.eval_shape(part, *args) and steps
            return 1.0

        monkeypatch.setattr(bench, "timed", traced)
    config = tiny_config(method)
    config.steps, config.batch = 2, 2
    told = json.loads(json.dumps(bench.bench(config, tell=lambda _: None)))
    assert jax.config.jax_enable_compilation_cache  # on again: what comes next may keep programs
    assert told.keys() >= KEYS
    assert (told["batch"], told["shape"], told["filters"]) == (2, [8, 8, 8], 2)
    assert (told["dtype"], told["method"], told["steps"]) == ("float32", method, 2)
    assert set(told["parts_s"]) == set(config.moves)
    assert set(told["pass_s"]) == {"baseline": {"seg"}, "joint": {"gen", "seg"}}[method]
    assert all(seconds > 0 for seconds in told["pass_s"].values())
    assert math.isclose(told["gflops"] * told["step_s"], told["gflop"], rel_tol=1e-9)
    assert all(told[key] > 0 for key in ("step_s", "gemm_gflops", "peak_memory_gb", "compile_s"))


def test_arithmetic_is_the_plain_step_s_whatever_the_lowering():
    config = tiny_config("joint")
    counted = []
    for config.compute.lowering in ("plain", "native", "folded"):
        counted.append(bench.plain_gflop(config))
    assert counted[0] == counted[1] == counted[2] > 0


def test_arithmetic_by_hand():
    # One step of `baseline` is 3 passes' worth of multiply-adds (forward, input and weight
    # gradients) over two domains; a first layer has no input gradient. Convolutions are
    # nearly all of it.
    config = default.build("filters=8", "baseline")
    f, classes = 8, 1 + len(config.data.structures)
    layers = [(1, f, 0), (f, f, 0)]
    for level in (1, 2, 3):
        layers += [(f << level - 1, f << level, level), (f << level, f << level, level)]
    for level in (2, 1, 0):
        layers += [(f << level + 1, f << level, level)] * 2 + [(f << level, f << level, level)]

    def macs(inputs, outputs, level):
        grid = [size >> level for size in config.data.shape]
        # XLA does not count what meets the padding: 2 of an axis's 3 * size taps.
        return inputs * outputs * math.prod(3 * size - 2 for size in grid)

    voxels = math.prod(config.data.shape)
    one_pass = sum(macs(*layer) for layer in layers) + f * classes * voxels
    expected = 2 * 2 * (3 * one_pass - macs(1, f, 0)) / 1e9
    counted = bench.plain_gflop(config)
    assert 0.97 * expected < counted < 1.03 * expected


def test_devices_of_the_config_share_the_step():
    config = tiny_config("baseline")
    config.steps, config.batch = 1, 2
    config.compute.data_devices = config.compute.depth_devices = 2
    told = bench.bench(config, tell=lambda _: None)
    assert told["devices"] == 4
    assert told["parts_s"].keys() == told["pass_s"].keys() == {"seg"}
    work = bench.make_workload(config)
    batch = next(work.run.batches(0))
    for array in jax.tree.leaves([batch["real"], batch["source"]]):
        assert array.addressable_shards[0].data.shape[:2] == (1, 4)
    assert len(batch["seed"].addressable_shards) == 4
    program = work.jit_step().lower(work.state_shapes, batch).as_text()
    assert "num_partitions = 4" in program and "collective_permute" in program
    alone = config.copy_and_resolve_references()
    alone.compute.data_devices = alone.compute.depth_devices = 1
    assert bench.plain_gflop(alone) == told["gflop"]


def test_devices_that_are_not_there_are_refused():
    config = tiny_config("joint")
    config.compute.depth_devices = 8
    with pytest.raises(UserError, match="depth_devices is 8; there are 4 cpu devices"):
        bench.bench(config)


def test_the_loader_gives_what_training_reads():
    config = tiny_config("joint")
    config.batch = 3
    work = bench.make_workload(config)
    assert work.phase.name == "joint"
    batch = a_batch(config)
    for d in DOMAINS:
        image, label = batch["source"][d]
        assert image.shape == (3, 8, 8, 8, 1) and label.shape == (3, 8, 8, 8)
        assert label.max() < work.description.classes


def test_a_frozen_translation_is_a_part_of_its_own():
    work = bench.make_workload(tiny_config("ada"))
    parts = bench.make_parts(work)
    assert parts.keys() == {"seg", "translate"}
    batch = a_batch(work.config)
    made = jax.eval_shape(parts["translate"], work.state_shapes, batch)
    shapes = {leaf.shape for leaf in jax.tree.leaves(made)}
    assert shapes == {batch["source"]["A"][0].shape} and len(jax.tree.leaves(made)) == 4
    assert bench.make_parts(bench.make_workload(tiny_config("joint"))).keys() == {
        "gen", "disc", "seg",
    }  # fmt: skip


def test_parts_move_their_player_only_as_the_step_does():
    work = bench.make_workload(tiny_config("joint"))
    batch = a_batch(work.config)
    for name, part in bench.make_parts(work).items():
        params, _ = jax.jit(part)(work.state, batch)
        before = getattr(work.state.params, name)
        assert jax.tree.structure(params) == jax.tree.structure(before)
        changed = [
            not np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(before), strict=True)
        ]
        assert any(changed)


def test_warm_up_is_not_counted():
    calls = []

    def step(state, batch):
        calls.append(batch)
        return state, {}

    _, seconds = bench.run_steps(step, jax.numpy.zeros(1), bench.repeat({"a": 1}), 3)
    assert len(calls) == 5 and len(seconds["step"]) == len(seconds["wait"]) == 3


def load_race():
    spec = importlib.util.spec_from_file_location("race", "launch/race.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_race_compares_by_turns(monkeypatch):
    module = load_race()
    answers = iter([1.0, 4.0, 2.0, 8.0, 1.0, 3.0])
    monkeypatch.setattr(module, "measure", lambda _: {"step_s": next(answers)})
    told = module.race(["ours"], ["theirs"], 3)
    assert told == {"ours_s": 1.0, "against_s": 4.0, "times_faster": 4.0, "rounds": 3}


def test_race_reads_the_last_line():
    module = load_race()
    code = "print('warm'); print('{\"step_s\": 0.25, \"x\": 1}')"
    assert module.measure([sys.executable, "-c", code])["step_s"] == 0.25
    with pytest.raises(SystemExit, match="no JSON with step_s"):
        module.measure([sys.executable, "-c", "print('fast')"])


def test_without_a_cpu_nothing_is_counted(monkeypatch):
    def no_cpu(platform=None):
        raise RuntimeError(f"Unknown backend {platform}")

    monkeypatch.setattr(bench.jax, "devices", no_cpu)
    assert bench.plain_gflop(tiny_config("baseline")) is None
