"""Which way up the pictures are: wrong once, wrong for every reader."""

import numpy as np
import pytest

from cyclesh.scoring.slices import PLANES, centre_of_structures, cut, pixel_mm

AXIAL, CORONAL, SAGITTAL = PLANES
SHAPE = (6, 8, 10)  # z to superior, y to anterior, x to the patient's right
CENTRE = (3, 4, 5)


def _marked(z, y, x):
    volume = np.zeros(SHAPE)
    volume[z, y, x] = 1
    return volume


def _place(volume, plane):
    """Row and column of the marked voxel in the picture, as shares of its height and width."""
    picture = cut(volume, plane, CENTRE)
    ((row, column),) = np.argwhere(picture)
    return row / (picture.shape[0] - 1), column / (picture.shape[1] - 1)


@pytest.mark.parametrize("plane", [AXIAL, CORONAL])
def test_the_patients_right_is_on_the_left(plane):
    assert _place(_marked(3, 4, 9), plane)[1] == 0
    assert plane.left == "R"


@pytest.mark.parametrize("plane", [CORONAL, SAGITTAL])
def test_superior_is_up(plane):
    assert _place(_marked(5, 4, 5), plane)[0] == 0
    assert plane.top == "S"


def test_anterior_is_up_in_axial_and_left_in_sagittal_cuts():
    assert _place(_marked(3, 7, 5), AXIAL)[0] == 0 and AXIAL.top == "A"
    assert _place(_marked(3, 7, 5), SAGITTAL)[1] == 0 and SAGITTAL.left == "A"


def test_every_cut_goes_through_the_centre():
    for plane in PLANES:
        assert cut(_marked(*CENTRE), plane, CENTRE).sum() == 1


def test_pixel_size_is_that_of_the_two_axes_in_the_picture():
    spacing_mm = (5.0, 2.0, 1.0)
    sizes = [pixel_mm(plane, spacing_mm) for plane in PLANES]
    assert sizes == [(2.0, 1.0), (5.0, 1.0), (5.0, 2.0)]


def test_centre_is_that_of_the_box_not_of_the_mass():
    label = np.zeros(SHAPE, np.uint8)
    label[0:2, 0:4, 0:5] = 1
    label[5, 7, 9] = 2
    assert centre_of_structures(label, SHAPE) == (3, 4, 5)


def test_centre_without_structures_is_the_middle_of_the_volume():
    assert centre_of_structures(None, SHAPE) == (3, 4, 5)
    assert centre_of_structures(np.zeros(SHAPE, np.uint8), SHAPE) == (3, 4, 5)
