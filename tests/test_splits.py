"""Who is in which split."""

from collections import Counter

import pytest

from cyclesh.data.raw import Case
from cyclesh.data.splits import split_cases, split_sizes
from cyclesh.errors import UserError


def case(name, subject=None, pair_of=None):
    return Case(name, name[:2], subject or name, None, None, pair_of)


CT = [case(f"ct_{i:02d}") for i in range(24)]
MR = [case(f"mr_{i:02d}") for i in range(15)]


def test_sizes_of_the_default_split():
    assert split_sizes(48, (0.4, 0.1, 0.5), "hearts") == (19, 5, 24)
    for count in range(4, 12):
        train, val, test = split_sizes(count, (0.4, 0.1, 0.5), "hearts")
        assert train + val + test == count and train >= 2 and min(val, test) >= 1
    for fractions in ((0.2, 0.5, 0.3), (0.05, 0.9, 0.05), (0.05, 0.05, 0.9), (0.9, 0.05, 0.05)):
        for count in (4, 5, 9):
            train, val, test = split_sizes(count, fractions, "hearts")
            assert train + val + test == count and train >= 2 and min(val, test) >= 1
    with pytest.raises(UserError, match="hearts: 3 subjects are too few"):
        split_sizes(3, (0.4, 0.1, 0.5), "hearts")


def test_split_has_the_papers_shares_in_each_modality():
    splits = split_cases(CT + MR)
    assert Counter(splits[c.id] for c in CT) == {"train": 10, "val": 2, "test": 12}
    assert Counter(splits[c.id] for c in MR) == {"train": 6, "val": 2, "test": 7}


def test_split_depends_on_seed_and_fold_alone():
    once = split_cases(CT + MR, seed=1)
    assert once == split_cases(reversed(CT + MR), seed=1)
    assert once != split_cases(CT + MR, seed=2) != split_cases(CT + MR, seed=2, fold=1)
    # More MR must not move CT.
    assert [once[c.id] for c in CT] == [split_cases(CT + MR[:9], seed=1)[c.id] for c in CT]


def test_a_subjects_volumes_stay_together_across_modalities():
    both = [case(f"{m}_{i}_{k}", f"p{i}") for m in ("ct", "mr") for i in range(9) for k in "ab"]
    splits = split_cases(both)
    for i in range(9):
        assert len({splits[c.id] for c in both if c.subject == f"p{i}"}) == 1
    assert set(splits.values()) == {"train", "val", "test"}


def test_anatomies_of_paired_volumes_go_to_test():
    pairs = [case(f"mr_of_{c.id}", c.id, pair_of=c.id) for c in CT[:6]]
    for seed in range(5):
        splits = split_cases(CT + MR + pairs, seed=seed)
        assert {splits[c.id] for c in CT[:6]} == {"test"}
        assert {splits[p.id] for p in pairs} == {"paired"}


def test_small_sets_keep_two_to_train_on():
    assert Counter(split_cases(CT[:4]).values()) == {"train": 2, "val": 1, "test": 1}
    with pytest.raises(UserError, match="ct: 3 subjects are too few"):
        split_cases(CT[:3])


def test_given_split_is_obeyed_by_case_or_subject():
    cases = [case("ct_1", "p1"), case("ct_2", "p1"), case("ct_3"), case("mr_1"), case("ct_4")]
    given = {"train": ["p1"], "test": ["ct_3"], "val": ["mr_1"], "extra": ["ct_4"]}
    assert split_cases(cases, {"split": given}) == {
        "ct_1": "train", "ct_2": "train", "ct_3": "test", "mr_1": "val", "ct_4": "extra"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train": ["ct_1"]}, "ct_3 is in none"),
        ({"train": ["ct_1", "ct_9"], "test": ["ct_3"]}, "no case 'ct_9'; there are ct_1, ct_2"),
        ({"train": ["ct_1", "ct_3"], "test": ["ct_2"]}, "p1.* is in train and in test"),
    ],
)
def test_faulty_given_splits(given, says):
    cases = [case("ct_1", "p1"), case("ct_2", "p1"), case("ct_3")]
    with pytest.raises(UserError, match=says):
        split_cases(cases, {"split": given})


def test_a_paired_anatomy_in_train_is_refused():
    cases = [case("ct_1"), case("mr_of_ct_1", "ct_1", pair_of="ct_1")]
    with pytest.raises(UserError, match="ct_1, which is in train"):
        split_cases(cases, {"split": {"train": ["ct_1"]}})


def test_fractions_must_add_up():
    with pytest.raises(UserError, match="add up to 1"):
        split_cases(CT, fractions=(0.5, 0.5, 0.5))
