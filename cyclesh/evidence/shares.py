"""Shares of a machine, so that several processes train at once and none takes from another."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import jax

from cyclesh.cores import available_cores
from cyclesh.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Share:
    """What a process has of the machine: numbers of its cores or of its GPUs; neither: all."""

    cores: tuple[int, ...] = ()
    gpus: tuple[str, ...] = ()

    @contextmanager
    def confined(self) -> Iterator[None]:
        """Processes that are started meanwhile, by this thread, have the share alone."""
        cores = os.sched_getaffinity(0) if self.cores else ()
        seen = os.environ.get(VISIBLE)
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        if self.gpus:
            os.environ[VISIBLE] = ",".join(self.gpus)
        try:
            yield
        finally:
            if self.cores:
                os.sched_setaffinity(0, cores)
            if self.gpus and seen is None:
                del os.environ[VISIBLE]
            elif self.gpus:
                os.environ[VISIBLE] = seen


def divide(jobs: int) -> list[Share]:
    """The machine in as many shares: of its GPUs where it has some, else of its cores.

    Raises: UserError where there are more jobs than these, or a TPU, which one process holds.
    """
    if jobs == 1:
        return [Share()]
    platform, count = in_fresh_process(_devices)
    if platform == "tpu":
        raise UserError(f"--jobs={jobs}: a process holds the whole TPU; leave it out")
    if platform == "gpu":
        seen = os.environ.get(VISIBLE, "")
        numbers = seen.split(",") if seen else [str(number) for number in range(count)]
        return [Share(gpus=part) for part in _parts(numbers, jobs, "GPUs")]
    if not hasattr(os, "sched_getaffinity"):  # no core is anyone's own, as on macOS
        _parts(range(available_cores()), jobs, "cores")
        return [Share()] * jobs
    cores = sorted(os.sched_getaffinity(0), key=_place)
    return [Share(cores=part) for part in _parts(cores, jobs, "cores")]


def _place(core: int) -> tuple[int, int, int]:
    """Sorts what Linux calls cores so that the threads of one physical core are neighbours."""
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    files = (folder / name for name in ("physical_package_id", "core_id"))
    try:
        package, physical = (int(file.read_text()) for file in files)
    except (OSError, ValueError):
        return 0, core, core
    return package, physical, core


def _devices() -> tuple[str, int]:
    return jax.default_backend(), jax.local_device_count()


def _parts(items: Sequence, jobs: int, what: str) -> list[tuple]:
    """As equal as they can be, neighbours together."""
    if jobs > len(items):
        raise UserError(f"--jobs={jobs}: this machine has {len(items)} {what}; give at most that")
    bounds = [len(items) * i // jobs for i in range(jobs + 1)]
    return [tuple(items[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]


def in_fresh_process(function: Callable, *args):
    """Call it in a process of its own: this one never holds a device that trials need."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()
