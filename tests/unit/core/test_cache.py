"""The prediction cache in the pipeline: what is a hit and what never is, what is kept and for how long, and that of
identical requests at a time one runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from infer._core import _testing_memory as memory
from infer._core import cache_saved, clock
from infer._core._testing_cache import LEAST_BYTES, bytes_listed, flights, force_collisions, remove_at_once
from infer._core._testing_request import STATES
from infer._core.cache import Cache
from infer._core.model_version import VersionEntry
from tests.support.models import add_sub, embedding, gather, identity, two_in_three_out
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
from tests.support.requests import add_raw, add_typed, infer_request, pack

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 1, 3, 4, 8
MIB = 1 << 20
ROW = [[1.0, 2.0, 3.0, 4.0]]
AHEAD_NS = 10 * MILLISECOND_NS


def cached(entry: VersionEntry) -> dict[str, int]:
    stats = entry.cache_stats
    assert stats is not None
    return stats


def new_bench(*entries: VersionEntry, limit_bytes: int = MIB, shared: bool = False, **cached: int) -> Bench:
    bench = Bench(cache=Cache(limit_bytes, shared=shared))
    for entry in entries or (make_entry(identity()),):
        bench.publish(entry, **cached)
    return bench


def cache_of(bench: Bench) -> Cache:
    assert bench.pipeline.cache is not None
    return bench.pipeline.cache


def answer(bench: Bench, message: bytes, **how: Any) -> Any:
    call = bench.call(message, **how)
    bench.run_all()
    return bench.reply(call)


def with_parameters(message: bytes, **parameters: str | int) -> bytes:
    request = type(infer_request()).FromString(message)
    for name, value in parameters.items():
        if isinstance(value, str):
            request.parameters[name].string_param = value
        else:
            request.parameters[name].int64_param = value
    return bytes(request.SerializeToString())


# Hits.


@pytest.mark.parametrize("columns", [1, 1024, 1025, 100_000])
def test_a_hit_is_the_same_reply_under_its_own_id(columns: int) -> None:
    entry = make_entry(identity("FP32", ("batch", "length")))
    bench = new_bench(entry, limit_bytes=4 * MIB)
    values = [[float(each) for each in range(columns)]]
    first = answer(bench, fp32_request(values, id="first"))
    hit = bench.call(fp32_request(values, id="a longer second"))
    reply = bench.reply(hit)
    assert (first.id, reply.id) == ("first", "a longer second")
    reply.id = first.id
    assert reply == first
    unnamed = bench.reply(bench.call(fp32_request(values)))
    assert unnamed.id == ""
    assert unnamed.raw_output_contents == first.raw_output_contents
    assert rows_of(entry) == 1
    assert cached(entry) | {"hit_ns": 0, "miss_ns": 0, "bytes": 0} == {
        "hits": 2, "joined": 0, "misses": 1, "passed": 0, "hit_ns": 0, "miss_ns": 0, "entries": 1, "bytes": 0,
        "evictions": 0, "expiries": 0, "rejections": 0, "known_rows": 0, "new_rows": 0, "waiting": 0, "bypassing": 0}
    assert codes_of(entry) == {OK: 3}
    bench.close()


def test_inputs_in_another_order_are_a_hit() -> None:
    entry = make_entry(two_in_three_out())
    bench = new_bench(entry)
    names = [(each.name, each.datatype, [1, *(size if size > 0 else 2 for size in each.shape[1:])])
             for each in entry.inputs]
    raws = {}
    for number, (name, datatype, shape) in enumerate(names):
        count = 1
        for size in shape:
            count *= size
        raws[name] = pack(datatype, [number + 1] * count)
    messages = []
    for order in (names, names[::-1]):
        request = infer_request()
        for name, datatype, shape in order:
            add_raw(request, name, datatype, shape, raws[name])
        messages.append(request.SerializeToString())
    assert messages[0] != messages[1]
    first = answer(bench, messages[0])
    assert bench.reply(bench.call(messages[1])) == first
    assert cached(entry)["hits"] == 1
    bench.close()


def test_typed_contents_are_what_raw_ones_are() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    typed = infer_request()
    add_typed(typed, "x", "FP32", [1, 4], ROW[0])
    first = answer(bench, fp32_request(ROW))
    assert bench.reply(bench.call(typed.SerializeToString())) == first
    assert cached(entry)["hits"] == 1
    bench.close()


@pytest.mark.parametrize("parameters", [{"priority": 2}, {"timeout": 5_000_000}, {"of my own": "x"}])
def test_parameters_that_change_no_answer_change_no_key(parameters: dict[str, str | int]) -> None:
    bench = new_bench()
    first = answer(bench, fp32_request(ROW))
    assert bench.reply(bench.call(with_parameters(fp32_request(ROW), **parameters))) == first
    bench.close()


# No false hits.


def raw_request(datatype: str, shape: list[int], raw: bytes, model: str = "m", outputs: tuple[str, ...] = ()) -> bytes:
    request = infer_request(model)
    add_raw(request, "x", datatype, shape, raw)
    for name in outputs:
        request.outputs.add(name=name)
    return bytes(request.SerializeToString())


@pytest.mark.parametrize("collide", [False, True])
def test_the_same_bytes_as_other_tensors_are_no_hit(collide: bool) -> None:
    entries = [make_entry(identity(datatype, None), name, batched=False)
               for name, datatype in (("m", "FP32"), ("ints", "INT32"))]
    bench = new_bench(*entries)
    if collide:
        force_collisions(cache_of(bench))
    raw = pack("FP32", ROW[0])
    for _ in range(2):
        for datatype, shape, model in (("FP32", [2, 2], "m"), ("FP32", [4], "m"), ("FP32", [4, 1], "m"),
                                       ("INT32", [4], "ints"), ("INT32", [2, 2], "ints")):
            reply = answer(bench, raw_request(datatype, shape, raw, model))
            assert (reply.model_name, reply.outputs[0].datatype, list(reply.outputs[0].shape)) == (
                model, datatype, shape)
    assert sum(cached(entry)["hits"] for entry in entries) == (0 if collide else 5)
    assert sum(rows_of(entry) for entry in entries) == (10 if collide else 5)
    bench.close()


@pytest.mark.parametrize("collide", [False, True])
def test_other_outputs_models_tenants_and_generations_are_no_hit(collide: bool) -> None:
    entries = [make_entry(add_sub(), "m"), make_entry(add_sub(), "n")]
    bench = new_bench(*entries)
    if collide:
        force_collisions(cache_of(bench))
    names = [each.name for each in entries[0].outputs]

    def message(model: str, outputs: tuple[str, ...]) -> bytes:
        request = infer_request(model)
        for number, each in enumerate(entries[0].inputs):
            shape = [1, *each.shape[1:]]
            add_raw(request, each.name, each.datatype, shape, pack(each.datatype, [number + 1] * shape[1]))
        for name in outputs:
            request.outputs.add(name=name)
        return bytes(request.SerializeToString())

    wanted: list[tuple[str, tuple[str, ...], bytes | None]] = [
        ("m", (), None), ("m", (names[0],), None), ("m", (names[1],), None), ("n", (), None), ("m", (), b"a"),
        ("m", (), b"b")]
    for model, outputs, tenant in wanted:
        reply = answer(bench, message(model, outputs), tenant=tenant)
        assert reply.model_name == model
        assert [each.name for each in reply.outputs] == list(outputs or names)
    assert sum(rows_of(entry) for entry in entries) == len(wanted)
    assert sum(cached(entry)["hits"] for entry in entries) == 0
    # The same version again is another generation.
    again = make_entry(add_sub(), "m")
    bench.unload(entries[0])
    bench.publish(again)
    answer(bench, message("m", ()))
    assert (rows_of(again), cached(again)["misses"]) == (1, 1)
    bench.close()


def test_a_collision_is_a_miss_that_takes_the_place() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    force_collisions(cache_of(bench))
    for value in (1.0, 2.0, 1.0, 2.0, 2.0):
        assert answer(bench, fp32_request([[value] * 4])).raw_output_contents[0] == pack("FP32", [value] * 4)
    assert (rows_of(entry), cached(entry)["hits"], cached(entry)["entries"]) == (4, 1, 1)
    # Nor is one at a time with another.
    calls = [bench.call(fp32_request([[value] * 4])) for value in (5.0, 6.0, 5.0)]
    bench.run_all()
    assert [bench.reply(call).raw_output_contents[0] for call in calls] == [
        pack("FP32", [value] * 4) for value in (5.0, 6.0, 5.0)]
    assert (rows_of(entry), cached(entry)["joined"]) == (6, 1)
    bench.close()


def test_tenants_that_share_get_each_others_answers() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry, shared=True)
    answer(bench, fp32_request(ROW), tenant=b"a")
    answer(bench, fp32_request(ROW), tenant=b"b")
    assert (rows_of(entry), cached(entry)["hits"]) == (1, 1)
    bench.close()


def test_optional_inputs_that_are_left_out_are_told_from_empty_ones() -> None:
    entry = make_entry(identity("BYTES", ("batch",)))
    bench = new_bench(entry)
    for values in ([b""], [b"", b""], [b"\0"], [b"a"]):
        raw = pack("BYTES", values)
        assert answer(bench, raw_request("BYTES", [len(values)], raw)).raw_output_contents[0] == raw
    assert cached(entry)["hits"] == 0
    bench.close()


# Requests that say so themselves.


def test_no_store_is_neither_answered_from_the_cache_nor_kept_nor_joined() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    calls = [bench.call(with_parameters(fp32_request(ROW), infer_cache="no-store")) for _ in range(2)]
    bench.run_all()
    assert [bench.reply(call).raw_output_contents[0] for call in calls] == [pack("FP32", ROW[0])] * 2
    assert (rows_of(entry), cached(entry)["entries"], cached(entry)["passed"]) == (2, 0, 2)
    answer(bench, fp32_request(ROW))
    answer(bench, with_parameters(fp32_request(ROW), infer_cache="no-store"))
    assert (rows_of(entry), cached(entry)["hits"]) == (4, 0)
    bench.close()


def test_no_cache_runs_anew_and_is_kept(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = new_bench(entry, ttl_ns=10 * SECOND_NS)
    answer(bench, fp32_request(ROW))
    clock.advance(8 * SECOND_NS)
    fresh = with_parameters(fp32_request(ROW), infer_cache="no-cache")
    calls = [bench.call(fresh), bench.call(fresh)]
    bench.run_all()
    assert all(bench.reply(call) for call in calls)
    assert (rows_of(entry), cached(entry)["entries"], cached(entry)["hits"]) == (3, 1, 0)
    clock.advance(8 * SECOND_NS)
    answer(bench, fp32_request(ROW))
    assert (rows_of(entry), cached(entry)["hits"]) == (3, 1)
    bench.close()


def test_max_age_asks_for_a_younger_answer(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    answer(bench, fp32_request(ROW))
    clock.advance(50 * MILLISECOND_NS)
    answer(bench, with_parameters(fp32_request(ROW), infer_cache_max_age_ms=50))
    assert (rows_of(entry), cached(entry)["hits"]) == (1, 1)
    answer(bench, with_parameters(fp32_request(ROW), infer_cache_max_age_ms=49))
    assert (rows_of(entry), cached(entry)["hits"], cached(entry)["entries"]) == (2, 1, 1)
    answer(bench, with_parameters(fp32_request(ROW), infer_cache_max_age_ms=0))
    assert (rows_of(entry), cached(entry)["hits"]) == (2, 2)
    bench.close()


@pytest.mark.parametrize(("name", "value", "said"), [
    ("infer_cache", "never", 'expected string_param, "no-cache" or "no-store"'),
    ("infer_cache", 1, 'expected string_param, "no-cache" or "no-store"'),
    ("infer_cache_max_age_ms", "1", "expected int64_param, milliseconds of 0 or more"),
    ("infer_cache_max_age_ms", -1, "expected int64_param, milliseconds of 0 or more")])
def test_parameters_that_say_nothing_are_refused(name: str, value: str | int, said: str) -> None:
    bench = new_bench()
    outcome = bench.outcome(bench.call(with_parameters(fp32_request(ROW), **{name: value})))
    assert (outcome.code, outcome.message) == (INVALID_ARGUMENT, f"parameter `{name}`: {said}")
    bench.close()


def test_a_request_of_a_sequence_passes_by() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    for _ in range(2):
        answer(bench, with_parameters(fp32_request(ROW), sequence_id=7))
    assert (rows_of(entry), cached(entry)["passed"]) == (2, 2)
    bench.close()


# Time and generations.


def test_never_older_than_its_time(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = new_bench(entry, ttl_ns=10 * SECOND_NS)
    rows = [[[float(number)] * 4] for number in range(50)]
    for row in rows:
        answer(bench, fp32_request(row))
    clock.advance(9 * SECOND_NS - 1)
    for row in rows:
        answer(bench, fp32_request(row))
    assert (rows_of(entry), cached(entry)["hits"]) == (50, 50)
    # Within the last tenth of it they go one after the other, not all at once.
    left = []
    for _ in range(11):
        clock.advance(SECOND_NS // 10)
        before = cached(entry)["expiries"]
        for row in rows:
            bench.call(fp32_request(row))
        left.append(cached(entry)["expiries"] - before)
        bench.run_all()
    assert sum(left) == 50
    assert max(left) < 25
    assert rows_of(entry) == 100
    bench.close()


def test_a_reload_drops_its_entries_at_once() -> None:
    old, new = make_entry(identity(), version="1"), make_entry(identity(), version="2")
    bench = new_bench(old)
    for number in range(5):
        answer(bench, fp32_request([[float(number)] * 4]))
    cache = cache_of(bench)
    assert cache.entries == 5
    bench.publish(new)
    answer(bench, fp32_request([[0.0] * 4]))
    assert (rows_of(new), cache.entries) == (1, 6)
    bench.unload(old)
    assert (cache.entries, [entry.version for entry in cache.cached()]) == (1, ["2"])
    assert cache.bytes == bytes_listed(cache)
    bench.close()
    assert cache.bytes == 0


def test_purge_forgets_what_is_kept_and_what_runs() -> None:
    entries = [make_entry(identity(), "m"), make_entry(identity(), "n")]
    bench = new_bench(*entries)
    cache = cache_of(bench)
    for name in ("m", "n"):
        answer(bench, fp32_request(ROW, name))
    per_entry = cache.bytes // 2
    running = bench.call(fp32_request([[9.0] * 4], "m"))
    assert cache.purge("m", "2") == (0, 0)
    assert cache.purge("m") == (1, per_entry)
    bench.run_all()
    assert bench.reply(running)
    assert cached(entries[0])["entries"] == 0
    assert cache.purge() == (1, per_entry)
    assert (cache.entries, cache.bytes) == (0, 0)
    answer(bench, fp32_request([[9.0] * 4], "m"))
    assert cache.entries == 1
    bench.close()


def kept(bench: Bench, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        answer(bench, fp32_request([[float(number)] * 4]))


def test_what_is_forgotten_is_out_of_use_at_once_and_removed_a_little_at_a_time() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    cache = cache_of(bench)
    remove_at_once(cache, 10)
    kept(bench, 50)
    assert cache.purge()[0] == 50
    assert (cached(entry)["entries"], cached(entry)["bytes"], cache.entries) == (0, 0, 40)
    assert cache_saved.saved(cache, MIB) == []
    rows = rows_of(entry)
    kept(bench, 5, first=30)
    assert rows_of(entry) == rows + 5
    assert cached(entry)["entries"] == len(cache_saved.saved(cache, MIB)) == 5
    # One more that is forgotten before the first is gone.
    assert cache.purge()[0] == 5
    kept(bench, 1)
    sweeps = 1
    while cache.sweep():
        sweeps += 1
    assert sweeps in (4, 5)
    assert cache.entries == cached(entry)["entries"] == 1
    assert cache.bytes == cached(entry)["bytes"] == bytes_listed(cache)
    assert not cache.sweep()
    cache.purge()
    kept(bench, 30)
    bench.close()
    assert cache.bytes == 0


def test_what_is_forgotten_goes_before_anything_that_is_in_use() -> None:
    old, new = make_entry(identity()), make_entry(identity(), version="2")
    bench = new_bench(old, limit_bytes=64 * LEAST_BYTES)
    cache = cache_of(bench)
    remove_at_once(cache, 1)
    kept(bench, 100)
    room = cache.entries
    assert room > 40
    bench.publish(new)
    bench.unload(old)
    assert cache.entries == room - 1
    # Asked for once each, which is less often than nothing that is in use.
    for number in range(room):
        answer(bench, fp32_request([[1000.0 + number] * 4]))
        assert cached(new)["entries"] == number + 1
    assert cached(new)["evictions"] == cached(new)["rejections"] == 0
    bench.close()


def test_a_model_over_its_own_bound_pushes_out_its_own_whatever_else_is_forgotten() -> None:
    entries = [make_entry(identity(), "m"), make_entry(identity(), "n")]
    bench = Bench(cache=Cache(MIB))
    bench.publish(entries[0])
    bench.publish(entries[1], model_bytes=4 * LEAST_BYTES)
    cache = cache_of(bench)
    remove_at_once(cache, 1)
    for number in range(20):
        answer(bench, fp32_request([[float(number)] * 4], "m"))
    cache.purge("m")
    for number in range(6):
        for _ in range(number + 1):
            answer(bench, fp32_request([[float(number)] * 4], "n"))
    assert cached(entries[1])["entries"] == 4
    assert cache.entries == 19 + 4
    bench.close()


# Bounds.


def test_never_above_its_budget_and_what_is_too_large_is_not_kept() -> None:
    entry = make_entry(identity("FP32", ("batch", "length")))
    bench = new_bench(entry, limit_bytes=64 * 1024)
    cache = cache_of(bench)
    chance = random.Random(1)
    for _ in range(400):
        columns = chance.choice([1, 10, 100, 1000, 3000, 30_000])
        answer(bench, fp32_request([[chance.random()] * columns]))
        assert cache.bytes == bytes_listed(cache) == cached(entry)["bytes"] <= 64 * 1024
    assert cached(entry)["evictions"] > 0
    assert cached(entry)["entries"] == cache.entries
    before = rows_of(entry)
    for _ in range(2):
        answer(bench, fp32_request([[1.0] * 30_000]))
    assert rows_of(entry) == before + 2
    bench.close()


def test_a_model_stays_within_its_own_part() -> None:
    small, other = make_entry(identity(), "m"), make_entry(identity(), "n")
    bench = Bench(cache=Cache(MIB))
    bench.publish(small, model_bytes=4 * LEAST_BYTES)
    bench.publish(other)
    for number in range(20):
        for name in ("m", "n"):
            answer(bench, fp32_request([[float(number)] * 4], name))
        assert cached(small)["bytes"] <= 4 * LEAST_BYTES
    assert (cached(small)["entries"], cached(other)["entries"]) == (4, 20)
    assert (cached(small)["evictions"], cached(other)["evictions"]) == (16, 0)
    assert (cache_of(bench).limit_of(small), cache_of(bench).limit_of(other) < MIB) == (4 * LEAST_BYTES, True)
    bench.close()


def test_a_version_with_no_hits_is_looked_up_by_samples_until_it_has_some() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry, limit_bytes=4 * MIB)
    for number in range(1200):
        bench.call(fp32_request([[float(number)] * 4]))
    bench.run_all()
    assert cached(entry)["bypassing"] == 1
    assert cached(entry)["misses"] < 1024 + 40
    # From here on the same 200 come again and again: enough of the samples are hits, whichever are taken.
    for _ in range(600):
        for number in range(200):
            bench.call(fp32_request([[float(number)] * 4]))
        bench.run_all()
        if not cached(entry)["bypassing"]:
            break
    assert cached(entry)["bypassing"] == 0
    hits = cached(entry)["hits"]
    for _ in range(2):
        answer(bench, fp32_request([[-1.0] * 4]))
    assert cached(entry)["hits"] > hits
    bench.close()


# Single flight.


def test_a_thousand_identical_requests_are_one_run() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    calls = [bench.call(fp32_request(ROW, id=str(number))) for number in range(1000)]
    assert bench.pipeline.queued_requests == 1
    assert cached(entry)["waiting"] == 999
    assert bench.run_all() == 1
    assert [bench.reply(call).id for call in calls] == [str(number) for number in range(1000)]
    assert {bytes(bench.reply(call).raw_output_contents[0]) for call in calls} == {pack("FP32", ROW[0])}
    stats = entry.stats_snapshot((), ())
    assert (stats["rows"], stats["batches"], stats["calls"][OK]) == (1, 1, 1000)
    assert (cached(entry)["joined"], cached(entry)["hits"], cached(entry)["misses"]) == (999, 999, 1)
    assert (cached(entry)["waiting"], flights(cache_of(bench))) == (0, 0)
    bench.close()


def test_large_replies_of_one_run_share_its_memory() -> None:
    bench = new_bench(make_entry(identity("FP32", ("batch", "length"))))
    message = fp32_request([[1.0] * 10_000])
    calls = [bench.call(message) for _ in range(3)]
    bench.run_all()
    assert [bench.outcome(call).segments for call in calls] == [2, 2, 2]
    assert len({bench.outcome(call).data for call in calls}) == 1
    bench.close()


def leader_cancelled(bench: Bench, leader: int) -> None:
    bench.transport.cancel(leader)


def leader_expired(bench: Bench, leader: int) -> None:
    bench.advance(AHEAD_NS + MILLISECOND_NS)


@pytest.mark.parametrize("ends", [leader_cancelled, leader_expired])
def test_when_a_queued_leader_goes_the_next_one_runs(stepped_clock: None, ends: Callable[[Bench, int], None]) -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    leader = bench.call(fp32_request(ROW), deadline_ns=clock.now() + AHEAD_NS)
    others = [bench.call(fp32_request(ROW)) for _ in range(3)]
    ends(bench, leader)
    bench.loop.fire_due()
    assert (bench.pipeline.queued_requests, cached(entry)["waiting"]) == (1, 2)
    assert bench.run_all() == 1
    assert [bench.outcome(call).code for call in others] == [OK] * 3
    assert (rows_of(entry), cached(entry)["misses"], cached(entry)["joined"]) == (1, 2, 2)
    bench.close()


@pytest.mark.parametrize("ends", [leader_cancelled, leader_expired])
def test_a_leader_that_runs_and_whose_caller_goes_still_answers_the_others(
        stepped_clock: None, ends: Callable[[Bench, int], None]) -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    leader = bench.call(fp32_request(ROW), deadline_ns=clock.now() + AHEAD_NS)
    other = bench.call(fp32_request(ROW))
    bench.executors[0].take()
    ends(bench, leader)
    assert not bench.answered(other)
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.pipeline.on_wake()
    assert bench.outcome(other).code == OK
    assert bench.reply(bench.call(fp32_request(ROW)))
    assert (rows_of(entry), cached(entry)["hits"]) == (1, 2)
    bench.close()


def test_when_a_leader_fails_each_of_the_others_gets_a_run_of_its_own() -> None:
    entry = make_entry(gather(), batched=False)
    bench = new_bench(entry)
    [wrong] = [int64_request([1 << 40])]
    calls = [bench.call(wrong) for _ in range(3)]
    runs = 0
    while not bench.answered(calls[-1]):
        runs += bench.run_all()
        bench.loop.fire_due()
    assert runs == 3
    assert [bench.outcome(call).code for call in calls] == [INVALID_ARGUMENT] * 3
    assert (cached(entry)["entries"], cached(entry)["hits"], flights(cache_of(bench))) == (0, 0, 0)
    bench.close()


def test_when_a_leader_fails_and_the_next_does_not_that_one_answers_all() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    calls = [bench.call(fp32_request(ROW)) for _ in range(4)]
    limit = memory.set_limit(arena_bytes())
    try:
        assert bench.executors[0].step() == 1
    finally:
        memory.set_limit(limit)
    bench.pipeline.on_wake()
    assert [outcome.call for outcome in bench.outcomes] == calls[:1]
    assert bench.outcome(calls[0]).code == RESOURCE_EXHAUSTED
    bench.loop.fire_due()
    assert bench.run_all() == 1
    assert [bench.outcome(call).code for call in calls[1:]] == [OK] * 3
    assert (rows_of(entry), cached(entry)["misses"], cached(entry)["joined"]) == (1, 2, 2)
    bench.close()


def test_without_memory_to_keep_an_answer_it_is_given_all_the_same() -> None:
    entry = make_entry(identity("FP32", ("batch", "length")))
    bench = new_bench(entry)
    message = fp32_request([[1.0] * 100_000])
    calls = [bench.call(message), bench.call(message)]
    bench.executors[0].step()
    # Enough for the heads of two replies, too little for a copy of the inputs.
    limit = memory.set_limit(arena_bytes() + 4096)
    try:
        bench.pipeline.on_wake()
    finally:
        memory.set_limit(limit)
    assert [bench.outcome(call).code for call in calls] == [OK, OK]
    assert (cached(entry)["entries"], cache_of(bench).bytes) == (0, 0)
    bench.close()


def test_those_that_wait_end_by_their_own_deadline_or_cancel(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    leader = bench.call(fp32_request(ROW))
    late = bench.call(fp32_request(ROW), deadline_ns=clock.now() + AHEAD_NS)
    gone = bench.call(fp32_request(ROW))
    last = bench.call(fp32_request(ROW))
    assert bench.transport.watch(late).state == STATES["RECEIVING"]
    bench.transport.cancel(gone)
    bench.advance(AHEAD_NS + MILLISECOND_NS)
    assert (bench.outcome(late).code, bench.outcome(late).message) == (
        DEADLINE_EXCEEDED, "the deadline passed while the request waited for the run of an identical one; it was not "
        "run itself")
    assert cached(entry)["waiting"] == 1
    bench.run_all()
    assert [bench.outcome(call).code for call in (leader, last)] == [OK, OK]
    assert codes_of(entry) == {OK: 2, CANCELLED: 1, DEADLINE_EXCEEDED: 1}
    bench.close()


def test_all_that_wait_go_with_their_leader(stepped_clock: None) -> None:
    bench = new_bench()
    calls = [bench.call(fp32_request(ROW)) for _ in range(3)]
    for call in calls:
        bench.transport.cancel(call)
    bench.loop.fire_due()
    assert (flights(cache_of(bench)), bench.pipeline.queued_requests) == (0, 0)
    bench.close()


def test_those_that_wait_count_among_the_rows_of_the_queue(stepped_clock: None) -> None:
    entry = make_entry(identity(), queue_limit_rows=4)
    bench = new_bench(entry)
    calls = [bench.call(fp32_request(ROW)) for _ in range(4)]
    for message in (fp32_request(ROW), fp32_request([[7.0] * 4])):
        outcome = bench.outcome(bench.call(message))
        assert outcome.code == RESOURCE_EXHAUSTED
        assert "is full: it holds 4 of at most 4 rows (--max-queue-rows)" in outcome.message
    bench.transport.cancel(calls[0])
    bench.loop.fire_due()
    bench.run_all()
    assert [bench.outcome(call).code for call in calls[1:]] == [OK] * 3
    bench.close()


def test_a_new_leader_that_finds_no_room_is_refused_and_the_next_one_tried(stepped_clock: None) -> None:
    entry = make_entry(identity(), queue_limit_rows=3)
    bench = new_bench(entry)
    leader = bench.call(fp32_request(ROW))
    waiting = [bench.call(fp32_request(ROW)) for _ in range(2)]
    bench.pipeline.set_limits(entry, delay_ns=0, queue_limit_rows=1)
    bench.transport.cancel(leader)
    bench.loop.fire_due()
    assert bench.outcome(waiting[0]).code == RESOURCE_EXHAUSTED
    bench.run_all()
    assert bench.outcome(waiting[1]).code == OK
    bench.close()


def test_a_version_that_unloads_answers_those_that_wait(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    leader = bench.call(fp32_request(ROW))
    others = [bench.call(fp32_request(ROW)) for _ in range(2)]
    bench.unload(entry)
    bench.transport.cancel(leader)
    bench.loop.fire_due()
    assert bench.drained == []
    bench.run_all()
    assert [bench.outcome(call).code for call in others] == [OK, OK]
    assert bench.drained == [entry]
    assert cache_of(bench).entries == 0
    bench.close()


def test_a_version_that_is_not_cached_is_as_it_was() -> None:
    entry = make_entry(embedding())
    bench = Bench(entry)
    assert bench.pipeline.cache is None
    assert entry.cache_stats is None
    assert entry.stats_snapshot((), ())["cache"] is None
    bench.close()


def test_attached_once() -> None:
    entry = make_entry(identity())
    bench = new_bench(entry)
    with pytest.raises(ValueError, match="is cached already"):
        cache_of(bench).attach(entry)
    bench.close()
