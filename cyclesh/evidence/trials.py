"""What a plan of experiments is made of: trials, the cells they fill, what is compared with what.

A trial is one training run. Its parents are the trials whose networks it starts from.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ml_collections import ConfigDict

from cyclesh import settings, state
from cyclesh.methods import apply_method

DICE, S_SCORE = "dice", "s_score"
MEASURED = ("structures", "judge", "phase")  # displacements, see `displacement.measure`


@dataclass(frozen=True)
class Trial:
    """One training run of the plan.

    arm: "judge", a parent ("seg", "gan"), or what a table calls the method.
    fields: of the config, where they differ from the plan's common ones.
    init: player -> name of the trial whose networks it starts from.
    after: names of the trials that must have finished before, the judge included.
    """

    name: str
    arm: str
    method: str  # of configs/
    seed: int
    fields: Mapping[str, object]
    init: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    shift_voxels: tuple[int, int, int] | None = None  # composed with the generators (3.2)


@dataclass(frozen=True)
class Cell:
    """Where trials, one a seed, appear: a row of a table or a point of a curve."""

    output: str
    method: str
    modality: str
    measure: str  # DICE of the trial's own segmentor or S_SCORE of its synthetic volumes
    x: float | None  # of a figure: a share of the data (0 to 1) or a number of volumes (2 or more)
    trials: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """better - worse, paired by seed and subject. Primary ones are what the experiment is for.

    beyond: the comparison whose difference is taken off, seed by seed and subject by subject.
    """

    name: str
    better: Cell
    worse: Cell
    primary: bool
    beyond: "Comparison | None" = None


@dataclass(frozen=True)
class Plan:
    """trials in an order in which each comes after its parents; cells; comparisons."""

    base: ConfigDict
    common: Mapping[str, object]  # fields of every trial, before its own
    modalities: tuple[str, str]
    structures: tuple[str, ...]
    shape: tuple[int, int, int]  # z, y, x of the data's grid
    trials: Mapping[str, Trial]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    needs: Mapping[str, tuple[str, ...]]  # output -> the trials that it reads, parents not named

    def wanted(self, outputs: Iterable[str]) -> list[Trial]:
        """The trials of these outputs and all that they start from, each after its parents."""
        found: dict[str, Trial] = {}

        def visit(name: str) -> None:
            trial = self.trials[name]
            for parent in trial.after:
                visit(parent)
            found.setdefault(name, trial)

        for output in outputs:  # whole seeds one after another, as far as parents allow
            for name in sorted(self.needs[output], key=lambda name: self.trials[name].seed):
                visit(name)
        return list(found.values())

    def level(self, trial: Trial) -> int:
        """0 where nothing comes before; else one more than the highest parent's."""
        return 1 + max((self.level(self.trials[name]) for name in trial.after), default=-1)


@dataclass(frozen=True)
class Budget:
    """What an arm may spend: updates of S and of G, and volumes that S reads, each domain."""

    seg_updates: int
    gen_updates: int
    volumes_read: int


def budget_of(config: ConfigDict) -> Budget:
    """Of a trial's own training, its parents' not counted."""
    seg = gen = read = 0
    left = config.steps or float("inf")
    for phase in state.make_phases(config):
        updates = int(min(phase.epochs * config.schedule.epoch_steps, left))
        left -= updates
        gen += updates * ("gen" in phase.moves)
        if "seg" in phase.moves:
            seg += updates
            read += updates * config.batch * sum(weight > 0 for weight in phase.seg_reads.values())
    return Budget(seg, gen, read)


def steps_of(config: ConfigDict) -> int:
    """Training steps of a trial."""
    total = state.steps_in(config, config.schedule.epoch_steps)
    return min(total, config.steps or total)


def config_of(plan: Plan, trial: Trial, folder: Path) -> ConfigDict:
    """The config of a trial; ``folder`` holds the workdirs of its parents."""
    config = plan.base.copy_and_resolve_references()
    if trial.method != config.method:  # which would undo what the user set of its own fields
        apply_method(config, trial.method)
    config.update_from_flattened_dict({**plan.common, **trial.fields})
    for player, parent in trial.init.items():
        config.init[player] = str(Path(folder).absolute() / parent)
    settings.validate(config)
    return config
