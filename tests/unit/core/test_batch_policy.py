"""When a batch closes: every case of a small table against the rule in other words."""

from itertools import product

import pytest

from infer._core._testing_batcher import CLOSE_NOW, WAIT_FOR_EVENT, decide, takes

GATHER, OLDEST = 4, 1_000


def told(*, rows: int, delay: int, shapes: int, running: int, max_running: int, waited: int) -> int:
    """DESIGN's rule: work-conserving; with a delay, an incomplete batch waits, but never for others' shapes."""
    nothing_to_run = rows == 0
    none_may_run = running >= max_running
    if nothing_to_run or none_may_run:
        return WAIT_FOR_EVENT
    complete = rows >= GATHER
    somebody_else_waits = shapes > 1
    patience_left = delay - waited
    if complete or somebody_else_waits or patience_left <= 0:
        return CLOSE_NOW
    return OLDEST + delay


@pytest.mark.parametrize(("delay", "running", "max_running"), list(product([0, 1, 500], [0, 1, 2, 3], [1, 2, 3])))
def test_every_case_of_a_small_table(delay: int, running: int, max_running: int) -> None:
    for rows, shapes, waited in product(range(GATHER + 3), [1, 2, 5], [0, 1, 499, 500, 501]):
        verdict = decide(rows=rows, oldest_ns=OLDEST, gather_rows=GATHER, delay_ns=delay, shapes=shapes,
                         running=running, max_running=max_running, now=OLDEST + waited)
        assert verdict == told(rows=rows, delay=delay, shapes=shapes, running=running, max_running=max_running,
                               waited=waited)


def test_a_time_to_ask_again_is_in_the_future_and_then_the_batch_closes() -> None:
    for waited in range(500):
        at = decide(rows=1, oldest_ns=OLDEST, gather_rows=GATHER, delay_ns=500, shapes=1, running=0, max_running=1,
                    now=OLDEST + waited)
        assert at > OLDEST + waited
        assert decide(rows=1, oldest_ns=OLDEST, gather_rows=GATHER, delay_ns=500, shapes=1, running=0, max_running=1,
                      now=at) == CLOSE_NOW


def test_a_batch_takes_its_first_request_always_and_others_while_rows_last() -> None:
    for batch, request, gather in product(range(10), range(1, 10), range(1, 8)):
        assert takes(batch, request, gather) == (batch == 0 or batch + request <= gather)
