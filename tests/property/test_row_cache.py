"""The cache row by row against a plain model: replies are those of a server without a cache, whatever is known of them,
and exactly the rows that are not known run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core import clock
from infer._core._testing_cache import LEAST_BYTES, bytes_listed, flights, force_collisions
from infer._core.cache import Cache
from infer._core.model_version import VersionEntry
from tests.support.models import add_sub, scale
from tests.support.puppets import MILLISECOND_NS, SECOND_NS, Bench, fp32_request, make_entry, parse_reply, rows_of
from tests.support.requests import add_raw, infer_request, pack

MIB = 1 << 20
OK, DEADLINE_EXCEEDED = 0, 4
Row = tuple[int, int]

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=12)
WANTED = st.sampled_from([(), (0,), (1,), (1, 0)])
REQUESTS = st.lists(st.tuples(ROWS, WANTED, st.sampled_from([None, None, b"a", b"b"])), min_size=1, max_size=12)


def two_inputs(entry: VersionEntry, rows: list[Row], wanted: tuple[int, ...], swapped: bool) -> bytes:
    """A row is a number per input."""
    request = infer_request()
    order = range(2)[::-1] if swapped else range(2)
    for index in order:
        info = entry.inputs[index]
        columns = info.shape[1]
        values = [row[index] + column for row in rows for column in range(columns)]
        add_raw(request, info.name, info.datatype, [len(rows), columns], pack(info.datatype, values))
    for index in wanted:
        request.outputs.add(name=entry.outputs[index].name)
    return bytes(request.SerializeToString())


@pytest.mark.parametrize("collide", [False, True])
@given(requests=REQUESTS)
@settings(max_examples=100)
def test_exactly_the_rows_that_are_not_known_run(collide: bool, requests: list) -> None:
    entry, other = make_entry(add_sub()), make_entry(add_sub())
    cache = Cache(MIB, filtering=False)
    if collide:
        force_collisions(cache)
    bench, plain = Bench(cache=cache), Bench(other)
    bench.publish(entry, rows=True)
    known: set[tuple[Row, frozenset[int], bytes | None]] = set()
    last: tuple[Row, frozenset[int], bytes | None] | None = None
    try:
        for number, (rows, wanted, tenant) in enumerate(requests):
            message = two_inputs(entry, rows, wanted, swapped=number % 2 == 1)
            before = rows_of(entry)
            call = bench.call(message, tenant=tenant)
            bench.run_all()
            expected = plain.call(message)
            plain.run_all()
            assert bench.outcome(call).data == plain.outcome(expected).data
            asked = dict.fromkeys((row, frozenset(wanted) or frozenset((0, 1)), tenant) for row in rows)
            # Where all collide one is kept at a time: that which came last of those that ran.
            new = [each for each in asked if (each != last if collide else each not in known)]
            assert rows_of(entry) - before == len(new)
            known.update(new)
            last = new[-1] if new else last
            assert cache.bytes == bytes_listed(cache)
        stats = entry.cache_stats
        assert stats is not None
        assert stats["hits"] + stats["misses"] == len(requests)
        assert flights(cache) == 0
    finally:
        bench.close()
        plain.close()


@given(requests=st.lists(ROWS, min_size=1, max_size=30), filtering=st.booleans())
@settings(max_examples=60)
def test_what_goes_for_want_of_room_runs_again_and_no_reply_is_another(requests: list, filtering: bool) -> None:
    entry = make_entry(scale())
    cache = Cache(5 * LEAST_BYTES, filtering=filtering)
    bench = Bench(cache=cache)
    bench.publish(entry, rows=True)
    try:
        for rows in requests:
            call = bench.call(fp32_request([[float(a), float(b), 0.0, 1.0] for a, b in rows]))
            bench.run_all()
            reply = bench.reply(call)
            assert list(reply.outputs[0].shape) == [len(rows), 4]
            assert reply.raw_output_contents[0] == pack(
                "FP32", [value for a, b in rows for value in (2.0 * a, 2.0 * b, 0.0, 2.0)])
            assert cache.bytes == bytes_listed(cache) <= 5 * LEAST_BYTES
    finally:
        bench.close()


KEYS = st.lists(st.integers(0, 3), min_size=1, max_size=5)
STEPS = st.lists(st.one_of(
    st.tuples(st.just("call"), KEYS, st.sampled_from([0, 0, 5, 20])),
    st.tuples(st.just("call"), KEYS, st.just(0)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("advance"), st.integers(1, 15)),
    st.tuples(st.sampled_from(["take", "run", "publish", "wake", "turn"]), st.integers(0, 1)),
    st.tuples(st.just("purge"), st.just(0))), max_size=60)


@pytest.mark.parametrize("collide", [False, True])
@given(steps=STEPS)
@settings(max_examples=150)
def test_every_call_ends_once_with_its_own_rows_whatever_the_order(collide: bool, steps: list[tuple]) -> None:
    clock.set_fake(1_000 * SECOND_NS)
    entry = make_entry(scale(), gather_rows=4, max_running=2)
    cache = Cache(8 * LEAST_BYTES)
    if collide:
        force_collisions(cache)
    bench = Bench(executors=2, cache=cache)
    bench.publish(entry, ttl_ns=20 * MILLISECOND_NS, rows=True)
    asked: dict[int, list[int]] = {}
    cancelled = set()
    try:
        for step, *said in steps:
            executor = bench.executors[said[0] % 2 if isinstance(said[0], int) else 0]
            if step == "call":
                keys, ahead = said
                call = bench.open(deadline_ns=clock.now() + ahead * MILLISECOND_NS if ahead else 0)
                asked[call] = keys
                bench.transport.submit(call, fp32_request([[float(key)] * 4 for key in keys]))
            elif step == "cancel" and bench.transport.open_calls:
                call = bench.transport.open_calls[said[0] % len(bench.transport.open_calls)]
                bench.transport.cancel(call)
                cancelled.add(call)
            elif step == "advance":
                bench.advance(said[0] * MILLISECOND_NS)
            elif step == "take" and not executor.taken:
                executor.take()
            elif step == "run" and executor.taken:
                try_run(executor)
            elif step == "publish" and executor.taken:
                try_run(executor)
                executor.publish()
            elif step == "wake":
                bench.pipeline.on_wake()
            elif step == "turn":
                bench.loop.fire_due()
            elif step == "purge":
                cache.purge()
            assert cache.bytes == bytes_listed(cache) <= 8 * LEAST_BYTES
        for executor in bench.executors:
            if executor.taken:
                try_run(executor)
                executor.publish()
        bench.pipeline.on_wake()
        while bench.transport.open_calls:
            bench.loop.fire_due()
            bench.run_all()
        bench.loop.fire_due()
        assert sorted(outcome.call for outcome in bench.outcomes) == sorted(asked.keys() - cancelled)
        for outcome in bench.outcomes:
            assert outcome.code in (OK, DEADLINE_EXCEEDED)
            if outcome.code == OK:
                [output] = parse_reply(outcome.data).raw_output_contents
                assert output == pack("FP32", [2.0 * key for key in asked[outcome.call] for _ in range(4)])
        stats = entry.stats_snapshot((), ())
        assert stats["cache"]["waiting"] == 0
        assert flights(cache) == 0
        assert rows_of(entry) <= sum(len(set(keys)) for keys in asked.values())
    finally:
        bench.close()
        clock.restore()


def try_run(executor: object) -> None:
    """Runs what it holds, unless it has."""
    try:
        executor.run()  # type: ignore[attr-defined]
    except RuntimeError:
        return
