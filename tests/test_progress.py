"""What the terminal says, and how long a run is said to take."""

import sys

import pytest

from cyclesh.runtime.progress import Pace, Progress, Stretch, clock, losses_line, scores_line

LOSSES = {"gen/total": 3.21, "disc/total": 0.5, "seg/total": 0.25, "gen/adv": 1.0}
SCORES = {"val/dice_ct": 0.8, "val/s_score_mr": None, "val/dice": 0.7, "val/seg_loss": 0.1}
PLAN = [Stretch("pretrain_seg", 10, 3), Stretch("joint", 20, 18)]


def row(step, **values):
    return {"step": step, "phase": "joint", **values}


def test_the_parts_of_a_line():
    assert losses_line(LOSSES) == "G 3.210  D 0.500  S 0.250"
    assert losses_line({"seg/total": 1.0, "gen/total": None}) == "S 1.000"
    assert scores_line(SCORES) == "dice ct 0.800"
    mixed = {"val/dice_mr": 0.2, "val/s_score_mr": 0.4, "val/s_score_ct": 0.3, "val/dice_ct": 0.1}
    assert scores_line(mixed) == "dice ct 0.100 mr 0.200  s-score ct 0.300 mr 0.400"
    assert scores_line(LOSSES) == ""
    assert clock(125.4) == "2:05" and clock(3725) == "1:02:05"


def test_the_time_to_go_counts_the_work_of_phases_to_come():
    pace = Pace(PLAN)
    pace.tick(1, 100.0)  # compiled before that: says nothing
    assert pace.left_s(1) is None
    for step in range(2, 6):
        pace.tick(step, 100.0 + step - 1)  # a second a step
    # Five more of these, and twenty that are six times the work.
    assert pace.left_s(5) == pytest.approx(5 + 20 * 6)


def test_the_time_to_go_follows_the_pace_of_the_phase_that_runs():
    pace = Pace(PLAN)
    for step in range(1, 11):
        pace.tick(step, float(step))
    pace.tick(11, 100.0)  # a minute and a half of compiling
    assert pace.left_s(11) == pytest.approx(19 * 6)
    for step in range(12, 16):
        pace.tick(step, 100.0 + 2 * (step - 11))
    assert pace.left_s(15) == pytest.approx(15 * 2)
    assert pace.left_s(30) == 0


def test_a_resumed_run_begins_in_the_middle_of_its_plan():
    pace = Pace(PLAN)
    pace.tick(21, 0.0)
    pace.tick(22, 3.0)
    assert pace.left_s(22) == pytest.approx(8 * 3)


def steps_of(progress, monkeypatch):
    """Ten steps of a second each, a row at the fifth and scores at the tenth."""
    now = iter(range(100))
    monkeypatch.setattr("cyclesh.runtime.progress.time.monotonic", lambda: float(next(now)))
    for step in range(1, 11):
        progress.advance("joint", LOSSES)
        if step == 5:
            progress.logged(row(step, **LOSSES))
    progress.logged(row(10, **LOSSES, **SCORES))
    progress.advance("joint", LOSSES)


PLAIN = "joint 10/30  |  G 3.210  D 0.500  S 0.250  |  dice ct 0.800  |  ETA 0:20"


def test_without_a_terminal_every_validation_is_a_plain_line(capsys, monkeypatch):
    with Progress([Stretch("joint", 30, 1)], 0) as progress:
        steps_of(progress, monkeypatch)
    assert capsys.readouterr().err == f"{PLAIN}\n"


def test_verbose_tells_every_row_and_quiet_none(capsys, monkeypatch):
    with Progress([Stretch("joint", 30, 1)], 0, verbose=True, name="judges:") as progress:
        steps_of(progress, monkeypatch)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "judges: joint 5/30  |  G 3.210  D 0.500  S 0.250  |  ETA 0:25"
    assert second == f"judges: {PLAIN}"
    with Progress([Stretch("joint", 30, 1)], 0, quiet=True) as progress:
        steps_of(progress, monkeypatch)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_live_line_with_losses_scores_and_time_to_go(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    with Progress([Stretch("joint", 30, 1)], 0) as progress:
        progress._bar.mininterval = 0
        steps_of(progress, monkeypatch)
    told = capsys.readouterr().err
    assert f"{PLAIN}\n" in told  # the validation stays on a line of its own
    live = told.rstrip().rsplit("\r", 1)[-1]
    assert live.startswith("joint 11/30 |")
    assert live.endswith("ETA 0:19  G 3.210  D 0.500  S 0.250  dice ct 0.800")
