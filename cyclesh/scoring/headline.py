"""The numbers that a reader looks at first: mean Dice and S-score, and their references."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from cyclesh.scoring.report_data import ReportData
from cyclesh.scoring.tables import MISSING, bar, lookup, number, split_word


class Reference(NamedTuple):
    """What a score is held against: its name, and keys of results.json ("*": the modality)."""

    name: str
    keys: tuple[str, ...]


class Kind(NamedTuple):
    """A score: its name (of split, modality), its keys, its reference (the first there is)."""

    name: str
    keys: tuple[str, ...]
    references: tuple[Reference, ...]


JUDGE = Reference("judge", ("judge", "*", "dice", "mean"))
CEILING = Reference("ceiling", ("judge", "*", "ceiling"))  # where a paired truth exists
KINDS = (
    Kind("{}Dice, {}", ("test", "*", "dice", "mean"), (JUDGE,)),
    Kind("S-score, synthetic {1}", ("s_score", "*", "mean"), (CEILING, JUDGE)),
)


def headline(runs: Sequence[ReportData]) -> str:
    """A table with a row a score; two runs stand side by side, with their difference."""
    rows = [_row(kind, modality, runs) for kind in KINDS for modality in runs[0].modalities]
    if not any(rows):
        return ""
    several = len(runs) > 1
    heads = [text for run in runs for text in (run.title if several else "score", "beside it")]
    head = "".join(
        f"<th scope=col>{escape(text)}</th>"
        for text in ("", *heads, *(["difference"] if several else []))
    )
    return (
        '<div class="table"><table class="headline">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(kind: Kind, modality: str, runs: Sequence[ReportData]) -> str:
    """One score of every run; "" where none has it."""
    values = [_value(run, kind.keys, modality) for run in runs]
    if all(value is None for value in values):
        return ""
    cells = []
    for run, value in zip(runs, values, strict=True):
        name, reference = _reference(run, kind, modality)
        beside = MISSING if reference is None else f"{name} {number(reference)}"
        cells += [f'<td class="score">{bar(value, reference)}</td>', f"<td>{beside}</td>"]
    if len(runs) > 1:
        cells.append(f"<td>{_difference(*values)}</td>")
    scored = {split_word(run.results) for run in runs}
    split = scored.pop().capitalize() + " " if len(scored) == 1 else ""
    name = escape(kind.name.format(split, modality.upper()))
    return f"<tr><th scope=row>{name}</th>{''.join(cells)}</tr>"


def _reference(run: ReportData, kind: Kind, modality: str) -> tuple[str, float | None]:
    """The name and the value of what a score is held against."""
    found = (
        (reference.name, _value(run, reference.keys, modality)) for reference in kind.references
    )
    return next((reference for reference in found if reference[1] is not None), ("", None))


def _difference(first: float | None, second: float | None) -> str:
    """How far the first run is above the second."""
    if first is None or second is None:
        return MISSING
    return f"{first - second:+.3f}".replace("-", "−")


def _value(run: ReportData, keys: tuple[str, ...], modality: str) -> float | None:
    return lookup(run.results, *(modality if key == "*" else key for key in keys))
