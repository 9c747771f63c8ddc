"""Which commit a run is of, and that it says so."""

import json
import subprocess

import pytest
from tiny_runs import tiny_config
from tiny_store import write_store

from cyclesh import provenance, run
from cyclesh.data.store import Store
from cyclesh.evidence.pages import commits_of
from cyclesh.workdir import DATA


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of one tagged commit that the package seems to run from."""
    (tmp_path / "provenance.py").write_text("")
    for words in (
        ("init", "-q"),
        ("add", "provenance.py"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first"),
        ("tag", "v1"),
    ):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    return tmp_path


def test_the_commit_is_named_and_whether_its_files_were_changed(checkout):
    command = ["git", "-C", checkout, "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    (checkout / "notes.txt").write_text("not of the commit")
    assert len(commit) == 40 and provenance.git_revision() == commit
    (checkout / "provenance.py").write_text("changed")
    assert provenance.git_revision() == f"{commit}-dirty"


def test_without_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_revision() == ""


def test_a_run_keeps_every_commit_that_went_on_with_it(tmp_path, monkeypatch):
    store = Store.open(write_store(tmp_path / "store"))
    own = run.build_run(tiny_config("baseline"), tmp_path, store)
    for commit in ("first", "first", "second", "first"):
        monkeypatch.setattr(run, "git_revision", lambda commit=commit: commit)
        run.record_data(own)
    assert json.loads((tmp_path / DATA).read_text())["commits"] == ["first", "second"]
    assert commits_of({"git": "third", "trained_by": ["first", "second"]}) == [
        "first", "second", "third",
    ]  # fmt: skip
    assert commits_of({"git": "of before they were kept"}) == ["of before they were kept"]
