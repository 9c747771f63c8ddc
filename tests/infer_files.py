"""A workdir with a model that is known by hand, and scans of known anatomy on any grid."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
from scan_files import BALLS
from tiny_runs import random_tree, tiny_config, tree_of

from cyclesh import settings, state
from cyclesh.domains import per_domain
from cyclesh.runtime.checkpoint import Checkpoints

STEP = 7
CENTRE_MM = np.array([6.0, -4.0, 9.0])  # of the ball in every scan here, RAS+
CORE_MM, SHELL_MM = 5.0, 10.0  # radii
LEVELS = {"ct": (-300, 100, 350), "mr": (40, 300, 150)}  # background, shell, core
# Axes of a scan as columns, in RAS+ mm: voxel (x, y, z) steps.
DIRECTIONS = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1, 1]),
    "PIR": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
}


def rotation(degrees: float, axis: int) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.eye(3)
    i, j = (a for a in range(3) if a != axis)
    turn[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return turn


DIRECTIONS["oblique"] = rotation(25, 0) @ rotation(-15, 2) @ DIRECTIONS["LPS"]


def affine_of(direction: str, spacing_xyz, shape_xyz, middle_mm=(0.0, 0, 0)) -> np.ndarray:
    """The affine of a grid whose middle is at `middle_mm`."""
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS[direction] * np.asarray(spacing_xyz, float)
    affine[:3, 3] = middle_mm - affine[:3, :3] @ ((np.asarray(shape_xyz) - 1) / 2)
    return affine.astype(np.float32).astype(float)  # as a NIfTI stores it


def anatomy(affine: np.ndarray, shape_xyz, centre_mm=CENTRE_MM) -> np.ndarray:
    """Class indices (x, y, z): a shell (1) about a core (2)."""
    index = np.indices(shape_xyz).reshape(3, -1)
    world = (affine[:3, :3] @ index).T + affine[:3, 3]
    away = np.linalg.norm(world - centre_mm, axis=1).reshape(shape_xyz)
    return np.where(away < CORE_MM, 2, np.where(away < SHELL_MM, 1, 0)).astype(np.uint8)


def intensities(classes: np.ndarray, modality: str) -> np.ndarray:
    """Float voxels with a little noise, so that nothing is constant."""
    noise = np.random.default_rng(0).normal(0, 5, classes.shape)
    return np.choose(classes, LEVELS[modality]) + noise


def write_scan(
    path: Path,
    modality: str = "ct",
    direction: str = "LPS",
    spacing_xyz=(2.0, 2, 2),
    shape_xyz=(24, 22, 26),
    dtype=np.int16,
) -> Path:
    """A NIfTI of the ball."""
    affine = affine_of(direction, spacing_xyz, shape_xyz)
    voxels = intensities(anatomy(affine, shape_xyz), modality).round().astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def threshold_segmentor(tree: dict) -> dict:
    """Parameters of a segmentor that names a voxel's structure by its intensity alone.

    The first convolutions carry relu(x) and relu(-x), the others pass them on through the skip,
    and class i's logit exceeds that of the class before where x exceeds the threshold between.
    """
    zero = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), tree)
    zero["encode0a"]["Conv_0"]["kernel"][1, 1, 1, 0] = (1, -1)
    zero["encode0b"]["Conv_0"]["kernel"][1, 1, 1] = np.eye(2)
    zero["decode0a"]["Conv_0"]["kernel"][1, 1, 1, 2:] = np.eye(2)
    zero["decode0b"]["Conv_0"]["kernel"][1, 1, 1] = np.eye(2)
    low, high, sharp = -0.2, 0.45, 60.0  # half-way between LEVELS["ct"] in the window -500..500
    zero["out"]["kernel"][0, 0, 0] = sharp * np.outer((1, -1), (0, 1, 2))
    zero["out"]["bias"][:] = -sharp * np.array((0, low, low + high))
    return zero


def write_workdir(folder: Path, method: str = "joint", **meta) -> Path:
    """What training leaves of a run: the segmentors know CT by its values; generators at random."""
    config = tiny_config(method)
    config.model.seg_leak = 0.0  # the segmentors are written by hand, of relu(x) and relu(-x)
    nets = state.make_networks(config, BALLS.classes)
    segmentor = threshold_segmentor(tree_of(nets.seg))
    trees = {
        "gen": random_tree(per_domain(lambda _: tree_of(nets.gen)), seed=1),
        "seg": per_domain(lambda _: segmentor),
    }
    used = {name: trees[name] for name in trees if name in state.players_in_use(config)}
    folder.mkdir(parents=True)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(STEP, jax.tree.map(jnp.asarray, used), {"step": STEP, **meta}, 0.5)
    (folder / "config.json").write_text(json.dumps(settings.to_json(config)))
    data = {
        "description": BALLS.to_json(),
        "windows": {"ct": [-500, 500], "mr": [20, 330]},
        "sha256": "0" * 64,
    }
    (folder / "data.json").write_text(json.dumps(data))
    return folder
