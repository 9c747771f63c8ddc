"""What a store is to be made of: which files, in which splits, on which grid, and where to.

Drawing up a recipe reads names only and writes nothing; `prepare` carries it out.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cyclesh.data import store as stores
from cyclesh.data.description import SPLITS, Description, Window, read_dataset_json
from cyclesh.data.nifti import file_sha256
from cyclesh.data.raw import PAIRED, Case, find_cases
from cyclesh.data.splits import FRACTIONS, split_cases
from cyclesh.data.store import Store, digest, volume_paths
from cyclesh.errors import UserError

ENTRIES = "entries"
BYTES_A_VOXEL = 3  # an intensity's two and a label's one

Shard = tuple[int, int]  # (i, n): the i-th of n shares of the work, from 0
WHOLE: Shard = (0, 1)


@dataclass(frozen=True)
class Recipe:
    """All that decides a store's content."""

    raw: Path
    target: Path  # the store; absolute
    description: Description
    cases: tuple[Case, ...]
    splits: Mapping[str, str]  # case id -> split
    fractions: tuple[float, float, float]

    @property
    def building(self) -> Path:
        """The folder under construction."""
        return self.target.with_name(f"{self.target.name}.partial")

    def share(self, shard: Shard) -> tuple[Case, ...]:
        """The cases that fall to one of several jobs."""
        index, count = shard
        if not 0 <= index < count:
            raise UserError(f"shard {index} of {count}: the first must lie in 0..{count - 1}")
        return self.cases[index::count]

    def files(self, case: Case) -> list[Path]:
        """All that is read for a case: image, label and, of a paired one, its case's label."""
        return [path for path in (case.image, case.label, self._labels.get(case.pair_of)) if path]

    def key(self, case: Case) -> str:
        """Everything that decides a volume's voxels, but for the files that are read."""
        return digest([stores.FORMAT, case.modality, case.pair_of, self.description.to_json()])

    def entry_path(self, case: Case) -> Path:
        """The file that says that a case's volume is complete."""
        return self.building / ENTRIES / f"{case.id}.json"

    def entry(self, case: Case) -> dict | None:
        """The entry of a case whose volume is complete and made by this recipe; else None."""
        path = self.entry_path(case)
        if not path.exists() or not all(p.exists() for p in volume_paths(self.building, case.id)):
            return None
        entry = json.loads(path.read_text(encoding="utf-8"))
        return entry if entry["recipe"] == self.key(case) else None

    def manifest(self, entries: list[dict]) -> dict:
        """Of the finished store, from the cases' entries."""
        kept = ("window", "affine", "source", "cut")
        return {
            "format": stores.FORMAT,
            "description": self.description.to_json(),
            "split_sha256": digest(sorted(self.splits.items())),
            "fractions": list(self.fractions),
            "volumes": [
                {
                    "id": case.id,
                    "subject": case.subject,
                    "modality": case.modality,
                    "split": self.splits[case.id],
                    "pair_of": case.pair_of,
                    **{key: entry[key] for key in kept},
                }
                for case, entry in zip(self.cases, entries, strict=True)
            ],
        }

    def finished(self) -> Store:
        """The store that exists already. Raises UserError when its inputs were others."""
        store = Store.open(self.target)
        reason = self._difference(store)
        if reason:
            raise UserError(
                f"{self.target}: was prepared from other inputs ({reason}); remove it or name "
                "another output"
            )
        return store

    def _difference(self, store: Store) -> str | None:
        if store.description != self.description:
            now, then = self.description.to_json(), store.description.to_json()
            changed = [key for key in now if now[key] != then[key]] or ["structures"]
            return f"{changed[0]} was {then[changed[0]]}, is {now[changed[0]]}"
        volumes = {volume.id: volume for volume in store.volumes}
        strays = sorted({case.id for case in self.cases} ^ volumes.keys())
        if strays:
            return f"{strays[0]} is in only one of store and {self.raw}"
        for case in self.cases:
            volume = volumes[case.id]
            was = volume.subject, volume.split, volume.pair_of
            if was != (case.subject, self.splits[case.id], case.pair_of):
                told = ", ".join(word or "none" for word in was)
                return f"{case.id}: subject, split or pair were {told}"
            hashes = volume.source.sha256_image, volume.source.sha256_label
            if hashes != (file_sha256(case.image), file_sha256(case.label)):
                return f"the files of {case.id} have changed"
        return None

    @cached_property
    def _labels(self) -> dict[str | None, Path | None]:
        return {case.id: case.label for case in self.cases}


def draw_up(
    raw: Path | str,
    target: Path | str,
    description: Description,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    fold: int = 0,
) -> Recipe:
    """The recipe of a raw folder's store; `description` is what `describe(raw, default)` gave.

    Without a split in dataset.json, `fractions`, `seed` and `fold` draw it; it is then a part of
    the store, and another one needs another store.
    Raises UserError for a folder that cannot be prepared, and when `target` holds something else.
    """
    raw, target = Path(raw), Path(os.path.abspath(target))
    if target.is_symlink():  # what is built beside it takes its place by a rename
        target = target.resolve()
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty and not stores.is_store(target):
        raise UserError(f"{target}: exists and is no prepared store; name another output")
    cases = tuple(find_cases(raw, description))
    splits = split_cases(cases, read_dataset_json(raw), fractions, seed, fold)
    require_labels(cases)
    return Recipe(raw, target, description, cases, splits, tuple(fractions))


def require_labels(cases: Iterable[Case]) -> None:
    """Raises UserError for volumes without a label file."""
    without = [case.image for case in cases if case.label is None]
    if without:
        raise UserError(
            f"{without[0]}: has no label ({len(without)} such volumes); add the label file or take "
            "the volume out of the raw folder"
        )


def foretell(recipe: Recipe, shard: Shard = WHOLE) -> str:
    """What `prepare` would do, in lines to read. Raises UserError where it does."""
    mine, description = recipe.share(shard), recipe.description
    volume_bytes = np.prod(description.shape) * BYTES_A_VOXEL
    if stores.is_store(recipe.target):
        recipe.finished()
        lines = [f"{recipe.target}: finished already, {len(recipe.cases)} volumes"]
    else:
        size = len(recipe.cases) * volume_bytes / 1e6
        lines = [
            f"would prepare {recipe.raw}: {len(recipe.cases)} volumes, {size:.1f} MB",
            f"into {recipe.target}, {_progress(recipe, mine, shard)}",
        ]
    spacing, shape = (
        "x".join(f"{n:g}" for n in size) for size in (description.spacing_mm, description.shape)
    )
    lines.append(f"grid {shape} voxels of {spacing} mm (z, y, x)")
    return "\n".join([*lines, *_split_table(recipe)])


def _progress(recipe: Recipe, mine: tuple[Case, ...], shard: Shard) -> str:
    done = sum(recipe.entry(case) is not None for case in mine)
    share = "" if shard == WHOLE else f" of the {len(mine)} of share {shard[0]}/{shard[1]}"
    return f"{done}{share} there already"


def _split_table(recipe: Recipe) -> list[str]:
    """A line a modality: how many volumes of each split, and the window."""
    counts = Counter((case.modality, recipe.splits[case.id]) for case in recipe.cases)
    used = [split for split in (*SPLITS, PAIRED) if split in recipe.splits.values()]
    modalities = recipe.description.modalities
    width = max(map(len, modalities)) + 2
    rows = [" " * width + "".join(f"{split:>8}" for split in used) + "  window"]
    for modality in modalities:
        cells = "".join(f"{counts[modality, split]:8}" for split in used)
        window = window_in_words(recipe.description.window(modality))
        rows.append(f"{modality:{width}}{cells}  {window}")
    return rows


def window_in_words(window: Window) -> str:
    """ "-800 to 800" or "percentiles 0.5 to 99.5 of each crop"."""
    rule, low, high = window
    numbers = f"{low:g} to {high:g}"
    return numbers if rule == "fixed" else f"percentiles {numbers} of each crop"
