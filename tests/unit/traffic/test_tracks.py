"""Tracks by simulation: 1,000 runs at once, looked at after every batch of outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from infer.outcome_metrics import Metric
from infer.traffic.outcomes import Sums
from infer.traffic.tracks import FIRST, GROWTH, Block, Track
from tests.unit.traffic.test_sequential import ALPHA, RUNS, assert_mostly, assert_seldom

RATE = Metric("m")
LOWER = Metric("m", better="lower")
MEAN = Metric("m", "mean", "higher", -10.0, 30.0)
Draw = Callable[[np.random.Generator, int, tuple[int, int]], Any]


def rates(*of_arms: float) -> Draw:
    return lambda rng, arm, shape: (rng.random(shape) < of_arms[arm]).astype(float)


def means(*more: float) -> Draw:
    """Values of 0 to 1 whose means are a quarter and so much more."""
    return lambda rng, arm, shape: rng.beta(2, 6, shape) + more[arm]


class Simulation:
    """Runs of one metric, whose outcomes come 20 of each arm at a time, all arms at once."""

    def __init__(self, metric: Metric, draw: Draw, arms: int = 2, seed: int = 1, each: tuple[int, ...] = (20, 20, 20)
                 ) -> None:
        self.track = Track(metric, ["control", "b", "c"][:arms], ALPHA, steps=10)
        self.draw, self.each = draw, each
        self.rng = np.random.default_rng(seed)
        self.sums = [Sums(0, np.zeros(RUNS), np.zeros(RUNS)) for _ in range(arms)]
        self.better, self.worse = np.zeros(RUNS, bool), np.zeros(RUNS, bool)
        self.missed = np.zeros(RUNS, bool)

    def run(self, looks: int, true_effect: float = 0.0) -> Simulation:
        for time in range(looks):
            for arm, sums in enumerate(self.sums):
                values = self.draw(self.rng, arm, (RUNS, self.each[arm]))
                self.sums[arm] = Sums(sums.n + self.each[arm], sums.total + values.sum(1),
                                      sums.squares + (values ** 2).sum(1))
            if not self.track.look(time, dict(zip(self.track.arms, self.sums, strict=True))):
                continue
            for effect in self.track.series[-1]:
                for run in range(RUNS):
                    found = self.track.finding(type(effect)(effect.effect[run], effect.low[run], effect.high[run]))
                    self.better[run] |= found == "better"
                    self.worse[run] |= found == "worse"
                self.missed |= (effect.low > true_effect) | (effect.high < true_effect)
        return self

    def typical(self) -> Track:
        """With the mean sums of all runs."""
        track = Track(self.track.metric, self.track.arms, ALPHA)
        for block in self.track.blocks:
            track.close(Block(block.time, tuple(Sums(sums.n, float(np.mean(sums.total)), float(np.mean(sums.squares)))
                                                for sums in block.sums)))
        return track


@pytest.mark.parametrize(("metric", "draw", "arms"), [
    (RATE, rates(0.2, 0.2), 2), (RATE, rates(0.01, 0.01, 0.01), 3), (LOWER, rates(0.5, 0.5), 2),
    (MEAN, means(0.0, 0.0), 2), (MEAN, means(0.0, 0.0, 0.0), 3)])
def test_equal_arms_are_seldom_told_apart(metric: Metric, draw: Draw, arms: int) -> None:
    simulation = Simulation(metric, draw, arms).run(100)
    assert_seldom((simulation.better | simulation.worse).sum())
    assert_seldom(simulation.missed.sum())


@pytest.mark.parametrize(("metric", "draw", "effect"), [
    (RATE, rates(0.2, 0.3), 0.1), (RATE, rates(0.02, 0.0), -0.02), (MEAN, means(0.0, 0.05), 0.05 * 40)])
def test_intervals_cover_at_every_look(metric: Metric, draw: Draw, effect: float) -> None:
    simulation = Simulation(metric, draw).run(100, effect)
    assert_seldom(simulation.missed.sum())
    found = simulation.track.effects["b"]
    assert np.mean(found.effect) == pytest.approx(effect, abs=0.05 * (metric.high - metric.low) / 5)


@pytest.mark.parametrize(("metric", "base", "sign"), [
    (RATE, 0.2, 1), (RATE, 0.01, 1), (LOWER, 0.2, -1), (MEAN, None, 1)])
def test_an_effect_that_is_promised_is_found(metric: Metric, base: float | None, sign: int) -> None:
    equal = rates(base, base) if base is not None else means(0.0, 0.0)
    promised = Simulation(metric, equal).run(100).typical().promised(1)
    assert promised is not None
    unit = promised / (metric.high - metric.low)
    other = rates(base, base + sign * unit) if base is not None else means(0.0, unit)
    simulation = Simulation(metric, other, seed=2).run(100)
    assert_mostly(simulation.better.sum())
    assert simulation.worse.sum() <= 0.05 * RUNS


@pytest.mark.parametrize(("metric", "draw", "effect"), [(RATE, (0.1, 0.1), 0.08), (MEAN, None, 3.0)])
def test_as_many_as_are_needed_are_enough(metric: Metric, draw: tuple[float, ...] | None, effect: float) -> None:
    first = Simulation(metric, rates(*draw) if draw else means(0.0, 0.0)).run(10).typical()
    needed = first.needed(1, effect)
    assert needed is not None
    unit = effect / (metric.high - metric.low)
    other = rates(draw[0], draw[0] + unit) if draw else means(0.0, unit)
    assert_mostly(Simulation(metric, other, seed=3).run(round(needed / 20) + 1).better.sum())


def test_arms_of_other_shares() -> None:
    simulation = Simulation(RATE, rates(0.2, 0.2), each=(60, 7)).run(100)
    assert_seldom((simulation.better | simulation.worse).sum())
    promised = simulation.typical().promised(1)
    assert promised is not None
    assert_mostly(Simulation(RATE, rates(0.2, 0.2 + promised), seed=4, each=(60, 7)).run(100).better.sum())


def test_an_interval_holds_the_one_that_may_be_looked_at_once() -> None:
    rng = np.random.default_rng(5)
    track, sums = Track(RATE, ["control", "b"], ALPHA), [Sums(), Sums()]
    for time in range(200):
        cases = rng.binomial(50, [0.1, 0.14])
        sums = [Sums(each.n + 50, each.total + x, each.squares + x) for each, x in zip(sums, cases, strict=True)]
        track.look(time, dict(zip(track.arms, sums, strict=True)))
    (_, a), (_, b) = ((each.n, each.total) for each in track.last)
    n = track.last[0].n
    low, high = confint_proportions_2indep(b, n, a, n, method="wald")
    effect = track.effects["b"]
    assert effect.effect == pytest.approx(b / n - a / n)
    assert effect.low <= low < 0.04 < high <= effect.high
    assert effect.high - effect.low <= 3 * (high - low)


def test_an_interval_of_means_holds_students() -> None:
    rng = np.random.default_rng(6)
    track = Track(MEAN, ["control", "b"], ALPHA)
    values = rng.beta(2, 6, (2, 8000)) + [[0.0], [0.02]]
    for n in range(100, 8001, 100):
        track.look(n, {arm: Sums(n, of[:n].sum(), (of[:n] ** 2).sum())
                       for arm, of in zip(track.arms, values, strict=True)})
    n = int(track.last[0].n)
    once = stats.ttest_ind(values[1, :n] * 40, values[0, :n] * 40).confidence_interval(0.95)
    effect = track.effects["b"]
    assert effect.effect == pytest.approx((values[1, :n].mean() - values[0, :n].mean()) * 40)
    assert effect.low <= once.low < once.high <= effect.high
    assert effect.high - effect.low <= 5 * (once.high - once.low)


def test_what_an_interval_says() -> None:
    from infer.traffic.tracks import Effect

    track, lower, mean = Track(RATE, ["a", "b"], ALPHA), Track(LOWER, ["a", "b"], ALPHA), Track(MEAN, ["a", "b"], ALPHA)
    for low, high, wanted in ((0.1, 0.2, "better"), (0.0, 0.2, "better"), (-0.2, 0.0, "worse"), (-0.2, -0.1, "worse"),
                              (-0.01, 0.02, "alike"), (-0.05, 0.02, ""), (-0.02, 0.05, "")):
        effect = Effect(0.0, low, high)
        assert track.finding(effect, 0.05) == wanted
        assert lower.finding(effect, 0.05) == {"better": "worse", "worse": "better"}.get(wanted, wanted)
    assert mean.finding(Effect(1.0, 0.0, 2.0)) == ""
    assert track.finding(Effect(0.0, -0.01, 0.01)) == ""


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=30))
def test_blocks_grow_and_lose_nothing(steps: list[tuple[int, int]]) -> None:
    track = Track(RATE, ["a", "b"], ALPHA, steps=2)
    a = b = 0
    for time, (more_a, more_b) in enumerate(steps):
        a, b = a + more_a, b + more_b
        before = sum(each.n for each in track.last)
        closed = track.look(time, {"a": Sums(a, a / 2, a / 2), "b": Sums(b, b / 4, b / 4)})
        assert closed == (a + b - before >= max(2 * FIRST, GROWTH * before))
        if closed:
            assert track.blocks[-1] == Block(time, (Sums(a, a / 2, a / 2), Sums(b, b / 4, b / 4)))
    again = Track(RATE, ["a", "b"], ALPHA, steps=2)
    for block in track.blocks:
        again.close(block)
    assert again.series == track.series
    assert len(track.blocks) <= 60


def test_before_there_is_anything() -> None:
    track = Track(RATE, ["a", "b"], ALPHA)
    assert (track.effects, track.promised(1), track.needed(1, 0.1)) == ({}, None, None)
    track.close(Block(0.0, (Sums(12, 6.0, 6.0), Sums(12, 6.0, 6.0))))
    assert track.effects["b"] == (0.0, -1.0, 1.0)
    assert track.promised(1) is None        # not even that all of them are cases
    assert track.needed(1, 0.0) is None
    assert track.needed(1, 1.5) is None
