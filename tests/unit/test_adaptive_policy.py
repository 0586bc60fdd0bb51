"""The policy of --adaptive-limit, in a simulation of a server with one executor and calls without deadlines."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from infer.adaptive_policy import LimitPolicy, Waited

STEP_S = 0.25
MOST = 4096
Cost = Callable[[int], float]


@dataclass
class Run:
    """What became of the calls; latencies with the time of the answer."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    def rate(self, begin: float, end: float) -> float:
        return sum(begin <= at < end for at, _ in self.answered) / (end - begin)

    def p99(self, begin: float) -> float:
        found = sorted(latency for at, latency in self.answered if at >= begin)
        return found[int(0.99 * len(found))]


def serve(cost: Cost, gather: int, seconds: float, rate: float, seed: int = 0, *, limited: bool = True) -> Run:
    """Calls of a row come at random times; a batch takes what waits."""
    run, policy, source = Run(), LimitPolicy(MOST), random.Random(seed)
    waiting: deque[float] = deque()
    now = free_at = 0.0
    step_at = STEP_S
    requests, queue_s, run_s, refused = 0, 0.0, 0.0, 0
    while now < seconds:
        now += source.expovariate(rate)
        while waiting and free_at <= now:
            begin = max(free_at, waiting[0])
            batch = []
            while waiting and len(batch) < gather and waiting[0] <= begin:
                batch.append(waiting.popleft())
            free_at = begin + cost(len(batch))
            requests += len(batch)
            queue_s += sum(begin - each for each in batch)
            run_s += cost(len(batch)) * len(batch)
            run.answered += [(free_at, free_at - each) for each in batch]
        while step_at <= now:
            run.limits.append(policy.step(Waited(requests, queue_s, run_s, refused), gather, len(waiting)))
            requests, queue_s, run_s, refused = 0, 0.0, 0.0, 0
            step_at += STEP_S
        if waiting and limited and len(waiting) + 1 > policy.rows:
            run.refused.append(now)
            refused += 1
        else:
            waiting.append(now)
    return run


COSTS = {"linear": (lambda rows: 0.001 * rows, 16, 1_000.0), "flat": (lambda rows: 0.02, 16, 800.0),
         "mixed": (lambda rows: 0.002 + 0.0002 * rows, 64, 64 / 0.0148), "alone": (lambda rows: 0.004, 1, 250.0)}
EVERY_COST = pytest.mark.parametrize(("cost", "gather", "most"), COSTS.values(), ids=COSTS)


@EVERY_COST
def test_where_more_comes_than_can_be_run_little_waits_and_as_much_is_answered(
        cost: Cost, gather: int, most: float) -> None:
    seconds = 30.0
    limited, free = (serve(cost, gather, seconds, 2 * most, limited=each) for each in (True, False))
    assert limited.rate(5, seconds) >= 0.97 * free.rate(5, seconds)
    # The batch that runs, those that may wait as long again, and its own, with room for bursts.
    assert limited.p99(5.0) <= 3 * (cost(gather) + max(cost(gather), 0.005))
    assert free.p99(5.0) > 2 * limited.p99(5.0)


@EVERY_COST
def test_where_all_can_be_run_next_to_nothing_is_refused(cost: Cost, gather: int, most: float) -> None:
    run = serve(cost, gather, 60.0, 0.7 * most)
    assert len(run.refused) <= 0.01 * len(run.answered)


def test_after_an_overload_the_limit_does_not_stay_in_the_way() -> None:
    policy = LimitPolicy(MOST)
    for _ in range(40):
        policy.step(Waited(1_000, 1_000.0, 20.0, 100), 64, policy.rows)
    assert policy.rows <= 64 + 16
    before = policy.rows
    for _ in range(40):
        policy.step(Waited(1_000, 1.0, 20.0, 50), 64, policy.rows)
    assert policy.rows > 3 * before
    # One that nobody comes near stays as it is.
    held = policy.rows
    for _ in range(40):
        policy.step(Waited(1_000, 1.0, 20.0, 0), 64, policy.rows // 3)
    assert policy.rows == held


def test_few_requests_say_nothing_and_are_added_up() -> None:
    policy = LimitPolicy(MOST)
    for _ in range(3):
        assert policy.step(Waited(6, 6.0, 0.1, 0), 8, 0) == MOST
    assert policy.step(Waited(6, 6.0, 0.1, 0), 8, 0) < MOST


@pytest.mark.parametrize("waited", [Waited(100, 0.0, 0.0, 0), Waited(100, 1e9, 0.0, 0), Waited(100, 1e9, 1e-9, 9)])
def test_it_stays_within_its_bounds(waited: Waited) -> None:
    policy = LimitPolicy(MOST)
    for _ in range(100):
        assert 64 <= policy.step(waited, 64, MOST) <= MOST
