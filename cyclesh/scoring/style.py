"""Colours, line widths and fonts, shared by every picture.

All colours are from Okabe and Ito's palette, which stays apart under every common form of colour
blindness. Line style, never colour alone, tells a label from a prediction.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from cyclesh.files import replacing

BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

ON_GREY = (ORANGE, SKY_BLUE, YELLOW, GREEN, PURPLE, VERMILLION, BLUE)
ON_WHITE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE)
INK, MUTED, RULE, AXIS = "#1b2126", "#5a6570", "#dde2e6", "#b9c1c8"

# Colours that a picture within the page shares with it, so that they follow its dark scheme.
_PAGE_COLOURS = {
    INK: "ink",
    BLACK: "ink",
    MUTED: "muted",
    RULE: "rule",
    AXIS: "axis",
    BLUE: "blue",
    VERMILLION: "vermillion",
    GREEN: "green",
    PURPLE: "purple",
    ORANGE: "orange",
    SKY_BLUE: "sky",
}

_RC = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": AXIS,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "savefig.facecolor": "white",
    "svg.hashsalt": "cyclesh",  # the same run gives the same file
}


def structure_colour(index: int) -> str:
    """Colour of the structure at a position in the list of structures, on a grey picture."""
    return ON_GREY[index % len(ON_GREY)]


def line_colour(index: int) -> str:
    """Colour of the curve at a position in the legend, on white."""
    return ON_WHITE[index % len(ON_WHITE)]


@contextmanager
def plot_style() -> Iterator[None]:
    with matplotlib.rc_context(_RC):
        yield


def inline_svg(figure: Figure, description: str) -> str:
    """The <svg> element of a figure; its text and its colours are the page's.

    `description` is for readers who do not see it.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(_RC | {"svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    for colour, name in _PAGE_COLOURS.items():
        text = text.replace(f": {colour.lower()}", f": var(--{name})")
    label = escape(description, quote=True)
    return f'<svg role="img" aria-label="{label}"' + text[text.index("<svg") + len("<svg") :]


def data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def save_figure(figure: Figure, stem: Path, description: str = "") -> None:
    """`stem`.png and `stem`.svg, each whole or not at all; ``description`` is in their metadata."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    described = {"Description": description} if description else {}
    for suffix, blank in (("png", "Software"), ("svg", "Date")):
        metadata = {blank: None, **described}
        target = stem.with_name(f"{stem.name}.{suffix}")
        with replacing(target) as partial, matplotlib.rc_context(_RC):
            figure.savefig(partial, format=suffix, dpi=160, metadata=metadata)
