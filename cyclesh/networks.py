"""The networks: section 4.1's UNet (generators and segmentors) and PatchGAN, CycleGAN's ResNet.

A network is a Flax module used as a pure function, ``network.apply({"params": tree}, volume)``;
both domains share one module and differ in their parameter trees. How a layer is computed fast is
in `ops`, and in `halo` where a volume is spread over devices: layers only hand on `lowering`,
`remat` and `mesh`.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from cyclesh import halo, ops


def parameter_shapes(net: nn.Module) -> dict:
    """The shapes of a network's parameters, which no grid size changes."""
    volume = jnp.zeros((1, 32, 32, 32, 1))
    return jax.eval_shape(lambda: net.init(jax.random.key(0), volume)["params"])


def draw_parameters(net: nn.Module, key: Array, std: Callable[[int], float]) -> dict:
    """Fresh parameters: normal kernels of deviation ``std(fan_in)``, biases zero.

    Modules only give the shapes, and all kernels are cut from one draw: a random number generator
    a layer takes minutes to compile for six networks.
    """
    leaves, tree = jax.tree.flatten(parameter_shapes(net))
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    normal = jax.random.normal(key, (ends[-1],))

    def cut(leaf, end: int) -> Array:
        if len(leaf.shape) == 1:
            return jnp.zeros(leaf.shape)
        fan_in = math.prod(leaf.shape[:-1])
        return std(fan_in) * normal[end - leaf.size : end].reshape(leaf.shape)

    return tree.unflatten([cut(leaf, end) for leaf, end in zip(leaves, ends, strict=True)])


def scaled_std(fan_in: int, gain: float) -> float:
    """Deviation of a kernel whose output has ``gain`` times the second moment of its input.

    With a gain of 2 (He et al., ICCV 2015) activations keep their scale through ReLUs without any
    norm.
    """
    return math.sqrt(gain / fan_in)


class Conv(nn.Module):
    """3D convolution; ``up`` puts a nearest-neighbour enlargement by two before it."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    up: bool = False
    use_bias: bool = True
    dtype: str = "float32"  # of the arithmetic; parameters stay float32
    lowering: str = "native"
    mesh: Mesh | None = None  # devices over which the volume's depth is spread (`halo`)

    @nn.compact
    def __call__(self, x: Array | tuple[Array, ...]) -> Array:
        """(b, z, y, x, c) -> (b, z', y', x', features) in ``dtype``.

        A tuple stands for its parts joined along c; with ``up`` there is one part.
        """
        parts = x if isinstance(x, tuple) else (x,)
        channels = sum(part.shape[-1] for part in parts)
        shape = (*(self.kernel_size,) * 3, channels, self.features)
        kernel = self.param("kernel", nn.initializers.zeros, shape).astype(self.dtype)
        parts = tuple(part.astype(self.dtype) for part in parts)
        if self.up:
            (part,) = parts
            y = halo.upsample_conv3d(part, kernel, lowering=self.lowering, mesh=self.mesh)
        else:
            y = halo.conv3d(
                parts, kernel, stride=self.stride, lowering=self.lowering, mesh=self.mesh
            )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            # Added in float32 and rounded then: its gradient is a sum over all voxels, for which
            # bfloat16 is too coarse.
            y = (y + bias).astype(self.dtype)
        return y


class Block(nn.Module):
    """Convolution, InstanceNorm if any, activation."""

    features: int
    conv: Callable[..., Conv]
    activation: Callable[[Array], Array]
    norm_epsilon: float | None = None  # None: no normalisation
    stride: int = 1
    up: bool = False
    mesh: Mesh | None = None  # that of its convolution

    @nn.compact
    def __call__(self, x: Array | tuple[Array, ...]) -> Array:
        """As `Conv`."""
        normed = self.norm_epsilon is not None
        # InstanceNorm subtracts whatever a bias adds, so a bias before it would never learn.
        x = self.conv(self.features, stride=self.stride, up=self.up, use_bias=not normed)(x)
        if normed:
            x = halo.instance_norm(x, self.norm_epsilon, self.mesh)
        return self.activation(x)


class UNet(nn.Module):
    """3D U-Net: two 3x3x3 convolutions a level, long skips, nearest up + convolution (4.1).

    Any grid size works: the volume is padded to a multiple of 2**depth, its far faces repeated,
    and the result cropped back (the paper's own 86x112x112 is not divisible by 8).
    """

    out_channels: int
    filters: int  # at full resolution; doubled at each level
    conv: Callable[..., Conv]
    depth: int = 3  # downsamplings
    pooling: bool = False  # max-pool (segmentor) instead of a stride-2 convolution (generator)
    norm_epsilon: float | None = None
    activation: Callable[[Array], Array] = nn.relu
    out_activation: Callable[[Array], Array] = lambda x: x
    remat: bool = False  # recompute blocks in the backward pass instead of storing them
    mesh: Mesh | None = None  # that of its convolutions

    @nn.compact
    def __call__(self, volume: Array) -> Array:
        """(b, z, y, x, channels) -> float32 (b, z, y, x, out_channels)."""
        size = volume.shape[1:4]
        x = ops.pad_to_multiple(volume, 2**self.depth)
        make = nn.remat(Block) if self.remat else Block
        block = partial(
            make,
            conv=self.conv,
            activation=self.activation,
            norm_epsilon=self.norm_epsilon,
            mesh=self.mesh,
        )
        widths = [self.filters * 2**level for level in range(self.depth + 1)]
        skips = []
        for level, width in enumerate(widths):
            if level and self.pooling:
                x = halo.max_pool(x, self.mesh)
            elif level:
                x = block(width, stride=2, name=f"down{level}")(x)
            x = block(width, name=f"encode{level}a")(x)
            x = block(width, name=f"encode{level}b")(x)
            skips.append(x)
        for level in reversed(range(self.depth)):
            x = block(widths[level], up=True, name=f"up{level}")(x)
            x = block(widths[level], name=f"decode{level}a")((x, skips[level]))
            x = block(widths[level], name=f"decode{level}b")(x)
        x = self.conv(self.out_channels, kernel_size=1, name="out")(x)
        x = x[:, : size[0], : size[1], : size[2]]
        return self.out_activation(x.astype(jnp.float32))


class PatchDiscriminator(nn.Module):
    """PatchGAN: judges overlapping sub-volumes, one score each (4.1).

    The default, widths (2f, 4f, 8f, 1) with strides (2, 2, 1, 1), sees 23^3 voxels a score, the
    reach of the discriminator that the paper cites; z' is then z / 4, rounded up. InstanceNorm on
    all but the first and the last layer, LeakyReLU.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...]
    conv: Callable[..., Conv]
    leak: float = 0.2  # slope of its LeakyReLU below zero
    norm_epsilon: float = 1e-5
    mesh: Mesh | None = None  # that of its convolutions

    @nn.compact
    def __call__(self, volume: Array) -> Array:
        """(b, z, y, x, 1) -> float32 (b, z', y', x', 1): near 1 looks real, near 0 synthetic."""
        leaky_relu = partial(nn.leaky_relu, negative_slope=self.leak)
        x = volume
        for i, (width, stride) in enumerate(zip(self.widths[:-1], self.strides[:-1], strict=True)):
            epsilon = self.norm_epsilon if i else None
            block = partial(Block, width, self.conv, leaky_relu, epsilon, stride, mesh=self.mesh)
            x = block(name=f"layer{i}")(x)
        x = self.conv(self.widths[-1], stride=self.strides[-1], name="out")(x)
        return x.astype(jnp.float32)


class ResNetGenerator(nn.Module):
    """The generator of CycleGAN in 3D, which the paper criticises in Figure 3.

    Two stride-2 convolutions, residual blocks at the bottom, two transposed convolutions, no long
    skips. Unlike the original, its stem and its output convolution are 3x3x3 instead of 7 wide,
    borders are padded with zeros instead of by reflection, and its widths are f, 2f and 4f; it has
    the 6 blocks of CycleGAN for images of 128 pixels by default. Kept for that comparison only.
    """

    filters: int
    blocks: int
    conv: Callable[..., Conv]
    norm_epsilon: float = 1e-5
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(self, volume: Array) -> Array:
        """(b, z, y, x, 1) -> float32 (b, z, y, x, 1) in [-1, 1]."""
        size = volume.shape[1:4]
        make = nn.remat(Block) if self.remat else Block
        block = partial(make, conv=self.conv, norm_epsilon=self.norm_epsilon)
        x = ops.pad_to_multiple(volume, 4)
        x = block(self.filters, activation=nn.relu, name="stem")(x)
        for level in (1, 2):
            x = block(self.filters * 2**level, activation=nn.relu, stride=2, name=f"down{level}")(x)
        for i in range(self.blocks):
            width = self.filters * 4
            inner = block(width, activation=nn.relu, name=f"residual{i}a")(x)
            x = x + block(width, activation=lambda v: v, name=f"residual{i}b")(inner)
        for level in (1, 0):
            x = nn.ConvTranspose(
                self.filters * 2**level,
                (3, 3, 3),
                (2, 2, 2),
                use_bias=False,
                dtype=self.dtype,
                kernel_init=nn.initializers.zeros,
                name=f"up{level}",
            )(x)
            x = nn.relu(ops.instance_norm(x, self.norm_epsilon))
        x = self.conv(1, name="out")(x)[:, : size[0], : size[1], : size[2]]
        return jnp.tanh(x.astype(jnp.float32))
