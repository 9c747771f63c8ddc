"""A trained model as inference needs it: networks on volumes of any size, and what they expect."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cyclesh import __version__, networks, settings, state, tiles
from cyclesh.data.description import Description
from cyclesh.domains import DOMAINS, other, per_domain
from cyclesh.errors import UserError
from cyclesh.parents import load_tree
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.memory import free_memory_bytes, is_too_large
from cyclesh.weights import WEIGHTS, read_tree
from cyclesh.workdir import CHECKPOINTS, CONFIG, DATA, EXPORT, read_as, read_config, read_json

DEPLOYED = ("gen", "seg")  # discriminators are of no use once training is over
FORMAT = 1  # of an export's config.json
SECTIONS = ("model", "compute")  # of the config: all that makes the networks
PROVENANCE = ("method", "seed", "checkpoint", "data")  # the last is the store's sha256

# Memory of a forward pass, as XLA plans it: ten float32 a voxel and filter, and some slack.
BYTES_A_VOXEL_AND_FILTER = 44


@dataclass(frozen=True)
class Deployed:
    """A trained model. Parameters are read when they are first used, and only those used."""

    config: ConfigDict  # of an export: the sections that make networks
    players: tuple[str, ...]  # the kinds of networks that it has: "gen", "seg"
    description: Description
    windows: Mapping[str, tuple[float, float]]  # modality -> median window of its training volumes
    provenance: Mapping[str, object]  # which model this is: JSON-able
    name: str  # for messages: the folder
    read_tree: Callable[[str, dict], dict]  # (player, shapes) -> its networks' parameters
    pass_voxels: int = 0  # largest volume that is translated or segmented in one pass

    def has(self, player: str) -> bool:
        """Whether the model has networks of this kind ("gen", "seg")."""
        return player in self.players

    def translate(self, target: str, volume: np.ndarray) -> np.ndarray:
        """A volume of the other modality as one of `target`; (z, y, x) in [-1, 1], float32."""
        tile = self._generator_tile(volume.shape)
        return tiles.blended(self._one_pass("gen", target), volume, tile, self._multiple)

    def segment(self, modality: str, volume: np.ndarray) -> np.ndarray:
        """Probabilities of all classes, (z, y, x, classes) float32, of (z, y, x) in [-1, 1]."""
        tile = self._segmentor_tile(volume.shape)
        return tiles.exact(
            self._one_pass("seg", modality), volume, tile, self._halo, self._multiple
        )

    def in_one_pass(self, player: str, shape: tiles.Shape) -> bool:
        """Whether networks of this kind take a volume of (z, y, x) voxels whole."""
        tile = self._generator_tile(shape) if player == "gen" else self._segmentor_tile(shape)
        return tile == tuple(tiles.rounded_up(n, self._multiple) for n in shape)

    def seam(self, target: str, volume: np.ndarray, fake: np.ndarray) -> np.ndarray:
        """What tiles changed: voxels' distance between `fake`, their result, and one pass.

        The pass covers as much as a tile and lies half-way between tiles. (z, y, x), in the units
        of `fake`.
        """
        box = tiles.sample_box(volume.shape, self._generator_tile(volume.shape), self._multiple)
        return tiles.gap(self._one_pass("gen", target), volume, fake, box, self._multiple)

    def other_modality(self, modality: str) -> str:
        """The one that is not `modality`."""
        return self.description.by_domain[other(self._domain(modality))]

    def _domain(self, modality: str) -> str:
        return DOMAINS[self.description.modalities.index(modality)]

    def _one_pass(self, player: str, modality: str) -> Callable[[np.ndarray], np.ndarray]:
        tree = self.trees(player)[self._domain(modality)]

        def apply(volume: np.ndarray) -> np.ndarray:
            try:
                return np.asarray(self._compiled[player](tree, volume))
            except jax.errors.JaxRuntimeError as error:
                if not is_too_large(error):
                    raise
                raise self._too_large(player, volume.shape) from None

        return apply

    def _too_large(self, player: str, shape: tiles.Shape) -> UserError:
        """What to do where memory does not hold a pass: a smaller one, should there be one."""
        size = "x".join(map(str, shape))
        if replace(self, pass_voxels=1).in_one_pass(player, shape):
            advice = "there is no smaller one: free memory, or use a machine with more"
        else:
            advice = f"give --pass_voxels={math.prod(shape) // 2} or less"
        return UserError(f"memory does not hold a pass of {size} voxels; {advice}")

    @property
    def _multiple(self) -> int:
        return 2**self.config.model.depth

    @property
    def _halo(self) -> int:
        return tiles.rounded_up(tiles.receptive_radius(self.config.model.depth), self._multiple)

    def _generator_tile(self, shape: tiles.Shape) -> tiles.Shape:
        smallest = self.description.shape
        return tiles.compact_tile(shape, self.pass_voxels, smallest, self._multiple)

    def _segmentor_tile(self, shape: tiles.Shape) -> tiles.Shape:
        return tiles.cheapest_tile(shape, self.pass_voxels, self._halo, self._multiple)

    @cached_property
    def _nets(self) -> state.Players:
        return state.make_networks(self.config, self.description.classes)

    @cached_property
    def _compiled(self) -> dict[str, Callable]:
        def forward(net, finish, tree, volume):
            return finish(net.apply({"params": tree}, volume[None, ..., None])[0])

        finish = {"gen": lambda v: v[..., 0], "seg": jax.nn.softmax}
        return {
            player: jax.jit(partial(forward, getattr(self._nets, player), finish[player]))
            for player in finish
        }

    def trees(self, player: str) -> dict:
        """The parameters of one kind of network: {"A": tree, "B": tree}."""
        if player not in self._read:
            self._read[player] = self.read_tree(player, tree_shapes(getattr(self._nets, player)))
        return self._read[player]

    @cached_property
    def _read(self) -> dict[str, dict]:
        return {}


def tree_shapes(net) -> dict:
    """Shapes of the parameters of both domains' networks."""
    shapes = networks.parameter_shapes(net)
    return per_domain(lambda _: shapes)


def load(folder: Path | str, which: str = "best", pass_voxels: int = 0) -> Deployed:
    """The model of a workdir or of an export; `which` is best, last or a step.

    pass_voxels: 0 is as many as half of the free memory holds.
    Raises UserError when the folder holds no trained model, or none of that step.
    """
    folder = Path(folder)
    model = (_exported if EXPORT in read_json(folder / CONFIG) else _trained)(folder, which)
    if pass_voxels:
        return replace(model, pass_voxels=pass_voxels)
    return replace(model, pass_voxels=voxels_that_fit(model.config, free_memory_bytes() // 2))


def _trained(folder: Path, which: str) -> Deployed:
    """The model of a run at a checkpoint."""
    config, data = read_config(folder), read_json(folder / DATA)
    with read_as(folder / DATA, "a description of training data"):
        description, windows = _data_of(data)
        sha256 = data["sha256"]
    with Checkpoints(folder / CHECKPOINTS, read_only=True) as opened:
        step = opened.resolve(which)
        learned = opened.meta(step).get("learned", DEPLOYED)
    return Deployed(
        config=config,
        players=tuple(p for p in state.players_in_use(config) if p in DEPLOYED and p in learned),
        description=description,
        windows=windows,
        provenance={
            "method": config.method,
            "seed": config.seed,
            "checkpoint": step,
            "data": sha256,
        },
        name=str(folder),
        read_tree=partial(load_tree, folder, str(step)),
    )


def _exported(folder: Path, which: str) -> Deployed:
    """The model of an export, which holds one checkpoint."""
    path = folder / CONFIG
    entries = read_json(path)
    if entries[EXPORT] != FORMAT:
        raise UserError(f"{path}: is an export of format {entries[EXPORT]}; this reads {FORMAT}")
    with read_as(path, "an export's config"):
        description, windows = _data_of(entries)
        provenance = {key: entries["provenance"][key] for key in PROVENANCE}
        fields = {section: entries[section] for section in SECTIONS}
        config = settings.from_json(
            fields | {"method": provenance["method"], "data": {"shape": description.shape}}
        )
        settings.validate(config, SECTIONS)
        players = tuple(entries["networks"])
    if which not in ("best", "last", str(provenance["checkpoint"])):
        raise UserError(
            f"--checkpoint={which}: {folder} is an export of {provenance['checkpoint']}"
        )
    return Deployed(
        config=config,
        players=players,
        description=description,
        windows=windows,
        provenance=provenance,
        name=str(folder),
        read_tree=partial(read_tree, folder / WEIGHTS),
    )


def as_export(model: Deployed, precision: str) -> dict:
    """What `_exported` reads again, without any path or time."""
    config = settings.to_json(model.config)
    return {
        EXPORT: FORMAT,
        "cyclesh": __version__,
        "precision": precision,
        "networks": list(model.players),
        "provenance": {key: model.provenance[key] for key in PROVENANCE},
        "description": model.description.to_json(),
        "windows": {modality: list(window) for modality, window in model.windows.items()},
        **{section: config[section] for section in SECTIONS},
    }


def voxels_that_fit(config: ConfigDict, memory_bytes: float) -> int:
    """How large a volume one forward pass of either network can take."""
    number_bytes = jnp.dtype(config.compute.dtype).itemsize
    a_voxel = BYTES_A_VOXEL_AND_FILTER * config.model.filters * number_bytes / 4
    return int(memory_bytes / a_voxel)


def _data_of(entries: Mapping) -> tuple[Description, dict[str, tuple[float, float]]]:
    description = Description.from_json(entries["description"])
    windows = {m: (float(low), float(high)) for m, (low, high) in entries["windows"].items()}
    if set(windows) != set(description.modalities):
        raise ValueError(f"windows of {', '.join(windows)}")
    return description, windows
