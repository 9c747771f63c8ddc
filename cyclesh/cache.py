"""What runs share: the phantom, prepared stores, judges, compiled programs.

All of it lies under $CYCLESH_CACHE (default ~/.cache/cyclesh), can be deleted while nothing runs,
and is named by a hash of what it was made from; of a raw folder, by its files' names, sizes and
dates.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

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
    """Only one process at a time makes ``path``; others wait and then find it made.

    On a file system without locks nobody waits: who is second makes it again.
    """
    with open(path.with_name(f"{path.name}.lock"), "w") as handle:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def held(path: Path, busy: str, patience_s: float = 3.0) -> Iterator[None]:
    """Only one process at a time; others raise UserError(``busy``). Gone with its process.

    After some patience: one that was just killed may not have ended yet.
    """
    with open(path.with_name(f"{path.name}.lock"), "w") as handle:
        give_up = time.monotonic() + patience_s
        while not _try_lock(handle):
            if time.monotonic() > give_up:
                raise UserError(busy)
            time.sleep(0.1)
        yield


def _try_lock(handle: IO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: there nobody is kept out
        return True
    return True
