"""docs/configuration.md, made from configs/default.py: `python -m docs.configuration`."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from configs import default
from cyclesh import settings
from cyclesh.methods import METHODS

PAGE = Path(__file__).with_suffix(".md")
INTRODUCTION = """\
# Configuration

<!-- Made by `python -m docs.configuration` from configs/default.py; edit that and run it again. -->

Every field of a run. `--config.any.field=value` sets it, `--config=configs/NAME.py:key=value` sets
the most used ones by short names (README, "Configs, keys and modes"). The default is the paper's
value where the paper gives one (the number in brackets is its section) and otherwise "ours"; only
pre-training and the early stop, which the paper has, are off. A preset, then the method, then the
command line change it, in this order; `config.json` of the run's folder has the outcome.
"""
METHODS_NOTE = """\
## Methods

What each config file sets on top; "as it is": the preset's. Where that pre-trains nothing, `ada`
does, `schedule.pretrain_seg_epochs` and `schedule.pretrain_gan_epochs` being what it trains itself.
"""
SECTION = re.compile(r"    # --- (.+)")
COMMENT = re.compile(r"    # (.+)")
FIELD = re.compile(r"    (\w)\.(\w+) = (?:(\w) = )?([^#]*?)(?:  # (.+))?")


def page() -> str:
    """The whole of configuration.md."""
    defaults = settings.flat(default.fields().to_dict())
    parts = [
        INTRODUCTION,
        *_field_tables(defaults),
        "## Presets\n\nWhat they change of the fields above.\n",
        *(_preset(name, fields, defaults) for name, fields in default.PRESETS.items()),
        METHODS_NOTE,
        _methods(),
    ]
    return "\n".join(parts)


def _field_tables(defaults: dict) -> Iterator[str]:
    """A heading and a table for each section of `default.fields`, in its order."""
    heading, rows = "the run", []
    for title, name, comment in fields():
        if title != heading:
            yield _section(heading, rows)
            heading, rows = title, []
        for field, value in defaults.items():
            if field == name or field.startswith(f"{name}."):
                rows.append((f"`{field}`", _code(value), _about(field, comment)))
    yield _section(heading, rows)


def _about(field: str, comment: str) -> str:
    """The comment; of a group of fields, one that begins with a field's name is of that alone."""
    named = re.match(r"(\w+): ", comment)
    if named and named[1] in default.fields().optim.gen:
        return comment[named.end() :] if field.endswith(f".{named[1]}") else ""
    return comment


def _preset(name: str, fields: dict, defaults: dict) -> str:
    rows = [
        (f"`{field}`", _code(value), _code(defaults[field]))
        for field, value in fields.items()
        if _code(value) != _code(defaults[field])
    ]
    table = _table(("field", "value", "instead of"), rows) if rows else "Nothing.\n"
    return f"### `{name}`\n\n{table}"


def _methods() -> str:
    names = list(dict.fromkeys(field for fields in METHODS.values() for field in fields))
    rows = [
        (
            f"`{method}`",
            *(_code(fields[name]) if name in fields else "as it is" for name in names),
        )
        for method, fields in METHODS.items()
    ]
    return _table(("config", *(f"`{name}`" for name in names)), rows)


def fields() -> Iterator[tuple[str, str, str]]:
    """(section, dotted name, comment) of each assignment in `default.fields`.

    A field's comment is what stands above it since the last field, then what stands beside it.
    """
    section, above = "the run", []
    prefixes = {"c": ""}
    for line in inspect.getsource(default.fields).splitlines():
        if found := SECTION.fullmatch(line):
            section, above = found[1], []
        elif found := COMMENT.fullmatch(line):
            above.append(found[1])
        elif found := FIELD.fullmatch(line):
            owner, name, alias, value, beside = found.groups()
            if alias and value == "ConfigDict()":
                prefixes[alias] = f"{prefixes[owner]}{name}."
                continue
            if alias or owner in prefixes:
                yield (
                    section,
                    prefixes[owner] + name,
                    "; ".join(filter(None, [" ".join(above), beside])),
                )
            above = []


def _section(heading: str, rows: list[tuple]) -> str:
    title, _, note = heading.partition(": ") if "(" not in heading else (heading, "", "")
    text = f"## {title[0].upper()}{title[1:]}\n\n"
    text += f"{note[0].upper()}{note[1:]}.\n\n" if note else ""
    return text + _table(("field", "default", ""), rows)


def _table(head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = (" | ".join(str(cell).replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {line} |\n" for line in cells)


def _code(value) -> str:
    if isinstance(value, float) and value == 1 / 3:
        return "`1/3`"
    return f"`{_plain(value)!r}`"


def _plain(value):
    """One spelling of a sequence, be it from Python or from JSON."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
