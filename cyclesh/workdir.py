"""The small JSON files of a workdir or an export: read, mistakes in one line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_collections import ConfigDict

from cyclesh import settings
from cyclesh.errors import UserError, first_line

CONFIG, DATA, CHECKPOINTS = "config.json", "data.json", "checkpoints"
EXPORT = "export"  # the key of an export's config.json that a run's has not: the format's number


def read_config(workdir: Path) -> ConfigDict:
    """The config that a workdir was made with. Raises UserError where there is none."""
    path = Path(workdir) / CONFIG
    entries = read_json(path)
    if EXPORT in entries:
        raise UserError(
            f"{workdir}: is an export, which only translates and segments; name the run's workdir"
        )
    with read_as(path, "a config of this version"):
        config = settings.from_json(entries)
        settings.validate(config)
        return config


def read_json(path: Path) -> dict:
    """An object that a workdir or an export keeps. Raises UserError where it cannot be read."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        folder = path.parent
        raise UserError(f"{folder}: is no workdir (no {path.name}); train there first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it or train anew") from None
    if not isinstance(entries, dict):
        raise UserError(f"{path}: cannot be read (it holds no object); restore it or train anew")
    return entries


@contextmanager
def read_as(path: Path, what: str) -> Iterator[None]:
    """Whatever is wrong with a file's content becomes one line that names the file."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
        reason = first_line(error).removeprefix("--config: ")
        raise UserError(f"{path}: is not {what} ({reason})") from None
