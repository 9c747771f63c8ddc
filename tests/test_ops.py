"""Every lowering against numpy written from the definition: values and both gradients."""

import math
from functools import partial
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cyclesh import ops
from cyclesh.runtime.devices import jit_step

pytestmark = pytest.mark.usefixtures("strict_ranks")

LOWERINGS = ("plain", "native", "folded", "refolded")


@pytest.fixture(params=[*LOWERINGS, "folded in slabs"])
def lowering(request, monkeypatch):
    """Each lowering, and the folded one with so low a limit that all of it is done in slabs."""
    name, *slabs = request.param.split(" ", 1)
    if slabs:
        monkeypatch.setattr(ops, "SLAB_WORK", 0)
        monkeypatch.setattr(ops, "SLAB_SLICES", 4)
    return name


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def assert_close(got, expected, tolerance=1e-5):
    """Relative to the norm of the whole array."""
    assert got.shape == expected.shape
    assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected)


def taps(size: int, grid: tuple[int, ...], stride: int):
    """For each kernel tap, the part of the padded volume that it reads at every output voxel."""
    for tap in product(range(size), repeat=3):
        at = (slice(t, t + (n - 1) * stride + 1, stride) for t, n in zip(tap, grid, strict=True))
        yield tap, (slice(None), *at)


def plain_conv(x, kernel, stride, cotangent=None):
    """Cross-correlation in float64, and its two gradients, straight from the definition."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    grid = tuple(-(-n // stride) for n in x.shape[1:4])
    padded = np.pad(x, [(0, 0), *[(pad, pad)] * 3, (0, 0)])
    y = np.zeros((x.shape[0], *grid, kernel.shape[-1]))
    for tap, at in taps(size, grid, stride):
        y += padded[at] @ kernel[tap]
    if cotangent is None:
        return y
    x_bar, kernel_bar = np.zeros_like(padded), np.zeros_like(kernel)
    for tap, at in taps(size, grid, stride):
        x_bar[at] += cotangent @ kernel[tap].T
        kernel_bar[tap] = np.einsum("bzyxi,bzyxo->io", padded[at], cotangent)
    inner = [slice(pad, pad + n) for n in x.shape[1:4]]
    return y, x_bar[:, *inner], kernel_bar


def value_and_gradients(function, cotangent, *args):
    @jax.jit
    def run(cotangent, *args):
        y, pull = jax.vjp(function, *args)
        return y, *pull(cotangent)

    return run(cotangent, *args)


def test_a_convolution_by_hand():
    # One channel, a line of five voxels, the taps 1, 10, 100 along x: y[i] reads i-1, i, i+1.
    x = jnp.array([1.0, 2, 3, 4, 5]).reshape(1, 1, 1, 5, 1)
    kernel = np.zeros((3, 3, 3, 1, 1), np.float32)
    kernel[1, 1, :, 0, 0] = 1, 10, 100
    for lowering in LOWERINGS:
        y = ops.conv3d(x, kernel, lowering=lowering).ravel()
        np.testing.assert_array_equal(y, [210, 321, 432, 543, 54])
        y = ops.conv3d(x, kernel, stride=2, lowering=lowering).ravel()
        np.testing.assert_array_equal(y, [210, 432, 54])


@pytest.mark.parametrize(
    ("size", "stride", "grid"),
    [(3, 1, (5, 6, 7)), (3, 2, (5, 6, 7)), (3, 2, (6, 3, 8)), (1, 1, (3, 4, 5)), (1, 2, (3, 4, 5))],
)
def test_conv3d_equals_its_definition(lowering, size, stride, grid):
    x, kernel = draw(2, *grid, 3), draw(size, size, size, 3, 4)
    g = draw(2, *(-(-n // stride) for n in grid), 4, seed=1)
    got = value_and_gradients(
        lambda x, k: ops.conv3d(x, k, stride=stride, lowering=lowering), g, x, kernel
    )
    for result, expected in zip(got, plain_conv(x, kernel, stride, g), strict=True):
        assert_close(result, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_tuple_stands_for_its_concatenation(lowering, stride):
    parts = draw(2, 5, 4, 3, 2), draw(2, 5, 4, 3, 3), draw(2, 5, 4, 3, 1)
    kernel = draw(3, 3, 3, 6, 2)
    g = draw(2, *(-(-n // stride) for n in (5, 4, 3)), 2, seed=1)
    y, *parts_bar, kernel_bar = value_and_gradients(
        lambda a, b, c, k: ops.conv3d((a, b, c), k, stride=stride, lowering=lowering),
        g,
        *parts,
        kernel,
    )
    expected = plain_conv(np.concatenate(parts, -1), kernel, stride, g)
    for result, wanted in zip(
        (y, np.concatenate(parts_bar, -1), kernel_bar), expected, strict=True
    ):
        assert_close(result, wanted)


@pytest.mark.parametrize("grid", [(3, 2, 5), (1, 4, 1)])
def test_upsample_conv3d_is_enlarging_then_convolving(lowering, grid):
    x, kernel = draw(2, *grid, 3), draw(3, 3, 3, 3, 2)
    g = draw(2, *(2 * n for n in grid), 2, seed=1)
    large = x.repeat(2, 1).repeat(2, 2).repeat(2, 3)
    y, large_bar, kernel_bar = plain_conv(large, kernel, 1, g)
    z, h, w = grid
    x_bar = large_bar.reshape(2, z, 2, h, 2, w, 2, 3).sum((2, 4, 6))
    got = value_and_gradients(
        lambda x, k: ops.upsample_conv3d(x, k, lowering=lowering), g, x, kernel
    )
    for result, expected in zip(got, (y, x_bar, kernel_bar), strict=True):
        assert_close(result, expected)


@pytest.mark.parametrize(
    ("shape", "out", "slabs"),
    [((1, 32, 40, 40, 8), 8, 1), ((1, 32, 40, 40, 16), 16, 2), ((2, 33, 40, 40, 16), 16, 5)],
)
def test_a_large_folded_convolution_is_done_in_slabs(shape, out, slabs):
    kernel = jnp.zeros((3, 3, 3, shape[-1], out))
    told = jax.make_jaxpr(lambda x: ops.conv3d(x, kernel, lowering="folded"))(jnp.zeros(shape))
    slices = [
        equation.outvars[0].aval.shape[0]
        for equation in told.eqns
        if equation.primitive.name == "conv_general_dilated"
    ]
    assert len(slices) == slabs
    assert sum(slices) == shape[0] * shape[1]
    assert slabs == 1 or max(slices) <= ops.SLAB_SLICES


def test_slabs_are_folded_again_for_the_weight_gradient_instead_of_kept(monkeypatch):
    def held() -> int:
        """Bytes of the gradient of six convolutions one after another, without its arguments."""

        def loss(kernels, x):
            for kernel in kernels:
                x = jax.nn.relu(ops.conv3d(x, kernel, lowering="folded"))
            return x.sum()

        step = jit_step(jax.grad(loss), save_memory=True)
        kernels = jax.ShapeDtypeStruct((6, 3, 3, 3, 12, 12), jnp.float32)
        volume = jax.ShapeDtypeStruct((1, 32, 64, 64, 12), jnp.float32)
        return step.lower(kernels, volume).compile().memory_analysis().temp_size_in_bytes

    in_slabs = held()
    monkeypatch.setattr(ops, "SLAB_WORK", math.inf)
    assert in_slabs < 0.8 * held()


def test_max_pool_equals_flax_and_so_does_its_gradient():
    x, g = draw(2, 4, 6, 2, 3), draw(2, 2, 3, 1, 3, seed=1)
    reference = partial(nn.max_pool, window_shape=(2, 2, 2), strides=(2, 2, 2))
    for got, expected in zip(
        value_and_gradients(ops.max_pool, g, x),
        value_and_gradients(reference, g, x),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


def test_instance_norm_is_of_each_channel_of_each_volume():
    x = draw(2, 3, 4, 5, 3) * [1, 10, 0.1] + np.array([5.0, -3, 0])
    x[1] = x[1] * 7 - 2
    y = ops.instance_norm(jnp.asarray(x, jnp.float32), 1e-5)
    for b, c in product(range(2), range(3)):
        values = x[b, ..., c]
        expected = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
        np.testing.assert_allclose(y[b, ..., c], expected, atol=2e-5)


def test_instance_norm_of_a_constant_is_zero_with_a_finite_gradient():
    x = jnp.full((1, 2, 2, 2, 1), 3.0)
    y, gradient = jax.value_and_grad(lambda x: ops.instance_norm(x, 1e-5).sum())(x)
    assert y == 0 and np.isfinite(gradient).all()


def test_variance_survives_a_large_mean():
    # The mean of squares minus the square of the mean would lose this variance in float32.
    x = (1e4 + draw(1, 8, 8, 8, 1)).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    np.testing.assert_allclose(ops.instance_norm(jnp.asarray(x), 1e-5), expected, atol=2e-3)


def test_bfloat16_has_float32_statistics():
    # At a mean of 1000 a bfloat16 is a multiple of 4: statistics so rounded would be far off.
    x = jnp.asarray(1000 + 16 * draw(1, 8, 8, 8, 2), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    deviation = exact.std((1, 2, 3), keepdims=True)
    y = ops.instance_norm(x, 1e-5)
    assert y.dtype == jnp.bfloat16
    expected = (exact - exact.mean((1, 2, 3), keepdims=True)) / deviation
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, atol=0.01, rtol=1 / 128)


def test_float64_has_float64_statistics(double_precision):
    x = 1000 + np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2))
    mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
    y = ops.instance_norm(jnp.asarray(x), 1e-5)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-9, atol=1e-9)


def test_statistics_are_float32_in_the_program():
    program = jax.make_jaxpr(lambda x: ops.instance_norm(x, 1e-5))(
        jnp.zeros((1, 2, 2, 2, 1), jnp.bfloat16)
    )
    dtypes = {
        equation.primitive.name: equation.invars[0].aval.dtype for equation in program.jaxpr.eqns
    }
    assert {"reduce_sum", "rsqrt"} <= dtypes.keys()
    assert {dtypes[name] for name in ("reduce_sum", "rsqrt")} == {jnp.dtype("float32")}


def test_padding_repeats_the_far_faces():
    x = draw(2, 5, 8, 3, 2)
    y = ops.pad_to_multiple(jnp.asarray(x), 4)
    expected = np.concatenate([x, x[:, -1:], x[:, -1:], x[:, -1:]], 1)
    expected = np.concatenate([expected, expected[:, :, :, -1:]], 3)
    np.testing.assert_array_equal(y, expected)


def test_nothing_is_padded_where_it_fits():
    x = jnp.zeros((1, 8, 4, 12, 1))
    assert ops.pad_to_multiple(x, 4) is x


def test_auto_is_folded_on_cpu_and_native_elsewhere(monkeypatch):
    for name, saving in (("native", "native"), ("plain", "plain"), ("folded", "refolded")):
        assert ops.resolve_lowering(name) == name
        assert ops.resolve_lowering(name, save_memory=True) == saving
    for backend, lowering in (("cpu", "folded"), ("gpu", "native"), ("tpu", "native")):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert ops.resolve_lowering("auto") == lowering
