"""The two image domains and the one naming rule that everything else relies on.

Domain A and domain B are the two modalities, in the order in which the data's description names
them (A = CT and B = MR in the paper). The letter of a network is always the domain of the volumes
that it *outputs* (generators) or *reads* (segmentors, discriminators), as in the paper:

    G_B: A -> B     G_A: B -> A     S_A, D_A read A     S_B, D_B read B

A synthetic volume keeps the anatomy, and so the labels, of the volume it was made from:

    fake_B = G_B(x_A)   rec_A = G_A(fake_B)   both carry y_A
    fake_A = G_A(x_B)   rec_B = G_B(fake_A)   both carry y_B

Whatever exists once per domain is a dict ``{"A": ..., "B": ...}``, and code is written as one line
over both domains, never as an A line beside a B line.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

DOMAINS = ("A", "B")

T = TypeVar("T")


def other(domain: str) -> str:
    """The opposite domain: ``other("A") == "B"``."""
    return DOMAINS[1 - DOMAINS.index(domain)]


def per_domain(make: Callable[[str], T]) -> dict[str, T]:
    """``{"A": make("A"), "B": make("B")}``."""
    return {domain: make(domain) for domain in DOMAINS}


class Volumes(NamedTuple):
    """Labelled volumes of one domain.

    image: float32 (batch, z, y, x, 1), intensities in [-1, 1].
    label: uint8 (batch, z, y, x), 0 is background, 1..C the structures in the data's order.
    """

    image: object
    label: object


class Made(NamedTuple):
    """What the generators make of one domain's volumes, as arrays like `Volumes.image`.

    fake looks like the other domain, rec like the volumes themselves; both carry their labels.
    """

    fake: object
    rec: object
