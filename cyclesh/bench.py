"""Time and memory of one training step, and where the time goes: `--mode=bench`.

Volumes are random, so no data are needed; the step, the loader and the compiler are the real ones.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from cyclesh import settings, state
from cyclesh.compiling import jit_phase, pure_step
from cyclesh.data.augment import Augment
from cyclesh.data.description import Description, description_of
from cyclesh.data.locate import foresee
from cyclesh.data.pipeline import Loader, Subset
from cyclesh.domains import DOMAINS, Made, per_domain
from cyclesh.halo import HOME
from cyclesh.home_devices import (
    homes_of,
    kept_state,
    over_homes,
    working_shapes,
    working_state,
)
from cyclesh.run import Run
from cyclesh.runtime import sharding
from cyclesh.runtime.devices import (
    no_compilation_cache,
    run_inline,
    tidy_up,
    use_cores,
)
from cyclesh.runtime.memory import peak_memory_bytes
from cyclesh.runtime.sharding import depth_mesh
from cyclesh.state import Phase, TrainState
from cyclesh.step import (
    applied,
    batch_shapes,
    discriminator_loss,
    generator_loss,
    make_weights,
    networks_at,
    segmentor_loss,
    translate,
    update,
    volumes_at,
)

STEPS = 10  # timed, unless the config says how many


@dataclass(frozen=True)
class Workload:
    """The step of a phase of a run on volumes of noise, with a state to begin with."""

    run: Run
    phase: Phase

    @property
    def config(self) -> ConfigDict:
        return self.run.config

    @property
    def description(self) -> Description:
        return self.run.store.description

    @property
    def devices(self) -> int:
        """How many take the step together."""
        return 1 if self.run.mesh is None else self.run.mesh.size

    @cached_property
    def state(self) -> TrainState:
        """A fresh state, made when it is first asked for: counting and compiling need no arrays."""
        new = self.run.new_state(jax.random.key(self.config.seed))
        return working_state(jax.device_put(new, self.run.state_shardings()), self.run.mesh)

    @property
    def state_shapes(self) -> TrainState:
        """The same as shapes."""
        return working_shapes(self.run.state_shapes, self.run.mesh)

    def jit_step(self) -> Callable:
        """The step as training compiles it."""
        return jit_phase(self.run, self.phase)


class RandomStore:
    """Volumes of noise in place of a store: what the loader asks of one, and no more."""

    def __init__(self, description: Description):
        rng = np.random.default_rng(0)
        self.description = description
        shape = description.shape
        self._image = rng.uniform(-1, 1, shape).astype(np.float32)
        self._label = rng.integers(0, description.classes, shape).astype(np.uint8)

    def image(self, _) -> np.ndarray:
        return self._image

    def label(self, _) -> np.ndarray:
        return self._label


def make_workload(config: ConfigDict, description: Description | None = None) -> Workload:
    """Networks and a loader for a config, on random volumes of the data's shape and classes.

    description: of the data; None: asked of `data.path` or, where that is empty, the config.
    Raises UserError for a config that cannot work.
    """
    settings.validate(config)
    if description is None:
        data = config.data
        description = foresee(config)[1] if data.path else description_of(data)
    store, volumes = RandomStore(description), per_domain(lambda _: tuple(range(8)))
    augment = Augment(**config.augment.to_dict())
    phases = state.make_phases(config)
    run = Run(
        config=config,
        workdir=Path(),
        store=store,
        loader=Loader(store, Subset(volumes, volumes), augment, config.batch, config.seed),
        make_nets=partial(state.make_networks, config, description.classes),
        optimisers=state.make_optimisers(config, epoch_steps=1),
        phases=phases,
        epoch_steps=1,
        generation=0,
    )
    return Workload(run, phases[-1])


def bench(config: ConfigDict, tell: Callable[[str], None] = print) -> dict:
    """Measure a config's training step; ``tell`` receives lines on the way.

    Returns the figures of `--mode=bench`: step_s is the median over ``config.steps`` steps (10 if
    not set) after two that warm up; gflop counts the plain step, whatever the lowering saves (null
    where JAX has no CPU); compile_s is without the persistent cache; parts_s says where the time
    goes (each update alone, and ``translate`` where G stands still; their sum may differ from the
    step's); pass_s is one volume through a trained network, a translation and a segmentation;
    data_wait_s is what a step waits for its volumes.
    """
    use_cores()
    run_inline()
    work = make_workload(config)
    batch = jax.device_put(next(work.run.batches(0)))
    gflop = plain_gflop(config)
    counted = "" if gflop is None else f": {gflop:.1f} GFLOP a step"
    tell(f"{describe(work)}{counted}; compiling")
    begin = time.perf_counter()
    with no_compilation_cache():
        step = work.jit_step().lower(work.state_shapes, batch).compile()
    compile_s = time.perf_counter() - begin
    steps, current = config.steps or STEPS, jax.block_until_ready(work.state)
    tidy_up(step)
    current, seconds = run_steps(step, current, repeat(batch), steps)
    step_s = float(np.median(seconds["step"]))
    peak_gb = peak_memory_bytes() / 1e9
    current, fed = run_steps(step, current, work.run.batches(0), steps)
    tell(f"step {step_s:.3f} s, compiled in {compile_s:.1f} s; now its parts")
    parts = {
        name: timed(part, current, batch, steps=steps) for name, part in make_parts(work).items()
    }
    passes = {
        name: timed(network, tree, volume, steps=steps)
        for name, (network, tree, volume) in make_passes(work, current, batch).items()
    }
    shape = work.description.shape
    return {
        "step_s": step_s,
        "gflop": gflop,
        "gflops": None if gflop is None else gflop / step_s,
        "gemm_gflops": gemm_gflops(),
        "peak_memory_gb": peak_gb,
        "compile_s": compile_s,
        "batch": config.batch,
        "dtype": config.compute.dtype,
        "shape": list(shape),
        "filters": config.model.filters,
        "device": jax.devices()[0].device_kind,
        "devices": work.devices,
        "method": config.method,
        "lowering": work.run.nets.seg.conv(1).lowering,
        "parts_s": parts,
        "pass_s": passes,
        "data_wait_s": float(np.median(fed["wait"])),
        "voxel_us": step_s / (config.batch * np.prod(shape)) * 1e6,
        "steps": steps,
    }


def describe(work: Workload) -> str:
    """One step in words."""
    size = "x".join(map(str, (work.config.batch, *work.description.shape)))
    together = f", {work.devices} devices" if work.devices > 1 else ""
    return f"{work.phase.name} at {size}, {work.config.model.filters} filters{together}"


def plain_gflop(config: ConfigDict) -> float | None:
    """Arithmetic of the step with one lax 3D convolution a layer, by XLA's own count for a CPU.

    None where JAX has no CPU: plugins for accelerators do not count.
    """
    plain = config.copy_and_resolve_references()
    plain.compute.lowering, plain.compute.remat = "plain", False
    for axis in ("data", "home", "depth"):
        plain.compute[f"{axis}_devices"] = 1
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError:
        return None
    with jax.default_device(cpu):
        work = make_workload(plain)
        shapes = batch_shapes(plain.batch, work.description.shape)
        run = work.run
        step = pure_step(plain, run.nets, run.optimisers, work.phase, None)
        counted = jax.jit(step).lower(work.state_shapes, shapes).cost_analysis()
    return counted["flops"] / 1e9


def repeat(batch: dict) -> Iterator[dict]:
    while True:
        yield batch


def run_steps(step: Callable, current: TrainState, batches: Iterator[dict], count: int) -> tuple:
    """Two steps to warm up and ``count`` timed: the state, and seconds of steps and of waiting."""
    seconds = {"step": [], "wait": []}
    for _ in range(count + 2):
        begin = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter()
        current, _ = step(current, batch)
        jax.block_until_ready(current)
        seconds["wait"].append(waited - begin)
        seconds["step"].append(time.perf_counter() - waited)
    return current, {name: values[2:] for name, values in seconds.items()}


def make_parts(work: Workload) -> dict[str, Callable]:
    """Each player's update of the step by itself, as functions of (state, batch) to time.

    And the translation that S reads, where no update of G makes it.
    """
    mesh = work.run.mesh
    nets = work.run.make_nets(depth_mesh(mesh))
    apply, homes = applied(nets), homes_of(mesh)
    weights, phase = make_weights(work.config), work.phase

    def part(name: str, loss: Callable, arguments: Callable) -> Callable:
        def run(current: TrainState, batch: dict):
            nets, opt = networks_at(homes, current.params), getattr(current.opt, name)
            args = arguments(nets, volumes_at(homes, batch["source"]))
            return update(
                loss, getattr(work.run.optimisers, name), getattr(nets, name), opt, homes, *args
            )[:2]

        return over_homes(run, mesh, out=(P(HOME), P(HOME)))

    def stand_ins(source: dict) -> dict[str, Made]:
        # Volumes of the right shapes for free: D and S take as long over any others.
        return {home: Made(image, image) for home, (image, _) in source.items()}

    def fakes(source: dict) -> dict:
        return {home: made.fake for home, made in stand_ins(source).items()}

    def translation(current: TrainState, batch: dict) -> tuple[dict]:
        gen = networks_at(homes, current.params).gen
        return (translate(apply.gen, gen, volumes_at(homes, batch["source"])),)

    parts = {
        "gen": part(
            "gen",
            generator_loss,
            lambda nets, source: (nets.disc, nets.seg, apply, source, weights, phase.shape_weight),
        ),
        "disc": part(
            "disc",
            discriminator_loss,
            lambda _, source: (apply, source, fakes(source), weights),
        ),
        "seg": part(
            "seg",
            segmentor_loss,
            lambda _, source: (apply, source, source, stand_ins(source), phase.seg_reads),
        ),
    }
    used = {name: parts[name] for name in phase.moves}
    if phase.reads_translations and "gen" not in phase.moves:
        used["translate"] = over_homes(translation, mesh, out=(P(HOME),))
    return used


def make_passes(work: Workload, current: TrainState, batch: dict) -> dict[str, tuple]:
    """What a trained generator and segmentor do with one volume: function and arguments to time.

    On one device, as `translate` and `segment` do.
    """
    domain = DOMAINS[0]
    volume = jax.device_put(jax.device_get(batch["real"][domain][0])[:1])
    apply = applied(work.run.nets)
    params = kept_state(current, work.run.mesh).params
    trained = {name: getattr(params, name) for name in ("gen", "seg")}
    return {
        name: (getattr(apply, name), sharding.on_one_device(trees[domain]), volume)
        for name, trees in trained.items()
        if trees
    }


def timed(part: Callable, *args, steps: int) -> float:
    """Median seconds of ``part(*args)`` compiled, over ``steps`` calls."""
    compiled = jax.jit(part).lower(*args).compile()
    seconds = []
    for _ in range(steps + 2):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[2:]))


def gemm_gflops() -> float:
    """The best rate of a float32 matrix product, as wide as suits the device: what it can do."""

    def rate(size: int) -> float:
        matrix = jax.random.normal(jax.random.key(0), (size, size))
        return 2e-9 * size**3 / timed(jnp.matmul, matrix, matrix, steps=10)

    return max(map(rate, (1024, 2048) if jax.default_backend() == "cpu" else (2048, 8192)))
