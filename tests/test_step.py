"""The alternation: what each loss adds up, who moves, which labels travel with which volumes.

Losses take any callables as networks, so most of it is shown with functions of one line. One whole
step of real networks is computed a second time, written out domain by domain.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import build, initialised, quick_jit, random_volumes, tiny_config

from cyclesh import state, step
from cyclesh.domains import DOMAINS, Made, Volumes, other, per_domain
from cyclesh.homes import BOTH, pairs
from cyclesh.runtime.pool import Pool
from cyclesh.state import Phase, Players, TrainState
from cyclesh.step import Weights, generator_loss, make_step, make_weights, there_and_back

ALL = ("gen", "disc", "seg")
ALIKE = {"real": 1 / 3, "fake": 1 / 3, "rec": 1 / 3}
REAL_ONLY = {"real": 1.0, "fake": 0.0, "rec": 0.0}


both = partial(pairs, BOTH)


def equal(a, b) -> bool:
    """Bit for bit."""
    same = jax.tree.map(lambda x, y: np.array_equal(x, y), a, b)
    return all(jax.tree.leaves(same))


# ------------------------------------------------------------------------------ the naming rule


def test_each_generator_translates_into_its_own_domain():
    def gen(network, volume):
        return f"{network}({volume})"

    seen = both({"A": "G_A", "B": "G_B"})
    made = {home: there_and_back(gen, seen[home], f"x_{home}") for home in DOMAINS}
    assert made["A"] == ("G_B(x_A)", "G_A(G_B(x_A))")
    assert made["B"] == ("G_A(x_B)", "G_B(G_A(x_B))")


# ---------------------------------------------------------------- section 3.2, and what mends it


def shift(n):
    return lambda x: jnp.roll(x, (n, -n, 2 * n), (1, 2, 3))


TRANSFORMS = {
    "shift": (shift(2), shift(-2)),
    "mirror": (lambda x: x[:, :, :, ::-1],) * 2,
    "quarter turn": (lambda x: jnp.rot90(x, 1, (2, 3)), lambda x: jnp.rot90(x, -1, (2, 3))),
}

# Structures are bright in A and dark in B; translating inverts, and dims a little on the way to B.
APPLY = Players(
    gen=lambda function, x: function(x),
    disc=lambda gain, x: gain * x,
    seg=lambda sign, x: jnp.concatenate([-9 * sign * x, 9 * sign * x], -1),
)
DISC, SEG = {"A": 0.7, "B": -0.4}, {"A": 1.0, "B": -1.0}


def toy_source():
    rng = np.random.default_rng(0)
    sources = {}
    for domain in DOMAINS:
        label = (rng.random((2, 8, 8, 8)) < 0.4).astype(np.uint8)
        noise = rng.uniform(0.5, 1, label.shape).astype(np.float32)
        sources[domain] = Volumes((SEG[domain] * noise * (2.0 * label - 1))[..., None], label)
    return jax.tree.map(jnp.asarray, sources)


def toy_objective(gens, gamma):
    nets = map(both, (gens, DISC, SEG))
    total, (_, terms) = generator_loss(*nets, APPLY, toy_source(), Weights(10.0, 0.0, 0.5), gamma)
    return float(total), {name: float(term) for name, term in terms.items()}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.usefixtures("strict_ranks")
def test_cycle_consistency_cannot_see_a_moved_anatomy_and_shape_consistency_does(transform):
    """Section 3.2: G'_A = G_A after T and G'_B = G_B after T's inverse are as cycle consistent."""
    move, back = TRANSFORMS[transform]
    gens = {"A": lambda x: -x, "B": lambda x: -0.9 * x}
    moved = {"A": lambda x: gens["A"](move(x)), "B": lambda x: gens["B"](back(x))}
    total, terms = toy_objective(gens, 1.0)
    moved_total, moved_terms = toy_objective(moved, 1.0)

    assert moved_terms["cycle"] == terms["cycle"] > 0  # Eq. 1, to the last bit
    np.testing.assert_allclose(moved_terms["adv"], terms["adv"], rtol=1e-5)  # nor does D
    assert moved_terms["shape"] > 10 * terms["shape"] > 0  # Eq. 2
    np.testing.assert_allclose(
        moved_total - total, moved_terms["shape"] - terms["shape"], rtol=1e-3
    )
    blind, moved_blind = (toy_objective(g, 0.0)[0] for g in (gens, moved))
    np.testing.assert_allclose(moved_blind, blind, rtol=1e-5)


def test_moving_one_generator_alone_does_break_the_cycle():
    gens = {"A": lambda x: -x, "B": lambda x: -0.9 * x}
    half_moved = {**gens, "A": lambda x: -shift(2)(x)}
    assert toy_objective(half_moved, 0.0)[1]["cycle"] > 5 * toy_objective(gens, 0.0)[1]["cycle"]


# ---------------------------------------------------------------- the objectives, against numpy

SCALAR = Players(
    gen=lambda p, x: p * x,
    disc=lambda p, x: p * x**2,
    seg=lambda p, x: jnp.concatenate([p * x, -x, x**2], -1),
)
G_A, G_B, D_A, D_B, S_A, S_B = 0.8, -1.3, 0.5, 0.9, 1.7, -0.6


def cross_entropy(p, x, y):
    """Of SCALAR.seg, in numpy."""
    logits = np.concatenate([p * x, -x, x**2], -1).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.mean([log_p[i][y[i]] for i in np.ndindex(y.shape)])


@pytest.mark.usefixtures("strict_ranks")
def test_equation_3():
    volumes = random_volumes(0, batch=2, shape=(2, 3, 4))
    (x_A, y_A), (x_B, y_B) = volumes["A"], volumes["B"]
    fake_B, fake_A = G_B * x_A, G_A * x_B
    terms = {
        "adv": ((D_A * fake_A**2 - 1) ** 2).mean() + ((D_B * fake_B**2 - 1) ** 2).mean(),
        "cycle": abs(G_A * fake_B - x_A).mean() + abs(G_B * fake_A - x_B).mean(),
        "shape": cross_entropy(S_A, fake_A, y_B) + cross_entropy(S_B, fake_B, y_A),
        "identity": abs(G_A * x_A - x_A).mean() + abs(G_B * x_B - x_B).mean(),
    }
    total, (made, got) = generator_loss(
        both({"A": G_A, "B": G_B}),
        both({"A": D_A, "B": D_B}),
        both({"A": S_A, "B": S_B}),
        SCALAR,
        {d: Volumes(*map(jnp.asarray, volumes[d])) for d in DOMAINS},
        Weights(cycle=7.0, identity=3.0, disc=0.5),
        2.0,
    )
    assert got.keys() == terms.keys()
    for name, expected in terms.items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-5)
    expected = terms["adv"] + 7 * terms["cycle"] + 2 * terms["shape"] + 3 * terms["identity"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(made["A"].rec, G_A * G_B * x_A, rtol=1e-6)
    np.testing.assert_allclose(made["B"].fake, fake_A, rtol=1e-6)


def test_terms_of_no_weight_are_not_computed():
    def absent(*_):
        raise AssertionError("called without need")

    _, (_, terms) = generator_loss(
        both({"A": G_A, "B": G_B}),
        both({"A": D_A, "B": D_B}),
        None,
        SCALAR._replace(seg=absent),
        {d: Volumes(*v) for d, v in random_volumes(0, shape=(2, 2, 2)).items()},
        Weights(cycle=10.0, identity=0.0, disc=0.5),
        0.0,
    )
    assert terms.keys() == {"adv", "cycle"}


@pytest.mark.usefixtures("strict_ranks")
def test_discriminators_tell_real_from_fake():
    real, made = (random_volumes(seed, shape=(2, 3, 4)) for seed in (0, 1))
    fakes = {home: jnp.asarray(made[other(home)][0]) for home in DOMAINS}
    weights = step.Weights(cycle=10.0, identity=0.0, disc=0.5)
    total, (_, terms) = step.discriminator_loss(
        both({"A": D_A, "B": D_B}), SCALAR, {d: Volumes(*real[d]) for d in DOMAINS}, fakes, weights
    )
    (x_A, _), (x_B, _), (f_A, _), (f_B, _) = *real.values(), *made.values()
    by_hand = {
        "real": ((D_A * x_A**2 - 1) ** 2).mean() + ((D_B * x_B**2 - 1) ** 2).mean(),
        "fake": ((D_A * f_A**2) ** 2).mean() + ((D_B * f_B**2) ** 2).mean(),
    }
    for name, expected in by_hand.items():
        np.testing.assert_allclose(terms[name], expected, rtol=1e-5)
    np.testing.assert_allclose(total, 0.5 * (by_hand["real"] + by_hand["fake"]), rtol=1e-5)


def test_segmentors_read_each_volume_with_the_labels_of_its_anatomy(monkeypatch):
    read = []
    monkeypatch.setattr(step.losses, "cross_entropy", lambda *args: read.append(args) or 1.0)
    volumes = {d: Volumes(f"x_{d}", f"y_{d}") for d in DOMAINS}
    made = {"A": Made("fake_B", "rec_A"), "B": Made("fake_A", "rec_B")}
    apply = SCALAR._replace(seg=lambda network, volume: f"{network}({volume})")
    total, (_, terms) = step.segmentor_loss(
        both({"A": "S_A", "B": "S_B"}), apply, volumes, volumes, made, ALIKE
    )
    assert set(read) == {
        ("S_A(x_A)", "y_A"), ("S_B(fake_B)", "y_A"), ("S_A(rec_A)", "y_A"),
        ("S_B(x_B)", "y_B"), ("S_A(fake_A)", "y_B"), ("S_B(rec_B)", "y_B"),
    }  # fmt: skip
    assert len(read) == 6 and terms == {"real": 2, "fake": 2, "rec": 2}
    np.testing.assert_allclose(total, 2)


# ----------------------------------------------------------------------- steps of toy networks


class Toy(NamedTuple):
    """A function with the face of a Flax module."""

    function: object

    def apply(self, variables, x):
        return self.function(variables["params"], x)


SGD = Players(*[optax.sgd(0.1)] * 3)
WEIGHTS = Weights(cycle=10.0, identity=0.0, disc=0.5)


def toy_state(gen=None, disc=None, seg=None, pools=None):
    """Parameters are one number a network."""
    gen, disc, seg = gen or {"A": G_A, "B": G_B}, disc or {"A": D_A, "B": D_B}, seg or SEG
    params = jax.tree.map(jnp.float32, Players(gen, disc, seg))
    opt = Players(*(tx.init(tree) for tx, tree in zip(SGD, params, strict=True)))
    return TrainState(jnp.int32(0), params, opt, pools or {})


def toy_step(phase, nets=SCALAR, seed=0, weights=WEIGHTS, **options):
    return jax.jit(make_step(Players(*map(Toy, nets)), SGD, phase, weights, seed, **options))


def batch_of(real, source=None):
    return {"real": real, "source": source or real}


def constant(value, label):
    """A volume that can be told by its intensity, and labels that say which it should be."""
    return np.full((1, 2, 2, 2, 1), value, "f4"), np.full((1, 2, 2, 2), label, "u1")


@pytest.mark.parametrize("moves", [ALL, ("seg",)])  # ours, and ADA, whose generators rest
def test_every_volume_reaches_its_segmentor_with_its_own_labels(moves):
    """Intensity c/10 in domain A, 1 + c/10 in domain B, is a volume of class c throughout."""
    offset = {"A": 0.0, "B": 1.0}

    def classify(domain_offset, x):
        classes = jnp.arange(5.0).reshape(1, 1, 1, 1, 5) / 10
        return -1e5 * (x - domain_offset - classes) ** 2

    nets = Players(lambda add, x: x + add, lambda p, x: p * x, classify)
    start = toy_state(gen={"A": -1.0, "B": 1.0}, seg=offset)
    real = {"A": constant(0.1, 1), "B": constant(1.2, 2)}
    source = {"A": constant(0.3, 3), "B": constant(1.4, 4)}
    phase = Phase("", moves, 1, ALIKE, 1.0 if "gen" in moves else 0.0)

    _, right = toy_step(phase, nets)(start, batch_of(real, source))
    names = ("seg/real", "seg/fake", "seg/rec", *(["gen/shape"] if "gen" in moves else []))
    assert all(float(right[name]) < 1e-6 for name in names)

    # The same with two labels exchanged: the check above can fail.
    swapped = {"A": (source["A"][0], source["B"][1]), "B": (source["B"][0], source["A"][1])}
    _, wrong = toy_step(phase, nets)(start, batch_of(real, swapped))
    assert all(float(wrong[name]) > 10 for name in names[1:]) and wrong["seg/real"] < 1e-6


def test_generators_feel_the_segmentors_and_leave_them_alone():
    phase = Phase("gan with shape", ("gen", "disc"), 1, REAL_ONLY, 1.0)
    batch = batch_of(random_volumes(0, shape=(2, 3, 4)))
    take = toy_step(phase)
    first, second = toy_state(seg={"A": 1.0, "B": 1.0}), toy_state(seg={"A": 2.0, "B": 1.0})
    a, b = take(first, batch)[0], take(second, batch)[0]
    assert a.params.gen["A"] != b.params.gen["A"]  # through S_A(fake_A)
    assert equal(a.params.seg, first.params.seg) and equal(b.params.seg, second.params.seg)
    assert equal(a.params.disc, b.params.disc)


@pytest.mark.parametrize(
    ("change", "felt_by"),
    [
        ({"phase": Phase("no gamma", ALL, 1, ALIKE, 0.0)}, {"gen"}),
        ({"phase": Phase("reads", ALL, 1, REAL_ONLY, 1.0)}, {"seg"}),
        ({"weights": Weights(3.0, 0.0, 0.5)}, {"gen"}),
        ({"weights": Weights(10.0, 0.0, 0.1)}, {"disc"}),
        ({"weights": Weights(10.0, 1.0, 0.5)}, {"gen"}),
    ],
)
def test_each_weight_is_felt_by_one_player(change, felt_by):
    """The updates of D and S are independent of each other and of what G was told."""
    batch = batch_of(random_volumes(0, shape=(2, 3, 4)), random_volumes(1, shape=(2, 3, 4)))
    usual = {"phase": Phase("joint", ALL, 1, ALIKE, 1.0), "weights": WEIGHTS}
    start = toy_state()
    one, other = (toy_step(**args)(start, batch)[0] for args in (usual, usual | change))
    felt = {
        name for name, a, b in zip(ALL, one.params, other.params, strict=True) if not equal(a, b)
    }
    assert felt == felt_by


def full_pools(stored):
    volumes = per_domain(lambda d: jnp.full((1, 2, 2, 2, 2, 1), stored[d]))
    return {d: Pool(volumes[d], jnp.int32(2)) for d in DOMAINS}


def test_the_pool_draws_by_seed_and_step_alone():
    """Fresh fakes are 1; stored ones 3 (A) and 10 (B), so disc/fake tells what D was shown."""
    nets = SCALAR._replace(gen=lambda p, x: p * x, disc=lambda p, x: p * x)
    ones = {"A": 1.0, "B": 1.0}
    start = toy_state(gen=ones, disc=ones, pools=full_pools({"A": 3.0, "B": 10.0}))
    batch = batch_of(per_domain(lambda _: constant(1.0, 0)))
    shown = {2: "fresh", 9 + 1: "old A", 1 + 100: "old B", 9 + 100: "both old"}

    def history(seed):
        take = toy_step(Phase("gan", ("gen", "disc"), 1, REAL_ONLY, 0.0), nets, seed)
        return [
            shown[int(take(start._replace(step=jnp.int32(n)), batch)[1]["disc/fake"])]
            for n in range(40)
        ]

    first = history(0)
    assert first == history(0) != history(1)
    assert set(first) == set(shown.values())  # A and B each decide for themselves


def test_without_a_pool_discriminators_see_this_steps_fakes():
    take = toy_step(Phase("gan", ("gen", "disc"), 1, REAL_ONLY, 0.0))
    batch = batch_of({"A": constant(0.5, 0), "B": constant(0.25, 0)})
    after, metrics = take(toy_state(), batch)
    expected = (D_A * (G_A * 0.25) ** 2) ** 2 + (D_B * (G_B * 0.5) ** 2) ** 2
    np.testing.assert_allclose(metrics["disc/fake"], expected, rtol=1e-5)
    assert after.pools == {} and after.step == 1


def test_players_that_do_not_exist_stay_so():
    batch = batch_of(random_volumes(0, shape=(2, 3, 4)))
    full = toy_state()
    for moves, missing in ((("seg",), ("gen", "disc")), (("gen", "disc"), ("seg",))):
        lack = dict.fromkeys(missing)
        start = full._replace(params=full.params._replace(**lack), opt=full.opt._replace(**lack))
        after, metrics = toy_step(Phase("", moves, 1, REAL_ONLY, 0.0))(start, batch)
        for name in ALL:
            assert (getattr(after.params, name) is None) == (name in missing)
        assert {name.split("/")[0] for name in metrics} == {*moves, "finite"}


@pytest.mark.parametrize("poisoned", DOMAINS)
def test_a_loss_that_is_not_finite_is_noticed(poisoned):
    take = toy_step(Phase("joint", ALL, 1, ALIKE, 1.0))
    volumes = random_volumes(0, shape=(2, 2, 2))
    assert take(toy_state(), batch_of(volumes))[1]["finite"]
    volumes[poisoned][0][0, 1, 1, 1] = np.nan
    assert not take(toy_state(), batch_of(volumes))[1]["finite"]


def test_a_step_that_is_left_out_changes_nothing_but_its_number():
    take = toy_step(Phase("joint", ALL, 1, ALIKE, 1.0), skip_nonfinite=True)
    plain = toy_step(Phase("joint", ALL, 1, ALIKE, 1.0))
    before = toy_state(pools=full_pools({"A": 0.25, "B": 0.5}))
    volumes = random_volumes(0, shape=(2, 2, 2))
    good, poisoned = batch_of(volumes), batch_of(random_volumes(0, shape=(2, 2, 2)))
    assert equal(take(before, good)[0], plain(before, good)[0])
    poisoned["real"]["A"][0][0, 1, 1, 1] = np.nan
    after, metrics = take(before, poisoned)
    assert not metrics["finite"] and after.step == 1
    assert equal(after._replace(step=before.step), before)


# ---------------------------------------------------------------------- steps of real networks

MOVERS = {
    "baseline": {"seg"},
    "gan": {"gen", "disc"},
    "cyclegan": {"gen", "disc"},
    "ada": {"seg"},
    "joint": {"gen", "disc", "seg"},
}


@pytest.mark.parametrize("method", MOVERS)
def test_who_moves(method, request):
    if method == "joint":  # compiled below anyway
        joint = request.getfixturevalue("joint")
        before, after, metrics = *joint.states[:2], joint.metrics[0]
    else:
        config, nets, optimisers, before = build(tiny_config(method))
        phase = state.make_phases(config)[-1]
        take = quick_jit(make_step(nets, optimisers, phase, make_weights(config), seed=0))
        after, metrics = take(before, batch_of(random_volumes(0)))
    assert after.step == 1 and metrics["finite"]
    for name in ALL:
        now, then = (getattr(s.params, name) for s in (after, before))
        opt_now, opt_then = (getattr(s.opt, name) for s in (after, before))
        if name in MOVERS[method]:
            for old, new in zip(jax.tree.leaves(then), jax.tree.leaves(now), strict=True):
                assert old.shape == new.shape and not np.array_equal(old, new)
            assert (optax.tree.get(opt_now, "mu")["A"]["out"]["kernel"] != 0).any()
            assert {int(n) for _, n in optax.tree.get_all_with_path(opt_now, "count")} == {1}
        else:
            assert equal(now, then) and equal(opt_now, opt_then)
    for d in DOMAINS:
        if "disc" in MOVERS[method]:
            assert after.pools[d].count == 1
            assert after.pools[d].volumes[0, 0].any() and not after.pools[d].volumes[0, 1:].any()
        else:
            assert equal(after.pools[d], before.pools[d])


class Joint(NamedTuple):
    """Two joint steps of real networks, and how often the step was traced."""

    setup: object
    batches: list
    states: list
    metrics: list
    traces: list
    take: object


def joint_config():
    config = tiny_config("joint")
    config.batch, config.loss.pool_size = 2, 4
    for name, rate, b1 in zip(ALL, (0.01, 0.02, 0.03), (0.5, 0.6, 0.7), strict=True):
        # A large epsilon: where a gradient is nothing but rounding, Adam makes a step of its sign.
        config.optim[name].update({"rate": rate, "b1": b1, "eps": 1e-3})
    return config


@pytest.fixture(scope="module")
def joint():
    setup = build(joint_config())
    config, nets, optimisers, start = setup
    plain = make_step(nets, optimisers, state.make_phases(config)[-1], make_weights(config), seed=0)
    traces = []

    def counted(*args):
        traces.append(None)
        return plain(*args)

    take = quick_jit(counted)
    batches = [batch_of(random_volumes(n, 2), random_volumes(n + 9, 2)) for n in range(2)]
    states, metrics = [start], []
    for batch in batches:
        now, row = take(states[-1], batch)
        states.append(now)
        metrics.append(row)
    return Joint(setup, batches, states, metrics, traces, take)


def test_compiled_once(joint):
    fresh = initialised(joint_config()).state
    joint.take(fresh, joint.batches[1])
    assert len(joint.traces) == 1


class Plain:
    """The joint step once more: every domain its own line, its own gradient, Adam by hand."""

    def __init__(self, nets: Players, config):
        def gen(p, x):
            return nets.gen.apply({"params": p}, x)

        def disc(p, x):
            return nets.disc.apply({"params": p}, x)

        def seg(p, x):
            return jnp.log(jax.nn.softmax(nets.seg.apply({"params": p}, x)))

        def nll(log_p, y):
            return -jnp.take_along_axis(log_p, y[..., None].astype(int), -1).mean()

        def g_loss(G_A, G_B, D_A, D_B, S_A, S_B, x_A, y_A, x_B, y_B):
            fake_B = gen(G_B, x_A)
            fake_A = gen(G_A, x_B)
            rec_A = gen(G_A, fake_B)
            rec_B = gen(G_B, fake_A)
            adv = ((disc(D_A, fake_A) - 1) ** 2).mean() + ((disc(D_B, fake_B) - 1) ** 2).mean()
            cycle = abs(rec_A - x_A).mean() + abs(rec_B - x_B).mean()
            shape = nll(seg(S_A, fake_A), y_B) + nll(seg(S_B, fake_B), y_A)
            made = fake_A, fake_B, rec_A, rec_B
            return adv + 10 * cycle + 1 * shape, (adv, cycle, shape, made)

        def d_loss(D, real, fake):
            terms = ((disc(D, real) - 1) ** 2).mean(), (disc(D, fake) ** 2).mean()
            return (terms[0] + terms[1]) / 2, terms

        def s_loss(S, real, y_real, fake, y_fake, rec, y_rec):
            terms = nll(seg(S, real), y_real), nll(seg(S, fake), y_fake), nll(seg(S, rec), y_rec)
            return sum(terms) / 3, terms

        self.g = quick_jit(jax.value_and_grad(g_loss, (0, 1), has_aux=True))
        self.d = quick_jit(jax.value_and_grad(d_loss, has_aux=True))
        self.s = quick_jit(jax.value_and_grad(s_loss, has_aux=True))
        self.optim = config.optim

    def gradients(self, params: Players, batch):
        """Gradients of all six networks, the fakes, and the losses' terms."""
        (gen, disc, seg), real, source = params, batch["real"], batch["source"]
        sources = *source["A"], *source["B"]
        (g_total, (adv, cycle, shape, made)), (g_A, g_B) = self.g(
            gen["A"], gen["B"], disc["A"], disc["B"], seg["A"], seg["B"], *sources
        )
        fake_A, fake_B, rec_A, rec_B = made
        (d_A_total, (r_A, f_A)), d_A = self.d(disc["A"], real["A"][0], fake_A)
        (d_B_total, (r_B, f_B)), d_B = self.d(disc["B"], real["B"][0], fake_B)
        y_A, y_B = source["A"][1], source["B"][1]
        (s_A_total, s_A_terms), s_A = self.s(seg["A"], *real["A"], fake_A, y_B, rec_A, y_A)
        (s_B_total, s_B_terms), s_B = self.s(seg["B"], *real["B"], fake_B, y_A, rec_B, y_B)
        both = [a + b for a, b in zip(s_A_terms, s_B_terms, strict=True)]
        metrics = {
            "gen/adv": adv, "gen/cycle": cycle, "gen/shape": shape, "gen/total": g_total,
            "disc/real": r_A + r_B, "disc/fake": f_A + f_B, "disc/total": d_A_total + d_B_total,
            "seg/real": both[0], "seg/fake": both[1], "seg/rec": both[2],
            "seg/total": s_A_total + s_B_total,
        }  # fmt: skip
        grads = Players({"A": g_A, "B": g_B}, {"A": d_A, "B": d_B}, {"A": s_A, "B": s_B})
        for name, grad in grads._asdict().items():
            squares = [np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(grad)]
            metrics[f"{name}/grad"] = np.sqrt(sum(squares))
        return grads, {"A": fake_A, "B": fake_B}, metrics

    def adam(self, params: Players, history: list[Players]) -> Players:
        """Parameters after one more step, given all gradients so far."""
        t, moved = len(history), {}
        for name, tree in params._asdict().items():
            o = self.optim[name]

            def leaf_step(p, *grads, o=o):
                m = v = 0.0
                for g in np.asarray(grads, np.float64):
                    m = o.b1 * m + (1 - o.b1) * g
                    v = o.b2 * v + (1 - o.b2) * g * g
                m_hat, v_hat = m / (1 - o.b1**t), v / (1 - o.b2**t)
                return (p - o.rate * m_hat / (np.sqrt(v_hat) + o.eps)).astype(np.float32)

            moved[name] = jax.tree.map(leaf_step, tree, *(getattr(g, name) for g in history))
        return Players(**moved)


def norm_of(tree):
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def difference(a, b):
    return jax.tree.map(lambda x, y: np.asarray(x, np.float64) - y, a, b)


def test_two_whole_steps_against_a_second_computation(joint):
    config, nets, _, start = joint.setup
    plain, params, history, fakes = Plain(nets, config), start.params, [], []
    for n, batch in enumerate(joint.batches):
        grads, made, metrics = plain.gradients(params, batch)
        history.append(grads)
        fakes.append(made)
        assert metrics.keys() == joint.metrics[n].keys() - {"finite"}
        for name, expected in metrics.items():
            # A gradient's norm sums thousands of float32 products, here in another order.
            rtol = 1e-4 if name.endswith("/grad") else 2e-5
            np.testing.assert_allclose(joint.metrics[n][name], expected, rtol=rtol, err_msg=name)

        moved = plain.adam(params, history)
        after = joint.states[n + 1]
        for name in ALL:
            b1 = config.optim[name].b1
            for d in DOMAINS:
                if n == 0:  # Adam's first moment is then the gradient itself
                    got = jax.tree.map(
                        lambda m, b1=b1: m / (1 - b1),
                        optax.tree.get(getattr(after.opt, name), "mu")[d],
                    )
                    grad = getattr(grads, name)[d]
                    assert norm_of(difference(got, grad)) < 1e-5 * norm_of(grad), (name, d)
                got, expected, before = (getattr(p, name)[d] for p in (after.params, moved, params))
                error, way = difference(got, expected), difference(expected, before)
                assert norm_of(error) < 1e-3 * norm_of(way), (name, d)
                assert norm_of(way) > 0.1 * config.optim[name].rate  # not a standstill
        params = after.params  # not `moved`: the sign of a vanishing gradient is anyone's guess

    # The pool still fills: D saw this step's fakes, and keeps them in order.
    for d in DOMAINS:
        assert joint.states[2].pools[d].count == 2
        for n in range(2):
            kept = joint.states[2].pools[d].volumes[:, n]
            np.testing.assert_allclose(kept, fakes[n][d], atol=1e-4)
