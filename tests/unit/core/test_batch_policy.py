"""When a batch closes, and why: every case of a small table against the rule in other words."""

from itertools import product

import pytest

from infer._core._testing_batcher import CLOSE_NOW, NEVER_NS, WAIT_FOR_EVENT, decide, run_ns, takes

GATHER, OLDEST = 4, 1_000


def told(*, rows: int, delay: int, shapes: int, running: int, max_running: int, waited: int,
         patience: int) -> tuple[int, str]:
    """DESIGN's rule: work-conserving; with a delay, an incomplete batch waits, but never for others' shapes, nor for
    longer than the `patience` that a deadline leaves."""
    nothing_to_run = rows == 0
    none_may_run = running >= max_running
    complete = rows >= GATHER
    somebody_else_waits = shapes > 1
    reason = "full" if complete else "shape" if somebody_else_waits else "idle"
    if nothing_to_run or none_may_run:
        return WAIT_FOR_EVENT, reason
    if reason != "idle" or delay == 0:
        return CLOSE_NOW, reason
    reason = "deadline" if patience < delay else "delay"
    patience_left = min(delay, patience) - waited
    return (CLOSE_NOW if patience_left <= 0 else OLDEST + min(delay, patience)), reason


@pytest.mark.parametrize(("delay", "running", "max_running"), list(product([0, 1, 500], [0, 1, 2, 3], [1, 2, 3])))
@pytest.mark.parametrize("patience", [-1, 0, 1, 300, 499, 500, 501, NEVER_NS - OLDEST - 7])
def test_every_case_of_a_small_table(delay: int, running: int, max_running: int, patience: int) -> None:
    for rows, shapes, waited in product(range(GATHER + 3), [1, 2, 5], [0, 1, 299, 300, 499, 500, 501]):
        verdict = decide(rows=rows, oldest_ns=OLDEST, deadline_ns=OLDEST + patience + 7, run_ns=7, gather_rows=GATHER,
                         delay_ns=delay, shapes=shapes, running=running, max_running=max_running, now=OLDEST + waited)
        assert verdict == told(rows=rows, delay=delay, shapes=shapes, running=running, max_running=max_running,
                               waited=waited, patience=patience)


@pytest.mark.parametrize("deadline", [NEVER_NS, OLDEST + 320])
def test_a_time_to_ask_again_is_in_the_future_and_then_the_batch_closes(deadline: int) -> None:
    last = min(500, deadline - 20 - OLDEST)
    for waited in range(last):
        at, why = decide(rows=1, oldest_ns=OLDEST, deadline_ns=deadline, run_ns=20, gather_rows=GATHER, delay_ns=500,
                         shapes=1, running=0, max_running=1, now=OLDEST + waited)
        assert at == OLDEST + last > OLDEST + waited
        assert decide(rows=1, oldest_ns=OLDEST, deadline_ns=deadline, run_ns=20, gather_rows=GATHER, delay_ns=500,
                      shapes=1, running=0, max_running=1, now=at) == (CLOSE_NOW, why)


def test_a_batch_takes_its_first_request_always_and_others_while_rows_last() -> None:
    for batch, request, gather in product(range(10), range(1, 10), range(1, 8)):
        assert takes(batch, request, gather) == (batch == 0 or batch + request <= gather)


# How long a run takes, by those that were measured.


def test_no_time_is_enough_before_a_batch_was_measured() -> None:
    assert run_ns([]) > 10**18


@pytest.mark.parametrize("took", [1, 1_000, 50_000_000])
def test_batches_that_take_the_same_leave_no_doubt_after_a_while(took: int) -> None:
    assert run_ns([took]) > 2 * took
    assert took <= run_ns([took] * 100) - run_ns([1] * 100) + 1 <= took * 1.05


def test_one_that_takes_longer_is_allowed_for_at_once() -> None:
    steady = [1_000_000] * 50
    assert run_ns([*steady, 9_000_000]) > 9_000_000
    assert run_ns([*steady, 9_000_000, *steady]) < 2_000_000
