"""Where the networks of a run come from: the runs that `init` names, its parents."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from cyclesh import state
from cyclesh.data.pipeline import Subset
from cyclesh.data.store import Store, Volume
from cyclesh.errors import UserError, first_line
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.state import Players
from cyclesh.workdir import CHECKPOINTS, CONFIG, DATA, read_as, read_json

PRETRAINED_BY = {"seg": "pretrain_seg_epochs", "gen": "pretrain_gan_epochs"}


def generation_of(config: ConfigDict, workdir: Path) -> int:
    """0 for a run that begins with fresh networks; else one more than the latest of its parents.

    It is kept in data.json, since parents may be gone when a run is resumed.
    """
    own, parents = workdir / DATA, [Path(parent) for parent in config.init.values() if parent]
    if own.is_file():
        return read_json(own).get("generation", int(bool(parents)))
    known = [parent / DATA for parent in parents if (parent / DATA).is_file()]
    of_parents = [read_json(path).get("generation", 0) for path in known]
    return 1 + max(of_parents, default=0) if parents else 0


def order_seed(seed: int, generation: int) -> int:
    """Of the order of the volumes and of how each is augmented.

    A run that goes on from networks of another one of its seed has another order: else they would
    meet every volume again just as they did there.
    """
    if not generation:
        return seed
    return int(np.random.SeedSequence([seed, generation]).generate_state(1)[0])


def load_init(config: ConfigDict, shapes: Players) -> dict[str, dict]:
    """By player, the networks that a run starts from: of the workdirs that `init` names.

    Raises UserError: as `load_tree`, and for networks that no step has trained yet.
    """
    which, trees = config.init_checkpoint, {}
    for name, workdir in config.init.items():
        if workdir:
            shape = getattr(shapes, name)
            trees[name] = load_tree(Path(workdir), which, name, shape, trained=True)
    return trees


def check_init(config: ConfigDict, workdir: Path, shapes: Players) -> None:
    """Raises UserError where a run that is yet to begin lacks networks that `init` names."""
    if not (workdir / CONFIG).exists():
        load_init(config, shapes)


def check_taught(config: ConfigDict) -> None:
    """Raises UserError where a phase would learn from networks that nothing has trained.

    From segmentors by shape consistency, from generators by the volumes that segmentors read;
    networks that move in a phase learn together.
    """
    known = {name for name, parent in config.init.items() if parent}
    for phase in state.make_phases(config):
        known |= set(phase.moves)
        needed = {"seg"} if phase.shape_weight else set()
        needed |= {"gen"} if phase.reads_translations and "seg" in phase.moves else set()
        for name in sorted(needed - known):
            raise UserError(
                f"--config: {phase.name} would learn from {name} networks that nothing has "
                f"trained; set schedule.{PRETRAINED_BY[name]} to 1 or more, or give init.{name}"
            )


def check_parents(config: ConfigDict, workdir: Path, store: Store, subset: Subset) -> None:
    """Raises UserError where networks that `init` names are not of this run's data.

    They may not have learned from volumes that it holds out, by the files' hashes: else its scores
    on these would tell nothing. And both runs must have the same order of modalities and, for
    segmentors, of structures.
    """
    if (workdir / CONFIG).exists():  # a run that began has been looked at
        return
    described = store.description.to_json()
    kept = {v.source.sha256_image for v in volumes_of(subset)}
    held_out = {v.source.sha256_image: v.id for v in store.volumes if v.split != "extra"}
    for name, parent in config.init.items():
        path = Path(parent) / DATA
        if not parent or not path.is_file():
            continue
        data = read_json(path)
        with read_as(path, "what a run was trained on"):
            for key in ("modalities", *(["structures"] if name == "seg" else [])):
                there, here = list(data["description"][key]), list(described[key])
                if there != here and sorted(there) == sorted(here):
                    raise UserError(f"{key} are in another order than this run's: {here}")
            hashes = {*images_behind(Path(parent), store)} - kept
            seen = sorted(held_out[image] for image in hashes if image in held_out)
        if seen:
            raise UserError(
                f"--config.init.{name}={parent}: was trained on {', '.join(seen[:3])}"
                f"{' and others' if len(seen) > 3 else ''}, which this run holds out; train it "
                "with the same split, seed and data.real"
            )


def images_behind(parent: Path, store: Store) -> dict[str, str]:
    """{hash: id} of the volumes that a run's networks have learned from.

    Where it did not keep them, those of its ids in the same store; nothing of another one.
    """
    path = parent / DATA
    data = read_json(path) if path.is_file() else {}
    if "images" in data or data.get("sha256") != store.sha256:
        return data.get("images", {})
    with read_as(path, "what a run was trained on"):
        ids = {name for kind in ("real", "source") for own in data[kind].values() for name in own}
    return {v.source.sha256_image: v.id for v in store.volumes if v.id in ids}


def volumes_of(subset: Subset) -> list[Volume]:
    """All volumes that training reads, once each."""
    found = (v for kind in (subset.real, subset.source) for own in kind.values() for v in own)
    return list(dict.fromkeys(found))


def load_tree(workdir: Path, which: str, name: str, shapes: dict, trained: bool = False) -> dict:
    """One player's networks of a run's checkpoint, which must have the architecture of ``shapes``.

    Args:
      which: "best", "last" or a step.
      name: "gen", "disc" or "seg".
      trained: refuse networks that are still as they were drawn.
    Raises: UserError where there is no such checkpoint or it does not fit.
    """
    with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
        step = checkpoints.resolve(which)
        learned = checkpoints.meta(step).get("learned", Players._fields)
        if not (workdir / CHECKPOINTS / str(step) / name).is_dir():
            raise UserError(
                f"{workdir}: checkpoint {step} has no {name} networks; name another run"
            )
        try:
            fits = checkpoints.holds(step, name, shapes)
            tree = checkpoints.restore(step, **{name: shapes})[name] if fits else None
        except Exception as error:  # orbax raises whatever its file formats raise
            raise UserError(
                f"{workdir}: checkpoint {step} cannot be read ({first_line(error)}); "
                "try the last one: --checkpoint=last, or for networks to start from "
                "--config.init_checkpoint=last"
            ) from None
    if tree is None:
        raise UserError(
            f"{workdir}: checkpoint {step} holds other {name} networks than the config says; "
            "filters, depth and structures must be the same"
        )
    if trained and name not in learned:
        raise UserError(
            f"{workdir}: checkpoint {step} was saved before its {name} networks were trained; "
            "train that run further"
        )
    return tree
