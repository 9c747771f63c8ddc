import json

import numpy as np

from cyclesh.runtime.logs import METRICS, RunLog, losses_line, read_rows, validation_line


def row(step: int, **values) -> dict:
    return {"step": step, "epoch": step / 4, "phase": "joint", "wall_s": float(step), **values}


def test_rows_come_back_as_they_were_written(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write(row(1, **{"gen/total": 2.5}))
        log.write(row(2, **{"val/dice": float("nan")}))
    assert read_rows(tmp_path) == [row(1, **{"gen/total": 2.5}), row(2, **{"val/dice": None})]
    assert "NaN" not in (tmp_path / METRICS).read_text()


def test_a_resumed_run_drops_rows_of_steps_that_it_makes_again(tmp_path):
    with RunLog(tmp_path, 0) as log:
        for step in (1, 2, 3, 4):
            log.write(row(step))
    with RunLog(tmp_path, 2) as log:
        assert [r["step"] for r in log.rows] == [1, 2]
        log.write(row(3))
    assert [r["step"] for r in read_rows(tmp_path)] == [1, 2, 3]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    (tmp_path / METRICS).write_text(json.dumps(row(1)) + '\n{"step": 2, "ep')
    assert read_rows(tmp_path) == [row(1)]
    with RunLog(tmp_path, 1) as log:
        log.write(row(2))
    assert [r["step"] for r in read_rows(tmp_path)] == [1, 2]


def test_scalars_and_slices_reach_tensorboard(tmp_path):
    with RunLog(tmp_path, 0) as log:
        log.write(row(1, **{"gen/total": 2.5}))
        log.picture("slices/case", np.zeros((4, 6)), 1)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"gen/total" in content and b"slices/case" in content


def test_the_lines_say_what_they_are():
    values = {"gen/total": 3.21, "disc/total": 0.5, "seg/total": 0.25, "gen/adv": 1.0}
    assert losses_line(values) == "G 3.210  D 0.500  S 0.250"
    assert losses_line({"seg/total": 1.0}) == "S 1.000"
    scored = row(10, **values, **{"val/dice_ct": 0.8, "val/dice": 0.7, "val/seg_loss": 0.1})
    line = validation_line(scored, total_steps=130)
    # A second a step, 120 to go.
    assert line == "joint 10/130  G 3.210  D 0.500  S 0.250  |  dice ct 0.800  |  ETA 2:00"
