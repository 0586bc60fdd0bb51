"""The batcher against a plain Python model, its wake-ups counted, and against real threads.

Model: a queue is a list of requests in the order of their turns: of their arrival, but that each level of priority
stands LEVEL_STEP_NS behind the one before it, and one that is delayed behind all others. From the first request of a
tenant on a turn is in virtual time instead: where its tenant's request before it at this level ends, but no earlier
than the last one that was taken began. Its batch is of the shape of
the first one and takes those of that shape, in turn, until the next would pass `gather_rows`. Queues that may run stand
in lines, each served from its front: those that run nowhere, then those that run somewhere, and behind them those that
have used up their part of the round. Those that wait for more rows come into one of these when their time is over: the
delay, or what the earliest deadline in the batch leaves. A queue goes to the end of a line when it changes lines and
after a batch was taken from it. Those whose deadline has passed when their turn comes are set aside.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infer._core import clock, debug
from infer._core._testing_batcher import LEVEL_STEP_NS, NEVER_NS, QUANTUM_NS, ROW_NS, BatcherBox, QueueBox, Rush, run_ns

UNLISTED, DELAYED, FRESH, BUSY, SPENT, SATURATED = range(-1, 5)
START_NS = 10**12


@dataclass
class Waiting:
    number: int
    rows: int
    kind: tuple[object, ...]
    queued_ns: int
    level: int                  # 0: its queue has none
    turn_ns: int
    deadline_ns: int            # NEVER_NS: none
    tenant: int                 # -1: it came before any that had one; 0: nobody in particular
    delayed: bool = False


@dataclass(eq=False)
class Queue:
    box: QueueBox
    gather_rows: int
    delay_ns: int
    max_running: int
    batched: bool
    levels: int
    weight: int
    waiting: list[Waiting] = field(default_factory=list)    # the first in turn first
    running: int = 0
    line: int = UNLISTED
    took_ns: list[int] = field(default_factory=list)        # by batches, from take to completion
    left: Counter[str] = field(default_factory=Counter)
    credit_ns: int = 0
    rounds: int = 0             # of which it has had its part
    reserved_ns: int = 0
    last_ns: int = 0
    charged_ns: int = 0
    row_ns: int = 0
    virtual_ns: int | None = None                           # None: no request had a tenant yet
    ends_ns: dict[tuple[int, int], int] = field(default_factory=dict)       # by tenant and level

    def start(self, request: Waiting, weight: int, now: int) -> int:
        """Its turn, but for its level."""
        if request.tenant > 0 and self.virtual_ns is None:
            self.virtual_ns = now
        if self.virtual_ns is None:
            return now
        lane = request.tenant, request.level
        start = max(self.ends_ns.get(lane, 0), self.virtual_ns)
        self.ends_ns[lane] = start + max(request.rows * max(self.row_ns, ROW_NS) // weight, 1)
        return start

    def given_up(self, request: Waiting) -> None:
        """It will not run from its lane; with nobody left there, nothing is owed for it."""
        lane = request.tenant, request.level
        if lane in self.ends_ns and self.virtual_ns is not None and not any(
                (each.tenant, each.level) == lane and not each.delayed for each in self.waiting):
            self.ends_ns[lane] = min(self.ends_ns[lane], self.virtual_ns)

    def took(self, rows: int, charged_ns: int) -> None:
        row_ns = charged_ns // rows
        self.row_ns += int((row_ns - self.row_ns) / 8) if self.row_ns else row_ns

    def renew(self, round_: int) -> bool:
        """Its part of each round that it has not had; whether it has credit."""
        for _ in range(round_ - self.rounds):
            self.credit_ns = min(self.credit_ns + self.weight * QUANTUM_NS, self.weight * QUANTUM_NS)
        self.rounds = round_
        return self.credit_ns > 0

    def add(self, request: Waiting) -> None:
        """Behind those with the same turn: whoever comes, or goes behind all others, later."""
        self.waiting.append(request)
        self.waiting.sort(key=lambda each: each.turn_ns)

    def delay(self, request: Waiting, now: int) -> None:
        self.waiting.remove(request)
        now = now if self.virtual_ns is None else self.virtual_ns
        request.turn_ns, request.delayed = now + max(self.levels, 1) * LEVEL_STEP_NS, True
        self.add(request)
        assert self.waiting[-1] is request

    def batch(self, now: int) -> tuple[list[Waiting], list[Waiting]]:
        """Those of the next one, and those among them that it is too late for."""
        taken: list[Waiting] = []
        late: list[Waiting] = []
        for request in self.waiting:
            if request.kind != self.waiting[0].kind:
                continue
            if request.deadline_ns <= now:
                late.append(request)
                continue
            if taken and sum(each.rows for each in taken) + request.rows > self.gather_rows:
                break
            taken.append(request)
        return taken, late

    def closes_ns(self, now: int) -> int | None:
        """When its batch closes, `now` where it may at once; None: only an event can change that."""
        if not self.waiting or self.running >= self.max_running:
            return None
        due, _ = self.due(now)
        return max(due, now)

    def due(self, now: int) -> tuple[int, str]:
        """When its batch is to leave, and why."""
        kinds = {request.kind for request in self.waiting}
        alike = [request for request in self.waiting if request.kind == self.waiting[0].kind]
        rows = sum(request.rows for request in alike)
        heads = {(request.level, request.tenant) if not request.delayed else None: request.queued_ns
                 for request in reversed(alike)}
        due = min(heads.values()) + self.delay_ns
        deadline = min(request.deadline_ns for request in alike) - run_ns(self.took_ns)
        if rows >= self.gather_rows:
            return now, "full"
        if len(kinds) > 1:
            return now, "shape"
        if self.delay_ns == 0:
            return now, "idle"
        return (deadline, "deadline") if deadline < due else (due, "delay")

    def line_for(self, now: int, round_: int) -> int:
        closes = self.closes_ns(now)
        if closes is None:
            return SATURATED if self.waiting else UNLISTED
        if closes > now:
            return DELAYED
        if not self.renew(round_):
            return SPENT
        return FRESH if self.running == 0 else BUSY


class BatcherMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        clock.set_fake(START_NS)
        self.queues: list[Queue] = []
        self.lines: dict[int, list[Queue]] = {line: [] for line in (DELAYED, FRESH, BUSY, SPENT, SATURATED)}
        # Of each: its requests, when it was taken, the compute clock then, and its rows.
        self.batches: list[tuple[Queue, list[int], int, int, int]] = []
        self.late: list[int] = []
        self.number = 0
        self.round = 1
        self.compute_ns, self.compute_at_ns = 0, 0

    @initialize(limits=st.lists(
        st.tuples(st.integers(1, 6), st.sampled_from([0, 0, 3, 10]), st.integers(1, 3), st.booleans(),
                  st.sampled_from([0, 0, 1, 3, 64]), st.sampled_from([1, 1, 2, 5])),
        min_size=1, max_size=4), parallel=st.integers(1, 4))
    def make_queues(self, limits: list[tuple[int, int, int, bool, int, int]], parallel: int) -> None:
        self.batcher = BatcherBox(parallel)
        self.parallel = parallel
        for gather_rows, delay_ns, max_running, batched, levels, weight in limits:
            gather = gather_rows if batched else 1
            delay = delay_ns if batched else 0
            box = QueueBox(gather, delay, max_running, batched, levels, weight)
            self.queues.append(Queue(box, gather, delay, max_running, batched, levels, weight))

    def settle(self, queue: Queue, *, to_the_end: bool = False) -> None:
        line = queue.line_for(clock.now(), self.round)
        if line == queue.line and not to_the_end:
            return
        if queue.line != UNLISTED:
            self.lines[queue.line].remove(queue)
        queue.line = line
        if line != UNLISTED:
            self.lines[line].append(queue)

    def release_due(self) -> None:
        for queue in list(self.lines[DELAYED]):
            self.settle(queue)

    def put_forward(self) -> None:
        """The compute clock: batches that run have the cores alike, where there are more of them than cores."""
        passed_ns = clock.now() - self.compute_at_ns
        self.compute_at_ns = clock.now()
        self.compute_ns += passed_ns * min(len(self.batches), self.parallel) // max(len(self.batches), 1)

    def held(self) -> bool:
        """With as many batches as cores: whether one that has credit waits for its own to be complete."""
        return len(self.batches) >= self.parallel and any(queue.renew(self.round) for queue in self.lines[SATURATED])

    def begin_round(self) -> None:
        contenders = self.lines[SPENT] + (self.lines[SATURATED] if len(self.batches) >= self.parallel else [])
        if not self.lines[SPENT] or self.held():
            return
        while not [queue for queue in contenders if queue.renew(self.round)]:
            self.round += 1
        for queue in list(self.lines[SPENT]):
            if queue.credit_ns > 0:
                self.settle(queue)

    @rule(queue=st.integers(0, 3), rows=st.integers(1, 8), length=st.integers(1, 3),
          shape=st.tuples(st.sampled_from([1, 1, 3]), st.sampled_from([None, 7]), st.sampled_from([0, 0x7F, 0xFF])),
          urgency=st.tuples(st.integers(0, 2), st.sampled_from([None, None, 1, 8, 500_000, 500_012, 501_000]),
                            st.sampled_from([0, 0, 1, 2, 3, 7])))
    def put(self, queue: int, rows: int, length: int, shape: tuple[int, int | None, int],
            urgency: tuple[int, int | None, int]) -> None:
        outputs, hash, noise = shape
        priority, left_ns, tenant = urgency
        into = self.queues[queue % len(self.queues)]
        self.number += 1
        dims = (rows if into.batched else 1, length)
        level = priority % into.levels + 1 if into.levels else 0
        deadline = 0 if left_ns is None else clock.now() + left_ns
        weight = tenant or 1
        assert self.batcher.put(into.box, self.number, dims, outputs=outputs, hash=hash, noise=noise, level=level,
                                deadline_ns=deadline, tenant=(tenant, weight) if tenant else None)
        kind: tuple[object, ...] = (length, outputs, hash) if into.batched else ()
        request = Waiting(self.number, dims[0], kind, clock.now(), level, 0, deadline or NEVER_NS,
                          tenant if tenant or into.virtual_ns is not None else -1)
        request.turn_ns = into.start(request, weight, clock.now()) + max(level - 1, 0) * LEVEL_STEP_NS
        into.add(request)
        # A queue that can run keeps its place whatever is put.
        if into.line in (UNLISTED, DELAYED):
            self.settle(into)

    @precondition(lambda self: any(queue.waiting for queue in self.queues))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        queue = data.draw(st.sampled_from([queue for queue in self.queues if queue.waiting]))
        request = data.draw(st.sampled_from(queue.waiting))
        assert self.batcher.remove(request.number)
        queue.waiting.remove(request)
        queue.given_up(request)
        self.settle(queue)

    @precondition(lambda self: any(not each.delayed for queue in self.queues for each in queue.waiting))
    @rule(data=st.data())
    def delay(self, data: st.DataObject) -> None:
        queue, request = data.draw(st.sampled_from(
            [(queue, each) for queue in self.queues for each in queue.waiting if not each.delayed]))
        assert self.batcher.delay(request.number)
        queue.delay(request, clock.now())
        queue.given_up(request)
        self.settle(queue)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def remove_or_delay_what_runs(self, data: st.DataObject) -> None:
        _, numbers, *_ = data.draw(st.sampled_from(self.batches))
        number = data.draw(st.sampled_from(numbers))
        assert not self.batcher.remove(number)
        assert not self.batcher.delay(number)

    @rule()
    def take(self) -> None:
        taken = self.batcher.take()
        expected: list[Waiting] = []
        while not expected:
            self.release_due()
            if not self.lines[FRESH] and not self.lines[BUSY]:
                self.begin_round()
            line = self.lines[FRESH] or self.lines[BUSY]
            if not line:
                assert taken is None
                return
            queue = line[0]
            why = queue.due(clock.now())[1]
            expected, late = queue.batch(clock.now())
            queue.waiting = [each for each in queue.waiting if each not in late]
            for each in late:
                queue.given_up(each)
            self.late += [each.number for each in late]
            if not expected:
                self.settle(queue, to_the_end=True)
        queue.left[why] += 1
        assert taken == (queue.box, [each.number for each in expected], sum(each.rows for each in expected))
        assert len(expected) == 1 or taken[2] <= queue.gather_rows
        queue.waiting = [each for each in queue.waiting if each not in expected]
        for request in expected:
            if queue.virtual_ns is not None and request.tenant >= 0 and not request.delayed:
                begin = request.turn_ns - max(request.level - 1, 0) * LEVEL_STEP_NS
                queue.virtual_ns = max(queue.virtual_ns, begin)
        queue.running += 1
        self.put_forward()
        self.batches.append((queue, taken[1], clock.now(), self.compute_ns, taken[2]))
        queue.credit_ns -= queue.last_ns
        queue.reserved_ns += queue.last_ns
        self.settle(queue, to_the_end=True)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def remove_or_delay_what_is_late(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.late))
        assert not self.batcher.delay(number)
        assert self.batcher.remove(number)
        self.late.remove(number)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        self.put_forward()
        queue, numbers, at_ns, compute_ns, rows = self.batches.pop(data.draw(st.integers(0, len(self.batches) - 1)))
        self.batcher.complete(queue.box, numbers)
        queue.took_ns.append(clock.now() - at_ns)
        reserved_ns = queue.reserved_ns // queue.running
        queue.reserved_ns -= reserved_ns
        queue.last_ns = self.compute_ns - compute_ns
        queue.credit_ns += reserved_ns - queue.last_ns
        queue.charged_ns += queue.last_ns
        queue.took(rows, queue.last_ns)
        queue.running -= 1
        self.settle(queue)

    @rule(delta_ns=st.integers(1, 6) | st.sampled_from([
        QUANTUM_NS // 3, QUANTUM_NS, 7 * QUANTUM_NS, LEVEL_STEP_NS // 2, LEVEL_STEP_NS, 3 * LEVEL_STEP_NS]))
    def advance(self, delta_ns: int) -> None:
        clock.advance(delta_ns)

    @rule(idle=st.integers(1, 4), wait=st.sampled_from([1, 5, 20, None]))
    def kick(self, idle: int, wait: int | None) -> None:
        """One wake-up per batch that can be taken (each queue's counted by rows), or one for the time."""
        until = NEVER_NS if wait is None else clock.now() + wait
        self.batcher.pretend_asleep(idle, until)
        self.batcher.kick()
        ready, closes = 0, NEVER_NS
        if any(queue.waiting for queue in self.queues):
            self.release_due()
            for queue in self.lines[FRESH] + self.lines[BUSY] + ([] if self.held() else self.lines[SPENT]):
                batches = -(-sum(each.rows for each in queue.waiting) // queue.gather_rows)
                ready += min(batches, queue.max_running - queue.running)
            for queue in self.lines[DELAYED]:
                closes = min(closes, queue.closes_ns(clock.now()) or NEVER_NS)
        expected = min(ready, idle) or int(closes < until)
        assert (self.batcher.idle, self.batcher.signals) == (idle - expected, expected)
        self.batcher.kick()
        assert (self.batcher.idle, self.batcher.signals) == (idle - expected, expected)
        self.batcher.pretend_asleep(0)

    @invariant()
    def counts(self) -> None:
        for queue in self.queues:
            assert queue.box.rows == sum(each.rows for each in queue.waiting)
            assert queue.box.requests == len(queue.waiting)
            assert queue.box.shapes == len({each.kind for each in queue.waiting})
            assert queue.box.buckets == len({(each.kind, (each.level, each.tenant) if not each.delayed else None)
                                             for each in queue.waiting})
            for level in range(1, queue.levels + 1):
                assert queue.box.requests_of(level) == sum(each.level == level for each in queue.waiting)
            assert (queue.box.running, queue.box.listed) == (queue.running, queue.line)
            assert queue.box.charged_ns == queue.charged_ns
            assert {why: count for why, count in queue.box.left.items() if count} == queue.left
        assert self.batcher.rows == sum(queue.box.rows for queue in self.queues)
        assert self.batcher.request_count == sum(queue.box.requests for queue in self.queues)

    def teardown(self) -> None:
        """Stopping runs what is left, delays or not."""
        for queue, numbers, *_ in self.batches:
            self.batcher.complete(queue.box, numbers)
        self.batcher.stop()
        left = sum(each.deadline_ns > clock.now() for queue in self.queues for each in queue.waiting)
        while (taken := self.batcher.take()) is not None:
            left -= len(taken[1])
            self.batcher.complete(taken[0], taken[1])
        clock.restore()
        assert left == 0
        assert self.batcher.rows == 0


TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(max_examples=40 if debug.ENABLED else 200, stateful_step_count=60, deadline=None)


# Wake-ups that the model's driver, whose executors never sleep, cannot show.


def test_a_batch_that_somebody_is_being_woken_for_wakes_nobody_else() -> None:
    batcher, queue = BatcherBox(), QueueBox(8, 0, 4)
    batcher.pretend_asleep(3)
    for number in range(5):
        batcher.put(queue, number, (1, 1))
        batcher.kick()
    assert (batcher.idle, batcher.signals) == (2, 1)
    for number in range(5, 12):
        batcher.put(queue, number, (1, 1))
    batcher.kick()
    assert (batcher.idle, batcher.signals) == (1, 2)


def test_what_a_taken_batch_leaves_over_wakes_the_next() -> None:
    batcher, queue = BatcherBox(), QueueBox(2, 0, 4)
    for number in range(6):
        batcher.put(queue, number, (1, 1))
    for asleep in (3, 2):
        batcher.pretend_asleep(asleep)
        assert batcher.take() is not None
        assert (batcher.idle, batcher.signals) == (asleep - 1, 1)
    batcher.pretend_asleep(1)
    assert batcher.take() is not None
    assert (batcher.idle, batcher.signals) == (1, 0)


def test_one_that_was_to_keep_the_time_and_takes_a_batch_wakes_another_to_keep_it(stepped_clock: None) -> None:
    """A sleeper keeps a later time than the delayed queue's: it does not count as keeping it."""
    now = clock.now()
    batcher, fresh, delayed = BatcherBox(), QueueBox(8), QueueBox(8, 50)
    batcher.put(delayed, 1, (1, 1))
    batcher.put(fresh, 2, (1, 1))
    batcher.pretend_asleep(1, now + 100)
    assert batcher.take() == (fresh, [2], 1)
    assert (batcher.idle, batcher.signals) == (0, 1)


@pytest.mark.parametrize(("until", "wakes"), [(49, 0), (50, 0), (51, 1), (NEVER_NS, 1)])
def test_a_kick_wakes_one_for_a_delayed_queue_unless_a_sleeper_wakes_in_time(
        stepped_clock: None, until: int, wakes: int) -> None:
    now = clock.now()
    batcher, delayed = BatcherBox(), QueueBox(8, 50)
    batcher.put(delayed, 1, (1, 1))
    batcher.pretend_asleep(2, until if until == NEVER_NS else now + until)
    batcher.kick()
    assert batcher.signals == wakes


def test_buckets_of_many_shapes_come_and_go() -> None:
    batcher, queue = BatcherBox(), QueueBox(4, 0, 1000)
    for number in range(1_000):
        batcher.put(queue, number, (1, number), hash=number % 3)
    assert queue.buckets == 1_000
    for number in range(0, 1_000, 2):
        assert batcher.remove(number)
    order = []
    while (taken := batcher.take()) is not None:
        order += taken[1]
        batcher.complete(taken[0], taken[1])
    assert order == list(range(1, 1_000, 2))
    assert queue.buckets == 0


def test_a_batch_has_no_more_requests_than_its_taker_has_room_for() -> None:
    batcher, queue = BatcherBox(), QueueBox(100, 0, 10)
    for number in range(7):
        batcher.put(queue, number, (1, 1))
    assert [batcher.take(3) for _ in range(3)] == [(queue, [0, 1, 2], 3), (queue, [3, 4, 5], 3), (queue, [6], 1)]


# Deadlines.


def measured(queue: QueueBox, batcher: BatcherBox, took_ns: int) -> int:
    """After batches that took so long each; how long before a deadline the next has to leave."""
    for _ in range(100):
        batcher.put(queue, 999, (queue.gather_rows, 1))
        assert batcher.take() is not None
        clock.advance(took_ns)
        batcher.complete(queue, [999])
    assert took_ns < queue.run_ns < 1.1 * took_ns + 1_000_000
    return queue.run_ns


def test_a_batch_does_not_wait_past_what_the_earliest_deadline_in_it_leaves(stepped_clock: None) -> None:
    batcher, queue = BatcherBox(), QueueBox(8, 50_000_000)
    needed = measured(queue, batcher, 3_000_000)
    now = clock.now()
    batcher.put(queue, 1, (1, 1))
    batcher.put(queue, 2, (1, 1), deadline_ns=now + needed + 20_000_000)
    batcher.put(queue, 3, (1, 1), deadline_ns=now + needed + 30_000_000)
    clock.advance(20_000_000 - 1)
    assert batcher.take() is None
    clock.advance(1)
    assert batcher.take() == (queue, [1, 2, 3], 3)
    assert queue.left == {"full": 100, "shape": 0, "idle": 0, "delay": 0, "deadline": 1}
    batcher.complete(queue, [1, 2, 3])


def test_one_that_is_gone_hurries_nobody(stepped_clock: None) -> None:
    batcher, queue = BatcherBox(), QueueBox(8, 50_000_000)
    needed = measured(queue, batcher, 3_000_000)
    now = clock.now()
    for number, left_ns in enumerate((10_000_000, 40_000_000, 60_000_000)):
        batcher.put(queue, number, (1, 1), deadline_ns=now + needed + left_ns)
    assert batcher.remove(0)
    clock.advance(40_000_000 - 1)
    assert batcher.take() is None
    assert batcher.remove(1)
    clock.advance(10_000_000)
    assert batcher.take() is None
    clock.advance(1)
    assert batcher.take() == (queue, [2], 1)
    assert queue.left["delay"] == 1
    batcher.complete(queue, [2])


def test_before_a_batch_was_measured_one_with_a_deadline_waits_for_nothing(stepped_clock: None) -> None:
    batcher, queue = BatcherBox(), QueueBox(8, 50)
    batcher.put(queue, 1, (1, 1))
    assert batcher.take() is None
    batcher.put(queue, 2, (1, 1), deadline_ns=clock.now() + 10**9)
    assert batcher.take() == (queue, [1, 2], 2)
    batcher.complete(queue, [1, 2])


# Levels of priority.


def order(batcher: BatcherBox) -> list[int]:
    taken = []
    while (batch := batcher.take()) is not None:
        taken += batch[1]
        batcher.complete(batch[0], batch[1])
    return taken


def test_a_more_urgent_request_runs_first_and_the_least_urgent_waits_for_no_more_than_its_steps(
        stepped_clock: None) -> None:
    """However many urgent ones keep coming."""
    batcher, queue = BatcherBox(), QueueBox(1, levels=3)
    batcher.put(queue, 0, (1, 1), level=3)
    order_of_runs: list[int] = []
    for number in range(1, 30):
        batcher.put(queue, number, (1, 1), level=1)
        # One runs for each that comes: what waits does not get less.
        taken = batcher.take()
        assert taken is not None
        order_of_runs += taken[1]
        batcher.complete(queue, taken[1])
        clock.advance(LEVEL_STEP_NS // 4)
    # It was put two steps behind the first level, in which eight of those came, and is before one of the same turn.
    assert order_of_runs.index(0) == 8
    assert order(batcher) == [29]


def test_levels_of_one_shape_share_a_batch_and_those_of_another_do_not(stepped_clock: None) -> None:
    batcher, queue = BatcherBox(), QueueBox(4, levels=2)
    for number, (length, level) in enumerate([(1, 2), (2, 2), (1, 1), (1, 2), (2, 1), (1, 1)]):
        batcher.put(queue, number, (1, length), level=level)
    assert batcher.take() == (queue, [2, 5, 0, 3], 4)
    assert queue.buckets == 2
    batcher.complete(queue, [2, 5, 0, 3])
    assert batcher.take() == (queue, [4, 1], 2)
    assert (queue.buckets, queue.shapes) == (0, 0)
    batcher.complete(queue, [4, 1])


@given(requests=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), st.booleans()), max_size=30),
       gather_rows=st.sampled_from([1, 3, 100]))
def test_rows_of_one_shape_come_in_turn_whatever_the_batches(
        requests: list[tuple[int, int, bool]], gather_rows: int) -> None:
    """Each is put some half steps after the one before it, and some are delayed then."""
    clock.set_fake(START_NS)
    try:
        batcher, queue = BatcherBox(), QueueBox(gather_rows, levels=5)
        turns: dict[int, tuple[int, int]] = {}
        for number, (level, half_steps, is_delayed) in enumerate(requests):
            clock.advance(half_steps * LEVEL_STEP_NS // 2)
            batcher.put(queue, number, (1, 1), level=level)
            turns[number] = clock.now() + (level - 1) * LEVEL_STEP_NS, number
            if is_delayed:
                assert batcher.delay(number)
                turns[number] = clock.now() + 5 * LEVEL_STEP_NS, number
        assert order(batcher) == sorted(turns, key=lambda number: turns[number])
    finally:
        clock.restore()


def test_one_level_does_not_keep_anothers_batch_from_filling(stepped_clock: None) -> None:
    """A delay is for rows of the shape, whatever their levels, and from the one that waits longest."""
    batcher, queue = BatcherBox(), QueueBox(3, 50, levels=2)
    batcher.put(queue, 0, (1, 1), level=2)
    clock.advance(40)
    batcher.put(queue, 1, (1, 1), level=1)
    assert batcher.take() is None
    clock.advance(10)
    assert batcher.take() == (queue, [1, 0], 2)
    batcher.complete(queue, [1, 0])
    for number in (2, 3, 4):
        batcher.put(queue, number, (1, 1), level=number % 2 + 1)
    assert batcher.take() == (queue, [2, 4, 3], 3)
    batcher.complete(queue, [2, 4, 3])


@pytest.mark.parametrize("levels", [0, 1, 64])
def test_one_that_is_delayed_is_last_of_all_and_first_a_step_later(stepped_clock: None, levels: int) -> None:
    batcher, queue = BatcherBox(), QueueBox(1, levels=levels)
    for number in range(3):
        batcher.put(queue, number, (1, number), level=levels)
    assert batcher.delay(0)
    batcher.put(queue, 3, (1, 9), level=levels)
    assert order(batcher) == [1, 2, 3, 0]
    batcher.put(queue, 4, (1, 1), level=levels)
    assert batcher.delay(4)
    clock.advance(LEVEL_STEP_NS + 1)
    batcher.put(queue, 5, (1, 1), level=levels)
    assert order(batcher) == [4, 5]


# Real threads: every request exactly once, however the wake-ups fall.


@pytest.mark.parametrize(("executors", "queues", "gather_rows", "max_running"), [
    (1, 1, 1, 1), (1, 4, 64, 1), (2, 1, 4, 1), (2, 2, 2, 2), (4, 4, 3, 1), (4, 1, 1, 4), (8, 3, 8, 3)])
@pytest.mark.parametrize("burst", [1, 2, 17])
def test_no_wake_up_is_lost(executors: int, queues: int, gather_rows: int, max_running: int, burst: int) -> None:
    rush = Rush(executors, queues, gather_rows, max_running)
    total = 500 if debug.ENABLED else 10_000
    cancel_every = 5 if burst == 17 else 0
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(rush.execute())) for _ in range(executors)]
    for thread in threads:
        thread.start()
    served = rush.produce(total, burst, cancel_every)
    rush.stop()
    for thread in threads:
        thread.join()
    assert served, f"{rush.executed} of {total} were run when the producer gave up"
    assert sum(taken) == rush.executed == total - rush.removed
    assert rush.violations == 0
    assert (rush.rows, rush.asleep) == (0, 0)


@pytest.mark.parametrize(("executors", "levels"), [(1, 0), (2, 1), (4, 3)])
def test_none_is_lost_that_is_put_behind_others_or_removed_while_executors_take(executors: int, levels: int) -> None:
    rush = Rush(executors, 2, 3, 2, levels=levels)
    round_size = 500 if debug.ENABLED else 10_000
    taken: list[int] = []
    threads = [threading.Thread(target=lambda: taken.append(rush.execute())) for _ in range(executors)]
    for thread in threads:
        thread.start()
    total, served = 0, True
    # Executors may be so fast that a round leaves none to be delayed.
    while served and rush.delayed == 0 and total < 100 * round_size:
        total += round_size
        served = rush.produce(round_size, 17, cancel_every=5, delay_every=2)
    rush.stop()
    for thread in threads:
        thread.join()
    assert served, f"{rush.executed} of {total} were run when the producer gave up"
    assert sum(taken) == rush.executed == total - rush.removed
    assert rush.delayed > 0
    assert (rush.violations, rush.rows, rush.asleep) == (0, 0, 0)


@pytest.mark.parametrize("executors", [1, 3])
def test_a_delayed_batch_needs_no_further_event(executors: int) -> None:
    rush = Rush(executors, 2, 1_000, 1, delay_ns=200_000)
    threads = [threading.Thread(target=rush.execute) for _ in range(executors)]
    for thread in threads:
        thread.start()
    served = rush.produce(400, 3)
    rush.stop()
    for thread in threads:
        thread.join()
    assert served
    assert (rush.executed, rush.violations, rush.rows, rush.asleep) == (400, 0, 0, 0)
