"""From what the user names (nothing, a raw folder, a prepared store) to a store."""

import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from cyclesh.cache import cache_folder, key_of, locked
from cyclesh.data.description import (
    Description,
    describe,
    description_of,
    read_dataset_json,
    require_levels,
)
from cyclesh.data.phantom import PhantomSpec, dataset_json, phantom_key, write_phantom
from cyclesh.data.prepare import prepare
from cyclesh.data.raw import decisive_files, find_cases
from cyclesh.data.recipe import Recipe, Shard, draw_up, require_labels
from cyclesh.data.splits import split_cases
from cyclesh.data.store import FORMAT, Store, is_store
from cyclesh.data.verify import Report, verify
from cyclesh.errors import UserError


def open_store(config, progress: bool = True) -> Store:
    """The store that a config trains on: made first, if need be, under the cache folder."""
    path = config.data.path
    if path and is_store(path):
        return _ready_made(config)
    _, description = foresee(config)
    raw = Path(path) if path else phantom_folder(config, progress)
    return _prepared(raw, config, description, progress)


def _ready_made(config) -> Store:
    """The store at `data.path`, if it has the grid that was asked for and networks can use."""
    data, store = config.data, Store.open(Path(config.data.path))
    for field in data.override:
        wanted, found = tuple(data[field]), getattr(store.description, field)
        if wanted != found:
            raise UserError(
                f"data={data.path}: this store has {field} {found}, the config asks for {wanted}; "
                "leave it out, or prepare the raw folder anew"
            )
    require_levels(store.description.shape, config.model.depth, f"the store {data.path}: shape")
    return store


def foresee(config) -> tuple[str, Description]:
    """Where a config's data come from, in words, and what they are; makes and reads no volume.

    Raises UserError where there are none, or not what the config asks for or its networks can use.
    """
    data, path = config.data, Path(config.data.path)
    if data.path and is_store(path):
        return f"the store {path}", _ready_made(config).description
    if not data.path:
        where, description = "the embedded phantom", _phantom_description(config)
    elif path.is_dir():
        where = f"the raw folder {path}, to be verified and prepared"
        description = _description(path, data)
    else:
        raise UserError(
            f"data={path}: no such folder; give a raw folder or a prepared store (a run whose data "
            "were moved learns where they are from its training command with data=FOLDER)"
        )
    require_levels(description.shape, config.model.depth, f"{where}: shape")
    return where, description


class Listed(NamedTuple):
    """A volume that `open_store` will find: as much of a store's `Volume` as names alone tell."""

    id: str
    subject: str
    modality: str
    split: str


@dataclass(frozen=True)
class Roster:
    """What a store will hold, as far as it can be told without reading volumes."""

    root: str
    description: Description
    volumes: tuple[Listed, ...]

    def select(self, modality: str, split: str) -> tuple[Listed, ...]:
        """The volumes of a modality and split, in the order of their ids, as a store's."""
        return tuple(v for v in self.volumes if (v.modality, v.split) == (modality, split))


def list_volumes(config) -> Roster | Store:
    """What `open_store` will find, without preparing anything: a store that is there, itself."""
    data = config.data
    if data.path and is_store(data.path):
        return _ready_made(config)
    where, described = foresee(config)
    if not data.path:
        split = dataset_json(_phantom_spec(config))["split"]
        found = [
            (case, case, case.partition("_")[0], name) for name in split for case in split[name]
        ]
    else:
        cases, stated = find_cases(data.path, described), read_dataset_json(data.path)
        require_labels(cases)
        splits = split_cases(cases, stated, tuple(data.fractions), data.split_seed)
        found = [(case.id, case.subject, case.modality, splits[case.id]) for case in cases]
    return Roster(data.path or where, described, tuple(Listed(*own) for own in sorted(found)))


def survey(config) -> tuple[Description, Counter]:
    """The description of `list_volumes`, and how many subjects there are of (modality, split)."""
    roster = list_volumes(config)
    subjects = {(v.modality, v.split, v.subject) for v in roster.volumes}
    return roster.description, Counter((modality, split) for modality, split, _ in subjects)


def _phantom_description(config) -> Description:
    """What the phantom is, on the grid that the config says."""
    entries, asked = dataset_json(_phantom_spec(config)), description_of(config.data)
    shown = Description.from_json({key: entries[key] for key in asked.to_json()})
    if (shown.modalities, shown.names) != (asked.modalities, asked.names):
        raise UserError(
            f"--config: {', '.join(asked.names)} in {' and '.join(asked.modalities)} need data of "
            "your own; give data=FOLDER"
        )
    return replace(shown, spacing_mm=asked.spacing_mm, shape=asked.shape)


def _phantom_spec(config) -> PhantomSpec:
    phantom = config.phantom
    return PhantomSpec(
        seed=phantom.seed,
        subjects_ct=phantom.subjects,
        subjects_mr=phantom.subjects,
        extra_ct=phantom.extra,
        cohort_difference=phantom.cohort_difference,
    )


def phantom_folder(config, progress: bool = True) -> Path:
    """The raw folder of a config's phantom, under the cache folder; drawn first, if need be."""
    spec = _phantom_spec(config)
    folder = cache_folder("phantom", phantom_key(spec))
    with locked(folder):
        write_phantom(spec, folder, config.data.processes or None, progress)
    return folder


def _prepared(raw: Path, config, description: Description, progress: bool) -> Store:
    """The store of a raw folder, named by the files' names, sizes and dates and by the recipe."""
    data = config.data
    files = {path: path.stat() for path in decisive_files(raw) if path.is_file()}
    listing = [(str(p.relative_to(raw)), s.st_size, s.st_mtime_ns) for p, s in files.items()]
    split = (list(data.fractions), data.split_seed)
    key = key_of([listing, description.to_json(), *split, FORMAT])
    folder = cache_folder("stores", key)
    with locked(folder):
        if is_store(folder):
            return Store.open(folder)
        recipe = _recipe(data, raw, folder, description)
        require_sound(config, recipe, progress, config.model.depth)
        return prepare(recipe, processes=data.processes or None, progress=progress)


def require_sound(config, recipe: Recipe, progress: bool, downsamplings: int) -> None:
    """Verifies a raw folder before a store is made of it; warnings are told.

    downsamplings: how many times networks will halve the volumes; 0 where that is open.
    Raises UserError where `verify` finds errors.
    """
    if is_store(recipe.target):  # which then are told by the store's own checks
        return
    raw = recipe.raw
    report = _verified(config, raw, recipe.description, progress, downsamplings)
    lists = f"--mode=verify --input={raw} with this --config lists them all"
    if not report.ok:
        first = report.faults[0]
        raise UserError(
            f"{raw}: {report.count('error')} faults, the first in {first.file}: {first.message}; "
            f"{lists}"
        )
    if progress and report.faults:  # warnings
        first = report.faults[0]
        print(
            f"{raw}: warnings ({len(report.faults)}), the first of {first.file}: {first.message}; "
            f"{lists}",
            file=sys.stderr,
        )


def verify_for(config, raw: Path | str, progress: bool = True) -> Report:
    """All faults of a raw folder as training on it with a config judges them."""
    description = _description(Path(raw), config.data)
    return _verified(config, raw, description, progress, config.model.depth)


def _verified(
    config, raw: Path | str, description: Description, progress: bool, downsamplings: int
) -> Report:
    data = config.data
    return verify(
        raw,
        description,
        downsamplings=downsamplings,
        fractions=tuple(data.fractions),
        seed=data.split_seed,
        processes=data.processes or None,
        progress=progress,
    )


def recipe_of(config, raw: Path | str, target: Path | str, fold: int = 0) -> Recipe:
    """The recipe of a raw folder's store, as a config has it; `fold` draws another split."""
    if fold < 0:
        raise UserError(f"--fold={fold}: give 0 or more")
    if not Path(raw).is_dir():
        raise UserError(f"--input={raw}: no such folder")
    return _recipe(config.data, raw, target, _description(Path(raw), config.data), fold)


def _recipe(
    data, raw: Path | str, target: Path | str, description: Description, fold: int = 0
) -> Recipe:
    return draw_up(
        raw,
        target,
        description,
        fractions=tuple(data.fractions),
        seed=data.split_seed,
        fold=fold,
    )


def parse_shard(text: str) -> Shard:
    """ "i/n", the i-th (from 0) of n shares of the volumes."""
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        index, count = -1, 0
    if not 0 <= index < count:
        raise UserError(f"--shard={text}: give i/n with i from 0 to n-1")
    return index, count


def _description(raw: Path, data) -> Description:
    """What the data say they are; the config where they are silent, and where it overrides."""
    fallback = description_of(data)
    stated = describe(raw, fallback)
    kept = {field: getattr(fallback, field) for field in data.override}
    return Description(**{**vars(stated), **kept})
