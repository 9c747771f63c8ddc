"""The architecture of the paper's section 4.1, and what each network can see."""

from collections import Counter
from functools import partial, reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import build, quick_jit, random_tree, random_volumes, tiny_config, tree_of

from configs import default
from cyclesh import ops, state
from cyclesh.networks import (
    Conv,
    PatchDiscriminator,
    ResNetGenerator,
    UNet,
    draw_parameters,
    scaled_std,
)
from cyclesh.step import make_step, make_weights

CONV = partial(Conv, lowering="native")
HE_STD = partial(scaled_std, gain=2.0)


def shape_of(net, grid, batch=1):
    volume = jax.ShapeDtypeStruct((batch, *grid, 1), jnp.float32)
    return jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], volume).shape


def fill(tree, value=None, seed=0):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
    return random_tree(zeros, seed) if value is None else jax.tree.map(lambda z: z + value, zeros)


def equations(jaxpr):
    """All equations of a program, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from equations(value)


def program_of(net):
    volume = jax.ShapeDtypeStruct((1, 8, 8, 8, 1), jnp.float32)
    program = jax.make_jaxpr(lambda p, x: net.apply({"params": p}, x))(tree_of(net), volume)
    return list(equations(program.jaxpr))


@pytest.fixture(scope="module")
def paper():
    """The three modules at the paper's scale, with five structures and background."""
    return state.make_networks(default.build("mmwhs", "joint"), classes=6)


def test_the_papers_grid_is_kept(paper):
    grid = (86, 112, 112)  # 86 is no multiple of 8
    assert shape_of(paper.gen, grid) == (1, *grid, 1)
    assert shape_of(paper.seg, grid, batch=2) == (2, *grid, 6)
    assert shape_of(paper.disc, grid) == (1, 22, 28, 28, 1)
    criticised = state.make_networks(default.build("mmwhs", "cyclegan"), classes=6).gen
    assert shape_of(criticised, grid) == (1, *grid, 1)


def test_two_convolutions_a_level_and_three_downsamplings(paper):
    for net, channels, down in ((paper.gen, 1, True), (paper.seg, 6, False)):
        f = 16
        layers = {
            **{f"encode{n}{ab}": f * 2**n for n in range(4) for ab in "ab"},
            **{f"decode{n}{ab}": f * 2**n for n in range(3) for ab in "ab"},
            **{f"up{n}": f * 2**n for n in range(3)},
            **({f"down{n}": f * 2**n for n in (1, 2, 3)} if down else {}),
        }
        tree = tree_of(net)
        blocks = [name for name in tree if name != "out"]
        kernels = {name: tree[name]["Conv_0"]["kernel"].shape for name in blocks}
        assert {name: shape[-1] for name, shape in kernels.items()} == layers
        assert {shape[:3] for shape in kernels.values()} == {(3, 3, 3)}
        # The long skips: what comes up and what was kept, together.
        assert [kernels[f"decode{n}a"][3] for n in range(3)] == [2 * f * 2**n for n in range(3)]
        assert tree["out"]["kernel"].shape == (1, 1, 1, f, channels)


def test_number_of_parameters_by_hand(paper):
    # S of 16 filters: 27 in*out weights and `out` biases a 3x3x3 convolution.
    pairs = [(1, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    pairs += [(128, 64), (128, 64), (64, 64), (64, 32), (64, 32), (32, 32)]
    pairs += [(32, 16), (32, 16), (16, 16)]
    by_hand = sum(27 * i * o + o for i, o in pairs) + 16 * 6 + 6
    assert state.count_parameters(tree_of(paper.seg)) == by_hand
    # D: widths 32, 64, 128, 1; the two inner layers are normed and have no bias.
    by_hand = 27 * (1 * 32 + 32 * 64 + 64 * 128 + 128) + 32 + 1
    assert state.count_parameters(tree_of(paper.disc)) == by_hand


def test_who_is_normalised(paper):
    """G all over and without affine; D in its inner two layers; S nowhere."""
    roots = {
        name: Counter(e.primitive.name for e in program_of(net))["rsqrt"]
        for name, net in paper._asdict().items()
    }
    assert roots == {"gen": 8 + 6 + 3 + 3, "disc": 2, "seg": 0}
    leaves = {
        name: {path[-1].key for path, _ in jax.tree.leaves_with_path(layer)}
        for name, layer in tree_of(paper.gen).items()
    }
    assert leaves.pop("out") == {"kernel", "bias"}
    assert all(names == {"kernel"} for names in leaves.values())


def test_who_uses_transposed_convolutions(paper):
    def enlarging(net):
        convolutions = [e for e in program_of(net) if e.primitive.name == "conv_general_dilated"]
        return [e for e in convolutions if max(e.params["lhs_dilation"]) > 1]

    criticised = state.make_networks(default.build("mmwhs", "cyclegan"), classes=6).gen
    assert not enlarging(paper.gen) and not enlarging(paper.seg)
    assert len(enlarging(criticised)) == 2


def test_odd_sizes_pad_the_far_faces_and_crop_them_again():
    net = UNet(3, filters=2, conv=CONV, depth=2, pooling=True)
    params = fill(tree_of(net), seed=1)
    x = np.random.default_rng(0).normal(size=(2, 11, 13, 9, 1)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (0, 1), (0, 3), (0, 3), (0, 0)], mode="edge")
    apply = quick_jit(lambda x: net.apply({"params": params}, x))
    y = apply(x)
    assert y.shape == (2, 11, 13, 9, 3) and y.dtype == jnp.float32
    np.testing.assert_array_equal(y, apply(padded)[:, :11, :13, :9])
    assert not np.array_equal(y[0], y[1]) and np.ptp(y) > 1e-3


def test_generators_stay_within_the_intensities():
    for method in ("gan", "cyclegan"):
        net = state.make_networks(tiny_config(method), classes=3).gen
        params = jax.tree.map(lambda leaf: 30 * leaf, fill(tree_of(net)))
        x = np.random.default_rng(0).normal(size=(1, 5, 6, 7, 1)).astype(np.float32)
        y = quick_jit(lambda x, net=net, params=params: net.apply({"params": params}, x))(x)
        assert y.shape == x.shape
        assert y.min() < -0.9 and y.max() > 0.9 and np.abs(y).max() <= 1


def support(function, grid, output):
    """Per axis (first, last) of the input voxels whose gradient at ``output`` is not zero, and
    whether all voxels of that box have one."""
    x = jnp.ones((1, *grid, 1))
    gradient = quick_jit(jax.grad(lambda x: function(x)[0, *output].sum()))(x)[0, ..., 0]
    seen = np.asarray(gradient) != 0
    box = [(int(i.min()), int(i.max())) for i in np.nonzero(seen)]
    return box, bool(seen[tuple(slice(a, b + 1) for a, b in box)].all())


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", ["gen", "disc", "seg"])
def test_lowerings_are_the_same_network(name):
    """On an odd grid, to 1e-5 of the norm of the outputs and of every parameter's gradient."""
    x = np.random.default_rng(0).normal(size=(2, 9, 7, 6, 1))
    config = tiny_config("joint")
    config.compute.dtype = "float64"
    results = []
    for config.compute.lowering in ops.LOWERINGS[1:]:
        net = getattr(state.make_networks(config, classes=3), name)
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), fill(tree_of(net)))

        def loss(p, net=net):
            y = net.apply({"params": p}, x)
            return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum(), y

        results.append(quick_jit(jax.grad(loss, has_aux=True))(params))
    (plain_grads, plain), *others = results
    assert np.ptp(plain) > 1e-3
    for got in others:
        for a, b in zip(*map(jax.tree.leaves, (got, (plain_grads, plain))), strict=True):
            assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


def test_the_discriminator_leaks_as_told():
    """One layer of the identity before one of the identity: what is left is the slope."""
    net = PatchDiscriminator((1, 1), (1, 1), CONV, leak=0.3)
    params = fill(tree_of(net), 0.0)
    for conv in (params["layer0"]["Conv_0"], params["out"]):
        conv["kernel"][1, 1, 1] = 1.0
    volume = np.linspace(-1, 1, 4**3, dtype=np.float32).reshape(1, 4, 4, 4, 1)
    expected = np.where(volume < 0, 0.3 * volume, volume)
    np.testing.assert_allclose(net.apply({"params": params}, volume), expected, rtol=1e-6)


def test_the_discriminator_sees_23_voxels(paper, monkeypatch):
    # InstanceNorm sees the whole volume. Without it, and with positive weights so that nothing
    # cancels, what remains is the patch.
    monkeypatch.setattr(ops, "instance_norm", lambda x, epsilon: x)
    net = PatchDiscriminator((1, 1, 1, 1), paper.disc.strides, CONV)
    params = fill(tree_of(net), 0.1)
    grid, output = (28, 32, 36), (3, 4, 5)
    box, full = support(lambda x: net.apply({"params": params}, x), grid, output)
    assert full
    assert box == [(4 * i - 11, 4 * i + 11) for i in output]


# By hand along an axis, for output voxel 8k of S. The last two convolutions and that of the
# upsampling read 8k-3..8k+3, voxels 4k-2..4k+1 one level down; there again 4k-5..4k+4, then
# 2k-3..2k+2; then 2k-6..2k+5, and k-3..k+2 at the bottom, whose two convolutions read k-5..k+4. On
# the way back to the input each level doubles and its two convolutions add two: 2k-10..2k+9,
# 2k-12..2k+11; 4k-24..4k+23, 4k-26..4k+25; 8k-52..8k+51, 8k-54..8k+53. Where nothing comes up from
# below a level, what is left is that level's long skip: 8k-2..8k+2 and 8k-4..8k+4 at the top.
@pytest.mark.parametrize(
    ("cut", "before", "after"),
    [(None, 54, 53), ("up2", 34, 33), ("up1", 14, 13), ("up0", 4, 4)],
)
def test_what_the_segmentor_sees_as_a_whole_and_through_each_skip(
    cut, before, after, paper, monkeypatch
):
    # The gradient of a maximum goes to one voxel of eight; of a mean, to all that could win.
    monkeypatch.setattr(ops, "max_pool", lambda x: nn.avg_pool(x, (2, 2, 2), (2, 2, 2)))
    net = UNet(1, filters=1, conv=CONV, depth=paper.seg.depth, pooling=True)
    params = fill(tree_of(net), 0.2)
    if cut:
        params[cut] = jax.tree.map(jnp.zeros_like, params[cut])
    box, full = support(lambda x: net.apply({"params": params}, x), (8, 8, 128), (3, 4, 64))
    assert full
    assert box == [(max(i - before, 0), min(i + after, 7)) for i in (3, 4)] + [
        (64 - before, 64 + after)
    ]


def test_bfloat16_is_of_convolutions_only():
    config = tiny_config("joint")
    config.compute.dtype = "bfloat16"
    for net in state.make_networks(config, classes=3):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree_of(net))} == {jnp.dtype("float32")}
        program = program_of(net)
        used = {"conv_general_dilated": set(), "rsqrt": set(), "reduce_sum": set()}
        for equation in program:
            if equation.primitive.name in used:
                used[equation.primitive.name].add(equation.invars[0].aval.dtype.name)
        assert used["conv_general_dilated"] == {"bfloat16"}
        assert used["rsqrt"] | used["reduce_sum"] <= {"float32"}
        y = jax.eval_shape(
            lambda p, x, net=net: net.apply({"params": p}, x),
            tree_of(net),
            jnp.zeros((1, 8, 8, 8, 1)),
        )
        assert y.dtype == jnp.float32


def dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree)}


def test_a_bfloat16_step_learns_in_float32():
    config = tiny_config("joint")
    config.compute.dtype = "bfloat16"
    tiny = build(config)
    phase, weights = state.make_phases(config)[-1], make_weights(config)
    step = make_step(tiny.nets, tiny.optimisers, phase, weights, seed=0)
    args = tiny.state, {"real": random_volumes(0), "source": random_volumes(1)}
    program = list(equations(jax.make_jaxpr(step)(*args).jaxpr))
    parameters = {leaf.shape for leaf in jax.tree.leaves(tiny.state.params)}
    sums = [e for e in program if e.primitive.name in ("reduce_sum", "dot_general")]
    rounded = [e for e in sums if "bfloat16" in dtypes([v.aval for v in (*e.invars, *e.outvars)])]
    assert rounded and not parameters & {e.outvars[0].aval.shape for e in rounded}
    convolutions = [e for e in program if e.primitive.name == "conv_general_dilated"]
    assert dtypes([v.aval for e in convolutions for v in e.invars]) == {"bfloat16"}
    after, metrics = jax.eval_shape(step, *args)
    assert dtypes(metrics) == {"float32", "bool"}
    assert dtypes(after.params) == {"float32"}
    assert dtypes(after.opt) == {"float32", "int32"}  # and the count of updates
    assert dtypes([pool.volumes for pool in after.pools.values()]) == {"bfloat16"}


def test_recomputing_changes_memory_and_nothing_else():
    nets = [UNet(1, 2, CONV, depth=1, norm_epsilon=1e-5, remat=flag) for flag in (False, True)]
    trees = [tree_of(net) for net in nets]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
    params = fill(trees[0])
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 4, 1)).astype(np.float32)
    grads = [
        quick_jit(jax.grad(lambda p, net=net: jnp.square(net.apply({"params": p}, x)).sum()))(
            params
        )
        for net in nets
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *grads)


def residual_bytes(net):
    """What a forward pass keeps for the backward one."""

    def kept(params, volume):
        return jax.vjp(lambda p: net.apply({"params": p}, volume), params)[1]

    shapes = jax.eval_shape(kept, tree_of(net), jnp.zeros((1, 16, 16, 16, 1)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


# A normed block keeps many times its input. One of S little more, and its pooling is no block.
@pytest.mark.parametrize(
    ("name", "generator", "share"),
    [("gen", "unet", 0.4), ("gen", "resnet", 0.8), ("seg", "unet", 0.9)],
)
def test_recomputing_keeps_less_for_the_backward_pass(name, generator, share):
    config = tiny_config("joint")
    config.model.generator = generator
    needed = {}
    for config.compute.remat in (False, True):
        needed[config.compute.remat] = residual_bytes(
            getattr(state.make_networks(config, classes=3), name)
        )
    assert 0 < needed[True] < share * needed[False]


def test_kernels_are_drawn_with_their_own_deviation_and_biases_are_zero(paper):
    tree = draw_parameters(paper.seg, jax.random.key(3), HE_STD)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if leaf.ndim == 1:
            assert not leaf.any()
        elif leaf.size > 5000:
            fan_in = leaf.size / leaf.shape[-1]
            assert leaf.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05), path
            assert abs(leaf.mean()) < 4 * leaf.std() / leaf.size**0.5
    other = draw_parameters(paper.seg, jax.random.key(4), HE_STD)
    kernel = ("encode1b", "Conv_0", "kernel")
    assert not np.array_equal(*(reduce(dict.get, kernel, t) for t in (tree, other)))


def test_residual_blocks_add_to_what_they_are_given():
    with_blocks, without = (ResNetGenerator(2, blocks, CONV) for blocks in (2, 0))
    params = random_tree(tree_of(with_blocks), 0)
    rest = {name: tree for name, tree in params.items() if not name.startswith("residual")}
    assert len(rest) < len(params)
    silent = jax.tree.map(np.zeros_like, params) | rest
    volume = random_volumes(0, shape=(8, 8, 8))["A"][0]
    full, idle, none = (
        np.asarray(net.apply({"params": tree}, volume))
        for net, tree in ((with_blocks, params), (with_blocks, silent), (without, rest))
    )
    np.testing.assert_allclose(idle, none, atol=1e-6)
    assert np.ptp(none) > 1e-3 and np.abs(full - none).max() > 1e-3
