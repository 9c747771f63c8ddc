"""Imports run one way, and the folders of plumbing know nothing of one another."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import cyclesh

ROOT = Path(cyclesh.__file__).parent
FOLDERS = ("data", "runtime", "scoring")

# From the ground up: a module imports what lies below it. Flat modules that are not named make,
# score or use a trained model: they lie in `USERS` and may import one another, not in circles.
USERS = "users"
LAYERS = (
    ("cores", "errors", "files"),
    ("cache", "domains", "methods"),
    ("ops",),
    ("halo",),
    ("networks", "losses", *FOLDERS),
    ("settings", "state"),
    ("homes",),
    ("step",),
    (USERS,),
    ("loop",),
    ("judges",),
    ("train",),
    ("evidence",),
    ("experiments",),
    ("main",),
)
# data/ and scoring/ run in worker processes, which must start quickly and own no device.
NO_JAX = ("data", "scoring")
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}


def module_names() -> dict[str, Path]:
    """{"step": path, "data.store": path, ...}; packages count as their __init__."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts:
            names[".".join(parts)] = path
    return names


MODULES = module_names()


def imported(source: str) -> set[str]:
    """Dotted names of all that a source file imports, wherever in it; members included."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def own_imports(source: str, modules=MODULES) -> set[str]:
    """The modules of this package among them: the longest name that is one."""
    found = set()
    for name in imported(source):
        assert not name.startswith("."), f"{name}: import by full name"
        first, _, rest = name.partition(".")
        if first != "cyclesh":
            continue
        parts = rest.split(".")
        candidates = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        found |= {next((name for name in candidates if name in modules), "")} - {""}
    return found


def layer(module: str) -> int:
    """The height of a module; a folder is one layer."""
    top = module.partition(".")[0]
    return next((n for n, names in enumerate(LAYERS) if top in names), LAYERS.index((USERS,)))


def allowed(importer: str, target: str) -> bool:
    """Whether one module may import another."""
    if layer(importer) != layer(target):
        return layer(target) < layer(importer)
    tops = importer.partition(".")[0], target.partition(".")[0]
    among_users = layer(importer) == LAYERS.index((USERS,))
    return among_users or (tops[0] == tops[1] and tops[0] in (*FOLDERS, "evidence"))


def text_of(module: str) -> str:
    return MODULES[module].read_text(encoding="utf-8")


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    wrong = [t for t in own_imports(text_of(module)) if not allowed(module, t)]
    assert not wrong, f"{module} must not import {', '.join(wrong)}"


def test_nothing_goes_round_in_circles():
    graph = {module: own_imports(text_of(module)) for module in MODULES}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(NO_JAX)])
def test_worker_processes_do_not_load_jax(module):
    roots = {name.partition(".")[0] for name in imported(text_of(module))}
    assert not roots & JAX


def test_there_are_no_drawers_for_odds_and_ends():
    drawers = {"util", "utils", "helper", "helpers", "common", "misc", "tools"}
    assert not [m for m in MODULES if drawers & set(m.split("."))]


def test_the_folders_are_these():
    assert {path.parent.name for path in ROOT.glob("*/*.py")} == {*FOLDERS, "evidence"}


def test_the_rules_can_be_broken():
    known = {"errors", "step", "train", "run", "results", "data", "data.store", "scoring.dice"}
    source = """
import numpy, jax.numpy as jnp
from cyclesh import __version__, step
from cyclesh.data import store as stores
from cyclesh.scoring.dice import dice
def later():
    import cyclesh.train
"""
    assert own_imports(source, known) == {"step", "data.store", "scoring.dice", "train"}
    assert {"jax.numpy", "numpy", "cyclesh.train"} <= imported(source)
    with pytest.raises(AssertionError, match="by full name"):
        own_imports("from .data import store")
    for importer, target in (
        ("step", "train"),
        ("errors", "domains"),
        ("data.store", "scoring.dice"),
        ("runtime.logs", "data.store"),
        ("scoring.dice", "state"),
        ("networks", "losses"),
        ("state", "settings"),
        ("run", "train"),
    ):
        assert not allowed(importer, target)
    for importer, target in (
        ("data.prepare", "data.store"),
        ("results", "run"),
        ("train", "results"),
        ("main", "errors"),
        ("state", "runtime.pool"),
    ):
        assert allowed(importer, target)
