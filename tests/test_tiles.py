"""Tiles of the segmentor give one pass's result exactly; the generator's are blended."""

from math import prod

import jax
import numpy as np
import pytest
from scipy import ndimage
from tiny_runs import quick_jit, random_tree, tiny_config, tree_of

from cyclesh import state, tiles

CLASSES = 3


def network(player: str, depth: int):
    """(z, y, x) -> (z, y, x) or (z, y, x, classes) of a network with random parameters."""
    config = tiny_config("joint")
    config.model.depth = depth
    net = getattr(state.make_networks(config, CLASSES), player)
    tree = random_tree(tree_of(net), seed=3)
    apply = quick_jit(lambda v: net.apply({"params": tree}, v[None, ..., None])[0])
    if player == "gen":
        return lambda volume: np.asarray(apply(volume))[..., 0]
    return lambda volume: np.asarray(apply(volume))


def noise(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def halo(depth: int) -> int:
    return tiles.rounded_up(tiles.receptive_radius(depth), 2**depth)


def reach(depth: int) -> int:
    """How far a voxel's change is felt, by trying: the largest over its places in pooling cells."""
    config = tiny_config("joint")
    config.model.depth = depth
    net = state.make_networks(config, CLASSES).seg
    # All weights positive: no two ways cancel, and no rectifier closes.
    tree = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.3, np.float32), tree_of(net))
    apply = quick_jit(lambda v: net.apply({"params": tree}, v))
    side, length = 2**depth, 2**depth * (2 * tiles.receptive_radius(depth) // 2**depth + 4)
    furthest = 0
    volume = np.ones((1, length, side, side, 1), np.float32)
    plain = np.asarray(apply(volume))
    for z in range(length // 2, length // 2 + side):
        changed = volume.copy()
        changed[0, z] = 2.0
        felt = np.nonzero((np.asarray(apply(changed)) != plain).any((0, 2, 3, 4)))[0]
        assert felt.min() > 0 and felt.max() < length - 1  # or the volume is too short to tell
        furthest = max(furthest, z - felt.min(), felt.max() - z)
    return int(furthest)


@pytest.mark.parametrize(("depth", "radius"), [(1, 11), (2, 29), (3, 61)])
def test_the_receptive_radius_is_what_a_change_shows(depth, radius):
    assert tiles.receptive_radius(depth) == radius
    # The bound is that of the worst place within a cell.
    assert radius - 2**depth < reach(depth) <= radius


@pytest.mark.parametrize(
    ("depth", "shape", "tile"),
    [
        (1, (50, 8, 9), (28, 8, 10)),
        (1, (43, 39, 6), (30, 26, 6)),
        (2, (101, 7, 12), (72, 8, 12)),
        (3, (173, 8, 8), (144, 8, 8)),
    ],
)
def test_the_segmentors_tiles_give_exactly_one_passs_result(depth, shape, tile):
    apply, volume, multiple = network("seg", depth), noise(shape), 2**depth
    passes = []

    def counted(block):
        passes.append(block.shape)
        return apply(block)

    tiled = tiles.exact(counted, volume, tile, halo(depth), multiple)
    assert set(passes) == {tile} and len(passes) > 1
    whole = apply(volume)
    np.testing.assert_allclose(tiled, whole, atol=2e-5)
    np.testing.assert_array_equal(tiled.argmax(-1), whole.argmax(-1))


def test_a_smaller_halo_would_not_do():
    apply, volume = network("seg", 1), noise((50, 8, 8))
    tiled = tiles.exact(apply, volume, (28, 8, 8), halo(1) - 6, 2)
    assert np.abs(tiled - apply(volume)).max() > 1e-3


def test_blending_hides_the_seam_of_the_generators_tiles():
    """InstanceNorm's statistics differ from tile to tile; the jump at a border shows it."""
    apply = network("gen", 2)
    volume = ndimage.gaussian_filter(noise((64, 16, 16)), 2) * 5  # as smooth as anatomy
    volume += np.linspace(-0.7, 0.7, 64, dtype=np.float32)[:, None, None]  # no tile like another
    whole = apply(volume)
    abutting = np.concatenate([apply(volume[:32]), apply(volume[32:])])
    blend = tiles.blended(apply, volume, (32, 16, 16), 4)

    def seam(result: np.ndarray) -> float:
        """The step in brightness across the border that one pass does not have."""
        apart = (result - whole).mean((1, 2))
        return float(np.abs(apart[32] - apart[31]))

    def error(result: np.ndarray) -> float:
        return float(np.abs(result - whole).mean())

    print(f"seam: {seam(abutting):.3f} abutting, {seam(blend):.3f} blended", end="; ")
    print(f"error: {error(abutting):.3f}, {error(blend):.3f}")
    assert seam(blend) < seam(abutting) / 3
    assert error(blend) < error(abutting)


def test_one_tile_is_one_pass():
    apply, volume = network("gen", 2), noise((13, 10, 11))
    tile = tiles.compact_tile(volume.shape, 10**9, (8, 8, 8), 4)
    assert tile == (16, 12, 12)
    np.testing.assert_array_equal(tiles.blended(apply, volume, tile, 4), apply(volume))


def test_blending_constant_tiles_gives_the_constant():
    volume = noise((37, 21, 30))
    blend = tiles.blended(lambda v: np.full(v.shape, 0.7, np.float32), volume, (16, 16, 16), 8)
    np.testing.assert_allclose(blend, 0.7, rtol=1e-5)


@pytest.mark.parametrize("shape", [(100, 200, 300), (9, 400, 9), (40, 40, 40)])
@pytest.mark.parametrize("largest", [1, 30_000, 10**6, 10**8])
def test_compact_tiles_are_no_larger_than_asked_where_they_can_be(shape, largest):
    tile = tiles.compact_tile(shape, largest, (32, 40, 36), 8)
    whole = [tiles.rounded_up(n, 8) for n in shape]
    least = [min(w, s) for w, s in zip(whole, (32, 40, 40), strict=True)]
    assert all(t % 8 == 0 and low <= t <= w for t, low, w in zip(tile, least, whole, strict=True))
    assert prod(tile) <= largest or list(tile) == least


@pytest.mark.parametrize("shape", [(100, 200, 300), (9, 400, 9), (40, 40, 40)])
@pytest.mark.parametrize("largest", [1, 30_000, 10**6, 10**8])
def test_the_cheapest_tile_is_one_that_fits_and_takes_least(shape, largest):
    multiple, halo = 4, 32
    tile = tiles.cheapest_tile(shape, largest, halo, multiple)
    whole = [tiles.rounded_up(n, multiple) for n in shape]

    def cost(sides) -> int:
        """Voxels computed in all."""
        numbers = [
            1 if side >= n else -(-(n - 2 * halo) // (side - 2 * halo))
            for n, side in zip(whole, sides, strict=True)
        ]
        return prod(numbers) * prod(sides)

    least = tuple(min(n, 2 * halo + multiple) for n in whole)
    if prod(least) > largest:
        assert tile == least
        return
    assert prod(tile) <= largest
    rng = np.random.default_rng(0)
    for _ in range(200):
        other = [
            rng.integers(low // 4, n // 4 + 1) * 4 for low, n in zip(least, whole, strict=True)
        ]
        assert prod(other) > largest or cost(tile) <= cost(other)


@pytest.mark.parametrize(
    ("shape", "tile", "starts"),
    [
        ((16, 16, 64), (16, 16, 16), (0, 0, 28)),  # tiles at 0, 8, ..., 48: between 24 and 32
        ((16, 20, 24), (16, 16, 16), (0, 4, 4)),  # two tiles along y and x
        ((30, 9, 9), (16, 16, 16), (12, 0, 0)),  # tiles at 0, 8 and 16: between the last two
        ((48, 16, 112), (40, 16, 48), (8, 0, 32)),  # along x tiles at 0, 24, 48 and 64
        ((16, 16, 16), (16, 16, 16), (0, 0, 0)),
    ],
)
def test_the_sample_of_a_seam_lies_between_tiles(shape, tile, starts):
    box = tiles.sample_box(shape, tile, multiple=8)
    assert tuple(s.start for s in box) == starts
    assert tuple(s.stop - s.start for s in box) == tile


def test_the_gap_is_zero_where_tiles_change_nothing_and_known_where_they_do():
    volume = np.random.default_rng(0).uniform(-1, 1, (10, 12, 30)).astype(np.float32)
    tile = (16, 16, 16)
    box = tiles.sample_box(volume.shape, tile, 8)
    assert not tiles.gap(np.sin, volume, np.sin(volume), box, 8).any()
    found = tiles.gap(np.sin, volume, np.sin(volume) + 0.25, box, 8)
    assert found.shape == (10, 12, 16)  # what pads the volume is none of it
    np.testing.assert_allclose(found, 0.25, atol=1e-6)


def test_the_longest_side_of_a_tile_is_cut_first():
    # 104 x 200 x 304 voxels, until a million hold it.
    assert tiles.compact_tile((100, 200, 300), 10**6, (32, 40, 36), 8) == (96, 96, 104)
