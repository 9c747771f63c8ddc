"""Displacements that are known come back, in mm."""

import numpy as np
import pytest
from scipy import ndimage

from cyclesh.scoring.shift import phase_shift_mm, structures_shift_mm

SPACING_MM = (4.0, 2.0, 1.0)


def labels() -> np.ndarray:
    volume = np.zeros((12, 14, 16), np.uint8)
    volume[3:6, 4:7, 5:8], volume[7:9, 8:11, 9:12] = 1, 2
    volume[0, 0, 0] = 3  # too small to have a centre worth taking
    return volume


def test_structures_that_moved_by_voxels_moved_by_their_millimetres():
    moved = np.roll(labels(), (1, -2, 3), axis=(0, 1, 2))
    found = structures_shift_mm(moved, labels(), 4, SPACING_MM)
    assert found == pytest.approx([4.0, -4.0, 3.0])
    assert structures_shift_mm(labels(), labels(), 4, SPACING_MM) == pytest.approx([0, 0, 0])


def test_a_structure_that_is_not_found_is_left_out_and_none_is_nan():
    moved = np.roll(labels(), 2, axis=2)
    moved[moved == 2] = 0
    assert structures_shift_mm(moved, labels(), 4, SPACING_MM) == pytest.approx([0, 0, 2])
    assert np.isnan(structures_shift_mm(np.zeros_like(moved), labels(), 4, SPACING_MM)).all()


@pytest.mark.parametrize(
    "voxels", [(0, 0, 0), (0, 0, 3), (2, -1, 0), (0, 0, 1.5), (-2.3, 0.6, 3.4)]
)
def test_phase_correlation_finds_a_shift_through_noise_and_another_contrast(voxels):
    rng = np.random.default_rng(0)
    scene = ndimage.gaussian_filter(rng.normal(size=(40, 50, 50)), 2.0)
    scene /= scene.std()
    moved = ndimage.shift(scene, voxels, order=3, mode="wrap")
    inner = (slice(4, 36), slice(5, 45), slice(5, 45))
    moved, fixed = moved[inner], np.tanh(scene[inner])
    noise = rng.normal(size=(2, *fixed.shape)) * 0.2
    found = phase_shift_mm(moved + noise[0], fixed + noise[1], (2.0, 2.0, 2.0))
    assert found == pytest.approx(np.array(voxels) * 2, abs=1.0)  # half a voxel
