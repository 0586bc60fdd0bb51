"""Runs that take longer than they may: told to end, their batch answered, their executor waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infer._core import clock
from infer._core._testing_pipeline import run_begun
from infer._core.fallback import set_guard
from infer._core.model_version import VersionEntry
from tests.support import models
from tests.support.puppets import MILLISECOND_NS, SECOND_NS, Bench, make_entry
from tests.support.requests import add_raw, infer_request, pack
from tests.unit.core.test_fallback import LIMITS

OK, DEADLINE_EXCEEDED = 0, 4
TIMEOUT_NS = 100 * MILLISECOND_NS
# Half a minute and longer: what does not end by itself while a test waits, and does not keep the suite for ever.
ENDLESS, SECONDS = 3_000_000, 20.0
STOPPED = ("model 'm' version 1 ran for longer than 100 ms (--run-timeout, or run_timeout of the model) on the batch "
           "that held this request, and was stopped; send fewer rows, or let runs take longer")


def request(steps: int, model: str = "m") -> bytes:
    message = infer_request(model)
    add_raw(message, "x", "INT64", [1, 1], pack("INT64", [steps]))
    return bytes(message.SerializeToString())


class Runs:
    """A model whose requests say how long they run, on `executors`; what was told of stopped runs."""

    def __init__(self, executors: int = 1, **fields: Any) -> None:
        self.entry = make_entry(models.slow(ENDLESS), **fields)
        self.bench = Bench(self.entry, executors=executors)
        self.executor = self.bench.executors[0]
        self.told: list[tuple[int, bool]] = []
        self.bench.pipeline.on_stopped_run = self.tell
        self.bench.pipeline.set_run_timeout(self.entry, TIMEOUT_NS)

    def close(self) -> None:
        self.bench.close()
        self.bench.pipeline.on_stopped_run = None
        for outcome in self.bench.outcomes:
            _ = outcome.data        # gives its Blocks back

    def tell(self, entry: VersionEntry, ran_ns: int, stuck: bool) -> None:
        assert entry is self.entry
        self.told.append((ran_ns, stuck))

    def begin(self, *calls: int) -> list[int]:
        begun = [self.bench.call(request(steps)) for steps in calls]
        assert self.executor.take() == len(calls)
        self.executor.begin()
        return begun

    def end(self) -> None:
        self.executor.end()
        self.executor.publish()
        self.bench.pipeline.on_wake()

    def codes(self, *calls: int) -> list[int]:
        return [self.bench.outcome(call).code for call in calls]


@pytest.fixture
def runs(stepped_clock: None) -> Iterator[Runs]:
    made = Runs()
    yield made
    made.close()


def test_the_whole_batch_is_answered_when_its_time_is_over(runs: Runs) -> None:
    first, second = runs.begin(1, 2)
    runs.bench.advance(TIMEOUT_NS - 1)
    assert not runs.bench.answered(first)
    runs.bench.advance(2 * MILLISECOND_NS)
    assert runs.codes(first, second) == [DEADLINE_EXCEEDED] * 2
    assert runs.bench.outcome(first).message == STOPPED
    assert (runs.bench.pipeline.in_flight, runs.bench.pipeline.runs_stopped, runs.bench.pool.stuck) == (2, 1, 1)
    assert [stuck for _, stuck in runs.told] == [False]
    runs.end()
    assert (runs.bench.pipeline.in_flight, runs.bench.pool.stuck) == (0, 0)
    # The next run of the executor is another one.
    later = runs.bench.call(request(3))
    runs.bench.run_all()
    assert runs.codes(later) == [OK]


def test_a_run_in_time_is_left_alone_and_the_next_has_a_time_of_its_own(runs: Runs) -> None:
    (first,) = runs.begin(1)
    runs.bench.advance(TIMEOUT_NS - MILLISECOND_NS)
    runs.end()
    (second,) = runs.begin(1)
    runs.bench.advance(TIMEOUT_NS - MILLISECOND_NS)
    runs.end()
    assert (runs.codes(first, second), runs.told) == ([OK, OK], [])


def test_time_in_the_queue_is_not_time_of_the_run(runs: Runs) -> None:
    call = runs.bench.call(request(1))
    runs.bench.advance(10 * TIMEOUT_NS)
    assert runs.executor.take() == 1
    runs.executor.begin()
    runs.bench.advance(TIMEOUT_NS - MILLISECOND_NS)
    assert not runs.bench.answered(call)
    runs.bench.advance(3 * MILLISECOND_NS)
    assert runs.codes(call) == [DEADLINE_EXCEEDED]
    runs.end()


def test_a_run_that_does_not_react_is_told_once(runs: Runs) -> None:
    runs.begin(1)
    runs.bench.advance(TIMEOUT_NS + MILLISECOND_NS)
    for _ in range(5):
        runs.bench.advance(SECOND_NS)
    assert [stuck for _, stuck in runs.told] == [False, True]
    assert (runs.bench.pool.stuck, runs.bench.pipeline.runs_stopped) == (1, 1)
    runs.end()
    assert runs.bench.pool.stuck == 0


def test_a_version_whose_run_does_not_end_takes_no_other_executor(stepped_clock: None) -> None:
    runs = Runs(executors=2, max_running=2, gather_rows=1)
    other = make_entry(models.slow(ENDLESS), "other", gather_rows=1)
    runs.bench.publish(other)
    runs.begin(1)
    runs.bench.advance(TIMEOUT_NS + MILLISECOND_NS)
    # It may still end.
    assert runs.entry.max_running == 2
    runs.bench.advance(SECOND_NS)
    waiting, served = runs.bench.call(request(1)), runs.bench.call(request(1, "other"))
    assert [runs.bench.executors[1].step() for _ in range(2)] == [1, 0]
    runs.bench.pipeline.on_wake()
    assert (runs.codes(served), runs.bench.answered(waiting)) == ([OK], False)
    runs.end()
    assert runs.entry.max_running == 2
    runs.bench.run_all()
    assert runs.codes(waiting) == [OK]
    runs.close()


def test_other_executors_go_on(stepped_clock: None) -> None:
    runs = Runs(executors=2, max_running=2, gather_rows=1)
    (stuck,) = runs.begin(1)
    runs.bench.advance(TIMEOUT_NS + MILLISECOND_NS)
    other = runs.bench.call(request(1))
    assert runs.bench.executors[1].step() == 1
    runs.bench.pipeline.on_wake()
    assert runs.codes(stuck, other) == [DEADLINE_EXCEEDED, OK]
    runs.end()
    runs.close()


def test_a_caller_who_has_left_is_not_answered(runs: Runs) -> None:
    first, second = runs.begin(1, 1)
    runs.bench.transport.cancel(first)
    runs.bench.advance(TIMEOUT_NS + MILLISECOND_NS)
    assert not runs.bench.answered(first)
    assert runs.codes(second) == [DEADLINE_EXCEEDED]
    runs.end()


def test_a_deadline_of_the_call_s_own_comes_first(runs: Runs) -> None:
    call = runs.bench.call(request(1), deadline_ns=clock.now() + 10 * MILLISECOND_NS)
    runs.executor.take()
    runs.executor.begin()
    runs.bench.advance(20 * MILLISECOND_NS)
    assert runs.bench.outcome(call).message == "the deadline passed while the model ran"
    runs.bench.advance(TIMEOUT_NS)
    assert runs.bench.pipeline.runs_stopped == 1
    runs.end()


def test_a_run_that_ends_just_as_it_is_stopped_changes_nothing(runs: Runs) -> None:
    (call,) = runs.begin(1)
    runs.executor.end()
    runs.bench.advance(TIMEOUT_NS + MILLISECOND_NS)
    assert not runs.bench.answered(call)
    runs.executor.publish()
    runs.bench.pipeline.on_wake()
    assert (runs.codes(call), runs.told) == ([OK], [])


def test_another_timeout_while_it_runs(runs: Runs) -> None:
    (call,) = runs.begin(1)
    runs.bench.pipeline.set_run_timeout(runs.entry, 0)
    runs.bench.advance(10 * TIMEOUT_NS)
    assert not runs.bench.answered(call)
    runs.bench.pipeline.set_run_timeout(runs.entry, 11 * TIMEOUT_NS)
    runs.bench.advance(TIMEOUT_NS + 2 * MILLISECOND_NS)
    assert runs.codes(call) == [DEADLINE_EXCEEDED]
    runs.end()


def test_stopped_runs_are_errors_of_the_version_counted_once(runs: Runs) -> None:
    set_guard(runs.entry, LIMITS | {"min_calls": 3})
    runs.begin(1, 1)
    runs.bench.advance(TIMEOUT_NS + MILLISECOND_NS)
    runs.end()
    assert runs.entry.guard.state == "closed"
    runs.begin(1)
    runs.bench.advance(TIMEOUT_NS + MILLISECOND_NS)
    assert runs.entry.guard.state == "open"
    runs.end()
    assert runs.entry.guard.why == "3 of its last 3 calls failed"


@pytest.fixture
def threads(runs: Runs) -> Iterator[Runs]:
    """With the pool's own thread in the place of the puppet."""
    runs.bench.pool.start()
    yield runs
    runs.bench.pool.interrupt()
    runs.bench.pool.stop()


def until(runs: Runs, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        runs.bench.pipeline.on_wake()


def begin(runs: Runs) -> int:
    call = runs.bench.call(request(ENDLESS))
    runs.bench.transport.kick()
    until(runs, lambda: run_begun(runs.bench.pool, 0))
    return call


def test_the_runtime_ends_a_run_that_would_not_end(threads: Runs) -> None:
    call = begin(threads)
    threads.bench.advance(TIMEOUT_NS + MILLISECOND_NS)
    assert threads.codes(call) == [DEADLINE_EXCEEDED]
    until(threads, lambda: threads.bench.pipeline.in_flight == 0)
    later = threads.bench.call(request(1))
    threads.bench.transport.kick()
    until(threads, lambda: threads.bench.answered(later))
    assert threads.codes(later) == [OK]


def test_runs_are_interrupted_at_the_end_of_the_server(threads: Runs) -> None:
    threads.bench.pipeline.set_run_timeout(threads.entry, 0)
    call = begin(threads)
    threads.bench.pool.interrupt()
    until(threads, lambda: threads.bench.answered(call))
    assert threads.bench.outcome(call).message == "model 'm' version 1 was stopped while it ran; retry later"
