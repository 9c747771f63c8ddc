"""One training step: the paper's alternation (section 3.6) as three pure updates.

Each loss takes the tree that it differentiates first, and every other player's parameters as
ordinary arguments. A network is frozen by not being the first argument, never by a flag.

1. G with S and D fixed:  L_GAN + lambda L_cyc + gamma L_shape  (Eq. 3; Eq. 2 on fakes only).
2. D with G fixed:        LSGAN on real volumes and on fakes drawn from the history pool.
3. S with G fixed:        cross-entropy on real, fake and reconstructed volumes.

One translation a step serves all three: the generators' update hands its fakes and
reconstructions on, so D and S see what G made before it moved. D and S are independent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cyclesh import losses
from cyclesh.domains import DOMAINS, Translation, Volumes, other, per_domain
from cyclesh.homes import Homes, Pair, in_turn
from cyclesh.runtime.pool import push_and_sample
from cyclesh.state import Phase, Players, TrainState


@dataclass(frozen=True)
class Weights:
    """The weights of Eq. 3 that do not change with the phase."""

    cycle: float  # lambda
    identity: float  # CycleGAN's identity loss; the paper has none
    disc: float  # of the discriminators' loss


def make_weights(config) -> Weights:
    return Weights(config.loss.cycle, config.loss.identity, config.loss.disc)


def translate(gen: Callable, params: dict, images: dict, homes: Homes = in_turn) -> Translation:
    """fake[d] = G_d(x of the other domain), rec[d] = G_d(fake of the other domain)."""
    made = homes(partial(_there_and_back, gen), (params,), images)
    return _by_domain(made)


def _there_and_back(gen: Callable, nets: Pair, image: Array) -> tuple[Array, Array]:
    fake = gen(nets.there, image)
    return fake, gen(nets.here, fake)


def _by_domain(made: dict[str, tuple[Array, Array]]) -> Translation:
    """What was made from each domain's volumes, by the domain that it looks like."""
    return Translation(
        fake=per_domain(lambda d: made[other(d)][0]), rec=per_domain(lambda d: made[d][1])
    )


def generator_loss(
    gen_params,
    disc_params,
    seg_params,
    apply: Players,
    source: dict,
    weights: Weights,
    gamma: float,
    homes: Homes = in_turn,
) -> tuple[Array, tuple[Translation, dict]]:
    """Eq. 3 as the generators see it. Aux: the translation, and the unweighted terms."""

    def at_home(gen: Pair, disc: Pair, seg: Pair | None, volumes: Volumes):
        image, label = volumes
        fake, rec = _there_and_back(apply.gen, gen, image)
        terms = {
            "adv": losses.least_squares(apply.disc(disc.there, fake), 1.0),
            "cycle": losses.l1(rec, image),
        }
        if gamma:
            terms["shape"] = losses.cross_entropy(apply.seg(seg.there, fake), label)
        if weights.identity:
            terms["identity"] = losses.l1(apply.gen(gen.here, image), image)
        return (fake, rec), terms

    parts = homes(at_home, (gen_params, disc_params, seg_params), source)
    terms = _added(parts)
    total = terms["adv"] + weights.cycle * terms["cycle"]
    if gamma:
        total = total + gamma * terms["shape"]
    if weights.identity:
        total = total + weights.identity * terms["identity"]
    return total, (_by_domain({d: made for d, (made, _) in parts.items()}), terms)


def discriminator_loss(
    disc_params,
    apply: Players,
    real: dict,
    fake: dict,
    weights: Weights,
    homes: Homes = in_turn,
) -> tuple[Array, dict]:
    """LSGAN: D_d(real) towards 1, D_d(fake) towards 0, summed over both domains and weighted."""

    def at_home(disc: Pair, images: tuple[Array, Array]):
        real, fake = images
        return (), {
            "real": losses.least_squares(apply.disc(disc.here, real), 1.0),
            "fake": losses.least_squares(apply.disc(disc.there, fake), 0.0),
        }

    images = per_domain(lambda d: (real[d].image, fake[other(d)]))
    terms = _added(homes(at_home, (disc_params,), images))
    return weights.disc * (terms["real"] + terms["fake"]), terms


def segmentor_loss(
    seg_params,
    apply: Players,
    real: dict,
    source: dict,
    made: Translation | None,
    reads: dict,
    homes: Homes = in_turn,
) -> tuple[Array, dict]:
    """Cross-entropy of S_A and S_B on each kind of volume that they read, weighted by ``reads``."""

    def at_home(seg: Pair, volumes: dict[str, Volumes]):
        # A pass a volume: three together fall out of a CPU core's cache, and take twice as long.
        reader = {"real": seg.here, "fake": seg.there, "rec": seg.here}
        return (), {
            kind: losses.cross_entropy(apply.seg(reader[kind], image), label)
            for kind, (image, label) in volumes.items()
        }

    def volumes_of(d: str) -> dict[str, Volumes]:
        # A synthetic volume keeps the labels of the one that it was made from.
        images = {"real": real[d].image}
        if made is not None:
            images |= {"fake": made.fake[other(d)], "rec": made.rec[d]}
        label = {"real": real[d].label, "fake": source[d].label, "rec": source[d].label}
        return {
            kind: Volumes(images[kind], label[kind]) for kind, weight in reads.items() if weight
        }

    terms = _added(homes(at_home, (seg_params,), per_domain(volumes_of)))
    return sum(reads[kind] * term for kind, term in terms.items()), terms


def _added(parts: dict[str, tuple[object, dict[str, Array]]]) -> dict[str, Array]:
    """Each term of the loss, over both domains."""
    return jax.tree.map(jnp.add, *(terms for _, terms in parts.values()))


def update(loss: Callable, tx: optax.GradientTransformation, params, opt, *args):
    """One optimiser step on ``loss(params, *args) -> (scalar, aux)``.

    Returns: params, opt, scalar, aux, and the global norm of the gradient.
    """
    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params, *args)
    updates, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt, value, aux, optax.tree.norm(grads)


def through_pools(pools: dict, fakes: dict, key: Array) -> tuple[dict, dict]:
    """Each domain's fakes into its history pool, and as many out of it: pools, fakes."""
    drawn = {
        d: push_and_sample(pools[d], fakes[d], jax.random.fold_in(key, i))
        for i, d in enumerate(DOMAINS)
    }
    return {d: drawn[d][0] for d in DOMAINS}, {d: drawn[d][1] for d in DOMAINS}


def applied(nets: Players) -> Players:
    """Each kind of network as a function of (parameters, volumes).

    Jitted, though a step is anyway: so it is traced once for a shape and not at each of the step's
    calls, which is most of a new process's way to its first step. XLA inlines it again.
    """
    return Players(*(jax.jit(lambda p, x, net=net: net.apply({"params": p}, x)) for net in nets))


def batch_shapes(batch: int, shape: tuple[int, int, int]) -> dict:
    """What a step reads (`make_step`), as shapes: ``batch`` volumes (z, y, x) of each domain."""
    size = (batch, *shape)
    volumes = Volumes(
        jax.ShapeDtypeStruct((*size, 1), jnp.float32), jax.ShapeDtypeStruct(size, jnp.uint8)
    )
    return {kind: per_domain(lambda _: tuple(volumes)) for kind in ("real", "source")}


def make_step(
    nets: Players,
    optimisers: Players,
    phase: Phase,
    weights: Weights,
    seed: int,
    skip_nonfinite: bool = False,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """The step of a phase: (state, batch) -> (state, metrics), pure, not yet jitted.

    A batch is {"real": {"A": Volumes, "B": Volumes}, "source": {"A": ..., "B": ...}}: ``real``
    volumes train S and D as what they are, ``source`` volumes are translated. They are the same
    volumes unless the data has source-only volumes (the paper's S2) or a limit on how many are
    translated.

    Metrics are float32 scalars named player/term; "total" is the weighted sum that is descended,
    "grad" the norm of its gradient. "finite" tells whether all of them are; with
    ``skip_nonfinite``, a step where they are not changes nothing but the step's number.
    """
    apply = applied(nets)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        real = {d: Volumes(*batch["real"][d]) for d in DOMAINS}
        source = {d: Volumes(*batch["source"][d]) for d in DOMAINS}
        gen, disc, seg = state.params
        opt, pools, made, metrics = state.opt, state.pools, None, {}

        def log(player, total, terms, norm):
            metrics.update({f"{player}/{name}": value for name, value in terms.items()})
            metrics[f"{player}/total"], metrics[f"{player}/grad"] = total, norm

        new = state.params
        if "gen" in phase.moves:
            args = (disc, seg, apply, source, weights, phase.shape_weight)
            new_gen, opt_gen, total, (made, terms), norm = update(
                generator_loss, optimisers.gen, gen, opt.gen, *args
            )
            new, opt = new._replace(gen=new_gen), opt._replace(gen=opt_gen)
            log("gen", total, terms, norm)
        elif phase.reads_translations:
            made = translate(apply.gen, gen, per_domain(lambda d: source[d].image))
        if "disc" in phase.moves:
            fakes = made.fake
            if pools:
                key = jax.random.fold_in(jax.random.key(seed), state.step)
                pools, fakes = through_pools(pools, fakes, key)
            args = (apply, real, fakes, weights)
            new_disc, opt_disc, total, terms, norm = update(
                discriminator_loss, optimisers.disc, disc, opt.disc, *args
            )
            new, opt = new._replace(disc=new_disc), opt._replace(disc=opt_disc)
            log("disc", total, terms, norm)
        if "seg" in phase.moves:
            args = (apply, real, source, made, phase.seg_reads)
            new_seg, opt_seg, total, terms, norm = update(
                segmentor_loss, optimisers.seg, seg, opt.seg, *args
            )
            new, opt = new._replace(seg=new_seg), opt._replace(seg=opt_seg)
            log("seg", total, terms, norm)
        metrics["finite"] = jnp.isfinite(sum(metrics.values()))
        after = TrainState(state.step + 1, new, opt, pools)
        if skip_nonfinite:
            unmoved = state._replace(step=after.step)
            after = jax.tree.map(partial(jnp.where, metrics["finite"]), after, unmoved)
        return after, metrics

    return step
