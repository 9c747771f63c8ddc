"""The grammar of `--config=FILE:PRESET,key=value,...`, and the checks of every field."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from cyclesh import ops
from cyclesh.errors import UserError
from cyclesh.methods import METHODS

GENERATORS = ("unet", "resnet")
DTYPES = ("float32", "bfloat16")
MOVERS = ("gen", "disc", "seg")


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
    """Set the fields that the short keys stand for (README, "Keys"), in place."""
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
    if len(parts) != 3:
        raise UserError(f"--config: shape={text}: give ZxYxX in voxels, as in 32x40x40")
    config.data.shape = tuple(_integer(key, part, 1) for part in parts)
    config.data.override = tuple({*config.data.override, "shape"})


def _set_spacing(config: ConfigDict, key: str, text: str) -> None:
    try:
        values = tuple(float(part) for part in text.split("x"))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(0 < v < 100 for v in values):
        raise UserError(f"--config: spacing={text}: give millimetres, as in 4 or 6x4x4 (ZxYxX)")
    config.data.spacing_mm = values * 3 if len(values) == 1 else values
    config.data.override = tuple({*config.data.override, "spacing_mm"})


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


def validate(config: ConfigDict) -> None:
    """Raises UserError naming the first field that cannot work, and what would."""

    def require(holds: bool, field: str, hint: str) -> None:
        if not holds:
            raise UserError(f"--config: {field} is {value_of(config, field)}; {hint}")

    require(config.method in METHODS, "method", f"use one of {', '.join(METHODS)}")
    require(
        bool(config.moves) and set(config.moves) <= set(MOVERS), "moves", f"use some of {MOVERS}"
    )
    require(
        ("gen" in config.moves) == ("disc" in config.moves), "moves", "gen and disc go together"
    )
    require(config.model.generator in GENERATORS, "model.generator", f"use one of {GENERATORS}")
    require(config.compute.dtype in DTYPES, "compute.dtype", f"use one of {DTYPES}")
    require(
        config.compute.lowering in ops.LOWERINGS,
        "compute.lowering",
        f"use one of {ops.LOWERINGS}",
    )
    for field in ("batch", "model.filters", "model.depth", "model.residual_blocks"):
        require(value_of(config, field) >= 1, field, "use 1 or more")
    for field in (
        "steps",
        "seed",
        "data.processes",
        "loss.pool_size",
        "log.report_cases",
        "log.keep_every_steps",
        "phantom.seed",
        "phantom.extra",
        "judge.seed",
        "schedule.pretrain_seg_epochs",
        "schedule.pretrain_gan_epochs",
        "schedule.constant_epochs",
        "schedule.decay_epochs",
        "schedule.from_epoch",
        "optim.clip_norm",
        "loss.cycle",
        "loss.shape",
        "loss.identity",
        "loss.disc",
        "loss.seg_real",
        "loss.seg_fake",
        "loss.seg_rec",
        "augment.shift_mm",
        "augment.rotate_deg",
        "augment.scale",
        "schedule.min_delta",
    ):
        value = value_of(config, field)
        require(math.isfinite(value) and value >= 0, field, "use 0 or more")
    for field in (
        "log.validate_epochs",
        "judge.epochs",
        "judge.rate",
        "model.norm_epsilon",
        "optim.gen.rate",
        "optim.disc.rate",
        "optim.seg.rate",
    ):
        value = value_of(config, field)
        require(math.isfinite(value) and value > 0, field, "use a number above 0")
    require(config.log.row_steps >= 1, "log.row_steps", "use 1 or more")
    require(config.schedule.patience >= 1, "schedule.patience", "use 1 or more")
    require(config.augment.scale < 1, "augment.scale", "use less than 1")
    epochs = config.schedule.constant_epochs + config.schedule.decay_epochs
    require(epochs >= 1, "schedule.constant_epochs", "give the method at least one epoch")
    require(
        len(config.model.disc_strides) == len(config.model.disc_widths) + 1,
        "model.disc_strides",
        "give one stride for each of disc_widths and one for the last layer",
    )
    require(
        "seg" not in config.moves
        or config.loss.seg_real + config.loss.seg_fake + config.loss.seg_rec > 0,
        "loss.seg_real",
        "the segmentors must read something",
    )
    smallest = 2 ** (config.model.depth + 1)
    require(
        len(config.data.shape) == 3 and min(config.data.shape) >= smallest,
        "data.shape",
        f"{config.model.depth} downsamplings need at least {smallest} voxels along each axis",
    )


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
    """The locked config that `to_json` wrote: lists are tuples again."""

    def tuples(value):
        if isinstance(value, Mapping):
            return {name: tuples(inner) for name, inner in value.items()}
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(tuples(entries)).lock()
