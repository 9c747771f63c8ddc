"""Each loss against numbers done by hand, and its precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclesh import losses

pytestmark = pytest.mark.usefixtures("strict_ranks")

SHAPE = (2, 3, 4, 5)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_least_squares_by_hand():
    scores = jnp.array([0.5, 2.0, -1.0, 1.0]).reshape(1, 2, 2, 1, 1)
    # (0.5 - 1)^2 + (2 - 1)^2 + (-1 - 1)^2 + 0 = 5.25, and 0.25 + 4 + 1 + 1 = 6.25
    assert losses.least_squares(scores, 1.0) == 5.25 / 4
    assert losses.least_squares(scores, 0.0) == 6.25 / 4


def test_l1_by_hand():
    x = jnp.array([1.0, -2.0, 0.5, 0.0]).reshape(1, 1, 2, 2, 1)
    y = jnp.array([0.0, 1.0, 0.75, 0.0]).reshape(1, 1, 2, 2, 1)
    assert losses.l1(x, y) == losses.l1(y, x) == (1 + 3 + 0.25) / 4


def test_cross_entropy_by_hand():
    # Two voxels, probabilities (1/2, 1/4, 1/4) and (1/8, 1/8, 3/4); logits up to a constant.
    probability = np.array([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]], np.float32)
    logits = jnp.asarray(np.log(probability) + [[3.0], [-7.0]]).reshape(1, 1, 1, 2, 3)
    labels = jnp.array([1, 2], jnp.uint8).reshape(1, 1, 1, 2)
    expected = (np.log(4) + np.log(4 / 3)) / 2
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), expected, rtol=1e-6)


def test_cross_entropy_of_ignorance_is_log_of_the_classes():
    labels = np.random.default_rng(0).integers(0, 6, SHAPE)
    loss = losses.cross_entropy(jnp.full((*SHAPE, 6), 2.5), labels)
    np.testing.assert_allclose(loss, np.log(6), rtol=1e-6)


def test_cross_entropy_equals_numpy_and_so_does_its_gradient():
    logits, labels = draw(*SHAPE, 4), np.random.default_rng(1).integers(0, 4, SHAPE).astype("u1")
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    expected = -np.mean([np.log(p[i][labels[i]]) for i in np.ndindex(SHAPE)])
    loss, gradient = jax.value_and_grad(losses.cross_entropy)(jnp.asarray(logits), labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for i in np.ndindex(SHAPE):
        p[i][labels[i]] -= 1
    np.testing.assert_allclose(gradient, p / labels.size, atol=1e-8)


def test_cross_entropy_survives_huge_logits():
    logits = jnp.array([1e4, -1e4]).reshape(1, 1, 1, 1, 2)
    labels = jnp.zeros((1, 1, 1, 1), jnp.uint8)
    assert losses.cross_entropy(logits, labels) == 0
    assert losses.cross_entropy(logits, labels + 1) == 2e4


def test_a_batch_is_the_mean_of_its_volumes():
    logits, labels = draw(2, 3, 4, 5, 4), np.random.default_rng(2).integers(0, 4, SHAPE)
    x, y = draw(2, 3, 4, 5, 1, seed=3), draw(2, 3, 4, 5, 1, seed=4)
    for loss, args in (
        (losses.cross_entropy, (logits, labels)),
        (losses.l1, (x, y)),
        (lambda s: losses.least_squares(s, 1.0), (x,)),
    ):
        args = [jnp.asarray(a) for a in args]
        parts = [loss(*(a[i : i + 1] for a in args)) for i in range(2)]
        np.testing.assert_allclose(loss(*args), np.mean(parts), rtol=1e-6)


def test_bfloat16_is_averaged_in_float32():
    # 40,000 equal terms: a bfloat16 sum stops growing at 256 times a term.
    x = jnp.full((1, 20, 40, 50, 1), 0.5, jnp.bfloat16)
    for value, expected in (
        (losses.l1(x, jnp.zeros_like(x)), 0.5),
        (losses.least_squares(x, 0.0), 0.25),
        (losses.cross_entropy(jnp.tile(x, 2), np.ones(x.shape[:-1], "u1")), np.log(2)),
    ):
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    third = jnp.float32(1 / 3).astype(jnp.bfloat16)  # its square is no bfloat16
    np.testing.assert_allclose(
        losses.least_squares(third.reshape(1, 1, 1, 1, 1), 0.0), float(third) ** 2, rtol=1e-6
    )
