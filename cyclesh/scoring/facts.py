"""Where a result comes from: checkpoint, data, versions, configuration."""

from collections.abc import Mapping
from typing import Any

from cyclesh.scoring import tables


def provenance(results: Mapping[str, Any]) -> str:
    """Checkpoint, seed, data, code and versions, as far as results.json has them."""
    step = tables.lookup(results, "checkpoint", "step")
    validation = tables.lookup(results, "checkpoint", "validation")
    versions = tables.lookup(results, "versions") or {}
    wall_s = results.get("wall_s")
    pairs = (
        ("Checkpoint", "" if step is None else f"step {step:,}"),
        ("Validation score", "" if validation is None else tables.number(validation)),
        ("Seed", _text(results.get("seed"))),
        ("Wall time", "" if wall_s is None else _duration(wall_s)),
        ("Data and split", _text(results.get("split"))),
        ("Source", _text(results.get("git"))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    )
    return tables.facts(pairs)


def configuration(results: Mapping[str, Any]) -> str:
    """Every field of the run's configuration, folded away."""
    fields = tables.facts(_flatten(results.get("config") or {}))
    return f"<details><summary>Configuration</summary>{fields}</details>" if fields else ""


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
