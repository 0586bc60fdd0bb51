"""What an experiment has come to, as plain data that JSON holds; texts and pages are made of that alone. Pure.

`time` is seconds since the epoch, `*_ms` milliseconds, effects and intervals are in the metric's own scale, what is not
known is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infer.outcome_metrics import Metric
from infer.traffic.experiment import RATIO_ALPHA, Experiment
from infer.traffic.outcomes import Sums
from infer.traffic.sequential import mean_draws, probability_best, rate_draws
from infer.traffic.tracks import Track

# Of each plot; more are thinned out.
MAX_POINTS = 60
DRAWS, DRAWS_OF_POINT = 100_000, 4_000


def report_of(model: str, experiment: Experiment, arms: Sequence[Mapping[str, Any]], *, now: float,
              outcomes: Mapping[str, int], problems: Sequence[str] = ()) -> dict[str, Any]:
    """`arms`: of each what the server has seen of its calls; `outcomes`: how many came to what, since the start."""
    settings, decision = experiment.settings, experiment.decision()
    return {
        "model": model, "experiment": experiment.name, "state": experiment.state, "started": experiment.started,
        "ended": experiment.ended or None, "time": now, "who": experiment.who, "reason": experiment.reason,
        "ended_by": experiment.ended_by, "end_reason": experiment.end_reason,
        "alpha": settings.alpha, "window_s": settings.window_s, "min_effect": settings.min_effect or None,
        "decision": {"result": decision.result, "winner": decision.winner or None, "reason": decision.reason},
        "arms": [{"name": arm.name, "to": arm.place, "weight": arm.weight, "share": settings.split("x").share(arm),
                  "control": number == 0, **seen} for number, (arm, seen) in enumerate(
                      zip(settings.arms, arms, strict=True))],
        "metrics": [_metric(experiment, track, number) for number, track in enumerate(experiment.tracks)],
        "sample_ratio": {"log_e": experiment.ratio_log_e, "limit": math.log(1.0 / RATIO_ALPHA),
                         "ok": experiment.ratio_log_e < math.log(1.0 / RATIO_ALPHA), "units": experiment.units},
        "guardrails": [
            {"arm": arm, "kind": each.kind, "limit": each.limit, "result": each.result, "control": each.baseline,
             "value": each.candidate, "samples": each.samples}
            for arm, verdict in experiment.verdicts.items() for each in verdict.findings],
        "outcomes": dict(outcomes), "problems": list(problems),
    }


def _metric(experiment: Experiment, track: Track, number: int) -> dict[str, Any]:
    metric, effects = track.metric, track.effects
    sums = [experiment.sums.get(arm, {}).get(metric.name, Sums()) for arm in track.arms]
    best = probabilities(metric, sums, DRAWS)
    min_effect = experiment.settings.min_effect if number == 0 else 0.0
    rows = []
    for place, (arm, own) in enumerate(zip(track.arms, sums, strict=True)):
        row: dict[str, Any] = {
            "name": arm, "n": int(own.n), "mean": metric.value_of(own.total / own.n) if own.n else None,
            "deviation": _deviation(own) * (metric.high - metric.low) if own.n > 1 else None,
            "probability_best": None if best is None else float(best[place])}
        if place:
            effect = effects.get(arm)
            mean = None if not sums[0].n else metric.value_of(sums[0].total / sums[0].n)
            row |= {
                "effect": None if effect is None else float(effect.effect),
                "low": None if effect is None else float(effect.low),
                "high": None if effect is None else float(effect.high),
                "relative": float(effect.effect) / mean if effect is not None and mean else None,
                "finding": "" if effect is None else track.finding(effect, min_effect),
                "would_have_found": track.promised(place),
                "needed": track.needed(place, min_effect) if min_effect else None}
        rows.append(row)
    return {"name": metric.name, "kind": metric.kind, "better": metric.better, "low": metric.low, "high": metric.high,
            "primary": number == 0, "alpha": track.alpha, "arms": rows, "series": _series(track)}


def _deviation(sums: Sums) -> float:
    mean = sums.total / sums.n
    return math.sqrt(max(sums.squares / sums.n - mean * mean, 0.0) * sums.n / (sums.n - 1))


def probabilities(metric: Metric, sums: Sequence[Sums], draws: int) -> Any:
    """That each arm is the best, by its posterior; None: too little is known."""
    if min(each.n for each in sums) < 2:
        return None
    n, totals, squares = (np.array(column, float) for column in zip(*sums, strict=True))
    found = rate_draws(n, totals, draws) if metric.kind == "rate" else mean_draws(n, totals, squares, draws)
    return probability_best(found if metric.better == "higher" else -found)


def _series(track: Track) -> dict[str, Any]:
    """As of each block, or of some of them."""
    count = min(len(track.blocks), len(track.series))
    chosen = sorted({round(place) for place in np.linspace(0, count - 1, min(count, MAX_POINTS))}) if count else []
    best = [probabilities(track.metric, track.blocks[place].sums, DRAWS_OF_POINT) for place in chosen]
    return {
        "time": [track.blocks[place].time for place in chosen],
        "n": [int(sum(each.n for each in track.blocks[place].sums)) for place in chosen],
        "arms": [
            {"name": arm, "probability_best": [None if each is None else float(each[number]) for each in best],
             **({} if not number else {
                 key: [float(getattr(track.series[place][number - 1], key)) for place in chosen]
                 for key in ("effect", "low", "high")})}
            for number, arm in enumerate(track.arms)]}
