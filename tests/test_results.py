"""What results say, and when they are there."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
from tiny_runs import tiny_config

from cyclesh import results, train
from cyclesh.evaluate import Model
from cyclesh.results import RESULTS
from cyclesh.run import Run
from cyclesh.state import Players


def test_results_are_there_only_with_all_that_belongs_to_them(tmp_path, monkeypatch):
    """They say that a run is finished: what comes before may be cut off."""
    (tmp_path / RESULTS).write_text("of another checkpoint")
    store = SimpleNamespace(split_sha256="", sha256="")
    run = SimpleNamespace(workdir=tmp_path, config=tiny_config("joint"), store=store)
    monkeypatch.setattr(results, "score_volumes", lambda *_: [])
    monkeypatch.setattr(results.evaluate, "summarise", lambda *_: {"test": {}})
    monkeypatch.setattr(results.evaluate, "s_score_rows", lambda *_: [])

    def cut_off(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(results.reports, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        results.score_model(run, Model(None, None, None, None), "test", {"step": 4}, 1.0)
    assert not (tmp_path / RESULTS).exists()
    monkeypatch.setattr(results.reports, "write", lambda _: None)
    results.score_model(run, Model(None, None, None, None), "test", {"step": 4}, 1.0)
    assert json.loads((tmp_path / RESULTS).read_text())["checkpoint"] == {"step": 4}


@pytest.mark.parametrize(
    ("step", "last", "split", "finished"),
    [(4, 8, "test", True), (8, 8, "test", False), (4, 6, "test", False), (4, 8, "val", False)],
)
def test_a_run_is_finished_by_its_best_checkpoint_s_test_scores(
    tmp_path, step, last, split, finished
):
    """Others may have been scored since, on request."""
    found = {"checkpoint": {"step": step, "last_step": last}, "scored_split": split}
    (tmp_path / RESULTS).write_text(json.dumps(found))
    told = train.finished_results(SimpleNamespace(workdir=tmp_path), (4, 8), quiet=True)
    assert told == (found if finished else None)


def test_networks_that_no_step_has_trained_are_not_scored(monkeypatch):
    learned = {"gen": 9, "seg": 1}  # from which step on
    run = SimpleNamespace(nets=None, has_learned=lambda name, step: step >= learned[name])
    run.learned = partial(Run.learned, run)
    monkeypatch.setattr(results, "load_params", lambda *_: Players("G", None, "S"))
    monkeypatch.setattr(results.evaluate, "make_forward", lambda _: None)
    models = [results.load_model(run, None, step) for step in (8, 9)]
    assert [(model.gen, model.seg) for model in models] == [(None, "S"), ("G", "S")]
