"""The shell of the report: one HTML file with style and program inside and nothing to load."""

from html import escape
from importlib import resources
from string import Template

SCRIPTS = ("volumes.js", "contours.js", "drawing.js", "browser.js")  # in the order of their use


def asset(name: str) -> str:
    """The text of a file in assets/."""
    return (resources.files("cyclesh.scoring") / "assets" / name).read_text(encoding="utf-8")


def page(title: str, body: str) -> str:
    """The whole document."""
    return Template(asset("page.html")).substitute(
        title=escape(title),
        style=asset("report.css"),
        body=body,
        script="\n".join(asset(name) for name in SCRIPTS),
    )


def section(title: str, *parts: str) -> str:
    """A headed section; "" if none of its parts has anything to show."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>\n" if content else ""


def paragraph(text: str, style: str = "note") -> str:
    """A paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if text else ""
