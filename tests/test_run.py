"""A run on a store: what it cannot do without, and what it starts from."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from scan_files import BALLS
from tiny_runs import tiny_config

from cyclesh.errors import UserError
from cyclesh.run import build_run, load_init
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.state import Players
from cyclesh.workdir import CHECKPOINTS


@pytest.mark.parametrize(("modality", "split"), [("ct", "val"), ("mr", "val"), ("mr", "test")])
def test_a_store_must_have_volumes_to_validate_and_to_test_on(tmp_path, modality, split):
    def select(m, s):
        return () if (m, s) == (modality, split) else (f"{m}_{s}",)

    store = SimpleNamespace(description=BALLS, root=tmp_path / "store", select=select)
    with pytest.raises(UserError, match=f"store: no {split} volumes of {modality}"):
        build_run(tiny_config("joint"), tmp_path, store)


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
