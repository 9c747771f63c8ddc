"""The report in a browser, with mouse and keys: what a reader does and sees."""

import dataclasses
import json

import numpy as np
import pytest
from browser import Page, find_browser
from report_runs import SHAPE, SPACING_MM, whole_run

from cyclesh.scoring.overlay import outlines
from cyclesh.scoring.page import asset
from cyclesh.scoring.report import write_report
from cyclesh.scoring.slices import PLANES, cut

AXIAL, CORONAL, SAGITTAL = ("axial", "coronal", "sagittal")
SOURCE, SYNTHETIC, DIFFERENCE = "CT source", "Synthetic MR", "Difference"
READY = "document.querySelectorAll('#planes canvas').length > 0"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report whose second case has a long name, which a phone must break."""
    run = whole_run()
    cases = [dataclasses.replace(c, case=f"{c.case}_of_a_hospital_{60 * 'x'}") for c in run.cases]
    run = dataclasses.replace(run, cases=[run.cases[0], cases[1], *run.cases[2:]])
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report([run], path)
    return path


@pytest.fixture(scope="module")
def browser():
    with Page() as page:
        yield page


@pytest.fixture
def page(browser, report):
    """The report, freshly opened; whatever a test does, the page had no trouble and no request."""
    browser.resize(1280, 900)
    browser.dark(False)
    browser.troubles.clear()
    browser.requests.clear()
    browser.open(report)
    browser.wait(READY)
    browser.settle()
    yield browser
    assert browser.troubles == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.as_uri()]


def canvas(plane, view=SOURCE):
    return f"canvas[data-plane='{plane}'][data-view='{view}']"


# From a copy: reading the page's own canvases would make the browser draw them another way.
READ = """shown => {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [shown.width, shown.height];
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(shown, 0, 0);
  const bytes = context.getImageData(0, 0, copy.width, copy.height).data;
  return [copy.width, copy.height, [...bytes]];
}"""


def pixels(page, plane, view=SOURCE):
    """The canvas as (rows, columns, 3)."""
    shown = f"document.querySelector({json.dumps(canvas(plane, view))})"
    width, height, values = page.run(f"({READ})({shown})")
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def slices(page):
    """The slices shown, as {plane: number from 1}."""
    return {
        plane.name: int(page.run(f"document.getElementById('slice-{plane.name}').value")) + 1
        for plane in PLANES
    }


def coloured(picture):
    """Which pixels are not grey."""
    return np.ptp(picture.astype(int), axis=-1) > 40


def switch_off(page, *switches):
    for name in switches:
        page.click(f"#{name}")


def test_the_worst_case_is_open_in_three_planes_of_every_volume(page):
    assert page.run("document.querySelector('input[name=case]:checked').parentNode.innerText") == (
        "worst\nct_0\n0.400"
    )
    shown = page.run("[...document.querySelectorAll('#planes canvas')].map(c => c.dataset.view)")
    names = [SOURCE, SYNTHETIC, "True MR", "Reconstructed CT", DIFFERENCE]
    assert shown == 3 * names
    # The crosshair begins in the middle of the ball, which is structure LV.
    assert slices(page) == {AXIAL: 7, CORONAL: 8, SAGITTAL: 9}
    assert "label LV" in page.run("document.getElementById('readout').textContent")


def test_a_slider_moves_all_views_of_its_plane_and_no_other(page):
    switch_off(page, "crosshair")
    before = {(p.name, v): pixels(page, p.name, v) for p in PLANES for v in (SOURCE, SYNTHETIC)}
    page.run("document.getElementById('slice-axial').focus()")
    page.press("ArrowRight")
    page.press("ArrowRight")
    assert slices(page) == {AXIAL: 9, CORONAL: 8, SAGITTAL: 9}
    assert page.run("document.querySelector('output[for=slice-axial]').value") == "9 / 12"
    for (plane, view), picture in before.items():
        assert np.array_equal(pixels(page, plane, view), picture) == (plane != AXIAL)


def test_dragging_in_one_view_moves_the_crosshair_of_the_others(page):
    # To the superior, anterior and right corner, where every volume has one bright voxel.
    corner = page.place(canvas(AXIAL), 0.02, 0.02)
    middle = page.place(canvas(AXIAL))
    page.drag(middle, (middle[0] - 20, middle[1] - 20), corner)
    assert slices(page) == {AXIAL: 7, CORONAL: SHAPE[1], SAGITTAL: SHAPE[2]}
    page.drag(page.place(canvas(SAGITTAL, DIFFERENCE), 0.5, 0.02))
    assert slices(page)[AXIAL] == SHAPE[0]
    readout = page.run("document.getElementById('readout').textContent")
    assert readout.startswith("voxel z 12, y") and f"{SOURCE} −1.00" in readout
    page.drag(page.place(canvas(CORONAL), 0.02, 0.02))
    page.drag(page.place(canvas(AXIAL), 0.02, 0.02))
    assert slices(page) == {AXIAL: 12, CORONAL: 14, SAGITTAL: 16}
    assert f"{SOURCE} 1.00" in page.run("document.getElementById('readout').textContent")


def test_right_anterior_and_superior_are_where_the_letters_say(page):
    switch_off(page, "crosshair", "smooth", "show-label", "show-predicted")
    page.drag(page.place(canvas(SAGITTAL), 0.02, 0.02))  # the most anterior and superior
    page.drag(page.place(canvas(AXIAL), 0.02, 0.02))  # the most right
    assert slices(page) == {AXIAL: 12, CORONAL: 14, SAGITTAL: 16}
    sides = {AXIAL: "RLAP", CORONAL: "RLSI", SAGITTAL: "APSI"}
    for plane, letters in sides.items():
        picture = pixels(page, plane).max(axis=-1)
        bright = np.argwhere(picture > 250)
        assert bright.min() == 0 and (bright.max(axis=0) < np.array(picture.shape) / 10).all()
        found = page.run(
            f"(f => ['left', 'right', 'top', 'bottom'].map(s => f.querySelector('.' + s).innerText)"
            f".join(''))(document.querySelector({json.dumps(canvas(plane))}).parentNode)"
        )
        assert found == letters


def test_arrow_keys_move_the_crosshair_and_page_keys_the_slice(page):
    page.run(f"document.querySelector({json.dumps(canvas(AXIAL))}).focus()")
    for key, expected in (
        ("ArrowLeft", {AXIAL: 7, CORONAL: 8, SAGITTAL: 10}),  # towards the patient's right
        ("ArrowUp", {AXIAL: 7, CORONAL: 9, SAGITTAL: 10}),  # to the front
        ("PageUp", {AXIAL: 8, CORONAL: 9, SAGITTAL: 10}),  # to the head
        ("ArrowRight", {AXIAL: 8, CORONAL: 9, SAGITTAL: 9}),
        ("PageDown", {AXIAL: 7, CORONAL: 9, SAGITTAL: 9}),
    ):
        page.press(key)
        assert slices(page) == expected


def test_outlines_can_be_switched_on_and_off(page):
    switch_off(page, "crosshair")
    both = coloured(pixels(page, AXIAL)).sum()
    switch_off(page, "show-predicted")
    label = coloured(pixels(page, AXIAL)).sum()
    without_prediction = pixels(page, AXIAL, "True MR")
    switch_off(page, "show-label")
    assert not coloured(pixels(page, AXIAL)).any()
    assert coloured(without_prediction).any()
    page.click("#show-predicted")
    predicted = coloured(pixels(page, AXIAL)).sum()
    assert both != label and both != predicted and min(label, predicted) > 100
    # A synthetic volume has the judge's outlines, a true one has none but the label's.
    assert coloured(pixels(page, AXIAL, SYNTHETIC)).any()
    assert not coloured(pixels(page, AXIAL, "True MR")).any()


def test_a_structure_can_be_switched_off_by_the_keyboard(page):
    switch_off(page, "crosshair", "show-predicted")

    def has_blue():
        """The outline of Myo, the second structure, is sky blue."""
        red, _, blue = np.moveaxis(pixels(page, AXIAL).astype(int), -1, 0)
        return bool((blue - red > 60).any())

    assert has_blue()
    page.run("document.querySelectorAll('#structures input')[1].focus()")
    page.press(" ")
    assert not has_blue() and coloured(pixels(page, AXIAL)).any()


def test_a_brighter_reconstruction_is_orange_in_the_difference(page):
    switch_off(page, "crosshair", "smooth", "show-label", "show-predicted")
    red, green, blue = pixels(page, AXIAL, DIFFERENCE).reshape(-1, 3).max(axis=0)
    assert (red, green, blue) == (115, 80, 0)  # 64 of 127.5 brighter: half of the full colour
    before = pixels(page, AXIAL, SOURCE)
    assert not coloured(before).any()


def test_volumes_can_be_hidden(page):
    page.click("#views label:nth-child(2) input")
    shown = page.run("[...document.querySelectorAll('#planes canvas')].map(c => c.dataset.view)")
    assert len(shown) == 12 and SYNTHETIC not in shown


def test_another_case_opens_at_a_click(page):
    before = pixels(page, AXIAL)
    page.click("#case-list fieldset:last-child label:nth-child(2)")
    page.wait(f"document.querySelector({json.dumps(canvas(AXIAL, 'MR source'))}) !== null")
    page.settle()
    assert not np.array_equal(pixels(page, AXIAL, "MR source"), before)


def test_slices_and_outlines_are_those_of_the_figures(page):
    """The page's program cuts and outlines exactly as the figures do."""
    rng = np.random.default_rng(0)
    volume = (rng.random(SHAPE) < 0.4).astype(np.uint8) + (rng.random(SHAPE) < 0.2)
    flat = json.dumps(volume.ravel().tolist())
    page.run(f"{{{asset('volumes.js')}{asset('contours.js')}"
             "Object.assign(window, { layout, cut, outlines }); 0 }")  # fmt: skip
    for plane in PLANES:
        expected = cut(volume, plane, (5, 6, 7))
        rows, columns = expected.shape
        page.run(
            f"window.plane = layout({{axis: {plane.axis}}}, {list(SHAPE)}, {list(SPACING_MM)})"
        )
        index = (5, 6, 7)[plane.axis]
        found = page.run(f"window.slice = cut({flat}, plane, {index}); [...slice]")
        np.testing.assert_array_equal(np.reshape(found, (rows, columns)), expected)
        for label in (1, 2):
            lines = json.loads(
                page.run(f"JSON.stringify(outlines(slice, {rows}, {columns}, {label}))")
            )
            assert edges(lines) == edges(
                [line[:-1].tolist() for line in outlines(expected == label, (1, 1))]
            )


def edges(lines):
    """The pieces of closed lines, whatever their direction and wherever they begin."""
    return {
        frozenset((tuple(a), tuple(b)))
        for line in lines
        for a, b in zip(line, line[1:] + line[:1], strict=True)
    }


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_needs_no_scrolling_sideways(page, width):
    page.resize(width, 780, scale=2, mobile=True)
    page.settle()
    assert page.run("document.documentElement.scrollWidth") == width
    shown = page.run("[...document.querySelectorAll('#planes canvas')].map(c => c.dataset.view)")
    assert shown == 3 * [SOURCE, SYNTHETIC]
    first, second = (page.run(
        f"(b => [b.x, b.width])(document.querySelector({json.dumps(canvas(AXIAL, view))})"
        ".getBoundingClientRect())"
    ) for view in (SOURCE, SYNTHETIC))  # fmt: skip
    assert first[1] > 0.4 * width and second[0] > first[0] + first[1] - 1
    wide = page.run(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.table, svg, details') &&"
        f" e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_the_page_follows_a_dark_scheme(page):
    colour = (
        "getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).reduce((a, b) => +a + +b)"
    )
    light = page.run(colour.format("backgroundColor")), page.run(colour.format("color"))
    page.dark()
    dark = page.run(colour.format("backgroundColor")), page.run(colour.format("color"))
    assert light[0] > 700 > 200 > light[1] and dark[0] < 100 < 600 < dark[1]
    axis = "getComputedStyle(document.querySelector('.curves svg text')).fill"
    assert page.run(axis) != "rgb(27, 33, 38)"


def test_without_a_program_the_page_says_so_and_keeps_its_numbers(page, report):
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.call("Page.reload")
        page.wait(
            "document.readyState === 'complete' && document.querySelector('noscript p') !== null"
        )
        text = page.run("document.body.innerText")
        assert "case browser draws with JavaScript" in text and "Test Dice, CT" in text
        assert page.run("document.getElementById('browser').offsetHeight") == 0
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
        page.requests.remove(report.as_uri())  # it was loaded twice


def test_a_browser_that_is_absent_fails_in_ci_and_is_skipped_elsewhere(monkeypatch):
    monkeypatch.setenv("PATH", "")
    for value, outcome in (("true", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv("CI", value)
        with pytest.raises(outcome, match="no Chromium"):
            find_browser()
