"""How glibc keeps the memory of a program: told before the program starts, tidied before it trains.

Nothing here needs JAX, which must not start before the program does.
"""

import ctypes
import os
import sys
from glob import glob
from importlib.util import find_spec

ONE_ARENA = "arena_max=1"
# In huge pages; never given back, and the heap grows by large steps; in one arena, as others map
# and unmap each large block; so each thread of the compiler keeps some small blocks of its own.
MEMORY = (
    "hugetlb=1 mmap_max=0 trim_threshold=1099511627776 top_pad=134217728 "
    f"{ONE_ARENA} tcache_count=64"
)
ROOM_BYTES = 256 * 2**20
FENCE_BYTES = 4096
SMALLEST_HOLE_BYTES = 2048


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


def tidy_heap(block_bytes: int, blocks: int = 1) -> None:
    """Make the heap ready for training steps, once the compiler has left it in pieces.

    1. What is free is given back: the compiler held nearly as much as a step will, in pieces, and
       the step's arrays are one block (for each device), which fits in none of them.
    2. The small pieces below are allocated and never freed: a step allocates ten thousand times,
       and would look through them each time.
    3. Places are kept: one for each block, and room for what is allocated while a step runs. By
       itself a block lies at the end of the heap, or where one lay before, if nothing came to lie
       close behind it meanwhile. One small thing does, and the place is a few bytes too short, for
       good. Glibc takes the smallest place that is large enough; so what is small goes to the
       room, which is smaller than what a block leaves of its place, and than a block. Untouched,
       none of these take memory. A place can still be lost: to what a validation allocates between
       steps, or to a thread that keeps its end (glibc's tcache); then a block takes new memory,
       once.

    Args:
      block_bytes: of a step's arrays on a device.
      blocks: devices of this process whose memory is the heap.
    """
    if (libc := _glibc()) is None:
        return
    for allocate in (libc.malloc, libc.sbrk):
        allocate.argtypes, allocate.restype = (ctypes.c_size_t,), ctypes.c_void_p
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.malloc_trim(0)
    if f"glibc.malloc.{ONE_ARENA}" in os.environ.get("GLIBC_TUNABLES", "").split(":"):
        _fill_holes(libc)  # else there are other heaps, and the pieces may be theirs
    room = min(block_bytes // 2, ROOM_BYTES)
    places = []
    for size in (room, *[block_bytes + 2 * room] * blocks):
        places.append(libc.malloc(size))
        libc.malloc(FENCE_BYTES)  # never freed: it keeps places apart
    for place in places:
        libc.free(place)


def give_back() -> None:
    """Return what is free to the system, where that can be asked of it."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None  # musl has none


def _fill_holes(libc: ctypes.CDLL) -> None:
    """Allocate what is free below the end of the heap, the largest pieces first."""
    end, size = libc.sbrk(0), ROOM_BYTES
    while size >= SMALLEST_HOLE_BYTES:
        block = libc.malloc(size)
        if block is None or block + size > end:  # no hole of this size is left
            libc.free(block)
            size //= 2
