"""The policy of slo_p99_ms, in a simulation of a server with one executor, beside every fixed setting."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import pytest

from infer.slo_policy import NEAR, Choice, Curve, Seen, SloPolicy

STEP_S = 0.25
ROWS_MAX = 256
Cost = Callable[[int], float]


def poisson(seed: int, phases: Sequence[tuple[float, float]]) -> Iterator[float]:
    """Times of arrivals; each phase lasts so many seconds, at so many calls a second."""
    source = random.Random(seed)
    begin = 0.0
    for seconds, rate in phases:
        now = begin
        while (now := now + source.expovariate(rate)) < begin + seconds:
            yield now
        begin += seconds


@dataclass
class Run:
    """What became of the calls."""

    latencies: list[float] = field(default_factory=list)
    end: float = 0.0
    choices: list[Choice] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        return sorted(self.latencies)[int(0.99 * len(self.latencies))]

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.end


def serve(arrivals: Sequence[float], cost: Cost, start: Choice, policy: SloPolicy | None = None) -> Run:
    """Batches of one-row calls, one after the other: at once where anything waits, or when the delay is over."""
    run, choice = Run(), start
    waiting: deque[float] = deque()
    left = deque(arrivals)
    now, next_step = 0.0, STEP_S
    ran: Counter[int] = Counter()
    latencies: list[float] = []
    while left or waiting:
        while left and left[0] <= now:
            waiting.append(left.popleft())
        closes = waiting[0] + choice.delay_s if waiting else float("inf")
        if waiting and (len(waiting) >= choice.gather_rows or closes <= now):
            rows = min(len(waiting), choice.gather_rows)
            now += cost(rows)
            ran[rows] += 1
            latencies += [now - waiting.popleft() for _ in range(rows)]
        else:
            now = min(closes, left[0] if left else closes)
        while policy is not None and now >= next_step:
            seen = Seen(STEP_S, [(rows, count, count * cost(rows)) for rows, count in ran.items()], len(latencies),
                        sum(each > policy.slo_s for each in latencies),
                        sum(each > NEAR * policy.slo_s for each in latencies))
            choice = policy.step(seen)
            run.choices.append(choice)
            run.latencies += latencies
            latencies = []
            ran.clear()
            next_step += STEP_S
    run.latencies += latencies
    run.end = now
    return run


def line(fixed_s: float, row_s: float) -> Cost:
    return lambda rows: fixed_s + row_s * rows


def best_fixed(arrivals: Sequence[float], cost: Cost, slo_s: float) -> float:
    """Calls a second of the best setting that keeps to the time asked for."""
    runs = [serve(arrivals, cost, Choice(rows, delay_s))
            for rows, delay_s in product((1, 4, 16, 64, 256), (0.0, 0.002, 0.01))]
    return max((run.rate for run in runs if run.p99_s <= slo_s), default=0.0)


COSTS = {"much is fixed": line(0.002, 0.00005), "little is fixed": line(0.0002, 0.0004)}
# Calls a second of what a batch of 64 would do.
TRACES = {
    "steps": [(3, 0.2), (3, 0.75), (3, 0.4), (3, 0.05)],
    "bursts": [(0.9, 0.1), (0.1, 0.85)] * 10,
    "steady": [(10, 0.7)],
}


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("start", [Choice(64, 0.0), Choice(16, 0.0), Choice(256, 0.01)])
def test_it_does_as_well_as_the_best_fixed_setting_and_keeps_to_the_time(trace: str, cost: str, start: Choice) -> None:
    takes, slo_s = COSTS[cost], 0.08
    capacity = 64 / takes(64)
    arrivals = list(poisson(7, [(seconds, part * capacity) for seconds, part in TRACES[trace]]))
    run = serve(arrivals, takes, start, SloPolicy(slo_s, ROWS_MAX, 1, start))
    assert run.p99_s <= slo_s
    assert run.rate >= 0.9 * best_fixed(arrivals, takes, slo_s)


def test_batches_are_small_where_large_ones_would_be_late() -> None:
    """0.4 ms a row: with 256 rows a batch a call waits for twice a tenth of a second."""
    takes = COSTS["little is fixed"]
    arrivals = list(poisson(7, [(6, 0.8 * 64 / takes(64))]))
    start = Choice(256, 0.02)
    policy = SloPolicy(0.03, ROWS_MAX, 1, start)
    run = serve(arrivals, takes, start, policy)
    assert 2 * takes(run.choices[-1].gather_rows) <= 0.03
    late = [latency for latency in run.latencies[len(run.latencies) // 4:] if latency > 0.03]
    assert len(late) <= 0.01 * len(run.latencies)


def test_more_than_64_rows_where_most_of_the_time_is_fixed() -> None:
    takes = line(0.01, 0.00001)
    arrivals = list(poisson(7, [(6, 0.95 * 128 / takes(128))]))
    run = serve(arrivals, takes, Choice(16, 0.0), SloPolicy(0.1, ROWS_MAX, 1, Choice(16, 0.0)))
    assert run.choices[-1].gather_rows > 128
    assert run.rate >= 0.9 * best_fixed(arrivals, takes, 0.1)


# What is known of the time that batches take.


def test_the_curve_is_the_line_that_batches_took() -> None:
    curve = Curve()
    takes = line(0.003, 0.0001)
    curve.add([(rows, 3, 3 * takes(rows)) for rows in (1, 5, 40)])
    for rows in (1, 10, 64, 200):
        assert curve.seconds(rows) == pytest.approx(takes(rows))


def test_of_one_size_alone_others_are_in_proportion() -> None:
    curve = Curve()
    curve.add([(8, 10, 0.08)])
    assert [curve.seconds(rows) for rows in (4, 8, 16)] == pytest.approx([0.004, 0.008, 0.016])


@pytest.mark.parametrize("took", [[(1, 1, 0.004), (64, 1, 0.001)], [(1, 1, 0.0001), (64, 1, 0.1)], [(1, 1, 0.0)]])
def test_more_rows_never_take_less(took: list[tuple[int, int, float]]) -> None:
    curve = Curve()
    curve.add(took)
    times = [curve.seconds(rows) for rows in range(1, 300)]
    assert times == sorted(times)
    assert times[0] >= 0


def test_what_is_known_of_large_batches_outlives_a_quiet_time() -> None:
    curve = Curve()
    takes = line(0.003, 0.0001)
    curve.add([(64, 5, 5 * takes(64)), (1, 5, 5 * takes(1))])
    for _ in range(1_000):
        curve.add([(1, 5, 5 * takes(1))])
    assert curve.seconds(64) == pytest.approx(takes(64))


# What is seen of the tail, and of the callers.


def seen(rows: int, batches: int, takes: Cost, *, late: int = 0, close: int = 0) -> Seen:
    return Seen(STEP_S, [(rows, batches, batches * takes(rows)), (1, 1, takes(1))], rows * batches + 1, late,
                max(late, close))


def test_calls_that_are_late_make_batches_smaller_and_come_back_slowly() -> None:
    takes = line(0.001, 0.0005)
    policy = SloPolicy(0.05, ROWS_MAX, 1, Choice(64, 0.0))
    usual = policy.step(seen(10, 20, takes)).gather_rows
    smaller = policy.step(seen(10, 20, takes, late=20)).gather_rows
    assert smaller < usual
    assert policy.step(seen(10, 20, takes, close=20)).gather_rows == smaller
    for _ in range(20):
        policy.step(seen(10, 20, takes))
    assert policy.choice.gather_rows == usual


def test_of_full_batches_none_is_made_smaller() -> None:
    """Their calls are late because they wait for others."""
    takes = line(0.001, 0.0005)
    policy = SloPolicy(0.05, ROWS_MAX, 1, Choice(64, 0.0))
    rows = policy.step(seen(10, 20, takes)).gather_rows
    for _ in range(5):
        policy.step(seen(rows, 20, takes, late=200))
    assert policy.choice.gather_rows == rows


def test_a_delay_is_tried_where_executors_are_busy_and_given_up_where_callers_slow_down() -> None:
    takes = line(0.004, 0.00001)
    policy = SloPolicy(0.1, ROWS_MAX, 1, Choice(64, 0.0))
    policy.step(seen(60, 10, takes))
    for _ in range(8):
        policy.step(seen(8, 50, takes))
        if policy.choice.delay_s > 0:
            break
    assert policy.choice.delay_s > 0
    for _ in range(4):
        policy.step(seen(16, 12, takes))
    assert policy.choice.delay_s == 0
    for _ in range(100):
        assert policy.step(seen(8, 50, takes)).delay_s == 0


def test_a_delay_that_slows_nobody_stays_while_executors_are_busy() -> None:
    takes = line(0.004, 0.00001)
    policy = SloPolicy(0.1, ROWS_MAX, 1, Choice(64, 0.0))
    policy.step(seen(57, 7, takes))
    for _ in range(12):
        policy.step(seen(8, 50, takes))
    assert policy.choice.delay_s > 0
    for _ in range(50):
        policy.step(seen(40, 20, takes))
        assert 0 < policy.choice.delay_s <= 0.0801 - 2 * takes(policy.choice.gather_rows)
    policy.step(seen(1, 2, takes))
    assert policy.choice.delay_s == 0


def test_without_batches_nothing_changes() -> None:
    policy = SloPolicy(0.1, ROWS_MAX, 1, Choice(64, 0.002))
    assert policy.step(Seen(STEP_S, [], 0, 0, 0)) == Choice(64, 0.002)
