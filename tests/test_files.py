"""Files that are whole or not there."""

import math

import pytest

from cyclesh.files import replacing, write_json, write_text


def test_a_file_is_replaced_when_the_block_succeeds(tmp_path):
    path = write_text(tmp_path / "notes.txt", "old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failure_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    path = write_text(tmp_path / "notes.txt", "old")
    with pytest.raises(RuntimeError, match="on the way"), replacing(path) as partial:
        partial.write_text("ne")
        raise RuntimeError("on the way")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_json_has_no_nan(tmp_path):
    path = tmp_path / "scores.json"
    write_json(path, {"dice": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"dice": math.nan})
    assert path.read_text() == '{\n  "dice": 0.5\n}\n'
