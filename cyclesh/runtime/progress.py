"""What a run says on the terminal: where it is, its losses, its scores so far, its time to go."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tqdm import tqdm


class Stretch(NamedTuple):
    """A part of a run whose steps take the same time; `work` is a step's, against the others'."""

    name: str
    steps: int
    work: float


class Pace:
    """How long a run still takes: by its own pace, and by the work of stretches to come."""

    def __init__(self, stretches: Sequence[Stretch]):
        self._stretches = stretches
        self._begin: tuple[int, int, float] | None = None  # stretch, step and time of its first
        self._step_s = 0.0

    def tick(self, step: int, now_s: float) -> None:
        """Step `step` (from 1) ended at `now_s`.

        The first step of a stretch is left out of its pace, since that is when it is compiled.
        """
        at = self._at(step)
        if self._begin is None or self._begin[0] != at:
            if self._begin is not None:
                self._step_s *= self._stretches[at].work / self._stretches[self._begin[0]].work
            self._begin = (at, step, now_s)
        else:
            self._step_s = (now_s - self._begin[2]) / (step - self._begin[1])

    def left_s(self, step: int) -> float | None:
        """Seconds from the end of step `step` to the end of the run; None while not yet known."""
        if not self._step_s:
            return None
        at = self._at(step)
        here = self._stretches[at].work
        ends = self._ends()
        work = (ends[at] - step) * here
        work += sum(stretch.steps * stretch.work for stretch in self._stretches[at + 1 :])
        return self._step_s * work / here

    def _ends(self) -> list[int]:
        return [
            sum(stretch.steps for stretch in self._stretches[: i + 1])
            for i in range(len(self._stretches))
        ]

    def _at(self, step: int) -> int:
        """The stretch that made step `step` (from 1)."""
        ends = self._ends()
        return next((i for i, end in enumerate(ends) if step <= end), len(ends) - 1)


class Progress:
    """One live line on a terminal; where there is none, a plain line each time there is news.

    News is what a validation found; with `verbose` each row of the log is news, too.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        start: int,
        quiet: bool = False,
        verbose: bool = False,
        name: str = "",
    ):
        """`start`: steps that were made before. `name`: of the run, where there are others."""
        self._quiet, self._verbose = quiet, verbose
        self._name = f"{name} " if name else ""
        self._total = sum(stretch.steps for stretch in stretches)
        self._step, self._scores = start, ""
        self._pace = Pace(stretches)
        self._live = sys.stderr.isatty() and not quiet
        self._bar = tqdm(
            total=self._total,
            initial=start,
            disable=not self._live,
            dynamic_ncols=True,
            bar_format="{desc} {n_fmt}/{total_fmt} |{bar:12}| {rate_fmt}{postfix}",
            unit="step",
            smoothing=0.1,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def advance(self, phase: str, values: Mapping[str, float]) -> None:
        """A step of a phase was made, with these losses."""
        self._step += 1
        self._pace.tick(self._step, time.monotonic())
        parts = (f"ETA {self._left()}", losses_line(values), self._scores)
        self._bar.set_description_str(f"{self._name}{phase}", refresh=False)
        self._bar.set_postfix_str("  ".join(filter(None, parts)), refresh=False)
        self._bar.update()

    def logged(self, row: Mapping) -> None:
        """A row was written; one with scores of a validation is news."""
        scores = scores_line(row)
        self._scores = scores or self._scores
        if scores or self._verbose:
            parts = (losses_line(row), scores, f"ETA {self._left()}")
            place = f"{self._name}{row['phase']} {row['step']}/{self._total}"
            self.note("  |  ".join(filter(None, (place, *parts))))

    def _left(self) -> str:
        seconds = self._pace.left_s(self._step)
        return "?" if seconds is None else clock(seconds)

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._live:
            self._bar.write(text, file=sys.stderr)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """ "2:05", "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def losses_line(values: Mapping[str, float]) -> str:
    """What each kind of network descends: "G 3.210  D 0.412  S 0.523"."""
    names = {"gen": "G", "disc": "D", "seg": "S"}
    return "  ".join(
        f"{label} {values[f'{name}/total']:.3f}"
        for name, label in names.items()
        if values.get(f"{name}/total") is not None
    )


def scores_line(row: Mapping) -> str:
    """What a validation found: "dice ct 0.812 mr 0.790  s-score ct 0.640"; "" of a row without."""
    parts = []
    for name, start in (("dice", "val/dice_"), ("s-score", "val/s_score_")):
        found = {k.removeprefix(start): v for k, v in row.items() if k.startswith(start)}
        told = [f"{m} {value:.3f}" for m, value in sorted(found.items()) if value is not None]
        if told:
            parts.append(" ".join((name, *told)))
    return "  ".join(parts)
