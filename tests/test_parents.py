"""Networks to start from: which are taken, which are refused, and that no order comes again."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import tiny_config

from cyclesh.claims import claim_workdir, make_workdir, record_data
from cyclesh.data.store import Store
from cyclesh.errors import UserError
from cyclesh.parents import check_parents, check_taught, load_init
from cyclesh.run import Run, build_run
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.state import Players
from cyclesh.workdir import CHECKPOINTS, DATA


def looked_at(run: Run) -> None:
    check_parents(run.config, run.workdir, run.store, run.loader.subset)


def test_a_run_starts_from_the_best_checkpoint_of_another_or_on_request_from_the_last(tmp_path):
    with Checkpoints(tmp_path / CHECKPOINTS) as checkpoints:
        for step, score in ((1, 0.9), (2, 0.1)):
            trees = {"gen": {"kernel": jnp.full(3, float(step))}}
            checkpoints.save(step, trees, {"step": step}, score)
    shapes = Players(jax.eval_shape(lambda: {"kernel": jnp.zeros(3)}), None, None)
    config = tiny_config("ada")
    config.init.gen = str(tmp_path)
    assert (load_init(config, shapes)["gen"]["kernel"] == 1).all()
    config.init_checkpoint = "last"
    assert (load_init(config, shapes)["gen"]["kernel"] == 2).all()


def test_networks_that_no_step_has_trained_are_no_start(tmp_path):
    with Checkpoints(tmp_path / CHECKPOINTS) as checkpoints:
        trees = {"gen": {"kernel": jnp.ones(3)}}
        checkpoints.save(1, trees, {"step": 1, "learned": ["seg"]}, None)
        checkpoints.save(2, trees, {"step": 2, "learned": ["seg", "gen"]}, 0.1)
    shapes = Players(jax.eval_shape(lambda: {"kernel": jnp.zeros(3)}), None, None)
    config = tiny_config("ada")
    config.init.gen = str(tmp_path)
    assert load_init(config, shapes).keys() == {"gen"}
    shutil.rmtree(tmp_path / CHECKPOINTS / "2")
    with pytest.raises(UserError, match="checkpoint 1 was saved before its gen networks"):
        load_init(config, shapes)


def start_from(workdir, opened: Store, real: tuple = (), parents_real: tuple = (), seed: int = 0):
    """A run whose segmentors are those of ``workdir``, which is made to have read its volumes."""
    parent = build_run(tiny_config("baseline"), workdir, opened)
    parent.config.data.real = parents_real
    make_workdir(workdir)
    record_data(build_run(parent.config, workdir, opened))
    config = tiny_config("joint")
    config.data.real, config.init.seg, config.seed = real, str(workdir), seed
    return build_run(config, workdir.parent / "run", opened)


def test_networks_have_not_learned_from_what_a_run_holds_out(store, tmp_path):
    opened, few = Store.open(store), (("ct", 2),)
    looked_at(start_from(tmp_path / "same", opened))
    looked_at(start_from(tmp_path / "fewer", opened, parents_real=few))
    looked_at(start_from(tmp_path / "as_few", opened, few, few))
    with pytest.raises(UserError, match=r"init.seg=.*: was trained on ct_\d, which this run holds"):
        looked_at(start_from(tmp_path / "left_out", opened, real=few))
    path = tmp_path / "left_out" / DATA
    entries = json.loads(path.read_text())
    del entries["images"]  # as before they were kept: in the same store, ids tell
    path.write_text(json.dumps(entries))
    between = build_run(start_from(tmp_path / "fewer", opened, few, few).config, tmp_path, opened)
    between.config.init.seg = str(tmp_path / "left_out")
    make_workdir(tmp_path / "between")
    record_data(replace(between, workdir=tmp_path / "between"))
    for parent in ("left_out", "between"):
        if parent == "between":  # what is behind a run that began is kept there
            shutil.rmtree(tmp_path / "left_out")
            between.config.init.seg = str(tmp_path / "left_out")
            record_data(replace(between, workdir=tmp_path / "between"))
        between.config.init.seg = str(tmp_path / parent)
        with pytest.raises(UserError, match=f"{parent}: was trained on ct_\\d, which this run"):
            looked_at(replace(between, workdir=tmp_path / "another"))
    run = start_from(tmp_path / "split", opened)
    changed = {"ct_0": "test", "ct_1": "val"}
    opened.volumes = tuple(replace(v, split=changed.get(v.id, v.split)) for v in opened.volumes)
    opened.volumes += (replace(opened.volumes[0], id="ct_9", split="train"),)
    run = replace(run, loader=build_run(run.config, run.workdir, opened).loader, store=opened)
    with pytest.raises(UserError, match="was trained on ct_1, which"):  # ct_0 is trained on as ct_9
        looked_at(run)
    claim_workdir(run.config, run.workdir)
    looked_at(run)  # it was looked at when it began


@pytest.mark.parametrize(("key", "first"), [("modalities", "mr"), ("structures", "core")])
def test_networks_have_domains_and_classes_in_the_runs_order(store, tmp_path, key, first):
    run = start_from(tmp_path / "parent", Store.open(store))
    path = tmp_path / "parent" / DATA
    data = json.loads(path.read_text())
    swapped = list(data["description"][key])[::-1]
    data["description"][key] = swapped if key == "modalities" else dict.fromkeys(swapped, 1)
    path.write_text(json.dumps(data))
    assert swapped[0] == first
    with pytest.raises(UserError, match=f"{key} are in another order"):
        looked_at(run)
    path.write_text("{}")
    with pytest.raises(UserError, match="data.json: is not what a run was trained on"):
        looked_at(run)


def test_networks_that_go_on_meet_volumes_in_another_order_than_they_did(store, tmp_path):
    config = tiny_config("baseline")
    fresh = build_run(config, tmp_path, Store.open(store)).loader
    config.init.seg = "elsewhere"
    further = build_run(config, tmp_path, Store.open(store)).loader
    images = [
        np.stack([next(loader.batches(step))["real"]["A"][0] for step in range(6)])
        for loader in (fresh, further)
    ]
    assert not [step for step in range(6) if np.array_equal(images[0][step], images[1][step])]
    assert fresh.seed == config.seed
    assert fresh.subset == further.subset


def test_no_generation_of_networks_meets_volumes_in_the_order_of_another(store, tmp_path):
    config, seeds = tiny_config("baseline"), []
    for generation in range(4):
        run = build_run(config, tmp_path / str(generation), Store.open(store))
        claim_workdir(config, run.workdir)
        record_data(run)
        assert run.generation == generation
        seeds.append(run.loader.seed)
        config.init.seg = str(run.workdir)
    assert len(set(seeds)) == 4
    shutil.rmtree(tmp_path / "1")  # of a run that is resumed, parents may be gone
    config.init.seg = str(tmp_path / "1")
    assert build_run(config, tmp_path / "2", Store.open(store)).loader.seed == seeds[2]


@pytest.mark.parametrize(
    ("method", "fields", "init", "said"),
    [
        ("joint", {"pretrain_gan_shape": 1.0, "pretrain_gan_epochs": 1}, {}, "pretrain_seg_epochs"),
        ("joint", {"pretrain_gan_epochs": 1}, {}, ""),
        ("joint", {"pretrain_gan_shape": 1.0, "pretrain_gan_epochs": 1}, {"seg": "a"}, ""),
        ("ada", {}, {}, "would learn from gen networks"),
        ("ada", {"pretrain_gan_epochs": 1}, {}, ""),
        ("ada", {}, {"gen": "a"}, ""),
        ("gan", {}, {}, ""),
        ("baseline", {}, {}, ""),
    ],
)
def test_nothing_learns_from_networks_that_nothing_has_trained(method, fields, init, said):
    config = tiny_config(method)
    config.schedule.update(fields)
    config.init.update(init)
    with pytest.raises(UserError, match=said) if said else nullcontext():
        check_taught(config)
    if method == "gan":
        config.loss.shape = 1.0
        with pytest.raises(UserError, match="gan would learn from seg networks"):
            check_taught(config)
