import numpy as np
import pytest
from scipy import ndimage

from cyclesh.data.geometry import (
    Grid,
    covering_grid,
    crop_grid,
    extended,
    inside,
    mask_box_mm,
    misalignment_voxels,
    resample_image,
    resample_labels,
)


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return about_z @ about_x


def scan_grid(columns: np.ndarray, shape: tuple[int, int, int]) -> Grid:
    """A grid whose (x, y, z) index axes are `columns`, centred on (12, -7, 30) mm."""
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = np.array([12.0, -7, 30]) - columns @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid(shape, affine)


LPS = np.diag([-1.0, -1, 1])
PIR = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # x index to the back, y down, z to the right
SCANS = {
    "RAS": scan_grid(np.eye(3) * 1.5, (40, 44, 48)),
    "LPS": scan_grid(LPS * 1.5, (40, 44, 48)),
    "PIR": scan_grid(PIR * 1.5, (48, 40, 44)),
    "oblique": scan_grid(rotation(20) @ LPS * 1.5, (48, 52, 56)),
    "anisotropic": scan_grid(LPS * [0.9, 1.2, 3.1], (20, 56, 72)),
    "oblique anisotropic": scan_grid(rotation(-15) @ PIR * [1, 2.5, 1.1], (60, 26, 62)),
}


def smooth(world: np.ndarray) -> np.ndarray:
    """An intensity that linear interpolation follows well, different along each axis."""
    x, y, z = world[..., 0], world[..., 1], world[..., 2]
    return 100 * np.sin(x / 20) + 80 * np.cos(y / 17) + 60 * np.sin(z / 15 + x / 40)


def on(grid: Grid, function) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    return function(grid.world_mm(index)).reshape(grid.shape)


def interior(source: Grid, target: Grid) -> np.ndarray:
    """Voxels of `target` at least two voxels within `source`."""
    return inside(source.block((2, 2, 2), tuple(n - 4 for n in source.shape)), target)


def test_voxel_centres_by_hand():
    # 4 x 3 x 2 voxels (x, y, z) of 2 x 3 x 5 mm about (0, 0, 0): the first centre is 1.5, 1 and
    # 0.5 voxels before the middle.
    grid = crop_grid((0, 0, 0), (5, 3, 2), (2, 3, 4))
    np.testing.assert_allclose(grid.world_mm([[0, 0, 0]]), [[-3, -3, -2.5]])
    np.testing.assert_allclose(grid.world_mm([[1, 2, 3]]), [[3, 3, 2.5]])
    np.testing.assert_allclose(grid.index([[3, 3, 2.5]]), [[1, 2, 3]])
    assert grid.spacing_mm == (5, 3, 2)
    np.testing.assert_allclose(grid.corners_mm().min(0), [-4, -4.5, -5])


def test_network_axes_run_to_the_head_the_front_and_the_right():
    # An LPS scan: indices grow to the left, the back and the head. One bright voxel, by hand.
    scan = Grid((5, 5, 5), np.diag([-2.0, -2, 2, 1]))
    image = np.zeros((5, 5, 5), np.float32)
    image[4, 1, 3] = 1  # 8 mm up, 2 mm to the back, 6 mm to the left: (x, y, z) = (-6, -2, 8)
    crop = resample_image(image, scan, crop_grid((-4, -4, 4), (2, 2, 2), (5, 5, 5)), fill=0)
    assert crop.argmax() == np.ravel_multi_index((4, 3, 1), (5, 5, 5))
    assert crop.max() == pytest.approx(1)


def test_half_a_voxel_off_is_the_mean_of_neighbours():
    scan = Grid((1, 1, 4), np.eye(4))
    image = np.array([[[10.0, 20, 40, 80]]], np.float32)
    target = scan.block((0, 0, 0), (1, 1, 6))
    target.affine[0, 3] = -1.5
    # Centres at -1.5, -0.5, 0.5, 1.5, 2.5, 3.5: the border's value holds for half a voxel.
    result = resample_image(image, scan, target, fill=-7)
    np.testing.assert_allclose(result[0, 0], [-7, 10, 15, 30, 60, 80])


@pytest.mark.parametrize("name", SCANS)
def test_positions_survive_any_orientation(name):
    scan = SCANS[name]
    target = crop_grid((12, -7, 30), (1.5, 1.5, 1.5), (24, 26, 28))
    got = resample_image(on(scan, smooth), scan, target, fill=0)
    within = interior(scan, target)
    assert within.mean() > 0.9
    assert np.abs(got - on(target, smooth))[within].max() < 3


@pytest.mark.parametrize("name", SCANS)
def test_there_and_back_is_the_identity_within_interpolation(name):
    scan = SCANS[name]
    there = covering_grid(scan, (1.5, 1.5, 1.5))
    image = on(scan, smooth).astype(np.float32)
    back = resample_image(resample_image(image, scan, there, fill=0), there, scan, fill=0)
    middle = tuple(slice(3, -3) for _ in range(3))
    assert back.shape == image.shape
    assert np.abs(back - image)[middle].max() < 4  # of a range of 480


@pytest.mark.parametrize("name", SCANS)
def test_labels_there_and_back_keep_values_and_places(name):
    scan = SCANS[name]
    centre, values = np.array([12.0, -7, 30]), {0, 1, 3}

    def anatomy(world):
        away = np.linalg.norm((world - centre) / [1, 0.8, 1.2], axis=-1)
        return np.where(away < 10, 3, np.where(away < 16, 1, 0))

    labels = on(scan, anatomy).astype(np.uint8)
    there = covering_grid(scan, (1.5, 1.5, 1.5))
    back = resample_labels(resample_labels(labels, scan, there), there, scan)
    assert back.dtype == np.uint8 and set(np.unique(back)) == values
    for value in (1, 3):
        both = (labels == value).sum() + (back == value).sum()
        assert 2 * ((labels == value) & (back == value)).sum() / both > 0.9


@pytest.mark.parametrize("spacing_mm", [(1.5, 1.5, 1.5), (4, 3, 5)])
def test_axis_by_axis_equals_the_general_interpolation(spacing_mm):
    scan = SCANS["PIR"]
    image = np.random.default_rng(0).normal(size=scan.shape).astype(np.float32)
    target = crop_grid((10, -5, 28), spacing_mm, (7, 8, 9))
    index = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"), -1).reshape(-1, 3)
    at = scan.index(target.world_mm(index)).T
    # PIR: the scan's (z, y, x) indices run along the world's x, z, y.
    ratio = np.array([spacing_mm[2], spacing_mm[0], spacing_mm[1]]) / 1.5
    sigma = np.sqrt(np.maximum(ratio**2 - 1, 0)) / 2.354820045
    smoothed = ndimage.gaussian_filter(image, sigma, mode="nearest")
    expected = ndimage.map_coordinates(smoothed, at, order=1, mode="nearest")
    got = resample_image(image, scan, target, fill=0)
    np.testing.assert_allclose(got.ravel(), expected, atol=2e-6)


@pytest.mark.parametrize("degrees", [0, 20])
def test_coarsening_does_not_alias(degrees):
    # A chessboard of +-1 is pure noise at half the resolution; its mean is 0.
    scan = scan_grid(rotation(degrees), (32, 32, 32))
    board = np.indices(scan.shape).sum(0) % 2 * 2.0 - 1
    coarse = resample_image(board, scan, covering_grid(scan, (2.1, 2.1, 2.1)), fill=0)
    middle = tuple(slice(n // 4, -(n // 4)) for n in coarse.shape)  # else the fill is in sight
    assert np.abs(coarse[middle]).max() < 0.05
    assert np.abs(board[::2, ::2, ::2]).min() == 1  # what taking every second voxel would give


def test_coarsening_keeps_constants_and_volumes():
    scan = SCANS["anisotropic"]
    target = covering_grid(scan, (4, 4, 4))
    constant = resample_image(np.full(scan.shape, 37.0), scan, target, fill=37)
    np.testing.assert_allclose(constant, 37, rtol=1e-6)
    ball = on(scan, lambda w: np.linalg.norm(w - [12, -7, 30], axis=-1) < 14).astype(np.uint8)
    volume = ball.sum() * np.prod(scan.spacing_mm)
    assert (resample_labels(ball, scan, target) == 1).sum() * 64 == pytest.approx(volume, rel=0.03)


def test_crop_larger_than_the_scan_is_filled():
    scan = SCANS["LPS"]
    target = crop_grid((12, -7, 30), (1.5, 1.5, 1.5), (60, 60, 60))
    image = resample_image(np.full(scan.shape, 50.0), scan, target, fill=-800)
    labels = resample_labels(np.ones(scan.shape, np.uint8), scan, target)
    assert set(np.unique(image)) == {-800, 50}
    assert (image == 50).sum() == labels.sum() == np.prod(scan.shape)
    assert (image[10:50, 8:52, 6:54] == 50).all()  # the scan sits in the middle


def test_disjoint_grids_give_fill_only():
    scan, far = SCANS["oblique"], crop_grid((500, 0, 0), (2, 2, 2), (4, 4, 4))
    assert (resample_image(np.ones(scan.shape), scan, far, fill=-3) == -3).all()
    assert not resample_labels(np.ones(scan.shape, np.uint8), scan, far).any()
    assert not inside(scan, far).any()


def test_labels_tie_to_the_lower_class():
    scan = Grid((1, 1, 4), np.eye(4))
    labels = np.array([[[0, 2, 1, 0]]], np.uint8)
    between = scan.block((0, 0, 0), (1, 1, 3))
    between.affine[0, 3] = 0.5
    np.testing.assert_array_equal(resample_labels(labels, scan, between)[0, 0], [0, 1, 0])


@pytest.mark.parametrize("name", SCANS)
def test_mask_box_equals_that_of_all_voxels(name):
    scan = SCANS[name]
    mask = np.random.default_rng(3).random(scan.shape) > 0.9995
    points = scan.world_mm(np.argwhere(mask))
    low, high = mask_box_mm(mask, scan)
    np.testing.assert_allclose(low, points.min(0))
    np.testing.assert_allclose(high, points.max(0))


def test_extended_holds_the_box_and_the_grid():
    grid = crop_grid((0, 0, 0), (2, 2, 2), (4, 4, 4))  # centres at -3 ... 3
    whole, inner = extended(grid, np.array([-3, -3.5, -9]), np.array([3, 6.5, 0]))
    # z: -9 needs 3 voxels below; y: 6.5 needs 2 above (centres at 5 and 7); x needs none.
    assert whole.shape == (7, 6, 4) and inner == (slice(3, 7), slice(0, 4), slice(0, 4))
    np.testing.assert_allclose(whole.world_mm([[3, 0, 0]]), grid.world_mm([[0, 0, 0]]))


@pytest.mark.parametrize("name", SCANS)
def test_covering_grid_covers(name):
    grid = covering_grid(SCANS[name], (3, 2, 2.5))
    assert inside(grid, SCANS[name]).all()
    assert grid.spacing_mm == pytest.approx((3, 2, 2.5))


def test_covering_grid_of_its_own_spacing_adds_no_layer():
    assert covering_grid(SCANS["LPS"], (1.5, 1.5, 1.5)).shape == (40, 44, 48)


def test_misalignment_in_voxels():
    scan = SCANS["LPS"]
    assert misalignment_voxels(scan, scan) == 0
    assert misalignment_voxels(scan, scan.block((0, 0, 2), scan.shape)) == pytest.approx(2)
    assert misalignment_voxels(scan, SCANS["PIR"]) == np.inf
    assert misalignment_voxels(scan, Grid(scan.shape, SCANS["RAS"].affine)) > 40
