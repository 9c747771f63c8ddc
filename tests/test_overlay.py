"""The picture beside a result."""

import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from cyclesh.scoring.overlay import View, outlines, overlay_png
from cyclesh.scoring.style import structure_colour

SHAPE = (12, 16, 20)
CENTRE = (6, 8, 10)


def colours(png: bytes) -> set[tuple[int, ...]]:
    pixels = matplotlib.image.imread(io.BytesIO(png))[..., :3]
    return set(map(tuple, np.unique((pixels * 255).round().astype(int).reshape(-1, 3), axis=0)))


def rgb(index: int) -> tuple[int, ...]:
    return tuple(round(c * 255) for c in to_rgb(structure_colour(index)))


def test_structures_are_outlined_in_their_colours():
    classes = np.zeros(SHAPE, np.uint8)
    classes[3:9, 4:12, 5:15] = 1
    classes[5:7, 6:10, 8:12] = 3  # within the first
    image = np.linspace(-1, 1, classes.size).reshape(SHAPE)
    views = [View("ct", image, classes), View("synthetic mr", image, None)]
    found = colours(overlay_png(views, ("a", "b", "c"), (2, 1, 1), "case", CENTRE))
    assert {rgb(0), rgb(2)} <= found
    assert overlay_png(views, ("a", "b", "c"), (2, 1, 1), "case", CENTRE) == overlay_png(
        views, ("a", "b", "c"), (2, 1, 1), "case", CENTRE
    )


def test_the_cuts_go_through_the_centre():
    classes = np.zeros(SHAPE, np.uint8)
    classes[1:4, 1:5, 1:6] = 1
    views = [View("ct", np.zeros(SHAPE), classes)]
    shown = overlay_png(views, ("a",), (2, 1, 1), "case", (2, 3, 3))
    elsewhere = overlay_png(views, ("a",), (2, 1, 1), "case", (9, 12, 15))
    # The legend has the colour in either; the outlines only where the cuts meet the structure.
    pixels = [matplotlib.image.imread(io.BytesIO(png))[..., :3] for png in (shown, elsewhere)]
    counts = [(np.abs(p * 255 - rgb(0)).max(-1) < 2).sum() for p in pixels]
    assert counts[0] > 5 * counts[1] > 0


def test_a_scan_in_which_nothing_is_found_is_shown_all_the_same():
    view = View("ct", np.zeros(SHAPE), np.zeros(SHAPE, np.uint8))
    assert overlay_png([view], ("a",), (2, 1, 1), "case", CENTRE).startswith(b"\x89PNG")


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


def test_structure_colours_are_distinct_as_far_as_the_palette_goes():
    assert len({structure_colour(i) for i in range(7)}) == 7
    assert structure_colour(7) == structure_colour(0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$a_{b$", "M\udcfcller", "\u5fc3\u81d3"])
def test_any_name_can_stand_over_a_picture(name):
    view = View("ct", np.zeros(SHAPE), np.zeros(SHAPE, np.uint8))
    assert overlay_png([view], ("$x_{$",), (2, 1, 1), name, CENTRE).startswith(b"\x89PNG")
