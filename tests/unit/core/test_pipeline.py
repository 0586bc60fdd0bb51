"""The stages of a request in their order, and what each does when it cannot go on."""

import gc
from collections.abc import Callable
from itertools import pairwise

import pytest

from infer._core import _testing_memory as memory
from infer._core import arena, clock
from infer._core._testing_pipeline import COPIED_REPLY_BYTES, DEFERRED_BYTES, Outcome
from infer._core._testing_request import STATES
from tests.support.models import every_identity, gather, identity, string_join, two_in_three_out
from tests.support.puppets import (
    MILLISECOND_NS,
    SECOND_NS,
    Bench,
    arena_bytes,
    codes_of,
    fp32_request,
    int64_request,
    make_entry,
    parse_reply,
    rows_of,
)
from tests.support.requests import add_raw, add_typed, infer_request, pack

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 1, 3, 4, 8
ROW = fp32_request([[1.0, 2.0, 3.0, 4.0]])
NO_MEMORY = "the server's memory for requests is used up; retry later or send to another replica"
WIDE = ("batch", "length")


def wide_request(columns: int, rows: int = 1, **fields: object) -> bytes:
    return fp32_request([[float(row * columns + column) for column in range(columns)] for row in range(rows)], **fields)


# Replies.


@pytest.mark.parametrize("columns", [0, 1, COPIED_REPLY_BYTES // 4, COPIED_REPLY_BYTES // 4 + 1, 100_000])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_reply_is_the_requests_own_rows_however_large(columns: int, rows: int) -> None:
    bench = Bench(make_entry(identity("FP32", WIDE)))
    message = wide_request(columns, rows, id="an id")
    neighbour = bench.call(wide_request(columns))
    call = bench.call(message)
    bench.run_all()
    reply = bench.reply(call)
    assert (reply.model_name, reply.model_version, reply.id) == ("m", "1", "an id")
    assert [(each.name, each.datatype, list(each.shape)) for each in reply.outputs] == [("y", "FP32", [rows, columns])]
    assert list(reply.raw_output_contents) == [pack("FP32", map(float, range(rows * columns)))]
    assert len(bench.outcome(call).data) > 0
    assert bench.reply(neighbour).raw_output_contents[0] == pack("FP32", map(float, range(columns)))
    bench.close()


@pytest.mark.parametrize(("columns", "segments"), [(COPIED_REPLY_BYTES // 4, 1), (COPIED_REPLY_BYTES // 4 + 1, 2)])
def test_a_large_output_is_sent_from_the_batchs_own_memory(columns: int, segments: int) -> None:
    bench = Bench(make_entry(identity("FP32", WIDE)))
    call = bench.call(wide_request(columns))
    bench.run_all()
    assert bench.outcome(call).segments == segments
    assert bench.reply(call).raw_output_contents[0] == pack("FP32", map(float, range(columns)))
    bench.close()


def test_large_and_small_outputs_come_in_the_models_order() -> None:
    bench = Bench(make_entry(every_identity()))
    request = infer_request(id="all")
    raws = {}
    for name, values, count in [("INT64", range(2_000), 2_000), ("FP32", [0.5] * 3, 3), ("FP64", [0.25] * 4_000, 4_000),
                                ("UINT8", [7] * 9, 9), ("INT16", range(-2_500, 2_500), 5_000)]:
        raws[f"out_{name.lower()}"] = pack(name, values)
        add_raw(request, f"in_{name.lower()}", name, [1, count], pack(name, values))
    for name in ["BOOL", "INT8", "INT32", "UINT16", "UINT32", "UINT64", "FP16", "BF16", "BYTES"]:
        raws[f"out_{name.lower()}"] = pack(name, [b"\0a"] if name == "BYTES" else [1])
        add_raw(request, f"in_{name.lower()}", name, [1, 1], raws[f"out_{name.lower()}"])
    call = bench.call(request.SerializeToString())
    bench.run_all()
    assert bench.outcome(call).segments > 4
    reply = bench.reply(call)
    assert {each.name: raw for each, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)} == raws
    bench.close()


@pytest.mark.parametrize("wanted", [["y"], ["v", "y"], ["w"], []])
def test_only_requested_outputs_are_answered_and_a_batch_has_one_choice_of_them(wanted: list[str]) -> None:
    entry = make_entry(two_in_three_out())
    bench = Bench(entry)

    def request(names: list[str], value: float) -> bytes:
        message = infer_request()
        add_raw(message, "x", "FP32", [1, 4], pack("FP32", [value] * 4))
        add_raw(message, "z", "FP32", [1, 2], pack("FP32", [value] * 2))
        for name in names:
            message.outputs.add(name=name)
        return bytes(message.SerializeToString())

    some, every = bench.call(request(wanted, 1.0)), bench.call(request([], 2.0))
    assert bench.run_all() == (2 if wanted else 1)
    assert [each.name for each in bench.reply(some).outputs] == [
        name for name in ("y", "w", "v") if name in wanted or not wanted]
    assert [each.name for each in bench.reply(every).outputs] == ["y", "w", "v"]
    assert bench.reply(every).raw_output_contents[0] == pack("FP32", [2.0] * 6)
    bench.close()


@pytest.mark.parametrize("lead", range(9))
def test_a_request_alone_is_run_wherever_its_bytes_lie(lead: int) -> None:
    bench = Bench(make_entry(identity("FP64", ("batch", 3))))
    request = infer_request(id="i" * lead)
    add_raw(request, "x", "FP64", [2, 3], pack("FP64", range(6)))
    call = bench.call(request.SerializeToString(), lead=lead)
    bench.run_all()
    assert bench.reply(call).raw_output_contents[0] == pack("FP64", range(6))
    bench.close()


def test_rows_of_bytes_are_cut_where_each_request_ends() -> None:
    bench = Bench(make_entry(string_join()))
    contents = [[b"", b"\0"], [b"a" * 300, b"bc"], [b"x", b""], [b"\xff" * 7, b"y" * 5_000]]
    calls = []
    for pair in contents:
        request = infer_request()
        add_raw(request, "x", "BYTES", [1, 2], pack("BYTES", pair))
        calls.append(bench.call(request.SerializeToString()))
    assert bench.run_all() == 1
    for call, pair in zip(calls, contents, strict=True):
        assert bench.reply(call).raw_output_contents[0] == pack("BYTES", pair + pair)
    bench.close()


# Typed contents.


@pytest.mark.parametrize(("datatype", "count", "deferred"), [
    ("FP32", 4, False), ("FP32", DEFERRED_BYTES // 4 - 16, False), ("FP32", DEFERRED_BYTES // 4 + 1, True),
    ("INT8", 4, False), ("INT8", DEFERRED_BYTES // 2, True),
], ids=["small", "just below the bound", "above it", "narrow", "narrow, and wide on the wire"])
def test_much_typed_content_is_decoded_by_the_executor(datatype: str, count: int, deferred: bool) -> None:
    bench = Bench(make_entry(identity(datatype, WIDE)))
    values = [-1] * count
    request = infer_request()
    add_typed(request, "x", datatype, [1, count], values)
    call = bench.open()
    watch = bench.transport.watch(call)
    bench.transport.submit(call, request.SerializeToString())
    assert watch.state == STATES["QUEUED"]
    assert watch.deferred == deferred
    bench.run_all()
    assert bench.reply(call).raw_output_contents[0] == pack(datatype, values)
    bench.close()


def test_bad_typed_content_that_the_executor_finds_is_its_requests_own() -> None:
    bench = Bench(make_entry(identity("INT8", WIDE)))
    calls = []
    for last in (-1, 128):
        request = infer_request()
        add_typed(request, "x", "INT8", [1, DEFERRED_BYTES], [-1] * (DEFERRED_BYTES - 1) + [last])
        calls.append(bench.call(request.SerializeToString()))
    bench.run_all()
    assert bench.reply(calls[0]).raw_output_contents[0] == b"\xff" * DEFERRED_BYTES
    assert bench.outcome(calls[1]).code == INVALID_ARGUMENT
    assert "128" in bench.outcome(calls[1]).message
    bench.close()


# Deadlines.


def test_the_timer_is_set_for_the_first_deadline_and_moves_forward_only(stepped_clock: None) -> None:
    bench = Bench(make_entry(identity()))
    due = []
    for ahead in (50, 90, 20, 70, 10):
        bench.open(deadline_ns=clock.now() + ahead * MILLISECOND_NS)
        due.append(bench.loop.next_ns)
    assert due == sorted(due, reverse=True)
    assert sum(not timer.cancelled for timer in bench.loop.timers) == 1
    for first, second in pairwise((0, 10, 20, 50, 70, 90, 100)):
        bench.advance((second - first) * MILLISECOND_NS + (2 * MILLISECOND_NS if first == 0 else 0))
    assert [outcome.call for outcome in bench.outcomes] == [5, 3, 1, 4, 2]
    assert {outcome.message for outcome in bench.outcomes} == {"the deadline passed before the request was whole"}
    assert bench.loop.next_ns is None
    bench.close()


@pytest.mark.parametrize("ahead_ns", [1, MILLISECOND_NS - 1, MILLISECOND_NS, 300 * MILLISECOND_NS, 70 * SECOND_NS,
                                      5 * 3600 * SECOND_NS, 60 * 86400 * SECOND_NS])
def test_no_call_ends_before_its_deadline_and_none_2_ms_after_it(stepped_clock: None, ahead_ns: int) -> None:
    bench = Bench(make_entry(identity()))
    deadline = clock.now() + ahead_ns
    call = bench.open(deadline_ns=deadline)
    while not bench.answered(call):
        at = bench.loop.next_ns
        assert at is not None
        assert at > clock.now()
        bench.advance(at - clock.now())
    assert deadline <= clock.now() <= deadline + 2 * MILLISECOND_NS
    bench.close()


def test_f5_a_deadline_in_a_run_answers_at_once_and_the_request_counts_until_the_run_ends(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = Bench(entry)
    call = bench.open(deadline_ns=clock.now() + MILLISECOND_NS)
    watch = bench.transport.watch(call)
    bench.transport.submit(call, ROW)
    bench.executors[0].take()
    bench.advance(3 * MILLISECOND_NS)
    outcome = bench.outcome(call)
    assert (outcome.code, outcome.message) == (DEADLINE_EXCEEDED, "the deadline passed while the model ran")
    assert (watch.state, watch.timed) == (STATES["ANSWERED"], False)
    assert (bench.pipeline.in_flight, entry.handles) == (1, 1)
    bench.executors[0].run()
    bench.executors[0].publish()
    assert bench.pipeline.in_flight == 1
    bench.pipeline.on_wake()
    assert (bench.pipeline.in_flight, entry.handles) == (0, 0)
    assert len(bench.outcomes) == 1
    assert rows_of(entry) == 1
    bench.close()


def test_a_message_that_comes_after_its_deadline_is_not_run_though_no_timer_has_fired(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = Bench(entry)
    call = bench.open(deadline_ns=clock.now() + MILLISECOND_NS)
    clock.advance(MILLISECOND_NS)
    bench.transport.submit(call, ROW)
    assert bench.outcome(call).code == DEADLINE_EXCEEDED
    assert bench.run_all() == 0
    assert codes_of(entry) == {DEADLINE_EXCEEDED: 1}
    bench.close()
    bench.advance(SECOND_NS)


def test_a_deadline_in_time_leaves_no_timer_node_behind(stepped_clock: None) -> None:
    bench = Bench(make_entry(identity()))
    calls = [bench.call(ROW, deadline_ns=clock.now() + SECOND_NS) for _ in range(20)]
    bench.transport.cancel(calls.pop())
    bench.run_all()
    assert [bench.outcome(call).code for call in calls] == [OK] * len(calls)
    bench.advance(2 * SECOND_NS)
    assert bench.loop.next_ns is None
    assert len(bench.outcomes) == len(calls)
    bench.close()


def test_transports_flush_after_completions_and_after_expiries(stepped_clock: None) -> None:
    bench = Bench(make_entry(identity()))
    flushed: list[int] = []
    bench.pipeline.after_turn = lambda: flushed.append(len(bench.outcomes))
    bench.call(ROW)
    bench.executors[0].step()
    bench.pipeline.on_wake()
    bench.open(deadline_ns=clock.now() + MILLISECOND_NS)
    bench.advance(3 * MILLISECOND_NS)
    assert flushed == [1, 2]
    bench.close()


# Batches.


def test_a_call_that_finishes_may_cancel_and_submit_others_meanwhile() -> None:
    entry = make_entry(identity(), gather_rows=4)
    bench = Bench(entry)
    calls = [bench.call(ROW) for _ in range(8)]
    bench.executors[0].take()
    new: list[int] = []

    def on_finish(outcome: Outcome) -> None:
        if outcome.call == calls[0]:
            for other in (calls[1], calls[3], calls[5]):
                bench.transport.cancel(other)
            new.append(bench.call(ROW))
            new.append(bench.call(fp32_request([[0.0]])))

    bench.transport.on_finish = on_finish
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.pipeline.on_wake()
    bench.run_all()
    assert sorted(outcome.call for outcome in bench.outcomes) == sorted(
        [calls[0], calls[2], calls[4], calls[6], calls[7], *new])
    assert bench.outcome(new[0]).code == OK
    assert bench.outcome(new[1]).code == INVALID_ARGUMENT
    assert codes_of(entry) == {OK: 6, CANCELLED: 3, INVALID_ARGUMENT: 1}
    bench.close()


def test_batches_of_several_executors_may_end_in_any_order() -> None:
    bench = Bench(make_entry(identity(), gather_rows=1, max_running=3), executors=3)
    calls = [bench.call(fp32_request([[float(i)] * 4])) for i in range(3)]
    for executor in bench.executors:
        assert executor.take() == 1
        executor.run()
    for index in (2, 0, 1):
        bench.executors[index].publish()
        bench.pipeline.on_wake()
    assert [outcome.call for outcome in bench.outcomes] == [calls[2], calls[0], calls[1]]
    for i, call in enumerate(calls):
        assert bench.reply(call).raw_output_contents[0] == pack("FP32", [i] * 4)
    bench.close()


def test_f17_of_a_batch_that_fails_only_the_culprits_fail(stepped_clock: None) -> None:
    entry = make_entry(gather())
    bench = Bench(entry)
    ids = [[1], [99], [3, 4], [5], [0, -11], [6], [7], [8]]
    calls = [bench.call(int64_request(each)) for each in ids]
    assert bench.run_all() == 1
    for call, each in zip(calls, ids, strict=True):
        if {99, -11} & set(each):
            assert bench.outcome(call).code != OK
        else:
            assert bench.reply(call).raw_output_contents[0] == pack(
                "FP32", [4 * number + column for number in each for column in range(4)])
    assert rows_of(entry) == 7
    bench.close()


def test_the_runtimes_own_words_go_to_the_log_once_per_batch_and_not_to_callers() -> None:
    entry = make_entry(gather())
    bench = Bench(entry)
    heard: list[tuple[object, str]] = []
    bench.pipeline.on_run_failure = lambda *failure: heard.append(failure)
    calls = [bench.call(int64_request([number])) for number in (99, 1, 98)]
    bench.run_all()
    assert [each for each, _ in heard] == [entry]
    assert "Gather" in heard[0][1]
    assert all("Gather" not in bench.outcome(call).message for call in calls)
    bench.call(int64_request([2]))
    bench.run_all()
    assert len(heard) == 1
    bench.close()


def test_a_held_reply_survives_what_comes_after_it() -> None:
    bench = Bench(make_entry(identity("FP32", WIDE)))
    first = bench.call(wide_request(5_000))
    bench.run_all()
    for _ in range(50):
        bench.call(fp32_request([[-1.0] * 5_000]))
    bench.run_all()
    assert parse_reply(bench.outcome(first).data).raw_output_contents[0] == pack("FP32", map(float, range(5_000)))
    bench.close()


def test_detaching_a_version_that_was_never_attached_does_nothing() -> None:
    bench = Bench()
    entry = make_entry(identity())
    bench.pipeline.detach(entry)
    assert bench.pipeline.queued_rows_of(entry) == 0
    bench.close()


# The arena's limit.


def typed(columns: int) -> bytes:
    request = infer_request()
    add_typed(request, "x", "FP32", [1, columns], [1.0] * columns)
    return bytes(request.SerializeToString())


STAGES = ["open", "submit", "run", "complete"]
MESSAGES: dict[str, Callable[[], bytes]] = {
    "one row": lambda: wide_request(4),
    "a large row": lambda: wide_request(3_000),
    "typed": lambda: typed(100),
    "typed, deferred": lambda: typed(DEFERRED_BYTES),
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("stage", STAGES)
def test_at_the_arenas_limit_each_stage_answers_and_leaks_nothing(stepped_clock: None, stage: str, kind: str) -> None:
    """The limit falls in front of a stage, a little further away each time, until the stage no longer notices."""
    gc.collect()
    before = arena_bytes()
    entry = make_entry(identity("FP32", WIDE))
    bench = Bench(entry)
    message = MESSAGES[kind]()
    spare, refusals = 0, 0
    while True:
        code, text = one_call_with(bench, stage, spare, [message, wide_request(4)])
        assert bench.pipeline.in_flight == 0
        assert entry.handles == 0
        bench.outcomes.clear()
        if code == OK:
            break
        assert code == RESOURCE_EXHAUSTED
        assert "memory" in text
        assert text.endswith(("retry later or send to another replica", "or retry later", "retry later"))
        refusals += 1
        spare = max(2 * spare, 64)
    assert refusals > 0
    assert not bench.executors[0].held_up
    bench.close()
    del bench, entry
    gc.collect()
    assert arena_bytes() == before


def one_call_with(bench: Bench, stage: str, spare: int, messages: list[bytes]) -> tuple[int, str]:
    """The worst outcome of calls that meet the limit in front of `stage`."""
    def at(this: str) -> None:
        if this == stage:
            memory.set_limit(arena_bytes() + spare)

    limit = arena.stats()["limit_bytes"]
    try:
        at("open")
        opened = [call for call in (bench.open() for _ in messages) if call in bench.transport.open_calls]
        at("submit")
        for call, message in zip(opened, messages, strict=False):
            try:
                bench.transport.submit(call, message)
            except MemoryError:
                bench.transport.cancel(call)
        at("run")
        while bench.executors[0].step():
            pass
        at("complete")
        bench.pipeline.on_wake()
        while bench.executors[0].step():
            bench.pipeline.on_wake()
    finally:
        memory.set_limit(limit)
    if not bench.outcomes:
        return RESOURCE_EXHAUSTED, "memory: retry later"
    worst = max(bench.outcomes, key=lambda outcome: outcome.code)
    return worst.code, worst.message


def test_a_call_opened_at_the_limit_is_told_so_in_full() -> None:
    bench = Bench(make_entry(identity()))
    limit = memory.set_limit(arena_bytes())
    try:
        call = bench.open()
    finally:
        memory.set_limit(limit)
    outcome = bench.outcome(call)
    assert (outcome.code, outcome.message, outcome.pushback_ms) == (RESOURCE_EXHAUSTED, NO_MEMORY, -1)
    assert bench.pipeline.unrouted_calls()[RESOURCE_EXHAUSTED] == 1
    bench.close()


def test_an_executor_without_memory_for_a_batch_answers_it_and_waits_until_the_loop_has_seen_it() -> None:
    bench = Bench(make_entry(identity(), gather_rows=2))
    calls = [bench.call(ROW) for _ in range(4)]
    executor = bench.executors[0]
    limit = memory.set_limit(arena_bytes())
    try:
        assert executor.step() == 2
        assert executor.held_up
        assert executor.step() == 0
    finally:
        memory.set_limit(limit)
    bench.pipeline.on_wake()
    assert not executor.held_up
    bench.run_all()
    assert [bench.outcome(call).code for call in calls] == [RESOURCE_EXHAUSTED] * 2 + [OK] * 2
    assert bench.outcome(calls[0]).message == NO_MEMORY
    bench.close()


# Limits that change while a version serves.


def test_a_shorter_delay_counts_for_what_waits_already(stepped_clock: None) -> None:
    bench = Bench(make_entry(identity(), delay_ns=SECOND_NS))
    call = bench.call(ROW)
    assert bench.run_all() == 0
    bench.pipeline.set_limits(bench.entries[0], delay_ns=0, queue_limit_rows=7)
    assert (bench.entries[0].delay_ns, bench.entries[0].queue_limit_rows) == (0, 7)
    assert bench.run_all() == 1
    assert bench.outcome(call).code == OK
    bench.close()


def test_a_smaller_bound_refuses_what_comes_from_now_on() -> None:
    bench = Bench(make_entry(identity()))
    waiting = [bench.call(ROW) for _ in range(3)]
    bench.pipeline.set_limits(bench.entries[0], delay_ns=0, queue_limit_rows=2)
    refused = bench.call(ROW)
    assert bench.outcome(refused).code == RESOURCE_EXHAUSTED
    assert "it holds 3 of at most 2 rows" in bench.outcome(refused).message
    bench.run_all()
    assert [bench.outcome(call).code for call in waiting] == [OK] * 3
    bench.close()


@pytest.mark.parametrize(("delay_ns", "rows"), [(-1, 1), (0, 0)])
def test_limits_that_cannot_be(delay_ns: int, rows: int) -> None:
    bench = Bench(make_entry(identity()))
    with pytest.raises(ValueError, match=f"delay_ns {delay_ns} .*queue_limit_rows {rows} "):
        bench.pipeline.set_limits(bench.entries[0], delay_ns=delay_ns, queue_limit_rows=rows)
    bench.close()


@pytest.mark.parametrize("weight", [0, -1, 1001])
def test_a_weight_that_cannot_be(weight: int) -> None:
    bench = Bench(make_entry(identity()))
    with pytest.raises(ValueError, match=f"weight {weight} from 1 to 1000"):
        bench.pipeline.set_limits(bench.entries[0], delay_ns=0, queue_limit_rows=1, weight=weight)
    with pytest.raises(ValueError, match=f"weight {weight} must be from 1 to 1000"):
        make_entry(identity(), weight=weight)
    bench.close()


def test_limits_of_a_version_that_is_not_attached() -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="is not attached"):
        bench.pipeline.set_limits(make_entry(identity()), delay_ns=0, queue_limit_rows=1)
    bench.close()
