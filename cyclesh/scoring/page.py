"""The shell of the report: one HTML file with its style inside and nothing to load."""

from html import escape

CSS = """
:root { --ink: #1b2126; --muted: #5a6570; --rule: #dde2e6; --blue: #0072B2; --amber: #E69F00; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.5 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1040px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 3rem 0 .75rem; padding-top: .9rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.75rem 0 .25rem; }
h4 { font-size: .9rem; margin: 1.25rem 0 .4rem; display: flex; flex-wrap: wrap; gap: .3rem .7rem;
  align-items: baseline; overflow-wrap: anywhere; }
p { max-width: 68ch; margin: .5rem 0; }
.lead, .note, .legend, figcaption { color: var(--muted); }
.note, figcaption { font-size: .85rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem;
  margin: 1.5rem 0 0; }
.tile { border: 1px solid var(--rule); border-radius: 6px; padding: .8rem .9rem; display: grid; }
.tile .name { font-size: .8rem; color: var(--muted); }
.tile .value { font-size: 1.9rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.tile .beside { font-size: .8rem; color: var(--muted); min-height: 1.2em; }
.warnings { border-left: 4px solid var(--amber); background: #fdf6e8; padding: .7rem 1rem;
  margin: 1.5rem 0 0; font-size: .9rem; border-radius: 0 6px 6px 0; }
.warnings summary { color: inherit; }
.warnings ul { margin: .25rem 0 0; padding-left: 1.1rem; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  gap: 1.5rem 2.5rem; align-items: start; }
.tables + .note { margin: 1rem 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .25rem 0 .5rem; }
th, td { padding: .34rem .3rem .34rem .55rem; text-align: right; vertical-align: top; }
th:first-child { text-align: left; padding-left: 0; font-weight: 400; }
thead th, thead th:first-child { font-weight: 500; color: var(--muted); font-size: .78rem;
  line-height: 1.25; vertical-align: bottom; border-bottom: 1.5px solid var(--ink); }
tbody tr { border-bottom: 1px solid var(--rule); }
.mean > * { font-weight: 600 !important; }
tfoot { color: var(--muted); font-size: .82rem; }
tfoot tr:first-child > * { padding-top: .7rem; }
.bar { display: block; position: relative; height: 3px; margin-top: 3px; background: #edf0f2;
  min-width: 3.2rem; }
.bar b { position: absolute; inset: 0 auto 0 0; background: var(--blue); }
.bar i { position: absolute; top: -2px; width: 2px; height: 7px; margin-left: -1px;
  background: var(--ink); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr));
  gap: 1rem 1.5rem; }
.curves svg, .plot svg { width: 100%; height: auto; display: block; }
.curves svg text, .plot svg text { font-family: inherit !important; }
figure { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; align-items: center;
  font-size: .85rem; padding: .5rem 0; position: sticky; top: 0; background: #fffffff2; z-index: 1;
  border-bottom: 1px solid var(--rule); }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 50%;
  margin-right: .35em; border: 1px solid #0003; vertical-align: -.06em; }
.legend label { display: inline-flex; align-items: center; gap: .35rem; cursor: pointer; }
.legend svg { width: 34px; height: 10px; background: #777; border-radius: 2px; }
.views { display: grid; grid-template-columns: repeat(var(--views), minmax(0, 330px)); gap: 4px; }
.views .head { font-size: .78rem; color: var(--muted); line-height: 1.25; align-self: end; }
.cell { position: relative; background: #000; display: flex; align-items: center; }
.cell b { position: absolute; color: #fff; font-size: .7rem; line-height: 1; opacity: .85;
  text-shadow: 0 0 2px #000, 0 0 4px #000, 0 0 4px #000; }
.cell .left { left: 4px; top: 50%; transform: translateY(-50%); }
.cell .top { top: 4px; left: 50%; transform: translateX(-50%); }
.slice { width: 100%; height: auto; display: block; }
.outline { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.outline.label { stroke-width: 2.6px; }
.outline.predicted { stroke-width: 1.3px; stroke-dasharray: 5 3.5; }
.outline.predicted-casing { stroke: #000; stroke-width: 1.3px; }
body:has(#show-label:not(:checked)) .views .label,
body:has(#show-predicted:not(:checked)) .views .predicted,
body:has(#show-predicted:not(:checked)) .views .predicted-casing { display: none; }
.rank { font-weight: 600; font-size: .72rem; color: #fff; background: var(--muted);
  border-radius: 3px; padding: .1rem .4rem; }
.score { font-weight: 400; color: var(--muted); font-variant-numeric: tabular-nums; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--blue); font-size: .9rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 0;
  font-size: .875rem; }
.facts dt { color: var(--muted); }
.facts dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media (max-width: 560px) {
  body { font-size: 15px; }
  main { padding: 1.25rem .9rem 3rem; }
  .tiles { grid-template-columns: 1fr 1fr; gap: .5rem; }
  .tile { padding: .6rem .7rem; }
  .tile .value { font-size: 1.55rem; }
  table { font-size: .8rem; }
  th, td { padding-left: .35rem; padding-right: 0; }
  .bar { min-width: 2.4rem; }
  .views { gap: 3px; grid-template-columns: repeat(var(--views), minmax(165px, 330px));
    overflow-x: auto; }
  .outline.label { stroke-width: 2px; }
  .outline.predicted, .outline.predicted-casing { stroke-width: 1px; }
  .outline.predicted { stroke-dasharray: 4 2.5; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: .5rem; }
}
@media print { details > * { display: block; } .legend { position: static; } .case
  { break-inside: avoid; } }
"""


def page(title: str, body: str) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A headed section; "" if none of its parts has anything to show."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>\n" if content else ""


def paragraph(text: str, style: str = "note") -> str:
    """A paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if text else ""
