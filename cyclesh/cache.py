"""What runs share: the phantom, prepared stores, judges, compiled programs.

All of it lies under $CYCLESH_CACHE (default ~/.cache/cyclesh), can be deleted at any time, and is
named by a hash of what it was made from, so nothing in it is ever stale.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cyclesh.errors import UserError


def cache_folder(*names: str) -> Path:
    """The absolute path of an entry of the cache; its parent folder exists afterwards."""
    root = Path(os.environ.get("CYCLESH_CACHE") or "~/.cache/cyclesh").expanduser().absolute()
    path = root.joinpath(*names)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{root}: the cache cannot be written ({error.strerror}); set CYCLESH_CACHE to a "
            "folder that can"
        ) from None
    return path


def key_of(content) -> str:
    """A short name for JSON-able content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time makes ``path``; others wait and then find it made."""
    with open(path.with_name(f"{path.name}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
