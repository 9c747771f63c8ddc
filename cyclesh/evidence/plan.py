"""The paper's experiments as data: which trials there are, and which table each one fills.

Trials share their parents: judges; segmentors on real volumes and generators with gamma 0, for each
amount of real data and seed. From the same parents, every arm of a comparison goes on for equally
many updates, and all that differs is the arm. Nothing here trains or measures: `make_plan` is a
pure function of a config and of how many subjects there are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import attrgetter

from ml_collections import ConfigDict

from cyclesh import settings
from cyclesh.data.description import Description
from cyclesh.data.locate import survey
from cyclesh.errors import UserError
from cyclesh.evidence.arms import SCALES, Arms, common_fields
from cyclesh.evidence.trials import DICE, S_SCORE, Cell, Comparison, Plan

OUTPUTS = (
    "table1",
    "table2",
    "figure3",
    "figure6",
    "figure7",
    "figure8",
    "displacement",
    "scratch",
    "flood",
)
PAPER_GAMMA = 1.0  # 3.6


def make_plan(
    base: ConfigDict, described: Description, subjects: Mapping[tuple[str, str], int]
) -> Plan:
    """The whole plan.

    Args:
      base: the config of the method, `joint`; its schedule is that of every arm, its seed the
        first, its `real_<modality>` (where given) the amount of Table 2.
      described, subjects: see `data.locate.survey`.
    """
    if base.method != "joint":
        raise UserError(f"--mode=reproduce: {base.method}: the plan starts from configs/joint.py")
    if base.preset not in SCALES:
        raise UserError(
            f"--config: preset is {base.preset}; the plan is for {', '.join(sorted(SCALES))}"
        )
    scale = SCALES[base.preset]
    if base.seed <= base.judge.seed < base.seed + scale.table_seeds:
        raise UserError(
            f"--config: seed={base.seed}: the plan's seeds include the judges' {base.judge.seed}"
        )
    return _Builder(base, scale, described, subjects).build()


def plan_for(config: ConfigDict) -> Plan:
    """The plan of a config, on the data that it names. Raises UserError for what cannot work."""
    settings.validate(config)
    return make_plan(config, *survey(config))


class _Builder(Arms):
    """Adds the cells of each output over the trials that they need."""

    def __init__(self, *args):
        super().__init__(*args)
        self.a, self.b = self.described.modalities
        self.cells: list[Cell] = []
        self.needs: dict[str, tuple[str, ...]] = {output: () for output in OUTPUTS}

    def build(self) -> Plan:
        for output in OUTPUTS:
            getattr(self, output)()
        cells = tuple(cell for cell in self.cells if cell.trials)
        needs = {output: tuple(dict.fromkeys(names)) for output, names in self.needs.items()}
        return Plan(
            base=self.base,
            common=common_fields(self.base, self.scale),
            modalities=self.described.modalities,
            structures=self.described.names,
            shape=self.described.shape,
            trials=self.trials,
            cells=cells,
            comparisons=tuple(comparisons(cells)),
            needs=needs,
        )

    def cell(self, output, method, modality, measure, x, trials: Iterable[str]) -> None:
        trials = tuple(trials)
        self.cells.append(Cell(output, method, modality, measure, x, trials))
        self.needs[output] += trials

    def table1(self) -> None:
        """Without and with shape consistency, and with the paper's gamma where ours is another.

        That of pre-training, too, where segmentors rest at first.
        """
        arms = {"no_sc": ("no_sc", "", {}), "sc": ("ours", "", {})}
        rests = self.resting()["schedule.pretrain_gan_epochs"]
        own = {self.base.loss.shape, *([self.base.schedule.pretrain_gan_shape] if rests else [])}
        if own != {PAPER_GAMMA}:
            gamma = {"loss.shape": PAPER_GAMMA, "schedule.pretrain_gan_shape": PAPER_GAMMA}
            arms["sc_gamma1"] = ("ours", "-gamma1", gamma)
        seeds = self.seeds(self.scale.table_seeds)
        for method, (arm, suffix, fields) in arms.items():
            for modality in (self.a, self.b):
                trials = [self.arm(arm, {}, seed, suffix, fields) for seed in seeds]
                self.cell("table1", method, modality, S_SCORE, None, trials)

    def table2(self) -> None:
        for modality in (self.a, self.b):
            real = {modality: self.limited[modality]}
            for arm in ("baseline", "ada", "ours"):
                seeds = self.seeds(self.scale.table_seeds)
                trials = [self.arm(arm, real, seed) for seed in seeds]
                self.cell("table2", arm, modality, DICE, None, trials)

    def figure3(self) -> None:
        """CycleGAN's generator trained no shorter than ours was, its pre-training included.

        Between them stands our generator without shape consistency, from Table 1.
        """
        fields = self.whole() | self.guided()
        seeds = self.seeds(self.scale.curve_seeds)
        trials = [self.add(f"all-cyclegan-s{s}", "cyclegan", "cyclegan", s, fields) for s in seeds]
        for modality in (self.a, self.b):
            self.cell("figure3", "cyclegan", modality, S_SCORE, None, trials)
            for arm in ("no_sc", "ours"):
                own = [self.arm(arm, {}, seed) for seed in seeds]
                self.cell("figure3", arm, modality, S_SCORE, None, own)

    def figure6(self) -> None:
        """Pictures of Table 2's first seed."""
        for modality in (self.a, self.b):
            real = {modality: self.limited[modality]}
            self.needs["figure6"] += tuple(
                self.arm(arm, real, self.base.seed) for arm in ("baseline", "ours")
            )

    def figure7(self) -> None:
        seeds = self.seeds(self.scale.curve_seeds)
        for modality in (self.a, self.b):
            for x, amount in self.shares(modality).items():
                for arm in ("baseline", "ada", "ours"):
                    trials = [self.arm(arm, {modality: amount}, seed) for seed in seeds]
                    self.cell("figure7", arm, modality, DICE, x, trials)
        extra = self.subjects.get((self.a, "extra"), 0)
        fields = {}
        if not self.base.data.path and not extra:
            extra, fields = self.scale.extra, {"phantom.extra": self.scale.extra}
        if not extra:
            return
        everything = [self.arm("baseline", {}, seed) for seed in seeds]
        self.cell("figure7", "baseline", self.b, DICE, 0, everything)
        most = extra + self.subjects[self.a, "train"]
        for count in dict.fromkeys(max(2, round(share * most)) for share in self.scale.sources):
            for arm in ("ada", "ours"):
                more = {"data.synthetic": count, **fields}
                trials = [self.arm(arm, {}, s, f"-from{count}", more) for s in seeds]
                self.cell("figure7", arm, self.b, DICE, count, trials)

    def shares(self, modality: str) -> dict[float, int | float]:
        """The points of Figure 7: amounts by their true share.

        Of amounts that come to equally many subjects one is kept, all or Table 2's before others.
        """
        amounts = (1.0, self.limited[modality], *self.scale.shares)
        found: dict[float, int | float] = {}
        for amount in amounts:
            found.setdefault(self.share(modality, amount), amount)
        return dict(sorted(found.items()))

    def figure8(self) -> None:
        """From one parent with little real data of B: real subjects added, or synthetic volumes.

        These are of so many volumes of A, as a share of A's training subjects. That caps the
        source volumes of B, too, of which there are few. Where B keeps all, nothing is added.
        """
        seeds, real = self.seeds(self.scale.curve_seeds), {self.b: self.limited[self.b]}
        # Figure 7 has arms of all real data, too, and of additional sources: another store.
        of = "own" if self.condition(real) == self.condition({}) else "from"
        self.cell(
            "figure8", "baseline", self.b, DICE, 0, [self.arm("baseline", real, s) for s in seeds]
        )
        for share in self.scale.added:
            count = self.added(self.a, share)
            total = min(
                self.subjects[self.b, "train"],
                self.count(self.b, self.limited[self.b]) + self.added(self.b, share),
            )
            synthetic = (f"-{of}{count}", {"data.synthetic": count})
            arms = {
                "real": (f"-plus{share}", {"data.real": ((self.b, total),)}),
                "ada": synthetic,
                "ours": synthetic,
            }
            for arm, (suffix, fields) in arms.items():
                trials = [self.arm(arm, real, seed, suffix, fields) for seed in seeds]
                self.cell("figure8", arm, self.b, DICE, share, trials)

    def displacement(self) -> None:
        """Section 3.2: generators composed with a shift and its inverse, then gamma 0 and ours."""
        fields = self.late() | self.resting()
        fields["log.keep_every_steps"] = self.scale.measured_every
        for arm, method, players in (
            ("no_sc", "gan", ("gen", "disc")),
            ("sc", "joint", ("gen", "disc", "seg")),
        ):
            for seed in self.seeds(self.scale.curve_seeds):
                parents = self.parents({}, seed)
                init = {player: parents[player] for player in players}
                name = f"all-shifted-{arm}-s{seed}"
                shift = self.scale.shift_voxels
                self.add(name, arm, method, seed, fields, init, shift_voxels=shift)
                self.needs["displacement"] += (name,)

    def scratch(self) -> None:
        """All from scratch (4.2): as many updates as the longer-trained parent and an arm."""
        fields = self.whole()
        seeds = self.seeds(self.scale.curve_seeds)
        trials = [self.add(f"all-scratch-s{s}", "scratch", "joint", s, fields) for s in seeds]
        for modality in (self.a, self.b):
            for measure in (DICE, S_SCORE):
                self.cell("scratch", "scratch", modality, measure, None, trials)
                ours = [self.arm("ours", {}, seed) for seed in seeds]
                self.cell("scratch", "ours", modality, measure, None, ours)

    def flood(self) -> None:
        """Much synthetic and very little real data: its weight in S's loss is a twentieth (5.4)."""
        weights = {"loss.seg_real": 0.05, "loss.seg_fake": 0.475, "loss.seg_rec": 0.475}
        for modality in (self.a, self.b):
            seeds, real = self.seeds(self.scale.curve_seeds), {modality: self.limited[modality]}
            self.cell(
                "flood", "baseline", modality, DICE, None,
                [self.arm("baseline", real, seed) for seed in seeds],
            )  # fmt: skip
            for arm in ("ada", "ours"):
                for name, more in ((arm, {}), (f"{arm}_flooded", weights)):
                    suffix = "-flooded" if more else ""
                    trials = [self.arm(arm, real, seed, suffix, more) for seed in seeds]
                    self.cell("flood", name, modality, DICE, None, trials)


# What a table's arms are compared in: (output, better, worse, primary). Where nothing stands at the
# x of the better one, the worse is what the figure has at 0: nothing translated, nothing added.
COMPARED = (
    ("table1", "sc", "no_sc", True),
    ("table1", "sc", "sc_gamma1", False),
    ("table1", "sc_gamma1", "no_sc", False),
    ("table2", "ours", "baseline", True),
    ("table2", "ours", "ada", False),
    ("table2", "ada", "baseline", False),
    ("figure3", "no_sc", "cyclegan", False),
    ("figure3", "ours", "no_sc", False),
    ("figure3", "ours", "cyclegan", False),
    ("figure7", "ours", "baseline", False),
    ("figure7", "ours", "ada", False),
    ("figure7", "ada", "baseline", False),
    ("figure8", "real", "ada", False),
    ("figure8", "real", "ours", False),
    ("figure8", "ours", "ada", False),
    ("figure8", "real", "baseline", False),
    ("figure8", "ada", "baseline", False),
    ("figure8", "ours", "baseline", False),
    ("scratch", "scratch", "ours", False),
    ("flood", "ours_flooded", "ada_flooded", False),
    ("flood", "ada_flooded", "ada", False),
    ("flood", "ours_flooded", "ours", False),
    ("flood", "ada_flooded", "baseline", False),
    ("flood", "ours_flooded", "baseline", False),
)
# Differences of differences: (output, name of the one, name of the one that is taken off it).
COMPARED_BEYOND = (("flood", "ours_flooded - ours", "ada_flooded - ada"),)


def comparisons(cells: Iterable[Cell]) -> list[Comparison]:
    """Every pair of COMPARED cells: of a modality and a measure, at the same x or the worse at 0.

    Then the differences between them that COMPARED_BEYOND names.
    """
    by_key = {(c.output, c.method, c.modality, c.measure, c.x): c for c in cells}
    found = []
    for output, better, worse, primary in COMPARED:
        for key, cell in by_key.items():
            beside = (by_key.get((output, worse, *key[2:4], x)) for x in (key[4], 0))
            partner = next(filter(None, beside), None)
            if key[:2] == (output, better) and partner:
                found.append(Comparison(f"{better} - {worse}", cell, partner, primary))
    place = attrgetter("better.output", "name", "better.modality", "better.measure", "better.x")
    by_name = {place(comparison): comparison for comparison in found}
    for output, name, other in COMPARED_BEYOND:
        for key, own in by_name.items():
            beyond = by_name.get((output, other, *key[2:]))
            if key[:2] == (output, name) and beyond:
                found.append(replace(own, name=f"({name}) - ({other})", beyond=beyond))
    return found
