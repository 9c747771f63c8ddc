"""What a report is told of a run: its stretches, what is worth a look, its S-scores."""

from types import SimpleNamespace

import numpy as np
import pytest
from scan_files import described
from tiny_runs import tiny_config

from cyclesh import evaluate, reports, state
from cyclesh.errors import UserError
from cyclesh.judges import differing_judges
from cyclesh.scoring.report_data import Event

DESCRIPTION = described("LV", "RV", dropped=(820, 850))


def volume(case, modality, split, **cut):
    return SimpleNamespace(id=case, modality=modality, split=split, cut=cut)


class Store:
    """Two training volumes a modality; no MR label has the second structure."""

    description = DESCRIPTION
    sha256 = "one"
    volumes = (
        volume("ct_1", "ct", "train"),
        volume("ct_2", "ct", "train", LV=0.9),
        volume("mr_1", "mr", "train"),
        volume("mr_2", "mr", "train"),
        volume("ct_3", "ct", "test", LV=0.125, RV=0.01),
    )

    def select(self, modality, split):
        return tuple(v for v in self.volumes if (v.modality, v.split) == (modality, split))

    def label(self, volume):
        return np.array([[[0, 1, 2 if volume.modality == "ct" else 1]]], np.uint8)


def run_of(method="joint", kept=2, path="", **schedule):
    config = tiny_config(method)
    config.data.path = path
    config.schedule.update(schedule)
    store = Store()
    real = {"A": store.select("ct", "train")[:kept], "B": store.select("mr", "train")}
    return SimpleNamespace(
        config=config,
        store=store,
        phases=state.make_phases(config),
        epoch_steps=4,
        loader=SimpleNamespace(subset=SimpleNamespace(real=real)),
        modality=lambda domain: {"A": "ct", "B": "mr"}[domain],
    )


def test_events_are_where_the_schedule_has_them():
    run = run_of(pretrain_seg_epochs=3, pretrain_gan_epochs=2, constant_epochs=5, decay_epochs=10)
    assert reports.events(run) == [
        Event(0, "pre-training S"),
        Event(12, "pre-training G, D"),
        Event(20, "joint"),
        Event(40, "joint, decay"),
    ]
    constant = run_of("baseline", pretrain_seg_epochs=0, constant_epochs=5, decay_epochs=0)
    assert reports.events(constant) == [Event(0, "baseline")]


def test_labels_that_nobody_learns_from_and_cut_structures_are_told():
    trained = SimpleNamespace(gen={}, seg={})
    assert list(reports.warnings(run_of(), trained)) == [
        "RV: in no MR training label",
        "ct_3: the crop cuts off 12 % of LV",
    ]
    assert list(reports.warnings(run_of(kept=1, path="hearts"), trained))[:2] == [
        "unused labels: values 820, 850 count as background",
        "unused labels: 1 of 2 CT training volumes do not exist for this run",
    ]
    fresh = SimpleNamespace(gen=None, seg={})
    assert next(reports.warnings(run_of(), fresh)).startswith("the generators: not trained yet")
    assert "the generators" not in next(reports.warnings(run_of("baseline"), fresh))


def test_an_s_score_is_of_the_modality_that_was_made():
    entry = SimpleNamespace(
        domain="A", volume=volume("ct_3", "ct", "test"), s_score=np.array([0.5, np.nan])
    )
    rows = evaluate.s_score_rows([entry], run_of().store)
    assert [(r.case, r.modality, r.structure) for r in rows] == [
        ("ct_3", "mr", "LV"),
        ("ct_3", "mr", "RV"),
    ]
    assert rows[0].dice == 0.5 and np.isnan(rows[1].dice)
    entry.s_score = None
    assert evaluate.s_score_rows([entry], run_of().store) == []


def test_runs_whose_scores_do_not_compare_are_told_why():
    one, other = tiny_config("joint"), tiny_config("ada", "tiny,filters=2,epochs=9")
    assert list(reports.uncomparable(True, differing_judges(one, other))) == []
    other.batch, other.model.filters = 3, 5
    (told,) = reports.uncomparable(True, differing_judges(one, other))
    assert told == (
        "other judges than the other run's (batch, model.filters differ): S-scores do not compare"
    )
    (told,) = reports.uncomparable(False, differing_judges(one, other))
    assert told.startswith("trained and scored on other data")


def test_runs_on_data_of_another_kind_are_not_compared(tmp_path):
    runs = [run_of(), run_of()]
    runs[1].store.description = described("liver")
    one, two = (
        reports.Scored(SimpleNamespace(**vars(run), workdir=tmp_path / name), None, [], {})
        for run, name in zip(runs, "ab", strict=True)
    )
    with pytest.raises(UserError, match="--compare=.*b: has other modalities or structures"):
        reports.write(one, two)
    assert list(tmp_path.iterdir()) == []
