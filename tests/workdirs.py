"""What a workdir holds, for tests that compare two."""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from cyclesh.run import CHECKPOINTS


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
    return arrays


def without_times(rows: list[dict]) -> list[dict]:
    """Rows of metrics.jsonl but for the wall time."""
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]
