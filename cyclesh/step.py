"""One training step: the paper's alternation (section 3.6) as three pure updates.

Each loss takes the tree that it differentiates first, and every other player's parameters as
ordinary arguments. A network is frozen by not being the first argument, never by a flag.

1. G with S and D fixed:  L_GAN + lambda L_cyc + gamma L_shape  (Eq. 3; Eq. 2 on fakes only).
2. D with G fixed:        LSGAN on real volumes and on fakes drawn from the history pool.
3. S with G fixed:        cross-entropy on real, fake and reconstructed volumes.

One translation a step serves all three: the generators' update hands its fakes and
reconstructions on, so D and S see what G made before it moved. D and S are independent.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cyclesh import losses
from cyclesh.domains import Made, Volumes, per_domain
from cyclesh.homes import BOTH, Homes, Pair, pairs
from cyclesh.runtime.pool import push_and_sample
from cyclesh.state import Phase, Players, TrainState


@dataclass(frozen=True)
class Weights:
    """The losses' weights that do not change with the phase."""

    cycle: float  # lambda
    identity: float  # CycleGAN's identity loss; the paper has none
    disc: float  # of the discriminators' loss


def make_weights(config) -> Weights:
    return Weights(config.loss.cycle, config.loss.identity, config.loss.disc)


def there_and_back(gen: Callable, nets: Pair, image: Array) -> Made:
    """A volume's translation to the other domain, and that one's back home."""
    fake = gen(nets.there, image)
    return Made(fake, gen(nets.here, fake))


def translate(gen: Callable, nets: dict[str, Pair], source: dict[str, Volumes]) -> dict[str, Made]:
    """`there_and_back` of each home's volumes."""
    return {home: there_and_back(gen, nets[home], source[home].image) for home in source}


def volumes_at(homes: Homes, arrays: dict) -> dict[str, Volumes]:
    """One kind of a batch's volumes, of each home at hand."""
    return {home: Volumes(*pair) for home, pair in homes.volumes(arrays).items()}


def networks_at(homes: Homes, params: Players) -> Players:
    """All networks as each home at hand sees them."""
    return Players(*(pairs(homes, trees) for trees in params))


def generator_loss(
    gen: dict[str, Pair],
    disc: dict[str, Pair],
    seg: dict[str, Pair] | None,
    apply: Players,
    source: dict[str, Volumes],
    weights: Weights,
    gamma: float,
) -> tuple[Array, tuple[dict[str, Made], dict]]:
    """Eq. 3 as the generators see it, with CycleGAN's identity loss if ``weights`` has one.

        sum over homes of  (D(fake) - 1)^2 + lambda |rec - x| + gamma CE(S(fake), y)

    x, y are the home's volumes and labels; D and S are those of the domain that fake looks like.
    All dicts are by home, and so are those of the losses that follow.

    Returns: the loss, and (what the generators made, the unweighted terms summed over homes).
    """

    def at(home: str) -> tuple[Made, dict]:
        image, label = source[home]
        made = there_and_back(apply.gen, gen[home], image)
        terms = {
            "adv": losses.least_squares(apply.disc(disc[home].there, made.fake), 1.0),
            "cycle": losses.l1(made.rec, image),
        }
        if gamma:  # a fake keeps the anatomy, and so the labels, of the volume it was made from
            logits = apply.seg(seg[home].there, made.fake)
            terms["shape"] = losses.cross_entropy(logits, label)
        if weights.identity:
            terms["identity"] = losses.l1(apply.gen(gen[home].here, image), image)
        return made, terms

    halves = {home: at(home) for home in source}
    terms = _added(terms for _, terms in halves.values())
    total = terms["adv"] + weights.cycle * terms["cycle"]
    if gamma:
        total = total + gamma * terms["shape"]
    if weights.identity:
        total = total + weights.identity * terms["identity"]
    return total, ({home: made for home, (made, _) in halves.items()}, terms)


def discriminator_loss(
    disc: dict[str, Pair],
    apply: Players,
    real: dict[str, Volumes],
    fake: dict[str, Array],
    weights: Weights,
) -> tuple[Array, tuple[None, dict]]:
    """LSGAN: D_d(real) towards 1, D_d(fake) towards 0, summed over both domains and weighted.

    fake: by the home of the volumes that they were made from.
    """

    def at(home: str) -> dict:
        return {
            "real": losses.least_squares(apply.disc(disc[home].here, real[home].image), 1.0),
            "fake": losses.least_squares(apply.disc(disc[home].there, fake[home]), 0.0),
        }

    terms = _added(map(at, real))
    return weights.disc * (terms["real"] + terms["fake"]), (None, terms)


def segmentor_loss(
    seg: dict[str, Pair],
    apply: Players,
    real: dict[str, Volumes],
    source: dict[str, Volumes],
    made: dict[str, Made] | None,
    reads: dict[str, float],
) -> tuple[Array, tuple[None, dict]]:
    """Cross-entropy of S_A and S_B on each kind of volume that they read, weighted by ``reads``."""

    def at(home: str) -> dict:
        # A pass a volume: three together fall out of a CPU core's cache, and take twice as long.
        def term(kind: str) -> Array:
            network = seg[home].there if kind == "fake" else seg[home].here
            image, label = real[home]
            if kind != "real":
                image, label = getattr(made[home], kind), source[home].label
            return losses.cross_entropy(apply.seg(network, image), label)

        return {kind: term(kind) for kind, weight in reads.items() if weight}

    terms = _added(map(at, real))
    return sum(reads[kind] * term for kind, term in terms.items()), (None, terms)


def _added(halves: Iterable[dict[str, Array]]) -> dict[str, Array]:
    first, *rest = halves
    return {name: sum((half[name] for half in rest), term) for name, term in first.items()}


class Updated(NamedTuple):
    """What one player's update gives. ``params`` and ``opt`` are by home, where they live."""

    params: dict
    opt: object
    total: Array  # the loss
    terms: dict[str, Array]  # of which it is the weighted sum
    grad_norm: Array  # of the whole player's gradient
    made: object  # what else the loss gives: of the generators' what they made


def update(
    loss: Callable,
    tx: optax.GradientTransformation,
    nets: dict[str, Pair],
    opt,
    homes: Homes,
    *args,
) -> Updated:
    """One optimiser step on ``loss(nets, *args) -> (total, (made, terms))``.

    Args:
      nets: a player's networks as each home sees them.
      opt: its optimiser's state, by home.
    """
    (total, (made, terms)), grads = jax.value_and_grad(loss, has_aux=True)(nets, *args)
    # A network learns from the volumes of its own home and, where it was lent, of the other one.
    lent = homes.swap({home: grad.there for home, grad in grads.items()})
    grads = jax.tree.map(jnp.add, {home: grad.here for home, grad in grads.items()}, lent)
    params = {home: pair.here for home, pair in nets.items()}
    norm = jnp.sqrt(homes.total(optax.tree.norm(grads, squared=True)))
    tx = optax.with_extra_args_support(tx)
    updates, opt = tx.update(grads, opt, params, norm=norm)
    total, terms = homes.total((total, terms))
    return Updated(optax.apply_updates(params, updates), opt, total, terms, norm, made)


def metrics_of(new: dict[str, Updated]) -> dict[str, Array]:
    """What a step tells of its updates, see `make_step`."""
    metrics = {}
    for name, of in new.items():
        metrics |= {f"{name}/{term}": value for term, value in of.terms.items()}
        metrics |= {f"{name}/total": of.total, f"{name}/grad": of.grad_norm}
    return metrics | {"finite": jnp.isfinite(sum(metrics.values()))}


def through_pools(homes: Homes, pools: dict, fakes: dict, key: Array) -> tuple[dict, dict]:
    """Each home's fakes into the history pool of the domain that they look like, and as many out.

    Returns: the pools, and the fakes by home.
    """
    drawn = {
        home: push_and_sample(pool, fakes[home], homes.key(key, home))
        for home, pool in homes.pools(pools).items()
    }
    return homes.pools({home: pool for home, (pool, _) in drawn.items()}), {
        home: fake for home, (_, fake) in drawn.items()
    }


def applied(nets: Players) -> Players:
    """Each kind of network as a function of (parameters, volumes).

    Jitted, though a step is anyway: so it is traced once for a shape and not at each of the step's
    calls, which is most of a new process's way to its first step. XLA inlines it again.
    """
    return Players(*(jax.jit(lambda p, x, net=net: net.apply({"params": p}, x)) for net in nets))


def batch_shapes(batch: int, shape: tuple[int, int, int]) -> dict:
    """What `compiling.pure_step` reads, as shapes: ``batch`` volumes (z, y, x) of each domain."""
    size = (batch, *shape)
    volumes = Volumes(
        jax.ShapeDtypeStruct((*size, 1), jnp.float32), jax.ShapeDtypeStruct(size, jnp.uint8)
    )
    kinds = {kind: per_domain(lambda _: tuple(volumes)) for kind in ("real", "source")}
    return kinds | {"seed": jax.ShapeDtypeStruct((), jnp.int32)}


def make_step(
    nets: Players,
    optimisers: Players,
    phase: Phase,
    weights: Weights,
    seed: int | Array,
    skip_nonfinite: bool = False,
    homes: Homes = BOTH,
) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """The step of a phase: (state, batch) -> (state, metrics), pure, not yet jitted.

    A batch is {"real": {"A": (image, label), "B": ...}, "source": {"A": ..., "B": ...}}: ``real``
    volumes train S and D as what they are, ``source`` volumes are translated. They are the same
    volumes unless the data has source-only volumes (the paper's S2) or a limit on how many are
    translated. (Its "seed", if any, is not read here, but by `compiling.pure_step`.)

    Metrics are float32 scalars named player/term; "total" is the weighted sum that is descended,
    "grad" the norm of its gradient, before it is clipped. "finite" (bool): every one of them is;
    with ``skip_nonfinite``, a step where one is not changes nothing but the step's number.
    """
    apply = applied(nets)

    def step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        real, source = (volumes_at(homes, batch[kind]) for kind in ("real", "source"))
        gen, disc, seg = seen = networks_at(homes, state.params)
        pools, made, new = state.pools, None, {}

        def updated(name: str, loss: Callable, *args) -> Updated:
            tx, nets, opt = (getattr(of, name) for of in (optimisers, seen, state.opt))
            return update(loss, tx, nets, opt, homes, *args)

        if "gen" in phase.moves:
            others = (disc, seg, apply, source, weights, phase.shape_weight)
            new["gen"] = updated("gen", generator_loss, *others)
            made = new["gen"].made
        elif phase.reads_translations:
            made = translate(apply.gen, gen, source)
        if "disc" in phase.moves:
            fakes = {home: volumes.fake for home, volumes in made.items()}
            if pools:
                key = jax.random.fold_in(jax.random.key(seed), state.step)
                pools, fakes = through_pools(homes, pools, fakes, key)
            new["disc"] = updated("disc", discriminator_loss, apply, real, fakes, weights)
        if "seg" in phase.moves:
            others = (apply, real, source, made, phase.seg_reads)
            new["seg"] = updated("seg", segmentor_loss, *others)

        params = state.params._replace(**{name: of.params for name, of in new.items()})
        opt = state.opt._replace(**{name: of.opt for name, of in new.items()})
        after, metrics = TrainState(state.step + 1, params, opt, pools), metrics_of(new)
        if skip_nonfinite:
            unmoved = state._replace(step=after.step)
            after = jax.tree.map(partial(jnp.where, metrics["finite"]), after, unmoved)
        return after, metrics

    return step
