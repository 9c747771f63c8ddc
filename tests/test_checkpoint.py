import shutil

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
    save(tmp_path / "c", {step: -step for step in range(1, 9)}, keep_every_steps=3)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [1, 3, 6, 7, 8]  # 1 is the best


def test_checkpoints_without_a_score_do_not_pile_up(tmp_path):
    save(tmp_path / "c", {1: None, 2: None, 3: 0.5, 4: None, 5: None, 6: 0.2, 7: None})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [3, 6, 7]


def test_a_score_that_is_not_a_number_is_never_best(tmp_path):
    save(tmp_path / "c", {1: 0.2, 2: float("nan"), 3: None})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best_step() == 1
        assert checkpoints.steps() == [1, 2, 3]  # the best, and the newest two


def test_of_equal_scores_the_later_is_best(tmp_path):
    save(tmp_path / "c", {1: 0.4, 2: 0.4})
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.best_step() == 2


# ---------------------------------------------------------------------------------------- damage


FILES = (
    "_CHECKPOINT_METADATA",
    "**/commit_success.txt",  # of orbax's on some file systems only
    "meta/metadata",
    "metrics/metrics",
    *(
        f"{tree}/{name}"
        for tree in ("seg", "training")
        for name in (
            "_METADATA",
            "_sharding",
            "array_metadatas/*",
            "d/*",
            "manifest.ocdbt",
            "ocdbt.process_0/**/*",
        )
    ),
)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saved") / "c"
    save(folder, {1: 0.1, 2: 0.2})
    return folder


def files_of(folder, pattern: str) -> list:
    return [path for path in folder.glob(pattern) if path.is_file()]


def cut(paths: list, share: float) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_every_file_of_a_checkpoint_is_damaged_below(two):
    known = {path for pattern in FILES for path in files_of(two / "2", pattern)}
    assert known == set(files_of(two / "2", "**/*"))


@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("pattern", [*FILES, "**/*"])
def test_a_damaged_newest_checkpoint_is_passed_over_loudly_and_kept(
    two, tmp_path, capsys, pattern, share
):
    folder = shutil.copytree(two, tmp_path / "c")
    cut(files_of(folder / "2", pattern), share)
    with Checkpoints(folder) as checkpoints:
        step, found = checkpoints.restore_newest(**SHAPES)
        assert checkpoints.meta(step) == {"step": step}
        assert checkpoints.steps() == list(range(1, step + 1)) == list(checkpoints.scores())
        checkpoints.save(3, trees(3.0), {"step": 3}, 0.3)
        checkpoints.wait()
        assert checkpoints.resolve("best") == 3
    np.testing.assert_array_equal(found["seg"]["A"]["kernel"], np.full((3, 4), float(step)))
    # Some files say nothing that is needed: then the newest is whole.
    kept = {"damaged-2", "1", "3"} if step == 1 else {"2", "3"}
    assert {path.name for path in folder.iterdir()} >= kept
    assert ("kept as damaged-2; falling back" in capsys.readouterr().err) == (step == 1)
    if pattern in ("meta/metadata", "metrics/metrics", "seg/d/*", "training/_METADATA", "**/*"):
        assert step == 1


@pytest.mark.parametrize("pattern", ["meta/metadata", "metrics/metrics", "seg/d/*", "**/*"])
def test_where_no_checkpoint_can_be_read_nothing_is_changed_and_none_begun(two, tmp_path, pattern):
    folder = shutil.copytree(two, tmp_path / "c")
    cut(files_of(folder, f"[12]/{pattern}"), 0.5)
    for _ in range(2):
        with (
            pytest.raises(UserError, match=f"{folder}: none of the checkpoints can be read"),
            Checkpoints(folder) as checkpoints,
        ):
            checkpoints.restore_newest(**SHAPES)
        assert {path.name for path in folder.iterdir()} == {"1", "2"}


def test_trees_of_another_shape_are_refused_and_no_damage(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "c")
    other = SHAPES | {"seg": {"A": {"kernel": jax.ShapeDtypeStruct((3, 5), "float32")}}}
    more = SHAPES | {"training": {"step": SHAPES["training"]["step"], "pool": SHAPES["seg"]}}
    for wanted, name in ((other, "seg"), (more, "training")):
        with Checkpoints(folder) as checkpoints:
            with pytest.raises(UserError, match=f"{folder}/2: holds other {name} than the config"):
                checkpoints.restore_newest(**wanted)
            assert checkpoints.steps() == [1, 2]


def test_checkpoints_damaged_twice_are_kept_apart(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "c")
    shutil.copytree(two / "2", folder / "damaged-2")
    cut(files_of(folder / "2", "seg/d/*"), 0.5)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_newest(**SHAPES)[0] == 1
    assert {path.name for path in folder.iterdir()} == {"1", "damaged-2", "damaged-2-2"}


def test_a_reader_tells_of_damage_and_leaves_it(two, tmp_path):
    folder = shutil.copytree(two, tmp_path / "c")
    cut(files_of(folder / "2", "metrics/metrics"), 0.5)
    with pytest.raises(UserError, match=f"{folder}/2: a damaged checkpoint .metrics/metrics"):
        Checkpoints(folder, read_only=True)
    assert {path.name for path in folder.iterdir()} == {"1", "2"}


# ------------------------------------------------------------------------------ unfinished, missing


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


def test_an_unfinished_save_is_cleared_though_its_writer_still_writes(tmp_path, monkeypatch):
    unfinished, remove, removed = tmp_path / "c" / "7.orbax-checkpoint-tmp", shutil.rmtree, []

    def keep_writing() -> None:
        for i in range(20):
            (unfinished / f"{i}").mkdir(parents=True, exist_ok=True)
            (unfinished / f"{i}" / "data").write_bytes(b"half")

    def removed_too_soon(path, *args, **options):
        remove(path, *args, **options)
        if path == unfinished and not removed:
            keep_writing()
        removed.append(path)

    save(tmp_path / "c", {6: 0.5})
    keep_writing()
    with Checkpoints(tmp_path / "c", read_only=True) as reader:
        assert reader.steps() == [6]
    monkeypatch.setattr("cyclesh.runtime.checkpoint.shutil.rmtree", removed_too_soon)
    save(tmp_path / "c", {7: 0.6})
    assert removed.count(unfinished) == 2
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [6, 7] and not unfinished.exists()
        np.testing.assert_array_equal(
            checkpoints.restore(7, **SHAPES)["seg"]["A"]["kernel"], np.full((3, 4), 7.0)
        )
