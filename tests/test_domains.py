"""The naming rule: which domain a letter means, and whose labels a synthetic volume carries."""

import pytest

from cyclesh.domains import DOMAINS, Volumes, labels_of, other, per_domain


def test_other_is_the_opposite():
    assert DOMAINS == ("A", "B")
    assert (other("A"), other("B")) == ("B", "A")
    with pytest.raises(ValueError):
        other("C")


def test_per_domain_asks_for_each_letter():
    assert per_domain(str.lower) == {"A": "a", "B": "b"}


@pytest.mark.parametrize(
    ("kind", "domain", "carried"),
    [
        ("real", "A", "y_A"),
        ("real", "B", "y_B"),
        ("fake", "A", "y_B"),  # fake_A = G_A(x_B)
        ("fake", "B", "y_A"),  # fake_B = G_B(x_A)
        ("rec", "A", "y_A"),  # rec_A = G_A(G_B(x_A))
        ("rec", "B", "y_B"),
    ],
)
def test_labels_follow_the_anatomy(kind, domain, carried):
    assert labels_of(kind, domain, {"A": "y_A", "B": "y_B"}) == carried


def test_volumes_are_image_then_label():
    volumes = Volumes(*("image", "label"))  # how the step unpacks the loader's pairs
    assert (volumes.image, volumes.label) == ("image", "label")
