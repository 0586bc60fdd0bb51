"""Versions that share executors, in a simulation: what each gets of compute time, by its weight.

Every version has requests waiting, of one row and in batches of one. A batch needs some compute time of its own, and
those that run share the cores alike, as threads do. Where versions could use what is theirs - one core, or as many
batches of each at once as there are executors - shares differ by at most a quantum and what may run at once.
"""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core import clock
from infer._core._testing_batcher import HOLD_NS, QUANTUM_NS, BatcherBox, QueueBox

START_NS = 10**12
MS = 1_000_000


@dataclass
class Tenant:
    """A version that always has requests waiting, but while it is idle."""

    weight: int
    cost_ns: tuple[int, int]        # of a batch, at least and at most
    max_running: int
    idle: bool = False
    box: QueueBox = field(init=False)
    waiting: int = 0

    def __post_init__(self) -> None:
        self.box = QueueBox(1, 0, self.max_running, weight=self.weight)

    @property
    def slack_ns(self) -> Fraction:
        """By which it may be behind or ahead: what it may run at once, taken and not yet counted."""
        return QUANTUM_NS + Fraction(2 * self.max_running * self.cost_ns[1], self.weight)

    def share(self) -> Fraction:
        return Fraction(self.box.charged_ns, self.weight)


class Machine:
    """Executors on cores."""

    def __init__(self, tenants: list[Tenant], cores: int, executors: int, seed: int = 0) -> None:
        self.tenants, self.cores, self.executors = tenants, cores, executors
        self.batcher = BatcherBox(cores)
        self.random = random.Random(seed)
        self.running: list[tuple[Fraction, Tenant, list[int]]] = []     # with the compute time that each still needs
        self.numbers = itertools.count()

    def refill(self) -> None:
        for tenant in self.tenants:
            while not tenant.idle and tenant.box.requests < 2 * self.executors:
                assert self.batcher.put(tenant.box, next(self.numbers), (1, 1))

    def step(self) -> None:
        """Executors take what they may, and time goes on until a batch is complete."""
        self.refill()
        while len(self.running) < self.executors and (taken := self.batcher.take()) is not None:
            tenant = next(each for each in self.tenants if each.box == taken[0])
            self.running.append((Fraction(self.random.randint(*tenant.cost_ns)), tenant, taken[1]))
        assert len(self.running) >= min(self.cores, 1), "work waits, and nothing runs"
        needed, tenant, numbers = min(self.running, key=lambda each: each[0])
        rate = min(Fraction(1), Fraction(self.cores, len(self.running)))
        passed_ns = -(-needed // rate)
        clock.advance(int(passed_ns))
        self.running = [(left - passed_ns * rate, *rest) for left, *rest in self.running]
        self.running = [each for each in self.running if each[2] is not numbers]
        self.batcher.complete(tenant.box, numbers)

    def end(self) -> None:
        for _, tenant, numbers in self.running:
            self.batcher.complete(tenant.box, numbers)
        clock.restore()


def spreads(tenants: list[Tenant], machine: Machine, steps: int) -> dict[tuple[int, int], Fraction]:
    """By how much any two shares drifted apart over any interval, at most."""
    pairs = list(itertools.combinations(range(len(tenants)), 2))
    begin = [each.share() for each in tenants]
    low, high = dict.fromkeys(pairs, Fraction(0)), dict.fromkeys(pairs, Fraction(0))
    for _ in range(steps):
        machine.step()
        gained = [each.share() - before for each, before in zip(tenants, begin, strict=True)]
        for one, other in pairs:
            ahead = gained[one] - gained[other]
            low[one, other] = min(low[one, other], ahead)
            high[one, other] = max(high[one, other], ahead)
    return {pair: high[pair] - low[pair] for pair in pairs}


def ensure_fair(tenants: list[Tenant], machine: Machine, steps: int) -> None:
    for (one, other), spread in spreads(tenants, machine, steps).items():
        assert spread <= 2 * (tenants[one].slack_ns + tenants[other].slack_ns)


COSTS = st.sampled_from([(10_000, 10_000), (50_000, 200_000), (MS, MS), (5 * MS, 9 * MS), (64 * MS, 64 * MS)])
WEIGHTS = st.sampled_from([1, 1, 2, 3, 10])


@given(versions=st.lists(st.tuples(WEIGHTS, COSTS), min_size=2, max_size=5), cores=st.integers(1, 4),
       seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_versions_that_want_more_than_their_part_get_it_by_weight(
        versions: list[tuple[int, tuple[int, int]]], cores: int, seed: int) -> None:
    """As many executors as cores, all of which a version may have."""
    clock.set_fake(START_NS)
    tenants = [Tenant(weight, cost, cores) for weight, cost in versions]
    machine = Machine(tenants, cores, cores, seed)
    try:
        ensure_fair(tenants, machine, 400)
    finally:
        machine.end()


@given(versions=st.lists(st.tuples(WEIGHTS, COSTS), min_size=2, max_size=5), executors=st.integers(1, 4),
       max_running=st.integers(1, 3), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_more_executors_than_cores_change_nothing_about_shares(
        versions: list[tuple[int, tuple[int, int]]], executors: int, max_running: int, seed: int) -> None:
    """Even if each version runs one batch at once, so that every executor has a version of its own."""
    clock.set_fake(START_NS)
    tenants = [Tenant(weight, cost, max_running) for weight, cost in versions]
    machine = Machine(tenants, 1, executors, seed)
    try:
        ensure_fair(tenants, machine, 400)
    finally:
        machine.end()


@pytest.mark.parametrize("executors", [1, 2, 4])
@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 10)])
def test_what_two_get_in_the_long_run(executors: int, weights: tuple[int, int]) -> None:
    """One has batches that take forty times as long."""
    clock.set_fake(START_NS)
    tenants = [Tenant(weights[0], (40 * MS, 40 * MS), 1), Tenant(weights[1], (MS, MS), 1)]
    machine = Machine(tenants, 1, executors)
    try:
        for _ in range(6_000):
            machine.step()
        got = [each.box.charged_ns for each in tenants]
        assert got[0] / got[1] == pytest.approx(weights[0] / weights[1], rel=0.05)
        # Of one core, all of it.
        assert sum(got) == pytest.approx(clock.now() - START_NS, rel=0.01)
    finally:
        machine.end()


@pytest.mark.parametrize("executors", [1, 2])
def test_one_that_was_idle_has_saved_nothing(executors: int) -> None:
    clock.set_fake(START_NS)
    tenants = [Tenant(1, (2 * MS, 2 * MS), 1), Tenant(1, (2 * MS, 2 * MS), 1, idle=True)]
    machine = Machine(tenants, 1, executors)
    try:
        for _ in range(1_000):
            machine.step()
        assert tenants[1].box.charged_ns == 0
        tenants[1].idle = False
        before = tenants[0].box.charged_ns
        ensure_fair(tenants, machine, 200)
        assert tenants[0].box.charged_ns - before == pytest.approx(tenants[1].box.charged_ns, abs=10 * MS)
    finally:
        machine.end()


def test_one_alone_has_every_executor_and_one_that_comes_runs_next(stepped_clock: None) -> None:
    """However much the first has had, and although it could go on."""
    batcher, first, second = BatcherBox(2), QueueBox(1, 0, 2), QueueBox(1, 0, 2)
    for number in range(20):
        batcher.put(first, number, (1, 1))
    for number in range(0, 10, 2):
        assert (batcher.take(), batcher.take()) == ((first, [number], 1), (first, [number + 1], 1))
        clock.advance(100 * MS)
        batcher.complete(first, [number])
        batcher.complete(first, [number + 1])
    assert batcher.take() == (first, [10], 1)
    assert batcher.take() == (first, [11], 1)
    batcher.put(second, 100, (1, 1))
    batcher.complete(first, [10])
    assert batcher.take() == (second, [100], 1)
    batcher.complete(first, [11])
    batcher.complete(second, [100])


def test_one_without_credit_is_not_kept_from_a_core_that_is_free(stepped_clock: None) -> None:
    """Where another has credit, and runs as many batches as it may."""
    batcher, one, other = BatcherBox(2), QueueBox(1), QueueBox(1)
    batcher.put(one, 0, (1, 1))
    assert batcher.take() == (one, [0], 1)
    clock.advance(50 * MS)
    batcher.complete(one, [0])
    assert one.credit_ns < 0
    for number in range(1, 3):
        batcher.put(other, number, (1, 1))
        batcher.put(one, number + 2, (1, 1))
    assert batcher.take() == (other, [1], 1)
    assert other.credit_ns > 0
    assert batcher.take() == (one, [3], 1)
    assert batcher.take() is None
    for box, number in ((other, 1), (one, 3)):
        batcher.complete(box, [number])
    assert batcher.take() is not None


def held_up() -> tuple[BatcherBox, QueueBox, QueueBox]:
    """One has credit and runs; another has none, and waits for it."""
    batcher, heavy, light = BatcherBox(1), QueueBox(1, weight=3), QueueBox(1)
    for number in range(0, 20, 2):
        batcher.put(heavy, number, (1, 1))
        batcher.put(light, number + 1, (1, 1))
    assert batcher.take() == (heavy, [0], 1)
    assert batcher.take() == (light, [1], 1)
    clock.advance(4 * QUANTUM_NS)
    batcher.complete(light, [1])
    assert light.credit_ns < 0 < heavy.credit_ns
    return batcher, heavy, light


def test_one_that_has_to_wait_for_another_wakes_nobody_until_it_need_not(stepped_clock: None) -> None:
    batcher, heavy, _ = held_up()
    batcher.pretend_asleep(1, clock.now() + HOLD_NS - 4 * QUANTUM_NS)
    batcher.kick()
    assert (batcher.idle, batcher.signals) == (1, 0)
    assert batcher.take() is None
    clock.advance(4 * QUANTUM_NS)
    batcher.complete(heavy, [0])
    assert heavy.credit_ns < 0
    batcher.kick()
    assert (batcher.idle, batcher.signals) == (0, 1)


def test_a_run_that_hangs_keeps_others_from_an_executor_for_so_long_and_no_longer(stepped_clock: None) -> None:
    batcher, _, light = held_up()
    # Somebody has to look again when the time has come; one is enough.
    batcher.pretend_asleep(1)
    batcher.kick()
    assert (batcher.idle, batcher.signals) == (0, 1)
    clock.advance(HOLD_NS - 4 * QUANTUM_NS - 1)
    assert batcher.take() is None
    clock.advance(1)
    for number in range(3, 9, 2):
        assert batcher.take() == (light, [number], 1)
        clock.advance(QUANTUM_NS)
        batcher.complete(light, [number])


def test_a_long_batch_is_charged_what_its_thread_had_of_a_core(stepped_clock: None) -> None:
    """Where there are more executors than cores; not the time that others, of whom nobody knows, took from it."""
    batcher, queue = BatcherBox(1, crowded=True), QueueBox(1)
    charged = []
    for number in range(3):
        batcher.put(queue, number, (1, 1))
        begin = time.thread_time_ns()
        assert batcher.take() is not None
        clock.advance(10**12)
        batcher.complete(queue, [number])
        charged.append(queue.charged_ns)
        had = time.thread_time_ns() - begin
        assert number == 0 or 0 < charged[number] - charged[number - 1] <= had
    assert charged[0] == 10**12


def test_a_thousand_versions_have_a_turn_each_before_one_has_a_second(stepped_clock: None) -> None:
    batcher, boxes = BatcherBox(1), [QueueBox(1) for _ in range(1_000)]
    for number, box in enumerate(boxes * 2):
        batcher.put(box, number, (1, 1))
    order = []
    while (taken := batcher.take()) is not None:
        clock.advance(3 * QUANTUM_NS)
        batcher.complete(taken[0], taken[1])
        order += taken[1]
    assert sorted(order[:1_000]) == list(range(1_000))
    assert len(order) == 2_000
