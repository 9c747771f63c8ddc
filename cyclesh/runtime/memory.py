"""How much memory a computation may take."""

import os
import resource
import sys
from pathlib import Path

import jax

from cyclesh.runtime.heap import give_back

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container or a cluster's job
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


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
    give_back()
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
