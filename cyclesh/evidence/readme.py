"""Fills the table of results in a page: `python -m cyclesh.evidence.readme README.md docs/results`.

What stands between the two markers is replaced; everything else stays as it is.
"""

import csv
import sys
from pathlib import Path

from cyclesh.errors import UserError
from cyclesh.evidence.pages import markdown_table
from cyclesh.files import write_text

MARKERS = "<!-- results -->", "<!-- /results -->"
# Tables 1 and 2 of the paper, in the order CT, MRI.
PAPER = {
    ("table1", "no_sc"): ("G without shape consistency, S-score", 0.668, 0.675),
    ("table1", "sc"): ("G with shape consistency, S-score", 0.692, 0.696),
    ("table2", "baseline"): ("Baseline (R), Dice", 0.678, 0.703),
    ("table2", "ada"): ("ADA (R+S), Dice", 0.660, 0.710),
    ("table2", "ours"): ("Ours (R+S), Dice", 0.744, 0.732),
}
SHOWN_TOO = "ours - ada"  # secondary, but the paper's point: online against offline augmentation
DATA = ("phantom", "abdomen")  # folders of docs/results, where they exist


def fill_block(page: Path, markers: tuple[str, str], block: str) -> None:
    """Write what stands between two markers of a page. Raises UserError where there are none."""
    if not page.is_file():
        raise UserError(f"{page}: no such file; give the page to fill")
    text = page.read_text(encoding="utf-8")
    head, first, rest = text.partition(markers[0])
    _, last, tail = rest.partition(markers[1])
    if not (first and last):
        raise UserError(f"{page}: has no {markers[0]} and {markers[1]}; put them where it belongs")
    write_text(page, f"{head}{first}\n{block}\n{last}{tail}")


def results_block(results: Path) -> str:
    """The table, the differences and what must be said beside them."""
    folders = [results / name for name in DATA if (results / name / "table1.csv").is_file()]
    if not folders:
        raise UserError(f"{results}: holds no {'/table1.csv, no '.join(DATA)}/table1.csv")
    header = ["", *(f"{folder.name} {m}" for folder in folders for m in ("CT", "MR"))]
    lines = []
    for (table, method), (label, *paper) in PAPER.items():
        cells = [_cell(folder, table, method, m) for folder in folders for m in (0, 1)]
        lines.append([label, *cells, *(f"{value:.3f}" for value in paper)])
    seeds = ", ".join(f"{_seeds(folder)} ({folder.name})" for folder in folders)
    missing = "n =" in "".join(cell for line in lines for cell in line)
    note = NOTE.format(seeds + (", fewer where n says so" if missing else ""))
    block = [markdown_table([*header, "paper CT", "paper MR"], lines), note]
    for folder in folders:
        rows = [row for table in ("table1", "table2") for row in _differences(folder, table)]
        block += [f"{folder.name}: {'; '.join(rows)}." if rows else ""]
    return "\n\n".join(part for part in block if part)


NOTE = (
    "Means over seeds +- standard deviation; seeds: {}. S-scores with all real subjects, by the "
    "modality of the synthetic volumes; Dice where 14 % of the modality's are left, two at least. "
    "The paper's cardiac data are private, so its numbers stand here for the size of the effects: "
    "other anatomy, other resolution, other scanners."
)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _means(folder: Path, table: str) -> list[dict[str, str]]:
    return [row for row in _rows(folder / f"{table}.csv") if row["structure"] == "mean"]


def _seeds(folder: Path) -> int:
    """The most that a mean of the tables has: both are of equally many, where none is missing."""
    tables = dict.fromkeys(table for table, _ in PAPER)
    counts = (int(row["n"]) for table in tables for row in _means(folder, table))
    return max(counts, default=0)


def _fewer(folder: Path, seeds: str, before: str) -> str:
    """How many seeds there are, where some are missing."""
    return f"{before}n = {seeds}" if int(seeds) < _seeds(folder) else ""


def _cell(folder: Path, table: str, method: str, index: int) -> str:
    """Mean and sd of the first or second modality; a dash where there is none."""
    rows = [row for row in _means(folder, table) if row["method"] == method]
    if len(rows) <= index or not rows[index]["mean"]:
        return "-"
    row = rows[index]
    sd = f" +- {float(row['sd']):.3f}" if row["sd"] else ""
    return f"{float(row['mean']):.3f}{sd}{_fewer(folder, row['n'], ', ')}"


def _differences(folder: Path, table: str) -> list[str]:
    """The primary comparisons and `SHOWN_TOO`, with their intervals."""
    return [
        f"{row['comparison'].replace('_', ' ')} in {row['modality'].upper()} "
        f"{float(row['mean']):+.3f} ({_interval(row)}{_fewer(folder, row['seeds'], '; ')})"
        for row in _rows(folder / f"{table}_differences.csv")
        if (row["primary"] == "1" or row["comparison"] == SHOWN_TOO) and row["mean"]
    ]


def _interval(row: dict[str, str]) -> str:
    if not row["low"]:
        return "no interval yet"
    return f"95 % interval {float(row['low']):+.3f} to {float(row['high']):+.3f}"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m cyclesh.evidence.readme PAGE.md RESULTS", file=sys.stderr)
        return 2
    try:
        page, results = map(Path, arguments)
        fill_block(page, MARKERS, results_block(results))
    except UserError as error:
        print(f"cyclesh: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
