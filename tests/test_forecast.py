"""--dry_run: what it says is true, and it makes nothing."""

import json

import jax
import pytest
from command_line import spawn

from configs import default
from cyclesh import forecast
from cyclesh.claims import make_workdir, record_data
from cyclesh.data.locate import list_volumes, open_store
from cyclesh.data.phantom import PhantomSpec, write_phantom
from cyclesh.data.store import Store
from cyclesh.errors import UserError
from cyclesh.run import build_run, subset_of
from cyclesh.state import count_parameters
from tests.scan_files import BALLS, write_raw
from tests.tiny_runs import tiny_config
from tests.tiny_store import SHAPE, write_store


def test_parameters_are_those_of_the_run():
    config = tiny_config("joint")
    told = forecast.forecast(config)
    params = forecast.make_workload(config).state.params
    assert told["parameters"] == {n: count_parameters(getattr(params, n)) for n in params._fields}


def test_a_baseline_has_segmentors_only():
    told = forecast.forecast(tiny_config("baseline"))
    assert list(told["parameters"]) == list(told["activations_gb"]) == ["seg"]


def test_activations_grow_with_the_volume():
    config = tiny_config("joint")
    small = forecast.make_workload(config)
    config.data.shape = (16, 16, 16)
    large = forecast.make_workload(config)
    for name in ("gen", "seg"):
        assert forecast.activation_bytes(large, name) == 8 * forecast.activation_bytes(small, name)


def test_activations_by_hand():
    # Depth 1, 2 filters: five blocks at full resolution, two below it, each put out by its
    # convolution and by its activation; the logits by the last convolution and by the network.
    work = forecast.make_workload(tiny_config("baseline"))
    voxels, classes = 8**3, work.description.classes
    blocks = 5 * voxels * 2 + 2 * (voxels // 8) * 4
    assert forecast.activation_bytes(work, "seg") == 4 * (2 * blocks + 2 * voxels * classes)


def test_devices_share_the_memory(monkeypatch):
    for beside in ("held_bytes", "peak_memory_bytes"):
        monkeypatch.setattr(forecast, beside, lambda: 0)
    config = tiny_config("baseline")
    config.data.shape = (16, 16, 16)
    alone = forecast.forecast(config)
    config.compute.depth_devices = 2
    shared = forecast.forecast(config)
    assert (alone["devices"], shared["devices"]) == (1, 2) and "2 devices" in shared["step"]
    # Each holds half of every volume, and all parameters; both are parts of one memory.
    each = shared["memory_gb"] / 2
    assert 0.4 * alone["memory_gb"] < each < 0.8 * alone["memory_gb"]


# `--mode=bench` until it asks what its step has taken: the parts after it are of no interest here.
BENCH_OF_THE_STEP = """
from cyclesh.runtime.heap import keep_memory
keep_memory()
import os
from cyclesh import bench, main
from cyclesh.runtime.memory import peak_memory_bytes
def end():
    print(peak_memory_bytes() / 1e9, flush=True)
    os._exit(0)
bench.peak_memory_bytes = end
main.command()
"""


@pytest.mark.slow
def test_a_step_takes_what_was_foretold():
    """Each in a process of its own, at a size where the step's arrays are most of the memory."""
    words = ("--mode=bench", "--config=configs/joint.py:shape=48x64x64,steps=1")
    words = (*words, "--config.model.depth=1")
    told, done = spawn(*words, "--dry_run"), spawn(*words, program=BENCH_OF_THE_STEP)
    foretold, took = json.loads(told.out.splitlines()[-1]), float(done.out.splitlines()[-1])
    assert foretold["memory_gb"] == pytest.approx(took, rel=0.25)


def test_what_does_not_fit_is_told_with_what_to_turn(monkeypatch):
    monkeypatch.setattr(forecast, "needed_bytes", lambda *_: 2000)
    monkeypatch.setattr(forecast, "free_memory_bytes", lambda: 1000)
    config = tiny_config("joint")
    config.batch, config.model.filters = 2, 8
    told = forecast.forecast(config)
    assert not told["fits"]
    assert told["less"] == [
        "batch=1",
        "--config.compute.save_memory=True",
        "--config.compute.dtype=bfloat16",
        "filters=4",
        "a smaller shape=ZxYxX",
    ]
    assert "does not fit; turn batch=1" in forecast.to_text(told)
    monkeypatch.setattr(forecast, "free_memory_bytes", lambda: 10**13)
    assert forecast.forecast(config)["less"] == []


def test_what_saves_memory_on_an_accelerator_is_told_there(monkeypatch):
    monkeypatch.setattr(forecast.jax, "default_backend", lambda: "gpu")
    config = tiny_config("joint")
    assert forecast.knobs(config)[:2] == [
        "--config.compute.remat=True",
        "--config.compute.depth_devices=2 on 2 devices",
    ]
    config.compute.remat, config.model.generator = True, "resnet"  # which needs volumes whole
    assert forecast.knobs(config)[0] == "--config.compute.dtype=bfloat16"


def test_preview_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CYCLESH_CACHE", str(tmp_path / "cache"))
    text = forecast.preview(tiny_config("joint"), tmp_path / "run")
    assert f"would begin {tmp_path / 'run'}: joint 10 epochs" in text
    assert "the embedded phantom" in text and "M parameters" in text
    assert "joint 10 epochs; 4 steps an epoch, 40 in all\n" in text  # 4 of 10 subjects train
    assert list(tmp_path.iterdir()) == []
    config = tiny_config("joint")
    config.data.path = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such folder"):
        forecast.preview(config, tmp_path / "run")


def test_preview_refuses_what_a_store_cannot_give(tmp_path):
    store, config = write_store(tmp_path / "store"), tiny_config("joint")
    config.data.path, config.data.shape = str(store), SHAPE
    before = sorted(tmp_path.rglob("*"))
    for real, said in (((("ct", 9),), "only 3 training subjects"), ((("t1", 2),), "t1")):
        config.data.real = real
        with pytest.raises(UserError, match=said):
            forecast.preview(config, tmp_path / "run")
    config.data.real = ()
    assert "; 3 steps an epoch, 30 in all\n" in forecast.preview(config, tmp_path / "run")
    config.schedule.epoch_steps, config.steps = 5, 7
    told = forecast.preview(config, tmp_path / "run")
    assert "; 5 steps an epoch, 50 in all, at most 7\n" in told
    config.schedule.epoch_steps = config.steps = 0
    parent = build_run(config, tmp_path / "parent", Store.open(store))
    make_workdir(parent.workdir)
    record_data(parent)
    config.data.real, config.init.seg = (("ct", 2),), str(parent.workdir)
    with pytest.raises(UserError, match="was trained on ct_., which this run holds out"):
        forecast.preview(config, tmp_path / "run")
    assert {*tmp_path.rglob("*")} - {*before} == {parent.workdir, parent.workdir / "data.json"}


def test_preview_refuses_what_names_alone_tell_of_a_raw_folder(tmp_path):
    raw, config = write_raw(tmp_path / "raw"), tiny_config("joint")
    split = {"train": [], "val": ["ct_train_1", "mr_train_1"], "test": ["ct_train_2"]}
    split["train"] = ["ct_train_3", "ct_train_4", "mr_train_2", "mr_train_3", "mr_train_4"]
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json() | {"split": split}))
    config.data.path = str(raw)
    with pytest.raises(UserError, match="no test volumes of mr"):
        forecast.preview(config, tmp_path / "run")
    (raw / "ct_train" / "ct_train_1_label.nii.gz").unlink()
    with pytest.raises(UserError, match="ct_train_1_image.nii.gz: has no label"):
        forecast.preview(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "items"),
    [
        ("joint", ""), ("joint", ",real_ct=0.5,batch=2"), ("baseline", ",real_ct=2,real_mr=3"),
        ("joint", ",synthetic=2"),
    ],
)  # fmt: skip
def test_the_volumes_that_train_are_foretold(tmp_path, method, items):
    scans = tmp_path / "scans"
    write_phantom(PhantomSpec(subjects_ct=12, subjects_mr=10, extra_ct=5), scans, 1)
    entries = json.loads((scans / "dataset.json").read_text())
    train = [name for name in entries["split"]["train"] if name.startswith("ct")]
    entries["subjects"] = dict.fromkeys(train[:2], "one")  # both volumes are one patient's
    entries["split"]["train"] = [
        "one",
        *[n for n in entries["split"]["train"] if n not in train[:2]],
    ]
    (scans / "dataset.json").write_text(json.dumps(entries))
    config = default.build(f"tiny,data={scans}{items}", method)
    run = build_run(config, tmp_path / "run", open_store(config, progress=False))
    foretold = subset_of(config, list_volumes(config))
    assert foretold.epoch_steps(config.batch) == run.epoch_steps
    for kind in ("real", "source"):
        told, found = getattr(foretold, kind), getattr(run.loader.subset, kind)
        assert {d: [v.id for v in own] for d, own in told.items()} == {
            d: [v.id for v in own] for d, own in found.items()
        }


@pytest.mark.parametrize("items", ["real_ct=100", "real_t1=3", "synthetic=50"])
def test_preview_refuses_what_the_phantom_has_not(tmp_path, items):
    with pytest.raises(UserError, match=items.partition("=")[0]):
        forecast.preview(default.build(f"tiny,{items}", "joint"), tmp_path / "run")


def test_a_run_is_told_of_its_largest_step(tmp_path):
    """Which for ADA is that of pre-training, where generators move, too."""
    config = default.build("tiny,filters=2", "ada")
    config.schedule.pretrain_gan_epochs = 1
    told = forecast.preview(config, tmp_path / "run")
    assert "pretrain_gan at 1x16x24x24" in told


def test_both_dry_runs_foretell_one_step(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))  # once for both
    smallest = ("--config.model.depth=1", "--config.compute.lowering=native")
    words = ["--config=configs/joint.py:tiny,filters=2", *smallest, "--dry_run"]
    train = spawn(*words, f"--workdir={tmp_path / 'run'}")
    bench = spawn("--mode=bench", *words)
    assert (train.status, bench.status) == (0, 0)
    (step,) = (line for line in bench.out.splitlines() if line.startswith("joint at 1x16x24x24"))
    assert step in train.out.splitlines()  # the devices that take it included


def test_a_step_that_the_compiler_refuses_does_not_fit(monkeypatch):
    def refuse(_, message="RESOURCE_EXHAUSTED: Used 20.0G of 15.75G hbm."):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    told = forecast.forecast(tiny_config("joint"))
    assert told["memory_gb"] is None and not told["fits"] and told["less"]
    json.dumps(told, allow_nan=False)
    assert "GB free: does not fit; turn " in forecast.to_text(told)
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda _: refuse(_, "INTERNAL: else"))
    with pytest.raises(jax.errors.JaxRuntimeError):
        forecast.forecast(tiny_config("joint"))
