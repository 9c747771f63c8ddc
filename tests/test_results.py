"""What results say about where they come from."""

import subprocess

import pytest

from cyclesh import results


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of one tagged commit that the package seems to run from."""
    (tmp_path / "results.py").write_text("")
    for words in (
        ("init", "-q"),
        ("add", "results.py"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first"),
        ("tag", "v1"),
    ):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    return tmp_path


def test_the_commit_is_named_and_whether_its_files_were_changed(checkout):
    command = ["git", "-C", checkout, "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    (checkout / "notes.txt").write_text("not of the commit")
    assert len(commit) == 40 and results.git_revision() == commit
    (checkout / "results.py").write_text("changed")
    assert results.git_revision() == f"{commit}-dirty"


def test_without_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.git_revision() == ""
