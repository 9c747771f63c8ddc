"""Rows of cases and their summary, with every empty case counted and no NaN let out."""

import csv
import json

import numpy as np
import pytest

from cyclesh.scoring.cases import (
    CaseScore,
    average,
    read_cases,
    score_case,
    summarise,
    summarise_similarity,
    write_cases,
)
from cyclesh.scoring.similarity import Similarity

NAN = float("nan")


def _rows():
    return [
        CaseScore("ct_1", "ct", "LV", 0.8, 1.0, 3.0, ""),
        CaseScore("ct_1", "ct", "RV", 0.0, NAN, NAN, "prediction"),
        CaseScore("ct_2", "ct", "LV", 0.6, 2.0, 5.0, ""),
        CaseScore("ct_2", "ct", "RV", NAN, NAN, NAN, "both"),
    ]


def test_summary_by_hand():
    assert summarise(_rows()) == {
        "dice": {"mean": pytest.approx(0.35), "LV": pytest.approx(0.7), "RV": 0.0},
        "assd_mm": {"mean": 1.5, "LV": 1.5, "RV": None},
        "hd95_mm": {"mean": 4.0, "LV": 4.0, "RV": None},
        "n": 2,
        "empty": {"LV": 0, "RV": 2},
    }


def test_summary_is_strict_json():
    json.dumps(summarise(_rows()[3:]), allow_nan=False)
    json.dumps(summarise([]), allow_nan=False)
    assert summarise([])["dice"] == {"mean": None} and summarise([])["n"] == 0


def test_average_is_over_cases_first():
    # Structure b was seen once, yet weighs as much as a: (0.5 + 1.0) / 2, not (0.2 + 0.8 + 1) / 3.
    values = np.array([[0.2, NAN], [0.8, 1.0]])
    assert average(values, ["a", "b"]) == {"mean": 0.75, "a": 0.5, "b": 1.0}
    assert average(np.empty((0, 2)), ["a", "b"]) == {"mean": None, "a": None, "b": None}


def test_score_case_of_volumes():
    truth = np.zeros((6, 6, 8), np.uint8)
    truth[1:5, 1:5, 1:4] = 1
    truth[2, 2, 6] = 2
    predicted = np.zeros_like(truth)
    predicted[1:5, 1:5, 2:5] = 1
    rows = score_case("mr_7", "mr", predicted, truth, ("Myo", "LA", "RA"), (4.0, 4.0, 2.0))
    assert [(row.case, row.modality, row.structure, row.empty) for row in rows] == [
        ("mr_7", "mr", "Myo", ""),
        ("mr_7", "mr", "LA", "prediction"),
        ("mr_7", "mr", "RA", "both"),
    ]
    assert rows[0].dice == pytest.approx(2 / 3) and rows[0].hd95_mm == 2.0
    # Of a box's 44 surface voxels, the 16 of the face left behind and the inner 4 of the face that
    # the other box covers lie one voxel (2 mm) off the other surface; the rest lie on it.
    assert rows[0].assd_mm == pytest.approx(20 * 2.0 / 44)
    assert rows[1].dice == 0 and np.isnan(rows[1].assd_mm)
    assert np.isnan(rows[2].dice)


def test_cases_csv_round_trip(tmp_path):
    path = tmp_path / "cases.csv"
    write_cases(_rows(), path)
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["case", "modality", "structure", "dice", "assd_mm", "hd95_mm", "empty"]
    assert len(read) == 4 and float(read[0]["dice"]) == 0.8
    assert read[3]["dice"] == "" and read[3]["empty"] == "both"
    assert [entry.name for entry in tmp_path.iterdir()] == ["cases.csv"]
    assert repr(read_cases(path)) == repr(_rows())  # repr: a NaN equals no NaN


def test_similarity_summary_leaves_out_what_has_no_value():
    scores = [Similarity(0.1, 20.0, NAN), Similarity(0.3, np.inf, NAN)]
    assert summarise_similarity(scores) == {
        "mae": pytest.approx(0.2),
        "psnr_db": 20.0,
        "ssim": None,
    }
    assert summarise_similarity([]) == {"mae": None, "psnr_db": None, "ssim": None}
