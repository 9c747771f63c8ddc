"""Moves of training volumes: by hand where they are known, in their ranges where they are drawn."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from configs import default
from cyclesh.data.augment import Augment, apply_matrix, augment_volume, draw_matrix

NONE = Augment(shift_mm=0.0, rotate_deg=0.0, scale=0.0, flip=False)
USUAL = Augment(shift_mm=6.0, rotate_deg=8.0, scale=0.08, flip=False)
EYE = np.eye(3)


def draw(seed=0, shape=(6, 8, 10)):
    rng = np.random.default_rng(seed)
    image = rng.uniform(-1, 1, shape).astype(np.float32)
    return image, rng.integers(0, 4, shape).astype(np.uint8)


def blob(shape=(26, 30, 34)):
    """A bright ball of class 1 with a dark core of class 2, off the centre."""
    away = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - [12, 16, 15], axis=-1)
    label = np.where(away < 4, 2, np.where(away < 8, 1, 0)).astype(np.uint8)
    return np.choose(label, [-0.5, 1.0, -1.0]).astype(np.float32), label


def draws(augment, count=300):
    pairs = [draw_matrix(augment, np.random.default_rng([5, n])) for n in range(count)]
    return np.stack([m for m, _ in pairs]), np.stack([s for _, s in pairs])


def test_inactive_hands_back_what_it_was_given():
    image, label = draw()
    moved = augment_volume(image, label, NONE, (1, 2, 3), np.random.default_rng(0))
    assert not NONE.active and moved[0] is image and moved[1] is label


@pytest.mark.parametrize("field", ["shift_mm", "rotate_deg", "scale", "flip"])
def test_any_one_field_makes_it_active(field):
    assert Augment(**{**NONE.__dict__, field: 1}).active


def test_no_move_is_no_change():
    image, label = draw()
    moved = apply_matrix(image, label, EYE, np.zeros(3), (1.5, 2, 3))
    np.testing.assert_allclose(moved[0], image, atol=1e-6)
    np.testing.assert_array_equal(moved[1], label)


def test_a_shift_is_in_millimetres():
    # (4, -2, 6) mm at (2, 1, 3) mm a voxel is (2, -2, 2) voxels: output voxel i reads i + that.
    image, label = draw()
    for array, moved in zip(
        (image, label),
        apply_matrix(image, label, EYE, np.array([4, -2, 6]), (2, 1, 3)),
        strict=True,
    ):
        np.testing.assert_array_equal(moved[:4, 2:, :8], array[2:, :6, 2:])
        # Beyond the volume, the nearest face.
        np.testing.assert_array_equal(moved[4:, 2:, :8], array[[5, 5], :6, 2:])
        np.testing.assert_array_equal(moved[:4, :2, :8], array[2:, [0, 0], 2:])


def test_half_a_voxel_is_interpolated_in_images_only():
    image = np.array([0.0, 1.0, 0.5, -1.0], np.float32).reshape(1, 1, 4)
    label = np.array([0, 3, 1, 1], np.uint8).reshape(1, 1, 4)
    moved, classes = apply_matrix(image, label, EYE, np.array([0, 0, 1.0]), (2, 2, 2))
    np.testing.assert_allclose(moved.ravel(), [0.5, 0.75, -0.25, -1.0], atol=1e-6)
    assert set(classes.ravel()) <= {0, 1, 3}  # a class between two is no mean of them


def test_a_quarter_turn_on_a_grid_of_unequal_spacing():
    # Planes of 5 x 3 voxels, 1 and 2 mm: as many mm along y as along x. Turned about their centre.
    image, label = draw(shape=(2, 5, 3))
    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # (z, y, x) reads (z, -x, y)
    moved, classes = apply_matrix(image, label, turn, np.zeros(3), (4, 1, 2))
    for y, x in ((0, 0), (2, 1), (4, 0), (0, 2), (2, 2)):
        from_y, from_x = 2 - 2 * (x - 1), 1 + (y - 2) // 2
        np.testing.assert_allclose(moved[:, y, x], image[:, from_y, from_x], atol=1e-6)
        np.testing.assert_array_equal(classes[:, y, x], label[:, from_y, from_x])


def test_scaling_is_about_the_centre():
    image, label = draw(shape=(5, 5, 5))
    moved, classes = apply_matrix(image, label, 2 * EYE, np.zeros(3), (1, 2, 3))
    np.testing.assert_allclose(moved[1:4, 1:4, 1:4], image[::2, ::2, ::2], atol=1e-6)
    np.testing.assert_array_equal(classes[1:4, 1:4, 1:4], label[::2, ::2, ::2])


def test_labels_move_with_their_voxels():
    image, label = blob()
    shares = []
    for seed in range(15):
        moved, classes = augment_volume(
            image, label, USUAL, (2, 1.5, 1), np.random.default_rng(seed)
        )
        assert (moved.shape, moved.dtype) == (image.shape, np.float32)
        assert (classes.shape, classes.dtype) == (label.shape, np.uint8)
        shares.append(np.mean(classes[label == 1] == 1))
        # Well within each class, and well without, intensities are still those of the class.
        assert np.median(moved[classes == 1]) > 0.99
        assert np.median(moved[classes == 2]) < -0.8
        assert np.mean(np.abs(moved[classes == 0] + 0.5) < 0.01) > 0.9
        seen = np.choose(classes, [-0.5, 1.0, -1.0])
        assert np.corrcoef(moved.ravel(), seen.ravel())[0, 1] > 0.9
    assert min(shares) < 0.7  # it did move


def test_ranges():
    matrices, shifts = draws(USUAL)
    scales = np.cbrt(np.linalg.det(matrices))
    assert 0.92 <= scales.min() < 0.93 and 1.07 < scales.max() <= 1.08
    assert np.abs(shifts).max() <= 6 and (np.abs(shifts).max(0) > 5.5).all()
    assert (np.abs(shifts.mean(0)) < 1).all()
    rotations = Rotation.from_matrix(matrices / scales[:, None, None])
    angles = rotations.as_euler("xyz", degrees=True)
    assert np.abs(angles).max() <= 8 + 1e-9 and (np.abs(angles).max(0) > 7.5).all()


def test_each_range_alone():
    matrices, shifts = draws(Augment(3.0, 0.0, 0.0, False), 20)
    assert (matrices == EYE).all() and (shifts != 0).all()
    matrices, shifts = draws(Augment(0.0, 0.0, 0.1, False), 20)
    assert not shifts.any() and all(np.array_equal(m, m[0, 0] * EYE) for m in matrices)
    matrices, shifts = draws(Augment(0.0, 5.0, 0.0, False), 20)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), [EYE] * 20, atol=1e-12)
    assert not shifts.any()


def test_hearts_are_not_mirrored_unless_asked():
    for preset in default.PRESETS:
        augment = Augment(**default.build(preset, "joint").augment.to_dict())
        assert not augment.flip and augment.active
        assert (np.linalg.det(draws(augment, 100)[0]) > 0).all()
    mirrored = np.linalg.det(draws(Augment(6.0, 8.0, 0.08, True))[0]) < 0
    assert 0.4 < mirrored.mean() < 0.6


def test_a_flip_exchanges_left_and_right():
    image, label = draw()
    flip = Augment(0.0, 0.0, 0.0, True)
    seen = set()
    for seed in range(12):
        moved, classes = augment_volume(image, label, flip, (1, 2, 3), np.random.default_rng(seed))
        mirrored = np.array_equal(classes, label[:, :, ::-1])
        expected = image[:, :, ::-1] if mirrored else image
        np.testing.assert_allclose(moved, expected, atol=1e-6)
        assert mirrored or np.array_equal(classes, label)
        seen.add(mirrored)
    assert seen == {True, False}


def test_a_function_of_the_generators_state():
    image, label = blob()
    first, again, other = (
        augment_volume(image, label, USUAL, (1, 1, 1), np.random.default_rng(seed))
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
