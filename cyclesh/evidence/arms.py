"""The trials of the plan: parents, which others share, and the arms that go on from them."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_collections import ConfigDict

from cyclesh.data.description import Description
from cyclesh.data.pipeline import check_named, count_of
from cyclesh.evidence.trials import Trial

LIMITED = 0.14  # share of the real data in Table 2 and Figure 8 (5.3)


@dataclass(frozen=True)
class Scale:
    """What a preset can afford. Everything else of a plan follows from it and from the config."""

    epoch_steps: int  # of every trial, so that equal epochs are equal updates
    seg_epochs: int  # of the parents, at a constant rate (4.2: 100 and 60)
    gan_epochs: int
    identity: float  # weight of CycleGAN's identity loss where generators have no other guide
    table_seeds: int
    curve_seeds: int
    shares: tuple[float, ...]  # Figure 7: of the real data, between the tables' and all
    added: tuple[float, ...]  # Figure 8: volumes added, as a share of the training subjects
    sources: tuple[float, ...]  # Figure 7, right: of all source volumes, extra ones included
    extra: int  # source-only subjects of the phantom in that part (the paper's S2)
    shift_voxels: tuple[int, int, int]  # displacement: z, y, x
    measured_every: int  # displacement: updates between measurements
    ada_reads_as_ours: bool = False  # S's loss in ADA has the weights of ours, not the paper's
    # Epochs more in which all networks move, in place of the preset's phase in which S rests; None:
    # that phase stays.
    moving_not_resting: int | None = None


SCALES = {
    "phantom": Scale(
        epoch_steps=19,
        seg_epochs=20,
        gan_epochs=30,
        identity=5.0,
        table_seeds=5,
        curve_seeds=3,
        shares=(0.4,),
        added=(0.14, 0.5, 0.85),
        sources=(0.1, 0.4, 1.0),
        extra=76,
        shift_voxels=(0, 0, 3),
        measured_every=38,
        ada_reads_as_ours=True,  # on validation better for both than half real, half synthetic
        moving_not_resting=6,  # S learns more from generators that it meets early (earlier plans)
    ),
    "tiny": Scale(
        epoch_steps=2,
        seg_epochs=2,
        gan_epochs=2,
        identity=5.0,
        table_seeds=2,
        curve_seeds=2,
        shares=(),
        added=(0.5,),
        sources=(1.0,),
        extra=4,
        shift_voxels=(0, 0, 2),
        measured_every=4,
    ),
    "abdomen": Scale(
        epoch_steps=10,
        seg_epochs=40,
        gan_epochs=40,
        identity=5.0,
        table_seeds=3,
        curve_seeds=3,
        shares=(0.4,),
        added=(0.5,),
        sources=(1.0,),
        extra=0,
        shift_voxels=(0, 0, 3),
        measured_every=100,
        ada_reads_as_ours=True,
        moving_not_resting=0,
    ),
    "mmwhs": Scale(
        epoch_steps=71,
        seg_epochs=100,
        gan_epochs=60,
        identity=0.0,
        table_seeds=5,
        curve_seeds=3,
        shares=(0.28, 0.57),
        added=(0.14, 0.5, 0.85),
        sources=(0.06, 0.23, 1.0),
        extra=0,
        shift_voxels=(0, 0, 6),
        measured_every=710,
    ),
}
UNSEEN = 4  # the plan's `phantom.seed`, counted from the config's: those before it were seen


def common_fields(base: ConfigDict, scale: Scale) -> dict:
    """What all trials share: nothing is pre-trained within a run (see `resting`) or stops early.

    Parents hand on their last networks. The best generators would be chosen by judges that have
    seen every real volume, also those that do not exist for the arms. The phantom is another than
    the one that is trained on by default: there, rates and schedules were chosen.
    """
    unseen = {} if base.data.path else {"phantom.seed": base.phantom.seed + UNSEEN}
    return {
        **unseen,
        "data.real": (),
        "init_checkpoint": "last",
        "schedule.epoch_steps": scale.epoch_steps,
        "schedule.early_stop": False,
        "schedule.pretrain_seg_epochs": 0,
        "schedule.pretrain_gan_epochs": 0,
        "schedule.pretrain_gan_shape": 0.0,
        "log.report_cases": 2,
    }


class Arms:
    """Makes trials, each once whoever asks for it."""

    def __init__(
        self,
        base: ConfigDict,
        scale: Scale,
        described: Description,
        subjects: Mapping[tuple[str, str], int],
    ):
        self.base, self.scale, self.described, self.subjects = base, scale, described, subjects
        self.trials: dict[str, Trial] = {}
        given = dict(base.data.real)
        check_named(given, described.modalities)
        amounts = {m: given.get(m, LIMITED) for m in described.modalities}
        # Where so many are all that there are, nothing is left out.
        self.limited = {
            m: 1.0 if self.count(m, amount) >= subjects[m, "train"] else amount
            for m, amount in amounts.items()
        }

    def add(self, name: str, arm: str, method: str, seed: int, fields: dict, init=None, **more):
        """The name of the trial, made if it is new."""
        init = init or {}
        after = dict.fromkeys(init.values())
        if method != "baseline":
            after = dict.fromkeys([self.judge(fields), *after])
        trial = Trial(name, arm, method, seed, {"seed": seed, **fields}, init, tuple(after), **more)
        assert self.trials.setdefault(name, trial) == trial, f"two trials are called {name}"
        return name

    def judge(self, fields: Mapping[str, object]) -> str:
        """The judges of the store that a trial with these fields uses (see `judges`)."""
        extra = {k: v for k, v in fields.items() if k == "phantom.extra"}
        name = "judge-extra" if extra else "judge"
        judge = self.base.judge
        fields = {
            "seed": judge.seed,
            **self.schedule(judge.epochs - judge.epochs // 2, judge.epochs // 2),
            "optim.seg.rate": judge.rate,
            **extra,
        }
        self.trials.setdefault(name, Trial(name, "judge", "baseline", judge.seed, fields))
        return name

    def seeds(self, count: int) -> range:
        return range(self.base.seed, self.base.seed + count)

    def schedule(self, constant: int, decay: int) -> dict:
        return {"schedule.constant_epochs": constant, "schedule.decay_epochs": decay}

    def early_rates(self) -> dict:
        """Those of pre-training, for networks that are still fresh."""
        optim = self.base.optim
        return {
            f"optim.{player}.rate": optim[player].pretrain_rate or optim[player].rate
            for player in ("gen", "disc", "seg")
        }

    def guided(self) -> dict:
        """Of generators that start fresh without shape consistency.

        In hundreds of updates cycle and D alone may leave them where dark is bright.
        """
        return {"loss.identity": self.scale.identity}

    def late(self) -> dict:
        """The schedule of an arm that goes on from parents: the config's own.

        Longer where all move while the preset's segmentors would rest.
        """
        schedule = self.base.schedule
        instead = self.scale.moving_not_resting if self.preset_rests() else None
        return self.schedule(schedule.constant_epochs + (instead or 0), schedule.decay_epochs)

    def preset_rests(self) -> bool:
        """Whether the preset's segmentors rest while they guide the generators' pre-training."""
        return bool(self.base.schedule.pretrain_gan_shape)

    def resting(self) -> dict:
        """Of arms whose generators move: the preset's pre-training before segmentors move, too.

        It goes on from the parents, at the rates that they had. Nothing where the preset's has no
        gamma, since the parents are that, or where all move at once instead: generators that have
        learned to please segmentors at rest show them little that is new.
        """
        schedule = self.base.schedule
        rests = self.preset_rests() and self.scale.moving_not_resting is None
        epochs = schedule.pretrain_gan_epochs if rests else 0
        return {
            "init_pretrain": True,
            "schedule.pretrain_gan_epochs": epochs,
            "schedule.pretrain_gan_shape": schedule.pretrain_gan_shape,
        }

    def ada_reads(self) -> dict:
        """What the segmentors' loss weighs in `ada`, where that is not the method's own."""
        if not self.scale.ada_reads_as_ours:
            return {}
        names = ("seg_real", "seg_fake", "seg_rec")
        return {f"loss.{name}": self.base.loss[name] for name in names}

    def whole(self) -> dict:
        """The schedule of a trial without parents: as many updates as the longer's and an arm's."""
        late, resting = self.late(), self.resting()
        constant = (
            max(self.scale.seg_epochs, self.scale.gan_epochs)
            + resting["schedule.pretrain_gan_epochs"]
            + late["schedule.constant_epochs"]
        )
        return self.early_rates() | self.schedule(constant, late["schedule.decay_epochs"])

    def condition(self, real: Mapping[str, object]) -> tuple[str, dict]:
        """The name and the fields of an amount of real data; modalities not named keep all."""
        less = {m: amount for m, amount in real.items() if amount not in (1.0, None)}
        name = "-".join(f"{m}{amount}" for m, amount in less.items()) or "all"
        return name, {"data.real": tuple(less.items())}

    def parents(self, real: Mapping[str, object], seed: int) -> dict[str, str]:
        """Segmentors on real volumes; generators and discriminators without shape consistency."""
        name, fields = self.condition(real)
        fields |= self.early_rates()

        def parent(arm: str, method: str, epochs: int, more: dict) -> str:
            own = fields | self.schedule(epochs, 0) | more
            return self.add(f"{name}-{arm}-s{seed}", arm, method, seed, own)

        seg = parent("seg", "baseline", self.scale.seg_epochs, {})
        gan = parent("gan", "gan", self.scale.gan_epochs, self.guided())
        return {"seg": seg, "gen": gan, "disc": gan}

    def arm(
        self,
        arm: str,
        real: Mapping[str, object],
        seed: int,
        suffix: str = "",
        fields: Mapping[str, object] | None = None,
    ) -> str:
        """One arm that goes on from the parents of ``real``: name of its trial.

        suffix, fields: of a trial that differs from the arm's usual one, in its name and config.

        Equal for all: updates of the segmentors, and volumes that they read. The baseline reads
        three real volumes an update where the others read a real, a synthetic, a reconstructed.
        Generators move equally often in all where they move.
        """
        method, players, own = {
            "baseline": ("baseline", ("seg",), {"batch": 3 * self.base.batch}),
            "real": ("baseline", ("seg",), {"batch": 3 * self.base.batch}),
            "ada": ("ada", ("seg", "gen"), self.ada_reads()),
            "ours": ("joint", ("seg", "gen", "disc"), self.resting()),
            "no_sc": ("gan", ("gen", "disc"), self.resting()),
        }[arm]
        parents = self.parents(real, seed)
        name, condition = self.condition(real)
        own |= self.late()
        init = {player: parents[player] for player in players}
        trial = f"{name}-{arm}{suffix}-s{seed}"
        return self.add(trial, arm, method, seed, {**condition, **own, **(fields or {})}, init)

    def count(self, modality: str, amount: int | float) -> int:
        """Subjects that an amount stands for. Raises UserError where there are fewer."""
        return count_of(modality, amount, self.subjects[modality, "train"])

    def share(self, modality: str, amount: int | float) -> float:
        """The subjects that an amount stands for as a share of all training subjects."""
        return round(self.count(modality, amount) / self.subjects[modality, "train"], 3)

    def added(self, modality: str, share: float) -> int:
        return max(1, round(share * self.subjects[modality, "train"]))
