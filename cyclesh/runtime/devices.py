"""How this program uses JAX: compiled programs kept, and training steps compiled for memory."""

from collections.abc import Callable
from pathlib import Path

import jax


def use_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in ``folder``, shared by all runs, jobs and tests.

    Entries are named by program, platform and compiler version, and written atomically by JAX.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


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
