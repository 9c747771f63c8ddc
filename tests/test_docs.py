"""What the documents show works: their commands are run, their links lead somewhere."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, call, parsed
from scan_files import HEART, balls, save, voxels
from tiny_runs import QUICKLY

from cyclesh.data.description import describe, read_dataset_json
from cyclesh.data.phantom import PhantomSpec, write_phantom
from cyclesh.data.raw import find_cases
from cyclesh.data.splits import split_cases
from cyclesh.deployed import load
from cyclesh.errors import UserError
from cyclesh.main import MODES

FOLDERS = ("", "docs/", "launch/", "examples/**/")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(f"{folder}*.md"))
README = ROOT / "README.md"
LIMITS = ROOT / "docs" / "limits.md"
# The documents' own scale -> one that a test can wait for; every entry must occur.
TINY = "--config=configs/joint.py:tiny,filters=2"
BRIEFLY = (
    "steps=4 --config.schedule.epoch_steps=4 --config.model.depth=1 --config.judge.epochs=1 "
    "--config.log.report_cases=1"
)
SCALE = {
    "tutorial": {
        "--config=configs/joint.py ": f"{TINY} ",
        "--config=configs/joint.py:data=store": f"{TINY},data=store,{BRIEFLY}",
    },
    "mmwhs": {
        "--config=configs/joint.py:mmwhs ": f"{TINY} ",
        "--config=configs/joint.py:mmwhs,data=store,seed=0 --config.schedule.epoch_steps=71": (
            f"{TINY},data=store,seed=0,{BRIEFLY}"
        ),
    },
}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def run_page(name: str, folder: Path) -> str:
    """Runs a page's commands one after the other in a folder, as a reader would."""
    script = "\n".join(blocks(ROOT / "docs" / f"{name}.md", "sh"))
    for shown, small in SCALE[name].items():
        assert shown in script
        script = script.replace(shown, small)
    (folder / "configs").symlink_to(ROOT / "configs")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    out = run_page("tutorial", tmp_path)
    assert "ok: 0 errors" in out and "report: runs/mine/report.html" in out
    assert (tmp_path / "runs/mine/report.html").exists()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"as_mr.nii.gz", "as_mr.json", "as_mr.png", "labels.nii.gz", "labels.json"} <= names
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "weights.safetensors", "config.json", "README.md",
    }  # fmt: skip
    assert len(list((tmp_path / "labels").glob("*_image.nii.gz"))) == 8


@pytest.mark.slow
def test_the_methods_step_by_itself_runs():
    def smallest(config):
        config.model.depth, config.model.filters = 1, 2
        return config

    (code,) = blocks(ROOT / "docs" / "method.md", "python")
    names: dict = {"smallest": smallest, "QUICKLY": QUICKLY}
    for shown, small in (
        ('joint.get_config("tiny")', 'smallest(joint.get_config("tiny"))'),
        ("donate_argnums=0", "donate_argnums=0, compiler_options=QUICKLY"),
    ):
        assert shown in code
        code = code.replace(shown, small)
    exec(code, names)
    metrics = {name: float(value) for name, value in names["metrics"].items()}
    assert metrics["finite"] and metrics["gen/total"] > metrics["gen/adv"] > 0
    assert int(names["state"].step) == 1


@pytest.mark.slow
def test_mm_whs_as_it_is_downloaded(tmp_path):
    """The phantom has its layout and label values; only its dataset.json goes."""
    folder = tmp_path / "MM-WHS"
    write_phantom(PhantomSpec(subjects_ct=6, subjects_mr=6), folder, processes=1, progress=False)
    (folder / "dataset.json").unlink()
    shutil.rmtree(folder / "paired")
    (folder / "ct_test").mkdir()
    shutil.copy(
        folder / "ct_train" / "ct_train_1001_image.nii.gz",
        folder / "ct_test" / "ct_test_2001_image.nii.gz",
    )
    run_page("mmwhs", tmp_path)
    assert json.loads((tmp_path / "faults.json").read_text())["ok"]
    assert (tmp_path / "runs/ours/results.json").exists()


def splits_of(folder: Path, block: str, cases: tuple[str, ...], paired: str = "") -> dict[str, str]:
    """Case -> split in a folder that holds this dataset.json, of four organs, and these cases."""
    (folder / "dataset.json").write_text(block)
    described = describe(folder, HEART)
    assert described.names == ("liver", "right_kidney", "left_kidney", "spleen")
    for case in cases:
        save(folder / f"{case}.nii.gz", voxels(balls(), case[:2]))
        save(folder / f"{case}_label.nii.gz", balls())
    for kind, content in (("image", voxels(balls(), "mr")), ("label", balls())) if paired else ():
        save(folder / "paired" / f"{paired}_{kind}.nii.gz", content)
    return split_cases(find_cases(folder, described), read_dataset_json(folder))


def test_the_complete_dataset_json_is_understood(tmp_path):
    (block,) = blocks(ROOT / "docs" / "tutorial.md", "json")
    cases = (*(f"ct_0{n}" for n in range(1, 7)), *(f"mr_0{n}" for n in range(1, 5)))
    splits = splits_of(tmp_path, block, cases, "mr_of_ct_04")
    assert splits["ct_05"] == splits["ct_06"] == "extra" and splits["mr_of_ct_04"] == "paired"
    entries, described = read_dataset_json(tmp_path), describe(tmp_path, HEART)
    assert set(entries) == {*described.to_json(), "subjects", "split", "paired"}  # it has them all


def test_the_readmes_dataset_json_is_understood(tmp_path):
    (block,) = re.findall(r"^    \{.*?\}$", README.read_text(), re.MULTILINE | re.DOTALL)
    cases = [f"{modality}_0{n}" for modality in ("ct", "mr") for n in (1, 2, 3)]
    splits = splits_of(tmp_path, block, (*cases, "ct_07", "ct_08"))
    assert splits["ct_07"] == splits["ct_08"] == "extra" and splits["mr_02"] == "val"


def test_a_segmentors_least_tile_is_as_large_as_is_said():
    said = re.search(r"tiles have at least (\d+) voxels a side", LIMITS.read_text(encoding="utf-8"))
    side = int(said[1])
    model = load(ROOT / "examples" / "phantom", pass_voxels=1)
    assert model.in_one_pass("seg", (side,) * 3)
    assert not model.in_one_pass("seg", (side + 1,) * 3)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_modes_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target
    for mode in re.findall(r"--mode=(\w+)", text):
        assert mode in MODES, mode


# The scripts of launch/ hand all their words to the program.
COMMAND = re.compile(r"(?:python -m cyclesh\.main|launch/(?:slurm|tpu_vm)\.sh) (--[^'`&|;\n]*)")
COMMANDS = [
    pytest.param(words, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, words in enumerate(COMMAND.findall(page.read_text(encoding="utf-8")), start=1)
]


def parse_shown(words: str) -> None:
    """The words of a command as the program understands them; "..." stands for any config."""
    shown = words.replace("--config=...", "--config=configs/joint.py")
    parsed(*shlex.split(shown, comments=True))


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_that_is_shown_is_understood(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse_shown(words)


def test_commands_are_found_and_wrong_ones_are_noticed(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert len(COMMANDS) >= 35
    for words in (
        "--mode=train --no_such_flag=1",
        "--mode=no_such_mode",
        "--mode=verify --input=FOLDER --to=mr",
        "--config=configs/none.py",
        "--config=configs/joint.py:no_such_preset",
        "--config=configs/joint.py:data=FOLDER,no_such_key=1",
        "--config=configs/joint.py --config.schedule.no_such_field=1",
        "--config=... --config.compute.lowering=no_such_value  # a comment",
    ):
        with pytest.raises(UserError):
            parse_shown(words)


EXAMPLE = re.compile(r"^    python -m cyclesh\.main (.*--workdir=examples/.*)$", re.MULTILINE)


@pytest.mark.slow
def test_what_is_shown_with_the_example_model_runs_and_gives_what_is_said(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    pages = [page.read_text(encoding="utf-8") for page in (README, LIMITS)]
    commands = [command for text in pages for command in EXAMPLE.findall(text)]
    assert len(commands) >= 5
    for command in commands:
        done = call(capfd, *command.split())
        assert done.status == 0, done.err
    said = re.search(
        r"agrees to ([\d.]+) in the crop, ([\d.]+) in\s+one pass over the whole scan, and ([\d.]+) "
        r"in tiles of the crop's size; tiles and one pass were\s+(\d+) HU\s+apart",
        LIMITS.read_text(encoding="utf-8"),
    )
    crop, whole, tiles = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("crop", "whole", "tiles")
    )
    found = [sidecar["agreement"]["share"] for sidecar in (crop, whole, tiles)]
    assert found == pytest.approx(list(map(float, said.groups()[:3])), abs=0.02)
    assert whole["in_one_pass"] and tiles["seam"]["mean"] == pytest.approx(float(said[4]), abs=3)
    said = re.search(
        r"they find (\d+) ml of right ventricle in the crop of `[^`]+`,\s+(\d+) ml over all of it",
        LIMITS.read_text(encoding="utf-8"),
    )
    found = [
        json.loads((tmp_path / f"{name}.json").read_text())["volume_ml"]["RV"]
        for name in ("near", "far")
    ]
    assert found == pytest.approx(list(map(float, said.groups())), abs=3)


def test_the_tests_that_promises_name_exist():
    named = [
        (page.name, *found)
        for page in PAGES
        for found in re.findall(r"`(tests/\w+\.py)::(test_\w+)`", page.read_text())
    ]
    assert len(named) > 20
    for page, file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), (page, file, test)
