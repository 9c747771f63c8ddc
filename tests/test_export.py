"""Exports: the same model as the workdir's, the same bytes each time, nothing else needed."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import ROOT, call, spawn
from infer_files import STEP, write_scan, write_workdir
from ml_collections import ConfigDict

from cyclesh import infer
from cyclesh.deployed import load
from cyclesh.errors import UserError
from cyclesh.export import export
from cyclesh.outputs import Task
from cyclesh.workdir import read_config

NAMES = {"weights.safetensors", "config.json", "README.md"}
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/weights.safetensors"))
UNKNOWN = dict.fromkeys(("mean", "shell", "core"))
DICE = {"mean": 0.75, "shell": 0.5, "core": 1.0}
SCORES = {
    "test": {"ct": {"n": 5, "dice": DICE, "assd_mm": UNKNOWN, "hd95_mm": UNKNOWN}, "mr": None},
    "s_score": {"ct": None, "mr": None},
    "judge": dict.fromkeys(
        ("ct", "mr"), {"dice": UNKNOWN, "ceiling": None, "ceiling_by_structure": None}
    ),
    "translation": {"ct": None, "mr": None},
    "scored_split": "test",
    "checkpoint": {"step": STEP},
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return write_workdir(tmp_path_factory.mktemp("runs") / "joint")


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "joint"
    export(workdir, folder)
    return folder


@pytest.fixture(autouse=True)
def own_compilation_cache(monkeypatch):
    monkeypatch.setattr(infer, "use_compilation_cache", lambda _: None)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_twice_the_same_bytes_without_place(workdir, exported, tmp_path):
    moved = Path(shutil.copytree(workdir, tmp_path / "elsewhere" / "another name"))
    size = export(moved, tmp_path / "out" / "export")
    files = contents(tmp_path / "out" / "export")
    assert files == contents(exported) and set(files) == NAMES
    assert size == sum(map(len, files.values()))
    for content in files.values():
        assert b"elsewhere" not in content and str(workdir).encode() not in content
    export(workdir, tmp_path / "out" / "export")  # an export may be replaced by one
    assert contents(tmp_path / "out" / "export") == files
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["export"]


def test_the_networks_are_those_of_the_workdir(workdir, exported):
    ours, theirs = load(exported), load(workdir)
    for player in ("gen", "seg"):
        jax.tree.map(np.testing.assert_array_equal, ours.trees(player), theirs.trees(player))
    assert ours.windows == theirs.windows and ours.description == theirs.description
    assert ours.provenance == theirs.provenance and ours.config.model == theirs.config.model
    assert not ours.has("disc")


@pytest.mark.parametrize("task", [Task(to="mr"), Task(modality="ct", probabilities=True)])
def test_results_are_equal_to_the_bit(workdir, exported, tmp_path, task):
    scan = write_scan(tmp_path / "scan.nii.gz", "ct")
    for folder in (workdir, exported):
        infer.run(folder, task, scan, tmp_path / folder.parent.name / "r.nii.gz", quiet=True)
    first, second = (contents(tmp_path / folder.parent.name) for folder in (workdir, exported))
    assert len(first) >= 3
    sidecars = [json.loads(files.pop("r.json")) for files in (first, second)]
    assert first == second
    assert [sidecar["model"].pop("workdir") for sidecar in sidecars] == [
        str(workdir), str(exported),
    ]  # fmt: skip
    assert sidecars[0] == sidecars[1]


def test_half_precision_is_half_the_size_and_nearly_the_same(workdir, exported, tmp_path):
    size = export(workdir, tmp_path / "half", half=True)
    small, large = (len(contents(f)["weights.safetensors"]) for f in (tmp_path / "half", exported))
    assert small < 0.65 * large and size < small + 10_000
    assert "are float16" in contents(tmp_path / "half")["README.md"].decode()
    tree, exact = load(tmp_path / "half").trees("gen"), load(exported).trees("gen")
    for kernel, reference in zip(jax.tree.leaves(tree), jax.tree.leaves(exact), strict=True):
        assert kernel.dtype == np.float32
        np.testing.assert_allclose(kernel, reference, rtol=2**-11, atol=2**-24)
    volume = np.random.default_rng(0).uniform(-1, 1, (12, 14, 16)).astype(np.float32)
    fakes = [load(folder).translate("mr", volume) for folder in (tmp_path / "half", exported)]
    assert 0 < np.abs(fakes[0] - fakes[1]).max() < 0.05


def test_it_works_where_there_is_nothing_else(exported, tmp_path, monkeypatch):
    """A process of its own, with neither workdir nor store nor cache."""
    alone = Path(shutil.copytree(exported, tmp_path / "model"))
    monkeypatch.setenv("CYCLESH_CACHE", str(tmp_path / "cache"))
    scan = write_scan(tmp_path / "scan.nii.gz", "ct")
    done = spawn(
        "--mode=translate", "--to=mr", f"--workdir={alone}", f"--input={scan}",
        f"--output={tmp_path / 'out.nii.gz'}",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert (tmp_path / "out.nii.gz").exists() and set(contents(alone)) == NAMES
    assert not {path.name for path in (tmp_path / "cache").iterdir()} - {"compiled"}


def test_a_run_of_segmentors_exports_segmentors(tmp_path):
    export(write_workdir(tmp_path / "run", "baseline"), tmp_path / "model")
    model = load(tmp_path / "model")
    assert model.has("seg") and not model.has("gen")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "--mode=segment" in card and "--mode=translate" not in card
    with pytest.raises(UserError, match="is a baseline run and has no trained generators"):
        infer.completed(Task(to="mr"), model)


def test_networks_that_no_step_has_trained_are_not_exported(tmp_path):
    """A cap on the steps may end a run before its generators' turn."""
    export(write_workdir(tmp_path / "run", learned=["seg"]), tmp_path / "model")
    model = load(tmp_path / "model")
    assert model.has("seg") and not model.has("gen")


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_the_exports_of_the_repository_are_small_and_work(folder, tmp_path):
    assert sum(map(len, contents(folder).values())) < 5_000_000
    model = load(folder)
    shape = tuple(8 * (n // 16) for n in model.description.shape)
    volume = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    for modality in model.description.modalities:
        if model.has("gen"):
            assert np.ptp(model.translate(modality, volume)) > 0
        if model.has("seg"):
            np.testing.assert_allclose(model.segment(modality, volume).sum(-1), 1, atol=1e-5)


# --------------------------------------------------------------------------------- the model card


def card_of(workdir: Path, tmp_path: Path) -> str:
    export(workdir, tmp_path / "model")
    return (tmp_path / "model" / "README.md").read_text()


def test_the_card_says_what_the_model_is_and_is_not_for(exported):
    card = (exported / "README.md").read_text()
    for heading in ("Data", "Scores", "Use", "Limits", "Origin"):
        assert f"\n## {heading}\n" in card
    assert "shell (3), core (7)" in card and "12x14x16 voxels of 2x2x2 mm" in card
    assert "not for diagnosis" in card and "CVPR 2018" in card
    assert f"Checkpoint {STEP} has not been scored" in card


def test_the_card_has_the_scores_of_this_checkpoint_only(workdir, tmp_path):
    run = Path(shutil.copytree(workdir, tmp_path / "run"))
    (run / "results.json").write_text(json.dumps(SCORES))
    card = card_of(run, tmp_path)
    assert "On the test split (5 CT volumes)" in card and "0.750" in card
    (run / "results.json").write_text(json.dumps(SCORES | {"checkpoint": {"step": STEP + 1}}))
    assert "has not been scored" in card_of(run, tmp_path)
    (run / "results.json").write_text("{}")
    with pytest.raises(UserError, match="results.json: is not the results of a run"):
        card_of(run, tmp_path)


def test_the_card_names_whose_data_and_how_many(workdir, tmp_path):
    run = Path(shutil.copytree(workdir, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"attribution": "Volumes by A. Author, CC-BY.", "path": "/secret/place"}
    (run / "config.json").write_text(json.dumps(config))
    data = json.loads((run / "data.json").read_text())
    data |= {"real": {"ct": ["Ada"], "mr": ["b", "c"]}, "source": {"ct": ["Ada", "d"], "mr": []}}
    (run / "data.json").write_text(json.dumps(data | {"split_sha256": "f00"}))
    card = card_of(run, tmp_path)
    assert "Attribution: Volumes by A. Author, CC-BY." in card and "user's own" in card
    assert "1 CT (2 translated), 2 MR (0 translated)" in card
    assert b"secret" not in b"".join(contents(tmp_path / "model").values()) and "Ada" not in card


# ------------------------------------------------------------------------------------- mistakes


def test_a_foreign_folder_is_not_overwritten(workdir, exported, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my notes")
    mixed = Path(shutil.copytree(exported, tmp_path / "mixed"))
    (mixed / "notes.txt").write_text("my notes")
    for target in (mine, mixed, workdir):
        before = contents(target)
        with pytest.raises(UserError, match="--output="):
            export(workdir, target)
        assert contents(target) == before
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "mixed"}


def test_an_export_behind_a_link_is_replaced_there(workdir, exported, tmp_path):
    model, link = Path(shutil.copytree(exported, tmp_path / "model")), tmp_path / "link"
    (model / "README.md").write_text("an older card")
    link.symlink_to("model")
    export(workdir, link)
    assert link.is_symlink() and contents(model) == contents(exported)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "link"}


def test_a_failing_disk_leaves_the_old_export(workdir, exported, tmp_path, monkeypatch):
    target = Path(shutil.copytree(exported, tmp_path / "model"))
    (target / "weights.safetensors").write_bytes(b"of another run")
    before, rename = contents(target), os.rename

    def failing(source, place):
        if "partial" in str(source):
            raise OSError(28, "No space left on device")
        rename(source, place)

    monkeypatch.setattr("cyclesh.export.os.rename", failing)
    with pytest.raises(UserError, match="No space left"):
        export(workdir, target)
    assert contents(target) == before and [p.name for p in tmp_path.iterdir()] == ["model"]


def test_wrong_commands_end_in_one_line(workdir, exported, tmp_path, capfd):
    (tmp_path / "file").write_text("a text")
    out = tmp_path / "out"
    commands = {
        ("--mode=export", f"--output={out}"): "--workdir",
        ("--mode=export", f"--workdir={workdir}"): "--output",
        ("--mode=export", f"--workdir={tmp_path}", f"--output={out}"): "is no workdir",
        ("--mode=export", f"--workdir={exported}", f"--output={out}"): "is an export",
        ("--mode=evaluate", f"--workdir={exported}"): "is an export",
        ("--mode=export", f"--workdir={workdir}", f"--output={out}", "--checkpoint=3"): "=3",
        ("--mode=export", f"--workdir={workdir}", f"--output={tmp_path / 'file'}"): "is a file",
        ("--mode=export", f"--workdir={workdir}", f"--output={tmp_path / 'file' / 'x'}"): "file",
    }
    for words, said in commands.items():
        done = call(capfd, *words)
        assert done.status == 2 and done.err.count("\n") == 1 and said in done.err, done
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def edited(**changes):
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def cut_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


DAMAGE = {
    "cut": cut_weights,
    "no weights": lambda folder: (folder / "weights.safetensors").unlink(),
    "noise": lambda folder: (folder / "weights.safetensors").write_bytes(b"\xff" * 500),
    "cut config": lambda folder: (folder / "config.json").write_text('{"export": 1, '),
    "a list": lambda folder: (folder / "config.json").write_text('["export"]'),
    "a later format": edited(export=2),
    "no model": edited(model={}),
    "a model of words": edited(model="large"),
    "no windows": edited(windows={}),
    "other modalities": edited(windows={"ct": [0, 1], "pet": [0, 1]}),
    "no description": edited(description={}),
    "no networks": edited(networks=None),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_export_is_refused(exported, tmp_path, capfd, damage):
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    DAMAGE[damage](folder)
    scan = write_scan(tmp_path / "scan.nii.gz", "ct")
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={folder}", f"--input={scan}",
        f"--output={tmp_path / 'out' / 'r.nii.gz'}",
    )  # fmt: skip
    assert done.status == 2 and done.err.count("\n") == 1 and str(folder) in done.err, done
    assert "Traceback" not in done.err and not (tmp_path / "out").exists()


def test_weights_of_another_architecture_are_refused(exported, tmp_path):
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    model = json.loads((folder / "config.json").read_text())["model"]
    edited(model=model | {"filters": 3})(folder)
    with pytest.raises(UserError, match="other seg networks"):
        load(folder).trees("seg")
    edited(model=model | {"filters": 0})(folder)
    with pytest.raises(UserError, match=r"config.json: is not .*model.filters is 0"):
        load(folder)


def test_too_large_for_half_precision(workdir, tmp_path, monkeypatch):
    kind = type(load(workdir))
    monkeypatch.setattr(kind, "trees", lambda *_: {"A": {"kernel": np.float32([1e5])}})
    with pytest.raises(UserError, match="--half: a parameter of 1e"):
        export(workdir, tmp_path / "model", half=True)
    assert not list(tmp_path.iterdir())


def test_another_checkpoint_than_the_exports_is_refused(exported):
    assert load(exported, "last").provenance == load(exported, str(STEP)).provenance
    with pytest.raises(UserError, match="--checkpoint=3: .* is an export of 7"):
        load(exported, "3")


def test_reading_a_workdirs_config_is_one_thing(workdir, tmp_path):
    assert isinstance(read_config(workdir), ConfigDict)
    run = Path(shutil.copytree(workdir, tmp_path / "run"))
    path = run / "config.json"
    config = json.loads(path.read_text())
    for text, said in (
        ('{"model": {}}', "is not a config of this version"),
        (json.dumps(config | {"batch": 0}), "batch is 0"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
    ):
        path.write_text(text)
        for reader in (read_config, load):
            with pytest.raises(UserError, match=said) as caught:
                reader(run)
            assert str(path) in str(caught.value)
