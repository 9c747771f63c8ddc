"""The state that two devices share by home, and what one device does instead."""

import jax
import jax.numpy as jnp
import numpy as np
from tiny_runs import SHAPE, build, tiny_config

from cyclesh import home_devices
from cyclesh.domains import DOMAINS
from cyclesh.homes import BOTH
from cyclesh.runtime import sharding
from cyclesh.state import TrainState


def mesh_of_homes():
    config = tiny_config("joint")
    config.compute.home_devices, config.compute.data_devices = 2, 1
    return sharding.make_mesh(config.compute, 1, SHAPE[0])


def numbered(state: TrainState) -> TrainState:
    """No two arrays alike, so that none can take another's place unseen."""
    leaves, tree = jax.tree.flatten(state)
    return tree.unflatten([jnp.full_like(leaf, i) for i, leaf in enumerate(leaves)])


def test_a_state_is_spread_by_home_and_gathered_again():
    mesh, config = mesh_of_homes(), tiny_config("joint")
    config.loss.pool_size = 4
    state = numbered(build(config).state)
    # A number that both domains share, Adam's count, is the same for both.
    spread = home_devices.working_state(state, mesh)
    first, second = (spread.params.seg["here"]["encode0a"]["Conv_0"]["kernel"][i] for i in (0, 1))
    for domain, here in zip(DOMAINS, (first, second), strict=True):
        own = state.params.seg[domain]["encode0a"]["Conv_0"]["kernel"]
        np.testing.assert_array_equal(here, own)
    # Where fakes of A's volumes are made, which look like B, there is B's pool.
    np.testing.assert_array_equal(spread.pools["here"].volumes[0], state.pools["B"].volumes)
    for part in (spread.params, spread.opt, spread.pools):
        for leaf in jax.tree.leaves(part):
            assert leaf.sharding.shard_shape(leaf.shape) == (1, *leaf.shape[1:])
    kept = home_devices.kept_state(spread, mesh)
    assert jax.tree.structure(kept) == jax.tree.structure(state)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, kept, state)))


def test_without_devices_for_them_nothing_is_spread():
    config = tiny_config("joint")
    state = build(config).state
    assert home_devices.working_state(state, None) is state is home_devices.kept_state(state, None)
    rows = sharding.make_mesh(
        tiny_config("joint").compute.copy_and_resolve_references(), 2, SHAPE[0]
    )
    assert not home_devices.has_homes(rows) and home_devices.homes_of(rows) is BOTH
