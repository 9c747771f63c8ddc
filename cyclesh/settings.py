"""The grammar of `--config=FILE:PRESET,key=value,...`, and the checks of every field."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from cyclesh import ops
from cyclesh.data.description import description_of, require_levels
from cyclesh.data.splits import FEWEST
from cyclesh.errors import UserError
from cyclesh.methods import METHODS, translates

GENERATORS = ("unet", "resnet")
DTYPES = ("float32", "bfloat16")
MOVERS = ("gen", "disc", "seg")


@dataclass(frozen=True)
class StopMetric:
    """A validation figure that may stop a run early."""

    sign: int  # 1 where less is better, -1 where more is
    mover: str  # the networks it judges: where they stand still it says nothing


STOP_METRICS = {
    "val/seg_loss": StopMetric(1, "seg"),
    "val/dice": StopMetric(-1, "seg"),
    "val/s_score": StopMetric(-1, "gen"),
}


def split_argument(argument: str) -> tuple[str, dict[str, str]]:
    """``"tiny,seed=1"`` -> ``("tiny", {"seed": "1"})``; the preset is "" when none is given."""
    items = [item for item in (argument or "").split(",") if item]
    preset = items.pop(0) if items and "=" not in items[0] else ""
    pairs = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not value:
            raise UserError(f"--config: {item!r} is not key=value (a preset comes first)")
        if key in pairs:
            raise UserError(f"--config: {key} is given twice; keep one")
        pairs[key] = value
    return preset, pairs


def apply_items(config: ConfigDict, items: Mapping[str, str]) -> None:
    """Set the fields that the short keys (README) stand for, in place."""
    for key, text in items.items():
        if key.startswith("real_") and len(key) > len("real_"):
            amount = _amount(key, text)
            config.data.real = (*config.data.real, (key.removeprefix("real_"), amount))
        elif key in KEYS:
            KEYS[key](config, key, text)
        else:
            known = ", ".join([*KEYS, "real_<modality>"])
            raise UserError(f"--config: unknown key {key!r}; known are {known}")


def _integer(key: str, text: str, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or value < low:
        raise UserError(f"--config: {key}={text}: give a whole number of at least {low}")
    return value


def _set_integer(field: str, low: int) -> Callable:
    def setter(config: ConfigDict, key: str, text: str) -> None:
        config.update_from_flattened_dict({field: _integer(key, text, low)})

    return setter


def _set_data(config: ConfigDict, key: str, text: str) -> None:
    config.data.path = str(Path(text).expanduser().absolute())


def _set_shape(config: ConfigDict, key: str, text: str) -> None:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise UserError(f"--config: shape={text}: give ZxYxX in voxels, as in 32x40x40")
    config.data.shape = tuple(map(int, parts))
    config.data.override = tuple(sorted({*config.data.override, "shape"}))


def _set_spacing(config: ConfigDict, key: str, text: str) -> None:
    try:
        values = tuple(float(part) for part in text.split("x"))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(0 < v < 100 for v in values):
        raise UserError(f"--config: spacing={text}: give millimetres, as in 4 or 6x4x4 (ZxYxX)")
    config.data.spacing_mm = values * 3 if len(values) == 1 else values
    config.data.override = tuple(sorted({*config.data.override, "spacing_mm"}))


def _set_epochs(config: ConfigDict, key: str, text: str) -> None:
    epochs = _integer(key, text, 1)
    config.schedule.constant_epochs = epochs - epochs // 2
    config.schedule.decay_epochs = epochs // 2


def _amount(key: str, text: str) -> int | float:
    try:
        amount = float(text) if "." in text else int(text)
    except ValueError:
        amount = 0
    if (isinstance(amount, float) and 0 < amount <= 1) or (isinstance(amount, int) and amount >= 2):
        return amount
    raise UserError(
        f"--config: {key}={text}: give a count from 2 up, or a share with a point (0.14)"
    )


KEYS: dict[str, Callable[[ConfigDict, str, str], None]] = {
    "data": _set_data,
    "seed": _set_integer("seed", 0),
    "shape": _set_shape,
    "spacing": _set_spacing,
    "filters": _set_integer("model.filters", 1),
    "batch": _set_integer("batch", 1),
    "steps": _set_integer("steps", 1),
    "epochs": _set_epochs,
    "synthetic": _set_integer("data.synthetic", 1),
}


# Fields by the numbers that they may hold; every number of the config is in one of the rows,
# but for `data.synthetic` and `phantom.subjects`, which have checks of their own.
ONE_OR_MORE = (
    "batch model.filters model.depth model.residual_blocks log.row_steps schedule.patience "
    "compute.depth_devices"
)
ZERO_OR_MORE = (
    "steps seed data.processes data.split_seed phantom.seed phantom.extra judge.seed "
    "phantom.cohort_difference model.gan_init_std loss.cycle loss.shape loss.identity loss.disc "
    "loss.seg_real loss.seg_fake loss.seg_rec loss.pool_size optim.clip_norm "
    "augment.shift_mm augment.rotate_deg log.report_cases log.keep_every_steps "
    "schedule.pretrain_seg_epochs schedule.pretrain_gan_epochs schedule.constant_epochs "
    "schedule.decay_epochs schedule.from_epoch schedule.min_delta schedule.pretrain_gan_shape "
    "schedule.epoch_steps "
    "compute.data_devices compute.home_devices optim.skip_nonfinite "
    "optim.gen.pretrain_rate optim.disc.pretrain_rate optim.seg.pretrain_rate"
)
ABOVE_ZERO = (
    "log.validate_epochs judge.epochs judge.rate model.norm_epsilon model.seg_init_gain "
    "optim.gen.rate optim.disc.rate optim.seg.rate optim.gen.eps optim.disc.eps optim.seg.eps"
)
ZERO_TO_BELOW_ONE = (
    "optim.gen.b1 optim.gen.b2 optim.disc.b1 optim.disc.b2 optim.seg.b1 optim.seg.b2 augment.scale "
    "model.seg_leak model.disc_leak"
)
LARGEST = 2**31  # seeds and counts are 32-bit
DEEPEST = 16  # downsamplings: more than any volume can be halved
CHOICES = {
    "method": tuple(METHODS),
    "model.generator": GENERATORS,
    "init_checkpoint": ("best", "last"),
    "schedule.metric": tuple(STOP_METRICS),
    "compute.dtype": DTYPES,
    "compute.lowering": ops.LOWERINGS,
}


def validate(config: ConfigDict, sections: tuple[str, ...] = ()) -> None:
    """Raises UserError naming the first field that cannot work, and what would.

    sections: of a config that has only these and `data.shape`; empty: a whole one.
    """

    def asked(names: Iterable[str]) -> list[str]:
        return [name for name in names if not sections or name.startswith(sections)]

    def require(holds: bool, field: str, hint: str) -> None:
        if not holds:
            raise UserError(f"--config: {field} is {value_of(config, field)}; {hint}")

    def each_within(names: str, holds: Callable[[float], bool], hint: str) -> None:
        for name in asked(names.split()):
            value = value_of(config, name)
            require(math.isfinite(value) and holds(value), name, hint)
            require(value < LARGEST, name, f"use less than {LARGEST}")

    each_within(ONE_OR_MORE, lambda v: v >= 1, "use 1 or more")
    each_within(ZERO_OR_MORE, lambda v: v >= 0, "use 0 or more")
    each_within(ABOVE_ZERO, lambda v: v > 0, "use a number above 0")
    each_within(ZERO_TO_BELOW_ONE, lambda v: 0 <= v < 1, "use 0 or more, and less than 1")
    each_within("phantom.subjects", lambda v: v >= FEWEST, f"a split needs {FEWEST} or more")
    for field in asked(CHOICES):
        choices = CHOICES[field]
        require(value_of(config, field) in choices, field, f"use one of {', '.join(choices)}")
    if not sections:
        description_of(config.data)  # before the networks, which must suit its shape
    _validate_networks(config, require)
    if not sections:
        _validate_method(config, require)
        _validate_data(config.data, require)
        _validate_devices(config, require)


def _validate_method(config: ConfigDict, require: Callable) -> None:
    moves, loss, schedule = config.moves, config.loss, config.schedule
    require(
        bool(moves) and all(name in MOVERS for name in moves),
        "moves",
        f"use some of {', '.join(MOVERS)}",
    )
    require(("gen" in moves) == ("disc" in moves), "moves", "gen and disc move together")
    reads = loss.seg_real + loss.seg_fake + loss.seg_rec
    require("seg" not in moves or reads > 0, "loss.seg_real", "the segmentors must read something")
    require(
        not schedule.early_stop or STOP_METRICS[schedule.metric].mover in moves,
        "schedule.metric",
        f"{config.method} does not train the networks that it judges; use another",
    )
    judged = "seg" in moves and translates(config)
    require(
        not judged or config.init.seg or config.seed != config.judge.seed,
        "seed",
        "the judges have it, and segmentors that begin as they did would please them: use another",
    )
    epochs = schedule.constant_epochs + schedule.decay_epochs
    require(epochs >= 1, "schedule.constant_epochs", "give the method at least one epoch")


def _validate_networks(config: ConfigDict, require: Callable) -> None:
    widths, strides = config.model.disc_widths, config.model.disc_strides
    require(
        bool(widths) and all(isinstance(width, int) and width >= 1 for width in widths),
        "model.disc_widths",
        "use 1 or more for each layer",
    )
    require(
        len(strides) == len(widths) + 1
        and all(isinstance(stride, int) and stride in (1, 2) for stride in strides),
        "model.disc_strides",
        "give 1 or 2 for each of disc_widths and for the last layer",
    )
    require(config.model.depth <= DEEPEST, "model.depth", f"use {DEEPEST} or less")
    reach = math.prod(strides[:-1])
    require(
        len(widths) == 1 or max(config.data.shape) > reach,
        "model.disc_strides",
        f"its last InstanceNorm would see one voxel of {tuple(config.data.shape)}; use fewer 2s",
    )
    require_levels(config.data.shape, config.model.depth, "--config: data.shape")


def _validate_devices(config: ConfigDict, require: Callable) -> None:
    """What can be said without knowing which devices there are (`runtime.sharding`)."""
    compute = config.compute
    rows, slabs = compute.data_devices, compute.depth_devices
    require(compute.home_devices <= 2, "compute.home_devices", "there are two domains; use 1 or 2")
    require(
        compute.home_devices < 2 or slabs == 1,
        "compute.home_devices",
        "volumes whose depth is spread are not spread by domain; use 1",
    )
    require(
        rows == 0 or config.batch % rows == 0,
        "compute.data_devices",
        f"a batch of {config.batch} does not divide by it; use a divisor, or 0",
    )
    require(
        slabs == 1 or config.model.generator == "unet",
        "compute.depth_devices",
        "a resnet generator needs volumes whole; use 1",
    )


def _validate_data(data: ConfigDict, require: Callable) -> None:
    require(
        len(data.fractions) == 3
        and all(isinstance(share, (int, float)) for share in data.fractions)
        and min(data.fractions) > 0
        and abs(sum(data.fractions) - 1) < 1e-6,
        "data.fractions",
        "give shares of train, val and test that add to 1",
    )
    fields = ("shape", "spacing_mm")
    require(
        all(field in fields for field in data.override),
        "data.override",
        f"use some of {', '.join(fields)}",
    )
    require(
        data.synthetic == -1 or data.synthetic >= 1,
        "data.synthetic",
        "use 1 or more, or -1 for all",
    )
    require(
        all(isinstance(entry, tuple) and len(entry) == 2 for entry in data.real),
        "data.real",
        "give pairs of modality and amount, as in (('ct', 3),)",
    )
    names = [name for name, _ in data.real]
    require(all(names.count(n) == 1 for n in names), "data.real", "name each modality once")
    for name, amount in data.real:
        _amount(f"real_{name}", str(amount))


def value_of(config: ConfigDict, field: str):
    """The value of a dotted field."""
    value = config
    for name in field.split("."):
        value = value[name]
    return value


def flat(entries: Mapping, prefix: str = "") -> dict:
    """Nested mappings as one dict with dotted keys."""
    rows = {}
    for key, value in entries.items():
        nested = isinstance(value, Mapping)
        rows |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return rows


def to_json(config: ConfigDict) -> dict:
    """Plain JSON types; tuples become lists."""
    return json.loads(config.to_json())


def from_json(entries: Mapping) -> ConfigDict:
    """The locked config that `to_json` wrote: lists are tuples again.

    One that was written before there was `compute.home_devices` gets its default: which devices
    compute changes a run by rounding only.
    """

    def tuples(value):
        if isinstance(value, Mapping):
            return {name: tuples(inner) for name, inner in value.items()}
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    config = ConfigDict(tuples(entries))
    if "home_devices" not in config.get("compute", {}):
        config.compute.home_devices = 0
    return config.lock()
