"""A trained model as inference needs it: networks on volumes of any size, and what they expect."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cyclesh import networks, settings, state, tiles
from cyclesh.data.description import Description
from cyclesh.domains import DOMAINS, other, per_domain
from cyclesh.errors import UserError
from cyclesh.run import CHECKPOINTS, CONFIG, DATA, load_tree
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.memory import free_memory_bytes

# Memory of a forward pass, as XLA plans it: ten float32 a voxel and filter, and some slack.
BYTES_A_VOXEL_AND_FILTER = 44


@dataclass(frozen=True)
class Deployed:
    """A trained model. Parameters are read when they are first used, and only those used."""

    config: ConfigDict
    description: Description
    windows: Mapping[str, tuple[float, float]]  # modality -> median window of its training volumes
    provenance: Mapping[str, object]  # which model this is: JSON-able
    name: str  # for messages: the folder
    read_tree: Callable[[str, dict], dict]  # (player, shapes) -> its networks' parameters
    pass_voxels: int  # largest volume that is translated or segmented in one pass

    def has(self, player: str) -> bool:
        """Whether the model has networks of this kind ("gen", "seg")."""
        return player in state.players_in_use(self.config)

    def translate(self, target: str, volume: np.ndarray) -> np.ndarray:
        """A volume of the other modality as one of `target`; (z, y, x) in [-1, 1], float32."""
        apply = self._one_pass("gen", target)
        tile = tiles.compact_tile(
            volume.shape, self.pass_voxels, self.description.shape, self._multiple
        )
        return tiles.blended(apply, volume, tile, self._multiple)

    def segment(self, modality: str, volume: np.ndarray) -> np.ndarray:
        """Probabilities of all classes, (z, y, x, classes) float32, of (z, y, x) in [-1, 1]."""
        apply = self._one_pass("seg", modality)
        radius = tiles.receptive_radius(self.config.model.depth)
        halo = tiles.rounded_up(radius, self._multiple)
        tile = tiles.cheapest_tile(volume.shape, self.pass_voxels, halo, self._multiple)
        return tiles.exact(apply, volume, tile, halo, self._multiple)

    def other_modality(self, modality: str) -> str:
        """The one that is not `modality`."""
        return self.description.modalities[DOMAINS.index(other(self._domain(modality)))]

    def _domain(self, modality: str) -> str:
        return DOMAINS[self.description.modalities.index(modality)]

    def _one_pass(self, player: str, modality: str) -> Callable[[np.ndarray], np.ndarray]:
        tree = self._trees(player)[self._domain(modality)]

        def apply(volume: np.ndarray) -> np.ndarray:
            try:
                return np.asarray(self._compiled[player](tree, volume))
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                size = "x".join(map(str, volume.shape))
                raise UserError(
                    f"memory does not hold a pass of {size} voxels; give --pass_voxels="
                    f"{volume.size // 2} or less"
                ) from None

        return apply

    @property
    def _multiple(self) -> int:
        return 2**self.config.model.depth

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

    def _trees(self, player: str) -> dict:
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
    """The model of a workdir; `which` is best, last or a step.

    pass_voxels: 0 is as many as half of the free memory holds.
    Raises UserError when the folder holds no trained model, or none of that step.
    """
    folder = Path(folder)
    config, data = _read_config(folder / CONFIG), _read_data(folder / DATA)
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir():
        raise UserError(f"{folder}: has no checkpoints yet; let it train first")
    with Checkpoints(checkpoints, read_only=True) as opened:
        step = opened.resolve(which)
    return Deployed(
        config=config,
        description=data["description"],
        windows=data["windows"],
        provenance={
            "workdir": str(folder),
            "method": config.method,
            "seed": config.seed,
            "checkpoint": step,
            "data": data["sha256"],
        },
        name=str(folder),
        read_tree=partial(load_tree, folder, str(step)),
        pass_voxels=pass_voxels or voxels_that_fit(config, free_memory_bytes() // 2),
    )


def voxels_that_fit(config: ConfigDict, memory_bytes: float) -> int:
    """How large a volume one forward pass of either network can take."""
    number_bytes = jnp.dtype(config.compute.dtype).itemsize
    a_voxel = BYTES_A_VOXEL_AND_FILTER * config.model.filters * number_bytes / 4
    return int(memory_bytes / a_voxel)


def _read_config(path: Path) -> ConfigDict:
    entries = _read_json(path)
    try:
        config = settings.from_json(entries)
        settings.validate(config)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a config of this version ({_line(error)})") from None
    return config


def _read_data(path: Path) -> dict:
    entries = _read_json(path)
    try:
        description = Description.from_json(entries["description"])
        windows = {m: (low, high) for m, (low, high) in entries["windows"].items()}
        return {"description": description, "windows": windows, "sha256": entries["sha256"]}
    except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{path}: does not describe the training data ({_line(error)})") from None


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: is no workdir (no {path.name}); train first") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
