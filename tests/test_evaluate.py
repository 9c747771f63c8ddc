"""Scores of toy networks whose results are known by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scan_files import described
from tiny_runs import CLASSES, build, tiny_config

from cyclesh import evaluate
from cyclesh.data.store import Store
from cyclesh.domains import DOMAINS
from cyclesh.evaluate import Forward, Model

NAMES = ("left", "right")
SHAPE = (4, 4, 4)


def volume(case: str, modality: str, split: str = "test", pair_of: str | None = None):
    return SimpleNamespace(id=case, modality=modality, split=split, pair_of=pair_of)


class ToyStore:
    """CT shows class c as intensity c / 10, MR as -c / 10; both have two cases and a true pair."""

    description = described(*NAMES, spacing_mm=(1.0, 1.0, 1.0))

    def __init__(self):
        self.volumes = tuple(
            volume(f"{m}_{i}", m, split) for m in ("ct", "mr") for i, split in enumerate(SPLITS)
        ) + (volume("mr_of_ct_1", "mr", "paired", "ct_1"),)

    select, truth_of = Store.select, Store.truth_of

    def label(self, v):
        case = v.pair_of or v.id
        labels = np.zeros(SHAPE, np.uint8)
        labels[:, :, 0] = 1
        labels[:, : 1 + int(case[-1]), 3] = 2
        return labels

    def image(self, v):
        sign = 1 if v.modality == "ct" else -1
        return sign * self.label(v).astype(np.float32) / 10

    def quantiles(self, modality):
        # As if training volumes were half background and half structure 1.
        return np.array([0.0, 0.0, 0.1]) if modality == "ct" else np.array([-0.1, 0.0, 0.0])


SPLITS = ("val", "test", "test")


def nearest(tree, image):
    """Segments by intensity, for the sign that the tree names; `blind` sees no "right"."""
    labels = np.clip(np.rint(np.asarray(image) * 10 * tree["sign"]), 0, 2).astype(np.uint8)
    return np.where(labels == 2, 0, labels).astype(np.uint8) if tree.get("blind") else labels


def translated(tree, image):
    """Times a gain; to a generator of one direction volumes of the other modality are empty."""
    sign = tree.get("reads")
    seen = np.asarray(image) if sign is None else sign * np.maximum(sign * np.asarray(image), 0)
    return tree["gain"] * seen


FORWARD = Forward(
    translate=translated,
    segment=nearest,
    seg_loss=lambda tree, image, label: float((nearest(tree, image) != label).mean()),
)
SEES = {"A": {"sign": 1}, "B": {"sign": -1}}
# The perfect translation, each of volumes of the other domain.
FLIPS = {"A": {"gain": -1.0, "reads": -1}, "B": {"gain": -1.0, "reads": 1}}


def scored(**parts):
    model = Model(FORWARD, **{"gen": None, "seg": None, "judge": None, **parts})
    store = ToyStore()
    entries = [
        evaluate.score_volume(model, store, d, v) for d, v in evaluate.domain_volumes(store, "test")
    ]
    return evaluate.summarise(entries, store), entries, model, store


def test_a_perfect_model_scores_one_everywhere():
    results, *_ = scored(gen=FLIPS, seg=SEES, judge=SEES)
    for m in ("ct", "mr"):
        assert results["test"][m]["dice"] == {"mean": 1.0, "left": 1.0, "right": 1.0}
        assert results["test"][m]["n"] == 2 and results["test"][m]["assd_mm"]["mean"] == 0
        assert results["s_score"][m]["mean"] == results["judge"][m]["dice"]["mean"] == 1
    assert results["judge"]["mr"]["ceiling"] == 1 and results["judge"]["ct"]["ceiling"] is None
    assert results["translation"]["mr"]["mae"] == 0 and results["translation"]["ct"] is None


def test_the_s_score_of_a_modality_is_of_synthetic_volumes_of_that_modality():
    blind_mr_judge = {"A": SEES["A"], "B": {"sign": -1, "blind": True}}
    results, *_ = scored(gen=FLIPS, seg=SEES, judge=blind_mr_judge)
    assert results["s_score"]["mr"] == {"mean": 0.5, "left": 1.0, "right": 0.0}
    assert results["s_score"]["ct"]["mean"] == 1
    assert results["judge"]["mr"]["dice"]["right"] == 0 and results["judge"]["mr"]["ceiling"] == 0.5


def test_an_untranslated_volume_has_no_shape_for_the_other_judge():
    stays = {d: {"gain": 1.0} for d in DOMAINS}
    results, *_ = scored(gen=stays, judge=SEES)
    assert results["s_score"]["ct"]["mean"] == results["s_score"]["mr"]["mean"] == 0
    assert results["judge"]["ct"]["untranslated"] == results["judge"]["mr"]["untranslated"] == 0
    assert results["test"] == {"ct": None, "mr": None}
    # 0.1 and -0.1, 0.2 and -0.2: twice the label over ten, averaged over the voxels.
    label = ToyStore().label(volume("ct_1", "ct"))
    assert results["translation"]["mr"]["mae"] == pytest.approx(2 * label.mean() / 10)


def test_histograms_are_matched_to_the_target_s():
    # In "mr" structures are darker than their background, in "ct" brighter: the darkest voxels of
    # an mr volume stay background, and background, the median, becomes no structure either.
    results, entries, *_ = scored(gen=FLIPS, judge=SEES)
    assert results["judge"]["ct"]["histogram_matched"] == 0
    inverted = {d: {"sign": -SEES[d]["sign"]} for d in DOMAINS}
    for entry in scored(gen=FLIPS, judge=inverted)[1]:
        assert (entry.matched == 0).all() and (entry.untranslated == 1).all()
    assert {entry.matched.shape for entry in entries} == {(2,)}


def test_a_scrambled_segmentor_of_the_run_does_not_move_its_s_score():
    scrambled = {"A": {"sign": 0}, "B": {"sign": 1, "blind": True}}
    own, entries, _, store = scored(gen=FLIPS, seg=SEES, judge=SEES)
    other, others, *_ = scored(gen=FLIPS, seg=scrambled, judge=SEES)
    assert own["test"] != other["test"]
    assert own["s_score"] == other["s_score"] and own["judge"] == other["judge"]
    rows = [evaluate.s_score_rows(group, store) for group in (entries, others)]
    assert [(r.case, r.structure, r.dice) for r in rows[0]] == [
        (r.case, r.structure, r.dice) for r in rows[1]
    ]


def test_rows_of_the_s_score_stand_under_the_modality_that_was_made():
    *_, entries, _, store = scored(gen=FLIPS, judge={"A": SEES["A"], "B": {"sign": 0}})
    rows = evaluate.s_score_rows(entries, store)
    assert len(rows) == 2 * 2 * len(NAMES)
    assert {r.dice for r in rows if r.modality == "ct"} == {1.0}
    assert {r.case for r in rows if r.modality == "mr"} == {"ct_1", "ct_2"}
    assert {r.dice for r in rows if r.modality == "mr"} == {0.0}


def test_a_missing_structure_is_counted():
    results, *_ = scored(seg={d: {**SEES[d], "blind": True} for d in DOMAINS})
    assert results["test"]["ct"]["empty"] == {"left": 0, "right": 2}
    assert results["test"]["ct"]["assd_mm"]["right"] is None
    assert results["test"]["ct"]["dice"]["mean"] == 0.5


def test_validation_reads_the_validation_split_and_averages_both_modalities():
    blind = {"A": SEES["A"], "B": {"sign": -1, "blind": True}}
    figures = evaluate.validate(Model(FORWARD, FLIPS, blind, SEES), ToyStore())
    assert figures["val/dice_ct"] == 1 and figures["val/dice_mr"] == 0.5
    assert figures["val/dice"] == 0.75 and figures["val/s_score"] == 1
    # One voxel row of four is "right" in case 0 of each modality: blind in one of the two.
    assert figures["val/seg_loss"] == pytest.approx((0 + 4 / 64) / 2)
    assert not any(
        "s_score" in key for key in evaluate.validate(Model(FORWARD, None, SEES, None), ToyStore())
    )


def test_cases_for_the_report_run_from_the_worst_to_the_best():
    _, entries, model, store = scored(gen=FLIPS, seg=SEES, judge=SEES)
    chosen = evaluate.choose_cases(entries, 2)
    assert [entry.volume.id for entry in chosen] == ["ct_1", "ct_2", "mr_1", "mr_2"]
    assert len(evaluate.choose_cases(entries, 1)) == 2
    images = evaluate.case_images(model, store, chosen[0])
    np.testing.assert_allclose(images.reconstruction, images.source)
    np.testing.assert_allclose(images.translation, images.truth)
    assert (images.source_modality, images.target_modality) == ("ct", "mr")
    assert math.isclose(images.s_score, 1.0)


def test_cases_without_a_score_come_last():
    """Else one would pass for the worst, and the worst would not be shown."""
    _, entries, *_ = scored(gen=FLIPS, judge=SEES)
    blank = [
        replace(e, s_score=e.s_score * np.nan) if e.volume.id == "ct_1" else e for e in entries
    ]
    chosen = [entry.volume.id for entry in evaluate.choose_cases(blank, 2)]
    assert chosen == ["ct_2", "ct_1", "mr_1", "mr_2"]
    assert evaluate.choose_cases(blank, 1)[0].volume.id == "ct_2"


def test_some_of_many_are_spread_evenly_and_have_the_worst_the_median_and_the_best():
    assert evaluate.spread(24, 6) == [0, 5, 11, 15, 19, 23]
    assert evaluate.spread(9, 3) == [0, 4, 8] and evaluate.spread(3, 6) == [0, 1, 2]
    assert evaluate.spread(9, 2) == [0, 8] and evaluate.spread(9, 0) == []
    for total in range(1, 30):
        for count in range(3, 13):
            places = evaluate.spread(total, count)
            assert len(set(places)) == min(count, total) and places == sorted(places)
            assert (places[0], places[-1]) == (0, total - 1)
            assert places[(len(places) - 1) // 2] == (total - 1) // 2


def test_networks_are_applied_to_the_volume_that_is_given():
    _, nets, _, state = build(tiny_config("joint"))
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (8, 8, 8)).astype(np.float32)
    label = rng.integers(0, CLASSES, image.shape).astype(np.uint8)
    forward = evaluate.make_forward(nets)
    for d in DOMAINS:
        gen, seg = state.params.gen[d], state.params.seg[d]
        fake = nets.gen.apply({"params": gen}, image[None, ..., None])[0, ..., 0]
        logits = np.asarray(nets.seg.apply({"params": seg}, image[None, ..., None])[0], float)
        np.testing.assert_allclose(forward.translate(gen, image), fake, atol=1e-5)
        assert (forward.segment(seg, image) == logits.argmax(-1)).mean() > 0.99
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = -np.log(np.take_along_axis(shares, label[..., None].astype(int), -1)).mean()
        assert float(forward.seg_loss(seg, image, label)) == pytest.approx(expected, rel=1e-4)


def test_pictures_show_what_the_networks_of_their_own_domains_find():
    _, entries, model, store = scored(gen=FLIPS, seg=SEES, judge=SEES)
    for entry in entries:
        images = evaluate.case_images(model, store, entry)
        for found in (images.predicted_source, images.predicted_translation):
            np.testing.assert_array_equal(found, images.label)


class OtherTruth(ToyStore):
    """The true pair shows its anatomy one voxel further on."""

    def label(self, v):
        return np.roll(super().label(v), 1, axis=1) if v.pair_of else super().label(v)


def test_the_ceiling_is_against_the_true_volumes_own_labels():
    store, model = OtherTruth(), Model(FORWARD, FLIPS, None, SEES)
    entries = [
        evaluate.score_volume(model, store, domain, volume)
        for domain, volume in evaluate.domain_volumes(store, "test")
    ]
    assert evaluate.summarise(entries, store)["judge"]["mr"]["ceiling"] == 1
    true = store.volumes[-1]
    assert true.pair_of and (store.label(true) != ToyStore().label(true)).any()


def test_cases_are_ranked_by_their_s_score_or_without_one_by_dice():
    _, entries, *_ = scored(gen=FLIPS, seg=SEES, judge=SEES)
    worth = {entry.volume.id: 0.5 if entry.volume.id.endswith("2") else 1.0 for entry in entries}
    by_s_score = [replace(e, s_score=e.s_score * worth[e.volume.id]) for e in entries]
    by_dice = [
        replace(e, s_score=None, rows=[replace(r, dice=r.dice * worth[r.case]) for r in e.rows])
        for e in entries
    ]
    for own in (by_s_score, by_dice):
        found = [entry.volume.id for entry in evaluate.choose_cases(own, 2)]
        assert found == ["ct_2", "ct_1", "mr_2", "mr_1"]
