"""What is told before a store is made, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import call, require_one_clear_line
from scan_files import BALLS, prepared, save, voxels, write_raw

from cyclesh.data.nifti import read_labels
from cyclesh.data.recipe import draw_up, foretell, window_in_words
from cyclesh.errors import UserError


@pytest.fixture
def raw(tmp_path) -> Path:
    return write_raw(tmp_path / "raw")


def tree(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_it_is_foretold_and_nothing_is_done(raw, tmp_path):
    before = tree(tmp_path)
    lines = foretell(draw_up(raw, tmp_path / "s", BALLS)).splitlines()
    # 8 volumes of 12 * 14 * 16 voxels, three bytes each.
    assert lines[0] == f"would prepare {raw}: 8 volumes, 0.1 MB"
    assert lines[1] == f"into {tmp_path / 's'}, 0 there already"
    assert lines[2] == "grid 12x14x16 voxels of 2x2x2 mm (z, y, x)"
    assert lines[3].split() == ["train", "val", "test", "window"]
    assert lines[4].split(maxsplit=4) == ["ct", "2", "1", "1", "-500 to 500"]
    assert lines[5].split(maxsplit=4)[:4] == ["mr", "2", "1", "1"]
    assert lines[5].endswith("percentiles 0.5 to 99.5 of each crop")
    assert tree(tmp_path) == before


def test_what_is_there_already_is_counted(raw, tmp_path):
    assert prepared(raw, tmp_path / "s", shard=(0, 4)) is None
    recipe = draw_up(raw, tmp_path / "s", BALLS)
    assert ", 2 there already\n" in foretell(recipe)
    assert "s, 2 of the 2 of share 0/4 there already\n" in foretell(recipe, (0, 4))
    assert "s, 0 of the 2 of share 1/4 there already\n" in foretell(recipe, (1, 4))
    with pytest.raises(UserError, match="shard 4 of 4"):
        foretell(recipe, (4, 4))
    # Volumes of another recipe do not count, nor do those whose voxels are missing.
    (tmp_path / "s.partial" / "volumes" / "ct_train_1.image.npy").unlink()
    assert ", 1 there already\n" in foretell(recipe)


def test_paired_and_extra_volumes_have_columns_of_their_own(raw, tmp_path):
    save(raw / "paired" / "mr_of_ct_train_1_image.nii.gz", voxels(balls_of(raw), "mr"))
    save(raw / "paired" / "mr_of_ct_train_1_label.nii.gz", balls_of(raw))
    numbers = {"train": (2, 3), "val": (4,), "test": (1,)}
    split = {k: [f"{m}_train_{n}" for m in ("ct", "mr") for n in v] for k, v in numbers.items()}
    split["extra"] = [split["train"].pop(0)]
    (raw / "dataset.json").write_text(json.dumps({"split": split}))
    lines = foretell(draw_up(raw, tmp_path / "s", BALLS)).splitlines()
    assert lines[3].split() == ["train", "val", "test", "extra", "paired", "window"]
    assert lines[4].split()[:6] == ["ct", "1", "1", "1", "1", "0"]
    assert lines[5].split()[:6] == ["mr", "2", "1", "1", "0", "1"]


def balls_of(raw: Path) -> np.ndarray:
    return read_labels(raw / "ct_train" / "ct_train_1_label.nii.gz").values.T.astype(np.uint8)


def test_a_finished_store_is_told_and_one_of_other_inputs_refused(raw, tmp_path):
    prepared(raw, tmp_path / "s")
    before = tree(tmp_path)
    told = foretell(draw_up(raw, tmp_path / "s", BALLS))
    assert told.startswith(f"{tmp_path / 's'}: finished already, 8 volumes\ngrid 12x14x16")
    with pytest.raises(UserError, match="was prepared from other inputs"):
        foretell(draw_up(raw, tmp_path / "s", BALLS, seed=5))
    assert tree(tmp_path) == before


def test_windows_in_words():
    assert window_in_words(("fixed", -800.0, 800.0)) == "-800 to 800"
    assert window_in_words(("percentile", 0.5, 99.5)).startswith("percentiles 0.5 to 99.5")


def test_a_fold_of_a_stated_split_is_refused(raw, tmp_path, capfd):
    names = [f"{m}_train_{i}" for m in ("ct", "mr") for i in range(1, 5)]
    split = {"train": names[::4], "val": names[1::4], "test": names[2::4] + names[3::4]}
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json() | {"split": split}))
    command = (
        "--mode=prepare", "--config=configs/joint.py", f"--input={raw}",
        f"--output={tmp_path / 's'}", "--dry_run",
    )  # fmt: skip
    assert call(capfd, *command).status == 0
    require_one_clear_line(call(capfd, *command, "--fold=2"), "--fold=2: ")


def test_a_dry_run_of_the_command_makes_nothing(raw, tmp_path, capfd):
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json()))
    command = (
        "--mode=prepare", "--config=configs/joint.py", f"--input={raw}",
        f"--output={tmp_path / 's'}", "--quiet",
    )  # fmt: skip
    before = tree(tmp_path)
    done = call(capfd, *command, "--dry_run")
    assert (done.status, done.err) == (0, "") and tree(tmp_path) == before
    assert done.out == foretell(draw_up(raw, tmp_path / "s", BALLS)) + "\n"
    done = call(capfd, *command, "--shard=1/4")
    assert (done.status, done.out) == (0, f"{tmp_path / 's'}: shard done\n")
    done = call(capfd, *command, "--dry_run", "--shard=1/4")
    assert "2 of the 2 of share 1/4 there already" in done.out
    assert call(capfd, *command).out == f"{tmp_path / 's'}: 8 volumes\n"
    before = tree(tmp_path)
    assert "finished already, 8 volumes" in call(capfd, *command, "--dry_run").out
    # It fails where the real one would.
    require_one_clear_line(call(capfd, *command, "--dry_run", "--fold=1"), "other inputs")
    shutil.rmtree(raw / "mr_train")
    require_one_clear_line(call(capfd, *command, "--dry_run"), "other inputs")
    (raw / "ct_train" / "ct_train_1_label.nii.gz").unlink()
    require_one_clear_line(call(capfd, *command, "--dry_run"), "has no label")
