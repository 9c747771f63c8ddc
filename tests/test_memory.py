"""What a computation may take and took, as the system tells it."""

import subprocess
import sys

import numpy as np
import pytest
from processes import LIBC

from cyclesh.runtime import memory

GB = 10**9


def test_free_memory_is_the_least_of_machine_and_job(tmp_path, monkeypatch):
    for name, text in {
        "MEMINFO": "MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n",
        "CGROUP_LIMIT": "6000000000",
        "CGROUP_USED": "1000000000",
    }.items():
        monkeypatch.setattr(memory, name, tmp_path / name)
        (tmp_path / name).write_text(text)
    assert memory.free_memory_bytes() == 4_000_000 * 1024
    (tmp_path / "CGROUP_USED").write_text("3000000000")
    assert memory.free_memory_bytes() == 3_000_000_000
    (tmp_path / "CGROUP_LIMIT").write_text("max")
    assert memory.free_memory_bytes() == 4_000_000 * 1024


@pytest.mark.skipif(not memory.STATUS.exists(), reason="told by /proc only")
def test_a_process_s_peak_is_its_own_and_not_that_of_who_started_it():
    held = np.ones(GB // 8)  # 1 GB, which a child's ru_maxrss would count as well
    assert memory.peak_memory_bytes() > GB
    ask = "from cyclesh.runtime import memory; print(memory.peak_memory_bytes())"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert 0.05 * GB < int(told.stdout) < 0.8 * held.nbytes


def test_a_peak_stays_when_what_made_it_is_gone():
    program = """
import numpy as np
from cyclesh.runtime.memory import peak_memory_bytes
print(peak_memory_bytes())
held = np.ones(10**9 // 8)
print(peak_memory_bytes())
del held
print(peak_memory_bytes())
"""
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    before, during, after = map(int, told.split())
    assert during > before + 0.9 * GB
    assert after == pytest.approx(during, rel=0.01)  # the kernel counts pages by the batch


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_what_a_process_holds_is_without_what_is_free():
    program = (
        LIBC
        + """
from cyclesh.runtime import memory
print(memory.held_bytes())
pieces = [libc.malloc(100_000) for _ in range(3001)]  # each too small for a place of its own
for piece in pieces:
    ctypes.memset(piece, 1, 100_000)
print(memory.held_bytes())
for piece in pieces[:-1]:  # the last holds the end of the heap
    libc.free(piece)
print(memory.held_bytes())
"""
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    before, during, after = map(int, told.split())
    assert during > before + 0.29 * GB
    assert after < before + 0.01 * GB
