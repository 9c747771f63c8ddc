import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import call, require_one_clear_line
from scan_files import BALLS, LPS, balls, save, voxels, write_case, write_raw
from scan_files import prepared as run

from configs import default
from cyclesh.data import prepare as preparing
from cyclesh.data.locate import open_store
from cyclesh.data.nifti import read_labels
from cyclesh.data.recipe import Recipe
from cyclesh.data.store import Store, restore
from cyclesh.errors import UserError


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / "raw")


def content(folder: Path) -> dict:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_store_of_a_raw_folder(raw, tmp_path):
    store = run(raw, tmp_path / "s")
    assert [v.id for v in store.volumes][:2] == ["ct_train_1", "ct_train_2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "s"]
    assert sorted(p.name for p in store.root.iterdir()) == ["manifest.json", "volumes"]
    assert len(list((store.root / "volumes").iterdir())) == 16
    for volume in store.volumes:
        image, label = store.image(volume), store.label(volume)
        means = [image[label == c].mean() for c in range(3)]
        order = [0, 1, 2] if volume.modality == "ct" else [0, 2, 1]
        assert np.argsort(means).tolist() == order  # labels lie on their structures
        assert volume.cut == {"shell": 0.0, "core": 0.0}
        assert volume.source.image.startswith(f"{volume.modality}_train/")
        hu = restore(image, volume.window)
        if volume.modality == "ct":
            assert volume.window == (-500, 500) and abs(hu[label == 2].mean() - 350) < 40


def test_the_structures_are_centred(raw, tmp_path):
    store = run(raw, tmp_path / "s")
    for volume in store.volumes:
        where = np.argwhere(store.label(volume))
        middle = (where.min(0) + where.max(0)) / 2
        assert np.abs(middle - (np.array(BALLS.shape) - 1) / 2).max() <= 0.5


def test_percentile_window_is_of_the_crop_and_recorded(raw, tmp_path):
    store = run(raw, tmp_path / "s")
    windows = {v.window for v in store.select("mr", "train") + store.select("mr", "test")}
    assert len(windows) == 3
    for volume in store.select("mr", "train"):
        clipped = np.abs(store.image(volume)) > 0.9999
        assert 0.002 < clipped.mean() < 0.03  # 0.5 % at each end, before smoothing


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda xyz: np.where(xyz == 3, 4, xyz), "unknown label value 4; known are 0, 3, 5, 7, 8"),
        (lambda xyz: xyz * 0, "no voxel of shell, core"),
        (lambda xyz: xyz[:-1], "16x18x19 voxels against 16x18x20"),
        (lambda xyz: xyz + 0.5, "whole numbers"),
    ],
)
def test_faulty_labels_are_named(raw, tmp_path, spoil, says):
    path = raw / "mr_train" / "mr_train_2_label.nii.gz"
    save(path, spoil(read_labels(path).values.T.astype(np.float32)))
    with pytest.raises(UserError, match="mr_train_2_label.nii.gz") as caught:
        run(raw, tmp_path / "s")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()
    assert not list(tmp_path.rglob("*.partial-*"))


def test_disagreeing_headers(raw, tmp_path):
    path = raw / "ct_train" / "ct_train_3_label.nii.gz"
    label = read_labels(path).values.T.astype(np.uint8)
    save(path, label, LPS * 1.001)  # a thousandth: at most 0.03 voxels
    run(raw, tmp_path / "s")
    save(path, label, np.diag([-2.2, -2, 2, 1]))
    with pytest.raises(UserError, match="ct_train_3_label.nii.gz: does not lie on the grid"):
        run(raw, tmp_path / "t")


def test_missing_labels_and_too_few_subjects(raw, tmp_path):
    (raw / "ct_train" / "ct_train_4_label.nii.gz").unlink()
    with pytest.raises(UserError, match="ct_train_4_image.nii.gz: has no label"):
        run(raw, tmp_path / "s")
    (raw / "ct_train" / "ct_train_4_image.nii.gz").unlink()
    with pytest.raises(UserError, match="ct: 3 subjects are too few"):
        run(raw, tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_a_finished_store_is_returned_untouched(raw, tmp_path):
    first = run(raw, tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in first.root.rglob("*")}
    again = run(raw, tmp_path / "s")
    assert again.sha256 == first.sha256
    assert {p: p.stat().st_mtime_ns for p in first.root.rglob("*")} == before


def test_other_inputs_need_another_store(raw, tmp_path):
    run(raw, tmp_path / "s")
    smaller = dataclasses.replace(BALLS, shape=(8, 8, 8))
    with pytest.raises(UserError, match=r"shape was \[12, 14, 16\], is \[8, 8, 8\]"):
        run(raw, tmp_path / "s", smaller)
    with pytest.raises(UserError, match="ct_train_.: subject, split or pair"):
        run(raw, tmp_path / "s", seed=5)
    image = write_case(raw, "ct", 2)
    save(image, voxels(balls(1), "ct", 9))
    with pytest.raises(UserError, match="files of ct_train_2 have changed"):
        run(raw, tmp_path / "s")
    write_case(raw, "ct", 5)
    with pytest.raises(UserError, match="only one of"):
        run(raw, tmp_path / "s")


def test_existing_folders(raw, tmp_path):
    (tmp_path / "empty").mkdir()
    assert run(raw, tmp_path / "empty").root == tmp_path / "empty"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    run(raw, tmp_path / "link")
    assert Store.open(tmp_path / "elsewhere").volumes and (tmp_path / "link").is_symlink()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="is no prepared store"):
        run(raw, tmp_path / "mine")
    assert content(tmp_path / "mine") == {Path("thesis.txt"): b"precious"}


def test_a_place_that_a_folder_cannot_take_is_told(raw, tmp_path, monkeypatch):
    def busy(source, target):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr("cyclesh.data.prepare.os.rename", busy)
    with pytest.raises(UserError, match=f"{tmp_path / 's'}: cannot be put in place"):
        run(raw, tmp_path / "s")


@pytest.mark.parametrize("file", ["s.partial", "s.partial/volumes", "file"])
def test_a_file_where_a_folder_has_to_be_is_told(raw, tmp_path, file):
    target = tmp_path / ("file/s" if file == "file" else "s")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("a text")
    with pytest.raises(UserError, match=f"{target}: cannot be written") as caught:
        run(raw, target)
    assert "\n" not in str(caught.value) and (tmp_path / file).read_text() == "a text"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is locked to the superuser")
def test_a_place_that_may_not_be_written_is_named(raw, tmp_path, capfd):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json()))
    words = ("--mode=prepare", "--config=configs/joint.py", f"--input={raw}", "--quiet")
    require_one_clear_line(call(capfd, *words, f"--output={locked / 's'}"), str(locked / "s"))


def test_interrupted_work_goes_on(raw, tmp_path, monkeypatch):
    whole = content(run(raw, tmp_path / "whole").root)
    original, calls = preparing.crop_case, []

    def stop_at_the_fifth(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(preparing, "crop_case", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "s.partial" / "manifest.json").exists()
    with pytest.raises(UserError, match="no prepared store"):
        Store.open(tmp_path / "s.partial")
    assert content(run(raw, tmp_path / "s").root) == whole
    assert len(calls) == 5 + 4  # four were finished, the fifth was redone
    assert not (tmp_path / "s.partial").exists()


def test_an_entry_vouches_for_no_files_that_another_recipe_was_replacing(
    raw, tmp_path, monkeypatch
):
    whole = content(run(raw, tmp_path / "whole").root)
    coarse = dataclasses.replace(BALLS, spacing_mm=(3, 3, 3))
    original = preparing.write_text

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "_finish", interrupted)
    with pytest.raises(KeyboardInterrupt):  # all volumes and entries of the first recipe are there
        run(raw, tmp_path / "s")
    monkeypatch.setattr(preparing, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):  # one volume of the other, and no entry of it
        run(raw, tmp_path / "s", coarse)
    monkeypatch.undo()
    assert preparing.write_text is original
    assert content(run(raw, tmp_path / "s").root) == whole


def test_prepare_refuses_what_verify_calls_errors(raw, tmp_path, capfd):
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json()))
    words = ("--mode=prepare", "--config=configs/joint.py", f"--input={raw}", "--quiet")
    twin = raw / "ct_train"
    for kind in ("image", "label"):
        shutil.copy(twin / f"ct_train_1_{kind}.nii.gz", twin / f"ct_train_9_{kind}.nii.gz")
    done = call(capfd, *words, f"--output={tmp_path / 's'}")
    require_one_clear_line(done, "--mode=verify")
    assert not (tmp_path / "s").exists()
    for kind in ("image", "label"):
        (twin / f"ct_train_9_{kind}.nii.gz").unlink()
    assert call(capfd, *words, f"--output={tmp_path / 's'}").status == 0


def test_partial_work_of_another_recipe_is_redone(raw, tmp_path):
    whole = content(run(raw, tmp_path / "whole").root)
    coarse = dataclasses.replace(BALLS, spacing_mm=(3, 3, 3))
    assert run(raw, tmp_path / "s", coarse, shard=(0, 2)) is None
    assert content(run(raw, tmp_path / "s").root) == whole


def test_shards_share_the_work(raw, tmp_path):
    whole = content(run(raw, tmp_path / "whole").root)
    assert run(raw, tmp_path / "s", shard=(2, 3)) is None
    assert run(raw, tmp_path / "s", shard=(0, 3)) is None
    assert not (tmp_path / "s").exists()
    store = run(raw, tmp_path / "s", shard=(1, 3))
    assert content(store.root) == whole
    assert run(raw, tmp_path / "s", shard=(2, 3)).sha256 == store.sha256
    with pytest.raises(UserError, match="shard 3 of 3"):
        run(raw, tmp_path / "t", shard=(3, 3))


@pytest.mark.parametrize(
    ("owner", "moment"),
    [(preparing, "_make"), (Recipe, "entry"), (Recipe, "manifest"), (preparing, "_finish")],
)
def test_another_run_finishes_in_between(raw, tmp_path, monkeypatch, owner, moment):
    whole = content(run(raw, tmp_path / "whole").root)
    original, inside = getattr(owner, moment), []

    def overtaken(*args, **kwargs):
        if not inside:
            inside.append(True)
            run(raw, tmp_path / "s")
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, moment, overtaken)
    assert content(run(raw, tmp_path / "s").root) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "s", "whole"]


def test_a_second_partial_folder_beside_a_finished_store_is_removed(raw, tmp_path, monkeypatch):
    whole = run(raw, tmp_path / "whole").root
    original = preparing.in_parallel

    def finished_after_we_looked(*args, **kwargs):
        shutil.copytree(whole, tmp_path / "s")
        return original(*args, **kwargs)

    monkeypatch.setattr(preparing, "in_parallel", finished_after_we_looked)
    assert run(raw, tmp_path / "s").root == tmp_path / "s"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw", "s", "whole"]


def test_a_paired_volume_gets_the_crop_of_its_case(raw, tmp_path):
    # The same anatomy, scanned on another grid: its own bounding box would lie elsewhere.
    fine = np.diag([-1.0, -1, 2, 1])
    fine[:3, 3] = [0.5, 0.5, 0]  # the two half-size voxels lie within the one
    label = balls(1).repeat(2, axis=0).repeat(2, axis=1)
    label[label.shape[0] // 2 :][label[label.shape[0] // 2 :] == 3] = 0
    image = voxels(balls(1), "mr").repeat(2, axis=0).repeat(2, axis=1)
    save(raw / "paired" / "mr_of_ct_train_1_image.nii.gz", image, fine)
    save(raw / "paired" / "mr_of_ct_train_1_label.nii.gz", label, fine)
    store = run(raw, tmp_path / "s")
    volumes = {v.id: v for v in store.volumes}
    paired, truth = volumes["mr_of_ct_train_1"], volumes["ct_train_1"]
    assert paired.affine == truth.affine
    core = [store.label(v) == 2 for v in (paired, truth)]
    assert 2 * (core[0] & core[1]).sum() / (core[0].sum() + core[1].sum()) > 0.95
    save(raw / "ct_train" / "ct_train_1_label.nii.gz", balls(1) * 0)
    with pytest.raises(UserError, match="ct_train_1.*: no voxel of"):
        run(raw, tmp_path / "t")
    save(raw / "ct_train" / "ct_train_1_label.nii.gz", balls(1))
    far = fine.copy()
    far[0, 3] += 500
    save(raw / "paired" / "mr_of_ct_train_1_image.nii.gz", image, far)
    save(raw / "paired" / "mr_of_ct_train_1_label.nii.gz", label, far)
    with pytest.raises(UserError, match="lies elsewhere than ct_train_1"):
        run(raw, tmp_path / "t")


def test_processes_do_not_change_a_byte(raw, tmp_path):
    one = run(raw, tmp_path / "one")
    two = run(raw, tmp_path / "two", processes=2)
    assert content(one.root) == content(two.root)
    assert one.sha256 == two.sha256


def test_killed_outright_leaves_nothing_that_looks_finished(raw, tmp_path):
    code = (
        "import sys, time; from scan_files import prepared; from cyclesh.data import prepare as p\n"
        "crop = p.crop_case\n"
        "p.crop_case = lambda *a: (time.sleep(0.3), crop(*a))[1]\n"
        f"prepared({str(raw)!r}, {str(tmp_path / 's')!r})\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}"}
    child = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    entries = tmp_path / "s.partial" / "entries"
    while child.poll() is None and len(list(entries.glob("*.json"))) < 2:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "s").exists()
    store = run(raw, tmp_path / "s")
    assert content(store.root) == content(run(raw, tmp_path / "whole").root)


def test_splits_subjects_and_pairs_reach_the_manifest(raw, tmp_path):
    save(raw / "paired" / "mr_of_ct_train_1_image.nii.gz", voxels(balls(1), "mr"))
    save(raw / "paired" / "mr_of_ct_train_1_label.nii.gz", balls(1))
    split = {"train": ["ct_train_2", "mr_train_1", "p"], "test": ["ct_train_1"],
             "val": ["mr_train_2"], "extra": ["ct_train_4"]}  # fmt: skip
    entries = {
        "split": split,
        "subjects": {"mr_train_3": "p", "mr_train_4": "p", "ct_train_3": "p"},
    }
    (raw / "dataset.json").write_text(json.dumps(entries))
    store = run(raw, tmp_path / "s", seed=3)
    splits = {v.id: (v.split, v.subject) for v in store.volumes}
    assert splits["mr_train_4"] == ("train", "p") and splits["ct_train_4"][0] == "extra"
    (paired,) = store.select("mr", "paired")
    assert (paired.id, paired.pair_of, paired.subject) == (
        "mr_of_ct_train_1", "ct_train_1", "ct_train_1"
    )  # fmt: skip
    # A pair shows one anatomy on one grid.
    truth = next(v for v in store.volumes if v.id == "ct_train_1")
    np.testing.assert_array_equal(store.label(paired), store.label(truth))
    assert paired.affine == truth.affine
    assert run(raw, tmp_path / "s", seed=4).split_sha256 == store.split_sha256


def test_progress_without_a_terminal(raw, tmp_path, capsys):
    run(raw, tmp_path / "s", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "prepare: 8/8 volumes" and "\r" not in "".join(lines)


def test_what_the_crop_cuts_off_is_told(raw, tmp_path):
    assert preparing.describe(run(raw, tmp_path / "s")) == "8 volumes"
    flat = dataclasses.replace(BALLS, shape=(4, 14, 16))  # of balls 10 voxels high
    said = preparing.describe(run(raw, tmp_path / "flat", flat))
    assert said.startswith("8 volumes; the crop cuts structures of 8, at most ")
    cut = max(v.cut["shell"] for v in Store.open(tmp_path / "flat").volumes)
    assert f"at most {100 * cut:.1f} % of one (shell of " in said and 0.3 < cut < 1


def test_training_on_a_raw_folder_tells_of_warnings_once(raw, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CYCLESH_CACHE", str(tmp_path / "cache"))
    entries = {key: BALLS.to_json()[key] for key in ("structures", "aliases", "dropped", "windows")}
    (raw / "dataset.json").write_text(json.dumps({**entries, "spacing_mm": [2, 2, 2]}))
    config = default.build(f"mmwhs,data={raw},shape=16x16x16", "joint")
    open_store(config)
    assert "warnings" not in capfd.readouterr().err
    save(raw / "thorax.nii.gz", balls())
    open_store(config)
    said = capfd.readouterr().err
    assert said.count("warnings (1), the first of thorax.nii.gz: fits no layout") == 1
    assert f"--mode=verify --input={raw}" in said
    open_store(config)
    assert "warnings" not in capfd.readouterr().err


def test_files_of_scans_that_have_gone_are_removed(raw, tmp_path):
    whole = content(run(raw, tmp_path / "whole").root)
    volumes = tmp_path / "s.partial" / "volumes"
    volumes.mkdir(parents=True)
    (volumes / "ct_train_9.image.npy").write_bytes(b"of a scan that has gone")
    assert content(run(raw, tmp_path / "s").root) == whole


def test_files_that_changed_before_a_store_was_finished_are_read_again(raw, tmp_path):
    assert run(raw, tmp_path / "s", shard=(0, 2)) is None
    done = next((tmp_path / "s.partial" / "entries").glob("ct*.json")).stem
    save(raw / "ct_train" / f"{done}_image.nii.gz", voxels(balls(int(done[-1])), "ct", 9))
    again, whole = run(raw, tmp_path / "s"), run(raw, tmp_path / "whole")
    assert content(again.root) == content(whole.root)
