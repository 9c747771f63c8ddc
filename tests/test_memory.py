"""What a computation may take and took, as the system tells it."""

import fnmatch
import os
import subprocess
import sys

import numpy as np
import pytest

from cyclesh.runtime import heap, memory
from cyclesh.runtime.heap import MEMORY

GB = 10**9
LIBC = """
import ctypes
from cyclesh.runtime import memory
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
"""
TUNABLES = [f"glibc.malloc.{setting}" for setting in MEMORY.split()]


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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_steps_take_the_same_places_of_the_heap_whatever_is_allocated_meanwhile():
    program = """
import ctypes, sys
from cyclesh.runtime import memory
libc = ctypes.CDLL(None)
for name in ("malloc", "sbrk"):
    getattr(libc, name).argtypes, getattr(libc, name).restype = (ctypes.c_size_t,), ctypes.c_void_p
libc.memalign.argtypes, libc.memalign.restype = (ctypes.c_size_t,) * 2, ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
BLOCK = 200 * 2**20
if sys.argv[1] == "kept":
    memory.tidy_heap(BLOCK, blocks=2)
before, taken = libc.sbrk(0), set()
for step in range(12):
    blocks = []
    for small in (100, 3000, 2**20):
        libc.malloc(small)  # never freed: a step leaves something behind
        if len(blocks) < 2:
            blocks.append(libc.memalign(64, BLOCK))
    taken.update(blocks)
    for block in blocks[:: 1 if step % 2 else -1]:
        libc.free(block)
print(libc.sbrk(0) - before, len(taken))
"""
    # A thread that keeps small pieces may keep the end of a block's place: not what is tested here.
    shared = [setting for setting in TUNABLES if "tcache" not in setting]
    env = os.environ | {"GLIBC_TUNABLES": ":".join([*shared, "glibc.malloc.tcache_count=0"])}
    grown, places = {}, {}
    for word in ("kept", "none"):
        command = [sys.executable, "-c", program, word]
        told = subprocess.check_output(command, env=env, text=True).split()
        grown[word], places[word] = map(int, told)
    assert grown["kept"] == 0 and places["kept"] == 2
    assert places["none"] > 2 and grown["none"] > 3 * 200 * 2**20  # how many is up to the addresses


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_holes_of_the_heap_are_filled_and_take_no_memory():
    program = (
        LIBC
        + """
blocks = [libc.malloc(100_000) for _ in range(4000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[::2]:  # 200 MB in pieces
    libc.free(block)
memory.tidy_heap(2**20)
print(int(memory.STATUS.read_text().split("VmRSS:")[1].split()[0]))
print(any(min(blocks) < libc.malloc(90_000) < max(blocks) for _ in range(100)))
"""
    )
    kept = [setting for setting in TUNABLES if "hugetlb" not in setting]
    assert memory.ONE_ARENA in kept
    several = [setting.replace("arena_max=1", "arena_max=2") for setting in kept]
    held, reused = {}, {}
    for name, settings in {"one": kept, "several": several}.items():
        env = os.environ | {"GLIBC_TUNABLES": ":".join(settings)}
        told = subprocess.check_output([sys.executable, "-c", program], env=env, text=True)
        held[name], reused[name] = told.split()
    assert reused == {"one": "False", "several": "True"}
    assert int(held["one"]) < int(held["several"]) + 20_000  # kB: a page or two for each piece


@pytest.mark.parametrize(
    ("found", "platforms", "plugins", "kept"),
    [
        ((), None, ["jax_plugins"], True),
        (("/dev/nvidia0",), None, ["jax_plugins"], False),
        (("/dev/vfio/0",), "tpu,cpu", ["libtpu"], False),
        (("/dev/nvidia0",), "cpu", ["jax_plugins"], True),
        (("/dev/nvidia0",), None, [], True),
    ],
)
def test_the_heap_is_kept_where_no_accelerator_is(monkeypatch, found, platforms, plugins, kept):
    started = []
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    if platforms:
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(heap, "find_spec", lambda name: name in plugins)
    monkeypatch.setattr(heap, "glob", lambda pattern: fnmatch.filter(found, pattern))
    monkeypatch.setattr(heap.os, "execv", lambda *words: started.append(words))
    heap.keep_memory()
    assert bool(started) == kept and ("GLIBC_TUNABLES" in os.environ) == kept
    os.environ.pop("GLIBC_TUNABLES", None)
