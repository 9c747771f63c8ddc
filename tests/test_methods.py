"""The table of experiments: what each method sets, and that nothing else differs between them."""

import pytest

from configs import default
from cyclesh import settings
from cyclesh.methods import METHODS, apply_method

# moves, (real, fake, rec) that S reads, gamma, generator: the table of the paper's experiments.
TABLE = {
    "baseline": (("seg",), (1, 0, 0), 0, "unet"),
    "gan": (("gen", "disc"), (1, 0, 0), 0, "unet"),
    "cyclegan": (("gen", "disc"), (1, 0, 0), 0, "resnet"),
    "ada": (("seg",), (1 / 2, 1 / 4, 1 / 4), 0, "unet"),
    "joint": (("gen", "disc", "seg"), (1 / 3, 1 / 3, 1 / 3), 1, "unet"),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_method_is_its_row(name):
    config = default.build("mmwhs", name)
    reads = tuple(config.loss[f"seg_{kind}"] for kind in ("real", "fake", "rec"))
    assert config.method == name
    assert (config.moves, reads, config.loss.shape, config.model.generator) == TABLE[name]


def test_there_are_five():
    assert METHODS.keys() == TABLE.keys()


@pytest.mark.parametrize("preset", default.PRESETS)
def test_methods_differ_in_nothing_else(preset):
    own = {"method", "moves", "loss", "model"}
    common = []
    for name in METHODS:
        entries = settings.to_json(default.build(preset, name))
        entries["loss"] = {k: v for k, v in entries["loss"].items() if not k.startswith("s")}
        entries["model"].pop("generator")
        common.append(entries)
        assert own <= entries.keys()
        for field in ("method", "moves"):
            entries.pop(field)
    assert all(entries == common[0] for entries in common)
    assert {"cycle", "identity", "disc", "pool_size"} <= common[0]["loss"].keys()


def test_a_method_replaces_the_one_before():
    config = apply_method(default.build("mmwhs", "joint"), "baseline")
    assert config == default.build("mmwhs", "baseline")
