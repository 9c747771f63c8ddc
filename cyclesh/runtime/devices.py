"""How this program uses JAX: compiled programs kept, and training steps compiled for memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.stages import Compiled

from cyclesh.runtime import memory


def set_up_training(folder: Path) -> None:
    """JAX as whatever may train uses it, judges included: `use_compilation_cache`, `run_inline`."""
    use_compilation_cache(folder)
    run_inline()


def use_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in ``folder``, shared by all runs, jobs and tests.

    Entries are named by program, platform and compiler version. JAX writes them in place and never
    again: one that a kill or a full disk cut short costs a warning and its compilation each time.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


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
    """
    options = None
    if save_memory and jax.default_backend() == "cpu":
        options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return jax.jit(step, donate_argnums=0, compiler_options=options, **shardings)


def compile_step(step: Callable, *args) -> Compiled:
    """Compile what `jit_step` made for such arguments, and tidy up behind the compiler."""
    compiled = step.lower(*args).compile()
    tidy_up()
    return compiled


def tidy_up() -> None:
    """Make memory ready for the runs of what was compiled, where the compiler had the same."""
    if jax.default_backend() == "cpu":
        memory.tidy_heap()
