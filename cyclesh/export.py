"""A trained model as a folder to pass on: weights.safetensors, config.json, README.md (model card).

`translate` and `segment` take it for a workdir and need nothing but the package.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cyclesh import settings
from cyclesh.card import model_card
from cyclesh.deployed import Deployed, as_export, load
from cyclesh.errors import UserError
from cyclesh.results import RESULTS
from cyclesh.weights import WEIGHTS, to_bytes
from cyclesh.workdir import CONFIG, DATA, EXPORT, read_as, read_config, read_json

CARD = "README.md"
FILES = {WEIGHTS, CONFIG, CARD}


def export(
    workdir: Path | str, target: Path | str, checkpoint: str = "best", half: bool = False
) -> int:
    """Writes the folder `target`, whole or not at all; returns its size in bytes.

    Args:
      checkpoint: best, last or a step.
      half: weights as float16, of half the size, instead of float32. Networks compute as before.
    Raises UserError where there is no trained model, or `target` holds anything but an export.
    """
    workdir, target = Path(workdir), Path(target).absolute()
    if target.is_symlink():  # what is built beside it takes its place by a rename
        target = target.resolve()
    _require_free(target)
    config = settings.to_json(read_config(workdir))
    model = load(workdir, checkpoint)
    precision = "float16" if half else "float32"
    card = model_card(model, config, read_json(workdir / DATA), _scores(workdir, model), precision)
    files = {
        WEIGHTS: to_bytes({player: model.trees(player) for player in model.players}, precision),
        CONFIG: (json.dumps(as_export(model, precision), indent=2) + "\n").encode(),
        CARD: card.encode(),
    }
    _publish(files, target)
    return sum(map(len, files.values()))


def _scores(workdir: Path, model: Deployed) -> dict | None:
    """results.json when it is about this checkpoint."""
    if not (workdir / RESULTS).exists():
        return None
    results = read_json(workdir / RESULTS)
    with read_as(workdir / RESULTS, "the results of a run; score it again with --mode=evaluate"):
        step = results["checkpoint"]["step"]
    return results if step == model.provenance["checkpoint"] else None


def _require_free(target: Path) -> None:
    """Refuses a place that holds anything but an export, which would be replaced."""
    if target.exists() and not target.is_dir():
        raise UserError(f"--output={target}: is a file; name a folder")
    held = {path.name for path in target.iterdir()} if target.exists() else set()
    ours = held == FILES and EXPORT in read_json(target / CONFIG)
    if held and not ours:
        raise UserError(f"--output={target}: is no export; name a new or an empty folder")


def _publish(files: Mapping[str, bytes], target: Path) -> None:
    """Builds the folder beside its place and puts it there; an older export goes."""
    partial, old = (
        target.with_name(f".{target.name}.{w}-{os.getpid()}") for w in ("partial", "old")
    )
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            (partial / name).write_bytes(content)
        if target.exists():
            os.rename(target, old)
        os.rename(partial, target)
    except OSError as error:
        raise UserError(f"--output={target}: cannot be written ({error.strerror})") from None
    finally:
        if old.exists() and not target.exists():
            os.rename(old, target)
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)
