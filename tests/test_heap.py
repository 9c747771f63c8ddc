"""How memory is kept: where programs are told, and what a tidied heap does for steps."""

import fnmatch
import os
import subprocess
import sys

import pytest
from processes import LIBC

from cyclesh.runtime import heap

TUNABLES = [f"glibc.malloc.{setting}" for setting in heap.MEMORY.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_steps_take_the_same_places_of_the_heap_whatever_is_allocated_meanwhile():
    program = """
import ctypes, sys
from cyclesh.runtime import heap
libc = ctypes.CDLL(None)
for name in ("malloc", "sbrk"):
    getattr(libc, name).argtypes, getattr(libc, name).restype = (ctypes.c_size_t,), ctypes.c_void_p
libc.memalign.argtypes, libc.memalign.restype = (ctypes.c_size_t,) * 2, ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
BLOCK = 200 * 2**20
if sys.argv[1] == "kept":
    heap.tidy_heap(BLOCK, blocks=2)
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
from cyclesh.runtime import heap, memory
blocks = [libc.malloc(100_000) for _ in range(4000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[::2]:  # 200 MB in pieces
    libc.free(block)
heap.tidy_heap(2**20)
print(int(memory.STATUS.read_text().split("VmRSS:")[1].split()[0]))
print(any(min(blocks) < libc.malloc(90_000) < max(blocks) for _ in range(100)))
"""
    )
    kept = [setting for setting in TUNABLES if "hugetlb" not in setting]
    assert f"glibc.malloc.{heap.ONE_ARENA}" in kept
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
