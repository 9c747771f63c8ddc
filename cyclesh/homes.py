"""A step's work in two halves: all that is done with the volumes of one domain, their home.

The volumes of domain d are translated there, to the other domain, and back; D and S of both domains
judge what comes of it. That takes the networks of both domains, and nothing of what is done with
the other domain's volumes. So a loss is a function of one home's volumes and of networks as they
are seen from there, and the two halves are computed in turn, or at once by two devices.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from cyclesh.domains import other, per_domain


class Pair(NamedTuple):
    """The networks of one kind as they are seen from home: its own, and the other domain's."""

    here: object
    there: object


def seen_from(home: str, trees: dict) -> Pair:
    """Both domains' trees of parameters, {"A": ..., "B": ...}, from one of them."""
    return Pair(trees[home], trees[other(home)])


class Homes(Protocol):
    """How the two halves are computed."""

    def __call__(self, half: Callable, networks: tuple[dict | None, ...], volumes: dict) -> dict:
        """``half(pair of each kind of networks, ..., volumes of the home)`` of both homes."""


def in_turn(half: Callable, networks: tuple[dict | None, ...], volumes: dict) -> dict:
    """Both in one program of one device, or of several that share the volumes of a batch."""

    def at(home: str):
        pairs = (None if trees is None else seen_from(home, trees) for trees in networks)
        return half(*pairs, volumes[home])

    return per_domain(at)
