"""Every state of a request against every event: one cell after the other, then in any order against a model.

The events are cancel, deadline, completion, connection lost and unload; the states those of request.pxd. The pipeline
is the real one, its executors and its transport are puppets.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infer._core import clock, debug
from infer._core._testing_pipeline import PuppetExecutor, Watch
from infer._core._testing_request import STATES
from infer._core.model_version import VersionEntry
from tests.support.models import identity
from tests.support.puppets import MILLISECOND_NS, Bench, codes_of, fp32_request, make_entry, rows_of
from tests.support.requests import pack

OK, CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 4, 5
AHEAD_NS = 10 * MILLISECOND_NS
NAMES = {number: name for name, number in STATES.items()}

EVENTS = ["cancel", "deadline", "completion", "connection lost", "unload"]
# Per state, for each event in turn: the state after it, how the call ends after all, and whether its row is ever run.
GONE = "gone"
CELLS: dict[str, list[tuple[str, list[int], int]]] = {
    "RECEIVING": [(GONE, [], 0), (GONE, [DEADLINE_EXCEEDED], 0), ("RECEIVING", [OK], 1), (GONE, [], 0),
                  ("RECEIVING", [NOT_FOUND], 0)],
    "QUEUED": [(GONE, [], 0), (GONE, [DEADLINE_EXCEEDED], 0), ("QUEUED", [OK], 1), (GONE, [], 0), ("QUEUED", [OK], 1)],
    "RUNNING": [("ANSWERED", [], 1), ("ANSWERED", [DEADLINE_EXCEEDED], 1), (GONE, [OK], 1), ("ANSWERED", [], 1),
                ("RUNNING", [OK], 1)],
    "ANSWERED": [("ANSWERED", [DEADLINE_EXCEEDED], 1), ("ANSWERED", [DEADLINE_EXCEEDED], 1),
                 (GONE, [DEADLINE_EXCEEDED], 1), ("ANSWERED", [DEADLINE_EXCEEDED], 1),
                 ("ANSWERED", [DEADLINE_EXCEEDED], 1)],
    "DONE": [(GONE, [OK], 1)] * 5,
}


class Cell:
    """A call in a given state, and a neighbour on the same connection whose batch runs."""

    def __init__(self, state: str) -> None:
        self.entry = make_entry(identity(), gather_rows=1, max_running=2)
        self.bench = Bench(self.entry, executors=2)
        self.own, self.other = self.bench.executors
        self.bench.call(fp32_request([[0.0] * 4]))
        self.other.take()
        self.call = self.bench.open(deadline_ns=clock.now() + AHEAD_NS)
        self.watch = self.bench.transport.watch(self.call)
        if state != "RECEIVING":
            self.submit()
        if state in ("RUNNING", "ANSWERED", "DONE"):
            assert self.own.take() == 1
        if state == "ANSWERED":
            self.deadline()
        if state == "DONE":
            self.end(self.own)
        assert self.state == (GONE if state == "DONE" else state)

    @property
    def state(self) -> str:
        if self.bench.pipeline.in_flight == int(self.other.taken > 0):
            return GONE
        return NAMES[self.watch.state]

    @property
    def answers(self) -> list[int]:
        return [outcome.code for outcome in self.bench.outcomes if outcome.call == self.call]

    def submit(self) -> None:
        self.bench.transport.submit(self.call, fp32_request([[1.0, 2.0, 3.0, 4.0]]))

    def end(self, executor: PuppetExecutor) -> None:
        if executor.taken:
            executor.run()
            executor.publish()
        self.bench.pipeline.on_wake()

    def cancel(self) -> None:
        """A transport forgets a call when it is answered, and has nothing to cancel then."""
        if self.call in self.bench.transport.open_calls:
            self.bench.transport.cancel(self.call)

    def deadline(self) -> None:
        self.bench.advance(AHEAD_NS + 2 * MILLISECOND_NS)

    def completion(self) -> None:
        """Of its batch and of its neighbour's."""
        self.end(self.own)
        self.end(self.other)

    def connection_lost(self) -> None:
        for call in self.bench.transport.open_calls:
            self.bench.transport.cancel(call)

    def unload(self) -> None:
        self.bench.unload(self.entry)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", CELLS)
def test_every_state_against_every_event(stepped_clock: None, state: str, event: str) -> None:
    after, ending, rows = CELLS[state][EVENTS.index(event)]
    cell = Cell(state)
    bench = cell.bench
    getattr(cell, event.replace(" ", "_"))()
    assert cell.state == after
    assert cell.answers == (ending if after in (GONE, "ANSWERED") else [])
    assert bench.drained == []
    if cell.state == "RECEIVING":
        cell.submit()
    if cell.state == "QUEUED":
        cell.own.take()
    cell.completion()
    bench.run_all()
    cell.deadline()
    assert cell.answers == ending
    assert rows_of(cell.entry) == rows + 1
    assert cell.entry.handles == 0
    assert bench.drained == ([cell.entry] if event == "unload" else [])
    counted = codes_of(cell.entry)
    assert sum(counted.values()) + sum(bench.pipeline.unrouted_calls()) == 2
    bench.close()


@dataclass
class Call:
    number: int
    connection: int
    watch: Watch
    deadline_ns: int
    state: str = "RECEIVING"
    entry: VersionEntry | None = None
    values: tuple[float, ...] = ()
    answer: int | None = None
    cancelled: bool = False


class StatesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        clock.set_fake(10**12)
        self.bench = Bench(make_entry(identity("FP32", ("batch", 2)), gather_rows=2, max_running=2), executors=2)
        self.calls: list[Call] = []        # not yet gone
        self.ended: list[Call] = []
        self.queues: dict[VersionEntry, list[Call]] = {self.current: []}
        self.taken: list[list[Call]] = [[], []]
        self.ran = [False, False]
        self.published: list[Call] = []
        self.unloaded: list[VersionEntry] = []
        self.versions = 1

    @property
    def current(self) -> VersionEntry:
        return self.bench.entries[0]

    def in_state(self, *states: str) -> list[Call]:
        return [call for call in self.calls if call.state in states]

    def gone(self, call: Call) -> None:
        self.calls.remove(call)
        self.ended.append(call)

    def leave(self, call: Call, *, answer: int | None) -> None:
        """The call has ended for its caller: what runs is answered, everything else gone."""
        call.answer, call.cancelled = answer, answer is None
        if call.state == "RUNNING":
            call.state = "ANSWERED"
            return
        if call.state == "QUEUED":
            assert call.entry is not None
            self.queues[call.entry].remove(call)
        self.gone(call)

    @rule(connection=st.integers(0, 1), ahead_ms=st.sampled_from([0, 0, 1, 3, 8]))
    def open(self, connection: int, ahead_ms: int) -> None:
        deadline_ns = clock.now() + ahead_ms * MILLISECOND_NS if ahead_ms else 0
        number = self.bench.open(deadline_ns=deadline_ns)
        self.calls.append(Call(number, connection, self.bench.transport.watch(number), deadline_ns))

    @precondition(lambda self: self.in_state("RECEIVING"))
    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.in_state("RECEIVING")))
        call.values = (float(call.number), float(-call.number))
        self.bench.transport.submit(call.number, fp32_request([call.values]))
        call.state, call.entry = "QUEUED", self.current
        self.queues[self.current].append(call)

    @precondition(lambda self: self.in_state("RECEIVING", "QUEUED", "RUNNING"))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.in_state("RECEIVING", "QUEUED", "RUNNING")))
        self.bench.transport.cancel(call.number)
        self.leave(call, answer=None)

    @rule(connection=st.integers(0, 1))
    def lose_connection(self, connection: int) -> None:
        for call in self.in_state("RECEIVING", "QUEUED", "RUNNING"):
            if call.connection == connection:
                self.bench.transport.cancel(call.number)
                self.leave(call, answer=None)

    @rule(delta_ms=st.integers(1, 5))
    def advance(self, delta_ms: int) -> None:
        self.bench.advance(delta_ms * MILLISECOND_NS)
        self.bench.pipeline.on_timer()
        for call in self.in_state("RECEIVING", "QUEUED", "RUNNING"):
            if call.deadline_ns and call.deadline_ns <= clock.now():
                self.leave(call, answer=DEADLINE_EXCEEDED)

    @rule(index=st.integers(0, 1))
    def take(self, index: int) -> None:
        if self.taken[index]:
            return
        count = self.bench.executors[index].take()
        took = [call for call in self.in_state("QUEUED") if call.watch.state == STATES["RUNNING"]]
        assert len(took) == count <= 2
        if took:
            assert took[0].entry is not None
            queue = self.queues[took[0].entry]
            oldest, queue[:count] = queue[:count], []
            assert {call.number for call in oldest} == {call.number for call in took}
            for call in took:
                call.state = "RUNNING"
        self.taken[index] = took

    @rule(index=st.integers(0, 1))
    def run_or_publish(self, index: int) -> None:
        if not self.taken[index]:
            return
        if not self.ran[index]:
            self.bench.executors[index].run()
            self.ran[index] = True
            return
        self.bench.executors[index].publish()
        self.published += self.taken[index]
        self.taken[index], self.ran[index] = [], False

    @rule()
    def wake(self) -> None:
        self.bench.pipeline.on_wake()
        for call in self.published:
            if call.state == "RUNNING":
                call.answer = OK
            self.gone(call)
        self.published = []

    @precondition(lambda self: self.versions < 6)
    @rule()
    def replace_version(self) -> None:
        """A new version takes the place of the one that is served."""
        old = self.current
        self.versions += 1
        self.bench.publish(make_entry(identity("FP32", ("batch", 2)), version=str(self.versions), gather_rows=2,
                                      max_running=2))
        self.queues[self.bench.entries[1]] = []
        self.unloaded.append(old)
        self.bench.unload(old)

    @invariant()
    def states_agree(self) -> None:
        for call in self.calls:
            assert NAMES[call.watch.state] == call.state
            assert call.watch.timed == (call.deadline_ns != 0 and call.state != "ANSWERED")
        assert self.bench.pipeline.in_flight == len(self.calls)
        assert self.bench.pipeline.queued_requests == len(self.in_state("QUEUED"))
        for entry in [self.current, *self.unloaded]:
            assert entry.handles == sum(call.entry is entry for call in self.calls)
        held = {id(call.entry) for call in self.calls}
        assert {id(entry) for entry in self.bench.drained} == {
            id(entry) for entry in self.unloaded if id(entry) not in held}
        assert len(self.bench.drained) == len(set(map(id, self.bench.drained)))

    @invariant()
    def answers_agree(self) -> None:
        answers = {outcome.call: outcome.code for outcome in self.bench.outcomes}
        assert len(answers) == len(self.bench.outcomes)
        assert answers == {call.number: call.answer for call in self.calls + self.ended if call.answer is not None}

    def teardown(self) -> None:
        try:
            for call in self.in_state("RECEIVING"):
                self.bench.transport.cancel(call.number)
            for index in (0, 1):
                while self.taken[index]:
                    self.run_or_publish(index)
            self.bench.run_all()
            for call in self.calls + self.ended:
                if call.answer == OK or (call.answer is None and self.bench.answered(call.number)):
                    assert call.entry is not None
                    reply = self.bench.reply(call.number)
                    assert reply.model_version == call.entry.version
                    assert reply.raw_output_contents[0] == pack("FP32", call.values)
            assert len(self.bench.drained) == len(self.unloaded)
            self.bench.close()
        finally:
            clock.restore()


TestStates = StatesMachine.TestCase
TestStates.settings = settings(max_examples=30 if debug.ENABLED else 120, stateful_step_count=60, deadline=None)
