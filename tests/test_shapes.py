"""Signed distances of the phantom's shapes against numbers by hand."""

import numpy as np
import pytest

from cyclesh.data.shapes import (
    Cut,
    Ellipsoid,
    Shell,
    Slices,
    Tube,
    Union,
    rotation_matrix,
)

BALL = Ellipsoid(np.array([1.0, 2.0, 3.0]), np.full(3, 10.0), np.eye(3))


def distance_at(shape, *point_mm):
    points = np.array(point_mm, np.float32).reshape(3, 1)
    distance = shape.distance_mm(points)
    assert distance.dtype == np.float32
    return distance.item()


def test_a_ball_has_exact_distances():
    assert distance_at(BALL, 1, 2, 18) == pytest.approx(5, abs=1e-4)
    assert distance_at(BALL, -3, 2, 3) == pytest.approx(-6, abs=1e-3)


def test_the_axes_of_an_ellipsoid_are_the_columns():
    turned = rotation_matrix(np.deg2rad([0, 0, 90]))  # x becomes y
    egg = Ellipsoid(np.zeros(3), np.array([30.0, 10.0, 10.0]), turned)
    assert distance_at(egg, 0, 30, 0) == pytest.approx(0, abs=1e-3)
    assert distance_at(egg, 10, 0, 0) == pytest.approx(0, abs=1e-3)
    low, high = egg.bounds_mm()
    np.testing.assert_allclose(high, [10, 30, 10], atol=1e-9)
    np.testing.assert_allclose(low, [-10, -30, -10], atol=1e-9)


def test_a_rotation_keeps_lengths_and_handedness():
    matrix = rotation_matrix(np.deg2rad([10.0, -25.0, 70.0]))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_a_tube_tapers_along_its_path():
    tube = Tube(np.array([[0.0, 0, 0], [0, 0, 20], [0, 20, 20]]), np.array([4.0, 2.0, 2.0]))
    assert distance_at(tube, 5, 0, 10) == pytest.approx(2, abs=1e-4)  # radius 3 half-way
    assert distance_at(tube, 0, 10, 25) == pytest.approx(3, abs=1e-4)
    assert distance_at(tube, 0, 0, -6) == pytest.approx(2, abs=1e-4)  # beyond the end


def test_a_cut_keeps_the_far_side_of_its_plane():
    cap = Cut(BALL, np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0]))
    assert distance_at(cap, 1, 2, 5) == pytest.approx(-2, abs=1e-4)
    assert distance_at(cap, 1, 2, 0) == pytest.approx(3, abs=1e-4)


def test_a_union_melts_only_near_the_seam():
    other = Ellipsoid(np.array([21.0, 2.0, 3.0]), np.full(3, 10.0), np.eye(3))
    union = Union((BALL, other), blend_mm=4.0)
    assert distance_at(union, 11, 2, 3) == pytest.approx(-1, abs=1e-3)  # 0 - blend / 4
    assert distance_at(union, -9, 2, 3) == pytest.approx(0, abs=1e-3)


def test_slices_repeat_and_shells_are_hollow():
    column = Slices(BALL, start_mm=3.0, period_mm=6.0, thickness_mm=2.0)
    assert distance_at(column, 1, 2, 9) == pytest.approx(-1, abs=1e-4)
    assert distance_at(column, 1, 2, 6) == pytest.approx(2, abs=1e-4)
    assert distance_at(Shell(BALL, 2.0), 1, 2, 3 + 10.5) == pytest.approx(-0.5, abs=1e-4)
    assert distance_at(Shell(BALL, 2.0), 1, 2, 4) > 0
