import gzip
import json
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from scan_files import BALLS, LPS, balls, save, write_raw

from cyclesh.data.raw import (
    Case,
    file_sha256,
    find_cases,
    read_header,
    read_image,
    read_labels,
    split_cases,
    unmatched_files,
)
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
    assert strangers == [tmp_path / "pet_1.nii.gz"]


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


def case(name, subject=None, pair_of=None):
    return Case(name, name[:2], subject or name, None, None, pair_of)


CT = [case(f"ct_{i:02d}") for i in range(24)]
MR = [case(f"mr_{i:02d}") for i in range(15)]


def test_split_has_the_papers_shares_in_each_modality():
    splits = split_cases(CT + MR)
    assert Counter(splits[c.id] for c in CT) == {"train": 10, "val": 2, "test": 12}
    assert Counter(splits[c.id] for c in MR) == {"train": 6, "val": 2, "test": 7}


def test_split_depends_on_seed_and_fold_alone():
    once = split_cases(CT + MR, seed=1)
    assert once == split_cases(reversed(CT + MR), seed=1)
    assert once != split_cases(CT + MR, seed=2) != split_cases(CT + MR, seed=2, fold=1)
    # More MR must not move CT.
    assert [once[c.id] for c in CT] == [split_cases(CT + MR[:9], seed=1)[c.id] for c in CT]


def test_a_subjects_volumes_stay_together_across_modalities():
    both = [case(f"{m}_{i}_{k}", f"p{i}") for m in ("ct", "mr") for i in range(9) for k in "ab"]
    splits = split_cases(both)
    for i in range(9):
        assert len({splits[c.id] for c in both if c.subject == f"p{i}"}) == 1
    assert set(splits.values()) == {"train", "val", "test"}


def test_anatomies_of_paired_volumes_go_to_test():
    pairs = [case(f"mr_of_{c.id}", c.id, pair_of=c.id) for c in CT[:6]]
    for seed in range(5):
        splits = split_cases(CT + MR + pairs, seed=seed)
        assert {splits[c.id] for c in CT[:6]} == {"test"}
        assert {splits[p.id] for p in pairs} == {"paired"}


def test_small_sets_keep_two_to_train_on():
    assert Counter(split_cases(CT[:4]).values()) == {"train": 2, "val": 1, "test": 1}
    with pytest.raises(UserError, match="ct: 3 subjects are too few"):
        split_cases(CT[:3])


def test_given_split_is_obeyed_by_case_or_subject():
    cases = [case("ct_1", "p1"), case("ct_2", "p1"), case("ct_3"), case("mr_1"), case("ct_4")]
    given = {"train": ["p1"], "test": ["ct_3"], "val": ["mr_1"], "extra": ["ct_4"]}
    assert split_cases(cases, {"split": given}) == {
        "ct_1": "train", "ct_2": "train", "ct_3": "test", "mr_1": "val", "ct_4": "extra"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train": ["ct_1"]}, "ct_3 is in none"),
        ({"train": ["ct_1", "ct_9"], "test": ["ct_3"]}, "no case 'ct_9'"),
        ({"train": ["ct_1", "ct_3"], "test": ["ct_2"]}, "p1.* is in train and in test"),
    ],
)
def test_faulty_given_splits(given, says):
    cases = [case("ct_1", "p1"), case("ct_2", "p1"), case("ct_3")]
    with pytest.raises(UserError, match=says):
        split_cases(cases, {"split": given})


def test_a_paired_anatomy_in_train_is_refused():
    cases = [case("ct_1"), case("mr_of_ct_1", "ct_1", pair_of="ct_1")]
    with pytest.raises(UserError, match="ct_1, which is in train"):
        split_cases(cases, {"split": {"train": ["ct_1"]}})


def test_fractions_must_add_up():
    with pytest.raises(UserError, match="add up to 1"):
        split_cases(CT, fractions=(0.5, 0.5, 0.5))


def test_arrays_are_zyx_and_the_affine_is_niftis(tmp_path):
    xyz = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = save(tmp_path / "a.nii.gz", xyz, LPS)
    scan = read_image(path)
    assert scan.values.shape == (4, 3, 2) and scan.values.dtype == np.float32
    assert scan.values[3, 1, 0] == xyz[0, 1, 3]
    np.testing.assert_array_equal(scan.grid.affine, LPS)
    assert (scan.dtype, scan.sha256) == ("int16", file_sha256(path))


def test_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image(np.full((3, 3, 3), 10, np.int16), np.eye(4))
    image.header.set_slope_inter(2, -1000)
    image.to_filename(tmp_path / "a.nii")
    raw = nib.load(tmp_path / "a.nii")
    expected = raw.dataobj.slope * raw.dataobj.get_unscaled()[0, 0, 0] + raw.dataobj.inter
    assert (read_image(tmp_path / "a.nii").values == expected).all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_types_of_voxels(tmp_path, dtype):
    path = save(tmp_path / "a.nii.gz", balls().astype(dtype))
    assert set(np.unique(read_labels(path).values)) == {0, 3, 7}
    assert read_labels(path).values.dtype == np.int32
    assert read_image(path).values.max() == 7


def test_nifti2_and_a_trailing_axis_of_one(tmp_path):
    image = nib.Nifti2Image(np.ones((2, 3, 4, 1), np.float32), np.eye(4))
    image.to_filename(tmp_path / "a.nii.gz")
    assert read_image(tmp_path / "a.nii.gz").values.shape == (4, 3, 2)


def test_damaged_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 999, (9, 9, 9)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", noise)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 0xFF  # in gzip's checksum: the voxels are all there
    plain = gzip.decompress(whole)
    damaged = [whole[:-40], bytes(flipped), plain[:-40], b"", b"PK\x03\x04 not an image" * 40]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match="a.nii.gz: cannot be read") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="absent.nii: cannot be read"):
        read_labels(tmp_path / "absent.nii")


def test_a_gz_name_without_compression_is_read(tmp_path):
    save(tmp_path / "a.nii", VOXEL)
    (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    assert read_image(tmp_path / "a.nii.gz").values.shape == (4, 3, 2)
    assert read_header(tmp_path / "a.nii.gz").header["dim"][0] == 3


def test_what_is_no_single_volume(tmp_path):
    save(tmp_path / "a.nii", np.zeros((2, 2, 2, 3), np.float32))
    with pytest.raises(UserError, match="one 3D volume, not 2x2x2x3"):
        read_image(tmp_path / "a.nii")
    save(tmp_path / "b.nii", np.zeros((2, 2, 2), np.complex64))
    with pytest.raises(UserError, match="complex64"):
        read_image(tmp_path / "b.nii")
    save(tmp_path / "c.nii", np.full((2, 2, 2), 0.5, np.float32))
    with pytest.raises(UserError, match="whole numbers"):
        read_labels(tmp_path / "c.nii")


def test_raw_folder_of_the_other_tests_is_understood(tmp_path):
    assert len(find_cases(write_raw(tmp_path), BALLS)) == 8
