"""Gates in front of the queue, as the pipeline applies them: the queue's bound in rows, and the deadline."""

import pytest

from infer._core import clock
from tests.support.models import identity
from tests.support.puppets import MILLISECOND_NS, Bench, codes_of, fp32_request, make_entry, rows_of

DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 4, 8


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
