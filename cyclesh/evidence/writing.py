"""Writes what a plan's outputs are: .csv, paired differences, .md, figures."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from cyclesh.evidence import figures, records, tables
from cyclesh.evidence.pages import page, plain
from cyclesh.evidence.trials import Plan
from cyclesh.files import write_text


def write(plan: Plan, output: str, workdir: Path) -> list[Path]:
    """The files of an output: .csv, paired differences, .md (pictures: `figures`).

    An earlier figure that can no longer be drawn, or table without rows, is removed.
    """
    found = records.read_records(workdir)
    rows, compared = tables.table_rows(plan, output, found), tables.differences(plan, output, found)
    written = {}
    if rows:
        written[f"{output}.csv"] = to_csv(tables.COLUMNS, rows)
    if compared:
        written[f"{output}_differences.csv"] = to_csv(
            tables.DIFFERENCE_COLUMNS, [tables.difference_row(*pair) for pair in compared]
        )
    if output == "table1" and (alike := tables.translation_rows(plan, output, found)):
        written["table1_translation.csv"] = to_csv(tables.TRANSLATION_COLUMNS, alike)
    if output == "figure8":
        written["figure8_ratio.csv"] = to_csv(tables.RATIO_COLUMNS, tables.ratio_rows(plan, found))
    lost = figures.without_networks(plan, output, workdir)
    pictures = [] if lost else figures.draw(plan, output, workdir, rows, found)
    for path in figures.pictures(output, workdir) if not pictures else ():
        path.unlink(missing_ok=True)
    for path in tables_beside(output, workdir):
        if path.name not in written:
            path.unlink(missing_ok=True)
    text = page(plan, output, workdir, rows, compared, found, bool(pictures), lost)
    written[f"{output}.md"] = text
    files = [write_text(Path(workdir) / name, text) for name, text in written.items()]
    return files + pictures


def tables_beside(output: str, folder: Path) -> list[Path]:
    """The .csv that an output has in a folder, if it has rows for them."""
    more = ("", "_differences", "_translation", "_ratio")
    return [Path(folder) / f"{output}{name}.csv" for name in more]


def to_csv(columns: Iterable[str], rows: Iterable[Mapping]) -> str:
    """Numbers with six digits, nothing where there is no number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([plain(row[column]) for column in columns])
    return text.getvalue()
