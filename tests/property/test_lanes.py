"""Tenants that wait for the same model: what each gets of its batches, by its weight.

A row takes a millisecond. Over any interval in which two tenants always have something waiting, what they got by weight
differs by no more than a request of each; where shapes differ, by a batch more.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core import clock
from infer._core._testing_batcher import LANES, LEVEL_STEP_NS, BatcherBox, QueueBox

START_NS = 10**12
ROW_NS = 1_000_000


class Line:
    """One queue, and who put what."""

    def __init__(self, gather_rows: int = 8, levels: int = 0) -> None:
        self.batcher, self.queue = BatcherBox(), QueueBox(gather_rows, levels=levels)
        self.numbers = itertools.count()
        self.of: dict[int, tuple[int, int]] = {}        # tenant and rows
        self.rows: Counter[int] = Counter()             # taken, by tenant
        self.waiting: Counter[int] = Counter()          # rows, by tenant
        # So that what a row costs is known.
        self.put(0, 1)
        self.take()
        self.rows.clear()

    def put(self, tenant: int, weight: int, rows: int = 1, *, length: int = 1, level: int = 0) -> int:
        number = next(self.numbers)
        assert self.batcher.put(self.queue, number, (rows, length), level=level,
                                tenant=(tenant, weight) if tenant else None)
        self.of[number] = tenant, rows
        self.waiting[tenant] += rows
        return number

    def take(self) -> list[int]:
        """The tenants of a batch, in its order."""
        taken = self.batcher.take()
        assert taken is not None
        clock.advance(taken[2] * ROW_NS)
        self.batcher.complete(self.queue, taken[1])
        for number in taken[1]:
            tenant, rows = self.of.pop(number)
            self.rows[tenant] += rows
            self.waiting[tenant] -= rows
        return taken[1]

    def empty(self) -> None:
        while self.queue.requests:
            self.take()


@given(weights=st.lists(st.integers(1, 5), min_size=2, max_size=6), most_rows=st.integers(1, 4),
       gather_rows=st.sampled_from([1, 4, 16]), shapes=st.sampled_from([1, 1, 3]), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_tenants_that_always_wait_get_theirs_by_weight(
        weights: list[int], most_rows: int, gather_rows: int, shapes: int, seed: int) -> None:
    clock.set_fake(START_NS)
    try:
        line, source = Line(gather_rows), random.Random(seed)
        pairs = list(itertools.combinations(range(len(weights)), 2))
        low, high = dict.fromkeys(pairs, Fraction(0)), dict.fromkeys(pairs, Fraction(0))
        begin: Counter[int] = Counter()
        for step in range(200):
            for tenant, weight in enumerate(weights, 1):
                # The first has a hundred times as much waiting as others.
                while line.waiting[tenant] < (500 if tenant == 1 else 5) * most_rows + 2 * gather_rows:
                    line.put(tenant, weight, source.randint(1, most_rows), length=source.randint(1, shapes))
            line.take()
            if step == 0:
                begin = line.rows.copy()
            for one, other in pairs:
                ahead = (Fraction(line.rows[one + 1] - begin[one + 1], weights[one])
                         - Fraction(line.rows[other + 1] - begin[other + 1], weights[other]))
                low[one, other] = min(low[one, other], ahead)
                high[one, other] = max(high[one, other], ahead)
        batch = (gather_rows + most_rows) * (shapes > 1)
        for one, other in pairs:
            bound = sum(Fraction(most_rows + batch, weights[each]) for each in (one, other))
            assert high[one, other] - low[one, other] <= bound * (1 if shapes == 1 else 2)
        line.empty()
    finally:
        clock.restore()


def test_one_that_comes_is_in_the_next_batch_whatever_another_has_waiting(stepped_clock: None) -> None:
    line = Line(gather_rows=8)
    for _ in range(1_000):
        line.put(1, 1)
    line.take()
    mine = [line.put(2, 1) for _ in range(4)]
    assert set(mine) <= set(line.take())
    line.empty()


def test_batches_hold_requests_of_several_tenants(stepped_clock: None) -> None:
    line = Line(gather_rows=6)
    for tenant in (1, 1, 1, 1, 2, 2, 2, 3, 3):
        line.put(tenant, 1)
    line.take()
    assert line.rows == {1: 2, 2: 2, 3: 2}
    line.empty()
    assert line.queue.buckets == 0


def test_one_that_was_idle_has_saved_nothing(stepped_clock: None) -> None:
    line = Line(gather_rows=1)
    line.put(2, 1)
    line.take()
    for _ in range(100):
        line.put(1, 1)
        line.take()
    line.rows.clear()
    for _ in range(20):
        line.put(1, 1)
        line.put(2, 1)
        line.take()
        line.take()
        assert abs(line.rows[1] - line.rows[2]) <= 1


def test_what_was_cancelled_is_not_owed(stepped_clock: None) -> None:
    line = Line(gather_rows=1)
    for _ in range(10):
        line.put(1, 1)
    given_up = [line.put(2, 1) for _ in range(50)]
    for number in given_up:
        assert line.batcher.remove(number)
        line.of.pop(number)
    line.waiting[2] = 0
    mine = line.put(2, 1)
    assert mine in line.take() + line.take()
    line.empty()


def test_more_tenants_than_lanes_share_some_and_none_starves(stepped_clock: None) -> None:
    line = Line(gather_rows=4)
    tenants = range(1, 3 * LANES + 1)
    for _ in range(3):
        for tenant in tenants:
            line.put(tenant, 1)
    for _ in range(200):
        line.put(1, 1)
    while line.rows.total() < 4 * len(tenants):
        line.take()
    # Those that share a lane with others have waited for these, and nobody for all that the first one has.
    assert min(line.rows[tenant] for tenant in tenants) >= 1
    line.empty()
    assert line.queue.buckets == 0


@pytest.mark.parametrize("others", [0, 2])
def test_a_more_urgent_level_is_first_whoever_asks(stepped_clock: None, others: int) -> None:
    line = Line(gather_rows=1, levels=2)
    for _ in range(20):
        line.put(1, 5, level=2)
    urgent = [line.put(2, 1, level=1), line.put(1, 1, level=1)]
    assert sorted(line.take() + line.take()) == urgent
    line.empty()


def test_the_least_urgent_waits_for_no_more_than_its_steps_of_each_tenant(stepped_clock: None) -> None:
    """However many urgent ones keep coming, from however many."""
    line = Line(gather_rows=100, levels=2)
    last = line.put(1, 1, level=2)
    for _ in range(3 * LEVEL_STEP_NS // (100 * ROW_NS) + 3):
        for tenant in (1, 2, 3):
            for _ in range(100):
                line.put(tenant, 1, level=1)
        if last in line.take():
            break
    assert last not in line.of
    line.empty()


def test_without_tenants_there_are_no_lanes(stepped_clock: None) -> None:
    line = Line()
    for _ in range(20):
        line.put(0, 1)
    line.empty()
    assert not line.queue.lanes
    line.put(1, 1)
    assert line.queue.lanes
    line.put(0, 1)
    line.empty()
