"""The loop of training: when it ends before its schedule does."""

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import call
from event_files import shown
from tiny_store import run_words, write_store
from workdirs import arrays_of, without_times

from configs import default
from cyclesh import compiling, loop, state
from cyclesh.compiling import lower_step
from cyclesh.errors import NonFiniteError
from cyclesh.loop import log_slices, stalled, validation_score
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.logs import read_rows
from cyclesh.workdir import CHECKPOINTS


def run_with(**schedule) -> SimpleNamespace:
    """A run of 3 epochs of pre-training and 10 of its method."""
    fields = {"early_stop": True, "metric": "val/seg_loss", "patience": 2, "min_delta": 0.0}
    fields |= {"from_epoch": 0} | schedule
    phases = [SimpleNamespace(epochs=3), SimpleNamespace(epochs=10)]
    return SimpleNamespace(
        config=SimpleNamespace(schedule=SimpleNamespace(**fields)), phases=phases
    )


UNSEEN = "an epoch that was not validated"


def rows_of(losses: list, first_epoch: int = 4) -> list[dict]:
    """One row an epoch, as they are read back: a loss that is not finite is None."""
    rows = [{"epoch": epoch} for epoch in range(first_epoch, first_epoch + len(losses))]
    return [
        row if loss is UNSEEN else row | {"val/seg_loss": loss}
        for row, loss in zip(rows, losses, strict=True)
    ]


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([], False),
        ([0.9, 0.8, 0.7], False),
        ([0.9, 1.0], False),
        ([0.9, 1.0, 0.9], True),  # the same again is no new minimum
        ([0.9, 1.0, 0.8, 1.0], False),  # a minimum counts anew
        ([0.9, 1.0, UNSEEN, UNSEEN], False),  # rows without a validation do not count
        ([0.9, None, None], True),
        ([None, None], True),
        ([0.9, None, 0.8, None], False),
    ],
)
def test_it_stops_after_so_many_validations_without_a_minimum(losses, stops):
    assert stalled(run_with(), rows_of(losses)) is stops


def test_it_never_stops_unless_asked_nor_in_pretraining_nor_before_its_epoch():
    worse = [0.5, 0.6, 0.7, 0.8]
    assert stalled(run_with(), rows_of(worse))
    assert not stalled(run_with(early_stop=False), rows_of(worse))
    assert not stalled(run_with(), rows_of(worse[:3], first_epoch=1))
    assert not stalled(run_with(from_epoch=3), rows_of(worse))
    assert stalled(run_with(from_epoch=3), rows_of(worse, first_epoch=7))


@pytest.mark.parametrize("metric", ["val/dice", "val/s_score"])
def test_more_of_a_dice_is_better(metric):
    def rows(figures):
        return [
            row | {metric: row.pop("val/seg_loss"), "val/seg_loss": 1.0} for row in rows_of(figures)
        ]

    assert stalled(run_with(metric=metric), rows([0.5, 0.4, 0.5]))
    assert not stalled(run_with(metric=metric), rows([0.5, 0.6, 0.7, 0.65]))
    assert stalled(run_with(metric=metric, min_delta=0.2), rows([0.5, 0.6, 0.65]))


def test_less_than_the_least_progress_is_none():
    assert stalled(run_with(min_delta=0.2), rows_of([0.9, 0.8, 0.75]))
    assert not stalled(run_with(min_delta=0.05), rows_of([0.9, 0.8, 0.7]))


def test_a_run_that_stops_early_is_scored_and_finished_and_goes_on_exactly(tmp_path, capfd):
    store = write_store(tmp_path / "balls")
    words = [
        *run_words(store, "baseline", "epochs=20"),
        f"--workdir={tmp_path / 'run'}",
        "--config.steps=0",
        "--config.log.validate_epochs=1.0",
        "--config.schedule.early_stop=True",
        "--config.schedule.patience=2",
        "--config.schedule.min_delta=1e9",  # the first validation is a minimum, no later one is
    ]
    done = call(capfd, *words)
    assert done.status == 0, done.err
    rows = read_rows(tmp_path / "run")
    assert len([row for row in rows if "val/seg_loss" in row]) == 3
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["checkpoint"]["last_step"] == rows[-1]["step"]
    with Checkpoints(tmp_path / "run" / CHECKPOINTS, read_only=True) as checkpoints:
        assert checkpoints.meta(rows[-1]["step"])["learned"] == ["seg"]
    assert rows[-1]["epoch"] == 3
    pictures = {tag for tag in shown(tmp_path / "run") if tag.startswith("slices/")}
    assert pictures == {"slices/ct_3", "slices/mr_3"}  # a baseline has no generators
    again = call(capfd, *words)
    assert again.status == 0 and f"finished at step {rows[-1]['step']}" in again.err
    assert read_rows(tmp_path / "run") == rows
    # As if it was killed after the row that ends it, before its checkpoint.
    last, straight = rows[-1]["step"], arrays_of(tmp_path / "run", rows[-1]["step"])
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(last))
    (tmp_path / "run" / "results.json").unlink()
    assert call(capfd, *words).status == 0
    assert without_times(read_rows(tmp_path / "run")) == without_times(rows)
    found = arrays_of(tmp_path / "run", last)
    assert all(np.array_equal(found[name], array) for name, array in straight.items())
    rescored = json.loads((tmp_path / "run" / "results.json").read_text())
    assert rescored["checkpoint"] == results["checkpoint"]


@pytest.mark.slow
def test_a_signal_in_the_last_validation_is_not_lost(tmp_path, capfd, monkeypatch):
    store, validated = write_store(tmp_path / "balls"), loop.validated

    def interrupted(*args) -> dict:
        signal.raise_signal(signal.SIGTERM)
        return validated(*args)

    words = [*run_words(store, "baseline", "epochs=2"), f"--workdir={tmp_path / 'run'}"]
    words.append("--config.log.validate_epochs=2.0")
    monkeypatch.setattr(loop, "validated", interrupted)
    done = call(capfd, *words)
    assert done.status == 75 and "state saved" in done.err
    assert not (tmp_path / "run" / "results.json").exists()
    monkeypatch.undo()
    assert call(capfd, *words).status == 0
    assert (tmp_path / "run" / "results.json").exists()


def test_each_phase_is_compiled_once_and_only_the_method_s_own_can_be_best(
    tmp_path, capfd, monkeypatch
):
    """Saved every 3 steps, too, whatever is validated when: every 2."""
    made = []

    def counted(run, phase):
        made.append(phase.name)
        return lower_step(run, phase)

    monkeypatch.setattr(compiling, "lower_step", counted)
    words = [
        *run_words(write_store(tmp_path / "balls"), "joint", "epochs=2"),
        f"--workdir={tmp_path / 'run'}",
        "--config.steps=0",
        "--config.schedule.epoch_steps=4",
        "--config.schedule.pretrain_seg_epochs=1",
        "--config.schedule.pretrain_gan_epochs=1",
        "--config.log.validate_epochs=0.5",
        "--config.log.keep_every_steps=3",
    ]
    done = call(capfd, *words)
    assert done.status == 0, done.err
    assert sorted(made[:2]) == ["baseline", "pretrain_seg"]  # its judges', beside its own first
    assert made[2:] == ["pretrain_gan", "joint"]
    validated = [row["step"] for row in read_rows(tmp_path / "run") if "val/dice" in row]
    assert validated == [2, 4, 6, 8, 10, 12, 14, 16]
    with Checkpoints(tmp_path / "run" / CHECKPOINTS) as checkpoints:
        scores, steps = checkpoints.scores(), checkpoints.steps()
    assert scores and min(scores) > 8  # those of the phases before have no score
    assert {3, 6, 9, 12, 15, 16} | {max(scores, key=scores.get)} == set(steps)


def slices_of(volume: np.ndarray, **networks) -> dict[str, np.ndarray]:
    """The pictures that are logged of a model with these networks, on cases that are all alike."""
    store = SimpleNamespace(
        select=lambda modality, split: [SimpleNamespace(id=f"{modality}_{split}")],
        image=lambda _: volume,
        description=SimpleNamespace(classes=3),
    )
    run = SimpleNamespace(store=store, modality=lambda domain: {"A": "ct", "B": "mr"}[domain])
    model = SimpleNamespace(**{"gen": None, "seg": None} | networks)
    found = {}
    log = SimpleNamespace(picture=lambda name, pixels, step: found.update({name: pixels}))
    log_slices(run, model, log, 7)
    assert set(found) == {"slices/ct_val", "slices/mr_val"}
    return found


def marked() -> np.ndarray:
    """Black but for one voxel: of the middle slice, the most anterior and right."""
    volume = np.full((4, 6, 8), -1, np.float32)
    volume[2, -1, -1] = 1
    return volume


def test_slices_for_tensorboard_have_the_patients_right_and_front_where_the_report_has_them():
    pictures = slices_of(marked(), gen={}, translate=lambda target, image: image / 2)
    source, fake, rec = np.split(pictures["slices/ct_val"], 3, axis=1)
    assert source[0, 0] == 1 and source.sum() == 1 and source.shape == (6, 8)
    assert fake[0, 0] == 0.75 and rec[0, 0] == 0.625


def test_slices_without_generators_are_the_source_and_the_predicted_classes():
    """Of the classes 0, 1, 2: black, grey and white."""

    def segment(tree, image):
        return np.where(image > 0, {"ct": 1, "mr": 2}[tree], 0).astype(np.uint8)

    pictures = slices_of(marked(), seg={"A": "ct", "B": "mr"}, segment=segment)
    for name, grey in (("ct", 0.5), ("mr", 1.0)):
        source, classes = np.split(pictures[f"slices/{name}_val"], 2, axis=1)
        assert source[0, 0] == 1 and source.sum() == 1
        assert classes[0, 0] == grey and classes.sum() == grey


def test_slices_of_a_whole_model_end_with_the_predicted_classes():
    networks = {"gen": {}, "translate": lambda target, image: -image}
    networks |= {"seg": {"A": 0, "B": 0}, "segment": lambda tree, image: (image > 0).astype("u1")}
    parts = np.split(slices_of(marked(), **networks)["slices/ct_val"], 4, axis=1)
    assert [part[0, 0] for part in parts] == [1, 0, 1, 0.5]


@pytest.mark.parametrize("method", ["baseline", "gan", "cyclegan", "ada", "joint"])
def test_the_best_is_that_by_dice_or_where_only_generators_move_by_s_score(method):
    config = default.build("tiny", method)
    run = SimpleNamespace(config=config, phases=state.make_phases(config))
    row = {"phase": run.phases[-1].name, "val/dice": 0.25, "val/s_score": 0.5}
    expected = 0.5 if method in ("gan", "cyclegan") else 0.25
    assert validation_score(run, row) == expected
    assert validation_score(run, row | {"phase": "pretrain"}) is None


def test_a_loss_that_is_not_finite_is_told_with_the_volumes_of_its_step():
    where = SimpleNamespace(volumes_at=lambda step: [f"ct_{step}"])
    run = SimpleNamespace(workdir=Path("w"), loader=where)
    out = SimpleNamespace(skips=loop.Skips(0), progress=None)
    metrics = {"seg/total": np.float32(np.nan), "finite": np.bool_(False)}
    with pytest.raises(NonFiniteError, match="step 5: seg/total not finite, on volumes ct_4;"):
        loop.settle(run, (5, state.Phase("p", ("seg",), 1, {}, 0.0), metrics), out)
