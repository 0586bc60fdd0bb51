"""How requests wait: bounds in requests, times in the queue, levels of priority, and changes of all three."""

from typing import Any

import pytest

from infer._core import clock
from infer._core._testing_batcher import LEVEL_STEP_NS
from infer._core._testing_request import STATES
from infer._core.model_version import VersionEntry
from infer.services.statistics import statistics_of
from tests.support.models import identity
from tests.support.puppets import MILLISECOND_NS, SECOND_NS, Bench, codes_of, make_entry, rows_of
from tests.support.requests import add_raw, infer_request, pack

OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 4, 8
TIMEOUT_MS = 10
# (max_requests, timeout_ns, delays, overridable)
FREE = (0, 0, False, False)
REJECT = (0, TIMEOUT_MS * MILLISECOND_NS, False, False)
DELAY = (0, TIMEOUT_MS * MILLISECOND_NS, True, False)
WAITED = ("the request waited longer than 10000 us in the queue of model 'm'; it was not run. Send to another replica, "
          "or let requests wait for longer (default_timeout_microseconds, or parameter `timeout` where "
          "allow_timeout_override is set)")


def request(*, priority: int | None = None, timeout_us: int | None = None) -> bytes:
    message = infer_request("m")
    if priority is not None:
        message.parameters["priority"].uint64_param = priority
    if timeout_us is not None:
        message.parameters["timeout"].int64_param = timeout_us
    add_raw(message, "x", "FP32", [1, 4], pack("FP32", [1.0] * 4))
    return bytes(message.SerializeToString())


def queue_of(*policies: tuple[int, int, bool, bool], **fields: Any) -> tuple[Bench, VersionEntry]:
    """A model that runs a request at a time, on one executor."""
    entry = make_entry(identity(), gather_rows=1, policies=policies, **fields)
    return Bench(entry), entry


def refused(entry: VersionEntry) -> dict[str, int]:
    return {limit: count for limit, count in entry.stats_snapshot((), ())["queue_refused"].items() if count}


def order_of_runs(bench: Bench) -> list[int]:
    before = len(bench.outcomes)
    bench.run_all()
    return [outcome.call for outcome in bench.outcomes[before:]]


# Bounds in requests.


def test_a_queue_with_as_many_requests_as_may_wait_refuses_more(stepped_clock: None) -> None:
    bench, entry = queue_of((2, 0, False, False))
    waiting = [bench.call(request()) for _ in range(2)]
    more = bench.outcome(bench.call(request()))
    assert (more.code, more.pushback_ms, more.message) == (
        RESOURCE_EXHAUSTED, 1, "the queue of model 'm' is full: it holds 2 of at most 2 requests (max_queue_size); "
        "retry later or send to another replica")
    assert bench.executors[0].step() == 1
    waiting.append(bench.call(request()))
    bench.run_all()
    assert [bench.outcome(call).code for call in waiting] == [OK] * 3
    assert refused(entry) == {"max_queue_size": 1}
    bench.close()


def test_what_would_only_wait_longer_is_refused_by_a_name_of_its_own(stepped_clock: None) -> None:
    bench, entry = queue_of()
    bench.pipeline.set_adaptive_rows(entry, 2)
    waiting = [bench.call(request()) for _ in range(2)]
    more = bench.outcome(bench.call(request()))
    assert (more.code, more.pushback_ms, more.message) == (
        RESOURCE_EXHAUSTED, 1, "the queue of model 'm' is full: it holds 2 of at most 2 rows (--adaptive-limit: more "
        "would only wait longer), the request brings 1; retry later or send to another replica")
    bench.pipeline.set_adaptive_rows(entry, 1)
    assert refused(entry) == {"adaptive_limit": 1}
    bench.pipeline.set_adaptive_rows(entry, 0)
    waiting += [bench.call(request()) for _ in range(9)]
    bench.run_all()
    assert [bench.outcome(call).code for call in waiting] == [OK] * 11
    bench.close()
    with pytest.raises(ValueError, match="attached"):
        bench.pipeline.set_adaptive_rows(entry, 1)


def test_a_refusal_and_each_wake_after_it_end_with_a_turn_of_the_loop(stepped_clock: None) -> None:
    bench, _ = queue_of((1, 0, False, False))
    bench.call(request())
    bench.pipeline.on_wake()
    assert bench.loop.fire_due() == 0
    for _ in range(3):
        assert bench.outcome(bench.call(request())).code == RESOURCE_EXHAUSTED
    assert bench.loop.fire_due() == 1
    for _ in range(2):
        bench.pipeline.on_wake()
        assert bench.loop.fire_due() == 1
    bench.advance(101 * MILLISECOND_NS)
    # The last one finds that nothing was refused for long enough.
    for fired in (1, 0):
        bench.pipeline.on_wake()
        assert bench.loop.fire_due() == fired
    bench.run_all()
    bench.close()


def test_each_level_has_a_bound_of_its_own(stepped_clock: None) -> None:
    bench, entry = queue_of(FREE, (1, 0, False, False), levels=2, default_level=1)
    bench.call(request(priority=2))
    more = bench.outcome(bench.call(request(priority=2)))
    assert (more.code, "it holds 1 of at most 1 requests of priority 2 (max_queue_size)" in more.message) == (
        RESOURCE_EXHAUSTED, True)
    others = [bench.call(request()) for _ in range(3)]
    bench.run_all()
    assert [bench.outcome(call).code for call in others] == [OK] * 3
    bench.close()
    assert refused(entry) == {"max_queue_size": 1}


def test_the_bound_in_rows_holds_beside_it_and_is_counted_by_its_own_name() -> None:
    bench, entry = queue_of((5, 0, False, False), queue_limit_rows=1)
    bench.call(request())
    assert "rows (--max-queue-rows)" in bench.outcome(bench.call(request())).message
    assert refused(entry) == {"max_queue_rows": 1}
    bench.run_all()
    bench.close()


def test_one_that_was_delayed_still_counts_for_its_level(stepped_clock: None) -> None:
    bench, entry = queue_of((1, TIMEOUT_MS * MILLISECOND_NS, True, False))
    bench.call(request())
    bench.advance((TIMEOUT_MS + 2) * MILLISECOND_NS)
    assert bench.outcome(bench.call(request())).code == RESOURCE_EXHAUSTED
    assert entry.stats_snapshot((), ())["queue_delayed"] == 1
    bench.run_all()
    assert not bench.answered(bench.call(request()))
    bench.run_all()
    bench.close()


# Times in the queue.


def test_a_request_that_waits_for_too_long_is_refused_and_never_run(stepped_clock: None) -> None:
    bench, entry = queue_of(REJECT)
    call = bench.call(request())
    bench.advance(TIMEOUT_MS * MILLISECOND_NS - 1)
    assert not bench.answered(call)
    bench.advance(2 * MILLISECOND_NS)
    assert (bench.outcome(call).code, bench.outcome(call).message) == (DEADLINE_EXCEEDED, WAITED)
    assert bench.run_all() == 0
    assert (rows_of(entry), refused(entry)) == (0, {"queue_timeout": 1})
    statistics = statistics_of(entry).inference_stats
    assert (statistics.fail.count, statistics.queue.count, statistics.queue.ns) == (1, 0, 0)
    assert statistics.fail.ns >= TIMEOUT_MS * MILLISECOND_NS
    assert bench.loop.next_ns is None
    bench.close()


@pytest.mark.parametrize(("default_ms", "allowed", "asked_us", "waits_ms"), [
    (0, True, None, None), (0, True, 0, None), (0, True, 3_000, 3), (0, False, 3_000, None),
    (10, True, 3_000, 3), (10, True, 30_000, 10), (10, True, 0, 10), (10, False, 3_000, 10),
    (0, True, 2**63 - 1, None), (10, True, 2**63 - 1, 10),
])
def test_a_request_may_ask_for_a_shorter_time_where_that_is_allowed(
        stepped_clock: None, default_ms: int, allowed: bool, asked_us: int | None, waits_ms: int | None) -> None:
    bench, _ = queue_of((0, default_ms * MILLISECOND_NS, False, allowed))
    call = bench.call(request(timeout_us=asked_us))
    if waits_ms is None:
        bench.advance(3600 * SECOND_NS)
    else:
        bench.advance(waits_ms * MILLISECOND_NS - 1)
        assert not bench.answered(call)
        bench.advance(2 * MILLISECOND_NS)
        assert f"waited longer than {waits_ms * 1000} us" in bench.outcome(call).message
    bench.run_all()
    assert bench.outcome(call).code == (OK if waits_ms is None else DEADLINE_EXCEEDED)
    bench.close()


def test_a_deadline_that_comes_before_that_time_counts(stepped_clock: None) -> None:
    bench, entry = queue_of(REJECT)
    call = bench.call(request(), deadline_ns=clock.now() + MILLISECOND_NS)
    bench.advance(3 * MILLISECOND_NS)
    assert bench.outcome(call).message == "the deadline passed while the request waited in its queue; it was not run"
    bench.close()
    assert refused(entry) == {}


@pytest.mark.parametrize("policy", [REJECT, DELAY])
def test_one_that_runs_is_not_touched_by_it_and_has_its_deadline_still(stepped_clock: None, policy: Any) -> None:
    bench, entry = queue_of(policy)
    first, last = (bench.call(request(), deadline_ns=clock.now() + 50 * MILLISECOND_NS) for _ in range(2))
    watch = bench.transport.watch(first)
    bench.executors[0].take()
    bench.advance((TIMEOUT_MS + 2) * MILLISECOND_NS)
    assert (watch.state, watch.timed) == (STATES["RUNNING"], True)
    assert bench.answered(last) == (policy is REJECT)
    bench.advance(40 * MILLISECOND_NS)
    assert bench.outcome(first).message == "the deadline passed while the model ran"
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.run_all()
    assert codes_of(entry) == {DEADLINE_EXCEEDED: 2}
    bench.close()


def test_one_that_runs_without_a_deadline_ends_as_if_there_were_no_time(stepped_clock: None) -> None:
    bench, entry = queue_of(REJECT)
    call = bench.call(request())
    bench.executors[0].take()
    bench.advance(2 * TIMEOUT_MS * MILLISECOND_NS)
    assert bench.loop.next_ns is None
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.pipeline.on_wake()
    assert (bench.outcome(call).code, refused(entry)) == (OK, {})
    bench.close()


def test_one_that_is_delayed_goes_behind_all_others_and_is_run(stepped_clock: None) -> None:
    bench, entry = queue_of(DELAY)
    early, timed = bench.call(request()), bench.call(request(), deadline_ns=clock.now() + 20 * MILLISECOND_NS)
    bench.advance((TIMEOUT_MS + 2) * MILLISECOND_NS)
    late = bench.call(request())
    assert entry.stats_snapshot((), ())["queue_delayed"] == 2
    # Its deadline is timed again.
    bench.advance(9 * MILLISECOND_NS)
    assert "the deadline passed while the request waited" in bench.outcome(timed).message
    assert order_of_runs(bench) == [late, early]
    assert codes_of(entry) == {OK: 2, DEADLINE_EXCEEDED: 1}
    assert refused(entry) == {}
    bench.close()


def test_a_call_that_is_cancelled_leaves_no_time_behind(stepped_clock: None) -> None:
    bench, _ = queue_of(REJECT)
    bench.transport.cancel(bench.call(request()))
    bench.advance(SECOND_NS)
    assert (bench.outcomes, bench.loop.next_ns) == ([], None)
    bench.close()


def test_many_times_end_each_in_its_turn(stepped_clock: None) -> None:
    """The loop's timer is set for the first of deadlines and times alike."""
    bench, _ = queue_of((0, 0, False, True))
    waits_ms = [70, 10, 300, 40]
    calls = [bench.call(request(timeout_us=wait * 1000), deadline_ns=clock.now() + 200 * MILLISECOND_NS)
             for wait in waits_ms]
    ended: dict[int, int] = {}
    began = clock.now()
    while (at := bench.loop.next_ns) is not None:
        bench.advance(at - clock.now())
        for outcome in bench.outcomes:
            ended.setdefault(outcome.call, (clock.now() - began) // MILLISECOND_NS)
    for call, wait in zip(calls, waits_ms, strict=True):
        assert 0 <= ended[call] - min(wait, 200) <= 2
    bench.close()


# Levels of priority.


def test_the_more_urgent_run_first_and_those_that_ask_for_no_level_have_the_default_one(stepped_clock: None) -> None:
    bench, _ = queue_of(levels=3, default_level=2)
    asked = [3, 2, 1, None, 0, 4, 2**64 - 1, 1]
    calls = [bench.call(request(priority=priority)) for priority in asked]
    assert [asked[calls.index(call)] for call in order_of_runs(bench)] == [1, 1, 2, None, 0, 4, 2**64 - 1, 3]
    bench.close()


def test_without_levels_a_priority_changes_nothing() -> None:
    for policies in ([], [REJECT]):
        bench, _ = queue_of(*policies)
        calls = [bench.call(request(priority=priority)) for priority in (3, 1, 2)]
        assert order_of_runs(bench) == calls
        bench.close()


def test_the_least_urgent_is_run_at_last_however_many_others_come(stepped_clock: None) -> None:
    bench, _ = queue_of(levels=2, default_level=1)
    least = bench.call(request(priority=2))
    bench.call(request())
    steps = 0
    while not bench.answered(least):
        bench.call(request())
        bench.advance(MILLISECOND_NS)
        bench.executors[0].step()
        bench.pipeline.on_wake()
        steps += 1
    assert steps - 2 <= LEVEL_STEP_NS // MILLISECOND_NS <= steps
    bench.run_all()
    bench.close()


# Changes while the version serves.


def test_other_policies_count_for_what_comes_and_what_waits_keeps_its_own_time(stepped_clock: None) -> None:
    bench, entry = queue_of(REJECT, FREE, levels=2, default_level=1)
    timed = bench.call(request())
    bench.pipeline.set_limits(entry, delay_ns=0, queue_limit_rows=8, default_level=2,
                              policies=[DELAY, (1, 0, False, False)])
    assert entry.levels == 2
    delayed, other = bench.call(request(priority=1)), bench.call(request())
    assert "of priority 2 (max_queue_size)" in bench.outcome(bench.call(request())).message
    bench.advance((TIMEOUT_MS + 2) * MILLISECOND_NS)
    assert bench.outcome(timed).message == WAITED
    assert order_of_runs(bench) == [other, delayed]
    bench.close()


def test_policies_come_and_go(stepped_clock: None) -> None:
    bench, entry = queue_of()
    first = bench.call(request())
    bench.pipeline.set_limits(entry, delay_ns=0, queue_limit_rows=8, policies=[REJECT])
    second = bench.call(request())
    bench.pipeline.set_limits(entry, delay_ns=0, queue_limit_rows=8)
    third = bench.call(request())
    bench.advance(SECOND_NS)
    assert bench.outcome(second).message == WAITED
    assert order_of_runs(bench) == [first, third]
    bench.close()


@pytest.mark.parametrize("policy", [
    {"default_level": 3}, {"default_level": 0}, {"default_level": 1, "policies": [REJECT]}])
def test_policies_for_other_levels_than_there_are_change_nothing(policy: dict[str, Any]) -> None:
    bench, entry = queue_of((1, 0, False, False), FREE, levels=2, default_level=1)
    with pytest.raises(ValueError, match="one for each"):
        bench.pipeline.set_limits(entry, delay_ns=0, queue_limit_rows=8, **policy)
    bench.call(request())
    assert bench.outcome(bench.call(request())).code == RESOURCE_EXHAUSTED
    bench.run_all()
    bench.close()
