"""Who is refused for a deadline, and who is set aside, against a plain simulation of the queue.

One executor, whose runs take a fixed time and one for each row, of which the pipeline knows what it has measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core import clock
from infer._core.model_version import VersionEntry
from tests.support.models import identity
from tests.support.puppets import MILLISECOND_NS, Bench, fp32_request, make_entry

OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 4, 8
US = 1_000


@dataclass
class Cost:
    fixed_ns: int
    row_ns: int

    def __call__(self, rows: int) -> int:
        return self.fixed_ns + self.row_ns * rows


class Simulation:
    """A server whose executor takes `cost` for a batch; calls in `waiting` in their order, as (rows, deadline)."""

    def __init__(self, cost: Cost, gather_rows: int, **admission: int) -> None:
        self.cost, self.gather_rows = cost, gather_rows
        self.entry: VersionEntry = make_entry(identity(), gather_rows=gather_rows)
        self.bench = Bench(self.entry, **admission)
        self.executor = self.bench.executors[0]
        self.ends_ns = 0                # of the batch that runs; 0: none does
        self.took_ns = 0
        self.rows: dict[int, int] = {}

    def warm_up(self) -> None:
        for rows in sorted({1, 2, 3, *(1 << power for power in range(2, self.gather_rows.bit_length())),
                            self.gather_rows}):
            for _ in range(2):
                if rows <= self.gather_rows:
                    self.call(rows, 0)
                    self.advance_to(self.ends_ns)

    def call(self, rows: int, left_ns: int) -> int:
        deadline = clock.now() + left_ns if left_ns else 0
        call = self.bench.call(fp32_request([[0.0] * 4] * rows), deadline_ns=deadline)
        self.rows[call] = rows
        self.take()
        return call

    def take(self) -> None:
        if self.ends_ns == 0 and (count := self.executor.take()):
            self.took_ns = self.cost(self.executor.taken_rows)
            self.ends_ns = clock.now() + self.took_ns
            assert count > 0

    def advance_to(self, time_ns: int) -> None:
        while self.ends_ns and self.ends_ns <= time_ns:
            self.step_to(self.ends_ns)
            self.executor.run(self.took_ns)
            self.executor.publish()
            self.ends_ns = 0
            self.bench.pipeline.on_wake()
            self.take()
        self.step_to(time_ns)

    def step_to(self, time_ns: int) -> None:
        # Timers fire when they are due.
        while (due := self.bench.loop.next_ns) is not None and due <= time_ns:
            clock.advance(max(0, due - clock.now()))
            self.bench.loop.fire_due()
        clock.advance(max(0, time_ns - clock.now()))

    def finish(self) -> None:
        while self.ends_ns:
            self.advance_to(self.ends_ns)
        self.step_to(clock.now() + 10**12)
        self.bench.close()

    def waiting(self) -> list[int]:
        """Rows of those that wait."""
        return [self.rows[call] for call in self.rows if self.bench.transport.is_open(call)
                and call not in self.running]

    @property
    def running(self) -> set[int]:
        return set(self.executor.calls)

    def answered_after_ns(self, rows: Sequence[int]) -> int:
        """How long until a plain server that runs what waits in its order, whatever the deadlines, has answered."""
        time_ns = max(0, self.ends_ns - clock.now()) if self.ends_ns else 0
        batch = 0
        for each in rows:
            if batch and batch + each > self.gather_rows:
                time_ns += self.cost(batch)
                batch = 0
            batch += each
        return time_ns + self.cost(batch)


@pytest.fixture
def stopped() -> Iterator[None]:
    clock.set_fake(10**12)
    yield
    clock.restore()


COSTS = st.builds(Cost, st.integers(0, 5_000).map(lambda us: us * US), st.integers(1, 1_000).map(lambda us: us * US))
CALLS = st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 4), st.one_of(st.just(0), st.integers(1, 60_000))),
                 min_size=5, max_size=60)


@given(cost=COSTS, gather_rows=st.integers(1, 64), calls=CALLS, warm=st.booleans())
def test_nobody_is_refused_whom_a_plain_server_could_answer_in_time(
        cost: Cost, gather_rows: int, calls: list[tuple[int, int, int]], warm: bool) -> None:
    clock.set_fake(10**12)
    try:
        simulation = Simulation(cost, gather_rows)
        if warm:
            simulation.warm_up()
        for gap_us, rows, left_us in calls:
            simulation.advance_to(clock.now() + gap_us * US)
            needs_ns = simulation.answered_after_ns([*simulation.waiting(), rows])
            idle = simulation.ends_ns == 0
            call = simulation.call(rows, left_us * US)
            refused = simulation.bench.answered(call) and simulation.bench.outcome(call).code == RESOURCE_EXHAUSTED
            if refused:
                assert not idle
                # By a quarter, and what of measures is lost in whole nanoseconds.
                assert needs_ns + needs_ns // 4 + 200 * US > left_us * US
        simulation.finish()
    finally:
        clock.restore()


@given(cost=COSTS, gather_rows=st.integers(1, 64), calls=CALLS)
def test_whoever_runs_is_answered_in_time_where_runs_take_what_was_measured(
        cost: Cost, gather_rows: int, calls: list[tuple[int, int, int]]) -> None:
    clock.set_fake(10**12)
    try:
        simulation = Simulation(cost, gather_rows)
        simulation.warm_up()
        for gap_us, rows, left_us in calls:
            simulation.advance_to(clock.now() + gap_us * US)
            simulation.call(min(rows, gather_rows), left_us * US)
        simulation.finish()
        alone = sum(1 for _, rows, left_us in calls if left_us and cost(min(rows, gather_rows)) >= left_us * US)
        # One that has no time left to be run is run where nobody else waits, so that a measure comes right.
        assert simulation.entry.stats_snapshot((), ())["expired"]["run"] <= alone
    finally:
        clock.restore()


@pytest.mark.parametrize("cost", [Cost(0, 1_000 * US), Cost(10_000 * US, 100 * US), Cost(15_000 * US, 80 * US)],
                         ids=["linear", "batched", "flat"])
@pytest.mark.parametrize("times", [0.5, 1, 1.5, 5])
def test_overload_leaves_the_goodput_where_it_was(stopped: None, cost: Cost, times: float) -> None:
    simulation = Simulation(cost, 64)
    # The last 500 ms count: until then it learns what runs take.
    begin, measured_ns, span_ns = clock.now(), clock.now() + 300 * MILLISECOND_NS, 800 * MILLISECOND_NS
    row_ns = min(cost(rows) / rows for rows in range(1, 65) if cost(rows) <= 25 * MILLISECOND_NS)
    counted: list[int] = []
    for index in range(round(span_ns / row_ns * times)):
        simulation.advance_to(begin + round(index * row_ns / times))
        call = simulation.call(1, 50 * MILLISECOND_NS)
        if clock.now() >= measured_ns:
            counted.append(call)
    simulation.finish()
    codes = [simulation.bench.outcome(call).code for call in counted]
    assert codes.count(OK) * row_ns / (500 * MILLISECOND_NS) >= 0.92 * min(times, 1)
    assert set(codes) <= ({OK} if times < 1 else {OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED})
    assert simulation.entry.stats_snapshot((), ())["expired"]["run"] <= 3 * 64
