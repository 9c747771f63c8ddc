"""Grids of slices and curves: what is asked for is on the sheet, and nothing lies off it."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cyclesh.scoring.plots import Line, Panel, Tile, curves_figure, tiles_figure

IMAGE = np.zeros((10, 14))
CLASSES = np.pad(np.full((4, 4), 2, np.uint8), 3)[:, :10]


def texts_within(figure) -> bool:
    """Whether the figure's legends and notes lie on the sheet."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [artist.get_window_extent(renderer) for artist in (*figure.legends, *figure.texts)]
    sheet = figure.bbox
    return all(
        sheet.y0 <= box.y0 and box.y1 <= sheet.y1 and sheet.x0 <= box.x0 and box.x1 <= sheet.x1
        for box in boxes
    )


@pytest.mark.parametrize("note", ["", "Volumes from somewhere, under some licence"])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_grid_has_a_row_a_name_and_legend_and_note_on_the_sheet(rows, note):
    tile = Tile(np.zeros((10, 10)), CLASSES, (2.0, 1.0), "title")
    figure = tiles_figure([[tile, tile]] * rows, ["case"] * rows, ["one", "two"], note)
    assert len(figure.axes) == 2 * rows and len(figure.legends) == 1
    assert texts_within(figure)
    lowest = min(axis.get_position().y0 for axis in figure.axes)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (legend,) = figure.legends
    assert legend.get_window_extent(renderer).y1 <= lowest * figure.bbox.height


def test_without_outlines_there_is_no_legend():
    figure = tiles_figure([[Tile(IMAGE, None, (1.0, 1.0), "")]], ["input"], ["one"])
    assert not figure.legends


def test_curves_have_a_panel_each_and_lines_told_apart_without_colour():
    lines = [Line(n, [0, 1], [0.5, 0.6], [None, 0.1], i, i) for i, n in enumerate("ab")]
    figure = curves_figure([Panel("t", "x", "y", lines, [("floor", 0.1)])] * 2, "note")
    assert len(figure.axes) == 2 and texts_within(figure)
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    styles = {(line.get_linestyle(), line.get_marker()) for line in drawn}
    assert len(styles) >= 3  # two curves and the level
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "floor"]
    assert len({handle.get_linestyle() for handle in legend.get_lines()}) == 3


@pytest.mark.parametrize("count", [1, 3])
def test_a_legend_of_long_names_lies_below_the_panels_and_on_the_sheet(count):
    names = [f"{kind} shape consistency, judge's structures" for kind in ("with", "without")]
    lines = [Line(n, [0, 1], [0.5, 0.6], [None, 0.1], i, i) for i, n in enumerate(names)]
    figure = curves_figure([Panel("t", "x", "y", lines, [("floor", 0.1)])] * count, "note")
    assert texts_within(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (legend,) = figure.legends
    lowest = min(axis.get_tightbbox(renderer).y0 for axis in figure.axes)
    assert legend.get_window_extent(renderer).y1 <= lowest
