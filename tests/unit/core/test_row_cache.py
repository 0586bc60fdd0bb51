"""The cache row by row: which rows of a request run, what a reply is put together of, and what becomes of one that has
lost rows: it queues, is charged, waits, fails and ends as those that are left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infer._core import _testing_memory as memory
from infer._core import clock
from infer._core._testing_cache import LEAST_BYTES, flights, force_collisions
from infer._core._testing_request import STATES
from infer._core.cache import Cache
from infer._core.model_version import VersionEntry
from infer._core.second_level import SecondLevel
from tests.support.models import (
    add_sub,
    cut_to_largest,
    empty_columns,
    every_identity,
    fragile,
    gather,
    identity,
    scale,
)
from tests.support.puppets import (
    MILLISECOND_NS,
    SECOND_NS,
    Bench,
    arena_bytes,
    codes_of,
    fp32_request,
    int64_request,
    make_entry,
    rows_of,
)
from tests.support.requests import FORMATS, add_raw, add_typed, infer_request, pack
from tests.unit.core.test_cache import answer, cache_of, cached, raw_request, with_parameters
from tests.unit.core.test_quotas import of_tenant, rows

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL = 0, 1, 3, 4, 8, 13
MIB = 1 << 20
AHEAD_NS = 10 * MILLISECOND_NS


def new_bench(*entries: VersionEntry, limit_bytes: int = MIB, executors: int = 1, ttl_ns: int = 0,
              **of_bench: Any) -> Bench:
    bench = Bench(cache=Cache(limit_bytes), executors=executors, **of_bench)
    for entry in entries:
        bench.publish(entry, ttl_ns=ttl_ns, rows=True)
    return bench


def message(*numbers: float, **fields: Any) -> bytes:
    """A row of four for each."""
    return fp32_request([[number, number + 0.25, number + 0.5, -number] for number in numbers], **fields)


def scaled(*numbers: float) -> bytes:
    return pack("FP32", [2 * each for number in numbers for each in (number, number + 0.25, number + 0.5, -number)])


def output_of(bench: Bench, call: int) -> bytes:
    return bytes(bench.reply(call).raw_output_contents[0])


def known(entry: VersionEntry) -> tuple[int, int]:
    return cached(entry)["known_rows"], cached(entry)["new_rows"]


# What runs.


def test_of_32_rows_with_30_known_2_run() -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    answer(bench, message(*range(30)))
    order = [*range(5), 100, *range(5, 20), 101, *range(20, 30)]
    reply = answer(bench, message(*order, id="i"))
    assert (rows_of(entry), reply.id, list(reply.outputs[0].shape)) == (32, "i", [32, 4])
    assert reply.raw_output_contents[0] == scaled(*order)
    stats = entry.stats_snapshot((), ())
    assert (stats["batches"], stats["batch_rows"][1], known(entry)) == (2, 32, (30, 32))
    assert (cached(entry)["hits"], cached(entry)["misses"], cached(entry)["entries"]) == (0, 2, 32)
    # Now all are, in any order and number.
    for numbers in (order[::-1], [101, 100], [100], [7] * 9):
        assert answer(bench, message(*numbers)).raw_output_contents[0] == scaled(*numbers)
    assert (rows_of(entry), cached(entry)["hits"]) == (32, 4)
    bench.close()


def test_equal_rows_of_one_request_run_once() -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    reply = answer(bench, message(1, 2, 1, 1, 2, 3))
    assert (rows_of(entry), known(entry)) == (3, (3, 3))
    assert reply.raw_output_contents[0] == scaled(1, 2, 1, 1, 2, 3)
    bench.close()


def test_a_row_of_many_and_a_row_alone_are_the_same() -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    answer(bench, message(1, 2))
    assert answer(bench, message(2)).raw_output_contents[0] == scaled(2)
    answer(bench, message(3))
    assert answer(bench, message(3, 1)).raw_output_contents[0] == scaled(3, 1)
    assert (rows_of(entry), cached(entry)["entries"]) == (3, 3)
    bench.close()


def test_a_version_that_is_not_asked_to_keeps_whole_requests() -> None:
    entry = make_entry(scale())
    bench = Bench(cache=Cache(MIB))
    bench.publish(entry)
    answer(bench, message(1, 2))
    answer(bench, message(2, 1))
    assert (rows_of(entry), cached(entry)["entries"], known(entry)) == (4, 2, (0, 0))
    bench.close()


def test_more_rows_than_are_looked_up_one_by_one_are_looked_up_as_one_request() -> None:
    entry = make_entry(identity("FP32", ("batch", 1)), max_rows=2048)
    bench = new_bench(entry, limit_bytes=4 * MIB)
    for count in (1025, 1025, 1024):
        answer(bench, fp32_request([[float(number)] for number in range(count)]))
    assert (rows_of(entry), known(entry)) == (1024 + 1025, (0, 1024))
    assert (cached(entry)["hits"], cached(entry)["entries"]) == (1, 1025)
    bench.close()


@pytest.mark.parametrize("columns", [1, 1024, 1025, 20_000])
@pytest.mark.parametrize("numbers", [(1, 2), (1, 2, 3), (3, 1, 3, 2), (4, 5, 4)])
def test_rows_of_any_size(columns: int, numbers: tuple[int, ...]) -> None:
    bench = new_bench(make_entry(identity("FP32", ("batch", "length"))), limit_bytes=16 * MIB)
    values = [[float(number)] * columns for number in numbers]
    answer(bench, fp32_request(values[:2]))
    reply = answer(bench, fp32_request(values))
    assert list(reply.outputs[0].shape) == [len(numbers), columns]
    assert reply.raw_output_contents[0] == pack("FP32", [each for row in values for each in row])
    bench.close()


def test_rows_of_every_type_and_many_inputs() -> None:
    entry = make_entry(every_identity())
    bench = new_bench(entry)

    def asking(numbers: list[int]) -> bytes:
        request = infer_request()
        for name in FORMATS:
            add_raw(request, f"in_{name.lower()}", name, [len(numbers), 2],
                    pack(name, [each % 2 for number in numbers for each in (number, number // 2)]))
        add_raw(request, "in_bytes", "BYTES", [len(numbers), 1], pack("BYTES", [b"a"] * len(numbers)))
        return bytes(request.SerializeToString())

    # BYTES are told apart where the version is attached; that they are of one size here is no rule for others.
    answer(bench, asking([0, 1]))
    reply = answer(bench, asking([1, 2, 0]))
    assert rows_of(entry) == 3
    assert [each.shape[0] for each in reply.outputs] == [3] * len(entry.outputs)
    plain = Bench(make_entry(every_identity()))
    assert answer(plain, asking([1, 2, 0])) == reply
    plain.close()
    bench.close()


def test_typed_contents_and_inputs_without_elements() -> None:
    typed = infer_request()
    add_typed(typed, "x", "FP32", [2, 4], [1, 1.25, 1.5, -1, 2, 2.25, 2.5, -2])
    entry = make_entry(scale())
    bench = new_bench(entry)
    answer(bench, message(2))
    assert answer(bench, typed.SerializeToString()).raw_output_contents[0] == scaled(1, 2)
    assert rows_of(entry) == 2
    bench.close()
    entry = make_entry(empty_columns())
    bench = new_bench(entry)
    for numbers in ([1, 2], [2, 3]):
        request = infer_request()
        add_raw(request, "x", "FP32", [2, 0], b"")
        add_raw(request, "z", "FP32", [2, 3], pack("FP32", [each for number in numbers for each in [number] * 3]))
        reply = answer(bench, request.SerializeToString())
        assert reply.raw_output_contents[0] == pack("FP32", [each for number in numbers for each in [number] * 3])
    assert rows_of(entry) == 3
    bench.close()


# No false hits.


@pytest.mark.parametrize("collide", [False, True])
def test_the_same_bytes_as_rows_of_other_tensors_are_no_hit(collide: bool) -> None:
    entries = [make_entry(identity("FP32", ("batch", "a", "b")), "m"),
               make_entry(identity("INT32", ("batch", "a", "b")), "ints")]
    bench = new_bench(*entries)
    if collide:
        force_collisions(cache_of(bench))
    raw = pack("FP32", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    for _ in range(2):
        for datatype, shape, model in (("FP32", [2, 2, 2], "m"), ("FP32", [2, 4, 1], "m"), ("FP32", [2, 1, 4], "m"),
                                       ("FP32", [4, 2, 1], "m"), ("INT32", [2, 2, 2], "ints")):
            reply = answer(bench, raw_request(datatype, shape, raw, model))
            assert (reply.model_name, reply.outputs[0].datatype, list(reply.outputs[0].shape)) == (
                model, datatype, shape)
            assert reply.raw_output_contents[0] == raw
    assert sum(cached(entry)["hits"] for entry in entries) == (0 if collide else 5)
    assert sum(rows_of(entry) for entry in entries) == (24 if collide else 12)
    bench.close()


@pytest.mark.parametrize("collide", [False, True])
def test_rows_of_other_outputs_models_tenants_and_generations_are_no_hit(collide: bool) -> None:
    entries = [make_entry(add_sub(), "m"), make_entry(add_sub(), "n")]
    bench = new_bench(*entries)
    if collide:
        force_collisions(cache_of(bench))
    names = [each.name for each in entries[0].outputs]

    def asking(model: str, outputs: tuple[str, ...], numbers: tuple[int, ...] = (1, 2)) -> bytes:
        request = infer_request(model)
        for each in entries[0].inputs:
            add_raw(request, each.name, each.datatype, [len(numbers), 4],
                    pack(each.datatype, [number for number in numbers for _ in range(4)]))
        for name in outputs:
            request.outputs.add(name=name)
        return bytes(request.SerializeToString())

    wanted: list[tuple[str, tuple[str, ...], bytes | None]] = [
        ("m", (), None), ("m", (names[0],), None), ("m", (names[1],), None), ("n", (), None), ("m", (), b"a"),
        ("m", (), b"b")]
    for model, outputs, tenant in wanted:
        reply = answer(bench, asking(model, outputs), tenant=tenant)
        assert reply.model_name == model
        assert [each.name for each in reply.outputs] == list(outputs or names)
    assert sum(rows_of(entry) for entry in entries) == 2 * len(wanted)
    assert sum(cached(entry)["known_rows"] for entry in entries) == 0
    # The same version again is another generation.
    again = make_entry(add_sub(), "m")
    bench.unload(entries[0])
    bench.publish(again, rows=True)
    answer(bench, asking("m", ()))
    assert (rows_of(again), known(again)) == (2, (0, 2))
    bench.close()


def test_rows_that_differ_in_one_input_alone_are_others() -> None:
    entry = make_entry(add_sub())
    bench = new_bench(entry)

    def asking(*pairs: tuple[int, int]) -> bytes:
        request = infer_request()
        add_raw(request, "x", "INT64", [len(pairs), 4], pack("INT64", [pair[0] for pair in pairs for _ in range(4)]))
        add_raw(request, "z", "INT32", [len(pairs), 4], pack("INT32", [pair[1] for pair in pairs for _ in range(4)]))
        return bytes(request.SerializeToString())

    answer(bench, asking((1, 2), (3, 4)))
    reply = answer(bench, asking((1, 4), (3, 2), (3, 4), (1, 2)))
    assert rows_of(entry) == 4
    assert reply.raw_output_contents[0] == pack("INT64", [total for total in (5, 5, 7, 3) for _ in range(4)])
    bench.close()


# Requests that say so themselves, time, purges and reloads.


def test_what_a_request_says_of_the_cache(stepped_clock: None) -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    answer(bench, with_parameters(message(1, 2), infer_cache="no-store"))
    assert (rows_of(entry), cached(entry)["entries"], cached(entry)["passed"]) == (2, 0, 1)
    answer(bench, message(1, 2))
    answer(bench, with_parameters(message(1, 2), infer_cache="no-store"))
    assert (rows_of(entry), cached(entry)["passed"]) == (6, 2)
    clock.advance(50 * MILLISECOND_NS)
    answer(bench, with_parameters(message(1, 3, 3), infer_cache="no-cache"))
    assert (rows_of(entry), cached(entry)["entries"]) == (8, 3)
    # Rows 1 and 3 are new again, 2 is as old as it was.
    clock.advance(10 * MILLISECOND_NS)
    answer(bench, with_parameters(message(1, 2, 3), infer_cache_max_age_ms=59))
    assert (rows_of(entry), known(entry)) == (9, (3, 5))
    bench.call(with_parameters(message(1, 2), sequence_id=3))
    bench.run_all()
    assert (rows_of(entry), cached(entry)["passed"]) == (11, 3)
    bench.close()


def test_rows_end_with_their_time_a_purge_and_their_version(stepped_clock: None) -> None:
    entry, other = make_entry(scale(), version="1"), make_entry(scale(3.0), version="2")
    bench = new_bench(entry, ttl_ns=10 * SECOND_NS)
    answer(bench, message(1, 2))
    clock.advance(8 * SECOND_NS)
    answer(bench, message(2, 3))
    assert rows_of(entry) == 3
    clock.advance(2 * SECOND_NS)
    answer(bench, message(1, 2, 3))
    assert (rows_of(entry), cached(entry)["expiries"]) == (5, 2)
    # What is purged while it runs is not kept.
    call = bench.call(message(1, 4))
    assert cache_of(bench).purge("m")[0] == 3
    bench.run_all()
    assert output_of(bench, call) == scaled(1, 4)
    assert (rows_of(entry), cache_of(bench).entries) == (6, 0)
    answer(bench, message(1, 4))
    assert (rows_of(entry), cache_of(bench).entries) == (8, 2)
    bench.publish(other, rows=True)
    reply = answer(bench, message(1, 4))
    assert (reply.model_version, rows_of(other)) == ("2", 2)
    bench.unload(entry)
    assert cache_of(bench).entries == 2
    bench.close()


def test_a_version_unloads_after_its_last_rows(stepped_clock: None) -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    answer(bench, message(1))
    call = bench.call(message(2, 1))
    bench.unload(entry)
    assert (bench.drained, entry.handles) == ([], 1)
    bench.run_all()
    assert bench.drained == [entry]
    # Its reply outlives what was kept.
    assert cache_of(bench).entries == 0
    assert output_of(bench, call) == scaled(2, 1)
    bench.close()


# What is kept goes while a reply waits for the rest of it.


@pytest.mark.parametrize("columns", [4, 5000])
def test_rows_that_are_evicted_meanwhile_are_in_the_reply_all_the_same(columns: int) -> None:
    entry = make_entry(identity("FP32", ("batch", "length")))
    limit = 4 * (LEAST_BYTES if columns == 4 else 1 << 17)
    bench = new_bench(entry, limit_bytes=limit)
    values = [[float(number)] * columns for number in range(10)]
    answer(bench, fp32_request(values[:2]))
    call = bench.call(fp32_request([values[1], values[9], values[0]]))
    bench.executors[0].take()
    cache_of(bench).purge()
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.pipeline.on_wake()
    for number in (3, 4, 5, 6, 7):
        answer(bench, fp32_request([values[number]]))
    assert cache_of(bench).bytes <= limit
    assert output_of(bench, call) == pack("FP32", values[1] + values[9] + values[0])
    bench.close()


# Bounds, tokens and rows that are counted are those that run.


def test_a_queue_has_to_have_room_for_the_rows_that_are_left() -> None:
    entry = make_entry(scale(), queue_limit_rows=8)
    bench = new_bench(entry)
    answer(bench, message(*range(8)))
    calls = [bench.call(message(*range(8), first, first + 1)) for first in (20, 30, 40)]
    assert bench.pipeline.queued_rows == 6
    refused = bench.outcome(bench.call(message(*range(8), 50, 51, 52)))
    assert refused.code == RESOURCE_EXHAUSTED
    assert "is full" in refused.message
    bench.run_all()
    assert [output_of(bench, call) for call in calls] == [
        scaled(*range(8), first, first + 1) for first in (20, 30, 40)]
    bench.close()


def test_tokens_are_for_the_rows_that_run(stepped_clock: None) -> None:
    entry = make_entry(scale())
    bench = new_bench(entry, quotas=of_tenant(**rows("1/1000", 6)))
    answer(bench, message(1, 2, 3), tenant=b"a")
    answer(bench, message(1, 2, 3, 4, 5), tenant=b"a")
    answer(bench, message(1, 2, 3, 4, 5), tenant=b"a")
    assert "rows_per_second" in bench.outcome(bench.call(message(1, 7, 8), tenant=b"a")).message
    answer(bench, message(1, 7), tenant=b"a")
    assert rows_of(entry) == 6
    bench.close()


def test_new_rows_alone_are_looked_up_by_samples_until_known_ones_come() -> None:
    entry = make_entry(scale())
    bench = new_bench(entry, limit_bytes=4 * MIB)
    numbers = iter(range(1 << 20))
    while not cached(entry)["bypassing"]:
        answer(bench, message(*(next(numbers) for _ in range(32))))
    assert known(entry) == (0, 1024)
    for _ in range(20):
        answer(bench, message(*(next(numbers) for _ in range(32))))
    # 1 row of 64, roughly.
    assert 1 <= known(entry)[1] - 1024 <= 40
    assert cached(entry)["entries"] == known(entry)[1]
    # Samples are others after so many rows.
    for turn in range(4000):
        order = [(32 * turn + number) % 200 for number in range(32)]
        assert answer(bench, message(*order)).raw_output_contents[0] == scaled(*order)
        if not cached(entry)["bypassing"]:
            break
    assert cached(entry)["bypassing"] == 0
    bench.close()


# Single flight.


def test_those_with_the_same_rows_left_are_one_run() -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    answer(bench, message(1, 2))
    asked = [(1, 5, 6), (5, 6), (5, 2, 6, 5), (1, 5, 6)]
    calls = [bench.call(message(*numbers)) for numbers in asked]
    assert (bench.pipeline.queued_requests, cached(entry)["waiting"]) == (1, 3)
    assert bench.run_all() == 1
    assert [output_of(bench, call) for call in calls] == [scaled(*numbers) for numbers in asked]
    assert (rows_of(entry), cached(entry)["joined"], flights(cache_of(bench))) == (4, 3, 0)
    bench.close()


def test_a_request_of_one_row_and_one_that_has_one_left_are_apart() -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    force_collisions(cache_of(bench))
    answer(bench, message(1))
    calls = [bench.call(message(1, 5)), bench.call(message(5))]
    bench.run_all()
    assert [output_of(bench, call) for call in calls] == [scaled(1, 5), scaled(5)]
    assert rows_of(entry) == 3
    bench.close()


def cancelled(bench: Bench, call: int) -> None:
    bench.transport.cancel(call)


def expired(bench: Bench, call: int) -> None:
    bench.advance(AHEAD_NS + MILLISECOND_NS)
    assert bench.outcome(call).code == DEADLINE_EXCEEDED


@pytest.mark.parametrize("ends", [cancelled, expired])
def test_when_one_that_leads_goes_the_next_one_runs(stepped_clock: None, ends: Callable[[Bench, int], None]) -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    answer(bench, message(1, 2))
    leader = bench.call(message(1, 5, 6), deadline_ns=clock.now() + AHEAD_NS)
    others = [bench.call(message(5, 2, 6)), bench.call(message(5, 6))]
    ends(bench, leader)
    bench.loop.fire_due()
    assert (bench.pipeline.queued_requests, bench.pipeline.queued_rows, cached(entry)["waiting"]) == (1, 2, 1)
    assert bench.run_all() == 1
    assert [output_of(bench, call) for call in others] == [scaled(5, 2, 6), scaled(5, 6)]
    assert rows_of(entry) == 4
    bench.close()


@pytest.mark.parametrize("ends", [cancelled, expired])
@pytest.mark.parametrize("runs", [False, True])
def test_one_that_has_lost_rows_ends_as_any_other(stepped_clock: None, runs: bool,
                                                   ends: Callable[[Bench, int], None]) -> None:
    entry = make_entry(scale())
    bench = new_bench(entry)
    answer(bench, message(1, 2))
    call = bench.call(message(1, 5, 2), deadline_ns=clock.now() + AHEAD_NS)
    watch = bench.transport.watch(call)
    assert watch.state == STATES["QUEUED"]
    if runs:
        bench.executors[0].take()
        assert watch.state == STATES["RUNNING"]
    ends(bench, call)
    if runs:
        assert watch.state == STATES["ANSWERED"]
        bench.executors[0].run()
        bench.executors[0].publish()
        bench.pipeline.on_wake()
    bench.loop.fire_due()
    assert (rows_of(entry), bench.pipeline.in_flight, flights(cache_of(bench))) == (3 if runs else 2, 0, 0)
    assert codes_of(entry) == {OK: 1, (CANCELLED if ends is cancelled else DEADLINE_EXCEEDED): 1}
    # What ran is kept, for the callers to come.
    assert cached(entry)["entries"] == (3 if runs else 2)
    bench.close()


def test_a_run_that_fails_fails_the_request_and_leaves_what_is_known() -> None:
    for entry, good, bad, code in (
            (make_entry(gather()), [int64_request([1, 2]), int64_request([2, 3])], int64_request([1, 1 << 40, 2]),
             INVALID_ARGUMENT),
            (make_entry(fragile()), [message(1, 2), message(2, 3)], message(1, 666.0, 2), INTERNAL)):
        bench = new_bench(entry)
        answer(bench, good[0])
        calls = [bench.call(bad), bench.call(good[1]), bench.call(bad)]
        while bench.pipeline.in_flight:
            bench.run_all()
            bench.loop.fire_due()
        assert [bench.outcome(call).code for call in calls] == [code, OK, code]
        assert (rows_of(entry), cached(entry)["entries"], flights(cache_of(bench))) == (3, 3, 0)
        bench.close()


def test_rows_of_other_shapes_than_the_known_ones_are_not_put_beside_them() -> None:
    entry = make_entry(cut_to_largest())
    bench = new_bench(entry)
    row = [[3, 1, 1, 1], [2, 1, 1, 1], [1, 1, 1, 1]]

    def asking(*numbers: int) -> bytes:
        values = [each for number in numbers for each in row[number]]
        return raw_request("INT64", [len(numbers), 4], pack("INT64", values))

    assert list(answer(bench, asking(1)).outputs[0].shape) == [1, 2]
    assert list(answer(bench, asking(2)).outputs[0].shape) == [1, 1]
    # Rows that are known and do not go together: one of them runs.
    call = bench.call(asking(1, 2))
    bench.run_all()
    outcome = bench.outcome(call)
    assert outcome.code == INTERNAL
    assert "have not the shape that they had for equal inputs before" in outcome.message
    assert "cache_rows" in outcome.message
    # From then on requests are run as they come.
    assert list(answer(bench, asking(1, 2)).outputs[0].shape) == [2, 2]
    assert list(answer(bench, asking(1, 0)).outputs[0].shape) == [2, 3]
    bench.close()


# Memory.


def test_without_memory_requests_run_as_they_came_or_are_refused() -> None:
    entry = make_entry(identity("FP32", ("batch", "length")))
    bench = new_bench(entry, limit_bytes=64 * MIB)
    values = [[float(number)] * 30_000 for number in range(4)]
    answer(bench, fp32_request(values[:2]))
    asking = fp32_request([values[0], values[2], values[1], values[3]])
    seen = set()
    for room in range(0, 4 * MIB, 64 << 10):
        cache_of(bench).purge()
        answer(bench, fp32_request(values[:2]))
        call = bench.open()
        # Enough for the message itself.
        limit = memory.set_limit(arena_bytes() + (1 << 19) + 4096 + room)
        try:
            bench.transport.submit(call, asking)
            while bench.pipeline.in_flight:
                bench.run_all()
        finally:
            memory.set_limit(limit)
        outcome = bench.outcome(call)
        assert outcome.code in (OK, RESOURCE_EXHAUSTED)
        if outcome.code == OK:
            assert output_of(bench, call) == pack("FP32", values[0] + values[2] + values[1] + values[3])
        seen.add(outcome.code)
        bench.outcomes.clear()
    assert seen == {OK, RESOURCE_EXHAUSTED}
    bench.close()


# The second level.


class Client:
    """Has nothing, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def ask(self, key: bytes, address: int, ticket: int) -> bool:
        self.asked.append(address)
        return False

    def takes(self, size_bytes: int) -> bool:
        return False

    def store(self, key: bytes, tail: bytes, ttl_ns: int) -> None:
        raise AssertionError


def test_the_second_level_is_asked_for_requests_of_one_row_alone() -> None:
    entry = make_entry(scale())
    entry.properties["sha256"] = "0" * 64
    bench = new_bench(entry)
    client = Client()
    bench.pipeline.second = SecondLevel(client, b"0" * 32)
    answer(bench, message(1, 2))
    assert client.asked == []
    answer(bench, message(1))
    answer(bench, message(3))
    assert len(client.asked) == 1
    bench.close()
