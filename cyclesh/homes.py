"""A step's work in two halves: all that is done with the volumes of one domain, their home.

Volumes go from home *there*, to the other domain, and back *here*; D and S of both domains judge
what comes of it. So a half needs the networks of both domains, and nothing of what is done with the
other domain's volumes. The two are computed in turn by one device, or at once by two: then each
device has the networks of its home, and lends them to the other.

For home A: x_A becomes fake_B = G_B(x_A), which D_B and S_B judge *there*, and rec_A = G_A(fake_B),
which is compared with x_A *here*.

What there is of each home is a dict over the homes at hand: both of them (`BothHomes`, the
domains), or the one that this device has (`OneHome`; `home_devices` has the rest of that).
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from cyclesh.domains import DOMAINS, other
from cyclesh.halo import HOME

HERE = "here"  # the one home at hand


class Pair(NamedTuple):
    """Networks of one kind as they are seen from a home: its own, and the other domain's."""

    here: object
    there: object


class Homes(Protocol):
    """The homes at hand to a program, as it reaches the other domain's half of the work."""

    def swap(self, by_home: dict) -> dict:
        """For each home what the other one has."""
        ...

    def total(self, tree):
        """The sum over both homes of what was summed over those at hand."""
        ...

    def volumes(self, batch: dict) -> dict:
        """Of a batch's {"A": ..., "B": ...} what the homes at hand need."""
        ...

    def pools(self, pools: dict) -> dict:
        """Where fakes go that were made from a home's volumes: they look like the other domain."""
        ...

    def key(self, key: Array, home: str) -> Array:
        """A key for the pool that takes a home's fakes."""
        ...


class BothHomes:
    """Both are at hand: one program does it all."""

    def swap(self, by_home: dict) -> dict:
        return {home: by_home[other(home)] for home in by_home}

    def total(self, tree):
        return tree

    def volumes(self, batch: dict) -> dict:
        return batch

    def pools(self, pools: dict) -> dict:
        return self.swap(pools)

    def key(self, key: Array, home: str) -> Array:
        return jax.random.fold_in(key, DOMAINS.index(other(home)))


BOTH = BothHomes()


class OneHome:
    """One is at hand, and a device (or a row of them) along `HOME` has the other."""

    def swap(self, by_home: dict) -> dict:
        flat, restore = ravel_pytree(by_home)  # one message instead of one an array
        return restore(lax.ppermute(flat, HOME, [(0, 1), (1, 0)]))

    def total(self, tree):
        return lax.psum(tree, HOME)

    def volumes(self, batch: dict) -> dict:
        first = lax.axis_index(HOME) == 0
        return {HERE: jax.tree.map(lambda a, b: jnp.where(first, a, b), batch["A"], batch["B"])}

    def pools(self, pools: dict) -> dict:
        return pools  # `home_devices.spread_homes` has put each where its fakes are made

    def key(self, key: Array, home: str) -> Array:
        return jax.random.fold_in(key, 1 - lax.axis_index(HOME))


def pairs(homes: Homes, trees: dict | None) -> dict[str, Pair] | None:
    """Both domains' networks of one kind, from each home at hand."""
    if trees is None:
        return None
    lent = homes.swap(trees)
    return {home: Pair(trees[home], lent[home]) for home in trees}
