"""Generators composed with a shift: still cycle-consistent, and the shift never learns."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scan_files import described

from cyclesh.data.store import Store
from cyclesh.evaluate import Forward, Model
from cyclesh.evidence import displacement
from cyclesh.evidence.displacement import Shifted, composed
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.workdir import CHECKPOINTS

SHIFT = (1, -2, 3)


class Gain(nn.Module):
    """A generator of one number."""

    @nn.compact
    def __call__(self, x):
        return x * self.param("gain", nn.initializers.ones, (1,))


NET = Shifted(Gain())
TREES = composed({"A": {"gain": jnp.array([0.5])}, "B": {"gain": jnp.array([2.0])}}, SHIFT)


def apply(domain: str, x):
    return NET.apply({"params": TREES[domain]}, x)


def volume(seed: int = 0):
    return np.random.default_rng(seed).normal(size=(1, 8, 9, 10, 1)).astype(np.float32)


def test_b_moves_by_the_shift_and_a_by_its_inverse():
    x = volume()
    assert np.allclose(apply("B", x), np.roll(2 * x, SHIFT, axis=(1, 2, 3)))
    assert np.allclose(apply("A", x), np.roll(0.5 * x, [-v for v in SHIFT], axis=(1, 2, 3)))


def test_the_cycle_is_as_consistent_as_without_the_shift():
    for there, back in (("B", "A"), ("A", "B")):
        assert np.allclose(apply(back, apply(there, volume())), volume(), atol=1e-6)


def test_the_tree_is_that_of_the_module_and_training_leaves_the_shift_alone():
    tree = TREES["B"]
    fresh = NET.init(jax.random.key(0), volume())["params"]
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, tree)
    tx = optax.adam(0.1)
    opt, start = tx.init(tree), tree
    for _ in range(3):
        grads = jax.grad(lambda p: jnp.mean(NET.apply({"params": p}, volume()) ** 2))(tree)
        updates, opt = tx.update(grads, opt, tree)
        tree = optax.apply_updates(tree, updates)
    assert tree["generator"]["gain"] != start["generator"]["gain"]
    assert (tree["after"] == start["after"]).all() and (tree["before"] == 0).all()


def label_of(case: str) -> np.ndarray:
    label = np.zeros((12, 12, 12), np.uint8)
    label[4:7, 4:8, 3:6], label[8:11, 5:8, 7:10] = 1, 2
    return np.roll(label, int(case[-1]), axis=1)


class ToyStore:
    """Images are their labels; every test case has a true volume of the other modality."""

    description = described("a", "b", spacing_mm=(2.0, 2.0, 2.0))
    volumes = tuple(
        SimpleNamespace(id=f"{m}_{i}", modality=m, split="test", pair_of=None)
        for m in ("ct", "mr")
        for i in range(2)
    ) + tuple(
        SimpleNamespace(id=f"pair_{m}_{i}", modality=n, split="paired", pair_of=f"{m}_{i}")
        for m, n in (("ct", "mr"), ("mr", "ct"))
        for i in range(2)
    )

    select, truth_of = Store.select, Store.truth_of

    def label(self, v):
        return label_of(v.id)

    def image(self, v):
        return label_of(v.id).astype(np.float32)


def test_only_checkpoints_that_every_seed_has_are_measured(tmp_path, monkeypatch):
    # 57 was the best, 90 was saved when training was stopped, 95 is the last.
    for step in (0, 38, 57, 76, 90, 95):
        with Checkpoints(tmp_path / CHECKPOINTS, keep_every_steps=1) as checkpoints:
            checkpoints.save(step, {"gen": {"gain": jnp.ones(1)}}, {"step": step}, None)
    shapes = SimpleNamespace(params=SimpleNamespace(gen={"gain": jnp.ones(1)}))
    run = SimpleNamespace(
        config=SimpleNamespace(log=SimpleNamespace(keep_every_steps=38)), total_steps=95,
        workdir=tmp_path, nets=None, state_shapes=shapes,
    )  # fmt: skip
    monkeypatch.setattr(displacement.evaluate, "make_forward", lambda nets: None)
    monkeypatch.setattr(displacement, "measure", lambda *_: [{"modality": "ct"}])
    rows = list(displacement.measure_all(run, {}, (0, 0, 3)))
    assert [row["step"] for row in rows] == [0, 38, 76, 95]


@pytest.mark.parametrize("voxels", [0, 2])
def test_a_known_displacement_is_measured_in_mm_in_both_directions(voxels):
    def translate(sign, image):
        return np.roll(image, sign * voxels, axis=2)

    forward = Forward(translate, lambda tree, image: np.asarray(image).astype(np.uint8), None)
    trees = {"A": -1, "B": 1}
    store = ToyStore()
    run = SimpleNamespace(
        store=store, modality=lambda d: store.description.modalities["AB".index(d)]
    )
    rows = list(displacement.measure(run, Model(forward, trees, None, trees), (0, 0, 3)))
    assert [row["modality"] for row in rows] == ["ct", "mr"]
    for row in rows:
        assert row["structures"] == pytest.approx(2.0 * voxels)
        assert row["phase"] == pytest.approx(2.0 * voxels, abs=0.5)
        assert row["judge"] == 0 and row["subjects"] == 2
