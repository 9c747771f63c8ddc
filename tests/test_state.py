"""What is built from the config: phases, networks, optimisers, and the state they start in."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_runs import CLASSES, SHAPE, initialised, tiny_config

from configs import ada, default
from cyclesh import state
from cyclesh.state import Phase, Players

REAL_ONLY = {"real": 1.0, "fake": 0.0, "rec": 0.0}
ALIKE = {"real": 1 / 3, "fake": 1 / 3, "rec": 1 / 3}


def test_a_run_from_scratch_has_one_phase():
    phases = state.make_phases(default.build("mmwhs", "joint"))
    assert phases == (Phase("joint", ("gen", "disc", "seg"), 100, ALIKE, 1.0),)


def test_pre_training_goes_first_and_is_baseline_and_gan():
    config = default.build("mmwhs", "joint")
    config.schedule.pretrain_seg_epochs, config.schedule.pretrain_gan_epochs = 100, 60
    assert state.make_phases(config) == (
        Phase("pretrain_seg", ("seg",), 100, REAL_ONLY, 0.0),
        Phase("pretrain_gan", ("gen", "disc"), 60, REAL_ONLY, 0.0),
        Phase("joint", ("gen", "disc", "seg"), 100, ALIKE, 1.0),
    )
    config.schedule.pretrain_gan_shape = 0.5  # our choice: S, at rest, guides G from the start
    assert state.make_phases(config)[1] == Phase(
        "pretrain_gan", ("gen", "disc"), 60, REAL_ONLY, 0.5
    )
    for method, moves in (("baseline", ("seg",)), ("gan", ("gen", "disc"))):
        (phase,) = state.make_phases(default.build("mmwhs", method))
        assert phase == Phase(method, moves, 100, REAL_ONLY, 0.0)


def test_ada_pre_trains_what_it_needs_then_moves_segmentors_only():
    phases = state.make_phases(ada.get_config("mmwhs"))
    assert [(p.moves, p.epochs) for p in phases] == [
        (("seg",), 100),
        (("gen", "disc"), 100),
        (("seg",), 100),
    ]
    assert phases[-1].seg_reads == {"real": 1 / 2, "fake": 1 / 4, "rec": 1 / 4}
    assert phases[-1].shape_weight == 0


@pytest.mark.parametrize("preset", default.PRESETS)
@pytest.mark.parametrize("method", ["gan", "cyclegan"])
def test_translation_alone_trains_no_segmentors_and_asks_none(method, preset):
    config = default.build(preset, method)
    assert not any("seg" in p.moves or p.shape_weight for p in state.make_phases(config))
    assert state.players_in_use(config) == ("gen", "disc")


@pytest.mark.parametrize("preset", default.PRESETS)
def test_ada_s_generators_never_knew_shape_consistency(preset):
    assert not any(p.shape_weight for p in state.make_phases(ada.get_config(preset)))


@pytest.mark.parametrize(
    ("init", "names"),
    [
        ((), ["pretrain_seg", "pretrain_gan", "joint"]),
        (("seg",), ["pretrain_gan", "joint"]),
        (("gen", "disc"), ["pretrain_seg", "joint"]),
        (("gen",), ["pretrain_seg", "pretrain_gan", "joint"]),  # fresh discriminators must learn
        (("disc",), ["pretrain_seg", "pretrain_gan", "joint"]),
        (("gen", "disc", "seg"), ["joint"]),
    ],
)
def test_what_comes_from_another_run_is_pre_trained_on_request_only(init, names):
    config = default.build("phantom", "joint")
    every = [phase.name for phase in state.make_phases(config)]
    for name in init:
        config.init[name] = "runs/other"
    assert [phase.name for phase in state.make_phases(config)] == names
    config.init_pretrain = True
    assert [phase.name for phase in state.make_phases(config)] == every


@pytest.mark.parametrize(
    ("method", "init", "used"),
    [
        ("baseline", (), ("seg",)),
        ("gan", (), ("gen", "disc")),
        ("gan", ("seg",), ("gen", "disc", "seg")),
        ("ada", ("gen", "seg"), ("gen", "seg")),
        ("joint", (), ("gen", "disc", "seg")),
    ],
)
def test_players_that_a_run_has_no_use_for_do_not_exist(method, init, used):
    config = tiny_config(method)
    for name in init:
        config.init[name] = "runs/other"
    assert state.players_in_use(config) == used
    nets = state.make_networks(config, CLASSES)
    optimisers = state.make_optimisers(config, 4)
    shapes = jax.eval_shape(
        lambda key: state.init_state(key, nets, optimisers, config, SHAPE), jax.random.key(0)
    )
    for players in (shapes.params, shapes.opt):
        assert tuple(n for n, tree in players._asdict().items() if tree is not None) == used
    assert set(shapes.pools) == ({"A", "B"} if "disc" in used else set())


def test_no_pool_where_its_size_is_zero():
    config = tiny_config("gan")
    config.loss.pool_size = 0
    nets, optimisers = state.make_networks(config, CLASSES), state.make_optimisers(config, 4)
    init = partial(state.init_state, nets=nets, optimisers=optimisers, config=config, shape=SHAPE)
    assert jax.eval_shape(init, jax.random.key(0)).pools == {}


@pytest.fixture(scope="module")
def fresh():
    return initialised(tiny_config("joint"))


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_a_fresh_state_is_before_the_first_step(fresh):
    now = fresh.state
    assert now.step == 0 and now.step.dtype == jnp.int32
    assert all(leaf.dtype == np.float32 for leaf in leaves(now.params))
    assert not any(leaf.any() for leaf in leaves(now.opt) + leaves(now.pools))
    assert now.pools["A"].volumes.shape == (1, fresh.config.loss.pool_size, *SHAPE, 1)


def test_no_two_networks_start_alike(fresh):
    params = fresh.state.params
    for trees in params:
        for a, b in zip(leaves(trees["A"]), leaves(trees["B"]), strict=True):
            assert a.shape == b.shape
            assert not a.any() if a.ndim == 1 else not np.isclose(a, b).any()  # biases are 0
    kernels = [params[player][d]["encode0b"]["Conv_0"]["kernel"] for player in (0, 2) for d in "AB"]
    directions = np.stack([k.ravel() / jnp.linalg.norm(k) for k in kernels])
    assert np.abs(directions @ directions.T - np.eye(4)).max() < 0.5


def test_initial_scales(fresh):
    """G and D N(0, 0.02) as CycleGAN, S by He: without norm, 0.02 would stall."""
    params = fresh.state.params
    for trees in (params.gen, params.disc):
        values = np.concatenate([leaf.ravel() for leaf in leaves(trees) if leaf.ndim > 1])
        assert len(values) > 3000
        np.testing.assert_allclose(values.std(), 0.02, rtol=0.05)
        assert abs(values.mean()) < 0.001
    scaled = np.concatenate(
        [k.ravel() * np.sqrt(k[..., 0].size / 2) for k in leaves(params.seg) if k.ndim > 1]
    )
    np.testing.assert_allclose(scaled.std(), 1, rtol=0.05)
    config = tiny_config("joint")
    config.model.gan_init_std, config.model.seg_init_gain = 0.04, 0.5
    other = initialised(config).state.params  # of the same key
    for name, factor in (("gen", 2), ("disc", 2), ("seg", 0.5)):
        for a, b in zip(*(leaves(getattr(p, name)) for p in (other, params)), strict=True):
            np.testing.assert_allclose(a, factor * b, rtol=1e-5)


def test_the_start_is_a_function_of_the_key(fresh):
    again = initialised(tiny_config("joint"))
    jax.tree.map(np.testing.assert_array_equal, again.state, fresh.state)
    other = initialised(tiny_config("joint"), seed=8)
    kernels = zip(leaves(other.state.params), leaves(fresh.state.params), strict=True)
    assert not any((a == b).any() for a, b in kernels if a.ndim > 1)


def test_networks_are_what_the_config_says():
    config = default.build("mmwhs,filters=4", "joint")
    config.model.depth, config.model.disc_widths, config.model.disc_strides = 2, (3, 5), (2, 1, 1)
    config.model.norm_epsilon, config.compute.remat = 1e-3, True
    config.model.seg_leak, config.model.disc_leak = 0.3, 0.4
    nets = state.make_networks(config, classes=9)
    assert (nets.gen.out_channels, nets.seg.out_channels) == (1, 9)
    assert (nets.gen.depth, nets.seg.depth) == (2, 2)
    assert (nets.gen.pooling, nets.seg.pooling) == (False, True)
    assert (nets.gen.norm_epsilon, nets.seg.norm_epsilon) == (1e-3, None)
    assert nets.gen.remat and nets.seg.remat
    assert (nets.disc.widths, nets.disc.strides) == ((12, 20, 1), (2, 1, 1))
    assert (nets.seg.activation(-1.0), nets.disc.leak) == (pytest.approx(-0.3), 0.4)
    for net in nets:
        assert net.conv(1).lowering == "folded"  # "auto" on a CPU
        assert net.conv(1).dtype == "float32"
    config.compute.save_memory = True
    nets = state.make_networks(config, classes=9)
    assert {net.conv(1).lowering for net in nets} == {"refolded"}
    config.compute.lowering, config.compute.dtype = "native", "bfloat16"
    convs = [net.conv(1) for net in state.make_networks(config, classes=9)]
    assert {(conv.lowering, conv.dtype) for conv in convs} == {("native", "bfloat16")}


def test_each_player_has_its_own_adam():
    config = default.build("mmwhs", "joint")
    numbers = {
        "gen": (0.1, 0.5, 0.9, 1e-2),
        "disc": (0.2, 0.6, 0.8, 1e-3),
        "seg": (0.3, 0.7, 0.95, 1e-4),
    }
    for name, values in numbers.items():
        config.optim[name].update(dict(zip(("rate", "b1", "b2", "eps"), values, strict=True)))
    optimisers = state.make_optimisers(config, 1)
    for tx, (rate, b1, b2, eps) in zip(optimisers, numbers.values(), strict=True):
        opt, m, v = tx.init(jnp.zeros(())), 0.0, 0.0
        for t, g in enumerate((0.3, -0.5), start=1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            expected = -rate * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            update, opt = tx.update(jnp.float32(g), opt)
            np.testing.assert_allclose(update, expected, rtol=1e-5)


def test_gradients_are_clipped_to_a_norm_only_when_asked():
    config = default.build("mmwhs", "joint")
    config.optim.seg.update({"rate": 1.0, "eps": 1.0})
    gradient = {"A": jnp.float32(6.0), "B": jnp.float32(8.0)}  # of norm 10
    for clip, (a, b) in ((0.0, (6.0, 8.0)), (1.0, (0.6, 0.8)), (20.0, (6.0, 8.0))):
        config.optim.clip_norm = clip
        tx = state.make_optimisers(config, 1).seg
        update, _ = tx.update(gradient, tx.init(gradient), norm=optax.tree.norm(gradient))
        # Adam's first step is g / (|g| + eps).
        np.testing.assert_allclose(update["A"], -a / (a + 1), rtol=1e-5)
        np.testing.assert_allclose(update["B"], -b / (b + 1), rtol=1e-5)


def test_count_parameters():
    tree = {"a": jnp.zeros((2, 3)), "b": {"c": jax.ShapeDtypeStruct((4,), "float32")}, "d": None}
    assert state.count_parameters(tree) == 10
    assert state.count_parameters(Players(tree, None, jnp.zeros(()))) == 11
