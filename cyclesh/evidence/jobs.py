"""Trials as processes of their own, as many at once as the machine has shares."""

import signal
import time
from collections.abc import Callable, Sequence
from subprocess import Popen

from cyclesh.evidence.shares import Share
from cyclesh.evidence.trials import Trial

POLL_S = 0.2


class Jobs:
    """The trials that run now. A signal to stop is passed on; leaving the `with` stops them."""

    def __init__(self, start: Callable[[Trial, Share], Popen], shares: Sequence[Share]):
        self._start, self._free = start, list(shares)
        self._running: dict[str, tuple[Trial, Share, Popen]] = {}
        self._begun: dict[str, float] = {}
        self.asked = False  # to stop, by a signal

    def __enter__(self):
        signals = (signal.SIGTERM, signal.SIGINT)
        self._handlers = {s: signal.signal(s, self._ask) for s in signals}
        return self

    def __exit__(self, *_):
        self.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, _number, _frame) -> None:
        self.asked = True
        for *_, process in self._running.values():
            process.send_signal(signal.SIGTERM)

    @property
    def full(self) -> bool:
        return not self._free

    @property
    def names(self) -> list[str]:
        """Of the trials that run."""
        return list(self._running)

    @property
    def spent_s(self) -> dict[str, float]:
        """Seconds since those that run were started."""
        return {name: time.monotonic() - self._begun[name] for name in self._running}

    def start(self, trial: Trial) -> None:
        share = self._free.pop(0)
        process = self._start(trial, share)
        self._running[trial.name] = trial, share, process
        self._begun[trial.name] = time.monotonic()
        if self.asked:  # while it began, so that it was not told
            process.send_signal(signal.SIGTERM)

    def wait(self) -> tuple[Trial, int]:
        """The next trial that ends, and its exit status: 75 where a signal ended it."""
        while True:
            for trial, share, process in self._running.values():
                if (status := process.poll()) is not None:
                    del self._running[trial.name]
                    self._free.append(share)
                    signalled = status in (-signal.SIGTERM, -signal.SIGINT)
                    return trial, 75 if self.asked and signalled else status
            time.sleep(POLL_S)

    def stop(self) -> list[tuple[Trial, int]]:
        """Ask those that run to save their state, wait until they have; how they ended."""
        if self._running and not self.asked:
            self._ask(signal.SIGTERM, None)
        return [self.wait() for _ in self.names]
