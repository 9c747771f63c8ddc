"""The phantom's files: deterministic, complete, paired, and what the reader expects."""

import dataclasses
import hashlib
import json

import nibabel
import numpy as np
import pytest
from scan_files import HEART

from cyclesh.data import phantom
from cyclesh.data.anatomy import LABELS, STRUCTURES
from cyclesh.data.description import describe, read_dataset_json
from cyclesh.data.phantom import Job, PhantomSpec, phantom_key, render_case, write_phantom
from cyclesh.data.raw import find_cases
from cyclesh.data.splits import split_cases
from cyclesh.errors import UserError

TINY = PhantomSpec(
    subjects_ct=4,
    subjects_mr=5,
    extra_ct=1,
    spacing_ct_mm=(6.5, 6.0, 6.0),
    spacing_mr_mm=(6.0, 6.0, 6.0),
)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def volumes_of(folder):
    return {name: digest for name, digest in digests(folder).items() if name.endswith(".nii.gz")}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "tiny"
    write_phantom(TINY, folder, processes=1, progress=False)
    return folder


def load(folder, name):
    return nibabel.load(folder / f"{name}.nii.gz")


def test_bytes_depend_on_the_spec_alone(tiny, tmp_path):
    write_phantom(TINY, tmp_path / "again", processes=2, progress=False)
    assert digests(tmp_path / "again") == digests(tiny)


def test_further_subjects_leave_the_others_alone(tiny, tmp_path):
    more = dataclasses.replace(TINY, subjects_ct=5, extra_ct=2)
    write_phantom(more, tmp_path / "more", processes=1, progress=False)
    old, new = volumes_of(tiny), volumes_of(tmp_path / "more")
    common = old.keys() & new.keys()
    assert {n for n in old if n.startswith(("ct_train", "mr_train"))} <= common
    assert all(old[name] == new[name] for name in common)
    assert len(new) > len(old)


CHANGES = {
    "seed": 1,
    "subjects_ct": 5,
    "subjects_mr": 4,
    "extra_ct": 0,
    "fractions": (0.25, 0.5, 0.25),
    "spacing_ct_mm": (7.0, 6.0, 6.0),
    "spacing_mr_mm": (7.0, 6.0, 6.0),
    "field_of_view_mm": (160.0, 200.0, 200.0),
    "cohort_difference": 0.0,
    "noise_ct": 2.0,
    "noise_mr": 2.0,
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PhantomSpec)])
def test_every_field_changes_the_files_and_the_key(field, tiny, tmp_path):
    spec = dataclasses.replace(TINY, **{field: CHANGES[field]})
    assert phantom_key(spec) != phantom_key(TINY)
    write_phantom(spec, tmp_path / "other", processes=1, progress=False)
    other, same = digests(tmp_path / "other"), digests(tiny)
    del other["phantom.json"], same["phantom.json"]
    assert other != same


def test_the_reader_understands_the_folder(tiny):
    description = describe(tiny, HEART)
    assert description.structures == tuple((name, LABELS[name]) for name in STRUCTURES)
    assert description.dropped == (820, 850)
    assert description.spacing_mm == (4.0, 4.0, 4.0) and description.shape == (32, 40, 40)
    cases = find_cases(tiny, description)
    splits = split_cases(cases, read_dataset_json(tiny))
    counts = {name: list(splits.values()).count(name) for name in set(splits.values())}
    assert counts == {"train": 4, "val": 2, "test": 3, "extra": 1, "paired": 3}


def test_every_volume_holds_all_structures_and_the_great_arteries(tiny):
    files = sorted(tiny.rglob("*_label.nii.gz"))
    assert len(files) == 13
    for path in files:
        image = nibabel.load(path)
        assert image.get_data_dtype() == np.int16
        assert set(np.unique(image.get_fdata())) == {0, *LABELS.values()}, path.name


def test_a_paired_volume_shows_the_anatomy_of_its_source(tiny):
    paired = json.loads((tiny / "dataset.json").read_text())["paired"]
    test = json.loads((tiny / "dataset.json").read_text())["split"]["test"]
    assert sorted(paired.values()) == sorted(test)
    for pair, source in paired.items():
        origin = tiny / f"{source[:2]}_train"
        labels = [load(tiny / "paired", f"{pair}_label"), load(origin, f"{source}_label")]
        np.testing.assert_array_equal(*(image.get_fdata() for image in labels))
        images = [load(tiny / "paired", f"{pair}_image"), load(origin, f"{source}_image")]
        np.testing.assert_array_equal(*(image.affine for image in images))
        assert images[0].shape == images[1].shape
        correlation = np.corrcoef(*(image.get_fdata().ravel() for image in images))[0, 1]
        assert 0.2 < correlation < 0.9  # the same body, not the same image


def test_orientations_differ_and_the_affine_tells_them():
    kinds = set()
    for index in range(24):
        _, labels, affine = render_case(TINY, Job("ct", index, "ct"))
        linear = affine[:3, :3]
        if np.count_nonzero(linear) > 3:
            kinds.add("oblique")
        else:
            kinds.add(nibabel.aff2axcodes(affine))
        middle = {}
        for name in ("RA", "LV", "RV", "LA"):
            voxel = np.argwhere(labels == LABELS[name]).mean(axis=0)[::-1]
            middle[name] = linear @ voxel + affine[:3, 3]
        assert middle["RA"][0] > middle["LV"][0]  # right is +x
        assert middle["RV"][1] > middle["LA"][1]  # front is +y
        assert middle["LA"][2] > middle["LV"][2]  # head is +z
    assert kinds == {"oblique", ("R", "A", "S"), ("L", "P", "S")}


def test_spacing_varies_and_slices_are_thicker_in_ct():
    spacings = []
    for index in range(4):
        _, _, affine = render_case(PhantomSpec(), Job("ct", index, "ct"))
        spacings.append(np.linalg.norm(affine[:3, :3], axis=0))
    spacings = np.array(spacings)
    assert np.all(spacings[:, 2] > spacings[:, 0])
    np.testing.assert_allclose(spacings[:, 0], spacings[:, 1])
    assert spacings.std(axis=0).min() > 0.01


def test_a_finished_phantom_is_left_alone_and_nothing_else_is_touched(tiny, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    write_phantom(TINY, tiny, processes=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before
    with pytest.raises(UserError, match="not the phantom asked for"):
        write_phantom(dataclasses.replace(TINY, seed=5), tiny, processes=1, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError):
        write_phantom(TINY, tmp_path, processes=1, progress=False)


def test_an_interrupted_phantom_leaves_nothing(tmp_path, monkeypatch):
    def fail(spec, folder, job):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "_write_case", fail)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(TINY, tmp_path / "half", processes=1, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"subjects_ct": 3}, {"extra_ct": -1}, {"fractions": (0.5, 0.5, 0.5)}]
)
def test_an_impossible_spec_is_the_users_mistake(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        PhantomSpec(**wrong)
