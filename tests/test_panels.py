"""Outlines where the voxels are, and pictures in millimetre proportions."""

import re

import numpy as np
import pytest

from cyclesh.scoring.panels import outlines, svg_panel
from cyclesh.scoring.style import structure_colour


def test_the_outline_of_a_voxel_touches_its_four_edges():
    mask = np.zeros((4, 6), bool)
    mask[1, 4] = True
    (line,) = outlines(mask, size_mm=(3.0, 2.0))
    np.testing.assert_allclose(line.min(axis=0), (4 * 2.0, 1 * 3.0))
    np.testing.assert_allclose(line.max(axis=0), (5 * 2.0, 2 * 3.0))


def test_outlines_close_at_the_edge_of_the_picture():
    (line,) = outlines(np.ones((3, 5), bool), size_mm=(1.0, 1.0))
    np.testing.assert_array_equal(line[0], line[-1])
    np.testing.assert_allclose((line.min(axis=0), line.max(axis=0)), ((0, 0), (5, 3)))


def test_an_outline_for_every_piece_and_hole():
    mask = np.zeros((12, 12), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[9, 9] = True
    assert len(outlines(mask, (1.0, 1.0))) == 3
    assert outlines(np.zeros((3, 3), bool), (1.0, 1.0)) == []


def test_a_panel_has_the_proportions_of_the_body():
    picture = svg_panel(np.zeros((10, 20)), (3.0, 1.5), None, None, "case, axial")
    assert 'viewBox="0 0 30 30"' in picture and 'aria-label="case, axial"' in picture
    assert "<path" not in picture


def test_labels_and_predictions_differ_in_line_style_not_in_colour():
    label, predicted = np.zeros((2, 8, 8), np.uint8)
    label[2:6, 2:6], predicted[3:7, 2:6] = 2, 2
    picture = svg_panel(np.zeros((8, 8)), (1.0, 1.0), label, predicted, "")
    styles = re.findall(r'class="outline ([a-z-]+)" stroke="(#\w+)"', picture)
    colour = structure_colour(1)
    assert styles == [(style, colour) for style in ("label", "predicted-casing", "predicted")]


def test_an_enclosed_structure_is_drawn_over_the_one_around_it():
    label = np.zeros((12, 12), np.uint8)
    label[1:11, 1:11] = 2
    label[2:10, 2:10] = 1  # more voxels than the ring around it
    picture = svg_panel(np.zeros((12, 12)), (1.0, 1.0), label, None, "")
    assert re.findall(r'stroke="(#\w+)"', picture) == [structure_colour(1), structure_colour(0)]


def test_structure_colours_are_distinct_as_far_as_the_palette_goes():
    assert len({structure_colour(i) for i in range(7)}) == 7
    assert structure_colour(7) == structure_colour(0)


@pytest.mark.parametrize("rows, columns", [(4, 40), (200, 300)])
def test_pictures_of_any_size_are_png(rows, columns):
    picture = svg_panel(np.zeros((rows, columns), np.float32), (1.0, 1.0), None, None, "")
    assert "data:image/png;base64,iVBOR" in picture
