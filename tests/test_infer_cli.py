"""`--mode=translate` and `--mode=segment` end to end: files from disk in, files on disk out."""

import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import ROOT, call, require_one_clear_line, spawn
from infer_files import affine_of, anatomy, intensities, write_scan, write_workdir
from scan_formats import write_itk, write_series

from cyclesh.main import MODES_OF_FLAGS


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return write_workdir(tmp_path_factory.mktemp("runs") / "joint")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch):
    """Programs compiled by one test serve the next; where they are kept is tested elsewhere."""
    monkeypatch.setattr("cyclesh.infer.use_compilation_cache", lambda _: None)


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [("translate", "--to=mr"), ("segment", "--modality=ct")])
def test_every_format_gives_the_same_result(workdir, tmp_path, capfd, words):
    """A folder with one volume in each format, DICOM included: five equal results."""
    mode, flag = words
    shape = (24, 22, 26)
    affine = affine_of("LPS", (2, 2, 2), shape)
    voxels = intensities(anatomy(affine, shape), "ct").round().astype(np.int16)
    folder = tmp_path / "in"
    folder.mkdir()
    nib.save(nib.Nifti1Image(voxels, affine), folder / "a.nii.gz")
    for name in ("b.nii", "c.mha", "d.nrrd"):
        write_itk(folder / name, voxels, affine)
    write_series(folder / "e", voxels, affine)
    out = tmp_path / "out"
    done = call(
        capfd, f"--mode={mode}", flag, f"--workdir={workdir}", f"--input={folder}",
        f"--output={out}",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.out == f"{out}: 5 done\n"
    assert done.err.count("\n") == 5 and "[5/5" in done.err
    names = {f"{n}{end}" for n in "abcde" for end in (".nii.gz", "_mask.nii.gz", ".json")}
    assert tree(out) == names
    first = nib.load(out / "a.nii.gz")
    assert np.ptp(np.asarray(first.dataobj)) > 0
    for name in "bcde":
        result = nib.load(out / f"{name}.nii.gz")
        np.testing.assert_allclose(result.affine, first.affine, atol=1e-5)
        np.testing.assert_allclose(np.asarray(result.dataobj), np.asarray(first.dataobj), atol=0.1)


def test_one_file_as_a_process_of_its_own(workdir, tmp_path):
    scan = write_scan(tmp_path / "scan.nii.gz", direction="oblique")
    done = spawn(
        "--mode=translate", "--to=mr", f"--workdir={workdir}", f"--input={scan}",
        f"--output={tmp_path / 'new' / 'fake.nii.gz'}", "--overlay",
    )  # fmt: skip
    assert done.status == 0, done.err
    names = {"fake.nii.gz", "fake_mask.nii.gz", "fake.json", "fake.png"}
    assert tree(tmp_path / "new") == names
    assert done.err.count("\n") == 1 and "agreement 0." in done.err
    about = json.loads((tmp_path / "new" / "fake.json").read_text())
    assert about["model"]["checkpoint"] == 7 and about["scan"]["file"] == "scan.nii.gz"
    assert (tmp_path / "new" / "fake.png").read_bytes().startswith(b"\x89PNG")


def test_the_tutorial_names_every_flag_and_every_key_of_the_json(workdir, tmp_path, capfd):
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    listed = {name for row in re.findall(r"^\| (`.*?`) \|", text, re.M) for name in row.split(", ")}
    scan = write_scan(tmp_path / "scan.nii.gz")
    for mode, flag in (("translate", "--to=mr"), ("segment", "--modality=ct")):
        done = call(
            capfd, f"--mode={mode}", flag, f"--workdir={workdir}", f"--input={scan}",
            f"--output={tmp_path / mode}.nii.gz",
        )  # fmt: skip
        assert done.status == 0
        about = json.loads((tmp_path / f"{mode}.json").read_text())
        assert {f"`{key}`" for key in about} <= listed
    flags = {
        name for name, modes in MODES_OF_FLAGS.items() if {"translate", "segment"} & set(modes)
    }
    shown = {"workdir", "input", "output", "to", "modality"}  # in the commands above the table
    assert {f"`--{name}`" for name in flags - shown} <= listed
    assert all(f"--{name}=" in text for name in shown)


def test_both_directions_from_one_workdir(workdir, tmp_path, capfd):
    for modality, to in (("ct", "mr"), ("mr", "ct")):
        scan = write_scan(tmp_path / f"{modality}.nii.gz", modality)
        target = tmp_path / f"to_{to}.nii.gz"
        done = call(
            capfd, "--mode=translate", f"--to={to}", f"--workdir={workdir}", f"--input={scan}",
            f"--output={target}", "--quiet",
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        assert read(target).shape == (24, 22, 26)


def test_a_dicom_series_is_one_scan(workdir, tmp_path, capfd):
    affine = affine_of("PIR", (2, 2.5, 2), (24, 20, 26))
    voxels = intensities(anatomy(affine, (24, 20, 26)), "ct").round().astype(np.int16)
    series = write_series(tmp_path / "series", voxels, affine, slope=1, intercept=-1024)
    target = tmp_path / "labels.nii.gz"
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={series}",
        f"--output={target}", "--extent=whole",
    )  # fmt: skip
    assert done.status == 0, done.err
    labels = read(target)
    true = np.array([0, 3, 7])[anatomy(affine, (24, 20, 26))]
    assert (labels == true).mean() > 0.97 and set(np.unique(labels)) == {0, 3, 7}
    np.testing.assert_allclose(nib.load(target).affine, affine, atol=1e-5)


def test_a_bad_file_does_not_stop_the_others(workdir, tmp_path, capfd):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "c"):
        write_scan(folder / f"{name}.nii.gz")
    (folder / "b.nii.gz").write_bytes(b"no NIfTI at all")
    write_scan(folder / "c_label.nii.gz")
    write_scan(folder / "mr_01.nii.gz", "mr")
    command = (
        "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={folder}",
        f"--output={out}",
    )  # fmt: skip
    done = call(capfd, *command, "--quiet")
    assert done.status == 2
    assert done.err.count("\n") == 1 and f"{folder / 'b.nii.gz'}: cannot be read" in done.err
    assert done.out == f"{out}: 2 done, 1 failed: b.nii.gz\n"
    assert tree(out) == {f"{n}{end}" for n in "ac" for end in (".nii.gz", "_mask.nii.gz", ".json")}
    # What is there is kept, and the rest tried again.
    before = (out / "a.nii.gz").stat().st_mtime_ns
    write_scan(folder / "b.nii.gz")
    done = call(capfd, *command)
    assert done.status == 0 and done.out == f"{out}: 1 done, 2 exist already (--overwrite)\n"
    told = "leaves out 2 labels, masks or scans of another modality: c_label.nii.gz, mr_01"
    assert told in done.err
    assert (out / "a.nii.gz").stat().st_mtime_ns == before
    done = call(capfd, *command, "--overwrite")
    assert done.out == f"{out}: 3 done\n"
    assert (out / "a.nii.gz").stat().st_mtime_ns > before


def test_overwriting_leaves_nothing_of_an_earlier_result(workdir, tmp_path, capfd):
    scan, target = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "out" / "a.nii.gz"
    command = (
        "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={scan}",
        f"--output={target}", "--quiet", "--overwrite",
    )  # fmt: skip
    target.parent.mkdir()
    own = {"a_mask.nii.gz", "a.png", "a_notes.nii.gz", "b_mask.nii.gz"}
    for name in own:
        (target.parent / name).write_text("the user's")
    few = {"a.nii.gz", "a.json"}
    assert call(capfd, *command, "--extent=whole").status == 0
    assert tree(target.parent) == few | own  # of no result of ours
    assert call(capfd, *command, "--probabilities", "--overlay").status == 0
    assert tree(target.parent) == few | own | {"a_probabilities.nii.gz"}
    assert call(capfd, *command).status == 0
    assert tree(target.parent) == few | own - {"a.png"}
    assert call(capfd, *command, "--extent=whole").status == 0
    assert tree(target.parent) == few | {"a_notes.nii.gz", "b_mask.nii.gz"}


@pytest.mark.parametrize("prefix", ["", "ct_"])
def test_results_are_scans_of_what_they_became(workdir, tmp_path, capfd, prefix):
    """A result bears the name of the scan that it was made of, whatever modality that tells."""
    folder, fakes, labels = (tmp_path / name for name in ("in", "fakes", "labels"))
    for name in "ab":
        write_scan(folder / f"{prefix}{name}.nii.gz")
    write_scan(fakes / "c_mask.nii.gz", "mr")  # there is no c: a scan of that name
    model = f"--workdir={workdir}"
    done = call(
        capfd, "--mode=translate", "--to=mr", model, f"--input={folder}", f"--output={fakes}"
    )
    assert done.out == f"{fakes}: 2 done\n"
    (fakes / f"{prefix}a_probabilities.nii.gz").write_bytes(b"of a segmentation")
    segment = ("--mode=segment", model, "--overwrite")
    done = call(capfd, *segment, "--modality=mr", f"--input={fakes}", f"--output={labels}")
    assert done.status == 0 and done.out == f"{labels}: 3 done\n"
    results = {path.name for path in labels.glob("*.json")}
    assert results == {f"{prefix}a.json", f"{prefix}b.json", "c_mask.json"}
    for modality, place in (("ct", fakes), ("mr", labels)):  # neither CT nor label maps are MR
        (fakes / "c_mask.nii.gz").unlink(missing_ok=True)
        done = call(
            capfd, *segment, f"--modality={modality}", f"--input={place}", f"--output={tmp_path}"
        )
        require_one_clear_line(done, "holds no scan")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is locked to the superuser")
def test_what_may_not_be_read_is_told_and_does_not_stop_the_others(workdir, tmp_path, capfd):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b"):
        write_scan(folder / f"{name}.nii.gz")
    affine = affine_of("LPS", (2, 2, 2), (12, 12, 12))
    series = write_series(folder / "c", np.arange(12**3, dtype=np.int16).reshape((12,) * 3), affine)
    (folder / "d").mkdir()
    locked = [folder / "b.nii.gz", series / "003.dcm", folder / "d"]
    for path in locked:
        path.chmod(0)
    command = ("--mode=segment", "--modality=ct", f"--workdir={workdir}")
    try:
        done = call(capfd, *command, f"--input={folder}", f"--output={out}", "--quiet")
        assert done.status == 2 and done.out == f"{out}: 1 done, 3 failed: b.nii.gz, c, d\n"
        assert done.err.count("\n") == 3 and "Traceback" not in done.err
        assert all(str(path) in done.err for path in locked)
        for path in locked:
            done = call(capfd, *command, f"--input={path}", f"--output={tmp_path / 'x.nii.gz'}")
            require_one_clear_line(done, str(path))
    finally:
        for path in locked:
            path.chmod(0o700)


def test_an_existing_result_is_kept(workdir, tmp_path, capfd):
    scan, target = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "labels.nii.gz"
    target.write_bytes(b"mine")
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={scan}",
        f"--output={target}",
    )  # fmt: skip
    assert done.status == 0 and "1 exist already (--overwrite)" in done.out
    assert target.read_bytes() == b"mine" and tree(tmp_path) == {"scan.nii.gz", "labels.nii.gz"}


SIDE_FILES = ("a.json", "a_mask.nii.gz", "a_probabilities.nii.gz", "a.png")


@pytest.mark.parametrize("name", SIDE_FILES)
def test_files_of_the_users_own_are_kept(workdir, tmp_path, capfd, name):
    scan, target = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "a.nii.gz"
    command = ("--mode=segment", "--modality=ct", f"--workdir={workdir}", "--quiet")
    one = (*command, f"--input={scan}", f"--output={target}", "--probabilities", "--overlay")
    own = tmp_path / name
    own.write_bytes(b'{"EchoTime": 0.03}')
    before = tree(tmp_path)
    require_one_clear_line(call(capfd, *one), str(own), "is no result of this program")
    assert tree(tmp_path) == before and own.read_bytes() == b'{"EchoTime": 0.03}'
    assert call(capfd, *one, "--overwrite").status == 0
    assert own.read_bytes() != b'{"EchoTime": 0.03}'
    target.unlink()  # what is left is of this program
    assert call(capfd, *one).status == 0


def test_what_is_not_written_is_in_nobodys_way(workdir, tmp_path, capfd):
    scan, own = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "a_mask.nii.gz"
    own.write_bytes(b"mine")
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={scan}",
        f"--output={tmp_path / 'a.nii.gz'}", "--extent=whole", "--quiet",
    )  # fmt: skip
    assert done.status == 0 and own.read_bytes() == b"mine"


def test_the_input_is_never_replaced_by_what_goes_beside_the_result(workdir, tmp_path, capfd):
    """Nor is it taken for the mask that an earlier result left."""
    scan, target = write_scan(tmp_path / "a_mask.nii.gz"), tmp_path / "a.nii.gz"
    content = scan.read_bytes()
    command = (
        "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={scan}",
        f"--output={target}", "--quiet", "--overwrite",
    )  # fmt: skip
    require_one_clear_line(call(capfd, *command), str(scan), "is the input")
    assert tree(tmp_path) == {"a_mask.nii.gz"}
    (tmp_path / "a.json").write_text('{"cyclesh": "1", "scan": {}}')
    require_one_clear_line(call(capfd, *command, "--extent=whole"), str(scan), "is the input")
    assert scan.read_bytes() == content


def test_a_scan_is_never_replaced_through_a_link_to_it(workdir, tmp_path, capfd):
    folder, archive = tmp_path / "in", tmp_path / "archive"
    scan = write_scan(archive / "b.nii.gz")
    content = scan.read_bytes()
    write_scan(folder / "a.nii.gz")
    (folder / "b.nii.gz").symlink_to(scan)
    command = (
        "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={folder}",
        f"--output={archive}", "--quiet",
    )  # fmt: skip
    for more in ((), ("--overwrite",)):
        done = call(capfd, *command, *more)
        require_one_clear_line(done, f"--output={archive}: b.nii.gz is the input", "by a link")
    assert scan.read_bytes() == content and tree(archive) == {"b.nii.gz"}


def test_in_a_folder_a_file_of_the_users_own_fails_one_scan(workdir, tmp_path, capfd):
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in "ab":
        write_scan(folder / f"{name}.nii.gz")
    out.mkdir()
    (out / "a.json").write_text("{}")
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={folder}",
        f"--output={out}", "--quiet",
    )  # fmt: skip
    assert done.status == 2 and done.out == f"{out}: 1 done, 1 failed: a.nii.gz\n"
    assert f"{out / 'a.json'}: exists and is no result of this program" in done.err
    assert tree(out) == {"a.json", "b.nii.gz", "b.json", "b_mask.nii.gz"}
    assert (out / "a.json").read_text() == "{}"


def test_flags_reach_the_result(workdir, tmp_path, capfd):
    scan, target = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "labels.nii.gz"
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={scan}",
        f"--output={target}", "--grid=network", "--center=6,-4.5,8", "--probabilities",
        "--checkpoint=7", "--pass_voxels=100000",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert read(target).shape == (16, 14, 12)
    assert read(tmp_path / "labels_probabilities.nii.gz").shape == (16, 14, 12, 3)
    about = json.loads((tmp_path / "labels.json").read_text())
    assert about["center_mm"] == [6, -4.5, 8] and about["grid"] == "network"


def test_a_config_beside_the_workdirs_own_is_said_to_be_unread(workdir, tmp_path, capfd):
    scan, target = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "labels.nii.gz"
    command = (
        "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={scan}",
        f"--output={target}", "--config=configs/gan.py:tiny",
    )  # fmt: skip
    done = call(capfd, *command, "--quiet")
    assert (done.status, done.err) == (0, "") and target.exists()
    done = call(capfd, *command)
    assert done.status == 0 and done.err.count("\n") == 1
    assert done.err.startswith("cyclesh: --config is not read: --mode=segment goes by the workdir")


def test_fields_of_a_config_that_only_names_the_workdir_are_said_to_be_unread(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    config = f"--config={ROOT / 'configs' / 'gan.py'}:tiny"
    for more, unread in (("", False), (",epochs=2", True)):
        done = call(capfd, "--mode=report", config + more)
        assert done.status == 2 and "runs/gan-tiny" in done.err
        assert ("--config names the folder, runs/gan-tiny, and no more" in done.err) is unread


def test_a_run_without_segmentors_translates_about_the_middle(tmp_path, capfd):
    workdir = write_workdir(tmp_path / "gan", "gan")
    scan, target = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "fake.nii.gz"
    done = call(
        capfd, "--mode=translate", "--to=mr", f"--workdir={workdir}", f"--input={scan}",
        f"--output={target}",
    )  # fmt: skip
    assert done.status == 0 and "this model has no segmentor" in done.err
    assert json.loads((tmp_path / "fake.json").read_text())["agreement"] is None
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={scan}",
        f"--output={tmp_path / 'labels.nii.gz'}",
    )  # fmt: skip
    assert done.status == 2 and "is a gan run and has no trained segmentors" in done.err


def test_a_run_without_generators_segments(tmp_path, capfd):
    workdir = write_workdir(tmp_path / "baseline", "baseline")
    scan, target = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "labels.nii.gz"
    done = call(
        capfd, "--mode=segment", "--modality=ct", f"--workdir={workdir}", f"--input={scan}",
        f"--output={target}",
    )  # fmt: skip
    assert done.status == 0 and target.exists()
