"""The report of made-up runs: whole ones and ones with parts missing."""

import base64
import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from report_runs import SPACING_MM, STRUCTURES, ball, metrics, whole_run

from cyclesh.scoring.browser import browser
from cyclesh.scoring.cases import score_case
from cyclesh.scoring.figures import samples_of
from cyclesh.scoring.findings import find_warnings
from cyclesh.scoring.headline import headline
from cyclesh.scoring.ranking import agreement, directions, worst_median_best
from cyclesh.scoring.report import CaseImages, ReportData, figures, write_report


@pytest.fixture(scope="module")
def data():
    return whole_run()


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
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def _render(data, folder, *others):
    write_report([data, *others], folder / "report.html")
    html = (folder / "report.html").read_text(encoding="utf-8")
    page = _Checker()
    page.feed(html)
    assert page.open == []
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    assert not re.search(r"https?://(?!www\.w3\.org)", html)  # the names of SVG's namespaces
    return html, " ".join(page.text)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Folder, HTML and text of the report of a whole run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *_render(data, folder)


def _cases(html):
    """What the page's program reads."""
    found = re.search(r'id="case-data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found[1])


def _volumes(payload, number):
    """The arrays of a case, as the program unpacks them."""
    packed = zlib.decompress(base64.b64decode(payload["cases"][number]["data"]))
    return np.frombuffer(packed, np.uint8).reshape(-1, *payload["shape"])


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


def test_files_appear_whole_and_under_their_own_names(whole):
    folder, *_ = whole
    written = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    pictures = [f"figures/{n}.{s}" for n in ("figure4", "training") for s in ("png", "svg")]
    assert written == [*pictures, "report.html"]
    for figure in (folder / "figures").glob("*.svg"):
        ElementTree.parse(figure)


def test_the_same_run_gives_the_same_report(data, whole, tmp_path):
    """From results that come straight out of a file, too."""
    results = json.loads(json.dumps(data.results, allow_nan=False))
    _render(dataclasses.replace(data, results=results), tmp_path)
    folder, *_ = whole
    for file in (p for p in folder.rglob("*") if p.is_file()):
        assert (tmp_path / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_worst_median_and_best_come_first(whole):
    _, html, _ = whole
    shown = [(entry["id"], entry["rank"]) for entry in _cases(html)["cases"]]
    one_direction = [("0", "worst"), ("3", "median"), ("1", "best"), ("2", "")]
    assert shown == [(f"{m}_{n}", rank) for m in ("ct", "mr") for n, rank in one_direction]


def test_the_browser_gets_every_volume_as_it_is(data, whole):
    payload = _cases(whole[1])
    arrays, case, entry = _volumes(payload, 0), data.cases[0], payload["cases"][0]
    views = {view["name"]: view for view in entry["views"]}
    images = {
        "CT source": case.source,
        "Synthetic MR": case.translation,
        "True MR": case.truth,
        "Reconstructed CT": case.reconstruction,
        "Difference": case.reconstruction,
    }
    assert list(views) == list(images)
    for name, image in images.items():
        np.testing.assert_allclose(arrays[views[name]["image"]] / 127.5 - 1, image, atol=0.005)
        np.testing.assert_array_equal(arrays[views[name]["label"]], case.label)
    np.testing.assert_array_equal(arrays[views["CT source"]["predicted"]], case.predicted_source)
    judged = arrays[views["Synthetic MR"]["predicted"]]
    np.testing.assert_array_equal(judged, case.predicted_translation)
    assert views["Difference"]["before"] == views["CT source"]["image"]
    assert "True MR" not in str(payload["cases"][1])  # only the first case has its truth


def _noise(data, shape):
    """The run with twelve cases of noise, which nothing packs, instead of its own."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (4, *shape)).astype(np.float32)
    labels = rng.integers(0, 3, (3, *shape)).astype(np.uint8)
    names = ("source", "translation", "reconstruction", "truth")
    masks = ("label", "predicted_source", "predicted_translation")
    arrays = dict(zip((*names, *masks), (*images, *labels), strict=True))
    cases = [CaseImages(f"ct_{i}", "ct", "mr", **arrays, s_score=i / 12) for i in range(12)]
    return dataclasses.replace(data, cases=cases)


@pytest.mark.parametrize("shape", [(32, 40, 40), (40, 48, 56), (86, 112, 112)])
def test_twelve_cases_of_noise_stay_below_fifteen_megabytes(data, shape):
    html = browser([_noise(data, shape)])
    assert len(html) < 14e6  # the rest of a report is less than 1 MB
    payload = _cases(html)
    sides = zip(payload["shape"], payload["spacing"], shape, SPACING_MM, strict=True)
    # What is coarsened keeps its size, but for less than a voxel at the rim.
    assert all(0 <= n * mm - m * wide < mm for m, wide, n, mm in sides)
    assert (payload["shape"] == list(shape)) == (shape[0] < 86)
    assert ("shown at every" in html) == (shape[0] == 86)


def test_the_file_of_twelve_large_cases_is_below_fifteen_megabytes_and_says_it_is_coarser(
    data, tmp_path
):
    _, text = _render(_noise(data, (86, 112, 112)), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 15e6
    assert "shown at every 2nd voxel" in text


def test_two_runs_stand_side_by_side(data, tmp_path):
    other = dataclasses.replace(
        data,
        title="gan",
        cases=[
            dataclasses.replace(c, translation=c.translation / 2, s_score=0.5)
            for c in data.cases[:2]
        ],
        results={
            **data.results,
            "config": {**data.results["config"], "filters": 16},
            "s_score": {"ct": {"mean": 0.75}, "mr": {}},
        },
    )
    html, text = _render(data, tmp_path, other)
    assert "<h1>joint against gan</h1>" in html
    assert "+0.050" in text  # S-score 0.8 against 0.75
    differing = re.search(r"What the configurations differ in.*?</table>", html, re.DOTALL)[0]
    assert re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", differing)[3:] == ["filters", "8", "16"]
    first, _, third = _cases(html)["cases"][:3]
    names = [view["name"] for view in first["views"]]
    assert names[:4] == [
        "CT source, joint",
        "CT source, gan",
        "Synthetic MR, joint",
        "Synthetic MR, gan",
    ]
    assert first["score"] == "0.400 | 0.500" and third["score"] == "0.900 | 0.500"
    arrays = _volumes(_cases(html), 0)
    joint, gan = (arrays[first["views"][i]["image"]] / 127.5 - 1 for i in (2, 3))
    np.testing.assert_allclose(joint / 2, gan, atol=0.01)
    # Both runs' source is one array.
    assert first["views"][0]["image"] == first["views"][1]["image"]
    lonely = [entry for entry in _cases(html)["cases"] if entry["id"] == "mr_0"]
    assert not any(view["name"].endswith("gan") for view in lonely[0]["views"])


def test_figure_4_of_two_runs_has_the_same_samples_of_both(data, tmp_path):
    darker = [
        dataclasses.replace(c, translation=c.translation / 2, s_score=0.5) for c in data.cases
    ]
    other = dataclasses.replace(data, title="gan", cases=darker[1:])
    (from_mr, from_ct) = samples_of([data, other], 3)
    # The worst CT case is not among the other run's, so it is in no sample.
    assert [one.case for one, _ in from_mr] == ["mr_0", "mr_3", "mr_1"]
    assert [one.case for one, _ in from_ct] == ["ct_3", "ct_2", "ct_1"]
    for one, two in from_mr + from_ct:
        assert one.case == two.case
        np.testing.assert_array_equal(one.translation, 2 * two.translation)
    drawn = figures([data, other])
    sizes = {name: drawn[name].get_size_inches() for name in ("figure4", "figure4_compared")}
    assert sizes["figure4_compared"][1] > 1.3 * sizes["figure4"][1]  # three rows instead of two
    told = [text.get_text() for text in drawn["figure4_compared"].texts]
    assert "synthetic CT\njoint" in told and "synthetic MR\ngan" in told
    assert "mr_0   S-score 0.40 | 0.50" in told
    assert all(" | " not in text.get_text() for text in drawn["figure4"].texts)
    html, text = _render(data, tmp_path, other)
    assert "its translation by either run" in text
    assert {path.name for path in (tmp_path / "figures").glob("*.png")} == {
        "figure4.png", "figure4_compared.png", "training.png",
    }  # fmt: skip
    _render(data, tmp_path)
    assert not list((tmp_path / "figures").glob("figure4_compared.*"))


def test_a_run_that_translates_nothing_leaves_figure_4_to_the_other(data):
    nothing = [dataclasses.replace(c, translation=None, reconstruction=None) for c in data.cases]
    baseline = dataclasses.replace(data, title="baseline", cases=nothing)
    assert set(figures([data, baseline])) == {"training", "figure4"}
    assert set(figures([baseline, data])) == {"training"}


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
    rows = [{k: v for k, v in r.items() if "gen" not in k and "s_" not in k} for r in metrics()]
    partial = dataclasses.replace(data, cases=cases, results=results, metrics=rows, s_scores=())
    html, text = _render(partial, tmp_path)
    assert "No S-score" in text and "Synthetic" not in html and "Generators" not in html
    entry = _cases(html)["cases"][0]
    assert entry["direction"] == "CT, by Dice" and entry["rank"] == "worst"
    assert not (tmp_path / "figures" / "figure4.png").exists()


def test_other_cases_than_the_tests_are_not_called_so(data, tmp_path):
    for split, word in (("val", "Validation"), ("train", "Training")):
        results = data.results | {"scored_split": split}
        _, text = _render(dataclasses.replace(data, results=results), tmp_path / split)
        assert f"{word} Dice, CT" in text and f"{word} cases" in text and "Test " not in text
        assert f"The judge on real {word.lower()} volumes" in text


def test_a_gan_has_no_segmentors(data, tmp_path):
    cases = [dataclasses.replace(case, predicted_source=None) for case in data.cases[:1]]
    results = {**data.results, "test": {"ct": {"dice": {"mean": None}}, "mr": {}}}
    partial = dataclasses.replace(data, cases=cases, results=results, case_scores=())
    html, text = _render(partial, tmp_path)
    assert "Test Dice" not in text and _cases(html)["cases"][0]["score"] == "0.400"
    assert "Dice of every case" not in text and "S-score of every case" in text


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
    truth = ball(4)
    without_lv = np.where(truth == 1, 0, truth)
    rows = [
        row
        for name, predicted in (("a", truth), ("b", truth), ("c", without_lv))
        for row in score_case(name, "ct", predicted, truth, STRUCTURES, SPACING_MM)
    ]
    run = dataclasses.replace(data, case_scores=rows, warnings=("given",))
    assert find_warnings(run) == [
        "given",
        "c: LV was not predicted",
        "c: low agreement, Dice 0.500 where the median CT case has 1.000",
        "mr_0: low agreement, S-score 0.400 where the median synthetic CT has 0.550",
        "ct_0: low agreement, S-score 0.400 where the median synthetic MR has 0.550",
    ]


def test_an_s_score_without_a_ceiling_is_held_against_the_judge(data):
    table = headline([data])
    assert "ceiling 0.850" in table  # CT has one, MR none
    assert table.count("judge 0.800") == 3  # both Dice, and the S-score of MR
    assert "beside it</th>" in table and "–" not in table


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
