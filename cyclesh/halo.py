"""The operations of `ops` on volumes whose depth is spread over devices, a slab to each.

XLA's partitioner gathers whole volumes where slices become a batch (the folded lowering) and where
a depth does not divide evenly. So each operation works on the slabs by itself: a convolution looks
one slice past a slab's faces, neighbours send each other that slice, and nothing larger moves.
Without a mesh, these are the operations of `ops`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cyclesh import ops

# The axes of a mesh: volumes of a batch, the domain that they are of (`homes`), and slabs of each.
DATA, HOME, DEPTH = "data", "home", "depth"
SLABS = P(DATA, DEPTH)


def conv3d(
    parts: tuple[Array, ...], kernel: Array, *, stride: int, lowering: str, mesh: Mesh | None
) -> Array:
    """`ops.conv3d`; ``mesh`` has the axes `DATA` and `DEPTH`, over which ``parts`` are spread."""
    if mesh is None:
        return ops.conv3d(parts, kernel, stride=stride, lowering=lowering)
    reach = kernel.shape[0] // 2

    def local(kernel, *slabs):
        # Slabs hold a multiple of the stride, so the last window ends that much earlier.
        slabs = tuple(_with_neighbours(s, mesh, reach, reach + 1 - stride) for s in slabs)
        return ops.conv3d(slabs, kernel, stride=stride, lowering=lowering, pad_depth=False)

    depth = -(-parts[0].shape[1] // stride)
    return _by_slabs(local, mesh, parts, kernel, divisor=stride, depth=depth)


def upsample_conv3d(x: Array, kernel: Array, *, lowering: str, mesh: Mesh | None) -> Array:
    """`ops.upsample_conv3d` of slabs."""
    if mesh is None:
        return ops.upsample_conv3d(x, kernel, lowering=lowering)

    def local(kernel, slab):
        slab = _with_neighbours(slab, mesh, 1, 1)
        return ops.upsample_conv3d(slab, kernel, lowering=lowering, pad_depth=False)

    return _by_slabs(local, mesh, (x,), kernel, divisor=1, depth=2 * x.shape[1])


def max_pool(x: Array, mesh: Mesh | None) -> Array:
    """`ops.max_pool` of slabs."""
    if mesh is None:
        return ops.max_pool(x)
    nothing = jnp.zeros(())
    return _by_slabs(
        lambda _, slab: ops.max_pool(slab), mesh, (x,), nothing, divisor=2, depth=x.shape[1] // 2
    )


def instance_norm(x: Array, epsilon: float, mesh: Mesh | None) -> Array:
    """`ops.instance_norm` of slabs, in the very order in which one device sums: to the last bit."""
    if mesh is None:
        return ops.instance_norm(x, epsilon)
    of_all = NamedSharding(mesh, P(DATA))
    return ops.instance_norm(x, epsilon, lambda means: lax.with_sharding_constraint(means, of_all))


def _by_slabs(
    local: Callable, mesh: Mesh, parts: tuple[Array, ...], kernel: Array, divisor: int, depth: int
) -> Array:
    """``local(kernel, *slabs)`` on every device, its results joined and cut to ``depth`` slices.

    Volumes are filled up with zeros at their end, which is what a convolution sees there anyhow,
    until each device has equally many slices, a multiple of ``divisor``.
    """
    filling = -parts[0].shape[1] % (mesh.shape[DEPTH] * divisor)
    if filling:
        parts = tuple(jnp.pad(p, ((0, 0), (0, filling), (0, 0), (0, 0), (0, 0))) for p in parts)
    spread = jax.shard_map(
        local, mesh=mesh, in_specs=(P(), *(SLABS for _ in parts)), out_specs=SLABS
    )
    return spread(kernel, *parts)[:, :depth]


def _with_neighbours(slab: Array, mesh: Mesh, below: int, above: int) -> Array:
    """A slab between the last slices of the one below and the first of the one above, or zeros."""
    last = mesh.shape[DEPTH] - 1
    pieces = [slab]
    if below:
        upwards = [(i, i + 1) for i in range(last)]
        pieces.insert(0, lax.ppermute(slab[:, -below:], DEPTH, upwards))
    if above:
        downwards = [(i + 1, i) for i in range(last)]
        pieces.append(lax.ppermute(slab[:, :above], DEPTH, downwards))
    return jnp.concatenate(pieces, axis=1) if len(pieces) > 1 else slab
