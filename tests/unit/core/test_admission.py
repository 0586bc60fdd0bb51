"""Gates in front of the queue, as the pipeline applies them: the queue's bound in rows, and the deadline."""

import pytest

from infer._core import clock
from infer._core.model_version import VersionEntry
from tests.support.models import identity
from tests.support.puppets import MILLISECOND_NS, Bench, codes_of, fp32_request, make_entry, rows_of

DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 4, 8, 14


def rows(count: int) -> bytes:
    return fp32_request([[0.0] * 4] * count)


@pytest.mark.parametrize(("queued", "more", "admitted"), [
    (0, 1, True), (0, 8, True), (0, 9, True), (0, 1000, True),
    (1, 7, True), (1, 8, False), (7, 1, True), (7, 2, False), (8, 1, False), (9, 1, False),
])
def test_f14_a_request_is_admitted_while_its_rows_fit_and_into_an_empty_queue_always(
        queued: int, more: int, admitted: bool) -> None:
    bench = Bench(make_entry(identity(), queue_limit_rows=8))
    if queued:
        bench.call(rows(queued))
    call = bench.call(rows(more))
    assert bench.answered(call) != admitted
    bench.run_all()
    assert bench.outcome(call).code == (0 if admitted else RESOURCE_EXHAUSTED)
    bench.close()


def test_f14_a_full_queue_names_its_model_its_bound_and_what_to_do() -> None:
    bench = Bench(make_entry(identity(), queue_limit_rows=8))
    bench.call(rows(7))
    refused = bench.call(rows(2))
    assert bench.outcome(refused).message == (
        "the queue of model 'm' is full: it holds 7 of at most 8 rows (--max-queue-rows), the request brings 2; "
        "retry later or send to another replica")
    bench.run_all()
    bench.close()


def test_f14_a_full_queue_answers_at_once_with_the_time_in_which_it_may_drain(stepped_clock: None) -> None:
    entry = make_entry(identity(), queue_limit_rows=8)
    bench = Bench(entry)
    bench.call(rows(8))
    refused = bench.outcome(bench.call(rows(1)))
    assert (refused.code, refused.pushback_ms) == (RESOURCE_EXHAUSTED, 1)
    assert rows_of(entry) == 0
    bench.run_all()
    bench.close()
    assert codes_of(entry) == {0: 1, RESOURCE_EXHAUSTED: 1}


HELD = len(rows(2)) + 5     # of a message with its prefix


def refusals(entry: VersionEntry) -> dict[str, int]:
    return {limit: count for limit, count in entry.stats_snapshot((), ())["queue_refused"].items() if count}


def test_f14_a_queue_holds_so_many_bytes_of_requests() -> None:
    entry = make_entry(identity(), queue_limit_bytes=2 * HELD)
    bench = Bench(entry)
    waiting = [bench.call(rows(2)) for _ in range(2)]
    assert bench.pipeline.queued_bytes_of(entry) == 2 * HELD
    refused = bench.outcome(bench.call(rows(2)))
    assert refused.code == RESOURCE_EXHAUSTED
    assert refused.pushback_ms >= 1
    assert refused.message == (
        f"the queue of model 'm' is full: it holds {2 * HELD} of at most {2 * HELD} bytes (--max-queue-bytes), the "
        f"request brings {HELD}; retry later or send to another replica")
    assert refusals(entry) == {"max_queue_bytes": 1}
    bench.run_all()
    assert bench.pipeline.queued_bytes_of(entry) == 0
    # An empty queue takes any one request.
    waiting.append(bench.call(rows(100)))
    bench.run_all()
    assert [bench.outcome(call).code for call in waiting] == [0] * 3
    bench.close()


@pytest.mark.parametrize(("bounds", "limit", "holds"), [
    ({"queued_rows": 4, "queued_bytes": 1 << 30}, "max_queue_rows_total",
     "4 of at most 4 rows (--max-queue-rows-total)"),
    ({"queued_rows": 1 << 30, "queued_bytes": 2 * HELD + 1}, "max_queue_bytes_total",
     f"{2 * HELD} of at most {2 * HELD + 1} bytes (--max-queue-bytes-total)"),
])
def test_f14_all_queues_hold_so_much_together(bounds: dict[str, int], limit: str, holds: str) -> None:
    entries = [make_entry(identity(), name) for name in ("m", "n")]
    bench = Bench(*entries)
    bench.pipeline.set_bounds(**bounds)
    bench.call(rows(2))
    cancelled = bench.call(rows(2))
    refused = bench.outcome(bench.call(fp32_request([[0.0] * 4] * 2, "n")))
    assert (refused.code, refused.pushback_ms) == (RESOURCE_EXHAUSTED, 1)
    assert refused.message.startswith(f"the queues of all models are full: they hold {holds}, the request brings ")
    assert refusals(entries[1]) == {limit: 1}
    bench.transport.cancel(cancelled)
    other = bench.call(fp32_request([[0.0] * 4] * 2, "n"))
    bench.run_all()
    assert bench.outcome(other).code == 0
    bench.close()


@pytest.mark.parametrize("bounds", [{"queued_rows": 0, "queued_bytes": 1}, {"queued_rows": 1, "queued_bytes": 0}])
def test_bounds_that_cannot_be(bounds: dict[str, int]) -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="must be at least 1"):
        bench.pipeline.set_bounds(**bounds)
    bench.close()


def busy(bench: Bench, took_ms: int) -> int:
    """A call that runs, of a model whose runs have taken so long."""
    executor = bench.executors[0]
    for _ in range(2):
        bench.call(rows(1))
        executor.take()
        clock.advance(took_ms * MILLISECOND_NS)
        executor.run(took_ms * MILLISECOND_NS)
        executor.publish()
        bench.pipeline.on_wake()
    running = bench.call(rows(1))
    assert executor.take() == 1
    return running


def test_who_cannot_be_answered_in_time_is_refused_at_once(stepped_clock: None) -> None:
    entry = make_entry(identity(), gather_rows=1)
    bench = Bench(entry)
    running = busy(bench, 10)
    clock.advance(4 * MILLISECOND_NS)
    # 6 ms until it could run, 10 ms for its own run, and a quarter for what nobody foresees.
    late = bench.outcome(bench.call(rows(1), deadline_ns=clock.now() + 20 * MILLISECOND_NS - 1))
    assert (late.code, late.pushback_ms) == (RESOURCE_EXHAUSTED, 16)
    assert late.message == (
        "model 'm' cannot answer in time: with what waits before it the request would take about 16000 us, its "
        "deadline is in 19999 us; it was not run. Send to another replica, or allow it more time")
    in_time = bench.call(rows(1), deadline_ns=clock.now() + 20 * MILLISECOND_NS)
    behind = bench.outcome(bench.call(rows(1), deadline_ns=clock.now() + 32 * MILLISECOND_NS))
    assert (behind.code, behind.pushback_ms) == (RESOURCE_EXHAUSTED, 26)
    patient = bench.call(rows(1))
    assert refusals(entry) == {"deadline": 2}
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.run_all()
    assert [bench.outcome(call).code for call in (running, in_time, patient)] == [0] * 3
    bench.close()


def test_nobody_is_judged_where_that_was_not_asked_for(stepped_clock: None) -> None:
    entry = make_entry(identity(), gather_rows=1)
    bench = Bench(entry, judge_deadlines=False)
    running = busy(bench, 10)
    late = bench.call(rows(1), deadline_ns=clock.now() + 1)
    patient = bench.call(rows(1), deadline_ns=clock.now() + 2)
    # It is the first in turn at its deadline, before its timer ends it.
    clock.advance(1)
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.run_all()
    assert [bench.outcome(call).code for call in (running, patient)] == [0, 0]
    clock.advance(10 * MILLISECOND_NS)
    bench.loop.fire_due()
    assert bench.outcome(late).code == DEADLINE_EXCEEDED
    assert entry.stats_snapshot((), ())["expired"] == {"queue": 1, "run": 0}
    bench.close()


QUEUE_FULL, TIMEOUT = "Exceeds maximum queue size", "Request timeout expired"


def test_tritons_codes_and_texts_where_a_queue_refuses(stepped_clock: None) -> None:
    entry = make_entry(identity(), gather_rows=1, queue_limit_rows=2,
                       policies=[(0, 30 * MILLISECOND_NS, False, False)])
    bench = Bench(entry, triton_codes=True)
    running = busy(bench, 10)
    hurried = bench.outcome(bench.call(rows(1), deadline_ns=clock.now() + MILLISECOND_NS))
    assert (hurried.code, hurried.message) == (UNAVAILABLE, QUEUE_FULL)
    late = bench.call(rows(1), deadline_ns=clock.now() + 29 * MILLISECOND_NS)
    waiting = bench.call(rows(1))
    more = bench.outcome(bench.call(rows(1)))
    assert (more.code, more.message) == (UNAVAILABLE, QUEUE_FULL)
    assert more.pushback_ms >= 1
    clock.advance(29 * MILLISECOND_NS)
    bench.loop.fire_due()
    # gRPC's own deadline is no matter of the queue.
    assert bench.outcome(late).code == DEADLINE_EXCEEDED
    clock.advance(2 * MILLISECOND_NS)
    bench.loop.fire_due()
    assert (bench.outcome(waiting).code, bench.outcome(waiting).message) == (UNAVAILABLE, TIMEOUT)
    assert refusals(entry) == {"max_queue_rows": 1, "queue_timeout": 1, "deadline": 1}
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.run_all()
    assert bench.outcome(running).code == 0
    assert codes_of(entry) == {0: 3, DEADLINE_EXCEEDED: 1, UNAVAILABLE: 3}
    bench.close()


@pytest.mark.parametrize(("triton", "codes"), [(False, [5, 3, 9, 14]), (True, [5, 3, 5, 14])])
def test_tritons_codes_elsewhere(triton: bool, codes: list[int]) -> None:
    """Of an unknown model, tensors that do not fit, a model that failed to load and one that is loading."""
    bench = Bench(make_entry(identity()), triton_codes=triton, unready=[
        ("broken", (9, "model 'broken' failed to load")), ("coming", (14, "model 'coming' is loading"))])
    calls = [bench.call(fp32_request([[0.0] * 4], "nobody")), bench.call(fp32_request([[0.0] * 3])),
             bench.call(fp32_request([[0.0] * 4], "broken")), bench.call(fp32_request([[0.0] * 4], "coming"))]
    assert [bench.outcome(call).code for call in calls] == codes
    bench.close()


def test_an_idle_model_refuses_nobody_for_a_deadline(stepped_clock: None) -> None:
    bench = Bench(make_entry(identity(), gather_rows=1))
    running = busy(bench, 10)
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.run_all()
    hurried = bench.call(rows(1), deadline_ns=clock.now() + 1)
    bench.run_all()
    assert [bench.outcome(call).code for call in (running, hurried)] == [0, 0]
    bench.close()


def test_one_that_has_become_late_is_not_run_and_hears_so_at_its_deadline(stepped_clock: None) -> None:
    entry = make_entry(identity(), gather_rows=1)
    bench = Bench(entry)
    running = busy(bench, 10)
    late = bench.call(rows(1), deadline_ns=clock.now() + 25 * MILLISECOND_NS)
    patient = bench.call(rows(1))
    # The run takes longer than those before it.
    clock.advance(16 * MILLISECOND_NS)
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.run_all()
    assert [bench.outcome(call).code for call in (running, patient)] == [0, 0]
    assert not bench.answered(late)
    assert (bench.pipeline.queued_rows, bench.pipeline.queued_requests) == (0, 0)
    assert bench.pipeline.queued_bytes_of(entry) == 0
    clock.advance(10 * MILLISECOND_NS)
    bench.loop.fire_due()
    assert bench.outcome(late).code == DEADLINE_EXCEEDED
    assert bench.outcome(late).message == "the deadline passed while the request waited in its queue; it was not run"
    assert entry.stats_snapshot((), ())["expired"] == {"queue": 1, "run": 0}
    bench.close()


@pytest.mark.parametrize("end", ["cancel", "delay", "reject"])
def test_a_late_one_may_end_otherwise_before_its_deadline(stepped_clock: None, end: str) -> None:
    entry = make_entry(identity(), gather_rows=1, policies=[(0, 20 * MILLISECOND_NS, end == "delay", False)])
    bench = Bench(entry)
    busy(bench, 10)
    late = bench.call(rows(1), deadline_ns=clock.now() + 25 * MILLISECOND_NS)
    bench.call(rows(1))
    clock.advance(16 * MILLISECOND_NS)
    bench.executors[0].run()
    bench.executors[0].publish()
    bench.run_all()
    if end == "cancel":
        bench.transport.cancel(late)
    elif end == "delay":
        # It would go behind all others, and stays where it is.
        clock.advance(5 * MILLISECOND_NS)
        bench.loop.fire_due()
        assert not bench.answered(late)
        clock.advance(5 * MILLISECOND_NS)
        bench.loop.fire_due()
        assert bench.outcome(late).code == DEADLINE_EXCEEDED
        assert entry.stats_snapshot((), ())["queue_delayed"] == 0
    else:
        clock.advance(5 * MILLISECOND_NS)
        bench.loop.fire_due()
        assert bench.outcome(late).code == DEADLINE_EXCEEDED
        assert refusals(entry) == {"queue_timeout": 1}
    bench.close()


def test_f14_one_models_full_queue_does_not_refuse_anothers_requests() -> None:
    bench = Bench(make_entry(identity(), "full", queue_limit_rows=1), make_entry(identity(), "free"))
    bench.call(fp32_request([[0.0] * 4], "full"))
    assert bench.answered(bench.call(fp32_request([[0.0] * 4], "full")))
    assert not bench.answered(bench.call(fp32_request([[0.0] * 4], "free")))
    bench.run_all()
    bench.close()


@pytest.mark.parametrize("ahead_ns", [-MILLISECOND_NS, -1, 0])
def test_f6_a_deadline_that_has_passed_on_arrival_ends_the_call_before_its_message(
        stepped_clock: None, ahead_ns: int) -> None:
    bench = Bench(make_entry(identity()))
    call = bench.open(deadline_ns=clock.now() + ahead_ns)
    assert bench.outcome(call).code == DEADLINE_EXCEEDED
    assert bench.loop.next_ns is None
    bench.close()


def test_f6_a_deadline_that_is_a_nanosecond_away_is_not_passed(stepped_clock: None) -> None:
    bench = Bench(make_entry(identity()))
    call = bench.call(rows(1), deadline_ns=clock.now() + 1)
    bench.run_all()
    assert bench.outcome(call).code == 0
    bench.close()
