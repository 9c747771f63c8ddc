"""The grammar of --config, its refusals, and the checks of every field."""

import importlib
import json
from pathlib import Path

import pytest

from configs import default
from cyclesh import settings
from cyclesh.errors import UserError
from cyclesh.methods import METHODS
from cyclesh.settings import from_json, split_argument, to_json, validate, value_of

CONFIGS = sorted(path.stem for path in Path(default.__file__).parent.glob("*.py"))
METHOD_CONFIGS = [name for name in CONFIGS if name != "default"]


def refusal(call, *args) -> str:
    """The one line that a user's mistake gets."""
    with pytest.raises(UserError) as caught:
        call(*args)
    message = str(caught.value)
    assert message.startswith("--config: ") and "\n" not in message
    return message


# ----------------------------------------------------------------------------------- the argument


@pytest.mark.parametrize(
    ("argument", "preset", "items"),
    [
        (None, "", {}),
        ("", "", {}),
        ("tiny", "tiny", {}),
        ("seed=1", "", {"seed": "1"}),
        ("abdomen,seed=1,shape=32x40x40", "abdomen", {"seed": "1", "shape": "32x40x40"}),
        ("data=/scans/a=b", "", {"data": "/scans/a=b"}),
    ],
)
def test_a_preset_then_items(argument, preset, items):
    assert split_argument(argument) == (preset, items)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("seed=1,tiny", "'tiny'"),
        ("tiny,mmwhs", "'mmwhs'"),
        ("tiny,seed", "'seed'"),
        ("shape=32,40,40", "'40'"),
        ("tiny,seed=", "'seed='"),
        ("seed=1,filters=4,seed=2", "seed"),
    ],
)
def test_what_is_no_item_is_refused(argument, named):
    assert named in refusal(split_argument, argument)


# A value for every key, and the fields that it must set.
KEYS = {
    "data": ("/scans/heart", {"data.path": "/scans/heart"}),
    "seed": ("3", {"seed": 3}),
    "shape": ("32x40x48", {"data.shape": (32, 40, 48), "data.override": ("shape",)}),
    "spacing": ("6x4x4.5", {"data.spacing_mm": (6, 4, 4.5), "data.override": ("spacing_mm",)}),
    "filters": ("12", {"model.filters": 12}),
    "batch": ("2", {"batch": 2}),
    "steps": ("7", {"steps": 7}),
    "epochs": ("9", {"schedule.constant_epochs": 5, "schedule.decay_epochs": 4}),
    "synthetic": ("5", {"data.synthetic": 5}),
    "real_ct": ("4", {"data.real": (("ct", 4),)}),
    "real_mr": ("0.14", {"data.real": (("mr", 0.14),)}),
}


def fields_of(config) -> dict:
    return settings.flat(config.to_dict())


@pytest.mark.parametrize("key", KEYS)
def test_each_key_sets_its_fields_and_no_others(key):
    text, expected = KEYS[key]
    plain, changed = (
        fields_of(default.build(argument, "joint")) for argument in ("", f"{key}={text}")
    )
    assert {f: v for f, v in changed.items() if v != plain[f]} == expected


def test_every_key_is_tested():
    assert {key for key in KEYS if not key.startswith("real_")} == settings.KEYS.keys()


@pytest.mark.parametrize(
    "item",
    [
        *("seed=-1", "seed=1.5", "seed=one"),
        *("filters=0", "filters=8.0", "batch=0", "steps=0", "epochs=0", "synthetic=0"),
        *("shape=32x40", "shape=32", "shape=32x40x40x40", "shape=32xx40", "shape=0x40x40"),
        *("shape=15x40x40"),  # three downsamplings need sixteen voxels
        *("spacing=0", "spacing=-1", "spacing=4x4", "spacing=four", "spacing=nan", "spacing=inf"),
        *("real_ct=0", "real_ct=1", "real_ct=-2", "real_ct=0.0", "real_ct=1.5", "real_ct=all"),
        *("real_ct=nan", "real_=3", "colour=red"),
    ],
)
def test_a_bad_value_is_refused_with_its_key(item):
    message = refusal(default.build, item, "joint")
    assert item.split("=")[0] in message


def test_an_unknown_key_is_answered_with_the_known_ones():
    message = refusal(default.build, "sede=1", "joint")
    assert all(key in message for key in ("'sede'", *settings.KEYS, "real_<modality>"))


def test_an_unknown_preset_is_answered_with_the_known_ones():
    message = refusal(default.build, "tny,seed=1", "joint")
    assert all(name in message for name in ("'tny'", *default.PRESETS))


def test_one_number_of_spacing_is_for_all_axes():
    assert default.build("spacing=3", "joint").data.spacing_mm == (3.0, 3.0, 3.0)


def test_a_relative_folder_is_that_of_the_caller(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default.build("data=heart", "joint").data.path == str(tmp_path / "heart")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default.build("data=~/heart", "joint").data.path == "/home/someone/heart"


def test_items_go_over_the_preset():
    config = default.build("abdomen,filters=3,epochs=9", "joint")
    assert (config.model.filters, config.schedule.constant_epochs) == (3, 5)
    assert config.data.shape == default.PRESETS["abdomen"]["data.shape"]


def test_two_modalities_can_be_limited_at_once():
    config = default.build("real_ct=3,real_mr=0.5", "joint")
    assert config.data.real == (("ct", 3), ("mr", 0.5))


def test_what_overrides_the_data_does_not_depend_on_the_process():
    # A set of texts has another order in each process, and runs compare their configs.
    for argument in ("shape=16x24x24,spacing=8", "spacing=8,shape=16x24x24"):
        assert default.build(argument, "joint").data.override == ("shape", "spacing_mm")
    assert default.build("tiny,shape=16x24x24", "joint").data.override == ("shape", "spacing_mm")


# ------------------------------------------------------------------------------------ the configs


def get_config(name: str, argument: str):
    return importlib.import_module(f"configs.{name}").get_config(argument)


def test_there_is_a_config_for_each_method():
    assert set(METHOD_CONFIGS) == set(METHODS)


@pytest.mark.parametrize("preset", ["", *default.PRESETS])
@pytest.mark.parametrize("name", METHOD_CONFIGS)
def test_every_config_builds_with_every_preset(name, preset):
    config = get_config(name, preset)
    validate(config)
    assert config.method == name
    assert config.preset == (preset or "phantom")
    for field, value in default.PRESETS[config.preset].items():
        # ada pre-trains for as long as it fine-tunes, whatever the preset.
        if name == "ada" and field.startswith("schedule.pretrain_"):
            continue
        assert value_of(config, field) == METHODS[name].get(field, value)
    with pytest.raises(AttributeError):
        config.unheard_of = 1  # locked: a misspelled override is an error


@pytest.mark.parametrize("preset", default.PRESETS)
def test_a_preset_fits_the_fields_it_changes(preset):
    plain = fields_of(default.fields())
    for field, value in default.PRESETS[preset].items():
        assert type(value) is type(plain[field]), field


@pytest.mark.parametrize("name", METHOD_CONFIGS)
def test_a_config_survives_json(name):
    config = get_config(name, "abdomen,seed=4,real_ct=0.14,shape=24x24x24")
    again = from_json(json.loads(json.dumps(to_json(config))))
    assert again == config and fields_of(again) == fields_of(config)
    assert again.is_locked and isinstance(again.data.structures[0], tuple)


def test_flat_names_every_field():
    assert settings.flat({"a": {"b": {"c": 1}, "d": (2,)}, "e": 3}) == {
        "a.b.c": 1,
        "a.d": (2,),
        "e": 3,
    }


# ------------------------------------------------------------------------------------- validation

INF, NAN = float("inf"), float("nan")
AT_LEAST_ONE = ("batch", "model.filters", "model.depth", "model.residual_blocks", "log.row_steps")
COUNTS = (
    *("steps", "seed", "data.processes", "loss.pool_size", "log.report_cases"),
    *("log.keep_every_steps", "phantom.seed", "phantom.extra", "judge.seed"),
    *("schedule.pretrain_seg_epochs", "schedule.pretrain_gan_epochs", "schedule.from_epoch"),
    *("schedule.constant_epochs", "schedule.decay_epochs"),
)
NOT_NEGATIVE = (
    *("optim.clip_norm", "loss.cycle", "loss.shape", "loss.identity", "loss.disc"),
    *("loss.seg_real", "loss.seg_fake", "loss.seg_rec", "schedule.min_delta"),
    *("schedule.pretrain_gan_shape", "optim.gen.pretrain_rate", "optim.seg.pretrain_rate"),
    *("augment.shift_mm", "augment.rotate_deg", "augment.scale"),
)
POSITIVE = (
    *("log.validate_epochs", "judge.rate", "model.norm_epsilon", "model.seg_init_gain"),
    *("optim.gen.rate", "optim.disc.rate", "optim.seg.rate"),
)
BAD = [
    ("method", "ours"),
    ("moves", ()),
    ("moves", ("gen", "dics")),
    ("moves", ("gen", "seg")),
    ("moves", ("disc",)),
    ("model.generator", "u-net"),
    ("compute.dtype", "float16"),
    ("compute.lowering", "fast"),
    ("compute.home_devices", 3),
    ("model.disc_strides", (2.0, 2.0, 1.0, 1.0)),
    ("judge.epochs", 0),
    ("schedule.patience", 0),
    ("schedule.metric", "val/loss"),
    ("model.disc_leak", 1.0),
    ("augment.scale", 1.0),
    ("model.disc_strides", (2, 2, 1)),
    ("model.disc_widths", (2, 4)),
    ("model.disc_widths", ("a", 2, 4, 8)),
    ("model.disc_strides", ([1], 2, 2, 2)),
    ("model.depth", 100_000),
    ("moves", (["gen"],)),
    ("data.shape", (16, 16, 15)),
    ("data.real", ("ct", 3)),
    ("data.real", (("ct", 3), ("ct", 4))),
    ("data.fractions", ("a", "b", "c")),
    ("data.fractions", (0.4, 0.1, None)),
    ("data.override", (("a",), [1])),
    *[(field, value) for field in AT_LEAST_ONE for value in (0, -1)],
    *[(field, -1) for field in COUNTS],
    *[(field, value) for field in NOT_NEGATIVE for value in (-1.0, INF, NAN)],
    *[(field, value) for field in POSITIVE for value in (0.0, -1.0, INF, NAN)],
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_field_that_cannot_work_is_named(field, value):
    config = default.build("mmwhs", "joint")
    config.update_from_flattened_dict({field: value})
    message = refusal(validate, config)
    named = "model.disc_strides" if value == (2, 4) else field
    assert f"--config: {named} is " in message and "; " in message


def test_the_discriminators_norm_sees_more_than_one_voxel():
    config = default.build("tiny,shape=16x16x16", "joint")
    config.model.disc_widths = (2, 4, 8, 8)
    config.model.disc_strides = (2, 2, 2, 2, 1)
    assert "--config: model.disc_strides is" in refusal(validate, config)
    config.model.disc_strides = (2, 2, 2, 1, 2)
    validate(config)
    config.model.disc_widths, config.model.disc_strides = (2,), (2, 2)  # no norm at all
    validate(config)


WRONG_KINDS = [
    ("data.shape", (32, 32)),
    ("data.shape", ("a", 40, 40)),
    ("data.shape", (32.5, 40, 40)),
    ("data.spacing_mm", ("a", 4, 4)),
    ("data.structures", (("LV", "a"),)),
    ("data.structures", (("LV", 1), ("LV", 2))),
    ("data.aliases", ((1,),)),
    ("data.dropped", (1.5,)),
    ("data.windows", (("fixed", 1, 2),)),
    ("data.windows", (("percentiles", 0.5, 99.5), ("fixed", 0, 1))),
    ("data.modalities", ("ct",)),
]


@pytest.mark.parametrize(("field", "value"), WRONG_KINDS)
def test_what_the_data_are_is_said_as_in_their_own_file(field, value):
    config = default.build("mmwhs", "joint")
    config.update_from_flattened_dict({field: value})
    assert refusal(validate, config).startswith(f"--config: {field}")


def test_some_epoch_and_some_volumes_must_remain():
    config = default.build("mmwhs", "joint")
    config.schedule.constant_epochs = config.schedule.decay_epochs = 0
    assert "schedule.constant_epochs" in refusal(validate, config)
    config = default.build("mmwhs", "joint")
    config.loss.seg_real = config.loss.seg_fake = config.loss.seg_rec = 0.0
    assert "loss.seg_real" in refusal(validate, config)
    config.moves = ("gen", "disc")  # who reads nothing need not move
    validate(config)


@pytest.mark.parametrize(
    ("method", "metric"), [("gan", "val/seg_loss"), ("gan", "val/dice"), ("ada", "val/s_score")]
)
def test_a_run_stops_early_by_what_it_trains(method, metric):
    config = default.build("mmwhs", method)
    config.schedule.metric = metric
    validate(config)  # which only matters where it may stop
    config.schedule.early_stop = True
    assert f"schedule.metric is {metric}; {method} does not train" in refusal(validate, config)
    config.schedule.metric = "val/s_score" if method == "gan" else "val/seg_loss"
    validate(config)


def test_the_edge_of_what_works_is_allowed():
    config = default.build("mmwhs,shape=16x16x16,batch=1,filters=1", "joint")
    config.loss.pool_size = config.schedule.decay_epochs = 0
    config.augment.update({"shift_mm": 0.0, "rotate_deg": 0.0, "scale": 0.0})
    validate(config)


def test_homes_and_slabs_do_not_go_together():
    config = default.build("tiny", "joint")
    config.compute.home_devices = config.compute.depth_devices = 2
    with pytest.raises(UserError, match=r"compute.home_devices.*depth is spread.*use 1"):
        validate(config)


def test_a_config_of_before_there_were_homes_is_read():
    entries = to_json(default.build("tiny", "joint"))
    del entries["compute"]["home_devices"]
    assert from_json(entries).compute.home_devices == 0
