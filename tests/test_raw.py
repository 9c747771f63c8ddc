"""Which folders are understood, and which cases they hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from scan_files import BALLS, save, write_raw

from cyclesh.data.raw import Case, find_cases, unmatched_files
from cyclesh.errors import UserError

VOXEL = np.ones((2, 3, 4), np.int16)


def put(root, *names):
    for name in names:
        save(root / name, VOXEL)
    return root


def ids(cases):
    return [case.id for case in cases]


@pytest.mark.parametrize(
    ("image", "label", "case_id"),
    [
        ("ct_train/ct_train_1001_image.nii.gz", "ct_train/ct_train_1001_label.nii.gz",
         "ct_train_1001"),
        ("ct/images/a.nii.gz", "ct/labels/a.nii.gz", "ct_a"),
        ("ct/images/ct_a.nii", "ct/labels/ct_a.nii.gz", "ct_a"),
        ("ct/images/a.nii.gz", "ct/labels/a_label.nii.gz", "ct_a"),
        ("ct_01.nii.gz", "ct_01_label.nii.gz", "ct_01"),
        ("ct/ct_01.nii.gz", "ct/ct_01_label.nii.gz", "ct_01"),
        ("CT/7.nii", "CT/7_label.nii", "ct_7"),
    ],
)  # fmt: skip
def test_layouts(tmp_path, image, label, case_id):
    put(tmp_path, image, label)
    (case,) = find_cases(tmp_path, BALLS)
    assert case == Case(case_id, "ct", case_id, tmp_path / image, tmp_path / label, None)


def test_both_modalities_sorted_and_strangers_left_out(tmp_path):
    put(tmp_path, "mr_2.nii.gz", "mr_2_label.nii.gz", "ct_1.nii.gz", "ct_1_label.nii.gz")
    put(tmp_path, "pet_1.nii.gz", "ct_9_label.nii.gz", ".hidden/ct_3.nii.gz")
    assert ids(find_cases(tmp_path, BALLS)) == ["ct_1", "mr_2"]
    orphans, strangers = unmatched_files(tmp_path, BALLS)
    assert orphans == [tmp_path / "ct_9_label.nii.gz"]
    assert strangers == {tmp_path / "pet_1.nii.gz": "fits no layout that is understood"}


def test_endings_in_upper_case(tmp_path):
    put(tmp_path, "ct/images/a.nii.gz", "ct/labels/a.nii.gz")
    image, label = tmp_path / "ct/images/A.NII.GZ", tmp_path / "ct/labels/A.Nii"
    for path, other in ((image, "images/a.nii.gz"), (label, "labels/a.nii.gz")):
        (tmp_path / "ct" / other).rename(path)
    assert find_cases(tmp_path, BALLS) == [Case("ct_A", "ct", "ct_A", image, label, None)]


def test_what_is_no_nifti_or_lies_too_deep_is_ignored_aloud(tmp_path):
    put(tmp_path, "ct_1.nii.gz", "a/b/c/mr_1.nii.gz", "a/b/c/d/mr_2.NII.GZ", "a/b/c/d/e/mr_3.nii")
    names = ("ct/x.nrrd", "a/b/c/d/e/y.MHA", "z.mgz", "pet/1.dcm", "pet/2.dcm", "ct/notes.txt")
    for name in (*names, "ct_2.nii.BZ2", ".cache/x.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "ct")
    assert ids(find_cases(tmp_path, BALLS)) == ["ct_1", "mr_1"]
    _, ignored = unmatched_files(tmp_path, BALLS)
    found = {path.relative_to(tmp_path).as_posix(): reason for path, reason in ignored.items()}
    deep, other = "lies more than three folders deep; move it up", "is no NIfTI; convert it to .nii"
    assert found == {
        "a/b/c/d/mr_2.NII.GZ": deep,
        "a/b/c/d/e/mr_3.nii": deep,
        "a/b/c/d/e/y.MHA": f"{other}.gz",
        "ct/x.nrrd": f"{other}.gz",
        "ct_2.nii.BZ2": f"{other}.gz",
        "elsewhere/x.nrrd": f"{other}.gz",
        "z.mgz": f"{other}.gz",
        "pet": "holds DICOM files; convert each series to one .nii.gz",
    }


def test_same_names_in_both_modalities(tmp_path):
    put(tmp_path, *(f"{m}/{kind}/01.nii.gz" for m in ("ct", "mr") for kind in ("images", "labels")))
    assert ids(find_cases(tmp_path, BALLS)) == ["ct_01", "mr_01"]


def test_missing_label_is_kept_but_not_in_a_test_folder(tmp_path):
    put(tmp_path, "ct_train/ct_train_1_image.nii.gz", "ct_test/ct_test_1_image.nii.gz")
    (case,) = find_cases(tmp_path, BALLS)
    assert case.id == "ct_train_1" and case.label is None


def test_two_files_for_one_id(tmp_path):
    put(tmp_path, "ct_1.nii", "ct_1.nii.gz")
    with pytest.raises(UserError, match="ct_1.nii"):
        find_cases(tmp_path, BALLS)
    put(tmp_path / "b", "x/ct_1.nii", "y/ct_1.nii")
    with pytest.raises(UserError, match="ct_1 is also"):
        find_cases(tmp_path / "b", BALLS)


def test_a_name_that_its_folder_contradicts_is_told(tmp_path):
    put(tmp_path, "ct_mr/ct_1.nii.gz", "ct_mr/mr_1.nii.gz")
    with pytest.raises(UserError, match="mr_1.nii.gz: its folder says ct, its name mr; rename"):
        find_cases(tmp_path, BALLS)


def test_folders_and_endings_in_upper_case(tmp_path):
    put(tmp_path, "CT/Images/a.nii.gz", "CT/Labels/a.nii.gz", "MR_1_Image.nii", "MR_1_Label.nii")
    cases = find_cases(tmp_path, BALLS)
    assert ids(cases) == ["MR_1", "ct_a"] and all(case.label for case in cases)


def test_a_folder_that_may_not_be_listed_is_told(tmp_path, monkeypatch):
    put(tmp_path, "ct/images/a.nii.gz", "ct/labels/a.nii.gz", "ct_more/b.nii.gz")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "ct_more")
    with pytest.raises(UserError, match="ct_more: may not be listed"):
        find_cases(tmp_path, BALLS)


def test_nothing_found_names_the_layouts(tmp_path):
    with pytest.raises(UserError, match="ct or mr.*NAME_image.nii.gz"):
        find_cases(tmp_path, BALLS)
    with pytest.raises(UserError, match="no such folder"):
        find_cases(tmp_path / "absent", BALLS)


def test_paired_by_name_and_by_dataset_json(tmp_path):
    put(tmp_path, "ct_train/ct_train_1_image.nii", "mr_train/mr_train_2_image.nii")
    put(tmp_path, "paired/mr_of_ct_train_1_image.nii", "paired/ct_elsewhere_image.nii")
    entries = {"paired": {"ct_elsewhere": "mr_train_2"}, "subjects": {"mr_train_2": "Ada"}}
    (tmp_path / "dataset.json").write_text(json.dumps(entries))
    cases = {case.id: case for case in find_cases(tmp_path, BALLS)}
    assert cases["mr_of_ct_train_1"].pair_of == "ct_train_1"
    assert cases["mr_of_ct_train_1"].modality == "mr"
    assert cases["mr_of_ct_train_1"].subject == "ct_train_1"
    assert cases["ct_elsewhere"].pair_of == "mr_train_2"
    assert cases["ct_elsewhere"].subject == cases["mr_train_2"].subject == "Ada"


@pytest.mark.parametrize(
    ("names", "entries", "says"),
    [
        (["ct_1.nii"], {"subjects": {"ct_2": "x"}}, "no case 'ct_2'"),
        (["ct/images/1.nii"], {"subjects": {"1": "x"}}, "no case '1'; there are ct_1$"),
        (["ct_1.nii"], {"paired": {"mr_1": "ct_1"}}, "no case 'mr_1'"),
        (["ct_1.nii", "paired/mr_of_ct_2.nii"], {}, "'ct_2' does not exist"),
        (["ct_1.nii", "paired/mr_7.nii"], {}, "whose"),
        (["ct_1.nii", "paired/ct_of_ct_1.nii"], {}, "other modality"),
    ],
)
def test_faulty_rosters(tmp_path, names, entries, says):
    put(tmp_path, *names)
    (tmp_path / "dataset.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=says):
        find_cases(tmp_path, BALLS)


def test_raw_folder_of_the_other_tests_is_understood(tmp_path):
    assert len(find_cases(write_raw(tmp_path), BALLS)) == 8
