"""What of JAX is set up before the first computation."""

from pathlib import Path

import jax


def use_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in ``folder``, shared by all runs, jobs and tests.

    Entries are named by program, platform and compiler version, and written atomically by JAX.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
