"""What is drawn of metrics.jsonl, read off the axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from cyclesh.scoring.cases import CaseScore
from cyclesh.scoring.curves import curves_figure, draw_boxes, panels
from cyclesh.scoring.report_data import Event
from cyclesh.scoring.style import line_colour

NAN = float("nan")


def _metrics():
    rows = [
        {"step": step, "wall_s": 0.1 * step, "phase": "segmentors" if step < 20 else "joint"}
        for step in range(0, 100, 2)
    ]
    for row in rows:
        row["seg/total"] = 2.0 / (1 + row["step"])
        if row["phase"] == "joint":
            row["gen/cycle"] = 1.0
    rows[-1] |= {"val/dice_ct": 0.7, "val/dice_mr": 0.6, "val/s_score_ct": None}
    return rows


def _axes(draw):
    return curves_figure([draw]).axes[0]


def _labelled(axis):
    lines = axis.get_lines()
    return {line.get_label(): line for line in lines if not line.get_label().startswith("_")}


def _draw(metrics, name, events=(), best_step=None):
    return _axes(panels(metrics, events, best_step, ("ct", "mr"))[name][1])


def test_only_networks_that_trained_have_a_panel():
    found = panels(_metrics(), (), None, ("ct", "mr"))
    assert [(name, title) for name, (title, _) in found.items()] == [
        ("gen", "Generators"),
        ("seg", "Segmentors"),
        ("validation", "Validation"),
    ]
    assert panels([], (), None, ("ct", "mr")) == {}


def test_curves_start_where_their_loss_does():
    (line,) = _labelled(_draw(_metrics(), "gen")).values()
    assert line.get_label() == "cycle" and line.get_xdata()[0] == 20


def test_a_network_that_rests_has_no_curve_meanwhile():
    phases = ("segmentors", 30), ("generators", 20), ("joint", 50)
    names = [name for name, count in phases for _ in range(count)]
    rows = [{"step": s, "phase": name, "gen/cycle": 1.0} for s, name in enumerate(names)]
    for row in rows:
        if row["phase"] != "generators":
            row |= {"seg/total": 3.0 if row["phase"] == "joint" else 1.0, "seg/real": 1.0}
        if row["phase"] == "joint":
            row["seg/fake"] = 2.0
    for line in _labelled(_draw(rows, "seg")).values():
        steps, values = line.get_data()
        rests = (steps >= 30) & (steps < 50)
        np.testing.assert_array_equal(np.isnan(values), rests)
    total = _labelled(_draw(rows, "seg"))["total"]
    # Medians do not reach over the pause.
    assert set(total.get_ydata()[:30]) == {1.0} and set(total.get_ydata()[50:]) == {3.0}
    assert _draw(rows, "seg").get_yscale() == "log"


def test_gradient_norms_are_not_drawn_among_the_losses():
    rows = [row | {"seg/grad": 5.0} for row in _metrics()]
    assert set(_labelled(_draw(rows, "seg"))) == {"total"}


def test_the_curve_follows_the_median_of_the_losses():
    metrics = [{"step": s, "seg/total": 100.0 if s == 250 else 1.0} for s in range(500)]
    line = _labelled(_draw(metrics, "seg"))["total"]
    np.testing.assert_array_equal(line.get_ydata(), 1.0)


def test_events_are_named_where_they_happen():
    events = (Event(0, "pre-training S"), Event(20, "joint"), Event(60, "joint, decay"))
    late = Event(98, "never reached")
    for name in ("gen", "seg", "validation"):
        axis = _draw(_metrics(), name, (*events, late))
        assert [(note.get_text(), note.xy[0]) for note in axis.texts] == [
            (event.name, event.step) for event in events
        ]
    assert not _draw(_metrics(), "seg").texts


def test_the_best_checkpoint_is_marked_in_every_panel():
    for name in ("gen", "seg", "validation"):
        stars = [
            line for line in _draw(_metrics(), name, best_step=44).get_lines()
            if line.get_marker() == "*"
        ]  # fmt: skip
        assert [list(star.get_xdata()) for star in stars] == [[44]]
        assert not any(line.get_marker() == "*" for line in _draw(_metrics(), name).get_lines())
    assert set(_labelled(_draw(_metrics(), "validation"))) == {"Dice, CT", "Dice, MR"}


@pytest.mark.parametrize("value, scale", [(0.5, "log"), (0.0, "linear"), (-1.0, "linear")])
def test_losses_that_are_never_zero_get_a_logarithmic_axis(value, scale):
    metrics = [{"step": 0, "disc/total": 1.0}, {"step": 1, "disc/total": value}]
    assert _draw(metrics, "disc").get_yscale() == scale


def test_values_that_are_not_finite_are_left_out():
    metrics = [{"step": s, "seg/total": v} for s, v in enumerate((1.0, NAN, 2.0, float("inf")))]
    np.testing.assert_array_equal(_labelled(_draw(metrics, "seg"))["total"].get_xdata(), [0, 2])
    assert panels([{"step": 0, "seg/total": NAN}], (), None, ("ct", "mr")) == {}


def test_every_structure_and_modality_has_its_box_and_every_case_its_dot():
    scores = [
        CaseScore(f"{m}_{i}", m, s, value, NAN, NAN, "")
        for m in ("ct", "mr")
        for s in ("LV", "RV")
        for i, value in enumerate((0.5, 0.7, 0.6, NAN))
    ]
    axis = Figure().subplots()
    draw_boxes(axis, "Dice", scores, ["LV", "RV"], ["ct", "mr"])
    lines = [list(line.get_ydata()) for line in axis.get_lines()]
    assert lines.count([0.5, 0.6, 0.7]) == 4  # the dots
    assert lines.count([0.6, 0.6]) == 4  # the medians
    assert [[min(y), max(y)] for y in lines if len(y) == 5] == 4 * [
        pytest.approx([0.55, 0.65])
    ]  # the boxes


def test_a_modality_has_one_colour_whichever_score_came_first():
    keys = ("val/s_score_mr", "val/s_score_ct", "val/dice_ct", "val/dice_mr")
    for order in (keys, keys[::-1]):
        lines = _labelled(
            _draw([{"step": s, **dict.fromkeys(order, 0.5)} for s in (0, 9)], "validation")
        )
        assert list(lines) == [
            "Dice, CT",
            "Dice, MR",
            "S-score, synthetic CT",
            "S-score, synthetic MR",
        ]
        for label, line in lines.items():
            assert line.get_color() == line_colour(["CT", "MR"].index(label[-2:]))
