"""What a workdir holds, for tests that compare two."""

import re
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from cyclesh.runtime.logs import read_rows
from cyclesh.workdir import CHECKPOINTS


def arrays_of(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by its path in the tree."""
    arrays, here = {}, jax.sharding.SingleDeviceSharding(jax.devices()[0])
    folder = (workdir / CHECKPOINTS / str(step)).absolute()
    for item in ("gen", "disc", "seg", "training"):
        if not (folder / item).exists():  # the run has no such networks
            continue
        with ocp.StandardCheckpointer() as reader:
            stored = ocp.StandardCheckpointHandler().metadata(folder / item).tree
            shapes = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), stored
            )
            tree = reader.restore(folder / item, shapes)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            arrays[item + jax.tree_util.keystr(path)] = np.asarray(leaf)
    assert arrays, f"{folder}: no checkpoint"
    return arrays


def without_times(rows: list[dict]) -> list[dict]:
    """Rows of metrics.jsonl but for the wall time."""
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]


def trees_of(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """A checkpoint's networks, their moments and the pools: each as one vector."""
    parts: dict[str, list] = {}
    for path, array in arrays_of(workdir, step).items():
        tree = re.match(r".*?\['[AB]'\]|.*", path)[0]
        parts.setdefault(tree, []).append(np.ravel(array).astype(np.float64))
    return {tree: np.concatenate(arrays) for tree, arrays in parts.items()}


def require_same_but_for_rounding(workdir: Path, straight: Path, last: int) -> None:
    """Two runs that kept their first checkpoint differ as sums in another order do.

    After one step all agrees to 1e-5 of the norm: losses, both moments of Adam (the first is the
    gradient), networks and pools. In later ones a few values cross the kink of a ReLU, by which
    G's gradient moves by a thousandth and its moments, short as their memory is, by some hundredths
    (docs/reliability.md). So then it is the way that each network has gone since that is compared,
    to 1e-3 of it, and to 5e-2 for G.
    """
    rows, expected = (without_times(read_rows(w)) for w in (workdir, straight))
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        bounds = {"rel": 1e-5} if row["step"] == 1 else {"rel": 1e-2, "abs": 1e-3}
        assert row.pop("phase") == wanted.pop("phase")
        assert row == pytest.approx(wanted, **bounds), wanted["step"]
    first, begun = trees_of(workdir, 1), trees_of(straight, 1)
    assert first.keys() == begun.keys()
    for name, tree in begun.items():
        assert np.linalg.norm(first[name] - tree) <= 1e-5 * np.linalg.norm(tree), name
    ended = trees_of(workdir, last)
    for name, tree in trees_of(straight, last).items():
        if not name.startswith("training"):
            bound = 5e-2 if name.startswith("gen") else 1e-3
            way = np.linalg.norm(tree - begun[name])
            assert np.linalg.norm(ended[name] - tree) <= bound * way, name
