"""What runs share, and who may write it."""

import errno
import fcntl
import multiprocessing
import threading
from functools import partial

import pytest

from cyclesh.cache import held, locked
from cyclesh.errors import UserError


def without_locks(handle, operation):
    raise OSError(errno.ENOSYS, "Function not implemented")


@pytest.mark.parametrize("lock", [locked, partial(held, busy="busy")])
def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path, monkeypatch, lock):
    monkeypatch.setattr(fcntl, "flock", without_locks)
    done = []
    with lock(tmp_path / "store"):
        done.append(True)
    assert done


def hold(path, ready, end):
    with locked(path):
        ready.set()
        end.wait(60)


def test_another_process_holds_it(tmp_path):
    """And who may not wait is told so."""
    spawn = multiprocessing.get_context("spawn")
    ready, end = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(tmp_path / "store", ready, end))
    other.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match="in use"), held(tmp_path / "store", "in use", 0.2):
        pass
    threading.Timer(0.3, end.set).start()
    with locked(tmp_path / "store"):  # waits
        assert end.is_set()
    other.join()
