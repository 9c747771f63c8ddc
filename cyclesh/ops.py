"""3D convolution and its neighbours: one definition each, and the best lowering for the platform.

Arrays are (batch, z, y, x, channel); kernels are (z, y, x, in, out). Every operation exists in
three lowerings with the same mathematics, equal to rounding, gradients included:

    plain    the definition, one 3D convolution of XLA a layer: the yardstick of `bench`.
    native   one 3D convolution of XLA: right for GPU and TPU.
    folded   the depth taps become channels of a 2D convolution over slices: XLA has no good 3D
             convolution for CPUs, but a good 2D one. Three to eight times faster there.

The convolution that follows a nearest-neighbour upsampling is done on the small grid in the last
two (`upsample_conv3d`), which takes 3.4 times fewer multiplications and no enlarged copy.
"""

import math
from collections.abc import Callable
from itertools import pairwise, product

import jax
import jax.numpy as jnp
from jax import Array, lax

LOWERINGS = ("auto", "plain", "native", "folded")
SLAB_SLICES = 16  # of a folded convolution at once,
SLAB_WORK = 10e6  # if it takes more multiplications than this for each tap of its kernel


def resolve_lowering(lowering: str) -> str:
    """``auto`` becomes ``folded`` on a CPU and ``native`` on any accelerator."""
    if lowering == "auto":
        return "folded" if jax.default_backend() == "cpu" else "native"
    return lowering


def _conv2d(x: Array, kernel: Array, stride: int, padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _conv3d_native(x: Array, kernel: Array, stride: int, padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride,) * 3, padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def _conv_folded(parts: tuple[Array, ...], kernel: Array, stride: int, pad_z: int, pad: int):
    """The 3D convolution as a 2D one of slices that have their depth neighbours as channels.

    A large one is computed slab by slab, which changes nothing but the order of its weight
    gradient's sum: there XLA packs the slices as channels of one product, and at half the speed
    where there are too many of them.
    """
    taps = kernel.shape[0]
    padded = [jnp.pad(p, ((0, 0), (pad_z, pad_z), (0, 0), (0, 0), (0, 0))) for p in parts]
    batch, depth, height, width, _ = padded[0].shape
    depth = (depth - taps) // stride + 1
    kernel = jnp.concatenate(list(kernel), axis=2)  # (y, x, taps * in, out)

    def slab(first: int, end: int) -> Array:
        at = [slice(t + first * stride, t + (end - 1) * stride + 1, stride) for t in range(taps)]
        # Concatenating [tap][part] in one go also spares the copy of the skip connection.
        x = jnp.concatenate([p[:, z] for z in at for p in padded], -1)
        y = _conv2d(x.reshape(-1, *x.shape[2:]), kernel, stride, [(pad, pad)] * 2)
        return y.reshape(batch, end - first, *y.shape[1:])

    work = batch * depth * height * width * math.prod(kernel.shape[2:]) / (taps * stride**2)
    count = min(depth, math.ceil(batch * depth / SLAB_SLICES)) if work > SLAB_WORK else 1
    ends = [depth * n // count for n in range(count + 1)]
    return jnp.concatenate([slab(*at) for at in pairwise(ends)], 1)


def conv3d(
    x: Array | tuple[Array, ...],
    kernel: Array,
    *,
    stride: int = 1,
    lowering: str,
    pad_depth: bool = True,
) -> Array:
    """Cross-correlation with zero padding of half the kernel, so stride 1 keeps the grid.

    Args:
      x: (b, z, y, x, in), or a tuple of such arrays that stand for their concatenation over
        channels (a long skip connection need not be copied together).
      kernel: (k, k, k, in, out), k odd.
      stride: 1 or 2, in all three directions; an axis of n voxels becomes ceil(n / stride).
      lowering: "plain", "native" or "folded".
      pad_depth: False where ``x`` holds the slices past its faces already (`halo`).
    Returns: (b, ceil(z / stride), ceil(y / stride), ceil(x / stride), out).
    """
    parts = x if isinstance(x, tuple) else (x,)
    pad = kernel.shape[0] // 2
    pad_z = pad if pad_depth else 0
    if lowering in ("plain", "native"):
        joined = jnp.concatenate(parts, -1)
        return _conv3d_native(joined, kernel, stride, [(pad_z, pad_z), (pad, pad), (pad, pad)])
    return _conv_folded(parts, kernel, stride, pad_z, pad)


def _phase_kernels(kernel: Array) -> Array:
    """(3, 3, 3, in, out) -> (2, 2, 2, in, 8 * out): one 2x2x2 kernel for each output phase.

    Under a nearest-neighbour enlargement by two, an even output voxel reads (left, own, own) of
    the small grid and an odd one (own, own, right), so two taps do, along each axis.
    """
    for axis in range(3):
        left, own, right = jnp.split(kernel, 3, axis)
        even = jnp.concatenate([left, own + right], axis)
        odd = jnp.concatenate([left + own, right], axis)
        kernel = jnp.stack([even, odd], -2)  # the phases gather in (z, y, x) order before `out`
    return kernel.reshape(*kernel.shape[:4], -1)


def upsample_conv3d(x: Array, kernel: Array, *, lowering: str, pad_depth: bool = True) -> Array:
    """A 3x3x3 convolution of the nearest-neighbour enlargement of ``x`` by two, exactly.

    Each of the eight output phases is a 2x2x2 convolution of the small grid; all eight are
    channels of one convolution over the padded grid, then interleaved.

    Args:
      x: (b, z, y, x, in).
      kernel: (3, 3, 3, in, out).
      pad_depth: False where ``x`` holds one slice past either face already (`halo`), not enlarged.
    Returns: (b, 2z, 2y, 2x, out).
    """
    pad_z = 1 if pad_depth else 0
    if lowering == "plain":
        for axis in (1, 2, 3):
            x = jnp.repeat(x, 2, axis)
        x = x if pad_depth else x[:, 1:-1]
        return _conv3d_native(x, kernel, 1, [(pad_z, pad_z), (1, 1), (1, 1)])
    b, d, h, w, _ = x.shape
    d -= 2 * (1 - pad_z)
    out = kernel.shape[-1]
    phased = _phase_kernels(kernel)
    if lowering == "native":
        y = _conv3d_native(x, phased, 1, [(pad_z, pad_z), (1, 1), (1, 1)])
    else:
        # Padded as an array: where the window (the gradient, h + 1 wide) exceeds the unpadded
        # input, XLA swaps the two in the weight gradient and falls to a 20 times slower kernel.
        x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        y = _conv_folded((x,), phased, 1, pad_z, 0)
    # Split, not indexed: its gradient is one array, that of eight indices a sum of eight.
    y = lax.split(y, [out] * 8, axis=4)
    corners = product(range(2), repeat=3)
    phases = [
        y[:, p : p + d, q : q + h, r : r + w] for y, (p, q, r) in zip(y, corners, strict=True)
    ]
    phases = jnp.stack(phases, axis=4).reshape(b, d, h, w, 2, 2, 2, out)
    return phases.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, 2 * d, 2 * h, 2 * w, out)


def max_pool(x: Array) -> Array:
    """2x2x2 maximum, stride 2, of (b, z, y, x, c) with even z, y, x."""
    b, d, h, w, c = x.shape
    # As reshape + max its gradient is elementwise; reduce_window's is a slow select-and-scatter.
    return x.reshape(b, d // 2, 2, h // 2, 2, w // 2, 2, c).max((2, 4, 6))


def instance_norm(
    x: Array, epsilon: float, gather: Callable[[Array], Array] = lambda means: means
) -> Array:
    """Each channel of each volume to mean 0 and variance 1 over z, y, x; no affine (paper 4.1).

    Statistics are float32 where ``x`` is bfloat16, and the variance is that of the centred values
    (the difference of two large squares loses it). ``gather`` sees the means of slices
    (b, z, 1, 1, c) before they become those of volumes (`halo`).
    """

    def mean(values: Array) -> Array:
        # Slice by slice first, in an order that a depth spread over devices does not change: a
        # ReLU follows, and values that rounding takes across its kink change whole gradients.
        return gather(values.mean((2, 3), keepdims=True)).mean(1, keepdims=True)

    precise = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = precise - mean(precise)
    variance = mean(jnp.square(centred))
    return (centred * lax.rsqrt(variance + epsilon)).astype(x.dtype)


def pad_to_multiple(x: Array, multiple: int) -> Array:
    """Repeat the far faces of (b, z, y, x, c) until z, y and x are multiples of ``multiple``."""
    width = [(0, -size % multiple) for size in x.shape[1:4]]
    if not any(after for _, after in width):
        return x
    return jnp.pad(x, [(0, 0), *width, (0, 0)], mode="edge")
