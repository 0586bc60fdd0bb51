"""Pages of reports: one file each, with styles and plots inside, without scripts, and with nothing from anywhere else.

Whatever comes from a report passes `escaped`. Plots are SVG that says in words what it shows, for those who do not see
it; colours and lines differ both, and follow the reader's choice of light or dark.
"""

from __future__ import annotations

import datetime
import html
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# By number of the series; their dashes tell them apart as well.
SERIES = 8
WIDTH = 720

STYLE = """
:root { color-scheme: light dark; --text: #1a1d21; --soft: #5a626c; --back: #ffffff; --card: #f5f6f8; --line: #d5d9de;
  --good: #0a6b3d; --bad: #a32020; --open: #7a5200;
  --s0: #4b5563; --s1: #0060a8; --s2: #b34700; --s3: #00795a; --s4: #a0348c; --s5: #8a6a00; --s6: #5443c2;
  --s7: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #e7e9ec; --soft: #a5adb8; --back: #15181c; --card: #1f242a;
  --line: #3a424c; --good: #5fd39a; --bad: #ff8f87; --open: #f0c060;
  --s0: #a5adb8; --s1: #6db8ff; --s2: #ff9d5c; --s3: #4fd1a8; --s4: #e78ad3; --s5: #e3c04a; --s6: #a99bff;
  --s7: #ff8f87; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 62rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .35rem 0; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; }
.call { background: var(--card); border-left: .35rem solid var(--open); border-radius: .25rem; padding: .75rem 1rem;
  margin: 1rem 0; }
.call strong { font-size: 1.15rem; }
.call.good { border-color: var(--good); } .call.bad { border-color: var(--bad); }
td.good { color: var(--good); } td.bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .25rem 0 .75rem; }
th, td { text-align: right; padding: .3rem .55rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal; }
tbody th { font-weight: 600; white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
figure { margin: .75rem 0; background: var(--card); border-radius: .35rem; padding: .75rem; }
figcaption { font-size: .9rem; color: var(--soft); margin-bottom: .25rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--text); font: 13px system-ui, sans-serif; }
svg .tick { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .zero { stroke: var(--soft); stroke-width: 1.5; }
svg .near { fill: var(--soft); opacity: .12; }
""" + "\n".join(
    f".s{n} {{ --own: var(--s{n}); }}" for n in range(SERIES)) + """
.curve { fill: none; stroke: var(--own); stroke-width: 2.25; stroke-linejoin: round; }
.band { fill: var(--own); opacity: .18; }
.bar { fill: var(--own); }
.span { stroke: var(--own); stroke-width: 3; }
.dot { fill: var(--own); stroke: var(--back); stroke-width: 1.5; }
svg text.own { fill: var(--own); font-weight: 600; }
.s2.curve { stroke-dasharray: 9 4; } .s3.curve { stroke-dasharray: 3 3; } .s4.curve { stroke-dasharray: 12 4 3 4; }
.s5.curve { stroke-dasharray: 6 6; } .s6.curve { stroke-dasharray: 2 5; } .s7.curve { stroke-dasharray: 14 6; }
@media print { body { max-width: none; } figure, .call { break-inside: avoid; } }
"""


class Cell(NamedTuple):
    text: str
    kind: str = ""          # good or bad


def escaped(text: object) -> str:
    return html.escape(str(text), quote=True)


def page_of(title: str, parts: Iterable[str]) -> str:
    """`parts`: made of what is below, or of escaped text."""
    return "\n".join((
        '<!DOCTYPE html>', '<html lang="en">', '<head>', '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">',
        f'<title>{escaped(title)}</title>', f'<style>{STYLE}</style>', '</head>', '<body>', '<main>', *parts, '</main>',
        '</body>', '</html>', ''))


def heading(level: int, text: str) -> str:
    return f"<h{level}>{escaped(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escaped(text)}</p>' if kind else f"<p>{escaped(text)}</p>"


def callout(head: str, text: str, kind: str) -> str:
    return f'<div class="call {kind}"><strong>{escaped(head)}</strong>{paragraph(text) if text else ""}</div>'


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> str:
    """The first cell of a row names it."""
    lines = [f'<div class="scroll"><table aria-label="{escaped(caption)}">', "<thead><tr>",
             *(f'<th scope="col">{escaped(each)}</th>' for each in head), "</tr></thead>", "<tbody>"]
    for first, *others in rows:
        lines += ["<tr>", f'<th scope="row">{escaped(_cell(first).text)}</th>',
                  *(f'<td{_class(cell)}>{escaped(cell.text)}</td>' for cell in map(_cell, others)), "</tr>"]
    return "\n".join([*lines, "</tbody></table></div>"])


def _cell(cell: Cell | str) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def _class(cell: Cell) -> str:
    return f' class="{cell.kind}"' if cell.kind else ""


def figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{escaped(caption)}</figcaption>{svg}</figure>"


def time_text(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def number(value: float | None, form: str = ".4g") -> str:
    return "" if value is None else format(value, form)


class Scale(NamedTuple):
    """From a range of values to one of pixels."""

    low: float
    high: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.begin + min(max(share, 0.0), 1.0) * (self.end - self.begin)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers between, about as many."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / wanted))
    step *= next((factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= wanted), 10)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def svg_of(height: int, description: str, parts: Iterable[str]) -> str:
    return "\n".join((f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escaped(description)}">', *parts,
                      "</svg>"))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def words(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
            f'height="{max(height, 0):.1f}"/>')


def curve(points: Sequence[tuple[float, float]], series: int) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="s{series % SERIES} curve" points="{path}"/>'


def band(low: Sequence[tuple[float, float]], high: Sequence[tuple[float, float]], series: int) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*high, *reversed(low)))
    return f'<polygon class="s{series % SERIES} band" points="{path}"/>'


def rows(x: Scale, y: Scale) -> list[str]:
    """Grid and numbers of y, which grows upwards."""
    return [part for value in ticks(y.low, y.high, 4) for part in (
        line(x.begin, y.at(value), x.end, y.at(value), "grid"),
        words(x.begin - 6, y.at(value) + 4, f"{value:.4g}", anchor="end", kind="tick"))]


def frame(x: Scale, y: Scale, x_label: str) -> list[str]:
    """Grid of y, and numbers of both axes."""
    return [
        *rows(x, y),
        *(words(x.at(value), y.begin + 17, f"{value:,.6g}", anchor="middle", kind="tick")
          for value in ticks(x.low, x.high, 6)),
        words((x.begin + x.end) / 2, y.begin + 34, x_label, anchor="middle", kind="tick")]
