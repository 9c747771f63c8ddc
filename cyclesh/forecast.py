"""What a training step will need, told before it is run: `--dry_run` of train and bench."""

import math
from dataclasses import replace
from pathlib import Path

import jax
from jax.stages import Lowered
from ml_collections import ConfigDict

from cyclesh import networks, settings
from cyclesh.bench import Workload, describe, make_workload
from cyclesh.claims import check_data, check_workdir
from cyclesh.compiling import knobs
from cyclesh.data.locate import foresee, list_volumes
from cyclesh.data.store import Store
from cyclesh.parents import check_init, check_parents, check_taught
from cyclesh.run import (
    build_run,
    check_held_out,
    subset_of,
)
from cyclesh.runtime.devices import use_cores
from cyclesh.runtime.memory import (
    free_memory_bytes,
    held_bytes,
    is_too_large,
    peak_memory_bytes,
)
from cyclesh.state import Players, count_parameters, make_phases, players_in_use, steps_in
from cyclesh.step import batch_shapes
from cyclesh.workdir import CONFIG

# What a process on CPUs holds more once it runs its programs (those that make the state, threads):
# 0.3 GB where it was measured, at 32x40x40 and 48x64x64.
RUNNING_BYTES = 300 * 2**20


def preview(config: ConfigDict, workdir: str | Path) -> str:
    """What `train` would do with a config in a workdir, as lines to read. Makes nothing.

    Raises: UserError where `train` would, as far as that can be told without the volumes.
    """
    workdir = Path(workdir)
    settings.validate(config)
    check_taught(config)
    check_workdir(config, workdir)
    data, description = foresee(config)
    listed = list_volumes(config)
    check_held_out(listed)
    one_pass = subset_of(config, listed).epoch_steps(config.batch)
    epoch = config.schedule.epoch_steps or one_pass
    if isinstance(listed, Store):
        run = build_run(config, workdir, listed)
        check_data(run)
        check_parents(config, workdir, listed, run.loader.subset)
    begun = "go on with" if (workdir / CONFIG).exists() else "begin"
    phases = ", ".join(f"{p.name} {p.epochs} epochs" for p in make_phases(config))
    phases += f"; {epoch} steps an epoch, {steps_in(config, epoch)} in all"
    cap = f", at most {config.steps}" if config.steps else ""
    use_cores()  # before anything asks which devices there are
    work = make_workload(config, description)
    check_init(config, workdir, work.run.state_shapes.params)
    # Where generators move in pre-training alone, that step is the largest.
    heaviest = max(make_phases(config), key=lambda phase: ("gen" in phase.moves, phase.work))
    told = forecast_of(replace(work, phase=heaviest))
    return f"would {begun} {workdir}: {phases}{cap}\ndata: {data}\n{to_text(told)}"


def forecast(config: ConfigDict) -> dict:
    """Parameters, activations and memory of a config's training step; compiles it, runs nothing.

    Returns: parameters (both domains') and activations_gb (one volume through one network) by
      player; devices; memory_gb, the most that the step will hold on each of them (of CPUs, whose
      memory is one: on all), by the compiler's own plan (None where it has none: too much);
      free_gb of the first; fits; and ``less``,
      the fields to turn where it does not, in order.
    """
    use_cores()
    return forecast_of(make_workload(config))


def forecast_of(work: Workload) -> dict:
    """`forecast`, of a workload."""
    config = work.config
    batch = batch_shapes(config.batch, work.description.shape)
    shapes = work.state_shapes
    memory, free = needed_bytes(work, work.jit_step().lower(shapes, batch)), free_memory_bytes()
    fits = memory is not None and memory < free
    used = players_in_use(config)
    return {
        "step": describe(work),
        "parameters": {n: count_parameters(getattr(shapes.params, n)) for n in used},
        "activations_gb": {n: activation_bytes(work, n) / 1e9 for n in used},
        "devices": work.devices,
        "memory_gb": None if memory is None else memory / 1e9,
        "free_gb": free / 1e9,
        "fits": fits,
        "less": [] if fits else knobs(config),
    }


def needed_bytes(work: Workload, step: Lowered) -> int | None:
    """The most that a step will hold on a device; None where the compiler says it is too much."""
    try:
        held = device_bytes(step.compile().memory_analysis())
    except jax.errors.JaxRuntimeError as error:  # as a TPU's does
        if not is_too_large(error):
            raise
        return None
    if jax.default_backend() != "cpu":
        return held
    # The step's arrays lie beside the program and its libraries; what the compiler took is given
    # back before the first step.
    beside = held_bytes() + RUNNING_BYTES
    return max(peak_memory_bytes(), beside + work.devices * held)


def device_bytes(plan) -> int:
    """What a program holds on each device at the most, by the compiler's `memory_analysis`."""
    return (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes
        - plan.alias_size_in_bytes
    )


def activation_bytes(work: Workload, name: str) -> int:
    """All that the layers of one network put out for a batch of one domain's volumes."""
    net = getattr(work.run.nets, name)
    volume = jax.ShapeDtypeStruct((work.config.batch, *work.description.shape, 1), "float32")
    _, aside = jax.eval_shape(
        lambda params, volume: net.apply({"params": params}, volume, capture_intermediates=True),
        networks.parameter_shapes(net),
        volume,
    )
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(aside))


def to_text(told: dict) -> str:
    """The forecast as lines to read."""
    lines = [told["step"]]
    for name, kind in zip(
        Players._fields, ("generators", "discriminators", "segmentors"), strict=True
    ):
        if name in told["parameters"]:
            lines.append(
                f"  {kind:15} {told['parameters'][name] / 1e6:8.2f} M parameters"
                f"  {told['activations_gb'][name]:7.2f} GB of activations a pass"
            )
    verdict = "fits" if told["fits"] else "does not fit; turn " + ", then ".join(told["less"])
    needed = "" if told["memory_gb"] is None else f"{told['memory_gb']:.1f} GB of "
    lines.append(f"  memory {needed}{told['free_gb']:.1f} GB free: {verdict}")
    return "\n".join(lines)
