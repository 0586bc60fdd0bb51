"""The page of an experiment's report: what `infer experiment report --json` has, with plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infer.cli.page import (
    WIDTH,
    Cell,
    Scale,
    band,
    box,
    callout,
    curve,
    figure,
    frame,
    heading,
    line,
    number,
    paragraph,
    svg_of,
    table,
    ticks,
    time_text,
    words,
)
from infer.cli.page import page_of as whole

KINDS = {"winner": "good", "no difference": "good", "stopped by guardrail": "bad", "sample ratio mismatch": "bad"}
FINDINGS = {"better": Cell("better", "good"), "worse": Cell("worse", "bad"), "alike": Cell("no difference", ""),
            "": Cell("open", "")}
CONTROL = "control"
LEFT, RIGHT = 140, 20
# A name on a plot, and a table's.
SHOWN = 15


def page_of(report: dict[str, Any]) -> str:
    decision = report["decision"]
    title = f"Experiment {report['experiment']} of model {report['model']}"
    head = decision["result"] + (f": {decision['winner']}" if decision["winner"] else "")
    parts = [
        heading(1, title),
        paragraph(f"{report['state']}, began {time_text(report['started'])} by {report['who']}"
                  + (f", ended {time_text(report['ended'])} by {report['ended_by']}" if report["ended"] else "")
                  + f"; as of {time_text(report['time'])}", "soft"),
        *(paragraph(text, "soft") for text in (report["reason"], report["end_reason"]) if text),
        callout(f"Decision: {head}", decision["reason"], KINDS.get(decision["result"], "")),
        *(callout("Attention", text, "bad") for text in report["problems"]),
        heading(2, "Arms"), _arms(report),
    ]
    for metric in report["metrics"]:
        parts += _metric(report, metric)
    parts += [heading(2, "Is it to be trusted?"), *_checks(report)]
    parts.append(paragraph(
        f"Intervals hold whenever they are looked at: that any of them is ever wrong has a chance of at most "
        f"{report['alpha']:g} over all arms and metrics. They are taken anew each time that the outcomes have grown by "
        'a tenth. An effect as large as the arm "would have found" is found by now with a probability of 80%; it '
        '"needs" so many outcomes for the least effect that matters. The probability of being best is of posteriors '
        "with flat priors, and no reason to stop.", "soft"))
    return whole(title, parts)


def _arms(report: dict[str, Any]) -> str:
    head = ("Arm", "Leads to", "Share", "Calls", "Failed", "p50 ms", "p95 ms", "p99 ms")
    return table("Arms and their calls", head, [
        (arm["name"] + (" (control)" if arm["control"] and arm["name"] != CONTROL else ""), arm["to"],
         f"{arm['share']:.1%}", f"{arm['calls']:,}", f"{arm['failed']:,}",
         *(number(arm[key], ".3g") for key in ("p50_ms", "p95_ms", "p99_ms"))) for arm in report["arms"]])


def _metric(report: dict[str, Any], metric: dict[str, Any]) -> list[str]:
    bounds = f" from {metric['low']:g} to {metric['high']:g}" if metric["kind"] == "mean" else ""
    primary = ", the metric that decides" if metric["primary"] else ""
    rows = []
    for arm in metric["arms"]:
        control = "effect" not in arm
        rows.append((
            arm["name"], f"{arm['n']:,}", number(arm["mean"]),
            *(("", "", "") if control or arm["effect"] is None else (
                f"{arm['effect']:+.4g}", f"{arm['low']:+.4g} to {arm['high']:+.4g}", number(arm["relative"], "+.1%"))),
            number(arm["probability_best"], ".1%"), number(arm.get("would_have_found"), ".3g"),
            number(arm.get("needed"), ",.0f"), Cell(CONTROL) if control else FINDINGS[arm["finding"]]))
    parts = [
        heading(2, f"{metric['name']}: {metric['kind']}{bounds}, {metric['better']} is better"),
        paragraph(f"Intervals at {1 - metric['alpha']:.4g}{primary}.", "soft"),
        table(f"Outcomes of {metric['name']}", (
            "Arm", "n", "Mean", "Effect", "Interval", "Relative", "P(best)", "Would have found", "Needs", ""), rows)]
    others = [arm for arm in metric["arms"] if arm.get("effect") is not None]
    if others:
        parts.append(figure("Effect against the control, with its interval", _intervals(report, metric, others)))
    if len(metric["series"]["n"]) > 1:
        parts += [figure(f"Effect of {arm['name']} as outcomes came, with its interval", _course(metric, place))
                  for place, arm in enumerate(metric["series"]["arms"]) if place]
        parts.append(figure("Probability of being the best, as outcomes came", _best(metric)))
    return parts


def _intervals(report: dict[str, Any], metric: dict[str, Any], arms: Sequence[dict[str, Any]]) -> str:
    near = report["min_effect"] or 0.0 if metric["primary"] else 0.0
    low = min(0.0, -near, *(arm["low"] for arm in arms))
    high = max(0.0, near, *(arm["high"] for arm in arms))
    room = (high - low) * 0.05 or 1.0
    x = Scale(low - room, high + room, LEFT, WIDTH - RIGHT)
    bottom = 16 + 34 * len(arms)
    parts = [part for value in ticks(x.low, x.high, 6) for part in (
        line(x.at(value), 8, x.at(value), bottom, "grid"),
        words(x.at(value), bottom + 17, f"{value:+.3g}" if value else "0", anchor="middle", kind="tick"))]
    if near:
        parts.append(box(x.at(-near), 8, x.at(near) - x.at(-near), bottom - 8, "near"))
    parts.append(line(x.at(0.0), 4, x.at(0.0), bottom + 3, "zero"))
    order = [arm["name"] for arm in metric["arms"]]
    for row, arm in enumerate(arms):
        series, y = order.index(arm["name"]), 30 + 34 * row
        parts += [words(LEFT - 10, y + 4, _short(arm["name"]), anchor="end", kind=f"s{series} own"),
                  line(x.at(arm["low"]), y, x.at(arm["high"]), y, f"s{series} span"),
                  *(line(x.at(arm[end]), y - 6, x.at(arm[end]), y + 6, f"s{series} span") for end in ("low", "high")),
                  f'<circle class="s{series} dot" cx="{x.at(arm["effect"]):.1f}" cy="{y}" r="6"/>']
    told = f"{metric['name']}, less that of the control" + (
        f"; shaded: less than {near:g}, no difference" if near else "")
    parts.append(words((x.begin + x.end) / 2, bottom + 36, told, anchor="middle", kind="tick"))
    said = "; ".join(f"{arm['name']} {arm['effect']:+.4g}, from {arm['low']:+.4g} to {arm['high']:+.4g}"
                     for arm in arms)
    return svg_of(bottom + 46, f"Effects on {metric['name']}: {said}", parts)


def _course(metric: dict[str, Any], place: int) -> str:
    series = metric["series"]
    arm, counts = series["arms"][place], series["n"]
    # What the first few outcomes leave open would hide the rest.
    later = range(len(counts) // 4, len(counts))
    low = min(0.0, *(arm["low"][k] for k in later))
    high = max(0.0, *(arm["high"][k] for k in later))
    x, y = Scale(counts[0], counts[-1], LEFT - 70, WIDTH - RIGHT), Scale(low, high, 210, 12)
    lows, highs, middles = ([(x.at(n), y.at(value)) for n, value in zip(counts, arm[key], strict=True)]
                            for key in ("low", "high", "effect"))
    return svg_of(256, f"Effect of {arm['name']} on {metric['name']} after {counts[0]} to {counts[-1]} outcomes: from "
                       f"{arm['effect'][0]:+.4g} to {arm['effect'][-1]:+.4g}, at the end between {arm['low'][-1]:+.4g} "
                       f"and {arm['high'][-1]:+.4g}", [
        *frame(x, y, "outcomes of all arms"), line(x.begin, y.at(0.0), x.end, y.at(0.0), "zero"),
        band(lows, highs, place), curve(middles, place)])


def _best(metric: dict[str, Any]) -> str:
    series = metric["series"]
    counts = series["n"]
    x, y = Scale(counts[0], counts[-1], LEFT - 70, WIDTH - RIGHT - 125), Scale(0.0, 1.0, 210, 12)
    parts = frame(x, y, "outcomes of all arms")
    ends = []
    for place, arm in enumerate(series["arms"]):
        points = [(x.at(n), y.at(value)) for n, value in zip(counts, arm["probability_best"], strict=True)
                  if value is not None]
        if points:
            parts.append(curve(points, place))
            ends.append((points[-1][1], place, arm["name"]))
    below = 0.0
    for at, place, name in sorted(ends):
        below = max(at + 4, below + 15)
        parts.append(words(x.end + 8, min(below, 214 - 15 * (len(ends) - 1 - sorted(ends).index((at, place, name)))),
                           _short(name), kind=f"s{place} own"))
    said = "; ".join(f"{arm['name']} {number(arm['probability_best'][-1], '.1%')}" for arm in series["arms"])
    return svg_of(256, f"Probability of being the best by {metric['name']}, at the end: {said}", parts)


def _checks(report: dict[str, Any]) -> list[str]:
    ratio, outcomes = report["sample_ratio"], report["outcomes"]
    total = sum(ratio["units"])
    parts = [
        paragraph("Units were dealt by the weights." if ratio["ok"] else
                  "Sample ratio mismatch: units were not dealt by the weights, so that no comparison holds."),
        table("Units and weights", ("Arm", "Units", "Their share", "Share by weight"), [
            (arm["name"], f"{units:,.0f}", f"{units / total:.2%}" if total else "", f"{arm['share']:.2%}")
            for arm, units in zip(report["arms"], ratio["units"], strict=True)]),
        paragraph(f"Log evidence that they were not: {ratio['log_e']:.3g}, limit {ratio['limit']:.3g}.", "soft")]
    if report["guardrails"]:
        parts.append(table("Guardrails", ("Guardrail", "Arm", "Limit", "Control", "Arm's", "Calls", "Result"), [
            (each["kind"], each["arm"], f"{each['limit']:g}", _measure(each["kind"], each["control"]),
             _measure(each["kind"], each["value"]), f"{each['samples']:,}",
             Cell(each["result"], {"pass": "good", "fail": "bad"}.get(each["result"], "")))
            for each in report["guardrails"]]))
    parts.append(paragraph("Outcomes since the server's start: " + (
        ", ".join(f"{count:,} {result}" for result, count in outcomes.items()) or "none"), "soft"))
    return parts


def _measure(kind: str, value: float) -> str:
    return f"{value:.2%}" if kind == "errors" else f"{value:.3g} ms"


def _short(name: str) -> str:
    return name if len(name) <= SHOWN else f"{name[:SHOWN - 1]}…"
