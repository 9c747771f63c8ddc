"""Networks' parameters as one safetensors file: {"gen/A/encode0a/Conv_0/kernel": array, ...}.

A name is the kind of network, its domain, then its place in the Flax tree. The file holds nothing
else (no time, no path), so equal parameters are equal bytes.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cyclesh.errors import UserError

WEIGHTS = "weights.safetensors"


def to_bytes(trees: Mapping[str, Mapping], precision: str) -> bytes:
    """The file of {"gen": {"A": tree, "B": tree}, ...}, numbers rounded to `precision`.

    Args:
      precision: of the file, "float32" or "float16"; networks compute the same way with either.

    Raises UserError where a parameter is too large for it.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in flatten_dict(trees, sep="/").items()}
    largest = max(float(np.abs(array).max()) for array in arrays.values())
    if largest > float(np.finfo(precision).max):
        raise UserError(f"--half: a parameter of {largest:.3g} does not fit; export without it")
    return save({name: np.ascontiguousarray(a, precision) for name, a in arrays.items()})


def read_tree(path: Path, player: str, shapes: dict) -> dict:
    """One kind of network's parameters, float32, {"A": tree, "B": tree} like `shapes`.

    Raises UserError when the file is damaged or holds other networks.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name.startswith(f"{player}/")]  # noqa: SIM118
            found = {name: file.get_tensor(name).astype(np.float32) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); export it anew") from None
    wanted = flatten_dict({player: shapes}, sep="/")
    if _shapes(found) != _shapes(wanted):
        raise UserError(
            f"{path}: holds other {player} networks than its config says; export it anew"
        )
    return unflatten_dict(found, sep="/")[player]


def _shapes(arrays: Mapping) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in arrays.items()}
