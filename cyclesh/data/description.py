"""What a dataset is: its modalities, structures, grid and windows.

The data decide, by an optional dataset.json in the raw folder; where they are silent, the config
does. Every key is optional:

    {"modalities": ["ct", "mr"],                         domain A, domain B
     "structures": {"liver": 1, "spleen": 4},            value in the label files, in class order
     "aliases": {"5": 4}, "dropped": [2, 3],             5 means 4; 2 and 3 become background
     "spacing_mm": [6, 6, 6], "shape": [40, 48, 56],     of the training crop: z, y, x
     "windows": {"ct": ["fixed", -125, 275], "mr": ["percentile", 0.5, 99.5]},
     "subjects": {"ct_07": "Ada", "ct_08": "Ada"},       else each case is its own subject
     "split": {"train": ["Ada", ...], "val": [...], "test": [...], "extra": [...]},
     "paired": {"mr_of_ct_01": "ct_01"}}                 a true volume of a test case's anatomy
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cyclesh.domains import DOMAINS
from cyclesh.errors import UserError

DATASET_JSON = "dataset.json"
SPLITS = ("train", "val", "test", "extra")

LARGEST_VALUE = 65535  # of a label; they are looked up in a table
PLAUSIBLE_SPACING_MM = (0.05, 25.0)  # between micro-CT of a mouse and a scout scan
LARGEST_CROP = 1024**3  # voxels

Window = tuple[str, float, float]


@dataclass(frozen=True)
class Description:
    """What a dataset is. Every 3-tuple is (z, y, x).

    Raises UserError when the fields contradict one another.
    """

    modalities: tuple[str, str]  # keys of domain A and domain B
    structures: tuple[tuple[str, int], ...]  # (name, value in the files); class = position + 1
    aliases: tuple[tuple[int, int], ...]  # (value in the files, value that was meant)
    dropped: tuple[int, ...]  # known values that become background
    spacing_mm: tuple[float, float, float]  # of the training grid
    shape: tuple[int, int, int]  # voxels of the training crop
    # Per modality ("fixed", low, high) in the files' units, or ("percentile", low, high) in 0..100
    # of each crop.
    windows: tuple[Window, Window]

    def __post_init__(self):
        # One spelling of a number, since the description is hashed as text.
        windows = tuple((rule, float(low), float(high)) for rule, low, high in self.windows)
        object.__setattr__(self, "spacing_mm", tuple(float(mm) for mm in self.spacing_mm))
        object.__setattr__(self, "windows", windows)
        _check(self)

    @property
    def by_domain(self) -> dict[str, str]:
        """The modality of each domain."""
        return dict(zip(DOMAINS, self.modalities, strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """The structures' names in class order, background left out."""
        return tuple(name for name, _ in self.structures)

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.structures) + 1

    def window(self, modality: str) -> Window:
        """The window rule of a modality."""
        return self.windows[self.modalities.index(modality)]

    def class_of_value(self) -> dict[int, int]:
        """Every value that a label file may hold -> class index."""
        table = {0: 0} | dict.fromkeys(self.dropped, 0)
        table |= {value: index for index, (_, value) in enumerate(self.structures, start=1)}
        return table | {wrong: table[right] for wrong, right in self.aliases}

    def to_json(self) -> dict:
        """Plain types in dataset.json's own form; the order of `structures` is the class order."""
        return {
            "modalities": list(self.modalities),
            "structures": dict(self.structures),
            "aliases": {str(wrong): right for wrong, right in self.aliases},
            "dropped": list(self.dropped),
            "spacing_mm": list(self.spacing_mm),
            "shape": list(self.shape),
            "windows": {m: list(w) for m, w in zip(self.modalities, self.windows, strict=True)},
        }

    @staticmethod
    def from_json(entries: Mapping) -> "Description":
        """Inverse of `to_json`. Raises UserError when a key is missing, unknown or wrong."""
        missing = [key for key in _PARSERS if key not in entries]
        if missing:
            raise UserError(f"the description lacks {', '.join(missing)}")
        _refuse_unknown(entries, tuple(_PARSERS))
        fields = {key: parse(entries[key]) for key, parse in _PARSERS.items()}
        return _build(fields, fields.pop("windows"), defaults={})


def require_levels(shape: Sequence[int], downsamplings: int, what: str) -> None:
    """Raises UserError naming ``what`` where networks cannot halve a crop of ``shape`` so often.

    InstanceNorm of a single voxel is 0 whatever the voxel: two must remain along each axis.
    """
    smallest = 2 ** (downsamplings + 1)
    if len(shape) != 3 or min(shape) < smallest:
        raise UserError(
            f"{what} is {tuple(shape)}; {downsamplings} downsamplings need {smallest} voxels or "
            "more along each axis"
        )


def description_of(data) -> Description:
    """What the config section `data` says the data are, where the data themselves are silent.

    Raises UserError naming the field, for a wrong type or a contradiction.
    """

    def pairs(name: str) -> dict:
        entries = getattr(data, name)
        if any(not isinstance(entry, tuple) or len(entry) != 2 for entry in entries):
            raise UserError(f"{name} must be pairs, not {entries!r}")
        if len(dict(entries)) < len(entries):
            raise UserError(f"{name} must differ from one another, not {entries!r}")
        return dict(entries)

    try:
        windows = zip(data.modalities, _sequence(data.windows, "windows", 2), strict=True)
        return Description.from_json(
            {
                "modalities": _modalities(data.modalities),
                "structures": pairs("structures"),
                "aliases": {str(wrong): right for wrong, right in pairs("aliases").items()},
                "windows": dict(windows),
                **{name: getattr(data, name) for name in ("dropped", "spacing_mm", "shape")},
            }
        )
    except UserError as error:
        raise UserError(f"--config: data.{error}") from None


def describe(folder: Path | str, default: Description) -> Description:
    """`default`, overridden by the dataset.json of a raw folder, when it has one.

    Aliases and dropped values belong to the structures: a file that names structures of its own
    does not inherit them.
    Raises UserError, naming the file, for an unknown key, a wrong type or a contradiction.
    """
    entries = read_dataset_json(folder)
    given = {key: parse(entries[key]) for key, parse in _PARSERS.items() if key in entries}
    if "structures" in given:
        given = {"aliases": (), "dropped": ()} | given
    windows = given.pop("windows", {})
    fields = {k: given.get(k, getattr(default, k)) for k in _PARSERS if k != "windows"}
    try:
        return _build(fields, windows, dict(zip(default.modalities, default.windows, strict=True)))
    except UserError as error:
        raise UserError(f"{Path(folder) / DATASET_JSON}: {error}") from None


def read_dataset_json(folder: Path | str) -> dict:
    """The checked content of a raw folder's dataset.json; {} when there is none."""
    path = Path(folder) / DATASET_JSON
    if not (path.exists() or path.is_symlink()):  # a link to nothing is a fault
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows write a mark
        entries = json.loads(text, object_pairs_hook=_without_repetition)
        if not isinstance(entries, dict):
            raise UserError("must be a JSON object {...}")
        _refuse_unknown(entries, (*_PARSERS, *_ROSTER_PARSERS))
        for key, parse in (*_PARSERS.items(), *_ROSTER_PARSERS.items()):
            if key in entries:
                parse(entries[key])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return entries


def _build(fields: dict, windows: Mapping[str, Window], defaults: Mapping) -> Description:
    """From the fields but `windows`, the windows that are given, and what to take for the rest."""
    modalities = fields["modalities"]
    stray = [m for m in windows if m not in modalities]
    if stray:
        raise UserError(f"windows: {stray[0]!r} is none of the modalities {modalities}")
    known = {**defaults, **windows}
    without = [m for m in modalities if m not in known]
    if without:
        raise UserError(
            f"windows: none for modality {without[0]!r}; add e.g. "
            f'"windows": {{"{without[0]}": ["percentile", 0.5, 99.5]}}'
        )
    return Description(**fields, windows=tuple(known[m] for m in modalities))


def _check(d: Description) -> None:
    values = [value for _, value in d.structures]
    everything = [*values, *(wrong for wrong, _ in d.aliases), *d.dropped]
    repeated = sorted({v for v in everything if everything.count(v) > 1})
    if len(set(d.modalities)) != 2:
        raise UserError(f"modalities: needs two different names, not {list(d.modalities)}")
    if not d.structures:
        raise UserError('structures: needs at least one, as in {"liver": 1}')
    if len(d.structures) > 250:
        raise UserError(f"structures: at most 250, not {len(d.structures)}")
    if len(set(d.names)) != len(d.names) or "mean" in d.names:
        raise UserError("structures: names must differ from one another and from 'mean'")
    if repeated or 0 in everything:
        what = f"value {repeated[0]} is used twice" if repeated else "value 0 is the background"
        raise UserError(f"structures, aliases, dropped: {what}")
    if any(abs(value) > LARGEST_VALUE for value in everything):
        raise UserError(f"structures, aliases, dropped: values reach at most {LARGEST_VALUE}")
    for wrong, right in d.aliases:
        if right not in (*values, *d.dropped):
            raise UserError(f"aliases: {wrong} stands for {right}, which is no structure's value")
    if min(d.spacing_mm) <= 0 or min(d.shape) < 1:
        raise UserError("spacing_mm and shape must be positive")
    low, high = PLAUSIBLE_SPACING_MM
    if not all(low <= mm <= high for mm in d.spacing_mm):
        raise UserError(f"spacing_mm: {list(d.spacing_mm)}: give mm, from {low:g} to {high:g}")
    if math.prod(d.shape) > LARGEST_CROP:
        raise UserError(f"shape: {list(d.shape)} is more voxels than can be trained on")
    for modality, (rule, low, high) in zip(d.modalities, d.windows, strict=True):
        if not low < high or (rule == "percentile" and not 0 <= low < high <= 100):
            raise UserError(f"windows: {modality} needs low < high (percentiles within 0..100)")


def _without_repetition(pairs: list[tuple[str, object]]) -> dict:
    """JSON lets a later key replace an earlier one silently; a label map must not."""
    keys = [key for key, _ in pairs]
    repeated = [key for key in keys if keys.count(key) > 1]
    if repeated:
        raise UserError(f"key {repeated[0]!r} appears twice")
    return dict(pairs)


def _refuse_unknown(entries: Mapping, known: tuple[str, ...]) -> None:
    unknown = [key for key in entries if key not in known]
    if unknown:
        raise UserError(f"unknown key {unknown[0]!r}; known are {', '.join(known)}")


def _number(value, what: str) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{what} must be a number, not {value!r}")
    return number


def _integer(value, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{what} must be an integer, not {value!r}")
    return value


def _text(value, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{what} must be a text, not {value!r}")
    return value


def _sequence(value, what: str, length: int | None = None) -> list:
    if not isinstance(value, list | tuple) or length not in (None, len(value)):
        size = "a list" if length is None else f"a list of {length}"
        raise UserError(f"{what} must be {size}, not {value!r}")
    return list(value)


def _mapping(value, what: str) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{what} must be an object {{...}}, not {value!r}")
    return value


def _modalities(value) -> tuple[str, ...]:
    names = tuple(_text(v, "modalities") for v in _sequence(value, "modalities", 2))
    for name in names:
        if "/" in name or "_" in name or name != name.strip():
            raise UserError(f"modalities: {name!r} is part of file names: no '_', '/' or spaces")
    return names


def _structures(value) -> tuple[tuple[str, int], ...]:
    entries = _mapping(value, "structures").items()
    return tuple((_text(n, "structures"), _integer(v, f"structures.{n}")) for n, v in entries)


def _aliases(value) -> tuple[tuple[int, int], ...]:
    pairs = []
    for wrong, right in _mapping(value, "aliases").items():
        if not re.fullmatch(r"-?[0-9]{1,9}", wrong):
            raise UserError(f"aliases: key {wrong!r} must be a label value")
        pairs.append((int(wrong), _integer(right, f"aliases.{wrong}")))
    return tuple(pairs)


def _dropped(value) -> tuple[int, ...]:
    return tuple(_integer(v, "dropped") for v in _sequence(value, "dropped"))


def _spacing_mm(value) -> tuple[float, ...]:
    return tuple(_number(v, "spacing_mm") for v in _sequence(value, "spacing_mm", 3))


def _shape(value) -> tuple[int, ...]:
    return tuple(_integer(v, "shape") for v in _sequence(value, "shape", 3))


def _windows(value) -> dict[str, Window]:
    windows = {}
    for modality, window in _mapping(value, "windows").items():
        rule, low, high = _sequence(window, f"windows.{modality}", 3)
        if rule not in ("fixed", "percentile"):
            raise UserError(f"windows.{modality}: {rule!r} is neither 'fixed' nor 'percentile'")
        windows[modality] = (rule, _number(low, "windows"), _number(high, "windows"))
    return windows


def _names_to_names(key: str):
    def parse(value) -> None:
        for name, other in _mapping(value, key).items():
            _text(other, f"{key}.{name}")

    return parse


def _split(value) -> None:
    _refuse_unknown(_mapping(value, "split"), SPLITS)
    for name, members in value.items():
        for member in _sequence(members, f"split.{name}"):
            _text(member, f"split.{name}")


_PARSERS = {
    "modalities": _modalities,
    "structures": _structures,
    "aliases": _aliases,
    "dropped": _dropped,
    "spacing_mm": _spacing_mm,
    "shape": _shape,
    "windows": _windows,
}
_ROSTER_PARSERS = {  # about single cases, used by raw.py
    "subjects": _names_to_names("subjects"),
    "split": _split,
    "paired": _names_to_names("paired"),
}
