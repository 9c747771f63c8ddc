"""A trained model against the truth: segmentation, S-score, translation (paper 5.2, 5.3).

The S-score of a synthetic volume is the Dice of a judge, a segmentor trained on real volumes of
that modality alone, against the labels of the volume that it was translated from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from cyclesh import losses
from cyclesh.data.store import Store, Volume
from cyclesh.domains import DOMAINS, other
from cyclesh.scoring import cases as scores
from cyclesh.scoring.dice import dice
from cyclesh.scoring.histogram import match_histogram
from cyclesh.scoring.report_data import CaseImages
from cyclesh.scoring.similarity import Similarity, similarity
from cyclesh.state import Players

INTENSITY_RANGE = 2.0  # of volumes in [-1, 1], for PSNR and SSIM


@dataclass(frozen=True)
class Forward:
    """Jitted forward passes, shared by all parameter trees of one architecture.

    translate(tree, image): (z, y, x) in [-1, 1] -> the same, in the generator's domain.
    segment(tree, image): (z, y, x) -> uint8 class indices.
    seg_loss(tree, image, label): the cross-entropy of Eq. 2.
    """

    translate: Callable
    segment: Callable
    seg_loss: Callable


def make_forward(nets: Players) -> Forward:
    """Compiled once for each grid size; images come as numpy arrays and leave as jax Arrays."""

    def logits(tree, image):
        return nets.seg.apply({"params": tree}, image[None, ..., None])

    @jax.jit
    def translate(tree, image):
        return nets.gen.apply({"params": tree}, image[None, ..., None])[0, ..., 0]

    @jax.jit
    def segment(tree, image):
        return jnp.argmax(logits(tree, image)[0], -1).astype(jnp.uint8)

    @jax.jit
    def seg_loss(tree, image, label):
        return losses.cross_entropy(logits(tree, image), label[None])

    return Forward(translate, segment, seg_loss)


@dataclass(frozen=True)
class Model:
    """What is scored. gen and seg are {"A": tree, "B": tree}, or None where the run has none.

    judge: the judges' segmentors, or None.
    """

    forward: Forward
    gen: dict | None
    seg: dict | None
    judge: dict | None

    def translate(self, target: str, image: np.ndarray) -> np.ndarray:
        """G_target of a volume of the other domain; (z, y, x) float32 in [-1, 1]."""
        return np.asarray(self.forward.translate(self.gen[target], image))

    def segment(self, tree, image: np.ndarray) -> np.ndarray:
        """Class indices uint8 (z, y, x)."""
        return np.asarray(self.forward.segment(tree, image))


def domain_volumes(store: Store, split: str) -> Iterator[tuple[str, Volume]]:
    """(domain, volume) of every volume of a split, domain A first."""
    for domain, modality in store.description.by_domain.items():
        for volume in store.select(modality, split):
            yield domain, volume


def validate(model: Model, store: Store) -> dict[str, float]:
    """The validation figures of a training run, keyed as in metrics.jsonl.

    val/seg_loss, val/dice_<modality> where there are segmentors; val/s_score_<modality> (of the
    synthetic volumes of that modality) where there are generators and judges; val/dice and
    val/s_score, their means over modalities.
    """
    modality = store.description.by_domain
    classes = store.description.classes
    values: dict[str, list] = {}

    def add(key: str, value) -> None:
        values.setdefault(key, []).append(value)

    for domain, volume in domain_volumes(store, "val"):
        image, label = store.image(volume), store.label(volume)
        if model.seg is not None:
            add("val/seg_loss", float(model.forward.seg_loss(model.seg[domain], image, label)))
            predicted = model.segment(model.seg[domain], image)
            add(f"val/dice_{modality[domain]}", dice(predicted, label, classes))
        if model.gen is not None and model.judge is not None:
            target = other(domain)
            judged = model.segment(model.judge[target], model.translate(target, image))
            add(f"val/s_score_{modality[target]}", dice(judged, label, classes))
    figures = {}
    for key, entries in values.items():
        if key == "val/seg_loss":
            figures[key] = float(np.mean(entries))
        else:
            mean = scores.average(entries, store.description.names)["mean"]
            figures[key] = float("nan") if mean is None else mean
    for name in ("dice", "s_score"):
        both = [figures[key] for key in figures if key.startswith(f"val/{name}_")]
        if both:
            figures[f"val/{name}"] = float(np.mean(both))
    return figures


@dataclass(frozen=True)
class VolumeScores:
    """Scores of one labelled volume; Dice arrays are (structures,), None where there is none."""

    domain: str
    volume: Volume
    rows: list[scores.CaseScore]  # of the run's own segmentor on the volume
    judge: np.ndarray | None  # Dice of its modality's judge on the volume
    s_score: np.ndarray | None  # Dice of the target's judge on the translation
    ceiling: np.ndarray | None  # Dice of the target's judge on the true volume of the target
    untranslated: np.ndarray | None  # Dice of the target's judge on the volume as it is
    matched: np.ndarray | None  # ... on the volume with the histogram of the target's training set
    similarity: Similarity | None  # of the translation to that true volume


def score_volume(model: Model, store: Store, domain: str, volume: Volume) -> VolumeScores:
    """All scores of one volume of ``domain`` and of its translation."""
    description = store.description
    image, label = store.image(volume), store.label(volume)
    truth = store.truth_of(volume)
    fake = None if model.gen is None else model.translate(other(domain), image)

    def judged(by: str, image: np.ndarray | None, label: np.ndarray) -> np.ndarray | None:
        if model.judge is None or image is None:
            return None
        return dice(model.segment(model.judge[by], image), label, description.classes)

    true_image = None if truth is None else store.image(truth)
    matched = None
    if model.judge is not None:
        target = description.by_domain[other(domain)]
        matched = match_histogram(image, store.quantiles(target))
    rows = []
    if model.seg is not None:
        rows = scores.score_case(
            volume.id,
            volume.modality,
            model.segment(model.seg[domain], image),
            label,
            description.names,
            description.spacing_mm,
        )
    return VolumeScores(
        domain=domain,
        volume=volume,
        rows=rows,
        judge=judged(domain, image, label),
        s_score=judged(other(domain), fake, label),
        ceiling=judged(other(domain), true_image, label if truth is None else store.label(truth)),
        untranslated=judged(other(domain), image, label),
        matched=judged(other(domain), matched, label),
        similarity=(
            None
            if fake is None or true_image is None
            else similarity(fake, true_image, INTENSITY_RANGE)
        ),
    )


def s_score_rows(entries: list[VolumeScores], store: Store) -> list[scores.CaseScore]:
    """The S-score of every translation by structure, under the modality of the synthetic volume."""
    modality = store.description.by_domain
    nan = float("nan")
    return [
        scores.CaseScore(
            case=entry.volume.id,
            modality=modality[other(entry.domain)],
            structure=name,
            dice=float(value),
            assd_mm=nan,
            hd95_mm=nan,
            empty="",
        )
        for entry in entries
        if entry.s_score is not None
        for name, value in zip(store.description.names, entry.s_score, strict=True)
    ]


def summarise(entries: list[VolumeScores], store: Store) -> dict:
    """The scoring blocks of results.json; missing values are None.

    test.<m>: segmentation of real volumes of modality m. s_score.<m>: synthetic volumes of m.
    judge.<m>: the judge's own Dice on real volumes of m; beside an S-score: ceiling, its Dice on
    the true volumes of m of the same subjects, where such exist, and its Dice on the inputs
    themselves, untranslated and with histograms matched to m's. translation.<m>: similarity of
    synthetic volumes of m to those true volumes, intensities in [-1, 1].
    """
    names = store.description.names

    def mean_of(figures: dict | None) -> float | None:
        return figures and figures["mean"]

    blocks = {"test": {}, "s_score": {}, "judge": {}, "translation": {}}
    for domain, modality in store.description.by_domain.items():
        own = [entry for entry in entries if entry.domain == domain]
        incoming = [entry for entry in entries if entry.domain == other(domain)]

        def average(measure: str, group: list[VolumeScores]) -> dict | None:
            values = [getattr(e, measure) for e in group if getattr(e, measure) is not None]
            return scores.average(values, names) if values else None

        rows = [row for entry in own for row in entry.rows]
        blocks["test"][modality] = scores.summarise(rows) if rows else None
        blocks["s_score"][modality] = average("s_score", incoming)
        ceiling = average("ceiling", incoming)
        blocks["judge"][modality] = {
            "dice": average("judge", own),
            "ceiling": mean_of(ceiling),
            "ceiling_by_structure": ceiling,
            "untranslated": mean_of(average("untranslated", incoming)),
            "histogram_matched": mean_of(average("matched", incoming)),
        }
        alike = [entry.similarity for entry in incoming if entry.similarity is not None]
        blocks["translation"][modality] = scores.summarise_similarity(alike) if alike else None
    return blocks


def case_images(model: Model, store: Store, entry: VolumeScores) -> CaseImages:
    """The pictures of one scored volume, for the report."""
    domain, target = entry.domain, other(entry.domain)
    modality = store.description.by_domain
    image, label = store.image(entry.volume), store.label(entry.volume)
    truth = store.truth_of(entry.volume)
    seen = {"source": image, "label": label}
    if truth is not None:
        seen["truth"] = store.image(truth)
    if model.seg is not None:
        seen["predicted_source"] = model.segment(model.seg[domain], image)
    if model.gen is not None:
        seen["translation"] = model.translate(target, image)
        seen["reconstruction"] = model.translate(domain, seen["translation"])
        if model.judge is not None:
            seen["predicted_translation"] = model.segment(model.judge[target], seen["translation"])
            seen["s_score"] = _mean_of_finite(entry.s_score)
    return CaseImages(
        case=entry.volume.id,
        source_modality=modality[domain],
        target_modality=modality[target],
        **seen,
    )


def choose_cases(entries: list[VolumeScores], count: int) -> list[VolumeScores]:
    """``count`` volumes of each domain, spread from the worst over the median to the best.

    By S-score; without S-scores, by the segmentor's Dice. Those that have neither come last.
    """

    def quality(entry: VolumeScores) -> float:
        values = entry.s_score
        if values is None:
            values = np.array([row.dice for row in entry.rows])
        return _mean_of_finite(values)

    chosen = []
    for domain in DOMAINS:
        scored = [(quality(entry), entry) for entry in entries if entry.domain == domain]
        ranked = sorted((s for s in scored if np.isfinite(s[0])), key=lambda s: s[0])
        places = spread(len(ranked), count)
        without = [s for s in scored if not np.isfinite(s[0])][: count - len(places)]
        chosen += [entry for _, entry in [*(ranked[place] for place in places), *without]]
    return chosen


def _mean_of_finite(values: np.ndarray) -> float:
    """NaN, without a warning, where no value is finite."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def spread(total: int, count: int) -> list[int]:
    """``count`` of the places 0 to total - 1, evenly from the first over the middle to the last.

    From three on, the middle (the lower of two) of all is that of the chosen ones as well.
    """
    if count >= total:
        return list(range(total))
    if count < 3:
        return [0, total - 1][:count]
    middle, below, above = (total - 1) // 2, (count - 1) // 2, count // 2
    lower = [i * middle // below for i in range(below)]
    upper = [middle + i * (total - 1 - middle) // above for i in range(above + 1)]
    return lower + upper
