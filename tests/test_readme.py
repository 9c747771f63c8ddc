"""A page's table of results from docs/results."""

from pathlib import Path

import pytest

from cyclesh.evidence import readme

TABLE1 = """method,modality,structure,x,mean,sd,n
no_sc,ct,mean,,0.4321,0.01,5
no_sc,ct,LV,,0.9,0.01,5
no_sc,mr,mean,,0.5,,1
sc,ct,mean,,0.55,0.02,5
sc,mr,mean,,,,0
"""
DIFFERENCES = """comparison,modality,measure,x,mean,low,high,seeds,subjects,primary
sc - no_sc,ct,s_score,,0.118,0.05,0.2,5,24,1
sc - no_sc,mr,s_score,,0.04,,,1,24,1
ada - baseline,ct,s_score,,0.3,0.2,0.4,5,24,0
"""


TABLE2 = """method,modality,structure,x,mean,sd,n
baseline,ct,mean,,0.7,0.01,4
baseline,mr,mean,,0.6,0.01,5
"""
DIFFERENCES2 = """comparison,modality,measure,x,mean,low,high,seeds,subjects,primary
ours - baseline,ct,dice,,0.05,0.01,0.09,5,24,1
ours - baseline,mr,dice,,,,,0,0,1
ours - ada,ct,dice,,0.02,-0.01,0.05,4,24,0
ada - baseline,ct,dice,,0.03,0.01,0.05,5,24,0
"""


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "results" / "phantom"
    folder.mkdir(parents=True)
    (folder / "table1.csv").write_text(TABLE1)
    (folder / "table2.csv").write_text(TABLE2)
    (folder / "table1_differences.csv").write_text(DIFFERENCES)
    (folder / "table2_differences.csv").write_text(DIFFERENCES2)
    return folder.parent


def test_the_table_stands_between_the_markers_and_nothing_else_changes(tmp_path, results):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    assert readme.main([str(page), str(results)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- results -->\n") and text.endswith(
        "<!-- /results -->\nafter\n"
    )
    assert "old" not in text and "private" in text
    row = next(line for line in text.splitlines() if line.startswith("| G without shape"))
    assert "| 0.432 +- 0.010 | 0.500, n = 1 | 0.668 | 0.675 |" in row
    row = next(line for line in text.splitlines() if line.startswith("| G with shape"))
    assert "| 0.550 +- 0.020 | - | 0.692 | 0.696 |" in row
    assert "sc - no sc in CT +0.118 (95 % interval +0.050 to +0.200)" in text
    assert "sc - no sc in MR +0.040 (no interval yet; n = 1)" in text
    assert "ours - baseline in MR" not in text  # no seed at all
    assert "ours - ada in CT +0.020 (95 % interval -0.010 to +0.050; n = 4)" in text
    assert "seeds: 5 (phantom), fewer where n says so" in text
    assert "abdomen" not in text and "ada - baseline" not in text
    row = next(line for line in text.splitlines() if line.startswith("| Baseline"))
    assert "| 0.700 +- 0.010, n = 4 | 0.600 +- 0.010 |" in row
    before = text
    readme.main([str(page), str(results)])
    assert page.read_text() == before
    for name in ("table1.csv", "table2.csv"):
        table = results / "phantom" / name
        table.write_text(table.read_text().replace(",1\n", ",5\n").replace(",4\n", ",5\n"))
    readme.main([str(page), str(results)])
    assert "seeds: 5 (phantom). " in page.read_text()


@pytest.mark.parametrize("text", ["no markers", "<!-- /results --> <!-- results -->"])
def test_a_page_without_markers_is_refused_and_kept(tmp_path, results, text, capsys):
    page = tmp_path / "README.md"
    page.write_text(text)
    assert readme.main([str(page), str(results)]) == 2
    assert page.read_text() == text and "<!-- results -->" in capsys.readouterr().err
    assert readme.main([str(tmp_path / "none.md"), str(results)]) == 2
    assert readme.main([str(page)]) == 2
