"""The naming rule: which domain a letter means."""

import pytest

from cyclesh.domains import DOMAINS, Volumes, other, per_domain


def test_other_is_the_opposite():
    assert DOMAINS == ("A", "B")
    assert (other("A"), other("B")) == ("B", "A")
    with pytest.raises(ValueError):
        other("C")


def test_per_domain_asks_for_each_letter():
    assert per_domain(str.lower) == {"A": "a", "B": "b"}


def test_volumes_are_image_then_label():
    volumes = Volumes(*("image", "label"))  # how the step unpacks the loader's pairs
    assert (volumes.image, volumes.label) == ("image", "label")
