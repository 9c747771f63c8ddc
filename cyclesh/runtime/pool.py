"""The history pool of synthetic volumes that the discriminators learn from (CycleGAN, size 50).

A pool is a pytree and its update is pure, so it lives inside the jitted step and in checkpoints.
Each slot of the batch has a pool of its own: nothing crosses devices when the batch is sharded.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


class Pool(NamedTuple):
    """volumes: (batch, capacity, z, y, x, 1); count: int32, how many of the capacity are filled."""

    volumes: Array
    count: Array


def make_pool(size: int, batch: int, shape: tuple[int, int, int], dtype: str) -> Pool:
    """An empty pool of ``size`` volumes in all, divided evenly (rounded up) among batch slots."""
    capacity = -(-size // batch)
    return Pool(jnp.zeros((batch, capacity, *shape, 1), dtype), jnp.zeros((), jnp.int32))


def push_and_sample(pool: Pool, fresh: Array, key: Array) -> tuple[Pool, Array]:
    """Hand ``fresh`` (batch, z, y, x, 1) in, take as many volumes out.

    While the pool fills, each fresh volume is stored and returned. After that, with probability
    1/2 it is returned and not stored; else a random stored volume is returned and it takes its
    place.
    """
    batch, capacity = pool.volumes.shape[:2]
    swap_key, slot_key = jax.random.split(key)
    filling = pool.count < capacity
    swap = jax.random.bernoulli(swap_key, 0.5, (batch, 1, 1, 1, 1))
    slot = jnp.where(filling, pool.count, jax.random.randint(slot_key, (batch,), 0, capacity))
    read = jax.vmap(partial(lax.dynamic_index_in_dim, keepdims=False))
    write = jax.vmap(partial(lax.dynamic_update_index_in_dim, axis=0))
    new = fresh.astype(pool.volumes.dtype)
    # As a branch, the volume is read once, and before another takes its place. Else the compiler
    # reads it again wherever it is used, from a copy of the whole pool that it makes each step.
    stored = lax.cond(pool.count > 0, read, lambda *_: jnp.zeros_like(new), pool.volumes, slot)
    out = jnp.where(filling | ~swap, new, stored)
    volumes = write(pool.volumes, jnp.where(filling | swap, new, stored), slot)
    return Pool(volumes, jnp.minimum(pool.count + 1, capacity)), out.astype(fresh.dtype)
