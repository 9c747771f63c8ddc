"""Which commit a run is of, and that it says so."""

import json
import subprocess

import pytest
from command_line import call
from tiny_store import EACH_STEP, run_words, write_store

from cyclesh import loop, provenance
from cyclesh.evidence.pages import commits_of
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.workdir import CHECKPOINTS


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of one tagged commit that the package seems to run from."""
    (tmp_path / "cyclesh").mkdir()
    (tmp_path / "cyclesh" / "provenance.py").write_text("")
    for words in (
        ("init", "-q"),
        ("add", "cyclesh"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first"),
        ("tag", "v1"),
    ):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "cyclesh" / "provenance.py"))
    return tmp_path


def test_the_commit_is_named_and_whether_its_files_were_changed(checkout):
    command = ["git", "-C", checkout, "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    (checkout / "notes.txt").write_text("not of the commit")
    assert len(commit) == 40 and provenance.git_revision() == commit
    (checkout / "cyclesh" / "provenance.py").write_text("changed")
    assert provenance.git_revision() == f"{commit}-dirty"


def test_another_project_s_commit_is_not_that_of_a_package_installed_in_it(checkout, monkeypatch):
    installed = checkout / ".venv" / "lib" / "cyclesh" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(installed))
    installed.parent.mkdir(parents=True)
    assert provenance.git_revision() == ""


def test_without_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "cyclesh" / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_revision() == ""


def test_a_checkpoint_keeps_every_commit_that_has_trained_it(tmp_path, monkeypatch, capfd):
    store, workdir = write_store(tmp_path / "store"), tmp_path / "run"
    for commit, steps in (("first", 1), ("not asked", 1), ("second", 3), ("first", 6)):
        monkeypatch.setattr(loop, "git_revision", lambda commit=commit: commit)
        words = [*run_words(store, "baseline"), *EACH_STEP, f"--workdir={workdir}", "--quiet"]
        assert call(capfd, *words, f"--config.steps={steps}").status == 0
    expected = [["first"], *[["first", "second"]] * 5]
    with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
        found = {step: checkpoints.meta(step)["commits"] for step in checkpoints.steps()}
    assert [found[step] for step in range(1, 7)] == expected
    checkpoint = json.loads((workdir / "results.json").read_text())["checkpoint"]
    assert checkpoint["commits"] == expected[checkpoint["step"] - 1]


def test_a_page_names_the_commits_that_trained_and_the_one_that_scored():
    checkpoint = {"commits": ["first", "second"]}
    assert commits_of({"git": "third", "checkpoint": checkpoint}) == ["first", "second", "third"]
    assert commits_of({"git": "first", "checkpoint": checkpoint}) == ["first", "second"]
    assert commits_of({"git": "of a judge", "checkpoint": None}) == ["of a judge"]
    assert commits_of({"git": "before", "checkpoint": {"step": 4}}) == ["before"]
