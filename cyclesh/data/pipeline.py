"""From a store to training batches: two unpaired domains, reshuffled each epoch, with grain.

A batch is a function of (seed, step) alone, so any step can be read without those before it: that
is how a resumed run goes on exactly where it stopped, on any number of processes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import grain
import numpy as np

from cyclesh.data.augment import Augment, augment_volume
from cyclesh.data.store import Store, Volume
from cyclesh.domains import DOMAINS, per_domain
from cyclesh.errors import UserError


@dataclass(frozen=True)
class Subset:
    """The training volumes that exist for a run, each a dict over domains.

    real: volumes that segmentors and discriminators see as what they are.
    source: volumes that are translated (real ones, and the source-only "extra" split).
    """

    real: dict[str, tuple[Volume, ...]]
    source: dict[str, tuple[Volume, ...]]

    @property
    def shared(self) -> bool:
        """Whether one volume a domain and step serves as both."""
        return self.real == self.source

    def epoch_steps(self, batch: int) -> int:
        """Steps in one pass over the larger domain (paper 4.2)."""
        largest = max(len(v) for kind in (self.real, self.source) for v in kind.values())
        return -(-largest // batch)


def check_named(names: Iterable[str], modalities: Iterable[str]) -> None:
    """Raises UserError where `real_<modality>` names a modality that the data have not."""
    for name in names:
        if name not in modalities:
            raise UserError(
                f"real_{name}: the data has modalities {', '.join(modalities)}; name one of them"
            )


def count_of(modality: str, amount: int | float, total: int) -> int:
    """Subjects that an amount of ``total`` stands for (a share, if it is a float), two at least.

    Raises UserError where there are not so many.
    """
    count = round(amount * total) if isinstance(amount, float) else amount
    if count > total:
        raise UserError(f"real_{modality}={amount}: only {total} training subjects; ask for fewer")
    return max(count, 2)


def choose_subset(
    store: Store, real: Sequence[tuple[str, int | float]], synthetic: int, seed: int
) -> Subset:
    """Pick the run's training volumes.

    Args:
      real: (modality, amount) pairs: an int counts subjects, a float is a share of them; at least
        two remain. Modalities not named keep all. Drawn by ``seed``.
      synthetic: how many source volumes of each modality are translated, all of one that has
        fewer; negative: all of both.
    Raises: UserError where the store cannot give that.
    """
    amounts = dict(real)
    modalities = store.description.by_domain
    check_named(amounts, modalities.values())

    def pick(domain: str) -> tuple[Volume, ...]:
        train = store.select(modalities[domain], "train")
        subjects = sorted({volume.subject for volume in train})
        if len(subjects) < 2:
            raise UserError(
                f"{store.root}: {len(subjects)} training subjects of {modalities[domain]}; "
                "training needs two or more"
            )
        amount = amounts.get(modalities[domain], 1.0)
        count = count_of(modalities[domain], amount, len(subjects))
        order = np.random.default_rng([seed, DOMAINS.index(domain)]).permutation(subjects)
        kept = set(order[:count])
        return tuple(volume for volume in train if volume.subject in kept)

    def sources(domain: str) -> tuple[Volume, ...]:
        if synthetic < 0:
            return available[domain]
        count = len(available[domain])
        order = np.random.default_rng([seed, 2, DOMAINS.index(domain)]).permutation(count)
        return tuple(available[domain][i] for i in sorted(order[:synthetic]))

    picked = per_domain(pick)
    available = per_domain(lambda d: picked[d] + store.select(modalities[d], "extra"))
    most = max(map(len, available.values()))
    if synthetic == 0 or synthetic > most:
        raise UserError(f"synthetic={synthetic}: {most} source volumes exist; give 1 to {most}")
    return Subset(real=picked, source=per_domain(sources))


@dataclass(frozen=True)
class Loader:
    """Reads, augments and stacks volumes; ``batches`` starts anywhere."""

    store: Store
    subset: Subset
    augment: Augment
    batch: int  # of all processes together
    seed: int
    process: int = 0
    processes: int = 1
    threads: int = 1  # that load ahead, a batch each; what they load does not depend on it

    def batches(self, first_step: int = 0) -> Iterator[dict]:
        """Batches for steps first_step, first_step + 1, ... without end.

        Each is {"real": {domain: (image, label)}, "source": {...}}: image float32 (b, z, y, x, 1),
        label uint8 (b, z, y, x), b this process's share of the batch.
        """
        indices = grain.experimental.ZipMapDataset(
            [self._order(i, kind, domain) for i, (kind, domain) in enumerate(self._streams)]
        )

        def load(step: int, rows: tuple[np.ndarray, ...]) -> dict:
            batch: dict[str, dict] = {}
            for stream, (kind, domain) in enumerate(self._streams):
                stacked = self._stack(kind, domain, rows[stream], (step, stream))
                batch.setdefault(kind, {})[domain] = stacked
            return {"source": batch["real"], **batch}

        steps = indices.batch(self.batch, drop_remainder=True).map_with_index(load)
        # Options count batches: grain's default of 500 would hold gigabytes of volumes.
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=self.threads + 1)
        return iter(steps[first_step:].to_iter_dataset(options))

    def volumes_at(self, step: int) -> list[str]:
        """Ids of the volumes that a step reads, for messages."""
        ids = []
        for i, (kind, domain) in enumerate(self._streams):
            order, volumes = self._order(i, kind, domain), getattr(self.subset, kind)[domain]
            ids += [volumes[order[step * self.batch + row]].id for row in range(self.batch)]
        return ids

    @property
    def _streams(self) -> list[tuple[str, str]]:
        """(kind, domain) of what is read side by side; real volumes serve as sources, too."""
        kinds = ("real",) if self.subset.shared else ("real", "source")
        return [(kind, domain) for kind in kinds for domain in DOMAINS]

    def _order(self, stream: int, kind: str, domain: str) -> grain.MapDataset:
        count = len(getattr(self.subset, kind)[domain])
        # A seed for each stream: equal ones would pair the same volumes for ever.
        seed = int(np.random.SeedSequence([self.seed, stream]).generate_state(1)[0])
        return grain.MapDataset.range(count).seed(seed).shuffle().repeat(None)

    def _stack(self, kind: str, domain: str, rows: np.ndarray, key: tuple[int, int]) -> tuple:
        share = self.batch // self.processes
        volumes = getattr(self.subset, kind)[domain]
        images, labels = [], []
        for row in range(self.process * share, (self.process + 1) * share):
            volume = volumes[int(rows[row])]
            image, label = augment_volume(
                self.store.image(volume),
                self.store.label(volume),
                self.augment,
                self.store.description.spacing_mm,
                np.random.default_rng([self.seed, *key, row]),
            )
            images.append(image[..., None])
            labels.append(label)
        return np.stack(images), np.stack(labels)
