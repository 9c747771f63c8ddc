"""The report of made-up runs: whole ones and ones with parts missing."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from cyclesh.scoring.cases import score_case, summarise
from cyclesh.scoring.findings import find_warnings
from cyclesh.scoring.ranking import agreement, directions, worst_median_best
from cyclesh.scoring.report import CaseImages, ReportData, write_report

STRUCTURES = ("LV", "Myo")
SHAPE = (12, 14, 16)
SPACING_MM = (4.0, 3.0, 3.0)


def _label(radius, shift=0.0):
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    distance = np.sqrt(sum((g - n / 2 - shift) ** 2 for g, n in zip(grid, SHAPE, strict=True)))
    return np.where(distance < radius - 2, 1, np.where(distance < radius, 2, 0)).astype(np.uint8)


def _case(number, source, target, s_score):
    label = _label(4 + 0.3 * number)
    image = (label - 1).astype(np.float32)
    return CaseImages(
        case=f"{source}_{number}",
        source_modality=source,
        target_modality=target,
        source=image,
        translation=-image,
        reconstruction=image,
        truth=-image if number == 0 else None,
        label=label,
        predicted_source=_label(4, 0.5),
        predicted_translation=_label(4, -1),
        s_score=s_score,
    )


def _metrics():
    for step in range(0, 60, 2):
        losses = {f"{key}/total": 1.0 / (1 + step) for key in ("gen", "disc", "seg")}
        scores = {"val/dice_ct": 0.01 * step, "val/s_score_mr": 0.005 * step}
        phase = "pretrain" if step < 20 else "joint"
        yield {
            "step": step,
            "wall_s": 1.0,
            "phase": phase,
            **losses,
            **(scores if step % 10 else {}),
        }


def _results(rows):
    block = {"mean": 0.8, "LV": 0.9, "Myo": 0.7}
    return {
        "test": {m: summarise([r for r in rows if r.modality == m]) for m in ("ct", "mr")},
        "s_score": {"ct": block, "mr": block},
        "judge": {"ct": {"dice": block, "ceiling": 0.85}, "mr": {"dice": block, "ceiling": None}},
        "translation": {
            "ct": {"mae": 0.1, "psnr_db": 21.5, "ssim": 0.66},
            "mr": {"mae": None, "psnr_db": None, "ssim": None},
        },
        "checkpoint": {"step": 40, "validation": 0.75},
        "config": {"optimiser": {"learning_rate": 2e-4}, "filters": 8},
        "seed": 3,
        "split": "ab12" * 16,
        "git": "0123abc",
        "versions": {"jax": "0.10.2"},
        "wall_s": 3725.0,
    }


@pytest.fixture(scope="module")
def data():
    scores = (0.4, 0.9, 0.6, 0.5)
    cases = [
        _case(i, source, target, score)
        for source, target in (("ct", "mr"), ("mr", "ct"))
        for i, score in enumerate(scores)
    ]
    rows = [
        row
        for c in cases
        for row in score_case(
            c.case, c.source_modality, c.predicted_source, c.label, STRUCTURES, SPACING_MM
        )
    ]
    return ReportData(
        title="joint",
        modalities=("ct", "mr"),
        structures=STRUCTURES,
        spacing_mm=SPACING_MM,
        results=_results(rows),
        metrics=list(_metrics()),
        case_scores=rows,
        cases=cases,
    )


class _Checker(HTMLParser):
    """Collects what a page loads, and whether every element is closed in turn."""

    VOID = {"meta", "input", "br", "link", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.links, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def _render(data, folder):
    write_report(data, folder / "report.html")
    html = (folder / "report.html").read_text(encoding="utf-8")
    page = _Checker()
    page.feed(html)
    assert page.open == []
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    return html, " ".join(page.text)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Folder, HTML and text of the report of a whole run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *_render(data, folder)


def test_a_whole_run(whole):
    _, html, text = whole
    for expected in (
        "S-score, synthetic CT",
        "0.850",
        "21.5",
        "1 h 2 min",
        "optimiser.learning_rate",
    ):
        assert expected in text
    for heading in ("Segmentation and shape", "Training", "Test cases", "The run"):
        assert f"<h2>{heading}</h2>" in html
    assert not re.search(r"\b(nan|None|inf)\b", text)
    assert html.count("True MR") == html.count("True CT") == 1 + 3  # heading and three pictures


def test_files_appear_whole_and_under_their_own_names(whole):
    folder, *_ = whole
    written = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    figures = [f"figures/{n}.{s}" for n in ("training", "translation") for s in ("png", "svg")]
    assert written == [*figures, "report.html"]
    for figure in (folder / "figures").glob("*.svg"):
        ElementTree.parse(figure)


def test_the_same_run_gives_the_same_report(data, whole, tmp_path):
    """From results that come straight out of a file, too."""
    results = json.loads(json.dumps(data.results, allow_nan=False))
    _render(dataclasses.replace(data, results=results), tmp_path)
    folder, *_ = whole
    for file in (p for p in folder.rglob("*") if p.is_file()):
        assert (tmp_path / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_worst_median_and_best_come_first_and_the_rest_is_folded(whole):
    _, html, _ = whole
    shown = re.findall(r"<h4>(\w+) (?:<span class=\"rank\">(\w+)</span>)?", html)
    one_direction = [("0", "worst"), ("3", "median"), ("1", "best"), ("2", "")]
    assert shown == [(f"{m}_{n}", rank) for m in ("ct", "mr") for n, rank in one_direction]
    assert html.count("1 more case<") == 2


def test_nothing_but_a_name(tmp_path):
    html, text = _render(ReportData("gan", ("ct", "mr"), STRUCTURES, SPACING_MM, {}), tmp_path)
    assert "No test scores yet" in text and "<h2>" not in html
    assert not (tmp_path / "figures").exists()


def test_a_baseline_has_no_generators_and_no_judge(data, tmp_path):
    cases = [
        dataclasses.replace(
            case, translation=None, reconstruction=None, truth=None, predicted_translation=None,
            s_score=None,
        )
        for case in data.cases
    ]  # fmt: skip
    results = {key: data.results[key] for key in ("test", "checkpoint")}
    metrics = [{k: v for k, v in r.items() if "gen" not in k and "s_" not in k} for r in _metrics()]
    partial = dataclasses.replace(data, cases=cases, results=results, metrics=metrics)
    html, text = _render(partial, tmp_path)
    assert "No S-score" in text and "Synthetic" not in html and "Generators" not in html
    assert re.search(r"Dice 0\.\d{3}", text) and "worst" in text
    assert not (tmp_path / "figures" / "translation.png").exists()


def test_a_gan_has_no_segmentors(data, tmp_path):
    cases = [dataclasses.replace(case, predicted_source=None) for case in data.cases[:1]]
    results = {**data.results, "test": {"ct": {"dice": {"mean": None}}, "mr": {}}}
    partial = dataclasses.replace(data, cases=cases, results=results, case_scores=())
    html, text = _render(partial, tmp_path)
    assert "Test Dice" not in text and "S-score 0.400" in text and "ASSD" not in html


def test_names_are_escaped(data, tmp_path):
    case = dataclasses.replace(data.cases[0], case='<i>"odd"')
    hostile = dataclasses.replace(
        data,
        title="a<b",
        metrics=(),
        cases=[case],
        structures=("<u>", "Myo"),
        case_scores=(),
        warnings=("<s>",),
    )
    html, text = _render(hostile, tmp_path)
    assert not re.search(r"<(i|u|s)>\"?", html) and "<s>" in text


def test_attribution_stands_beside_the_pictures(data, tmp_path):
    credit = "Volumes: Someone, CC BY 4.0"
    few = dataclasses.replace(data, attribution=credit, cases=data.cases[:1], metrics=())
    _, text = _render(few, tmp_path)
    assert credit in text


def test_warnings_name_missing_structures_and_low_cases(data):
    truth = _label(4)
    without_lv = np.where(truth == 1, 0, truth)
    rows = [
        row
        for name, predicted in (("a", truth), ("b", truth), ("c", without_lv))
        for row in score_case(name, "ct", predicted, truth, STRUCTURES, SPACING_MM)
    ]
    found = find_warnings(dataclasses.replace(data, case_scores=rows, warnings=("given",)))
    assert found[:2] == ["given", "c: LV was not predicted"]
    assert len(found) == 3 and found[2].startswith("c: low agreement, Dice 0.500")


def test_ranking_by_hand():
    assert worst_median_best([0.5, None, 0.1, float("nan"), 0.9, 0.7]) == {
        "worst": 2,
        "median": 0,
        "best": 4,
    }
    assert worst_median_best([0.2, 0.1]) == {"worst": 1, "best": 0}
    assert worst_median_best([0.2]) == worst_median_best([None]) == {}


def test_cases_without_an_s_score_rank_by_dice(data):
    case = dataclasses.replace(data.cases[0], s_score=None, predicted_source=data.cases[0].label)
    assert agreement(case) == ("Dice", 1.0)
    assert np.isnan(agreement(dataclasses.replace(case, label=None)).value)
    assert [group[0].source_modality for group in directions(data.cases)] == ["ct", "mr"]
