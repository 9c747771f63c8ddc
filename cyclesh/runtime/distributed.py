"""Several processes of one run, on one machine or many: who they are and what they agree on.

JAX's distributed runtime joins them. All processes make the same steps; the first one alone
writes logs, scores and results, and what it finds the others take over. A process that dies takes
the others with it within half a minute, so that a scheduler can start all of them again.
"""

import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import NamedTuple

import jax
from jax.experimental import multihost_utils

from cyclesh.errors import Stopped, UserError
from cyclesh.runtime.watch import PULSE_S, SILENCE_S, Watch, client, in_child

JOIN_S = 120.0  # to wait for the others at the start
WEEK_MS = 7 * 24 * 3600 * 1000  # as long as the first process may take for what the others need
PORTS = (20000, 30000)  # for the coordinator of a SLURM job, chosen by the job's number

_VALUES = itertools.count()
_STOPS = itertools.count()


class Place(NamedTuple):
    """A process among others. coordinator: HOST:PORT of process 0, or "auto": as JAX finds it."""

    coordinator: str
    processes: int = 0
    process: int = 0
    local_device: int | None = None  # the one device of its machine that it uses; None: all


def find_place(coordinator: str, processes: int, process: int, env: Mapping) -> Place | None:
    """From the flags or, without them, from SLURM's variables; None for a process on its own.

    Raises: UserError where the flags do not say enough.
    """
    if coordinator == "auto":
        return Place("auto")
    if coordinator or processes or process:
        if ":" not in coordinator:
            raise UserError(f"--coordinator={coordinator}: give HOST:PORT of process 0, or auto")
        if processes < 1 or not 0 <= process < processes:
            raise UserError(
                f"--process={process}: give 0 to N-1, and --processes=N, the same in each"
            )
        return Place(coordinator, processes, process) if processes > 1 else None
    # srun sets the node list; a batch script on its own has one process, whatever was allocated.
    tasks = int(env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS") or 1)
    if "SLURM_STEP_NODELIST" not in env or tasks == 1:
        return None
    low, high = PORTS
    port = low + int(env["SLURM_JOB_ID"]) % (high - low)
    host = first_host(env["SLURM_STEP_NODELIST"])
    # One device a task: the only one that it sees (--gpus-per-task), or that of its number.
    visible = env.get("CUDA_VISIBLE_DEVICES", "")  # numbers, or names of GPUs or their parts
    alone = visible != "" and "," not in visible
    local = 0 if alone else int(env["SLURM_LOCALID"])
    return Place(f"{host}:{port}", tasks, int(env["SLURM_PROCID"]), local)


def first_host(nodes: str) -> str:
    """The first of SLURM's node list: "gpu[007-010,12],big1" -> "gpu007"."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return head.partition(",")[0]
    return head + rest.replace("-", ",").replace("]", ",").partition(",")[0]


def together(place: Place, work: Callable[[], int]) -> int:
    """``work()``, which returns an exit status, as one of several processes.

    To be called before any computation. Where it fails, this process ends at once and the others
    with it: they wait for it in their next sum over devices, and JAX would wait for them at exit.
    """
    if place.process > 0:
        _await(place.coordinator)
    return in_child(lambda: _together(place, work))


def _together(place: Place, work: Callable[[], int]) -> int:
    _join(place)
    watch = Watch()
    watch.start()
    try:
        with suppress_output(not is_first()):
            status = work()
    except BaseException as error:
        if isinstance(error, Exception):
            watch.join(SILENCE_S + 5)  # it may be another's death, which the watch will tell
        traceback.print_exc()
        status = 1
    watch.end(status)
    jax.distributed.shutdown()
    return status


@contextmanager
def suppress_output(suppressed: bool) -> Iterator[None]:
    """Nothing is printed on stdout, if so: once for all processes is enough."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if suppressed else sys.stdout):
        yield


def _join(place: Place) -> None:
    try:
        if place.coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(
                place.coordinator,
                place.processes,
                place.process,
                local_device_ids=place.local_device,
                initialization_timeout=int(JOIN_S),
            )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--coordinator={place.coordinator}: the processes did not meet "
            f"({str(error).splitlines()[0][:150]}); start all of them with the same address"
        ) from None


def _await(coordinator: str) -> None:
    """Until process 0 listens: JAX would abort, with a stack trace, where it never does."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + JOIN_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except (OSError, ValueError) as error:
            if time.monotonic() > end or isinstance(error, ValueError):
                raise UserError(
                    f"--coordinator={coordinator}: process 0 does not answer there ({error}); "
                    "start it, too, or give its address"
                ) from None
        time.sleep(PULSE_S)


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes logs and results."""
    return jax.process_index() == 0


def from_first(make: Callable):
    """What ``make()`` gives in the first process, of JSON's types, in every process.

    Only the first calls it; the others wait as long as that takes.
    """
    if not several():
        return make()
    key = f"cyclesh/value/{next(_VALUES)}"
    if is_first():
        value = make()
        client().key_value_set(key, json.dumps(value))
        return value
    return json.loads(client().blocking_key_value_get(key, WEEK_MS))


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has asked the run to stop; to be called once a step.

    Of several processes all are told so at the same step, whichever got the signal: JAX's own
    handler of SIGTERM, which it has installed then, agrees on that step.
    """
    asked = []
    handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT), lambda *_: asked.append(True))
    if several():
        handlers = {signal.SIGINT: lambda *_: os.kill(os.getpid(), signal.SIGTERM)}
    with _handled(handlers):
        if several():
            yield lambda: multihost_utils.reached_preemption_sync_point(next(_STOPS))
        else:
            yield lambda: bool(asked)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Where nothing but finished work is to be saved, SIGTERM and SIGINT raise Stopped."""

    def stop(number: int, _) -> None:
        name = signal.Signals(number).name
        raise Stopped(f"stopped by {name}; the same command goes on from what is finished")

    with _handled(dict.fromkeys((signal.SIGTERM, signal.SIGINT), stop)):
        yield


@contextmanager
def _handled(handlers: Mapping) -> Iterator[None]:
    """Signals have these handlers within, and their old ones after."""
    if threading.current_thread() is not threading.main_thread():
        yield  # such a run is interrupted as any code is
        return
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
