"""How glibc keeps the memory of a program, which it must be told before the program starts."""

import os
import sys
from glob import glob
from importlib.util import find_spec

# In huge pages; never given back, and the heap grows by large steps; in one arena, as others map
# and unmap each large block; so each thread of the compiler keeps some small blocks of its own.
MEMORY = (
    "hugetlb=1 mmap_max=0 trim_threshold=1099511627776 top_pad=134217728 "
    "arena_max=1 tcache_count=64"
)


def has_accelerator() -> bool:
    """Whether a GPU or TPU is there and may be used, by its devices: JAX must not start yet."""
    if os.environ.get("JAX_PLATFORMS", "").casefold() == "cpu":
        return False
    if not any(map(find_spec, ("jax_plugins", "libtpu"))):  # this JAX knows CPUs alone
        return False
    return any(map(glob, ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*")))


def keep_memory() -> None:
    """Start this program again with memory that is kept, which glibc only offers at start-up.

    Not for an accelerator, which the volumes lie on: its host compiles with many threads.

    Volumes are large and short-lived: on a CPU a sixth of a training step, and a third at the
    paper's size, goes into fetching the same pages again. A setting of the user's own stays.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ and not has_accelerator():
        tunables = (f"glibc.malloc.{setting}" for setting in MEMORY.split())
        os.environ["GLIBC_TUNABLES"] = ":".join(tunables)
        os.execv(sys.executable, sys.orig_argv)
