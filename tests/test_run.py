"""A run on a store: what it cannot do without, what it says of it, and what it starts from."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from command_line import call
from scan_files import BALLS
from tiny_runs import build, tiny_config
from tiny_store import SHAPE, run_words

from cyclesh.data.store import Store
from cyclesh.errors import UserError
from cyclesh.run import (
    as_trees,
    build_run,
    cut_off,
    first_state,
)
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.workdir import CHECKPOINTS


@pytest.mark.parametrize(("modality", "split"), [("ct", "val"), ("mr", "val"), ("mr", "test")])
def test_a_store_must_have_volumes_to_validate_and_to_test_on(tmp_path, modality, split):
    def select(m, s):
        return () if (m, s) == (modality, split) else (f"{m}_{s}",)

    store = SimpleNamespace(description=BALLS, root=tmp_path / "store", select=select)
    with pytest.raises(UserError, match=f"store: no {split} volumes of {modality}"):
        build_run(tiny_config("joint"), tmp_path, store)


def test_volumes_that_are_only_translated_are_none_where_nothing_is(store, tmp_path):
    """They would make its epochs longer, and be read for nothing."""
    opened = Store.open(store)
    opened.volumes = tuple(
        replace(v, split="extra") if v.id == "ct_0" else v for v in opened.volumes
    )
    runs = {m: build_run(tiny_config(m), tmp_path, opened) for m in ("baseline", "joint")}
    sources = {m: len(run.loader.subset.source["A"]) for m, run in runs.items()}
    assert sources == {"baseline": 2, "joint": 3}


def test_it_says_how_many_real_subjects_are_left_and_which_phases_are(store, tmp_path, capfd):
    words = [*run_words(store, "baseline", "real_ct=0.7,steps=1"), f"--workdir={tmp_path / 'run'}"]
    said = call(capfd, *words, "--config.schedule.pretrain_seg_epochs=1").err
    assert said.count("ct: 2 of 3 real training subjects in use\n") == 1
    assert "real training subjects" not in said.replace("ct: 2 of 3 real training", "")
    assert said.count("steps=1: baseline would begin after step 3\n") == 1


def test_phases_that_a_cap_leaves_out_are_told(store, tmp_path):
    def told(steps: int) -> list[str]:
        config = tiny_config("joint")
        config.steps, config.schedule.epoch_steps = steps, 2
        config.schedule.pretrain_seg_epochs = config.schedule.pretrain_gan_epochs = 1
        return cut_off(build_run(config, tmp_path / "run", Store.open(store)))

    joint = "joint would begin after step 4"
    assert told(2) == ["steps=2: pretrain_gan would begin after step 2", f"steps=2: {joint}"]
    assert told(3) == [f"steps=3: {joint}"] and told(4) == [f"steps=4: {joint}"]
    assert told(5) == told(0) == []


def test_networks_start_as_the_best_of_the_runs_that_init_names(store, tmp_path):
    config = tiny_config("joint")
    config.data.shape = SHAPE
    parents = {}
    for name, seed in (("seg", 1), ("disc", 2), ("gen", 3)):
        best, last = build(config, seed).state, build(config, seed + 10).state
        parents[name] = best.params
        config.init[name] = str(tmp_path / name)
        with Checkpoints(tmp_path / name / CHECKPOINTS) as checkpoints:
            checkpoints.save(1, as_trees(best), {"step": 1}, 0.9)
            checkpoints.save(2, as_trees(last), {"step": 2}, 0.1)
    # build knows three classes, as the store has.
    run = build_run(config, tmp_path / "run", Store.open(store))
    with Checkpoints(run.workdir / CHECKPOINTS) as checkpoints:
        make_state, step = first_state(run, checkpoints)
    begun = make_state()
    assert step == 0
    for name, params in parents.items():
        same = jax.tree.map(np.array_equal, getattr(begun.params, name), getattr(params, name))
        assert all(jax.tree.leaves(same)), name
