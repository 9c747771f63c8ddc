"""Networks, states and batches small enough to compile in seconds, for the tests of the step."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import default
from cyclesh import state
from cyclesh.domains import per_domain
from cyclesh.runtime import pool
from cyclesh.state import Players, TrainState

CLASSES = 3
SHAPE = (8, 8, 8)

# Half the compile time; the arithmetic of volumes this small is nothing.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = partial(jax.jit, compiler_options=QUICKLY)


class Tiny(NamedTuple):
    """A method's config, and what is built from it."""

    config: ConfigDict
    nets: Players
    optimisers: Players
    state: TrainState


def tiny_config(method: str, argument: str = "tiny,filters=2") -> ConfigDict:
    """One downsampling, two filters, the native lowering (half the program of the folded one)."""
    config = default.build(argument, method)
    config.data.shape = SHAPE
    config.model.depth = config.model.residual_blocks = 1
    config.compute.lowering = "native"
    return config


def build(config: ConfigDict, seed: int = 0) -> Tiny:
    """All six networks at random, those included that the method could do without.

    Much faster than compiling their initialisation.
    """
    nets = state.make_networks(config, CLASSES)
    optimisers = state.make_optimisers(config, epoch_steps=4)
    params = Players(*(per_domain(lambda _, net=net: tree_of(net)) for net in nets))
    params = random_tree(params, seed)
    opt = Players(*(tx.init(tree) for tx, tree in zip(optimisers, params, strict=True)))
    size, dtype = config.loss.pool_size, config.compute.dtype
    pools = per_domain(lambda _: pool.make_pool(size, config.batch, SHAPE, dtype))
    return Tiny(config, nets, optimisers, TrainState(jax.numpy.int32(0), params, opt, pools))


def initialised(config: ConfigDict, seed: int = 7) -> Tiny:
    """The method's networks as `init_state` makes them."""
    nets = state.make_networks(config, CLASSES)
    optimisers = state.make_optimisers(config, epoch_steps=4)
    init = partial(state.init_state, nets=nets, optimisers=optimisers, config=config, shape=SHAPE)
    return Tiny(config, nets, optimisers, quick_jit(init)(jax.random.key(seed)))


def tree_of(net):
    """The shapes of a network's parameters; they are those of any grid."""
    volume = jax.ShapeDtypeStruct((1, *SHAPE, 1), "float32")
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x)["params"], volume)


def random_tree(tree, seed: int):
    """Normal values where the tree has arrays: kernels scaled as He does, small biases."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return (rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    return jax.tree.map(draw, tree)


def random_volumes(seed: int, batch: int = 1, shape: tuple[int, int, int] = SHAPE) -> dict:
    """{"A": (image, label), "B": ...}, as the loader makes them."""
    rng = np.random.default_rng(seed)
    return per_domain(
        lambda _: (
            rng.uniform(-1, 1, (batch, *shape, 1)).astype(np.float32),
            rng.integers(0, CLASSES, (batch, *shape)).astype(np.uint8),
        )
    )
