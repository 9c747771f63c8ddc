"""Raw folder -> store, by a recipe.

Every volume is written atomically into STORE.partial/ and gets its entry last, so a run that is
interrupted goes on where it was, several shards can share the work, and STORE itself appears by one
rename when everything is there.
"""

import json
import os
import shutil
from dataclasses import asdict
from functools import partial

import numpy as np

from cyclesh.data import store as stores
from cyclesh.data.crop import crop_case
from cyclesh.data.nifti import file_sha256, read_image, read_labels
from cyclesh.data.raw import Case
from cyclesh.data.recipe import ENTRIES, WHOLE, Recipe, Shard
from cyclesh.data.store import Source, Store, as_affine, volume_paths
from cyclesh.data.workers import in_parallel
from cyclesh.errors import UserError, disk_trouble
from cyclesh.files import replacing, write_text


def prepare(
    recipe: Recipe,
    *,
    processes: int | None = None,
    progress: bool = True,
    shard: Shard = WHOLE,
) -> Store | None:
    """Makes (or finds finished) the store of a recipe; `processes` defaults to one for each core.

    `shard=(i, n)` does the i-th of n shares; the shard that finds everything complete finishes the
    store, the others return None.
    Raises UserError for faulty input, when the store exists and was made from other inputs, and
    when a file is in its way.
    """
    mine, target = recipe.share(shard), recipe.target
    if stores.is_store(target):
        return recipe.finished()
    try:
        for folder in (stores.VOLUMES, ENTRIES):
            (recipe.building / folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:  # a file where a folder has to be
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
    try:
        in_parallel(
            partial(_make, recipe), mine, title="prepare", processes=processes, progress=progress
        )
        entries = [recipe.entry(case) for case in recipe.cases]
        if None not in entries:
            _finish(recipe, recipe.manifest(entries))
            return Store.open(target)
    except OSError:
        if not stores.is_store(target):
            raise
    if not stores.is_store(target):
        return None
    # Another shard, or another run with the same inputs, has finished meanwhile: the folder under
    # construction has gone, or ours is one too many.
    shutil.rmtree(recipe.building, ignore_errors=True)
    return recipe.finished()


def describe(store: Store) -> str:
    """How many volumes a store has, and what its crop cuts off."""
    cuts = [(share, name, v.id) for v in store.volumes for name, share in v.cut.items() if share]
    if not cuts:
        return f"{len(store.volumes)} volumes"
    share, name, case = max(cuts)
    return (
        f"{len(store.volumes)} volumes; the crop cuts structures of "
        f"{len({case for *_, case in cuts})}, at most {100 * share:.1f} % of one ({name} of {case})"
    )


def _make(recipe: Recipe, case: Case) -> None:
    """One case's files, its entry last; nothing when they are there already. Runs in a worker."""
    files, entry = recipe.files(case), recipe.entry(case)
    if entry is not None and entry["read"] == [file_sha256(path) for path in files]:
        return
    recipe.entry_path(case).unlink(missing_ok=True)  # else it would vouch for files half replaced
    image, *labels = read_image(files[0]), *map(read_labels, files[1:])
    crop = crop_case(image, labels[0], case, recipe.description, *labels[1:])
    paths = volume_paths(recipe.building, case.id)
    for path, array in zip(paths, (crop.image, crop.label), strict=True):
        with replacing(path) as unfinished, open(unfinished, "wb") as file:
            np.save(file, array)
    source = Source(
        image=case.image.relative_to(recipe.raw).as_posix(),
        label=case.label.relative_to(recipe.raw).as_posix(),
        shape_xyz=image.grid.shape[::-1],
        affine=as_affine(image.grid.affine),
        dtype=image.dtype,
        sha256_image=image.sha256,
        sha256_label=labels[0].sha256,
    )
    entry = {
        "recipe": recipe.key(case),
        "read": [scan.sha256 for scan in (image, *labels)],
        "window": list(crop.window),
        "affine": as_affine(crop.grid.affine),
        "source": asdict(source),
        "cut": crop.cut,
    }
    write_text(recipe.entry_path(case), json.dumps(entry))


def _finish(recipe: Recipe, manifest: dict) -> None:
    """The manifest, then the rename that makes the store exist, then the scaffolding's removal."""
    building, target = recipe.building, recipe.target
    write_text(building / stores.MANIFEST, json.dumps(manifest, indent=1))
    try:
        os.rename(building, target)
    except OSError as error:
        if stores.is_store(target) or disk_trouble(error):
            raise
        raise UserError(
            f"{target}: cannot be put in place ({error.strerror}); name a new folder"
        ) from None
    shutil.rmtree(target / ENTRIES, ignore_errors=True)
    wanted = {path for v in manifest["volumes"] for path in volume_paths(target, v["id"])}
    for path in {*(target / stores.VOLUMES).iterdir(), *target.glob("*.partial-*")} - wanted:
        path.unlink(missing_ok=True)
