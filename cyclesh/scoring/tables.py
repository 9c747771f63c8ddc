"""The numbers of a report as HTML. Every function returns "" where a run has nothing to show."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cyclesh.scoring.report_data import ReportData

MISSING = "–"
MEAN = "Mean"


def lookup(results: Mapping[str, Any], *keys: str) -> Any:
    """results[key][key]..., or None where any of them is missing."""
    value: Any = results
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def segmentation(data: ReportData) -> list[str]:
    """One table for each modality: Dice against the judge's, distances, empty cases."""
    return [_segmentation_of(data, modality) for modality in data.modalities]


def split_word(results: Mapping[str, Any]) -> str:
    """Which cases were scored, as a word."""
    return {"val": "validation", "train": "training"}.get(results.get("scored_split"), "test")


def s_score(data: ReportData) -> str:
    """S-score by structure, with what the judges themselves reach."""
    columns = [m for m in data.modalities if lookup(data.results, "s_score", m, "mean") is not None]
    if not columns:
        return ""
    head = ["Structure", *(f"synthetic {m.upper()}" for m in columns)]
    body = [
        [escape(name), *(bar(lookup(data.results, "s_score", m, key)) for m in columns)]
        for name, key in _mean_and(data.structures)
    ]
    references = (
        ("Ceiling: the judge on the true volumes of the same subjects", ("ceiling",)),
        (f"The judge on real {split_word(data.results)} volumes", ("dice", "mean")),
        ("Floor: the judge on the inputs, untranslated", ("untranslated",)),
        ("Floor: ... with the histogram of that modality", ("histogram_matched",)),
    )
    foot = [
        [name, *(number(lookup(data.results, "judge", m, *keys)) for m in columns)]
        for name, keys in references
    ]
    return table("S-score", head, body, foot)


def translation(data: ReportData) -> str:
    """MAE, PSNR and SSIM against the paired truth."""
    rows = []
    for modality in data.modalities:
        block = lookup(data.results, "translation", modality) or {}
        if any(value is not None for value in block.values()):
            mae, psnr, ssim = (block.get(key) for key in ("mae", "psnr_db", "ssim"))
            rows.append(
                [f"synthetic {modality.upper()}", number(mae), number(psnr, 1), number(ssim)]
            )
    head = ["", "MAE", "PSNR (dB)", "SSIM"]
    return table("Translation against the paired truth", head, rows) if rows else ""


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and values."""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs if v)
    return f'<dl class="facts">{items}</dl>' if items else ""


def number(value: float | None, digits: int = 3) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def bar(value: float | None, mark: float | None = None) -> str:
    """A number over a bar of its length in [0, 1], with a tick at `mark`."""
    if value is None:
        return MISSING
    tick = "" if mark is None else f'<i style="left:{100 * mark:.1f}%"></i>'
    return f'{number(value)}<span class="bar"><b style="width:{100 * value:.1f}%"></b>{tick}</span>'


def _segmentation_of(data: ReportData, modality: str) -> str:
    block = lookup(data.results, "test", modality) or {}
    if lookup(block, "dice", "mean") is None:
        return ""
    judge = lookup(data.results, "judge", modality, "dice") or {}
    head = ["Structure", "Dice", "judge", "ASSD (mm)", "HD95 (mm)", "empty"]
    body = [
        [
            escape(name),
            bar(lookup(block, "dice", key), judge.get(key)),
            number(judge.get(key)),
            number(lookup(block, "assd_mm", key), 2),
            number(lookup(block, "hd95_mm", key), 1),
            _empty(block, key),
        ]
        for name, key in _mean_and(data.structures)
    ]
    cases = block.get("n")
    split = split_word(data.results)
    plural = "case" if cases == 1 else "cases"
    caption = f"{modality.upper()}, {cases} {split} {plural}" if cases else modality.upper()
    return table(caption, head, body)


def _empty(block: Mapping[str, Any], structure: str) -> str:
    if structure == "mean":
        return ""
    count = lookup(block, "empty", structure)
    return MISSING if count is None else str(count)


def _mean_and(structures: Sequence[str]) -> list[tuple[str, str]]:
    return [(MEAN, "mean"), *((name, name) for name in structures)]


def table(
    caption: str,
    head: Sequence[str],
    body: Sequence[Sequence[str]],
    foot: Sequence[Sequence[str]] = (),
) -> str:
    """A table of HTML cells; the first cell of every row is its heading."""
    return (
        f'<div class="table"><table><caption>{escape(caption)}</caption>'
        f"<thead>{_row(head, 'col')}</thead>"
        f"<tbody>{''.join(_row(row, 'row') for row in body)}</tbody>"
        f"<tfoot>{''.join(_row(row, 'row') for row in foot)}</tfoot></table></div>"
    )


def _row(cells: Sequence[str], scope: str) -> str:
    """Headings throughout (scope "col"), or a heading and numbers (scope "row")."""
    first, *rest = cells
    tag = "th scope=col" if scope == "col" else "td"
    style = ' class="mean"' if first == MEAN else ""
    others = "".join(f"<{tag}>{cell}</{tag[:2]}>" for cell in rest)
    return f"<tr{style}><th scope={scope}>{first}</th>{others}</tr>"
