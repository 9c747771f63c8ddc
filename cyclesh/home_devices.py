"""A step, and the state it takes, where each home (`homes`) has a device or a row of them.

Checkpoints keep a state by domain, whatever devices there are: {"A": ..., "B": ...}. Where devices
share the homes, the step takes it with the arrays of both homes stacked, each half on its devices.
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cyclesh.domains import DOMAINS, other, per_domain
from cyclesh.halo import HOME
from cyclesh.homes import BOTH, HERE, Homes, OneHome
from cyclesh.runtime import sharding
from cyclesh.state import TrainState


def has_homes(mesh: Mesh | None) -> bool:
    """Whether each home has a device of its own."""
    return mesh is not None and mesh.shape[HOME] > 1


def homes_of(mesh: Mesh | None) -> Homes:
    """The homes at hand to each device's program."""
    return OneHome() if has_homes(mesh) else BOTH


# The state of a run over two homes: arrays of both, one behind the other, under the key `HERE`.
SPREAD = TrainState(step=P(), params=P(HOME), opt=P(HOME), pools=P(HOME))
STEP = (SPREAD, P())  # what a step gives: a state, and metrics


def spread_homes(state: TrainState) -> TrainState:
    """The state as `over_homes` takes it where devices share the homes."""

    def behind(tree, swapped: bool = False):
        order = DOMAINS[::-1] if swapped else DOMAINS
        return jax.tree.map(lambda *x: jnp.stack(x), *(_only(tree, d) for d in order))

    return TrainState(
        state.step, behind(state.params), behind(state.opt), behind(state.pools, swapped=True)
    )


def gather_homes(state: TrainState) -> TrainState:
    """Inverse of `spread_homes`."""

    def apart(tree, swapped: bool = False):
        return _both(tree, lambda d, x: x[DOMAINS.index(other(d) if swapped else d)])

    return TrainState(
        state.step, apart(state.params), apart(state.opt), apart(state.pools, swapped=True)
    )


def _only(tree, domain: str):
    """One domain's part of a tree with {"A": ..., "B": ...} in it, the rest being of both."""
    return jax.tree.map(
        lambda part: {HERE: part[domain]} if _of_domains(part) else part, tree, is_leaf=_of_domains
    )


def _both(tree, take: Callable):
    """Inverse of `_only`: ``take(domain, array)`` of a stacked array is a domain's part."""

    def part(part):
        if _of_home(part):
            return per_domain(lambda d: jax.tree.map(lambda x: take(d, x), part[HERE]))
        return take(DOMAINS[0], part)

    return jax.tree.map(part, tree, is_leaf=_of_home)


def _of_domains(part) -> bool:
    return isinstance(part, dict) and part.keys() == set(DOMAINS)


def _of_home(part) -> bool:
    return isinstance(part, dict) and part.keys() == {HERE}


def working_shapes(shapes: TrainState, mesh: Mesh | None) -> TrainState:
    """The shapes of a state as a step takes it (`working_state`)."""
    return jax.eval_shape(spread_homes, shapes) if has_homes(mesh) else shapes


def working_state(state: TrainState, mesh: Mesh | None) -> TrainState:
    """A state where the step takes it, from how it is kept in checkpoints."""
    return _layout(spread_homes, mesh, True)(state) if has_homes(mesh) else state


def kept_state(state: TrainState, mesh: Mesh | None) -> TrainState:
    """Inverse of `working_state`."""
    return _layout(gather_homes, mesh, False)(state) if has_homes(mesh) else state


@cache  # compiled once, and not at each checkpoint
def _layout(change: Callable, mesh: Mesh, by_home: bool) -> Callable:
    def laid_out(state: TrainState) -> TrainState:
        changed = change(state)
        where = sharding.state_shardings(changed, mesh, by_home)
        return lax.with_sharding_constraint(changed, where)

    return jax.jit(laid_out)


def working_shardings(shapes: TrainState, mesh: Mesh | None) -> TrainState | None:
    """Where the arrays of a state of such `working_shapes` live; None where one device has all."""
    if mesh is None:
        return None
    return sharding.state_shardings(shapes, mesh, by_home=has_homes(mesh))


def over_homes(step: Callable, mesh: Mesh | None, out: object = STEP) -> Callable:
    """A function (state, batch) -> ... of one home at hand, as one of both on their devices.

    out: of each of its outcomes `P(HOME)` where it is a home's own, `P()` where it is of both.
    """
    if not has_homes(mesh):
        return step

    def local(state: TrainState, batch: dict):
        mine = jax.tree.map(lambda x: x[0], state._replace(step=()))
        return _unsqueezed(step(mine._replace(step=state.step), batch), out)

    # Where homes are all that devices share, there is nothing for XLA's partitioner to look for.
    known = mesh.axis_names if mesh.size == mesh.shape[HOME] else (HOME,)
    return jax.shard_map(
        local, mesh=mesh, in_specs=(SPREAD, P()), out_specs=out, axis_names=set(known)
    )


def _unsqueezed(outcome, specs):
    def of(spec: P, tree):
        return jax.tree.map(lambda x: x[None], tree) if spec == P(HOME) else tree

    return jax.tree.map(of, specs, outcome, is_leaf=lambda x: isinstance(x, P))
