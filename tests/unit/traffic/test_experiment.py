"""Experiments by simulation and step by step: what they come to when they are looked at after every batch."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from infer.errors import InvalidArgument
from infer.experiments import ExperimentSettings, parse_experiment_arms, parse_experiment_guardrails
from infer.outcome_metrics import Metric, parse_metrics
from infer.traffic import tracks
from infer.traffic.experiment import (
    GUARDRAIL,
    MISMATCH,
    NO_DIFFERENCE,
    NOT_ENOUGH,
    RATIO_ALPHA,
    WINNER,
    Experiment,
    decided,
)
from infer.traffic.outcomes import Sums
from infer.traffic.report import MAX_POINTS, probabilities, report_of
from infer.traffic.seen import Seen
from tests.unit.traffic.test_sequential import RUNS, assert_mostly, assert_seldom

NO_GUARDRAILS = parse_experiment_guardrails(["errors=off", "p50=off", "p99=off"])
SEEN = {"calls": 10, "failed": 1, "p50_ms": 1.0, "p95_ms": None, "p99_ms": 3.0}


def experiment(metrics: tuple[str, ...] = ("m:rate",), arms: str = "control=1,new=2", weights: str = "", **fields: Any
               ) -> Experiment:
    settings = ExperimentSettings(parse_experiment_arms(arms, weights), parse_metrics(metrics), **fields)
    return Experiment("e", settings, 100.0, "somebody", "to know")


class Run:
    """One experiment, whose units come by chance, in batches of about 100."""

    def __init__(self, made: Experiment, rng: np.random.Generator, *rates: float,
                 shares: tuple[float, ...] | None = None) -> None:
        self.made, self.rng, self.rates = made, rng, rates
        self.shares = shares or (1 / len(rates),) * len(rates)
        self.sums = {arm: Sums() for arm in made.arms}
        self.results: list[str] = []
        self.winners: set[str] = set()

    def look(self, time: float) -> None:
        counts = self.rng.multinomial(self.rng.poisson(100), self.shares)
        for arm, n, rate in zip(self.made.arms, counts, self.rates, strict=True):
            cases = self.rng.binomial(n, rate)
            self.sums[arm] = Sums(*(old + new for old, new in zip(self.sums[arm], (n, cases, cases), strict=True)))
        name = self.made.settings.metrics[0].name
        self.made.look(time, {arm: {name: sums} for arm, sums in self.sums.items()}, {})
        decision = self.made.decision()
        self.results.append(decision.result)
        self.winners |= {decision.winner} - {""}


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of few ends, since decisions are by 0 alone."""
    monkeypatch.setattr(tracks, "STEPS", 2)


@pytest.mark.usefixtures("coarse")
def test_a_a_seldom_has_a_winner() -> None:
    rng = np.random.default_rng(1)
    won = mismatched = 0
    for _ in range(RUNS):
        run = Run(experiment(guardrails=NO_GUARDRAILS), rng, 0.2, 0.2)
        for time in range(30):
            run.look(time)
        won += bool(run.winners)
        mismatched += MISMATCH in run.results
    assert_seldom(won)
    assert_seldom(mismatched, alpha=RATIO_ALPHA)


@pytest.mark.usefixtures("coarse")
def test_a_better_arm_wins_as_the_report_promises() -> None:
    rng = np.random.default_rng(2)
    first = Run(experiment(guardrails=NO_GUARDRAILS), rng, 0.2, 0.2)
    for time in range(30):
        first.look(time)
    promised = first.made.tracks[0].promised(1)
    assert promised is not None
    won = 0
    for _ in range(200):
        run = Run(experiment(guardrails=NO_GUARDRAILS), rng, 0.2, 0.2 + promised)
        for time in range(30):
            run.look(time)
        won += run.winners == {"new"}
    assert_mostly(won, 200)


@pytest.mark.usefixtures("coarse")
def test_shares_that_are_not_as_dealt_void_it() -> None:
    rng = np.random.default_rng(3)
    run = Run(experiment(guardrails=NO_GUARDRAILS), rng, 0.2, 0.4, shares=(0.6, 0.4))
    for time in range(60):
        run.look(time)
    assert run.results[-1] == MISMATCH
    assert "outcomes are lost" in run.made.decision().reason
    weighted = Run(experiment(weights="6,4", guardrails=NO_GUARDRAILS), rng, 0.2, 0.4, shares=(0.6, 0.4))
    for time in range(60):
        weighted.look(time)
    assert weighted.results[-1] == WINNER


def after(n: int, *means: float, metric: str = "m:rate", batches: int = 50, **fields: Any) -> Experiment:
    """Whose arms have n outcomes each, of those means."""
    made = experiment((metric,), ",".join(f"{name}=1" for name in ("control", "b", "c")[:len(means)]), **fields)
    name = made.settings.metrics[0].name
    for batch in range(1, batches + 1):
        each = round(n * batch / batches)
        made.look(float(batch), {arm: {name: Sums(each, each * mean, each * mean)}
                                 for arm, mean in zip(made.arms, means, strict=True)}, {})
    return made


@pytest.mark.parametrize(("means", "metric", "min_effect", "result", "winner"), [
    ((0.2, 0.3), "m:rate", 0.0, WINNER, "b"), ((0.2, 0.3), "m:rate:lower", 0.0, WINNER, "control"),
    ((0.3, 0.2), "m:rate:lower", 0.0, WINNER, "b"), ((0.2, 0.3, 0.35), "m:rate", 0.0, WINNER, "c"),
    ((0.3, 0.2, 0.15), "m:rate", 0.0, WINNER, "control"), ((0.2, 0.2), "m:rate", 0.0, NOT_ENOUGH, ""),
    ((0.2, 0.2), "m:rate", 0.1, NO_DIFFERENCE, ""), ((0.2, 0.1, 0.2), "m:rate", 0.1, NO_DIFFERENCE, ""),
    ((0.2, 0.2), "m:rate", 0.01, NOT_ENOUGH, ""), ((0.2, 0.3, 0.2), "m:rate", 0.0, WINNER, "b"),
    ((0.3, 0.2, 0.3), "m:rate", 0.0, NOT_ENOUGH, ""), ((0.2, 0.3), "m:mean:0..1", 0.0, WINNER, "b")])
def test_decisions(means: tuple[float, ...], metric: str, min_effect: float, result: str, winner: str) -> None:
    decision = after(4000, *means, metric=metric, min_effect=min_effect).decision()
    assert (decision.result, decision.winner) == (result, winner)
    assert decision.reason


def test_of_all_metrics_one_is_looked_at_and_each_has_its_turn() -> None:
    made = experiment(("a:rate", "b:rate", "c:rate"))
    sums = {arm: {name: Sums(100, 50.0, 50.0) for name in ("a", "c")} for arm in made.arms}
    closed = [made.look(float(time), sums, {}) for time in range(4)]
    assert closed == [True, True, False, False]
    assert [len(track.blocks) for track in made.tracks] == [1, 0, 1]
    for arm in sums.values():
        arm |= {name: Sums(1000, 500.0, 500.0) for name in "abc"}
    for time in range(3):
        assert made.look(float(time), sums, {})
        assert sum(len(track.blocks) for track in made.tracks) == 3 + time
    assert [len(track.blocks) for track in made.tracks] == [2, 1, 2]


def test_too_few_say_nothing() -> None:
    assert experiment().decision().reason == "too few outcomes to say anything"
    assert after(4, 0.2, 0.9).decision().result == NOT_ENOUGH


def test_what_comes_before_outcomes() -> None:
    made = after(4000, 0.2, 0.3)
    assert decided(made.tracks[0], made.settings, failed="b: errors").result == GUARDRAIL
    assert decided(made.tracks[0], made.settings, ratio_log_e=math.log(1 / RATIO_ALPHA)).result == MISMATCH
    assert decided(made.tracks[0], made.settings, ratio_log_e=math.log(0.9 / RATIO_ALPHA)).result == WINNER


def test_a_guardrail_fails_an_arm() -> None:
    rng = np.random.default_rng(4)
    made = experiment(arms="control=1,good=2,bad=3", guardrails=parse_experiment_guardrails(["p50=off", "p99=off"]))
    for time in range(30):
        made.look(time, {}, {name: Seen(200, int(rng.binomial(200, rate)))
                             for name, rate in (("control", 0.01), ("good", 0.01), ("bad", 0.2))})
    assert made.failed.startswith("bad: errors: 2")
    assert made.decision().result == GUARDRAIL
    assert {arm: verdict.findings[0].result for arm, verdict in made.verdicts.items()} == {
        "good": "pass", "bad": "fail"}
    # Without calls of the control there is nothing to be compared with.
    other = experiment(arms="control=1,bad=3")
    other.look(1.0, {}, {"bad": Seen(1000, 1000)})
    assert (other.failed, other.verdicts["bad"].samples) == ("", 0)


def test_the_store_gives_it_back() -> None:
    made = after(1000, 0.2, 0.3)
    record, blocks = json.loads(json.dumps([made.to_record(), made.blocks_record()]))
    sums = {arm: {metric: list(each) for metric, each in of.items()} for arm, of in made.sums.items()}
    again = Experiment.from_record(record, json.loads(json.dumps(sums)), blocks)
    assert (again.name, again.started, again.who, again.reason, again.state) == (
        "e", 100.0, "somebody", "to know", "running")
    assert (again.settings, again.sums, again.decision()) == (made.settings, made.sums, made.decision())
    assert again.tracks[0].effects == made.tracks[0].effects
    # Blocks that were kept and sums that were not: what a block has counted has been counted.
    assert Experiment.from_record(record, {}, blocks).sums["b"]["m"] == made.tracks[0].last[1]
    assert Experiment.from_record(record, {}, {}).sums == {}
    for damage in ({}, {**record, "settings": {}}, {**record, "name": None, "settings": None}):
        with pytest.raises(InvalidArgument, match="damaged"):
            Experiment.from_record(damage, {}, {})
    with pytest.raises(InvalidArgument, match="damaged"):
        Experiment.from_record(record, {}, {"m": [[1.0, [1, 2]]]})


def test_a_report() -> None:
    made = after(4000, 0.2, 0.3, min_effect=0.05)
    made.end(300.0, "somebody else", "it is clear")
    report = report_of("digits", made, [SEEN, SEEN], now=300.0, outcomes={"accepted": 8000}, problems=["a problem"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["model"], report["experiment"], report["state"], report["started"], report["ended"]) == (
        "digits", "e", "stopped", 100.0, 300.0)
    assert (report["decision"]["result"], report["decision"]["winner"]) == (WINNER, "b")
    assert [(arm["name"], arm["to"], arm["share"], arm["control"], arm["calls"]) for arm in report["arms"]] == [
        ("control", "1", 0.5, True, 10), ("b", "1", 0.5, False, 10)]
    metric = report["metrics"][0]
    control, b = metric["arms"]
    assert (control["n"], control["mean"], b["n"], b["mean"]) == (4000, pytest.approx(0.2), 4000, pytest.approx(0.3))
    assert b["deviation"] == pytest.approx(stats.bernoulli(0.3).std(), rel=1e-3)
    assert (b["effect"], b["relative"], b["finding"]) == (pytest.approx(0.1), pytest.approx(0.5), "better")
    assert 0 < b["low"] < 0.1 < b["high"]
    assert b["would_have_found"] < 0.1
    assert 100 < b["needed"] < 4000
    assert b["probability_best"] > 0.999
    assert report["sample_ratio"]["ok"]
    assert report["sample_ratio"]["units"] == [4000, 4000]
    series = metric["series"]
    assert len(series["time"]) == len(series["n"]) == len(series["arms"][1]["effect"]) <= MAX_POINTS
    assert series["n"][-1] == sum(each.n for each in made.tracks[0].last)
    assert [sorted(each) for each in series["arms"]] == [
        ["name", "probability_best"], ["effect", "high", "low", "name", "probability_best"]]
    assert (report["outcomes"], report["problems"]) == ({"accepted": 8000}, ["a problem"])


def test_a_report_of_nothing() -> None:
    report = report_of("m", experiment(("m:rate", "spend:mean:0..10"), min_effect=0.1), [SEEN, SEEN], now=101.0,
                       outcomes={})
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["decision"]["result"] == NOT_ENOUGH
    assert [arm["mean"] for metric in report["metrics"] for arm in metric["arms"]] == [None] * 4
    assert report["ended"] is None


def test_plots_have_so_many_points() -> None:
    made = after(100_000, 0.2, 0.2, batches=2000)
    assert len(made.tracks[0].blocks) > MAX_POINTS
    series = report_of("m", made, [SEEN, SEEN], now=1.0, outcomes={})["metrics"][0]["series"]
    assert len(series["time"]) == MAX_POINTS
    assert (series["time"][0], series["time"][-1]) == (made.tracks[0].blocks[0].time, made.tracks[0].blocks[-1].time)


def test_probability_of_being_best_goes_by_what_is_better() -> None:
    sums = [Sums(1000, 100, 100), Sums(1000, 115, 115)]
    one, other = (stats.beta(each.total + 0.5, each.n - each.total + 0.5) for each in sums)
    exact, _ = integrate.quad(lambda p: other.pdf(p) * one.cdf(p), 0, 1, points=[0.1, 0.115])
    assert probabilities(Metric("m"), sums, 100_000)[1] == pytest.approx(exact, abs=0.01)
    assert probabilities(Metric("m", better="lower"), sums, 100_000)[1] == pytest.approx(1 - exact, abs=0.01)
    assert probabilities(Metric("m"), [Sums(1, 1, 1), Sums(9, 1, 1)], 10) is None
