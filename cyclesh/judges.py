"""The judges of the S-score: segmentors on real volumes only, independent of every run.

They are trained once for a store, `judge.seed` and whatever else decides what they learn (networks,
batch, augmentation; `deciding_fields`), and kept in the cache folder, for all runs to share.
"""

import sys
from contextlib import ExitStack

from ml_collections import ConfigDict

from cyclesh import settings
from cyclesh.cache import cache_folder, key_of, locked
from cyclesh.claims import FREE_FIELDS
from cyclesh.data.store import Store
from cyclesh.loop import fit
from cyclesh.methods import apply_method
from cyclesh.run import Run, build_run, load_params
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.distributed import from_first
from cyclesh.state import Players
from cyclesh.workdir import CHECKPOINTS

VERSION = 1  # raise it when training makes another judge of the same data and fields


def has_finished(run: Run) -> bool:
    """Whether the whole schedule was trained and saved."""
    folder = run.workdir / CHECKPOINTS
    if not folder.is_dir():
        return False
    with Checkpoints(folder, read_only=True) as checkpoints:
        return max(checkpoints.steps(), default=0) >= run.total_steps


def judge_config(config: ConfigDict) -> ConfigDict:
    """The `baseline` on all real training data, with the run's segmentor and its own budget."""
    judge = config.copy_and_resolve_references()
    apply_method(judge, "baseline")
    constant = judge.judge.epochs - judge.judge.epochs // 2
    judge.update_from_flattened_dict(
        {
            "seed": judge.judge.seed,
            "steps": 0,
            "data.real": (),
            "data.synthetic": -1,
            "schedule.pretrain_seg_epochs": 0,
            "schedule.pretrain_gan_epochs": 0,
            "schedule.pretrain_gan_shape": 0.0,
            "schedule.constant_epochs": constant,
            "schedule.decay_epochs": judge.judge.epochs - constant,
            "schedule.early_stop": False,
            "optim.seg.rate": judge.judge.rate,
            "optim.seg.pretrain_rate": 0.0,
            "log.validate_epochs": max(judge.judge.epochs / 10, 1.0),
            **{f"init.{name}": "" for name in Players._fields},
        }
    )
    return judge


# Fields, and beginnings of fields, without a say in what a judge learns from its store.
IGNORED = (
    *FREE_FIELDS,
    "data.",
    "phantom.",
    "optim.gen.",
    "optim.disc.",
    "preset",
    "model.generator",
    "model.residual_blocks",
    "model.disc_widths",
    "model.disc_strides",
    "model.disc_leak",
    "model.norm_epsilon",
    "model.gan_init_std",
    "loss.cycle",
    "loss.identity",
    "loss.disc",
    "loss.pool_size",
    "init_checkpoint",
    "init_pretrain",
    "schedule.metric",
    "schedule.patience",
    "schedule.min_delta",
    "schedule.from_epoch",
    "log.row_steps",
)


def deciding_fields(judge: ConfigDict) -> dict:
    """Of a `judge_config`, what makes another judge where it differs."""
    fields = settings.flat(settings.to_json(judge))
    return {field: value for field, value in fields.items() if not field.startswith(IGNORED)}


def differing_judges(one: ConfigDict, two: ConfigDict) -> list[str]:
    """The fields, sorted, in which the judges of two configs differ on the same store."""
    fields, others = (deciding_fields(judge_config(config)) for config in (one, two))
    return sorted(f for f in fields.keys() | others if fields.get(f) != others.get(f))


def get_judges(config: ConfigDict, store: Store, quiet: bool, train: bool = True) -> dict | None:
    """S_A and S_B of the S-score, trained once and kept in the cache folder.

    None where they would have to be trained and ``train`` forbids it.
    """
    judge = judge_config(config)
    folder = cache_folder("judges", key_of([VERSION, store.sha256, deciding_fields(judge)]))
    with ExitStack() as stack:
        from_first(lambda: stack.enter_context(locked(folder)))
        run = build_run(judge, folder, store)
        if train:
            folder.mkdir(exist_ok=True)
            fit(run, lambda: None, quiet, name="judges:")
        elif not has_finished(run):
            if not quiet:
                missing = "no trained judges there; no S-score for the cases"
                print(f"{folder}: {missing}", file=sys.stderr)
            return None
    return load_params(run, "best").seg
