import dataclasses
import json

import pytest
from scan_files import HEART

from cyclesh.data.description import Description, describe, read_dataset_json
from cyclesh.errors import UserError


def write(folder, entries):
    (folder / "dataset.json").write_text(json.dumps(entries))
    return folder


def test_heart_is_mmwhs():
    assert HEART.names == ("LV", "RV", "LA", "RA", "Myo")
    assert HEART.classes == 6
    table = HEART.class_of_value()
    assert table == {0: 0, 500: 1, 600: 2, 420: 3, 550: 4, 205: 5, 421: 3, 820: 0, 850: 0}
    assert HEART.window("ct") == ("fixed", -800, 800)
    assert HEART.window("mr") == ("percentile", 0.5, 99.5)


def test_json_round_trip_through_text():
    text = json.dumps(HEART.to_json())
    assert Description.from_json(json.loads(text)) == HEART


def test_numbers_are_spelt_one_way():
    # The description is hashed as text: 4 and 4.0 must be one spacing.
    whole = dataclasses.replace(HEART, spacing_mm=(4, 4, 4))
    assert json.dumps(whole.to_json()["spacing_mm"]) == "[4.0, 4.0, 4.0]"


def test_without_dataset_json_the_default_holds(tmp_path):
    assert describe(tmp_path, HEART) == HEART
    assert read_dataset_json(tmp_path) == {}


def test_dataset_json_overrides_what_it_names(tmp_path):
    entries = {
        "modalities": ["mr", "pet"],
        "structures": {"spleen": 7, "liver": 2},
        "aliases": {},
        "dropped": [9],
        "shape": [16, 24, 32],
        "windows": {"pet": ["fixed", 0, 20]},
    }
    d = describe(write(tmp_path, entries), HEART)
    assert d.structures == (("spleen", 7), ("liver", 2))  # the file's order is the class order
    assert d.shape == (16, 24, 32) and d.spacing_mm == HEART.spacing_mm
    assert d.windows == (("percentile", 0.5, 99.5), ("fixed", 0.0, 20.0))
    assert d.dropped == (9,) and d.aliases == ()


def test_own_structures_do_not_inherit_aliases(tmp_path):
    d = describe(write(tmp_path, {"structures": {"liver": 1}}), HEART)
    assert d.structures == (("liver", 1),) and d.aliases == d.dropped == ()
    assert describe(write(tmp_path, {"dropped": [9]}), HEART).aliases == HEART.aliases


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"spacing": [1, 1, 1]}, "unknown key 'spacing'"),
        ([], "JSON object"),
        ({"structures": {}}, "at least one"),
        ({"structures": {"LV": "500"}}, "structures.LV must be an integer"),
        ({"structures": {"LV": True}}, "structures.LV must be an integer"),
        ({"structures": ["LV"]}, "structures must be an object"),
        ({"structures": {"LV": 500, "RV": 500}}, "value 500 is used twice"),
        ({"structures": {"LV": 0}}, "value 0 is the background"),
        ({"structures": {"LV": 10**7}, "aliases": {}}, "at most 65535"),
        ({"structures": {"LV": 820}, "dropped": [820]}, "value 820 is used twice"),
        ({"structures": {"mean": 3}}, "'mean'"),
        ({"aliases": {"421": 430}}, "421 stands for 430"),
        ({"aliases": {"x": 420}}, "'x' must be a label value"),
        ({"modalities": ["ct"]}, "modalities must be a list of 2"),
        ({"modalities": ["ct", "ct"]}, "two different names"),
        ({"modalities": ["ct", "t1_w"]}, "part of file names"),
        ({"modalities": ["ct", "pet"]}, "none for modality 'pet'"),
        ({"windows": {"pet": ["fixed", 0, 1]}}, "'pet' is none of the modalities"),
        ({"windows": {"ct": ["fixed", 5, 5]}}, "low < high"),
        ({"windows": {"mr": ["percentile", -1, 99]}}, "percentiles within"),
        ({"windows": {"mr": ["zscore", 1, 2]}}, "'zscore' is neither"),
        ({"spacing_mm": [1, 1]}, "spacing_mm must be a list of 3"),
        ({"spacing_mm": [1, 1, 0]}, "must be positive"),
        ({"spacing_mm": [0.002, 0.002, 0.002]}, "give mm, from 0.05 to 25"),
        ({"spacing_mm": [1, 1, 10**400]}, "spacing_mm must be a number"),
        ({"shape": [8, 8.5, 8]}, "shape must be an integer"),
        ({"shape": [9999, 9999, 9999]}, "more voxels than can be trained on"),
        ({"aliases": {"--5": 1}}, "key '--5' must be a label value"),
        ({"split": {"training": []}}, "unknown key 'training'"),
        ({"split": {"train": "ct_1"}}, "split.train must be a list"),
        ({"subjects": {"ct_1": 3}}, "subjects.ct_1 must be a text"),
    ],
)
def test_mistakes_are_named_with_their_file(tmp_path, entries, says):
    with pytest.raises(UserError, match="dataset.json") as caught:
        describe(write(tmp_path, entries), HEART)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_json(tmp_path):
    path = tmp_path / "dataset.json"
    for text in ("{'structures': 1}", "[" * 10**5, '{"dropped": [' + "1" * 5000 + "]}"):
        path.write_text(text)
        with pytest.raises(UserError, match="not valid JSON"):
            describe(tmp_path, HEART)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="dataset.json: cannot be read"):
        describe(tmp_path, HEART)
    path.rmdir()
    path.symlink_to("elsewhere.json")
    with pytest.raises(UserError, match="dataset.json: cannot be read .No such file"):
        describe(tmp_path, HEART)


def test_a_repeated_key_is_refused(tmp_path):
    (tmp_path / "dataset.json").write_text('{"structures": {"LV": 500, "LV": 600}}')
    with pytest.raises(UserError, match="'LV' appears twice"):
        describe(tmp_path, HEART)


def test_from_json_needs_every_key():
    entries = HEART.to_json()
    del entries["aliases"]
    with pytest.raises(UserError, match="lacks aliases"):
        Description.from_json(entries)
