import dataclasses
import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from command_line import call
from scan_files import BALLS, LPS, balls, prepared, save, voxels, write_case, write_raw
from scan_formats import patch_header

from configs import default
from cyclesh.data import verify as checking
from cyclesh.data.locate import open_store, verify_for
from cyclesh.data.splits import split_cases
from cyclesh.data.verify import Report, verify
from cyclesh.data.workers import in_parallel
from cyclesh.errors import UserError

CT = "ct_train/ct_train_2_image.nii.gz"
CT_LABEL = "ct_train/ct_train_2_label.nii.gz"
MR = "mr_train/mr_train_3_image.nii.gz"
MR_LABEL = "mr_train/mr_train_3_label.nii.gz"


def check(raw, description=BALLS) -> Report:
    return verify(raw, description, processes=1, progress=False)


def faults(raw, description=BALLS) -> list[tuple[str, str, str]]:
    return [(f.file, f.severity, f.code) for f in check(raw, description).faults]


def edit(path, change, affine=None) -> None:
    image = nib.load(path)
    save(path, change(np.asanyarray(image.dataobj)), image.affine if affine is None else affine)


def header(path, change) -> None:
    image = nib.load(path)
    voxels = np.asanyarray(image.dataobj)
    changed = nib.Nifti1Image(voxels, image.affine, image.header)
    change(changed)
    changed.to_filename(path)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("clean") / "raw")


@pytest.fixture
def raw(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "raw")


def test_clean_data(clean):
    report = check(clean)
    assert report.ok and report.faults == ()
    assert report.volumes == (("ct", 4), ("mr", 4))
    assert "ok: 0 errors, 0 warnings in 4 ct, 4 mr volumes" in report.to_table()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-60])


def flip_checksum(path):
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(bytes(content))


def set_nan(xyz):
    xyz = xyz.astype(np.float32)
    xyz[0, 0, :3] = np.nan
    return xyz


def set_inf(xyz):
    xyz = xyz.astype(np.float32)
    xyz[0, 0, 0], xyz[0, 0, 1] = np.inf, -np.inf
    return xyz


def swap(old, new):
    return lambda xyz: np.where(xyz == old, new, xyz).astype(np.uint8)


SHIFTED = LPS.copy()
SHIFTED[0, 3] = 3.0


@pytest.mark.parametrize(
    ("file", "spoil", "severity", "code", "says"),
    [
        (CT, truncate, "error", "unreadable", "cannot be read"),
        (CT, flip_checksum, "error", "unreadable", "CRC"),
        (MR_LABEL, truncate, "error", "unreadable", "cannot be read"),
        (MR, lambda p: edit(p, lambda v: np.stack([v, v], -1)), "error", "not-3d", "x2"),
        (CT_LABEL, lambda p: edit(p, lambda v: v + np.float32(0.5)), "error",
         "not-whole-numbers", "whole"),
        (MR, lambda p: edit(p, set_nan), "error", "not-finite", "3 voxels are NaN"),
        (CT, lambda p: edit(p, set_inf), "error", "not-finite", "2 voxels are NaN or infinite"),
        (CT, lambda p: p.write_bytes(b""), "error", "unreadable", "cannot be read"),
        (MR, lambda p: edit(p, lambda v: v[:, :, 0]), "error", "not-3d", "20x18"),
        (MR_LABEL, lambda p: edit(p, lambda v: np.stack([v, v], -1)), "error", "not-3d", "x2"),
        (MR, lambda p: edit(p, lambda v: v * 0 + 9), "error", "constant", "every voxel is 9"),
        (MR_LABEL, lambda p: edit(p, swap(3, 4)), "error", "unknown-label", "value 4 ("),
        (MR_LABEL, lambda p: edit(p, swap(7, 8)), "warning", "alias", "is read as 7, core"),
        (MR_LABEL, lambda p: edit(p, lambda v: v * 0), "error", "empty-label", "shell, core"),
        (MR_LABEL, lambda p: edit(p, swap(7, 5)), "warning", "missing-structure", "core"),
        (CT_LABEL, lambda p: edit(p, lambda v: v[:-1]), "error", "shape-mismatch",
         "16x18x19 voxels, its image has 16x18x20"),
        (CT_LABEL, lambda p: edit(p, lambda v: v, np.diag([-2.5, -2, 2, 1])), "error",
         "spacing-mismatch", "2x2x2.5 mm, its image has 2x2x2 mm"),
        (CT_LABEL, lambda p: edit(p, lambda v: v, np.diag([-2.003, -2.003, 2, 1])), "warning",
         "spacing-mismatch", "2.003"),
        (CT_LABEL, lambda p: edit(p, lambda v: v, SHIFTED), "error", "misaligned", "1.5 voxels"),
        (CT_LABEL, lambda p: edit(p, lambda v: v, np.diag([2.0, -2, 2, 1])), "error",
         "misaligned", "voxels from its image"),
        (CT, lambda p: edit(p, lambda v: v + 1000), "warning", "modality", "no value below 0"),
        (MR, lambda p: edit(p, lambda v: np.where(v < 100, -1000, v).astype(np.int16)),
         "warning", "modality", "air"),
        (CT, lambda p: edit(p, lambda v: np.where(v > 0, v + 2000, v - 2000).astype(np.int16)),
         "warning", "window", "0.0%"),
        (CT, lambda p: header(p, lambda i: i.header.set_xyzt_units("meter")), "error", "unit",
         "meters"),
        (CT, lambda p: header(p, lambda i: (i.set_qform(SHIFTED, 1), i.set_sform(LPS, 1))),
         "warning", "two-orientations", "1.5 voxels"),
    ],
)  # fmt: skip
def test_one_fault_of_one_file(raw, file, spoil, severity, code, says):
    spoil(raw / file)
    found = [f for f in check(raw).faults if f.code == code]
    assert [(f.file, f.severity) for f in found] == [(file, severity)]
    assert says in found[0].message
    assert check(raw).ok == (severity == "warning")
    # Nothing but what was spoilt is complained of.
    assert {f.file for f in check(raw).faults} <= {file, file.replace("image", "label")}


@pytest.mark.parametrize(
    ("file", "spoil"),
    [
        (CT, truncate),
        (MR, lambda p: edit(p, lambda v: np.stack([v, v], -1))),
        (MR, lambda p: edit(p, lambda v: v * 0 + 9)),
        (MR_LABEL, lambda p: edit(p, swap(3, 4))),
        (MR_LABEL, lambda p: edit(p, lambda v: v * 0)),
        (CT_LABEL, lambda p: edit(p, lambda v: v[:-1])),
        (CT_LABEL, lambda p: edit(p, lambda v: v, SHIFTED)),
        (MR_LABEL, lambda p: p.unlink()),
    ],
)
def test_what_prepare_refuses_is_an_error_here(raw, tmp_path, file, spoil):
    spoil(raw / file)
    with pytest.raises(UserError):
        prepared(raw, tmp_path / "s")
    assert not check(raw).ok


def test_a_missing_and_a_lonely_label(raw):
    (raw / CT_LABEL).unlink()
    (raw / MR).unlink()
    assert set(faults(raw)) == {
        (CT, "error", "missing-label"),
        (MR_LABEL, "error", "label-without-image"),
        ("dataset.json", "error", "split"),  # three mr are left
    }


def test_orientation_that_is_a_guess(raw):
    def forget(image):
        image.set_qform(None, 0)
        image.set_sform(None, 0)

    header(raw / CT, forget)
    assert (CT, "warning", "no-orientation") in faults(raw)


def test_implausible_spacing(raw):
    for file in (CT, CT_LABEL):
        edit(raw / file, lambda v: v, np.diag([-0.002, -0.002, 0.002, 1]))
    assert {(CT, "error", "spacing"), (CT_LABEL, "error", "spacing")} <= set(faults(raw))


def test_a_pair_without_spacing(raw, capfd):
    """nibabel would take what is missing for 1 mm, in both alike."""
    for file in (CT, CT_LABEL):
        path = raw / file.removesuffix(".gz")
        path.write_bytes(gzip.decompress((raw / file).read_bytes()))
        (raw / file).unlink()
        patch_header(path, sform_code=0, qform_code=0, pixdim=(1, 0, 2, 2, 0, 0, 0, 0))
    found = [f for f in check(raw).faults if f.code == "spacing"]
    assert [(f.file, f.severity) for f in found] == [
        (file.removesuffix(".gz"), "error") for file in (CT, CT_LABEL)
    ]
    assert found[0].message == "voxels of 2x2x0 mm (z, y, x) are not plausible; mend the header"
    assert capfd.readouterr() == ("", "")


def test_mixed_orientation_is_a_warning(raw):
    write_case(raw, "ct", 4, np.diag([2.0, 2, 2, 1]))
    report = check(raw)
    assert report.ok
    (fault,) = report.faults
    assert fault.code == "mixed-orientation" and fault.file.startswith("ct_train/ct_train_4")
    assert "is RAS, 3 of 4 ct are LPS" in fault.message


def test_same_voxels_under_two_names(raw):
    image = raw / "mr_train" / "mr_train_9_image.nii"  # another file, header and compression
    save(image, np.asanyarray(nib.load(raw / MR).dataobj).astype(np.float64), LPS * 1.0)
    label = raw / "mr_train" / "mr_train_9_label.nii.gz"
    shutil.copy(raw / MR_LABEL, label)
    assert faults(raw) == [("mr_train/mr_train_9_image.nii", "error", "duplicate")]
    (raw / "dataset.json").write_text(
        json.dumps({"subjects": {"mr_train_9": "p", "mr_train_3": "p"}})
    )
    assert faults(raw) == [("mr_train/mr_train_9_image.nii", "warning", "duplicate")]


def test_one_label_for_two_subjects(raw):
    shutil.copy(raw / "mr_train/mr_train_1_label.nii.gz", raw / MR_LABEL)
    assert faults(raw) == [(MR_LABEL, "warning", "duplicate-label")]


def test_a_pair_shares_its_label(raw):
    save(raw / "paired/mr_of_ct_train_1_image.nii.gz", voxels(balls(1), "mr", 5))
    save(raw / "paired/mr_of_ct_train_1_label.nii.gz", balls(1))
    assert faults(raw) == []


def test_what_shows_only_on_the_training_grid(raw):
    """Voxels that differ far from the structures alone, and a pair that lies elsewhere."""
    label = nib.load(raw / MR_LABEL)
    where = np.argwhere(np.asanyarray(label.dataobj))
    low, high = where.min(0), where.max(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low - 2, high + 2, strict=True))

    def flat_about_the_structures(v):
        v = v.copy()
        v[box] = 50
        return v

    edit(raw / MR, flat_about_the_structures)
    narrow = dataclasses.replace(BALLS, shape=tuple((high - low)[::-1].tolist()))
    (fault,) = (f for f in check(raw, narrow).faults if f.severity == "error")
    assert (fault.file, fault.code) == (MR, "crop") and "is constant (50)" in fault.message
    far = LPS.copy()
    far[0, 3] += 500
    save(raw / "paired/mr_of_ct_train_1_image.nii.gz", voxels(balls(1), "mr", 5), far)
    save(raw / "paired/mr_of_ct_train_1_label.nii.gz", balls(1), far)
    (fault,) = (f for f in check(raw).faults if f.severity == "error")
    assert fault.file == "paired/mr_of_ct_train_1_image.nii.gz" and fault.code == "crop"
    assert "lies elsewhere than ct_train_1" in fault.message


def test_a_header_that_asks_for_more_than_memory_holds(raw):
    path = raw / "ct_train" / "ct_train_2_image.nii"
    (raw / CT).unlink()
    save(path, voxels(balls(2), "ct"))
    patch_header(path, dim=(3, 32767, 32767, 32767, 1, 1, 1, 1))
    assert faults(raw) == [("ct_train/ct_train_2_image.nii", "error", "unreadable")]


def test_structures_that_the_crop_cuts(raw):
    small = dataclasses.replace(BALLS, shape=(8, 14, 16))
    codes = {(severity, code) for _, severity, code in faults(raw, small)}
    assert codes == {("warning", "larger-than-crop")}
    assert "the crop of 16x28x32 mm (z, y, x) cuts off " in check(raw, small).faults[0].message


def test_strangers_are_named(raw):
    save(raw / "scout.nii.gz", np.zeros((3, 3, 3), np.int16))
    assert faults(raw) == [("scout.nii.gz", "warning", "ignored")]
    for name in ("ct_train/ct_9.nrrd", "ct_train/ct_9_label.nrrd"):
        (raw / name).write_bytes(b"")
    report = check(raw)
    assert report.ok and [f.code for f in report.faults] == ["ignored"] * 3
    assert "ct_train/ct_9.nrrd: is no NIfTI; convert it" in report.to_table()


def test_endings_in_upper_case_are_checked_and_prepared(raw, tmp_path):
    whole = prepared(raw, tmp_path / "whole")
    for file in (CT, CT_LABEL, MR):
        (raw / file).rename((raw / file).with_name((raw / file).name.replace(".nii.gz", ".NII.GZ")))
    assert faults(raw) == []
    store = prepared(raw, tmp_path / "store")
    assert [v.id for v in store.volumes] == [v.id for v in whole.volumes]
    assert [v.source.sha256_image for v in store.volumes] == [
        v.source.sha256_image for v in whole.volumes
    ]


def test_faults_of_dataset_json_do_not_hide_the_rest(raw):
    (raw / "dataset.json").write_text(json.dumps({"subjects": {"ct_train_77": "x"}}))
    truncate(raw / CT)
    assert faults(raw) == [(CT, "error", "unreadable"), ("dataset.json", "error", "roster")]


def test_names_that_clash_are_listed_with_the_rest(raw, tmp_path, capfd):
    shutil.copy(raw / CT, raw / "ct_train/ct_train_2_image.nii")
    (raw / "again").mkdir()
    for file in (MR, MR_LABEL):
        shutil.copy(raw / file, raw / "again")
    truncate(raw / "ct_train/ct_train_1_image.nii.gz")
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json()))
    config = ("--config=configs/joint.py", "--config.model.depth=2")
    command = ("--mode=verify", f"--input={raw}", f"--output={tmp_path / 'f.json'}", "--quiet")
    done = call(capfd, *command, *config)
    told = json.loads((tmp_path / "f.json").read_text())
    assert done.status == 2 and not done.err and not told["ok"]
    assert told["volumes"] == {"ct": 4, "mr": 4}
    assert [(f["file"], f["code"]) for f in told["faults"]] == [
        ("ct_train/ct_train_1_image.nii.gz", "unreadable"),
        (CT, "name-clash"),
        (MR, "name-clash"),
    ]
    assert f"{CT}: the same volume is also ct_train/ct_train_2_image.nii; remove one" in done.out
    assert f"{MR}: mr_train_3 is also again/mr_train_3_image.nii.gz; rename one" in done.out


def test_splits(raw):
    everything = [f"{m}_train_{n}" for m in ("ct", "mr") for n in (1, 2, 3, 4)]
    (raw / "dataset.json").write_text(json.dumps({"split": {"train": everything}}))
    assert faults(raw) == [("dataset.json", "error", "too-few-subjects")] * 2
    assert "0 in val, 0 in test subjects; training needs 2, 1 and 1" in check(raw).to_table()
    (raw / "dataset.json").write_text(json.dumps({"split": {"train": everything[1:]}}))
    assert faults(raw) == [("dataset.json", "error", "split")]


def test_too_few_subjects_to_split(raw):
    for path in raw.glob("ct_train/ct_train_[123]_*"):
        path.unlink()
    report = check(raw)
    assert not report.ok and [f.code for f in report.faults] == ["split"]


def test_the_known_typo_of_mm_whs_is_named(raw):
    """421 for 420, the left atrium, in one of its MR labels."""
    heart = dataclasses.replace(
        BALLS, structures=(("LV", 3), ("LA", 420)), aliases=((421, 420), (7, 420)), dropped=()
    )
    edit(raw / MR_LABEL, lambda v: np.where(v == 7, np.int16(421), v))
    report = check(raw, heart)
    (fault,) = [f for f in report.faults if "421" in f.message]
    assert report.ok and fault.file == MR_LABEL and fault.code == "alias"
    assert "is a known mistake and is read as 420, LA" in fault.message


def test_a_modality_without_volumes(raw):
    shutil.rmtree(raw / "mr_train")
    assert faults(raw) == [(".", "error", "no-volumes")]


def test_nothing_to_check(tmp_path):
    with pytest.raises(UserError, match="found no volume"):
        check(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        check(tmp_path / "absent")


def test_with_a_config_it_judges_what_training_with_it_would(raw, tmp_path, capfd, monkeypatch):
    """On the grid that the config sets, which dataset.json may not change; by its split, too."""
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json()))
    file, used = tmp_path / "faults.json", []
    monkeypatch.setattr(
        checking,
        "in_parallel",
        lambda *args, **kept: used.append(kept) or in_parallel(*args, **kept),
    )
    monkeypatch.setattr(
        checking, "split_cases", lambda *args: used.append(args) or split_cases(*args)
    )

    def told(argument: str) -> set[str]:
        words = (f"--config=configs/joint.py:{argument}", *fields)
        done = call(capfd, "--mode=verify", f"--input={raw}", f"--output={file}", "--quiet", *words)
        assert done.status == 0, done
        return {fault["code"] for fault in json.loads(file.read_text())["faults"]}

    fields = ("--config.data.processes=1", "--config.data.split_seed=3", "--config.model.depth=2")
    assert told("seed=1") == set()
    assert told("shape=16x16x16,spacing=0.5") == {"larger-than-crop"}
    assert [kept["processes"] for kept in used[::2]] == [1, 1]
    assert [seed for _, _, _, seed in used[1::2]] == [3, 3]


def test_headers_that_nibabel_cannot_tell_do_not_hide_the_rest(raw):
    def unit(image):
        image.header["xyzt_units"] = 7

    def qform(image):
        image.header["qform_code"] = 1
        image.header["quatern_b"], image.header["quatern_d"] = 0.9, 0.9

    header(raw / CT, qform)
    header(raw / MR, unit)
    found = faults(raw)
    assert (CT, "warning", "two-orientations") in found
    assert not [fault for fault in found if fault[1] == "error"]


def test_a_grid_too_small_for_the_networks_is_told_with_the_rest(raw, capfd):
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json()))
    truncate(raw / CT)
    config = ("--config=configs/joint.py", "--config.data.processes=1")
    done = call(capfd, "--mode=verify", *config, "--config.model.depth=3", f"--input={raw}")
    assert done.status == 2 and f"{CT}: cannot be read" in done.out
    assert "dataset.json: shape is (12, 14, 16); 3 downsamplings need 16 voxels" in done.out
    done = call(capfd, "--mode=verify", *config, "--config.model.depth=2", f"--input={raw}")
    assert "downsamplings" not in done.out and "1 errors" in done.out


def test_training_judges_as_verify_does_with_its_config(raw, tmp_path):
    (raw / "dataset.json").write_text(json.dumps(BALLS.to_json()))
    truncate(raw / CT)
    config = default.build(f"tiny,data={raw}", "joint")
    config.data.processes = 1
    report = verify_for(config, raw, progress=False)
    assert [fault.file for fault in report.faults if fault.severity == "error"] == [CT]
    with pytest.raises(UserError, match=f"1 faults.*{CT}.*--input={raw} with this --config lists"):
        open_store(config, progress=False)


def test_all_at_once_and_the_forms_of_the_report(raw):
    truncate(raw / CT)
    edit(raw / MR_LABEL, lambda v: np.where(np.indices(v.shape)[0] == 2, 4, v).astype(np.uint8))
    edit(raw / "mr_train/mr_train_1_label.nii.gz", swap(7, 8))
    report = verify(raw, BALLS, processes=2, progress=False)
    assert report == check(raw)
    assert [(f.severity, f.code) for f in report.faults] == [
        ("error", "unreadable"),
        ("error", "unknown-label"),
        ("warning", "alias"),
    ]
    lines = report.to_table().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("error    unreadable     ct_train/ct_train_2_image.nii.gz: cannot")
    assert lines[3].startswith("not ok: 2 errors, 1 warnings in 4 ct, 4 mr volumes of ")
    as_json = json.loads(json.dumps(report.to_json()))
    assert as_json["ok"] is False and as_json["volumes"] == {"ct": 4, "mr": 4}
    assert as_json["faults"][0]["file"] == CT
