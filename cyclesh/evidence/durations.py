"""How long trials will take: from those that have finished, or from a few measured steps."""

import heapq
import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from cyclesh import settings
from cyclesh.bench import make_workload, run_steps
from cyclesh.cache import cache_folder, key_of
from cyclesh.cores import available_cores
from cyclesh.evidence import records
from cyclesh.evidence.records import RUNS
from cyclesh.evidence.shares import Share, in_fresh_process
from cyclesh.evidence.trials import Plan, Trial, config_of, steps_of
from cyclesh.files import write_json
from cyclesh.runtime.devices import set_up_training

# Start, compiling, validating and scoring of a trial, until a finished one has told.
FIRST_GUESS_S = 60.0
MEASURED_STEPS = 3


class Durations:
    """Seconds of the trials of a plan, better with each that finishes.

    shares: what of the machine a trial has; as many run at once.
    """

    def __init__(self, plan: Plan, workdir: Path, shares: Sequence[Share] = (Share(),)):
        self.plan, self.workdir, self.shares = plan, Path(workdir), shares
        self.cores = len(shares[0].cores) or available_cores()  # that a trial has
        self.measured: dict[str, float] = {}

    def config(self, trial: Trial) -> ConfigDict:
        """A trial's, with the grid and as many structures as the data have, whatever it says."""
        config = config_of(self.plan, trial, self.workdir / RUNS)
        config.data.path = ""  # what follows is all that a step's time depends on
        config.data.shape, config.data.aliases, config.data.dropped = self.plan.shape, (), ()
        config.data.structures = tuple((s, i) for i, s in enumerate(self.plan.structures, 1))
        return config

    def seconds(self, trials: Iterable[Trial], measure: bool = True) -> list[float]:
        """Of each trial, from what has finished by now.

        measure: steps of kinds that have not are taken here; else their trials have NaN.
        """
        finished = self._finished()
        paces: dict[str, list[float]] = {}
        overheads = []
        for name, record in finished.items():
            config = self.config(self.plan.trials[name])
            paces.setdefault(kind_of(config), []).append(record["step_s"])
            overheads.append(record["wall_s"] - steps_of(config) * record["step_s"])
        # A trial that was resumed reports its last stretch only, so at least half of the guess.
        overhead = max(np.median(overheads), FIRST_GUESS_S / 2) if overheads else FIRST_GUESS_S

        def pace(config: ConfigDict) -> float:
            known = paces.get(kind_of(config))
            if known:
                return float(np.median(known))
            return self._measure(config) if measure else float("nan")

        configs = [self.config(trial) for trial in trials]
        return [steps_of(config) * pace(config) + overhead for config in configs]

    def announce(self, trial: Trial, left: Sequence[Trial], spent_s: Mapping[str, float]) -> str:
        """How long a trial that begins will take, and all that are left, it and what runs too.

        spent_s: what those that run have taken by now, by name.
        """
        names = [t.name for t in left]
        times = dict(zip(names, self.seconds(left), strict=True))
        to_go = {name: max(times[name] - spent_s.get(name, 0.0), 0.0) for name in names}
        own, every = duration(times[trial.name]), duration(self.together(to_go))
        return f"{trial.name}: {own}; all: {every} to go"

    def together(self, times: Mapping[str, float]) -> float:
        """Seconds of trials, by name and in order, as many at once as there are shares."""
        if any(math.isnan(seconds) for seconds in times.values()):
            return math.nan
        ends: dict[str, float] = {}
        free, left = [0.0] * len(self.shares), list(times)
        while left:
            now = heapq.heappop(free)
            begins = {name: max([now, *self._ends_of_parents(name, times, ends)]) for name in left}
            name = min(begins, key=begins.get)  # the first of those that can begin soonest
            ends[name] = begins[name] + times[name]
            heapq.heappush(free, ends[name])
            left.remove(name)
        return max(ends.values(), default=0.0)

    def _ends_of_parents(self, name: str, times: Mapping, ends: Mapping) -> list[float]:
        """When those that are to run will have ended; infinity until that is known."""
        return [ends.get(p, math.inf) for p in self.plan.trials[name].after if p in times]

    def _finished(self) -> dict[str, dict]:
        found = {name: records.read_record(self.workdir, name) for name in self.plan.trials}
        return {
            name: record
            for name, record in found.items()
            if record
            and record["status"] == records.FINISHED
            and record["step_s"]
            and record.get("cores", self.cores) == self.cores
        }

    def _measure(self, config: ConfigDict) -> float:
        kind = kind_of(config)
        if kind not in self.measured:
            self.measured[kind] = measured_step_s(config, self.shares[0])
        return self.measured[kind]


def kind_of(config: ConfigDict) -> str:
    """Trials of one kind take equally long a step."""
    reads = [bool(config.loss[f"seg_{kind}"]) for kind in ("real", "fake", "rec")]
    content = [
        *(list(config.moves), bool(config.loss.shape), reads, config.batch),
        *(config.model.to_dict(), list(config.data.shape), config.compute.to_dict()),
        len(config.data.structures),
    ]
    return key_of(content)


def measured_step_s(config: ConfigDict, share: Share) -> float:
    """Median time of a few steps on random volumes, alone on a share; remembered in the cache."""
    size = [len(share.cores) or available_cores(), len(share.gpus)]
    place = [platform.node(), *size, os.environ.get("JAX_PLATFORMS"), jax.__version__]
    path = cache_folder("paces", f"{key_of([kind_of(config), place])}.json")
    if not path.exists():
        print("measuring the time of a training step ...", file=sys.stderr, flush=True)
        fields = settings.to_json(config)
        with share.confined():
            step_s = in_fresh_process(measure_step_s, fields)
        write_json(path, {"step_s": step_s})
    return json.loads(path.read_text())["step_s"]


def measure_step_s(fields: dict) -> float:
    """The measurement, of a config as JSON: its step and the wait for its volumes."""
    set_up_training(cache_folder("compiled"))
    work = make_workload(settings.from_json(fields))
    step = work.jit_step()
    _, seconds = run_steps(step, work.state, work.run.batches(0), MEASURED_STEPS)
    return float(np.median(np.add(seconds["step"], seconds["wait"])))


def duration(seconds: float) -> str:
    """As in 2:05 h, or 7 min; a ? where it is not known."""
    if seconds != seconds:
        return "?"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{max(minutes, 1)} min"
