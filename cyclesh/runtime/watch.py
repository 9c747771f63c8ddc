"""What ends the processes of a run when one of them is gone."""

import ctypes
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import jax

PULSE_S = 1.0  # between two signs of life
SILENCE_S = 20.0  # without one, a process counts as gone
SIGNS = "cyclesh/alive"  # where signs of life are kept
AGAIN = 75  # the exit status on which launch scripts run the same command again
GOES_ON = "the same command goes on from the last checkpoint"
PR_SET_PDEATHSIG = 1


def in_child(work: Callable[[], int]) -> int:
    """``work()`` in a child process, whose parent says how it ended. Before any computation.

    JAX aborts a process, with a stack trace and no say of ours, when the first one dies.
    """
    child = os.fork()
    if child == 0:
        with suppress(OSError, AttributeError):  # where it is offered: die with the parent
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return work()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(child, number))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGABRT:
        return status if status >= 0 else 128 - status  # as a shell says it
    print(f"cyclesh: the first process is gone; {GOES_ON}", file=sys.stderr)
    return AGAIN


def client():
    from jax._src import distributed  # as orbax does; there is no public name for it

    return distributed.global_state.client


class Watch(threading.Thread):
    """Shows the others that this process lives, and ends it once one of them does not.

    Each says a number that grows, then "done", or "left" and the exit status that it failed with.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self._over = threading.Event()
        self._me = jax.process_index()
        others = set(range(jax.process_count())) - {self._me}
        self._heard = {process: ("", time.monotonic()) for process in sorted(others)}

    def run(self) -> None:
        for pulse in itertools.count():
            try:
                self._say(str(pulse))
                words = dict(client().key_value_dir_get(SIGNS))
            except jax.errors.JaxRuntimeError:
                self._leave(0, AGAIN)  # with whom all leave their words
                return
            for process in self._heard:
                self._judge(process, words.get(f"{SIGNS}/{process}", ""))
            if self._over.wait(PULSE_S):
                return

    def end(self, status: int) -> None:
        """This process ends; at once where it failed."""
        self._over.set()
        with suppress(jax.errors.JaxRuntimeError):  # the first is gone already
            self._say("done" if status == 0 else f"left {status}")
        if status:
            if self._me == 0:
                time.sleep(3 * PULSE_S)  # with it ends the place where the others hear it
            _exit(status)

    def _say(self, word: str) -> None:
        client().key_value_set(f"{SIGNS}/{self._me}", word, allow_overwrite=True)

    def _judge(self, process: int, word: str) -> None:
        before, since = self._heard[process]
        now = time.monotonic()
        if word != before:
            self._heard[process] = (word, now)
        if word.startswith("left"):
            self._leave(process, int(word.split()[1]))
        elif word == before and word != "done" and now - since > SILENCE_S:
            self._leave(process, AGAIN)

    def _leave(self, process: int, status: int) -> None:
        if self._over.wait(PULSE_S):  # this process ends in the same way by itself
            return
        name = f"process {process} of {len(self._heard) + 1}"
        again = f"{name} is gone; {GOES_ON}"
        failed = f"{name} failed with status {status}, so this one stops, too"
        print(f"cyclesh: {again if status == AGAIN else failed}", file=sys.stderr)
        _exit(status)


def _exit(status: int) -> None:
    """Without waiting for anything or anyone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
