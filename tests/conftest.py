"""Four virtual CPU devices, compiled programs kept between runs, a cache folder of one's own."""

import os
from pathlib import Path

# Four devices and sums to rounding: also where there is an accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

# Before anything is computed: JAX counts its devices once.
jax.config.update("jax_num_cpu_devices", 4)
# Most of the tests' time is compiling, and a second run compiles nothing.
jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache/cyclesh-tests/xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory):
    """Tests neither read nor fill the user's phantoms, stores and judges; children inherit it.

    The processes of `-n` share it, for this run alone: some children are killed while they write.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cyclesh-cache"
    (folder / "compiled").mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CYCLESH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    """The folder of the small store, to be read only."""
    from tiny_store import write_store

    return write_store(tmp_path_factory.mktemp("stores") / "balls")


@pytest.fixture
def own_cache(tmp_path, monkeypatch, shared_cache):
    """A cache that no other test fills; what is compiled is shared all the same."""
    folder = tmp_path / "own-cache"
    folder.mkdir()
    (folder / "compiled").symlink_to(shared_cache / "compiled")
    monkeypatch.setenv("CYCLESH_CACHE", str(folder))
    return folder


@pytest.fixture
def strict_ranks():
    """Adding arrays of different rank is an error: a forgotten axis fails instead of broadcasting.

    Not for whole networks, whose biases are meant to broadcast.
    """
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def double_precision():
    """Arrays may be float64: rounding then takes nothing across the kink of a ReLU."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


# What takes longest begins first, so that no process of `-n` is left with it at the end.
LONGEST = (
    "test_resume.py",
    "test_sharding.py",
    "test_end_to_end.py",
    "test_reproduce.py",
    "test_docs.py",
    "test_forecast.py",
    "test_distributed.py",
    "test_notebook.py",
    "test_faults.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [*LONGEST, item.path.name].index(item.path.name))
