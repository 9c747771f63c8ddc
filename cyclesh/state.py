"""Everything that a training step changes, and everything built from the config to change it."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from cyclesh import networks, ops
from cyclesh.domains import DOMAINS, per_domain
from cyclesh.methods import translates
from cyclesh.runtime import pool, schedules


class Players(NamedTuple):
    """One entry for each kind of network; used for modules, parameters and optimisers alike."""

    gen: object
    disc: object
    seg: object


class TrainState(NamedTuple):
    """step: int32; params and opt: Players; pools: {"A": Pool, "B": Pool}.

    A player's params are {"A": tree, "B": tree}. Players that a run has no use for are None (a
    baseline has no generators), and pools are empty where no discriminator learns.
    """

    step: Array
    params: Players
    opt: Players
    pools: dict[str, pool.Pool]


@dataclass(frozen=True)
class Phase:
    """A stretch of the run with its own movers: pre-training, or the method itself."""

    name: str
    moves: tuple[str, ...]
    epochs: int
    seg_reads: dict[str, float]  # weight of each kind of volume in the segmentors' loss
    shape_weight: float  # gamma of Eq. 3

    @property
    def reads_translations(self) -> bool:
        """Whether S reads what G makes."""
        return bool(self.seg_reads["fake"] or self.seg_reads["rec"])

    @property
    def work(self) -> float:
        """Roughly, a step's arithmetic in forward passes of G or S: a backward one counts as two.

        G's update takes two passes forward and back, and one of S if gamma is not 0; S's one for
        each kind of volume; where G does not move, its two passes are forward ones.
        """
        reads = [kind for kind, weight in self.seg_reads.items() if weight and "seg" in self.moves]
        if "gen" in self.moves:  # to the other domain and back, and S on the way if gamma is not 0
            return 6 + (3 if self.shape_weight else 0) + 3 * len(reads)
        return 3 * len(reads) + (2 if set(reads) - {"real"} else 0)


def make_phases(config) -> tuple[Phase, ...]:
    """The run's phases in order, those of zero epochs left out (paper 4.2).

    Networks are pre-trained only if the method uses them and, unless `init_pretrain`, `init` does
    not give them (G counts as given only with D, where D moves). Where the method's gamma is 0, so
    is that of G's pre-training.
    """
    loss, schedule = config.loss, config.schedule
    real_only = {"real": 1.0, "fake": 0.0, "rec": 0.0}
    reads = {kind: loss[f"seg_{kind}"] for kind in real_only}
    moves = set(config.moves)
    segments = "seg" in moves or bool(loss.shape)
    given = {name for name, workdir in config.init.items() if workdir and not config.init_pretrain}
    seg_given = "seg" in given
    gan_given = "gen" in given and ("disc" in given or "disc" not in moves)
    seg_epochs = schedule.pretrain_seg_epochs if segments and not seg_given else 0
    gan_epochs = schedule.pretrain_gan_epochs if translates(config) and not gan_given else 0
    gan_shape = schedule.pretrain_gan_shape if loss.shape else 0.0
    phases = (
        Phase("pretrain_seg", ("seg",), seg_epochs, real_only, 0.0),
        Phase("pretrain_gan", ("gen", "disc"), gan_epochs, real_only, gan_shape),
        Phase(
            config.method,
            tuple(config.moves),
            schedule.constant_epochs + schedule.decay_epochs,
            reads,
            loss.shape,
        ),
    )
    return tuple(phase for phase in phases if phase.epochs)


def steps_in(config, epoch_steps: int) -> int:
    """Steps of all phases, whatever caps them."""
    return sum(phase.epochs for phase in make_phases(config)) * epoch_steps


def players_in_use(config) -> tuple[str, ...]:
    """The networks that exist in a run: movers of any phase, those they need, and `init`'s."""
    phases = make_phases(config)
    names = {name for phase in phases for name in phase.moves}
    names |= {name for name, workdir in config.init.items() if workdir}
    if any(phase.reads_translations for phase in phases):
        names.add("gen")
    if any(phase.shape_weight for phase in phases):
        names.add("seg")
    return tuple(name for name in Players._fields if name in names)


def make_networks(config, classes: int, mesh: Mesh | None = None) -> Players:
    """The three modules (each serves both domains) for volumes of ``classes`` labels.

    mesh: devices over which the depth of volumes is spread, or None where each holds them whole.
    """
    model, compute = config.model, config.compute
    conv = partial(
        networks.Conv,
        dtype=compute.dtype,
        lowering=ops.resolve_lowering(compute.lowering, compute.save_memory),
        mesh=mesh,
    )
    common = {"filters": model.filters, "remat": compute.remat}
    if model.generator == "unet":
        gen = networks.UNet(
            1,
            conv=conv,
            depth=model.depth,
            norm_epsilon=model.norm_epsilon,
            out_activation=jnp.tanh,
            mesh=mesh,
            **common,
        )
    elif model.generator == "resnet":
        gen = networks.ResNetGenerator(
            blocks=model.residual_blocks,
            conv=conv,
            norm_epsilon=model.norm_epsilon,
            dtype=compute.dtype,
            **common,
        )
    else:
        raise ValueError(f"model.generator={model.generator!r}")
    seg = networks.UNet(
        classes,
        conv=conv,
        depth=model.depth,
        pooling=True,
        activation=partial(nn.leaky_relu, negative_slope=model.seg_leak),
        mesh=mesh,
        **common,
    )
    widths = tuple(factor * model.filters for factor in model.disc_widths) + (1,)
    strides = tuple(model.disc_strides)
    disc = networks.PatchDiscriminator(
        widths, strides, conv, model.disc_leak, model.norm_epsilon, mesh
    )
    return Players(gen, disc, seg)


def make_rates(config, epoch_steps: int) -> Players:
    """Each player's learning rate as a function of that player's own update count."""
    phases, schedule = make_phases(config), config.schedule

    def rate(name: str) -> optax.Schedule:
        optim, moves = config.optim[name], name in config.moves
        return schedules.constant_then_linear(
            optim.rate,
            schedule.constant_epochs * epoch_steps if moves else 0,
            schedule.decay_epochs * epoch_steps if moves else 0,
            pretrain_rate=optim.pretrain_rate or optim.rate,
            pretrain_updates=epoch_steps
            * sum(phase.epochs for phase in phases[:-1] if name in phase.moves),
        )

    return Players(*map(rate, Players._fields))


def make_optimisers(config, epoch_steps: int) -> Players:
    """Adam for each player, over both domains' trees together (as CycleGAN does)."""
    rates = make_rates(config, epoch_steps)

    def adam(name: str) -> optax.GradientTransformation:
        optim = config.optim[name]
        chain = [optax.adam(getattr(rates, name), b1=optim.b1, b2=optim.b2, eps=optim.eps)]
        if config.optim.clip_norm:
            chain.insert(0, clip_to(config.optim.clip_norm))
        return optax.chain(*chain)

    return Players(*map(adam, Players._fields))


def clip_to(most: float) -> optax.GradientTransformationExtraArgs:
    """Scale gradients down to a global norm of ``most``, where they have more.

    As `optax.clip_by_global_norm`, but the norm is given as ``norm``: the gradients at hand may be
    a part of them.
    """

    def clip(grads, opt, params=None, *, norm: Array, **_):
        scale = jnp.minimum(1.0, most / norm)
        return jax.tree.map(lambda grad: scale * grad, grads), opt

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), clip)


def init_state(
    key: Array, nets: Players, optimisers: Players, config, shape: tuple[int, int, int]
) -> TrainState:
    """A fresh state for training volumes of ``shape`` (z, y, x); a pure function of ``key``.

    Every network starts from a key of its own: generators that share their start would stay
    mirror images of each other for long.
    """
    used, model = players_in_use(config), config.model

    def gan_std(_: int) -> float:
        return model.gan_init_std

    seg_std = partial(networks.scaled_std, gain=model.seg_init_gain)
    stds = Players(gen=gan_std, disc=gan_std, seg=seg_std)

    def init(index: int, name: str) -> dict | None:
        if name not in used:
            return None
        keys = per_domain(lambda d: jax.random.fold_in(key, 2 * index + DOMAINS.index(d)))
        return per_domain(
            lambda d: networks.draw_parameters(getattr(nets, name), keys[d], getattr(stds, name))
        )

    params = Players(*(init(i, name) for i, name in enumerate(Players._fields)))
    opt = Players(
        *(
            None if tree is None else tx.init(tree)
            for tx, tree in zip(optimisers, params, strict=True)
        )
    )
    size, pools = config.loss.pool_size, {}
    if "disc" in used and size:
        pools = per_domain(
            lambda d: pool.make_pool(size, config.batch, shape, config.compute.dtype)
        )
    return TrainState(jnp.zeros((), jnp.int32), params, opt, pools)


def count_parameters(tree) -> int:
    """Number of scalars in a tree of arrays (or of shapes)."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
