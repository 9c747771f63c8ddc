"""The steps of a run's phases, compiled when they are needed, and the first one before."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import jax
from jax.sharding import Mesh
from jax.stages import Compiled, Lowered
from ml_collections import ConfigDict

from cyclesh.errors import UserError
from cyclesh.home_devices import homes_of, over_homes, working_shapes, working_shardings
from cyclesh.run import Run
from cyclesh.runtime.devices import tidy_up
from cyclesh.runtime.memory import is_too_large
from cyclesh.runtime.sharding import depth_mesh, jit_spread
from cyclesh.state import Phase, Players, TrainState
from cyclesh.step import batch_shapes, make_step, make_weights


class Steps:
    """Each phase's step, (state, batch) -> (state, metrics), compiled once.

    Even a step that was compiled before takes seconds to load, on one core: a third of what passes
    before a run's first update. So the first one is compiled by a thread of its own, while judges,
    a fresh state and the first volumes are got ready. It is lowered by the caller: that is work for
    the interpreter, which in a thread would keep those waiting. Leave its `with` to end the thread.
    """

    def __init__(self, run: Run, first: Phase):
        """``first``: the phase whose step is needed next."""
        self._run = run
        self._made: dict[str, Compiled] = {}
        self._pool = ThreadPoolExecutor(1, "compile")
        self._ahead = {}
        if jax.process_count() == 1:  # several must compile all their programs in one order
            self._ahead[first.name] = self._pool.submit(lower_step(run, first).compile)

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown()

    def of(self, phase: Phase) -> Compiled:
        """The phase's step; the old state's buffers become the new one's."""
        if phase.name not in self._made:
            if ahead := self._ahead.pop(phase.name, None):
                self._made[phase.name] = ahead.result()
            else:
                self._made[phase.name] = lower_step(self._run, phase).compile()
            tidy_up(self._made[phase.name])
        return self._made[phase.name]


def lower_step(run: Run, phase: Phase) -> Lowered:
    """A phase's step for the run's state and batches, ready to be compiled."""
    batch = batch_shapes(run.config.batch, run.store.description.shape)
    return jit_phase(run, phase).lower(working_shapes(run.state_shapes, run.mesh), batch)


def jit_phase(run: Run, phase: Phase) -> Callable:
    """A phase's step over the run's devices, to be compiled."""
    config, nets = run.config, run.make_nets(depth_mesh(run.mesh))
    step = pure_step(config, nets, run.optimisers, phase, run.mesh)
    shapes = working_shapes(run.state_shapes, run.mesh)
    return jit_over(run.mesh, step, shapes, config.compute.save_memory)


def pure_step(
    config: ConfigDict, nets: Players, optimisers: Players, phase: Phase, mesh: Mesh | None
) -> Callable:
    """A config's step for the devices of ``mesh``, whose networks ``nets`` are; not compiled.

    As `make_step` has it, but for the seed, which comes with the batch: so runs that differ in
    nothing else share a compiled program.
    """
    skips = config.optim.skip_nonfinite > 0

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        of_seed = make_step(
            nets, optimisers, phase, make_weights(config), batch["seed"], skips, homes_of(mesh)
        )
        return of_seed(state, batch)

    return step


def jit_over(mesh: Mesh | None, step: Callable, shapes: TrainState, save_memory: bool) -> Callable:
    """`pure_step` to be compiled for a state of these `working_shapes`, spread over the mesh."""
    where = working_shardings(shapes, mesh)
    return jit_spread(over_homes(step, mesh), mesh, where, save_memory)


@contextmanager
def told_if_too_large(run: Run) -> Iterator[None]:
    """Raises UserError, with the fields to turn, where a device's memory does not hold a step."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_too_large(error):
            raise
        raise UserError(
            f"{run.workdir}: training does not fit into the memory of a device; turn "
            f"{', then '.join(knobs(run.config))}"
        ) from None


def knobs(config: ConfigDict) -> list[str]:
    """The fields that make a step smaller, the least harmful first."""
    found = []
    on_cpu = jax.default_backend() == "cpu"
    if config.batch > 1:
        found.append("batch=1")
    if on_cpu and not config.compute.save_memory:
        found.append("--config.compute.save_memory=True")
    if not (on_cpu or config.compute.remat):  # XLA's compiler for CPUs undoes it
        found.append("--config.compute.remat=True")
    if not on_cpu and config.model.generator == "unet":
        slabs = 2 * max(config.compute.depth_devices, 1)
        found.append(f"--config.compute.depth_devices={slabs} on {slabs} devices")
    if config.compute.dtype == "float32":
        found.append("--config.compute.dtype=bfloat16")
    if config.model.filters > 4:
        found.append(f"filters={config.model.filters // 2}")
    return [*found, "a smaller shape=ZxYxX"]
