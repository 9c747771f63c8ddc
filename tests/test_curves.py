"""What is drawn of metrics.jsonl, read off the axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from cyclesh.scoring.cases import CaseScore
from cyclesh.scoring.curves import curves_figure, draw_dice_by_case, panels

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


def test_only_networks_that_trained_have_a_panel():
    assert list(panels(_metrics(), best_step=None)) == ["gen", "seg", "validation"]
    assert panels([], best_step=None) == {}


def test_curves_start_where_their_loss_does():
    (line,) = _labelled(_axes(panels(_metrics(), None)["gen"])).values()
    assert line.get_label() == "cycle" and line.get_xdata()[0] == 20


def test_the_curve_follows_the_median_of_the_losses():
    metrics = [{"step": s, "seg/total": 100.0 if s == 250 else 1.0} for s in range(500)]
    line = _labelled(_axes(panels(metrics, None)["seg"]))["total"]
    np.testing.assert_array_equal(line.get_ydata(), 1.0)


def test_phases_are_named_where_they_begin():
    axis = _axes(panels(_metrics(), None)["seg"])
    assert [(note.get_text(), note.xy[0]) for note in axis.texts] == [
        ("segmentors", 0),
        ("joint", 20),
    ]
    one_phase = [row | {"phase": "joint"} for row in _metrics()]
    assert not _axes(panels(one_phase, None)["seg"]).texts


def test_the_best_checkpoint_is_marked():
    labelled = _labelled(_axes(panels(_metrics(), best_step=98)["validation"]))
    assert labelled["best checkpoint"].get_xdata() == [98]
    assert set(labelled) == {"Dice, CT", "Dice, MR", "best checkpoint"}
    assert "best checkpoint" not in _labelled(_axes(panels(_metrics(), None)["validation"]))


@pytest.mark.parametrize("value, scale", [(0.5, "log"), (0.0, "linear"), (-1.0, "linear")])
def test_losses_that_are_never_zero_get_a_logarithmic_axis(value, scale):
    metrics = [{"step": 0, "disc/total": 1.0}, {"step": 1, "disc/total": value}]
    assert _axes(panels(metrics, None)["disc"]).get_yscale() == scale


def test_values_that_are_not_finite_are_left_out():
    metrics = [{"step": s, "seg/total": v} for s, v in enumerate((1.0, NAN, 2.0, float("inf")))]
    line = _labelled(_axes(panels(metrics, None)["seg"]))["total"]
    np.testing.assert_array_equal(line.get_xdata(), [0, 2])
    assert panels([{"step": 0, "seg/total": NAN}], None) == {}


def test_every_case_with_a_dice_is_a_dot():
    scores = [
        CaseScore(f"{m}_{i}", m, s, value, NAN, NAN, "")
        for m in ("ct", "mr")
        for s in ("LV", "RV")
        for i, value in enumerate((0.5, 0.7, NAN))
    ]
    axis = Figure().subplots()
    draw_dice_by_case(axis, scores, ["LV", "RV"], ["ct", "mr"])
    dots = [line.get_ydata() for line in axis.get_lines() if len(line.get_ydata())]
    assert [sorted(d) for d in dots] == [[0.5, 0.7]] * 4
