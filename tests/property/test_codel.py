"""CoDel at the door against a plain Python model of its words, and what it does to closed and to open loops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer._core import clock
from infer._core._testing_pace import CodelBox
from tests.property.test_feasibility import US, Cost, Simulation
from tests.support.puppets import MILLISECOND_NS, SECOND_NS

OK, RESOURCE_EXHAUSTED = 0, 8
TARGET, INTERVAL = 5, 100


class Model:
    """An interval is a list of what came and left in it; a queue that stands has one."""

    def __init__(self) -> None:
        self.begin: int | None = None
        self.came: list[int] = []
        self.gone: list[int] = []
        self.fed = 0
        self.shedding = False
        self.refused_at = 0

    def left(self, rows: int, sojourn: int, run: int, now: int) -> None:
        if self.shedding and now > self.refused_at + INTERVAL:
            self.shedding, self.fed = False, 0
        if sojourn < TARGET + run:
            self.begin, self.fed = None, 0
            return
        self.gone.append(rows)
        if self.begin is not None:
            if now < self.begin + INTERVAL:
                return
            surplus = sum(self.came) - sum(self.gone)
            self.fed = self.fed + 1 if surplus > max(sum(self.gone) // 8, 2 * rows) else 0
            if self.fed >= 2 and not self.shedding:
                self.shedding, self.refused_at = True, now
        self.begin, self.came, self.gone = now, [], []


EVENTS = st.lists(st.one_of(
    st.tuples(st.just("came"), st.integers(1, 60)),
    st.tuples(st.just("left"), st.integers(1, 20), st.sampled_from([0, 4, 5, 14, 15, 50, 200]),
              st.sampled_from([0, 10])),
    st.tuples(st.just("refused")),
    st.tuples(st.just("pass"), st.sampled_from([1, 30, 99, 100, 101]))), max_size=120)


@given(events=EVENTS)
def test_it_does_what_its_words_say(events: list[tuple[str, int, int, int]]) -> None:
    codel, model, now = CodelBox(TARGET, INTERVAL), Model(), 1_000
    for kind, *values in events:
        if kind == "came":
            codel.came(values[0])
            model.came.append(values[0])
        elif kind == "left":
            rows, sojourn, run = values
            codel.left(rows, sojourn, run, now)
            model.left(rows, sojourn, run, now)
        elif kind == "refused":
            codel.refused(now)
            model.refused_at = now
        else:
            now += values[0]
        assert codel.shedding == model.shedding
        for expected in (TARGET, TARGET + 20, TARGET + 21):
            assert codel.sheds(expected, 10) == (model.shedding and expected > TARGET + 20)


def test_a_target_of_0_is_never_reached() -> None:
    codel = CodelBox(0, INTERVAL)
    for now in range(1_000, 3_000, 10):
        codel.came(100)
        codel.left(1, 500, 0, now)
    assert not codel.shedding


@pytest.fixture
def stopped() -> Iterator[None]:
    clock.set_fake(10**12)
    yield
    clock.restore()


CODEL = {"codel_target_ns": 5 * MILLISECOND_NS, "codel_interval_ns": 100 * MILLISECOND_NS}


@pytest.mark.parametrize("cost", [Cost(0, 1_000 * US), Cost(15_000 * US, 80 * US)], ids=["linear", "flat"])
@pytest.mark.parametrize("clients", [64, 1_000])
def test_a_closed_loop_is_refused_nothing(stopped: None, cost: Cost, clients: int) -> None:
    simulation = Simulation(cost, 64, **CODEL)
    for _ in range(clients):
        simulation.call(1, 20 * SECOND_NS)
    answered = 0
    while answered < 10 * clients:
        simulation.advance_to(simulation.ends_ns)
        # Who was answered calls again.
        for outcome in simulation.bench.outcomes[answered:]:
            assert outcome.code == OK, outcome
            answered += 1
            if answered < 10 * clients:
                simulation.call(1, 20 * SECOND_NS)
    simulation.finish()


def test_long_deadlines_do_not_make_a_long_queue(stopped: None) -> None:
    cost = Cost(2_000 * US, 200 * US)
    simulation = Simulation(cost, 16, **CODEL)
    begin, row_ns = clock.now(), cost(16) / 16
    sent: dict[int, int] = {}
    took_ms: list[float] = []
    simulation.bench.transport.on_finish = lambda outcome: took_ms.append(
        (clock.now() - sent[outcome.call]) / 1e6) if outcome.code == OK else None
    calls = 12_000
    for index in range(calls):
        simulation.advance_to(begin + round(index * row_ns / 3))
        sent[simulation.bench.calls + 1] = clock.now()
        simulation.call(1, 10 * SECOND_NS)
    span_ns = clock.now() - begin
    simulation.finish()
    refused = simulation.entry.stats_snapshot((), ())["queue_refused"]
    assert {limit: count for limit, count in refused.items() if count} == {"codel": refused["codel"]}
    # What had come before it shed takes its time to be answered; from then on 5 ms and two runs, and its own.
    assert max(took_ms[-len(took_ms) // 4:]) <= 5 + 3 * cost(16) / 1e6
    # The executor is never without work.
    assert len(took_ms) * row_ns >= 0.95 * span_ns


@pytest.mark.parametrize(("cost", "spare"), [(Cost(0, 1_000 * US), 0.3), (Cost(1_000 * US, 500 * US), 0.3),
                                             (Cost(20_000 * US, 0), 0.1)], ids=["linear", "mixed", "flat"])
def test_where_more_comes_than_can_be_run_deadlines_are_met_with_time_to_spare(
        stopped: None, cost: Cost, spare: float) -> None:
    deadline_ms = 50
    simulation = Simulation(cost, 64, **CODEL)
    begin = clock.now()
    row_ns = cost(64) / 64
    sent: dict[int, int] = {}
    took_ms: list[float] = []
    simulation.bench.transport.on_finish = lambda outcome: took_ms.append(
        (clock.now() - sent[outcome.call]) / 1e6) if outcome.code == OK else None
    seconds = 2
    for index in range(round(seconds * 1e9 / row_ns * 3)):
        simulation.advance_to(begin + round(index * row_ns / 3))
        sent[simulation.bench.calls + 1] = clock.now()
        simulation.call(1, deadline_ms * MILLISECOND_NS)
    simulation.finish()
    assert max(took_ms[-len(took_ms) // 2:]) <= (1 - spare) * deadline_ms
    # Within a tenth of what batches of the size that fits would do.
    assert len(took_ms) * row_ns >= 0.9 * seconds * 1e9


def test_requests_without_deadlines_are_not_shed(stopped: None) -> None:
    cost = Cost(2_000 * US, 200 * US)
    simulation = Simulation(cost, 16, **CODEL)
    begin, row_ns = clock.now(), cost(16) / 16
    for index in range(3_000):
        simulation.advance_to(begin + round(index * row_ns / 3))
        simulation.call(1, 0)
    simulation.finish()
    assert {outcome.code for outcome in simulation.bench.outcomes} == {OK}
