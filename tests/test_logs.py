import json

import numpy as np
from event_files import shown

from cyclesh.runtime.logs import METRICS, RunLog, read_rows


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


def test_scalars_and_slices_reach_tensorboard_at_once(tmp_path):
    """Without waiting for the log to be closed: a killed run closes nothing."""
    with RunLog(tmp_path, 0) as log:
        log.picture("slices/case", np.zeros((4, 6)), 1)
        log.write(row(1, **{"gen/total": 2.5, "val/dice": float("nan")}))
        assert shown(tmp_path) == {"slices/case": {1: None}, "gen/total": {1: 2.5}}


def test_tensorboard_shows_one_run_across_a_resume(tmp_path):
    def make(steps, value):
        for step in steps:
            log.picture("slices/case", np.zeros((4, 6)), step)
            log.write(row(step, **{"gen/total": value}))

    with RunLog(tmp_path, 0) as log:
        make((1, 2), 9.0)
    with RunLog(tmp_path, 0) as log:  # killed before there was a checkpoint
        make((1, 2, 3, 4), 1.0)
    with RunLog(tmp_path, 2) as log:  # killed after step 4, the last checkpoint is of step 2
        make((3, 4, 5), 2.0)
    with RunLog(tmp_path, 5) as log:
        make((6,), 3.0)
    assert shown(tmp_path) == {
        "gen/total": {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.0, 6: 3.0},
        "slices/case": dict.fromkeys(range(1, 7)),
    }
