"""3D convolution and its neighbours: one definition each, and the best lowering for the platform.

Arrays are (batch, z, y, x, channel); kernels are (z, y, x, in, out). Every operation exists in
four lowerings with the same mathematics, equal to rounding, gradients included:

    plain    the definition, one 3D convolution of XLA a layer: the yardstick of `bench`.
    native   one 3D convolution of XLA, for GPU and TPU (where none was at hand to measure).
    folded   the depth taps become channels of a 2D convolution over slices: XLA has no good 3D
             convolution for CPUs, but a good 2D one. Three to eight times faster there.
    refolded the same, for `compute.save_memory`: what was folded is not kept for the gradient.

The convolution that follows a nearest-neighbour upsampling is done on the small grid in all but
the first (`upsample_conv3d`), which takes 3.4 times fewer multiplications and no enlarged copy.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

LOWERINGS = ("auto", "plain", "native", "folded")
SLAB_SLICES = 16  # of a folded convolution at once,
SLAB_WORK = 10e6  # if it takes more multiplications than this for each tap of its kernel


def resolve_lowering(lowering: str, save_memory: bool = False) -> str:
    """``auto`` becomes ``folded`` on a CPU and ``native`` on any accelerator.

    And ``folded`` becomes ``refolded`` where memory is to be saved.
    """
    if lowering == "auto":
        lowering = "folded" if jax.default_backend() == "cpu" else "native"
    return "refolded" if save_memory and lowering == "folded" else lowering


def _conv2d(x: Array, kernel: Array, stride: int, padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _conv3d_native(x: Array, kernel: Array, stride: int, padding) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride,) * 3, padding, dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def _conv_folded(
    parts: tuple[Array, ...], kernel: Array, stride: int, pad_z: int, pad: int, keep: bool
) -> Array:
    """The 3D convolution as a 2D one of slices that have their depth neighbours as channels.

    That is im2col along the depth alone. A large one is computed slab by slab, which changes
    nothing but the order of its weight gradient's sum: there XLA packs the slices as channels of
    one product, and at half the speed where there are too many of them. And it is folded again for
    that gradient; small ones are not with ``keep``.
    """
    taps = kernel.shape[0]
    batch, depth, height, width, _ = parts[0].shape
    depth = (depth + 2 * pad_z - taps) // stride + 1
    # Transposed, not taken apart and joined: the gradient of that is a sum of three arrays.
    kernel = kernel.transpose(1, 2, 0, 3, 4)
    kernel = kernel.reshape(*kernel.shape[:2], -1, kernel.shape[-1])  # (y, x, taps * in, out)

    def convolve(folded: Array) -> Array:
        y = _conv2d(folded, kernel, stride, [(pad, pad)] * 2)
        return y.reshape(batch, -1, *y.shape[1:])

    # Multiply-adds of one tap.
    work = batch * depth * height * width * math.prod(kernel.shape[2:]) / (taps * stride**2)
    count = min(depth, math.ceil(batch * depth / SLAB_SLICES)) if work > SLAB_WORK else 1
    if keep and count == 1:
        return convolve(_fold(parts, taps, depth, stride, pad_z))
    padded = [jnp.pad(p, ((0, 0), (pad_z, pad_z), (0, 0), (0, 0), (0, 0))) for p in parts]
    ends = [depth * n // count for n in range(count + 1)]
    slabs = (_fold_again(padded, taps, *at, stride) for at in pairwise(ends))
    return jnp.concatenate([convolve(slab) for slab in slabs], 1)


def _fold(parts: Sequence[Array], taps: int, depth: int, stride: int, pad_z: int) -> Array:
    """(b, z, y, x, in) parts -> (b * depth, y, x, taps * in): slices with their depth neighbours.

    Padded tap by tap, and rows of slices before they are joined: the least to write for XLA, which
    keeps the one array for the weight gradient. Concatenating [tap][part] in one go also spares the
    copy of the skip connection.
    """

    def seen_by(tap: int, part: Array) -> Array:
        first, last = tap - pad_z, tap - pad_z + (depth - 1) * stride
        around = [(0, 0, 0), (-first, last + 1 - part.shape[1], 0), *[(0, 0, 0)] * 3]
        slices = lax.pad(part, jnp.zeros((), part.dtype), around)[:, ::stride]
        return slices.reshape(-1, *slices.shape[2:])

    return jnp.concatenate([seen_by(tap, part) for tap in range(taps) for part in parts], -1)


def _fold_again(padded: Sequence[Array], taps: int, first: int, end: int, stride: int) -> Array:
    """The same of the slices ``first`` to ``end`` of padded parts, for a third of the memory.

    Joined before they are rows, slices are another array to XLA in the weight gradient. So it folds
    them again there, and what it keeps from the forward pass are the parts.
    """
    at = [slice(tap + first * stride, tap + (end - 1) * stride + 1, stride) for tap in range(taps)]
    folded = jnp.concatenate([part[:, slices] for slices in at for part in padded], -1)
    return folded.reshape(-1, *folded.shape[2:])


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
      lowering: "plain", "native", "folded" or "refolded".
      pad_depth: False where ``x`` holds the slices past its faces already (`halo`).
    Returns: (b, ceil(z / stride), ceil(y / stride), ceil(x / stride), out).
    """
    parts = x if isinstance(x, tuple) else (x,)
    pad = kernel.shape[0] // 2
    pad_z = pad if pad_depth else 0
    if lowering in ("plain", "native"):
        joined = jnp.concatenate(parts, -1)
        return _conv3d_native(joined, kernel, stride, [(pad_z, pad_z), (pad, pad), (pad, pad)])
    return _conv_folded(parts, kernel, stride, pad_z, pad, lowering == "folded")


def _phase_taps() -> np.ndarray:
    """(8 taps, 8 phases, 27 taps): which taps of 3x3x3 each tap of an output phase's 2x2x2 sums.

    Under a nearest-neighbour enlargement by two, an odd output voxel reads (own, own, right) of the
    small grid and an even one (left, own, own), so two taps do, along each axis.
    """
    odd, even = [[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]
    axis = np.stack([odd, even], 1)  # (2 taps, 2 phases, 3 taps)
    return np.kron(np.kron(axis, axis), axis)


def _phase_kernels(kernel: Array) -> Array:
    """(3, 3, 3, in, out) -> (2, 2, 2, in, 8 * out): one 2x2x2 kernel for each output phase."""
    taps = jnp.asarray(_phase_taps(), kernel.dtype)
    kernel = kernel.reshape(27, *kernel.shape[3:])
    phased = jnp.einsum("tpk,kio->tipo", taps, kernel, precision="highest")
    return phased.reshape(2, 2, 2, kernel.shape[1], -1)


def upsample_conv3d(x: Array, kernel: Array, *, lowering: str, pad_depth: bool = True) -> Array:
    """A 3x3x3 convolution of the nearest-neighbour enlargement of ``x`` by two, exactly.

    In polyphase form: each of the eight output phases is a 2x2x2 convolution of the small grid; all
    eight are channels of one convolution over the padded grid, then interleaved.

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
        y = _conv_folded((x,), phased, 1, pad_z, 0, lowering == "folded")
    # Interleaved, odd voxels first, they are 2 (n + 1) an axis: the wanted 2 n are within. (Taken
    # apart and joined they would be eight arrays more, and eight for the gradient.)
    y = y.reshape(b, d + 1, h + 1, w + 1, 2, 2, 2, out).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    y = y.reshape(b, 2 * d + 2, 2 * h + 2, 2 * w + 2, out)
    return y[:, 1:-1, 1:-1, 1:-1]


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
