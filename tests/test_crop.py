"""One volume on the training grid."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scan_files import BALLS, HEART, LPS, balls, voxels

from cyclesh.data.crop import class_indices, crop_case, intensity_window
from cyclesh.data.geometry import Grid, resample_image, resample_labels
from cyclesh.data.nifti import Scan
from cyclesh.data.raw import Case
from cyclesh.data.store import restore
from cyclesh.errors import UserError


def scan(values: np.ndarray, affine: np.ndarray) -> Scan:
    return Scan(values, Grid(values.shape, affine), "int16", "")


CT_CASE = Case("ct_1", "ct", "ct_1", Path("image.nii"), Path("label.nii"), None)


def crop(label_xyz, image_xyz=None, affine=LPS, description=BALLS, case=CT_CASE):
    image_xyz = voxels(label_xyz, case.modality) if image_xyz is None else image_xyz
    image = scan(image_xyz.T.astype(np.float32), affine)
    return crop_case(image, scan(label_xyz.T.astype(np.int32), affine), case, description)


def test_same_voxel_grid_is_copied_exactly():
    # Spacing 2 = the scan's, odd shape and box: crop centres fall on voxel centres.
    label = np.zeros((9, 9, 9), np.uint8)
    label[3:6, 2:7, 4:5] = 7  # (x, y, z); centre (4, 4, 4)
    image = np.arange(729, dtype=np.int16).reshape(9, 9, 9) - 300
    description = dataclasses.replace(BALLS, shape=(3, 5, 3))
    got = crop(label, image, description=description)
    expected = image[3:6, 2:7, 3:6].T[:, ::-1, ::-1]  # LPS -> front and right
    restored = restore(got.image / np.float32(32767), got.window)
    np.testing.assert_allclose(restored, expected, atol=0.02)
    np.testing.assert_array_equal(got.label, (label[3:6, 2:7, 3:6] == 7).T * 2)
    # Source index (x, y, z) = (5, 6, 3) is crop index (0, 0, 0): -2*5, -2*6, 2*3 mm.
    np.testing.assert_allclose(got.grid.affine[:3, 3], [-10, -12, 6])


def rotated(affine: np.ndarray, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine


@pytest.mark.parametrize("flip", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_orientation_of_the_file_does_not_matter(flip):
    """The same anatomy stored with permuted and reversed axes gives the same crop."""
    label, straight = balls(4), crop(balls(4))
    image = voxels(label, "ct")
    affine = LPS.copy()
    affine[:3, 3] += affine[:3, 0] * (label.shape[0] - 1)
    affine[:3, 0] *= -1  # the x axis of the file reversed
    stored = [np.transpose(a[::-1], flip) for a in (label, image)]
    affine = affine[:, [*flip, 3]]
    got = crop(stored[0], stored[1], affine)
    np.testing.assert_array_equal(got.label, straight.label)
    assert np.abs(got.image.astype(int) - straight.image).max() <= 1
    np.testing.assert_allclose(got.grid.affine, straight.grid.affine, atol=1e-6)


def test_oblique_scans_come_out_straight_and_go_back():
    label, affine = balls(2, (30, 30, 30)), rotated(LPS, 25)
    got = crop(label, affine=affine)
    assert np.count_nonzero(got.grid.affine[:3, :3]) == 3
    back = resample_labels(got.label, got.grid, Grid((30, 30, 30), affine)).T
    truth = np.searchsorted((3, 7), label, side="right")
    assert (back == truth).mean() > 0.98 and set(np.unique(back)) == {0, 1, 2}


def test_there_and_back_restores_hu():
    label = balls(0, (20, 18, 16))
    smooth = -300 + 40 * np.add.outer(np.add.outer(np.arange(20), np.arange(18)), np.arange(16)) / 3
    got = crop(label, smooth)
    unit = got.image / np.float32(32767)
    back = resample_image(restore(unit, got.window), got.grid, Grid((16, 18, 20), LPS), np.nan).T
    known = np.isfinite(back)
    inner = known & np.roll(known, 1, 0) & np.roll(known, -1, 0)
    assert known.sum() > 1500
    assert np.abs(back - np.clip(smooth, -500, 500))[inner].mean() < 8


def test_crop_larger_than_the_scan_is_the_windows_low():
    got = crop(balls(), description=dataclasses.replace(BALLS, shape=(40, 40, 40)))
    assert (got.image[0] == -32767).all() and (got.image[:, :, -1] == -32767).all()
    assert (got.image > -32767).sum() > 5000


def test_cut_by_hand():
    label = np.zeros((20, 18, 16), np.uint8)
    label[4:16, 5:13, 8] = 3  # 12 x 8 voxels of 2 mm in one slice
    label[9:11, 8:10, 4:13] = 7  # 9 slices
    got = crop(label, description=dataclasses.replace(BALLS, shape=(9, 8, 6)))
    # x keeps 6 of 12 voxels of the slab, the core is whole; in slice 8 the core replaces 4 voxels.
    assert got.cut == {"shell": pytest.approx(48 / 92, abs=1e-6), "core": 0.0}


def test_window_by_hand():
    values = np.arange(1001, dtype=float)
    assert intensity_window(("percentile", 0.5, 99.5), values, Path("a")) == (5, 995)
    assert intensity_window(("fixed", -800, 800), values, Path("a")) == (-800, 800)
    with pytest.raises(UserError, match="a.nii: is constant"):
        intensity_window(("percentile", 0, 100), np.ones(9), Path("a.nii"))


def test_nan_is_neither_measured_nor_spread():
    label = balls()
    image = voxels(label, "mr").astype(float)
    case = dataclasses.replace(CT_CASE, modality="mr")
    clean = crop(label, image, case=case)
    image[:4] = np.nan
    image[0, 0, 0] = np.inf
    got = crop(label, image, case=case)
    assert got.window == pytest.approx(clean.window, abs=10)
    same = got.image[label.shape[2] // 2, 4:-4, 4:-4]
    assert np.abs(same.astype(int) - clean.image[8, 4:-4, 4:-4]).max() < 3000
    with pytest.raises(UserError, match="no finite voxel"):
        crop(label, np.full(label.shape, np.nan), case=case)


def test_classes_aliases_and_dropped():
    values = np.array([0, 500, 600, 420, 421, 550, 205, 820, 850])
    classes = class_indices(values, HEART, Path("a.nii"))
    np.testing.assert_array_equal(classes, [0, 1, 2, 3, 3, 4, 5, 0, 0])
    for strange in (1, 422, -1, 10**9, -(10**9), 851):
        with pytest.raises(UserError, match=f"a.nii: unknown label value {strange};"):
            class_indices(np.array([0, strange]), HEART, Path("a.nii"))
