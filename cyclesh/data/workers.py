"""Work on many files at once, with progress."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from types import ModuleType
from typing import TypeVar

from tqdm import tqdm

from cyclesh.cores import available_cores
from cyclesh.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    title: str,
    processes: int | None = None,
    progress: bool = True,
) -> list[Result]:
    """[work(item) for item in items] over processes (default: one for each core).

    `work` must be picklable, and of a module other than the main one. The first error, in the
    items' order, is raised and the rest dropped.
    """
    processes = min(processes or available_cores(), len(items))
    return list(_shown(_results(work, items, processes), len(items), title, progress))


def _results(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[Result]:
    if processes <= 1:
        yield from map(work, items)
        return
    # spawn: the caller may hold threads (jax) that do not survive a fork.
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_follow_parent
    )
    try:
        with _no_main_module():
            results = pool.map(work, items)
        yield from results
    except BrokenProcessPool:
        raise UserError(
            f"one of {processes} worker processes was killed, probably for want of memory; run "
            f"again with fewer (--config.data.processes={max(processes // 2, 1)})"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Processes that start meanwhile do not import the caller's script.

    They need nothing of it, and one without a main guard would be run anew by each of them.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _follow_parent() -> None:
    """Leaves Ctrl-C to the parent, and ends with it when it is killed.

    Workers wait on a pipe that they hold open themselves, so they would not notice.
    """

    def watch() -> None:
        parent_process().join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _shown(results: Iterator[Result], total: int, title: str, progress: bool) -> Iterator[Result]:
    """A bar on a terminal, a line every tenth elsewhere."""
    if progress and sys.stderr.isatty():
        yield from tqdm(results, desc=title, total=total, unit="volume")
        return
    for done, result in enumerate(results, start=1):
        if progress and done * 10 // total > (done - 1) * 10 // total:
            print(f"{title}: {done}/{total} volumes", file=sys.stderr, flush=True)
        yield result
