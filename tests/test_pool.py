"""The history pool's law, followed push by push on volumes of one voxel that name themselves."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclesh.runtime.pool import make_pool, push_and_sample

pytestmark = pytest.mark.usefixtures("strict_ranks")

VOXEL = (1, 1, 1)
PUSHES = 4000
BATCH, SIZE = 2, 10
CAPACITY = 5  # of each of the two slots


@pytest.fixture(scope="module")
def history():
    """What `PUSHES` pushes returned, and the pool after each: (push, slot), (push, slot, place).

    Push n hands in 2n + 1 for the first slot and 2n + 2 for the second, so all values differ and
    none is the empty pool's zero.
    """

    def push(pool, n):
        fresh = 2.0 * n + jnp.arange(1.0, BATCH + 1).reshape(BATCH, 1, 1, 1, 1)
        pool, out = push_and_sample(pool, fresh, jax.random.fold_in(jax.random.key(3), n))
        return pool, (out.reshape(BATCH), pool.volumes.reshape(BATCH, CAPACITY))

    empty = make_pool(SIZE, BATCH, VOXEL, "float32")
    _, (out, stored) = jax.lax.scan(push, empty, jnp.arange(PUSHES, dtype=jnp.int32))
    return np.asarray(out), np.asarray(stored)


def fresh(n):
    return np.array([2 * n + 1, 2 * n + 2])


def swaps(history):
    """Whether each push after the filling returned a stored volume."""
    out, _ = history
    return np.array([out[n] != fresh(n) for n in range(CAPACITY, PUSHES)])


def test_while_it_fills_every_volume_is_stored_and_returned(history):
    out, stored = history
    for n in range(CAPACITY):
        np.testing.assert_array_equal(out[n], fresh(n))
        np.testing.assert_array_equal(stored[n, :, : n + 1].T, [fresh(m) for m in range(n + 1)])
        assert (stored[n, :, n + 1 :] == 0).all()


def test_then_it_returns_the_fresh_or_trades_it_for_a_stored_one(history):
    out, stored = history
    for n in range(CAPACITY, PUSHES):
        for slot in range(BATCH):
            expected = stored[n - 1, slot].copy()
            if out[n, slot] != fresh(n)[slot]:
                place = np.flatnonzero(expected == out[n, slot])
                assert len(place) == 1  # it was there, in this very slot's pool
                expected[place] = fresh(n)[slot]
            np.testing.assert_array_equal(stored[n, slot], expected)


def test_half_of_the_time_and_from_every_place_alike(history):
    out, stored = history
    swapped = swaps(history)
    # 8000 draws of 1/2 have a standard deviation of 0.0056.
    assert abs(swapped.mean() - 0.5) < 0.025
    places = np.zeros(CAPACITY)
    for n, slot in zip(*np.nonzero(swapped), strict=True):
        places += stored[n + CAPACITY - 1, slot] == out[n + CAPACITY, slot]
    # About 800 a place, standard deviation 25.
    np.testing.assert_allclose(places, places.sum() / CAPACITY, atol=110)


def test_slots_decide_by_themselves(history):
    swapped = swaps(history)
    # Together a quarter of the time (0.0069), and not in the steps of one another.
    assert abs((swapped[:, 0] & swapped[:, 1]).mean() - 0.25) < 0.03
    assert abs((swapped[1:, 0] & swapped[:-1, 0]).mean() - 0.25) < 0.03


@pytest.mark.parametrize(("size", "batch", "capacity"), [(50, 1, 50), (50, 4, 13), (3, 8, 1)])
def test_the_size_is_shared_among_the_slots(size, batch, capacity):
    shapes = jax.eval_shape(lambda: make_pool(size, batch, (4, 5, 6), "bfloat16"))
    assert shapes.volumes.shape == (batch, capacity, 4, 5, 6, 1)
    assert (shapes.volumes.dtype, shapes.count.dtype) == (jnp.bfloat16, jnp.int32)


def test_volumes_are_kept_whole_and_returned_in_their_own_dtype():
    pool = make_pool(1, 1, (2, 3, 4), "bfloat16")
    first, second = jnp.arange(48.0).reshape(2, 1, 2, 3, 4, 1)  # exact in bfloat16
    pool, out = push_and_sample(pool, first, jax.random.key(0))
    np.testing.assert_array_equal(out, first)
    returned = [push_and_sample(pool, second, jax.random.key(seed))[1] for seed in range(8)]
    assert all(volume.dtype == jnp.float32 for volume in returned)
    traded = [bool((volume == first).all()) for volume in returned]
    assert [bool((volume == second).all()) for volume in returned] == [not t for t in traded]
    assert 0 < sum(traded) < 8


def test_a_step_overwrites_a_volume_and_copies_no_pool():
    def step(pool, fresh, key):
        pool, out = push_and_sample(pool, fresh, key)
        return pool, jnp.pad(jnp.tanh(out), ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))

    pool = make_pool(50, 1, (8, 8, 8), "float32")
    jitted = jax.jit(step, donate_argnums=0)
    program = jitted.lower(pool, pool.volumes[:, 0], jax.random.key(0)).compile().as_text()
    entry = program[program.index("ENTRY") :]
    assert "f32[1,50,8,8,8,1]" in entry
    assert not re.search(r"= f32\[1,50,8,8,8,1\]\S* copy\(", entry)
