"""The page of a replay: what `infer replay --json` has, with how far answers are apart as bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from infer._core.difference import EDGES
from infer.cli.page import (
    WIDTH,
    Cell,
    Scale,
    box,
    callout,
    figure,
    heading,
    paragraph,
    rows,
    svg_of,
    table,
    words,
)
from infer.cli.page import page_of as whole

LEFT, RIGHT, TOP, BOTTOM = 70, 30, 26, 190


def page_of(report: Mapping[str, Any]) -> str:
    good = not report["differed"] and not report["failed"]
    to = report["to"] or f"{report['model']}, as requests without a version find it"
    parts = [
        heading(1, f"Replay of captured calls of model {report['model']}"),
        paragraph(f"{report['sent']:,} requests of {report['file']}, answered by {to}; outputs agree within rtol "
                  f"{report['rtol']:g} and atol {report['atol']:g} of those that were captured", "soft"),
        callout("No answer differs" if good else f"{report['differed']:,} of {report['sent']:,} answers differ"
                + (f", {report['failed']:,} calls failed" if report["failed"] else ""),
                f"{report['agreed']:,} agree ({_share(report['agreed'], report['sent'])}).", "good" if good else "bad")]
    if report["redacted"]:
        parts.append(callout("Attention", f"The contents of {', '.join(report['redacted'])} were not captured, and "
                             "zeros were sent for them: what depends on an input of these differs.", "bad"))
    if report["torn"]:
        parts.append(paragraph("The end of the file is torn, and was left out."))
    if report["failure"]:
        parts += [heading(2, "Calls that failed"), table("Calls that failed", ("Status", "Calls"), [
            (status, f"{count:,}") for status, count in report["statuses"].items()]),
            paragraph(f"The first: {report['failure']}", "soft")]
    for name, output in report["outputs"].items():
        parts += _output(name, output)
    if report["worst"]:
        parts += [heading(2, "The worst pairs"), table("The worst pairs", ("Request", "Its id", "Apart by"), [
            (f"{pair['number']:,}", pair["id"], _far(pair["apart"])) for pair in report["worst"]]),
            paragraph("By how far they are apart, relative to the larger of the two; infinite where they cannot be "
                      "compared.", "soft")]
    return whole(f"Replay of captured calls of model {report['model']}", parts)


def _output(name: str, output: Mapping[str, Any]) -> list[str]:
    facts: list[tuple[str, Cell | str]] = [
        ("Pairs compared", f"{output['compared']:,}"),
        ("Pairs that differ", Cell(f"{output['differing']:,}", "bad" if output["differing"] else "good")),
        ("Of another type or shape", f"{output['incomparable']:,}"),
        ("Elements beyond the tolerance", f"{output['unequal']:,} of {output['elements']:,}"),
        ("Largest difference", _far(output["max_abs"])), ("Largest relative difference", _far(output["max_rel"]))]
    if output["top1"]:
        facts.append(("Largest element is the same one", _share(output["top1_same"], output["top1"])))
    if output["cosine_distance"]["count"]:
        facts.append(("1 - cosine, of 99%", f"at most {output['cosine_distance']['p99']:.3g}"))
    parts = [heading(2, f"Output {name}"), table(f"Output {name}", ("Of all pairs", "Value"), facts)]
    for key, what in (("relative", "Largest relative difference of each pair"),
                      ("absolute", "Largest difference of each pair")):
        if output[key]["count"]:
            parts.append(figure(what, _bars(output[key], f"{what}, output {name}")))
    return parts


def _bars(histogram: Mapping[str, Any], what: str) -> str:
    """Pairs between two powers of ten; those nearer than the first are as good as equal."""
    counts = between(histogram["count"], histogram["up_to"])
    first = next(place for place, count in enumerate(counts) if count)
    last = max(place for place, count in enumerate(counts) if count)
    # With the neighbours, so that one bar stands somewhere.
    shown = range(max(first - 1, 0), min(last + 2, len(counts)))
    most = max(counts)
    x, y = Scale(0, len(shown), LEFT, WIDTH - RIGHT), Scale(0, most, BOTTOM, TOP)
    width = (x.end - x.begin) / len(shown)
    parts = rows(x, y)
    for place, bar in enumerate(shown):
        left, top = x.at(place), y.at(counts[bar])
        if counts[bar]:
            parts += [box(left + 2, top, width - 4, BOTTOM - top, f"s{1 if bar else 3} bar"),
                      words(left + width / 2, top - 5, f"{counts[bar]:,}", anchor="middle", kind="tick")]
        if bar < len(EDGES):
            parts.append(words(left + width, BOTTOM + 17, f"{EDGES[bar]:.0e}", anchor="middle", kind="tick"))
    parts.append(words((x.begin + x.end) / 2, BOTTOM + 36, "pairs, between differences of", anchor="middle",
                       kind="tick"))
    said = "; ".join(f"{counts[bar]} {_range(bar)}" for bar in shown if counts[bar])
    return svg_of(BOTTOM + 44, f"{what}: {said}", parts)


def between(count: int, up_to: Sequence[int]) -> list[int]:
    """Pairs up to the first of EDGES, between each two, and beyond the last."""
    return [high - low for low, high in zip([0, *up_to], [*up_to, count], strict=True)]


def _range(bar: int) -> str:
    if not bar:
        return f"up to {EDGES[0]:.0e}"
    return f"beyond {EDGES[-1]:.0e}" if bar == len(EDGES) else f"from {EDGES[bar - 1]:.0e} to {EDGES[bar]:.0e}"


def _share(part: int, whole_: int) -> str:
    return f"{part / whole_:.2%}" if whole_ else "none"


def _far(value: float) -> str:
    return "infinite" if math.isinf(value) else f"{value:.4g}"
