"""A step's two halves: whose networks they see, and whose pools take what they make."""

from cyclesh import homes
from cyclesh.homes import BOTH, Pair


def test_each_home_sees_its_own_networks_and_the_others():
    assert homes.pairs(BOTH, {"A": "S_A", "B": "S_B"}) == {
        "A": Pair(here="S_A", there="S_B"),
        "B": Pair(here="S_B", there="S_A"),
    }
    assert homes.pairs(BOTH, None) is None
    # A fake looks like the other domain, and goes to that one's pool.
    assert BOTH.pools({"A": "pool of A", "B": "pool of B"}) == {"A": "pool of B", "B": "pool of A"}
