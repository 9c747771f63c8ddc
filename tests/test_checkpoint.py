import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclesh.errors import UserError
from cyclesh.runtime.checkpoint import Checkpoints


def trees(value: float) -> dict:
    return {"seg": {"A": {"kernel": jnp.full((3, 4), value)}}, "training": {"step": jnp.int32(1)}}


SHAPES = jax.eval_shape(lambda: trees(0.0))


def save(folder, scores: dict[int, float | None], **options) -> None:
    with Checkpoints(folder, **options) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, trees(float(step)), {"step": step}, score)
            checkpoints.wait()


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path / "c", {3: 0.5})
    with Checkpoints(tmp_path / "c") as checkpoints:
        step, found = checkpoints.restore_newest(**SHAPES)
        alone = checkpoints.restore(3, seg=SHAPES["seg"])
    assert step == 3
    np.testing.assert_array_equal(found["seg"]["A"]["kernel"], np.full((3, 4), 3.0))
    assert found["training"]["step"].dtype == jnp.int32 and set(alone) == {"seg"}


def test_the_newest_and_the_best_are_kept_whatever_came_between(tmp_path):
    save(tmp_path / "c", {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.3, 5: 0.2})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [2, 4, 5]  # the best, and the newest with one to fall back to
        assert checkpoints.resolve("best") == 2 and checkpoints.resolve("last") == 5


def test_every_n_steps_are_kept_on_request(tmp_path):
    save(tmp_path / "c", {step: None for step in range(1, 9)}, keep_every_steps=2)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert {2, 4, 6, 7, 8} <= set(checkpoints.steps())


def test_a_score_that_is_not_a_number_is_never_best(tmp_path):
    save(tmp_path / "c", {1: 0.2, 2: float("nan"), 3: None})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best_step() == 1
        assert checkpoints.steps() == [1, 2, 3]


def test_of_equal_scores_the_later_is_best(tmp_path):
    save(tmp_path / "c", {1: 0.4, 2: 0.4})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best_step() == 2


def test_a_damaged_newest_checkpoint_is_passed_over_loudly(tmp_path, caplog):
    save(tmp_path / "c", {1: 0.1, 2: 0.2})
    for path in (tmp_path / "c" / "2" / "seg").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Checkpoints(tmp_path / "c") as checkpoints:
        step, found = checkpoints.restore_newest(**SHAPES)
        assert checkpoints.steps() == [1]
    assert step == 1 and float(found["seg"]["A"]["kernel"][0, 0]) == 1.0
    assert "falling back" in caplog.text


def test_an_unfinished_checkpoint_does_not_count(tmp_path):
    save(tmp_path / "c", {1: 0.1})
    (tmp_path / "c" / "2.orbax-checkpoint-tmp" / "seg").mkdir(parents=True)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [1]


def test_asking_for_what_is_not_there_names_what_is(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore_newest(**SHAPES) is None
        with pytest.raises(UserError, match="no checkpoint"):
            checkpoints.resolve("best")
    save(tmp_path / "c", {1: 0.1, 2: 0.2})
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(UserError, match="1, 2"):
        checkpoints.resolve("7")


def test_an_unfinished_save_is_cleared_though_its_writer_still_writes(tmp_path):
    unfinished = tmp_path / "c" / "7.orbax-checkpoint-tmp"

    def keep_writing() -> None:
        for i in range(200):
            (unfinished / f"{i}").mkdir(parents=True, exist_ok=True)
            (unfinished / f"{i}" / "data").write_bytes(b"half")

    save(tmp_path / "c", {6: 0.5})
    keep_writing()
    writer = threading.Thread(target=keep_writing)
    writer.start()
    with Checkpoints(tmp_path / "c", read_only=True) as reader:
        assert reader.steps() == [6]
    save(tmp_path / "c", {7: 0.6})
    writer.join()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [6, 7] and not unfinished.exists()
        np.testing.assert_array_equal(
            checkpoints.restore(7, **SHAPES)["seg"]["A"]["kernel"], np.full((3, 4), 7.0)
        )
