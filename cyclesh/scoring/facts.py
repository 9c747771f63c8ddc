"""Where a result comes from: checkpoint, data, versions, configuration."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cyclesh.scoring import tables
from cyclesh.scoring.page import paragraph
from cyclesh.scoring.report_data import ReportData


def provenance(run: ReportData) -> str:
    """Checkpoint, seed, data, code and versions, as far as results.json has them."""
    results = run.results
    step = tables.lookup(results, "checkpoint", "step")
    validation = tables.lookup(results, "checkpoint", "validation")
    versions = tables.lookup(results, "versions") or {}
    trained_s = run.metrics[-1].get("wall_s") if run.metrics else None
    pairs = (
        ("Checkpoint", "" if step is None else f"step {step:,}"),
        ("Validation score", "" if validation is None else tables.number(validation)),
        ("Seed", _text(results.get("seed"))),
        ("Training time", "" if trained_s is None else _duration(trained_s)),
        ("Data (SHA-256)", _text(results.get("data"))),
        ("Split (SHA-256)", _text(results.get("split"))),
        ("Source", _text(results.get("git"))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    )
    return tables.facts(pairs)


def configuration(results: Mapping[str, Any]) -> str:
    """Every field of the run's configuration, folded away."""
    fields = tables.facts(_flatten(results.get("config") or {}))
    return f"<details><summary>Configuration</summary>{fields}</details>" if fields else ""


def differences(runs: Sequence[ReportData]) -> str:
    """The fields of the configurations in which two runs differ; "" of one run alone."""
    if len(runs) < 2:
        return ""
    configs = [dict(_flatten(run.results.get("config") or {})) for run in runs]
    fields = [
        field
        for field in dict.fromkeys(field for config in configs for field in config)
        if len({config.get(field) for config in configs}) > 1
    ]
    rows = [
        [escape(field), *(escape(config.get(field, tables.MISSING)) for config in configs)]
        for field in fields
    ]
    if not rows:
        return paragraph("Both runs have the same configuration.")
    head = ["Field", *(escape(run.title) for run in runs)]
    return tables.table("What the configurations differ in", head, rows)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", _text(value)))
    return pairs


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
