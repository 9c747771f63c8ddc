"""Which volumes a run trains on, and in which order they come."""

import json
from collections import Counter
from itertools import combinations, islice

import numpy as np
import pytest

from cyclesh.data.augment import Augment
from cyclesh.data.description import Description
from cyclesh.data.pipeline import Loader, Subset, choose_subset
from cyclesh.data.store import FORMAT, MANIFEST, VOLUMES, Source, Store, Volume, as_affine
from cyclesh.domains import DOMAINS, per_domain
from cyclesh.errors import UserError

SHAPE = (3, 4, 5)
STILL = Augment(shift_mm=0.0, rotate_deg=0.0, scale=0.0, flip=False)
MOVING = Augment(shift_mm=2.0, rotate_deg=8.0, scale=0.1, flip=True)
DESCRIPTION = Description(
    modalities=("ct", "mr"),
    structures=(("shell", 1), ("core", 2)),
    aliases=(),
    dropped=(),
    spacing_mm=(2, 2, 2),
    shape=SHAPE,
    windows=(("fixed", -500, 500), ("percentile", 0.5, 99.5)),
)


def entry(name: str, subject: str, modality: str, split: str) -> Volume:
    eye = as_affine(np.eye(4))
    return Volume(
        id=name,
        subject=subject,
        modality=modality,
        split=split,
        pair_of=None,
        window=(-500.0, 500.0),
        affine=eye,
        source=Source(f"{name}.nii.gz", f"{name}_label.nii.gz", SHAPE[::-1], eye, "int16", "", ""),
        cut={"shell": 0.0, "core": 0.0},
    )


def write_store(root, volumes: list[Volume]) -> Store:
    """Volume n of the list has the intensity n/100 in its first voxel, and class n % 3 there."""
    (root / VOLUMES).mkdir(parents=True)
    for n, volume in enumerate(volumes):
        rng = np.random.default_rng(n)
        image, label = rng.uniform(-1, 1, SHAPE), rng.integers(0, 3, SHAPE).astype(np.uint8)
        image[0, 0, 0], label[0, 0, 0] = n / 100, n % 3
        np.save(root / VOLUMES / f"{volume.id}.image.npy", np.rint(image * 32767).astype(np.int16))
        np.save(root / VOLUMES / f"{volume.id}.label.npy", label)
    manifest = {
        "format": FORMAT,
        "description": DESCRIPTION.to_json(),
        "split_sha256": "0",
        "fractions": [0.4, 0.1, 0.5],
        "volumes": [volume.to_json() for volume in volumes],
    }
    (root / MANIFEST).write_text(json.dumps(manifest))
    return Store.open(root)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Seven volumes of five CT subjects, three MR subjects, and what may not be trained on."""
    subjects = {"ct": ["p0", "p0", "p0", "p1", "p2", "p3", "p4"], "mr": ["q0", "q1", "q2"]}
    volumes = [
        entry(f"{m}_{n}", subject, m, "train")
        for m in ("ct", "mr")
        for n, subject in enumerate(subjects[m])
    ]
    volumes += [entry(f"ct_extra_{n}", f"e{n}", "ct", "extra") for n in range(4)]
    volumes += [entry(f"{m}_{s}", f"{m}-{s}", m, s) for m in ("ct", "mr") for s in ("val", "test")]
    volumes.append(entry("mr_of_ct_test", "ct-test", "mr", "paired"))
    return write_store(tmp_path_factory.mktemp("stores") / "hearts", volumes)


@pytest.fixture(scope="module")
def subset(store):
    """Training volumes as they are, with source-only CT."""
    return choose_subset(store, (), -1, 0)


@pytest.fixture(scope="module")
def plain(store, subset):
    """Five CT and three MR volumes that are both real and source."""
    kept = {"A": subset.real["A"][:5], "B": subset.real["B"]}
    return Subset(real=kept, source=kept)


def loader(store, subset, augment=STILL, batch=1, seed=0, **share):
    return Loader(store, subset, augment, batch, seed, **share)


def numbers(batch, kind, domain) -> list[int]:
    """Which volumes of the store a batch holds; their labels must be theirs."""
    images, labels = batch[kind][domain]
    found = [round(float(image[0, 0, 0, 0]) * 100) for image in images]
    assert [label[0, 0, 0] for label in labels] == [n % 3 for n in found]
    return found


def read(steps, kind="real", **arguments) -> dict[str, list[int]]:
    """The volumes of the first so many steps, in order."""
    batches = list(islice(loader(**arguments).batches(), steps))
    return per_domain(lambda d: [n for batch in batches for n in numbers(batch, kind, d)])


def same(a, b) -> bool:
    return all(
        np.array_equal(x, y)
        for kind in ("real", "source")
        for d in DOMAINS
        for x, y in zip(a[kind][d], b[kind][d], strict=True)
    )


# ------------------------------------------------------------------------ which volumes there are


def names(volumes):
    return {volume.id for volume in volumes}


def test_everything_of_train_is_there_and_nothing_else(subset):
    assert names(subset.real["A"]) == {f"ct_{n}" for n in range(7)}
    assert names(subset.real["B"]) == {f"mr_{n}" for n in range(3)}


def test_extra_volumes_are_sources_only(subset):
    assert names(subset.source["A"]) == names(subset.real["A"]) | {
        f"ct_extra_{n}" for n in range(4)
    }
    assert subset.source["B"] == subset.real["B"]
    assert not subset.shared and subset.epoch_steps(1) == 11


@pytest.mark.parametrize(
    ("amount", "kept"),
    [(2, 2), (4, 4), (5, 5), (0.5, 2), (0.6, 3), (0.8, 4), (1.0, 5), (0.14, 2), (0.01, 2)],
)
def test_amounts_are_of_subjects_and_at_least_two(store, amount, kept):
    chosen = choose_subset(store, (("ct", amount),), -1, 0)
    subjects = {volume.subject for volume in chosen.real["A"]}
    assert len(subjects) == kept
    # A subject brings all its volumes.
    assert names(chosen.real["A"]) == names(
        v for v in store.select("ct", "train") if v.subject in subjects
    )
    assert names(chosen.real["B"]) == {"mr_0", "mr_1", "mr_2"}


def test_who_is_left_out_is_not_translated_either(store):
    chosen = choose_subset(store, (("ct", 2), ("mr", 2)), -1, 0)
    assert chosen.source["B"] == chosen.real["B"] and len(chosen.real["B"]) == 2
    assert names(chosen.source["A"]) - names(chosen.real["A"]) == {
        f"ct_extra_{n}" for n in range(4)
    }


def test_a_larger_amount_keeps_the_smaller_one(store):
    for seed in range(5):
        kept = [names(choose_subset(store, (("ct", n),), -1, seed).real["A"]) for n in (2, 3, 4, 5)]
        assert kept[0] < kept[1] < kept[2] < kept[3]


def test_the_seed_chooses(store):
    def chosen(seed):
        return choose_subset(store, (("ct", 2), ("mr", 2)), 2, seed)

    assert chosen(0) == chosen(0)
    assert len({tuple(names(chosen(seed).real["A"])) for seed in range(12)}) > 3
    assert len({tuple(names(chosen(seed).source["A"])) for seed in range(12)}) > 3


def test_how_many_are_translated(store):
    for count in (1, 2, 3):
        chosen = choose_subset(store, (), count, 0)
        assert [len(chosen.source[d]) for d in DOMAINS] == [count, count]
        assert [len(chosen.real[d]) for d in DOMAINS] == [7, 3]
        assert names(chosen.source["A"]) <= names(store.select("ct", "train")) | {
            f"ct_extra_{n}" for n in range(4)
        }


def test_a_modality_with_fewer_sources_gives_them_all(store):
    chosen = choose_subset(store, (("mr", 2),), 9, 0)
    assert len(chosen.source["A"]) == 9
    assert chosen.source["B"] == chosen.real["B"] and len(chosen.real["B"]) == 2


@pytest.mark.parametrize(
    ("real", "synthetic", "named"),
    [
        ((("pet", 3),), -1, ["real_pet", "ct, mr"]),
        ((("ct", 6),), -1, ["real_ct=6", "5"]),
        ((("mr", 4),), -1, ["real_mr=4", "3"]),
        ((), 12, ["synthetic=12", "1 to 11"]),
        ((), 0, ["synthetic=0"]),
    ],
)
def test_what_the_store_cannot_give_is_refused(store, real, synthetic, named):
    with pytest.raises(UserError) as caught:
        choose_subset(store, real, synthetic, 0)
    assert all(word in str(caught.value) for word in named) and "\n" not in str(caught.value)


def test_a_store_of_one_subject_is_refused(tmp_path):
    volumes = [entry(f"ct_{n}", "the one", "ct", "train") for n in range(3)]
    volumes += [entry(f"mr_{n}", f"q{n}", "mr", "train") for n in range(3)]
    with pytest.raises(UserError, match="1 training subjects of ct"):
        choose_subset(write_store(tmp_path / "store", volumes), (), -1, 0)


# ----------------------------------------------------------------------- in which order they come


def test_an_epoch_is_one_pass_over_the_larger_domain(store, plain):
    assert plain.epoch_steps(1) == 5
    order = read(20, store=store, subset=plain)["A"]
    epochs = [order[n : n + 5] for n in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # reshuffled


def test_the_smaller_domain_goes_round_in_its_own_time(store, plain):
    order = read(15, store=store, subset=plain)["B"]
    rounds = [order[n : n + 3] for n in range(0, 15, 3)]
    assert all(sorted(r) == [7, 8, 9] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1


def test_batches_larger_than_one_run_over_the_ends_of_epochs(store, plain):
    assert (plain.epoch_steps(2), plain.epoch_steps(5), plain.epoch_steps(8)) == (3, 1, 1)
    order = read(5, store=store, subset=plain, batch=2)  # ten volumes: twice round
    assert Counter(order["A"]) == dict.fromkeys(range(5), 2)
    assert order["A"] == read(10, store=store, subset=plain)["A"]
    large = read(1, store=store, subset=plain, batch=8)["B"]  # more than there are
    assert Counter(large[:6]) == dict.fromkeys((7, 8, 9), 2) and len(large) == 8


def test_domains_are_unpaired_and_stay_so(store, subset):
    equal = {"A": subset.real["A"][:3], "B": subset.real["B"]}
    order = read(60, store=store, subset=Subset(equal, equal))
    pairs = Counter(zip(order["A"], order["B"], strict=True))
    # 20 epochs of 3 steps: each of the nine pairs about 6.7 times; a fixed pairing has three.
    assert len(pairs) == 9 and max(pairs.values()) <= 14


def test_real_and_source_are_streams_of_their_own(store, subset):
    arguments = {"store": store, "subset": subset}
    real, source = read(77, **arguments), read(77, "source", **arguments)
    assert Counter(real["A"]) == dict.fromkeys(range(7), 11)
    assert Counter(source["A"]) == dict.fromkeys([*range(7), 10, 11, 12, 13], 7)
    assert real["B"] != source["B"] and Counter(real["B"][:75]) == Counter(source["B"][:75])


def test_one_volume_serves_as_both_where_it_can(store, plain):
    assert plain.shared
    batch = next(loader(store, plain, MOVING).batches())
    assert batch["source"] is batch["real"]


def test_what_a_batch_is(store, subset):
    for kind, domain in ((k, d) for k in ("real", "source") for d in DOMAINS):
        batch = next(loader(store, subset, MOVING, batch=2).batches())
        image, label = batch[kind][domain]
        assert (image.shape, image.dtype) == ((2, *SHAPE, 1), np.float32)
        assert (label.shape, label.dtype) == ((2, *SHAPE), np.uint8)


@pytest.mark.parametrize("first", [1, 6, 23])
def test_any_step_can_be_read_without_those_before(store, subset, first):
    arguments = {"store": store, "subset": subset, "augment": MOVING, "batch": 2}
    straight = list(islice(loader(**arguments).batches(), first + 3))[first:]
    resumed = list(islice(loader(**arguments).batches(first), 3))
    assert all(same(a, b) for a, b in zip(straight, resumed, strict=True))


def test_threads_that_load_ahead_change_nothing(store, subset):
    arguments = {"store": store, "subset": subset, "augment": MOVING, "batch": 2}
    one, many = (islice(loader(**arguments, threads=n).batches(3), 9) for n in (1, 4))
    assert all(same(a, b) for a, b in zip(one, many, strict=True))


def test_processes_share_the_batch_of_one(store, subset):
    arguments = {"store": store, "subset": subset, "augment": MOVING, "batch": 4, "seed": 3}
    whole = islice(loader(**arguments).batches(), 4)
    shares = [islice(loader(**arguments, process=p, processes=2).batches(), 4) for p in range(2)]
    for one, first, second in zip(whole, *shares, strict=True):
        for kind, d in ((k, d) for k in ("real", "source") for d in DOMAINS):
            for part in range(2):
                joined = np.concatenate([first[kind][d][part], second[kind][d][part]])
                np.testing.assert_array_equal(joined, one[kind][d][part])


def test_a_function_of_the_seed(store, plain):
    def batches(seed):
        return list(islice(loader(store, plain, MOVING, seed=seed).batches(), 6))

    assert all(same(a, b) for a, b in zip(batches(0), batches(0), strict=True))
    orders = {tuple(read(10, store=store, subset=plain, seed=seed)["A"]) for seed in range(4)}
    assert len(orders) == 4


def test_every_reading_of_a_volume_is_moved_anew(store, plain):
    still, moving = (
        list(islice(loader(store, plain, augment).batches(), 10)) for augment in (STILL, MOVING)
    )
    order = [numbers(batch, "real", "A")[0] for batch in still]
    first, again = (n for n, volume in enumerate(order) if volume == order[0])
    np.testing.assert_array_equal(still[first]["real"]["A"][0], still[again]["real"]["A"][0])
    assert not np.array_equal(moving[first]["real"]["A"][0], moving[again]["real"]["A"][0])


def test_volumes_of_one_batch_are_moved_each_in_its_own_way(store, subset):
    twice = {"A": subset.real["A"][:1], "B": subset.real["B"][:1]}
    images, _ = next(loader(store, Subset(twice, twice), MOVING, batch=2).batches())["real"]["A"]
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("which", ["plain", "subset"])
def test_messages_name_the_volumes_of_a_step(store, which, request):
    chosen = request.getfixturevalue(which)
    reader = loader(store, chosen, batch=2, seed=5)
    kinds = ("real",) if chosen.shared else ("real", "source")
    for step, batch in enumerate(islice(reader.batches(), 9)):
        held = [n for kind in kinds for d in DOMAINS for n in numbers(batch, kind, d)]
        assert reader.volumes_at(step) == [store.volumes[n].id for n in held]


def test_no_two_readings_at_one_step_are_moved_alike(store, subset):
    volume = subset.real["A"][0]
    one, more = {"A": (volume,), "B": (volume,)}, {"A": (volume,), "B": (volume,) * 2}

    def images(seed: int) -> list:
        batch = next(loader(store, Subset(one, more), MOVING, seed=seed).batches())
        return [batch[kind][d][0] for kind in ("real", "source") for d in DOMAINS]

    found = [*images(0), *images(1)]
    assert not any(np.array_equal(a, b) for a, b in combinations(found, 2))
