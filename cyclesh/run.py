"""A run: its parts, built once from config and data; its states and how checkpoints hold them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import jax
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cyclesh import state
from cyclesh.data.augment import Augment
from cyclesh.data.locate import Roster
from cyclesh.data.pipeline import Loader, Subset, choose_subset
from cyclesh.data.store import Store
from cyclesh.domains import DOMAINS
from cyclesh.errors import UserError
from cyclesh.methods import translates
from cyclesh.parents import (
    generation_of,
    load_init,
    load_tree,
    order_seed,
)
from cyclesh.runtime import sharding
from cyclesh.runtime.checkpoint import Checkpoints
from cyclesh.runtime.devices import loader_threads
from cyclesh.runtime.progress import Stretch
from cyclesh.state import Phase, Players, TrainState


@dataclass(frozen=True)
class Run:
    """All that the loop needs."""

    config: ConfigDict
    workdir: Path
    store: Store
    loader: Loader
    # Called with the mesh if the depth of volumes is spread, else None (`sharding.depth_mesh`).
    make_nets: Callable[[Mesh | None], Players]
    optimisers: Players
    phases: tuple[Phase, ...]
    epoch_steps: int
    generation: int  # of its networks, see `generation_of`

    @cached_property
    def nets(self) -> Players:
        """The networks for whole volumes."""
        return self.make_nets(None)

    @property
    def total_steps(self) -> int:
        """Steps of the whole schedule, or the cap if that is less."""
        total = state.steps_in(self.config, self.epoch_steps)
        return min(total, self.config.steps or total)

    @property
    def stretches(self) -> list[Stretch]:
        """The phases with their steps, as far as the run goes."""
        found, left = [], self.total_steps
        for phase in self.phases:
            steps = min(phase.epochs * self.epoch_steps, left)
            found += [Stretch(phase.name, steps, phase.work)] if steps else []
            left -= steps
        return found

    @cached_property
    def mesh(self) -> Mesh | None:
        """The devices that train it together; None for one. Raises UserError (`make_mesh`)."""
        config, depth = self.config, self.store.description.shape[0]
        return sharding.make_mesh(config.compute, config.batch, depth)

    def batches(self, first_step: int) -> Iterator[dict]:
        """The loader's batches from a step on, and the seed of the step's draws.

        With a mesh, each process loads its share of them and they come as arrays over all devices.
        """
        process, processes = sharding.data_share(self.mesh)
        loader = replace(
            self.loader, process=process, processes=processes, threads=loader_threads()
        )
        seed = {"seed": sharding.copied(self.config.seed, self.mesh)}
        for batch in loader.batches(first_step):
            yield sharding.spread_batch(batch, self.mesh) | seed

    def phase_at(self, step: int) -> Phase:
        """The phase that makes step ``step`` (from 0)."""
        end = 0
        for phase in self.phases:
            end += phase.epochs * self.epoch_steps
            if step < end:
                return phase
        return self.phases[-1]

    def has_learned(self, name: str, step: int) -> bool:
        """Whether a player was trained at all before ``step``, here or where `init` took it."""
        return bool(self.config.init[name]) or any(
            name in self.phase_at(start).moves for start in range(0, max(step, 1), self.epoch_steps)
        )

    def learned(self, params: Players, step: int) -> tuple[dict | None, dict | None]:
        """The generators and segmentors after ``step`` steps; those that learned nothing: None."""
        gen, seg = (self.has_learned(name, step) for name in ("gen", "seg"))
        return params.gen if gen else None, params.seg if seg else None

    def validates_after(self, step: int) -> bool:
        """Whether ``step`` steps end in a validation: every so many epochs, and at the end."""
        every = max(1, round(self.config.log.validate_epochs * self.epoch_steps))
        return step % every == 0 or step == self.total_steps

    def keeps_after(self, step: int) -> bool:
        """Whether the checkpoint after ``step`` steps is one to keep on request."""
        every = self.config.log.keep_every_steps
        return bool(every) and step % every == 0

    def modality(self, domain: str) -> str:
        """The name of a domain's modality."""
        return self.store.description.by_domain[domain]

    def new_state(self, key: Array) -> TrainState:
        """A fresh state: a pure function of ``key``."""
        shape = self.store.description.shape
        return state.init_state(key, self.nets, self.optimisers, self.config, shape)

    @cached_property
    def state_shapes(self) -> TrainState:
        """The state as shapes, without making any array."""
        return jax.eval_shape(self.new_state, jax.random.key(0))

    def state_shardings(self) -> TrainState | None:
        """Where the state's arrays live; None where one device has them all."""
        if self.mesh is None:
            return None
        return sharding.state_shardings(self.state_shapes, self.mesh)


def build_run(config: ConfigDict, workdir: Path, store: Store) -> Run:
    """Networks, optimisers and loader for a config on a store.

    Raises UserError where the store cannot give what the config asks for, or has nothing to
    validate or to test on.
    """
    check_held_out(store)
    subset = subset_of(config, store)
    augment = Augment(**config.augment.to_dict())
    generation = generation_of(config, Path(workdir))
    epoch_steps = config.schedule.epoch_steps or subset.epoch_steps(config.batch)
    return Run(
        config=config,
        workdir=Path(workdir),
        store=store,
        loader=Loader(store, subset, augment, config.batch, order_seed(config.seed, generation)),
        make_nets=partial(state.make_networks, config, store.description.classes),
        optimisers=state.make_optimisers(config, epoch_steps),
        phases=state.make_phases(config),
        epoch_steps=epoch_steps,
        generation=generation,
    )


def check_held_out(store: Store | Roster) -> None:
    """Raises UserError where a modality has nothing to validate or to test on."""
    for modality in store.description.modalities:
        for split in ("val", "test"):
            if not store.select(modality, split):
                raise UserError(
                    f"{store.root}: no {split} volumes of {modality}; training needs some of each "
                    "modality, see split in dataset.json"
                )


def subset_of(config: ConfigDict, store: Store | Roster) -> Subset:
    """The training volumes; none of them only to be translated where nothing is."""
    subset = choose_subset(store, config.data.real, config.data.synthetic, config.seed)
    return subset if translates(config) else replace(subset, source=subset.real)


def real_subjects(run: Run) -> list[str]:
    """How many `data.real` leaves, a line for each modality that it names."""
    lines = []
    for domain in DOMAINS:
        name, kept = run.modality(domain), run.loader.subset.real[domain]
        if name in dict(run.config.data.real):
            of = {volume.subject for volume in run.store.select(name, "train")}
            left = {volume.subject for volume in kept}
            lines.append(f"{name}: {len(left)} of {len(of)} real training subjects in use")
    return lines


def cut_off(run: Run) -> list[str]:
    """Which phases a cap on steps leaves out, a line for each."""
    lines, begin = [], 0
    for phase in run.phases:
        if begin >= run.total_steps:
            lines.append(f"steps={run.total_steps}: {phase.name} would begin after step {begin}")
        begin += phase.epochs * run.epoch_steps
    return lines


def as_trees(current: TrainState) -> dict:
    """What a checkpoint holds, by name: each player's networks, and what only training needs."""
    trees = {name: tree for name, tree in current.params._asdict().items() if tree is not None}
    opt = {name: tree for name, tree in current.opt._asdict().items() if tree is not None}
    return trees | {"training": {"opt": opt, "pools": current.pools, "step": current.step}}


def from_trees(trees: dict) -> TrainState:
    """Inverse of `as_trees`."""
    training = trees["training"]
    return TrainState(
        training["step"],
        Players(*(trees.get(name) for name in Players._fields)),
        Players(*(training["opt"].get(name) for name in Players._fields)),
        training["pools"],
    )


def first_state(run: Run, checkpoints: Checkpoints) -> tuple[Callable[[], TrainState], int]:
    """The newest readable checkpoint, or a fresh state with the trees that `init` names.

    Returns what gives the state, all files having been read, and its step.
    """
    shapes, where = run.state_shapes, run.state_shardings()
    if where is not None:
        shapes = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            where,
        )
    found = checkpoints.restore_newest(**as_trees(shapes))
    if found:
        return lambda: from_trees(found[1]), found[0]
    taken = load_init(run.config, shapes.params)

    def fresh() -> TrainState:
        new = jax.jit(run.new_state, out_shardings=where)(jax.random.key(run.config.seed))
        return new._replace(params=new.params._replace(**taken))

    return fresh, 0


def load_params(run: Run, which: str) -> Players:
    """All networks of a checkpoint of the run; None for those it has no use for."""
    return Players(
        *(
            None if tree is None else load_tree(run.workdir, which, name, tree)
            for name, tree in run.state_shapes.params._asdict().items()
        )
    )
