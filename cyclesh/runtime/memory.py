"""How much memory a computation may take."""

import ctypes
import os
import resource
import sys
from pathlib import Path

import jax

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container or a cluster's job
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")

ROOM_BYTES = 256 * 2**20
FENCE_BYTES = 4096
SMALLEST_HOLE_BYTES = 2048
ONE_ARENA = "glibc.malloc.arena_max=1"


def tidy_heap(block_bytes: int, blocks: int = 1) -> None:
    """Make glibc's heap ready for training steps, once the compiler has left it in pieces.

    What is free is given back, as the compiler held nearly as much as a step will and the step's
    arrays are a block (one for each device), which fits in none of the pieces. What small pieces
    there are is taken for good: a step allocates ten thousand times, and would look through them
    each time.

    And places are kept: one for each block, and room for what is allocated while a step runs. By
    itself a block lies at the end of the heap, or where one lay before, if nothing came to lie
    close behind it meanwhile. One small thing does, and the place is a few bytes too short, for
    good. Glibc takes the smallest place that is large enough; so what is small goes to the room,
    which is smaller than what a block leaves of its place, and than a block. Untouched, none of
    these take memory. A place can still be lost: to what a validation allocates between steps, or
    to a thread that keeps its end (glibc's tcache); then a block takes new memory, once.

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
    if ONE_ARENA in os.environ.get("GLIBC_TUNABLES", "").split(":"):  # else there are other heaps
        _fill_holes(libc)
    room = min(block_bytes // 2, ROOM_BYTES)
    places = []
    for size in (room, *[block_bytes + 2 * room] * blocks):
        places.append(libc.malloc(size))
        libc.malloc(FENCE_BYTES)  # never freed: it keeps places apart
    for place in places:
        libc.free(place)


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


def is_too_large(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether memory was what XLA lacked, for a program or while it ran."""
    return "RESOURCE_EXHAUSTED" in str(error)


def free_memory_bytes() -> int:
    """Free memory of the first device, or of this machine where that is the device."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return min(_machine_bytes(), _job_bytes())


def _machine_bytes() -> int:
    if (available := _kilobytes(MEMINFO, "MemAvailable:")) is not None:
        return available * 1024
    # Elsewhere what is free is not told: half of what there is.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _job_bytes() -> float:
    try:
        return int(CGROUP_LIMIT.read_text()) - int(CGROUP_USED.read_text())
    except (OSError, ValueError):  # no such limit
        return float("inf")


def peak_memory_bytes() -> int:
    """The most that the first device held so far, or this process where the device is the CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or process_peak_bytes()


def held_bytes() -> int:
    """What this process holds, once what is free is given back; untold, the most that it held."""
    if libc := _glibc():
        libc.malloc_trim(0)
    if (held := _kilobytes(STATUS, "VmRSS:")) is not None:
        return held * 1024
    return process_peak_bytes()


def process_peak_bytes() -> int:
    """The most memory that this process held so far."""
    # ru_maxrss, unlike this line, counts what the process held that this one was forked from.
    if (peak := _kilobytes(STATUS, "VmHWM:")) is not None:
        return peak * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _kilobytes(table: Path, name: str) -> int | None:
    """A line of a table such as /proc/meminfo; None where there is none."""
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return None
