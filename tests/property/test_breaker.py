"""The breaker against a plain model of what it promises: the window as a list of calls, shares as fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core._testing_breaker import BUCKETS, DOUBLINGS, LONGEST_NS, WHOLE, BreakerBench

LIMITS: dict[str, int] = {"window_ns": 1000, "min_calls": 4, "error_share": WHOLE // 2, "slow_ns": 100,
                          "slow_share": WHOLE * 3 // 4, "open_ns": 500, "probes": 2}


@dataclass
class Model:
    """One list of the calls that were recorded while closed; everything else follows from the words of breaker.pxd."""

    limits: dict[str, int]
    now: int
    state: str = "closed"
    calls: list[tuple[int, bool, bool]] = field(default_factory=list)
    openings: int = 0
    until: int = 0
    opened: int = 0
    trial: int = 1
    running: int = 0
    good: int = 0

    def __post_init__(self) -> None:
        self.closed_at = self.now
        self.latest = self.slot(self.now)

    def slot(self, now: int) -> int:
        return now // (self.limits["window_ns"] // BUCKETS)

    def admits(self, now: int) -> bool:
        if self.state == "open":
            return now >= self.until
        return self.state == "closed" or self.running + self.good < self.limits["probes"]

    def admit(self, now: int) -> tuple[bool, int]:
        if not self.admits(now):
            return False, 0
        if self.state == "closed":
            return True, 0
        if self.state == "open":
            self.state, self.running, self.good = "half-open", 0, 0
            self.trial += 1
        self.running += 1
        return True, self.trial

    def open(self, now: int) -> None:
        if self.state == "closed" and now - self.closed_at >= self.limits["window_ns"]:
            self.openings = 0
        self.openings += 1
        self.opened += 1
        grown = self.limits["open_ns"] * 2 ** min(self.openings - 1, DOUBLINGS)
        self.state, self.until = "open", now + max(self.limits["open_ns"], min(grown, LONGEST_NS))

    def record(self, outcome: str, ran_ns: int, probe: int, now: int) -> None:
        error, slow = outcome == "error", 0 < self.limits["slow_ns"] <= ran_ns
        if outcome == "no matter":
            self.release(probe)
        elif self.state == "half-open" and probe == self.trial:
            self.running -= 1
            if error or slow:
                self.open(now)
                return
            self.good += 1
            if self.good >= self.limits["probes"]:
                self.state, self.closed_at, self.calls, self.latest = "closed", now, [], self.slot(now)
        elif self.state == "closed":
            # A time before the latest bucket counts as in it.
            self.latest = max(self.latest, self.slot(now))
            self.calls = [call for call in self.calls if call[0] > self.latest - BUCKETS]
            self.calls.append((self.latest, error, slow))
            count = len(self.calls)
            errors, slows = sum(call[1] for call in self.calls), sum(call[2] for call in self.calls)
            if count >= self.limits["min_calls"] and (
                    Fraction(errors, count) >= Fraction(self.limits["error_share"], WHOLE)
                    or (self.limits["slow_ns"] > 0
                        and Fraction(slows, count) >= Fraction(self.limits["slow_share"], WHOLE))):
                self.open(now)

    def release(self, probe: int) -> None:
        if self.state == "half-open" and probe == self.trial and self.running:
            self.running -= 1


LIMIT_CHOICES = st.fixed_dictionaries({
    "window_ns": st.sampled_from([10, 15, 1000, 10_000_000_000]), "min_calls": st.integers(1, 6),
    "error_share": st.integers(1, WHOLE), "slow_ns": st.sampled_from([0, 1, 100]), "slow_share": st.integers(1, WHOLE),
    "open_ns": st.sampled_from([1, 500, LONGEST_NS // 3, LONGEST_NS, LONGEST_NS + 1]), "probes": st.integers(1, 3)})
STEP = st.one_of(
    st.tuples(st.just("call"), st.sampled_from(["good", "good", "error", "no matter"]), st.sampled_from([0, 99, 100])),
    st.tuples(st.just("begin")),
    st.tuples(st.just("end"), st.integers(0, 5), st.sampled_from(["good", "good", "error", "no matter", "gone"]),
              st.sampled_from([0, 100])),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 7, 99, 100, 101, 499, 500, 1000, 10**9, LONGEST_NS, 2 * 10**11])),
    st.tuples(st.just("back"), st.sampled_from([1, 100])),
)


@given(limits=LIMIT_CHOICES, start=st.sampled_from([0, 10**12 + 3]), steps=st.lists(STEP, max_size=80))
@settings(max_examples=400)
def test_it_is_the_model(limits: dict[str, int], start: int, steps: Sequence[Any]) -> None:
    now = start
    breaker, model = BreakerBench(now, **limits), Model(limits, now)
    under_way: list[int] = []
    for step in steps:
        match step:
            case ("wait", time):
                now += time
            case ("back", time):
                now = max(start, now - time)
            case ("call", outcome, ran):
                admitted, probe = breaker.admit(now)
                assert (admitted, probe) == model.admit(now)
                if admitted:
                    breaker.record(outcome, ran, probe, now)
                    model.record(outcome, ran, probe, now)
            case ("begin",):
                admitted, probe = breaker.admit(now)
                assert (admitted, probe) == model.admit(now)
                under_way += [probe] * admitted
            case ("end", index, outcome, ran) if under_way:
                probe = under_way.pop(index % len(under_way))
                if outcome == "gone":
                    breaker.release(probe)
                    model.release(probe)
                else:
                    breaker.record(outcome, ran, probe, now)
                    model.record(outcome, ran, probe, now)
        assert (breaker.state, breaker.opened) == (model.state, model.opened)
        assert breaker.would_admit(now) == model.admits(now)
        assert breaker.wait_ns(now) == (max(0, model.until - now) if model.state == "open" else 0)
        if model.state == "half-open":
            assert breaker.probes_running == model.running <= limits["probes"]


def failing(breaker: BreakerBench, now: int, calls: int = 4) -> None:
    for _ in range(calls):
        assert breaker.admit(now) == (True, 0)
        breaker.record("error", 0, 0, now)


def test_it_opens_within_the_window_and_closes_by_itself() -> None:
    breaker = BreakerBench(0, **LIMITS)
    failing(breaker, 10, 3)
    assert breaker.state == "closed"
    failing(breaker, 20, 1)
    assert (breaker.state, breaker.admit(519)) == ("open", (False, 0))
    trial = breaker.admit(520)[1]
    assert (breaker.state, breaker.admit(520), breaker.admit(520)) == ("half-open", (True, trial), (False, 0))
    breaker.record("good", 0, trial, 530)
    breaker.record("good", 0, trial, 530)
    assert (breaker.state, breaker.admit(530)) == ("closed", (True, 0))


def test_failures_that_have_left_the_window_do_not_count() -> None:
    breaker = BreakerBench(0, **LIMITS)
    failing(breaker, 10, 3)
    failing(breaker, 1010, 1)
    assert breaker.state == "closed"


@given(calls=st.lists(st.tuples(st.integers(0, 6), st.floats(0, 1), st.sampled_from([0, 100]),
                                st.sampled_from([0, 40, 1000]))))
def test_calls_that_are_counted_at_once_are_calls(calls: list[tuple[int, float, int, int]]) -> None:
    # Limits that no share reaches before the end of a batch, so that the order inside it says nothing.
    never = {**LIMITS, "min_calls": 10**6}
    whole, single = BreakerBench(0, **never), BreakerBench(0, **never)
    now = 0
    for count, share, ran, wait in calls:
        now += wait
        errors = round(count * share)
        whole.count(count, errors, ran, now)
        for index in range(count):
            single.record("error" if index < errors else "good", ran, 0, now)
    for breaker in (whole, single):
        breaker.limit(now, **{**LIMITS, "min_calls": 1})
        breaker.record("good", 0, 0, now)
    assert (whole.state, whole.opened) == (single.state, single.opened)


@pytest.mark.parametrize("outcome", ["error", "good"])
def test_calls_of_before_do_not_judge_a_trial(outcome: str) -> None:
    breaker = BreakerBench(0, **LIMITS)
    failing(breaker, 10)
    trial = breaker.admit(600)[1]
    breaker.record(outcome, 0, 0, 600)
    breaker.record(outcome, 0, trial - 1, 600)
    assert (breaker.state, breaker.probes_running) == ("half-open", 1)


def test_the_open_time_doubles_up_to_its_bound_and_is_short_again_after_a_good_window() -> None:
    breaker = BreakerBench(0, **LIMITS)
    now = 10
    failing(breaker, now)
    waits = [breaker.wait_ns(now)]
    for _ in range(DOUBLINGS + 2):
        now += breaker.wait_ns(now)
        breaker.record("error", 0, breaker.admit(now)[1], now)
        waits.append(breaker.wait_ns(now))
    assert waits == [500 << min(doubled, DOUBLINGS) for doubled in range(DOUBLINGS + 3)]
    for pause, wait in ((999, 500 << DOUBLINGS), (1000, 500)):
        now += breaker.wait_ns(now)
        for _ in range(LIMITS["probes"]):
            breaker.record("good", 0, breaker.admit(now)[1], now)
        now += pause
        failing(breaker, now)
        assert breaker.wait_ns(now) == wait


def test_a_trial_whose_calls_came_to_nothing_goes_on() -> None:
    breaker = BreakerBench(0, **LIMITS)
    failing(breaker, 10)
    for _ in range(5):
        breaker.record("no matter", 0, breaker.admit(600)[1], 600)
        breaker.release(breaker.admit(600)[1])
    assert (breaker.state, breaker.probes_running) == ("half-open", 0)


def test_other_limits_leave_the_state() -> None:
    breaker = BreakerBench(0, **LIMITS)
    failing(breaker, 10, 3)
    breaker.limit(20, **{**LIMITS, "min_calls": 3})
    failing(breaker, 20, 1)
    breaker.limit(30, **{**LIMITS, "window_ns": 5000, "open_ns": 1})
    assert (breaker.state, breaker.wait_ns(30)) == ("open", 490)
