"""Volumes too large for one pass of a network, in overlapping tiles.

A segmentor has no normalisation, so what it says of a voxel depends on a bounded neighbourhood:
tiles that overlap by it give exactly the result of one pass (`exact`). A generator's InstanceNorm
takes its statistics from the whole tile, so its tiles differ a little wherever they meet; they are
blended with Gaussian weights (`blended`).
"""

from collections.abc import Callable, Iterator
from itertools import product
from math import prod

import numpy as np

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]


def receptive_radius(depth: int) -> int:
    """How far away, in voxels, a voxel can still bear on a segmentor's output (`networks.UNet`).

    Followed backwards from the output: a 3x3x3 convolution adds a voxel of its level; a level up
    (nearest neighbour) halves the distance, a level down (max-pool) doubles it.
    """
    decoded = [0]  # of the decoder's output at each level, in its voxels
    for _ in range(depth):
        decoded.append((decoded[-1] + 4) // 2)  # two convolutions and that of the level up
    encoded = decoded[depth]
    for level in reversed(range(depth)):
        encoded = max(decoded[level] + 2, 2 * (encoded + 2) + 1)
    return encoded + 2


def rounded_up(number: int, multiple: int) -> int:
    """The next multiple, the number itself included."""
    return -(-number // multiple) * multiple


def compact_tile(shape: Shape, largest_voxels: int, smallest: Shape, multiple: int) -> Shape:
    """For `blended`: a tile as large and as near to a cube as `largest_voxels` lets it be.

    Its sides are multiples of `multiple` and, where the volume is larger, at least `smallest`,
    even should the tile then be larger than asked for.
    """
    tile = [rounded_up(n, multiple) for n in shape]
    least = [min(n, rounded_up(s, multiple)) for n, s in zip(tile, smallest, strict=True)]
    while prod(tile) > largest_voxels and tile != least:
        longest = max((axis for axis in range(3) if tile[axis] > least[axis]), key=tile.__getitem__)
        tile[longest] -= multiple
    return tuple(tile)


def cheapest_tile(shape: Shape, largest_voxels: int, halo: int, multiple: int) -> Shape:
    """For `exact`: of the tiles of at most `largest_voxels` that with the least to compute in all.

    If none is so small, the smallest that leaves something within its halo.
    """
    choices = [_sides(rounded_up(n, multiple), halo, multiple) for n in shape]
    tiles = [tuple(zip(*choice, strict=True)) for choice in product(*choices)]
    fitting = [tile for tile in tiles if prod(tile[0]) <= largest_voxels]
    sides, _ = (
        min(fitting, key=lambda t: prod(t[0]) * prod(t[1]))
        if fitting
        else min(tiles, key=lambda t: prod(t[0]))
    )
    return sides


def _sides(length: int, halo: int, multiple: int) -> list[tuple[int, int]]:
    """(side of a tile, number of tiles) of each number that an axis can sensibly be cut into."""
    sides = [(length, 1)]
    while sides[-1][0] > 2 * halo + multiple:
        count = sides[-1][1] + 1
        side = rounded_up(-(-(length + (count - 1) * 2 * halo) // count), multiple)
        sides.append((max(side, 2 * halo + multiple), count))
    return sides


def exact(
    apply: Callable[[np.ndarray], np.ndarray],
    volume: np.ndarray,
    tile: Shape,
    halo: int,
    multiple: int,
) -> np.ndarray:
    """`apply(volume)` of a network whose receptive radius is at most `halo`, tile by tile.

    Tiles start at multiples of `multiple` (2**depth: where the network's pooling cells start), as
    `halo` is one, and none reaches beyond the volume as the network itself pads it: at the volume's
    faces the network's own zero padding is right, everywhere else it is `halo` voxels away.

    Args:
      apply: (z, y, x) -> (z, y, x, ...), for volumes of the shape `tile`.
      tile: from `cheapest_tile`.
    """
    padded = _padded(volume, multiple)
    result = None
    for box in _boxes(padded.shape, tile, _exact_steps(tile, halo)):
        values = apply(padded[box])
        if result is None:
            result = np.empty((*padded.shape, *values.shape[3:]), values.dtype)
        sound = tuple(
            slice(
                s.start + (halo if s.start else 0),
                s.stop - (halo if s.stop < n else 0),
            )
            for s, n in zip(box, padded.shape, strict=True)
        )
        result[sound] = values[_relative(sound, box)]
    return result[tuple(slice(n) for n in volume.shape)]


def blended(
    apply: Callable[[np.ndarray], np.ndarray], volume: np.ndarray, tile: Shape, multiple: int
) -> np.ndarray:
    """`apply(volume)`, (z, y, x) -> (z, y, x), as the weighted mean of tiles that overlap by half.

    The weights fall off from each tile's middle with a standard deviation of an eighth of its side
    (those of nnU-Net, Isensee et al. 2021), so no tile's border shows.
    """
    padded = _padded(volume, multiple)
    if tile == padded.shape:
        return apply(padded)[tuple(slice(n) for n in volume.shape)]
    weights = gaussian_weights(tile)
    total, weight = np.zeros(padded.shape, np.float32), np.zeros(padded.shape, np.float32)
    for box in _boxes(padded.shape, tile, _half_steps(tile, multiple)):
        total[box] += weights * apply(padded[box])
        weight[box] += weights
    return (total / weight)[tuple(slice(n) for n in volume.shape)]


def sample_box(shape: Shape, tile: Shape, multiple: int) -> Box:
    """Where a single pass shows best what `blended` does: a tile's box half-way between its tiles.

    Or nearly: a network that halves volumes changes its result when they are shifted, tiles or
    not, but by a `multiple` of voxels; so by that, where steps are long enough.

    shape: of the volume; the box lies within it, rounded up to `multiple`.
    """
    starts = []
    for n, t, step in zip(shape, tile, _half_steps(tile, multiple), strict=True):
        last = rounded_up(n, multiple) - t
        between = step // 2 // multiple * multiple or step // 2
        starts.append(min(last // 2 // step * step + between, last))
    return tuple(slice(s, s + t) for s, t in zip(starts, tile, strict=True))


def gap(
    apply: Callable[[np.ndarray], np.ndarray],
    volume: np.ndarray,
    result: np.ndarray,
    box: Box,
    multiple: int,
) -> np.ndarray:
    """How far `result`, from tiles, is from `apply` of `box` in one pass: absolute differences."""
    once = apply(_padded(volume, multiple)[box])
    within = tuple(slice(s.start, min(s.stop, n)) for s, n in zip(box, volume.shape, strict=True))
    return np.abs(result[within] - once[_relative(within, box)])


def gaussian_weights(tile: Shape) -> np.ndarray:
    """float32 (z, y, x), the largest in the middle of the tile; all positive."""
    sides = []
    for n in tile:
        distance = (np.arange(n) - (n - 1) / 2) / (n / 8)
        sides.append(np.exp(-0.5 * distance**2))
    z, y, x = sides
    return (z[:, None, None] * y[:, None] * x).astype(np.float32)


def _padded(volume: np.ndarray, multiple: int) -> np.ndarray:
    """As the networks pad (`ops.pad_to_multiple`), which they need not do then."""
    return np.pad(volume, [(0, -n % multiple) for n in volume.shape], mode="edge")


def _exact_steps(tile: Shape, halo: int) -> Shape:
    return tuple(max(t - 2 * halo, 1) for t in tile)


def _half_steps(tile: Shape, multiple: int) -> Shape:
    return tuple(max(t // 2 // multiple, 1) * multiple for t in tile)


def _boxes(shape: Shape, tile: Shape, steps: Shape) -> Iterator[Box]:
    """Tiles of one shape that cover the volume; the last along an axis ends with the volume."""
    starts = []
    for n, t, step in zip(shape, tile, steps, strict=True):
        starts.append([*range(0, n - t, step), n - t])
    for corner in product(*starts):
        yield tuple(slice(s, s + t) for s, t in zip(corner, tile, strict=True))


def _relative(inner: Box, outer: Box) -> Box:
    return tuple(
        slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True)
    )
