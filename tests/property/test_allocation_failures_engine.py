"""As test_allocation_failures, from the message to the reply: codec, queues, pipeline, batches. A call that is refused
gets RESOURCE_EXHAUSTED, one that is not gets its own answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from infer._core._testing_batcher import BatcherBox, QueueBox
from infer._core._testing_cache import flights
from infer._core._testing_pipeline import DEFERRED_BYTES
from infer._core._testing_tensor import Codec
from infer._core.cache import Cache
from infer._core.model_version import VersionEntry
from tests.support.failing import both_ways, fail_each, in_debug_builds
from tests.support.models import every_identity, identity
from tests.support.puppets import Bench, fp32_request, make_entry
from tests.support.requests import FORMATS, add_raw, add_typed, infer_request, pack

pytestmark = in_debug_builds

OK, RESOURCE_EXHAUSTED = 0, 8


# The codec.

def many_inputs(count: int) -> tuple[Codec, bytes]:
    inputs = [(f"x{i}", "INT32" if i % 2 else "BYTES", (-1,), False) for i in range(count)]
    request = infer_request()
    for name, data_type, _, _ in inputs:
        add_raw(request, name, data_type, [2], pack(data_type, [1, 2] if data_type == "INT32" else [b"a", b"bc"]))
    for i in range(count):
        request.outputs.add(name=f"y{i}")
    return Codec("m", inputs, [(f"y{i}", "FP32", True) for i in range(count)]), request.SerializeToString()


@both_ways
def test_a_request_of_many_inputs(and_on: bool):
    count = 40

    def play() -> Iterator[None]:
        codec, message = many_inputs(count)
        yield
        answer = codec.bind(message)
        yield
        if isinstance(answer, tuple):
            assert answer[0] == RESOURCE_EXHAUSTED
            assert answer[1]
        again = codec.bind(message)
        assert isinstance(again, dict), again
        assert len(again["tensors"]) == count

    assert fail_each(play, and_on) > 6


# Queues.

@both_ways
def test_a_queue_that_is_filled_and_emptied(and_on: bool):
    def play() -> Iterator[None]:
        put: list[int] = []
        yield
        try:
            box, queue = BatcherBox(), QueueBox(gather_rows=4)
        except MemoryError:
            yield
            return
        for number in range(12):
            try:
                if box.put(queue, number, (1, number % 6)):
                    put.append(number)
            except MemoryError:
                # The box had no memory for the request itself.
                continue
        yield
        assert (queue.requests, queue.buckets) == (len(put), len({number % 6 for number in put}))
        taken: list[int] = []
        while (batch := box.take()) is not None:
            _, numbers, rows = batch
            assert rows == len(numbers)
            taken += numbers
            box.complete(queue, numbers)
        assert sorted(taken) == put
        assert (queue.rows, box.rows) == (0, 0)

    assert fail_each(play, and_on) > 18


@both_ways
def test_a_queue_of_tenants(and_on: bool):
    """One for whose lane there is no memory is not put, and harms nothing."""
    def play() -> Iterator[None]:
        box, queue = BatcherBox(), QueueBox(gather_rows=4)
        put: list[int] = []
        yield
        for number in range(8):
            try:
                if box.put(queue, number, (1, 1), tenant=(1 + number % 2, 1)):
                    put.append(number)
            except MemoryError:
                continue
        yield
        taken: list[int] = []
        while (batch := box.take()) is not None:
            taken += batch[1]
            box.complete(queue, batch[1])
        assert sorted(taken) == put

    assert fail_each(play, and_on) >= 3


@both_ways
def test_a_queue_whose_requests_are_delayed(and_on: bool):
    """One for which there is no memory keeps its place."""
    def play() -> Iterator[None]:
        box, queue = BatcherBox(), QueueBox(gather_rows=1, levels=2)
        for number in range(8):
            assert box.put(queue, number, (1, number), level=1 + number % 2)
        # Each leaves a bucket to the next, but for the first, which is not alone in its own.
        assert box.put(queue, 8, (1, 0), level=1)
        yield
        moved = [number for number in range(8) if box.delay(number)]
        yield
        assert (queue.requests, queue.shapes) == (9, 8)
        taken: list[int] = []
        while (batch := box.take()) is not None:
            taken += batch[1]
            box.complete(queue, batch[1])
        stayed = [number for number in (0, 2, 4, 6, 8, 1, 3, 5, 7) if number not in moved]
        assert taken == stayed + moved

    assert fail_each(play, and_on) >= 1


# Calls from their first byte to their reply.

def rows_and_columns() -> tuple[VersionEntry, list[bytes]]:
    shapes = (1, 4), (3, 4), (1, 9), (2, 5000)
    return (make_entry(identity("FP32", ("batch", "length"))),
            [fp32_request([[1.0] * columns] * rows, id="i") for rows, columns in shapes])


def every_type() -> tuple[VersionEntry, list[bytes]]:
    request = infer_request()
    for name in [*FORMATS, "BYTES"]:
        add_raw(request, f"in_{name.lower()}", name, [1, 2], pack(name, [b"ab", b""] if name == "BYTES" else [1, 0]))
    return make_entry(every_identity()), [request.SerializeToString()] * 2


def typed() -> tuple[VersionEntry, list[bytes]]:
    """Contents that are decoded on arrival, and contents that the executor decodes."""
    messages = []
    for columns in (3, DEFERRED_BYTES // 4 + 1, 3):
        request = infer_request()
        add_typed(request, "x", "FP32", [1, columns], [0.5] * columns)
        messages.append(request.SerializeToString())
    return make_entry(identity("FP32", ("batch", "length"))), messages


def strings() -> tuple[VersionEntry, list[bytes]]:
    request = infer_request()
    add_raw(request, "x", "BYTES", [2, 3], pack("BYTES", [b"a", b"", b"bc"] * 2))
    return make_entry(identity("BYTES", ("batch", 3))), [request.SerializeToString()] * 2


@both_ways
@pytest.mark.parametrize("scenario", [rows_and_columns, every_type, typed, strings])
def test_calls(scenario: Callable[[], tuple[VersionEntry, list[bytes]]], and_on: bool):
    entry, messages = scenario()

    def play() -> Iterator[None]:
        bench = Bench(entry)
        yield
        calls = []
        for message in messages:
            call = bench.open()
            try:
                if not bench.answered(call):
                    bench.transport.submit(call, message)
                calls.append(call)
            except MemoryError:
                # The puppet of a transport had no memory for the message itself.
                bench.transport.cancel(call)
        while bench.pipeline.in_flight:
            bench.run_all()
        yield
        for call in calls:
            outcome = bench.outcome(call)
            assert outcome.code in (OK, RESOURCE_EXHAUSTED), outcome
            assert outcome.code == OK or outcome.message
        for message in messages:
            call = bench.call(message)
            bench.run_all()
            assert bench.reply(call).raw_output_contents
        bench.close()

    assert fail_each(play, and_on) > 5


@both_ways
def test_calls_of_which_some_rows_are_known(and_on: bool):
    """Without memory a row runs although it is known, or the call is refused; none gets another's rows."""
    entry = make_entry(identity("FP32", ("batch", "length")))
    asked = [[[float(number)] * columns for number in numbers]
             for columns in (3, 2000) for numbers in ((0, 5, 1), (5, 5), (1, 6, 0), (0, 1))]

    def play() -> Iterator[None]:
        bench = Bench(cache=Cache(1 << 20))
        bench.publish(entry, rows=True)
        for columns in (3, 2000):
            bench.call(fp32_request([[float(number)] * columns for number in range(3)]))
            bench.run_all()
        yield
        calls = []
        for rows in asked:
            call = bench.open()
            try:
                if not bench.answered(call):
                    bench.transport.submit(call, fp32_request(rows))
                calls.append((call, rows))
            except MemoryError:
                bench.transport.cancel(call)
        while bench.pipeline.in_flight:
            bench.run_all()
            bench.loop.fire_due()
        yield
        for call, rows in calls:
            outcome = bench.outcome(call)
            assert outcome.code in (OK, RESOURCE_EXHAUSTED), outcome
            if outcome.code == OK:
                assert bench.reply(call).raw_output_contents[0] == pack("FP32", [each for row in rows for each in row])
            else:
                assert outcome.message
        assert bench.pipeline.cache is not None
        assert flights(bench.pipeline.cache) == 0
        bench.close()

    assert fail_each(play, and_on) > 20
