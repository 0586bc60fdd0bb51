"""Calls whose messages come whole: into the pipeline, back through futures, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infer._core import clock
from infer._core.unary_sink import Refusal, UnaryCall, UnarySink
from tests.support.models import identity
from tests.support.protos import message_class
from tests.support.puppets import (
    MILLISECOND_NS,
    Bench,
    PuppetLoop,
    PuppetTimer,
    codes_of,
    fp32_request,
    make_entry,
)

OK, CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, UNAVAILABLE = 0, 1, 4, 5, 8, 14
GATHER_NS = MILLISECOND_NS
WINDOW_NS = 16 * MILLISECOND_NS


class SinkLoop(PuppetLoop):
    """Also what a UnarySink asks of its loop; `turn` runs what was called soon."""

    def __init__(self) -> None:
        super().__init__()
        self.soon: list[Callable[[], object]] = []
        self.real = asyncio.new_event_loop()

    def create_future(self) -> asyncio.Future[Any]:
        return self.real.create_future()

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def turn(self) -> int:
        due, self.soon = self.soon, []
        for callback in due:
            callback()
        return len(due)

    @property
    def waiting(self) -> list[PuppetTimer]:
        return [timer for timer in self.timers if not timer.cancelled]


class Driver:
    """A sink before a Bench: `bench` runs batches, `loop` fires timers."""

    def __init__(self, model: bytes | None = None, limit_bytes: int = 0, **options: Any) -> None:
        self.entry = make_entry(model or identity(), **options)
        self.bench = Bench(self.entry)
        self.loop = SinkLoop()
        self.sink = UnarySink(self.loop, self.bench.pipeline, limit_bytes)  # type: ignore[arg-type]

    def call(self, *values: float, remaining: float | None = None) -> UnaryCall:
        return self.sink.call(fp32_request([values or [1, 2, 3, 4]]), remaining)

    def close(self) -> None:
        self.loop.fire_due()
        self.loop.turn()
        self.bench.run_all()
        assert (self.sink.in_flight, self.sink.buffered_bytes) == (0, 0)
        self.bench.close()
        self.loop.real.close()


@pytest.fixture
def driver(stepped_clock: None) -> Iterator[Driver]:
    made = Driver()
    yield made
    made.close()


def reply_of(call: UnaryCall) -> Any:
    content = call.future.result()
    assert isinstance(content, bytes), content
    return message_class("ModelInferResponse").FromString(content)


def refusal_of(call: UnaryCall) -> Refusal:
    refused = call.future.result()
    assert isinstance(refused, Refusal)
    return refused


def test_a_reply_comes_back_without_its_prefix(driver: Driver) -> None:
    call = driver.call(1, 2, 3, 4)
    assert driver.sink.in_flight == 1
    assert driver.loop.turn() == 1
    driver.bench.run_all()
    assert reply_of(call).raw_output_contents[0] == fp32_request([[1, 2, 3, 4]])[-16:]
    assert codes_of(driver.entry) == {OK: 1}


def test_a_reply_of_several_parts_is_joined(stepped_clock: None) -> None:
    driver = Driver(identity("FP32", ("batch", 5000)))
    values = [float(number) for number in range(5000)]
    call = driver.call(*values)
    driver.loop.turn()
    driver.bench.run_all()
    assert reply_of(call).raw_output_contents[0] == fp32_request([values])[-20000:]
    driver.close()


def test_a_refusal_has_code_text_and_pushback(stepped_clock: None) -> None:
    driver = Driver(queue_limit_rows=1)
    unknown = driver.sink.call(fp32_request([[1, 2, 3, 4]], model="nope"))
    assert (refusal_of(unknown).code, refusal_of(unknown).pushback_ms) == (NOT_FOUND, -1)
    assert "nope" in refusal_of(unknown).message
    first, second = driver.call(), driver.call()
    assert refusal_of(second).code == RESOURCE_EXHAUSTED
    assert refusal_of(second).pushback_ms >= 1
    assert not first.future.done()
    driver.loop.turn()
    driver.close()
    assert reply_of(first)


def test_a_cancelled_call_is_forgotten_and_counted(driver: Driver) -> None:
    call = driver.call()
    call.cancel()
    call.cancel()
    assert (driver.sink.in_flight, driver.bench.pipeline.queued_requests) == (0, 0)
    assert codes_of(driver.entry) == {CANCELLED: 1}


def test_a_call_that_is_cancelled_while_it_runs_takes_no_reply(driver: Driver) -> None:
    call = driver.call()
    driver.loop.turn()
    executor = driver.bench.executors[0]
    executor.take()
    call.cancel()
    call.future.cancel()
    executor.run()
    executor.publish()
    driver.bench.pipeline.on_wake()
    assert call.future.cancelled()
    assert codes_of(driver.entry) == {CANCELLED: 1}


def test_a_deadline_ends_a_call_that_waits(driver: Driver) -> None:
    call = driver.call(remaining=0.05)
    driver.bench.advance(51 * MILLISECOND_NS)
    assert refusal_of(call).code == DEADLINE_EXCEEDED
    assert "not run" in refusal_of(call).message
    late = driver.call(remaining=0.0)
    driver.bench.advance(MILLISECOND_NS)
    assert refusal_of(late).code == DEADLINE_EXCEEDED


def test_a_transport_that_cancels_at_the_deadline_is_counted_as_the_deadline(driver: Driver) -> None:
    call = driver.call(remaining=0.05)
    clock.advance(50 * MILLISECOND_NS)
    call.cancel()
    assert codes_of(driver.entry) == {DEADLINE_EXCEEDED: 1}


@pytest.mark.parametrize("remaining", [1e300, 3e8])
def test_a_deadline_beyond_all_clocks_is_none(driver: Driver, remaining: float) -> None:
    call = driver.call(remaining=remaining)
    driver.loop.turn()
    driver.bench.run_all()
    assert reply_of(call)


def test_every_call_is_ended_at_once(driver: Driver) -> None:
    calls = [driver.call() for _ in range(3)]
    driver.sink.end_calls(UNAVAILABLE, "stopping")
    assert [(refusal_of(call).code, refusal_of(call).message) for call in calls] == [(UNAVAILABLE, "stopping")] * 3
    assert codes_of(driver.entry) == {UNAVAILABLE: 3}


def test_messages_under_way_are_bounded(stepped_clock: None) -> None:
    size = len(fp32_request([[1, 2, 3, 4]]))
    driver = Driver(limit_bytes=2 * size)
    calls = [driver.call() for _ in range(3)]
    assert driver.sink.buffered_bytes == 2 * size
    assert refusal_of(calls[2]).code == RESOURCE_EXHAUSTED
    assert driver.sink.refused_buffered == 1
    driver.loop.fire_due()
    driver.loop.turn()
    driver.bench.run_all()
    driver.close()
    # One message is taken however large it is: the limit of its size is another's.
    alone = Driver(limit_bytes=1)
    assert not alone.call().future.done()
    alone.close()


# Who waits for whom.


def answered(driver: Driver, *calls: UnaryCall) -> None:
    driver.bench.run_all()
    assert all(reply_of(call) for call in calls)


def test_calls_without_company_do_not_wait(driver: Driver) -> None:
    for _ in range(3):
        call = driver.call()
        assert (driver.loop.turn(), driver.loop.waiting) == (1, [])
        answered(driver, call)
        clock.advance(MILLISECOND_NS)


def overlap(driver: Driver, count: int) -> list[UnaryCall]:
    """Leaves the sink with `count` calls as its company."""
    calls = [driver.call() for _ in range(count)]
    driver.loop.turn()
    answered(driver, *calls)
    return calls


def test_calls_with_company_wait_for_as_many(driver: Driver) -> None:
    overlap(driver, 3)
    calls = [driver.call()]
    assert (driver.loop.turn(), len(driver.loop.waiting)) == (0, 1)
    calls += [driver.call(), driver.call()]
    assert driver.loop.turn() == 1
    assert driver.loop.waiting == []
    answered(driver, *calls)


def test_a_call_waits_no_longer_than_a_timers_least(driver: Driver) -> None:
    overlap(driver, 3)
    call = driver.call()
    clock.advance(GATHER_NS - 1)
    assert driver.loop.fire_due() == 0
    clock.advance(1)
    assert driver.loop.fire_due() == 1
    answered(driver, call)


def test_company_is_forgotten(driver: Driver) -> None:
    overlap(driver, 3)
    clock.advance(3 * WINDOW_NS)
    call = driver.call()
    assert driver.loop.turn() == 1
    answered(driver, call)


def test_calls_of_a_model_that_takes_longer_do_not_wait(driver: Driver) -> None:
    calls = [driver.call() for _ in range(3)]
    driver.loop.turn()
    clock.advance(GATHER_NS + 1)
    answered(driver, *calls)
    call = driver.call()
    assert (driver.loop.turn(), driver.loop.waiting) == (1, [])
    answered(driver, call)
