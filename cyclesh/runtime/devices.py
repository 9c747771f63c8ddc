"""How this program uses JAX: compiled programs kept, and training steps compiled for memory."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.stages import Compiled

from cyclesh.cores import available_cores
from cyclesh.errors import UserError
from cyclesh.runtime.heap import tidy_heap

ONE_FLAG = "xla_force_host_platform_device_count"
PATIENCE_S = 10**6
MOST_LOADERS = 8  # threads of a process; each holds a batch
CORES = 2  # of a CPU, as devices: one for the volumes of each domain (`homes`)


def set_up_training(folder: Path) -> None:
    """JAX as whatever may train uses it, judges included: all that follows here."""
    use_compilation_cache(folder)
    use_cores()
    run_inline()
    require_devices()


def use_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in ``folder``, shared by all runs, jobs and tests.

    Entries are named by program, platform and compiler version. JAX writes them in place and never
    again: one that a kill or a full disk cut short costs a warning and its compilation each time.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def use_cores() -> None:
    """Let a CPU of several cores be two devices; to be called before any program has run.

    A convolution runs on one core, and XLA hands what it could run beside it to another core only
    where more than eight operations are ready. Two devices are two programs, each with a core.
    What the user said of the number of devices holds, and processes that train together have one.
    """
    several = available_cores() > 1
    unsaid = jax.config.jax_num_cpu_devices < 1 and ONE_FLAG not in os.environ.get("XLA_FLAGS", "")
    if several and unsaid and not jax.distributed.is_initialized():
        with suppress(RuntimeError):  # programs have run, and it stays as it is
            jax.config.update("jax_num_cpu_devices", CORES)


def require_devices() -> None:
    """Raises UserError where JAX_PLATFORMS names what JAX cannot use here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):  # by platform
        if not (named := os.environ.get("JAX_PLATFORMS")):
            raise
        raise UserError(
            f"JAX_PLATFORMS={named}: JAX has no such device here; unset it, or install a JAX for it"
        ) from None


def cores_are_devices() -> bool:
    """Whether this machine's CPU is two devices, as `use_cores` makes it."""
    return jax.config.jax_num_cpu_devices == CORES and jax.default_backend() == "cpu"


def loader_threads() -> int:
    """How many threads are to load volumes: one on a CPU; idle cores where there is an accelerator.

    A core resamples some 15 volumes of the paper's size a second, so one would not keep up with an
    accelerator; a CPU's cores are all wanted for the step.
    """
    if jax.default_backend() == "cpu":
        return 1
    return max(1, min(MOST_LOADERS, available_cores() - 1))


def run_inline() -> None:
    """Have a CPU's programs run by the thread that calls them; to be called before any has run.

    By default JAX hands them to a thread of its own, and a training step begins, and takes its
    memory, before the one before it has given its own back. Accelerators are not concerned.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # no variable of the environment is


@contextmanager
def no_compilation_cache() -> Iterator[None]:
    """Whatever is compiled meanwhile is compiled anew, and not kept."""

    def switch(on: bool) -> None:
        jax.config.update("jax_enable_compilation_cache", on)
        compilation_cache.reset_cache()  # else JAX goes by what it found at its first program

    before = jax.config.jax_enable_compilation_cache
    switch(False)
    try:
        yield
    finally:
        switch(before)


def jit_step(step: Callable, save_memory: bool = False, **shardings) -> Callable:
    """A training step, (state, ...) -> (state, ...), to compile: old state's buffers serve the new.

    XLA's convolutions for CPUs run on one core each; by default it starts whatever it can at once,
    which keeps all cores busy and the volumes of all three updates alive. With ``save_memory`` it
    orders operations for memory instead. Accelerators always do.

    XLA compiles for CPUs as thoroughly as LLVM can; one level less takes four fifths of the time,
    and the step is as fast.
    """
    options = {}
    if jax.default_backend() == "cpu":
        options["xla_backend_optimization_level"] = 2
        if save_memory:
            options["xla_cpu_scheduler_type"] = "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
        if shardings:
            # By default devices that wait 40 s for another kill the process: as after a laptop's
            # sleep, or under a debugger.
            options["xla_cpu_collective_call_terminate_timeout_seconds"] = PATIENCE_S
    return jax.jit(step, donate_argnums=0, compiler_options=options, **shardings)


def tidy_up(step: Compiled) -> None:
    """Make memory ready for a step, where the compiler had the same; its state is there by now."""
    if jax.default_backend() == "cpu":
        block_bytes = step.memory_analysis().temp_size_in_bytes
        tidy_heap(block_bytes, blocks=jax.local_device_count())
