"""Who is in which split: by subject, as dataset.json says or, where it is silent, by chance."""

from collections.abc import Iterable, Mapping

import numpy as np

from cyclesh.data.description import SPLITS
from cyclesh.data.raw import PAIRED, Case, no_case
from cyclesh.errors import UserError

FRACTIONS = (0.4, 0.1, 0.5)  # train, val, test: half for test, as in the paper
FEWEST = 4  # subjects that can be split: two to train, one to validate, one to test


def split_cases(
    cases: Iterable[Case],
    dataset: Mapping | None = None,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    fold: int = 0,
) -> dict[str, str]:
    """Case id -> "train", "val", "test", "extra" or "paired".

    The `split` of a dataset.json (its parsed content) is obeyed; without one, subjects are shuffled
    by (seed, fold) and cut by `fractions` (train, val, test), each modality for itself, a subject's
    volumes always together. The anatomy of a paired volume belongs to the test split.
    Raises UserError when a case is in no split or in two, a modality has too few subjects, or a
    `fold` is asked for of a split that is stated.
    """
    cases = list(cases)
    given = (dataset or {}).get("split")
    regular = [case for case in cases if case.pair_of is None]
    if given is None:
        by_subject = _shuffled_split(cases, fractions, seed, fold)
    elif fold:
        raise UserError(f"--fold={fold}: dataset.json states the split; leave one of them out")
    else:
        by_subject = _given_split(regular, given)
    splits = {case.id: by_subject[case.subject] for case in regular}
    for case in cases:
        if case.pair_of is not None:
            splits[case.id] = PAIRED
            if splits.get(case.pair_of) != "test":
                where = splits.get(case.pair_of, "no split")
                raise UserError(
                    f"paired: {case.id} shows the anatomy of {case.pair_of}, which is in {where}; "
                    "put it into split.test of dataset.json"
                )
    return splits


def _given_split(cases: list[Case], given: Mapping[str, list[str]]) -> dict[str, str]:
    """Subject -> split from lists that name cases or subjects."""
    subject_of = {case.subject: case.subject for case in cases}
    subject_of |= {case.id: case.subject for case in cases}
    by_subject: dict[str, str] = {}
    for split in SPLITS:
        for name in given.get(split, ()):
            if name not in subject_of:
                raise UserError(f"dataset.json: split.{split}: {no_case(name, subject_of)}")
            subject = subject_of[name]
            if by_subject.setdefault(subject, split) != split:
                raise UserError(
                    f"dataset.json: split: {name!r} ({subject}) is in {by_subject[subject]} and in "
                    f"{split}; a subject belongs to one split"
                )
    left = sorted(case.id for case in cases if case.subject not in by_subject)
    if left:
        raise UserError(
            f"dataset.json: split: {left[0]} is in none ({len(left)} such cases); "
            "add it to train, val, test or extra"
        )
    return by_subject


def _shuffled_split(
    cases: list[Case], fractions: tuple[float, float, float], seed: int, fold: int
) -> dict[str, str]:
    """Subject -> split by chance, one draw for each set of modalities that subjects have."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"split fractions must be three numbers that add up to 1, not {fractions}")
    scanned: dict[str, set[str]] = {}
    for case in cases:
        if case.pair_of is None:
            scanned.setdefault(case.subject, set()).add(case.modality)
    held_out = {case.subject for case in cases if case.pair_of is not None}
    groups: dict[tuple[str, ...], list[str]] = {}
    for subject in sorted(scanned):
        groups.setdefault(tuple(sorted(scanned[subject])), []).append(subject)
    by_subject: dict[str, str] = {}
    for number, modalities in enumerate(sorted(groups)):
        rng = np.random.default_rng([seed, fold, number])
        order = [groups[modalities][i] for i in rng.permutation(len(groups[modalities]))]
        order.sort(key=lambda subject: subject in held_out)  # stable: the pinned go to test, last
        train, val, _ = split_sizes(len(order), fractions, " and ".join(modalities))
        for position, subject in enumerate(order):
            split = "train" if position < train else "val" if position < train + val else "test"
            by_subject[subject] = split
    return by_subject


def split_sizes(
    subjects: int, fractions: tuple[float, float, float], who: str
) -> tuple[int, int, int]:
    """How many of ``subjects`` train (two at least), validate and test (one at least).

    Raises UserError, naming ``who``, where they are too few.
    """
    if subjects < FEWEST:
        raise UserError(
            f"{who}: {subjects} subjects are too few for train, val and test (at least {FEWEST}); "
            "add volumes, or give the split in dataset.json"
        )
    val = min(max(1, round(fractions[1] * subjects)), subjects - 3)
    train = min(max(2, round(fractions[0] * subjects)), subjects - val - 1)
    return train, val, subjects - val - train
