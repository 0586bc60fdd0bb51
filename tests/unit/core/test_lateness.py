"""Which requests a batch takes, sets aside, or leaves for the next, by their deadlines."""

from __future__ import annotations

import pytest

from infer._core._testing_pace import JOINS, LATE, STAYS, PaceBox

NOW, MS = 1_000_000_000, 1_000_000
NONE = 0


def at(milliseconds: float) -> int:
    return NOW + round(milliseconds * MS)


def pace_of(fixed_ms: float, each_ms: float) -> PaceBox:
    pace = PaceBox()
    for rows in (1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64):
        pace.ran(rows, round((fixed_ms + each_ms * rows) * MS), NOW)
    return pace


LINEAR, FLAT, UNKNOWN = pace_of(0, 1), pace_of(10, 0.01), PaceBox()


@pytest.mark.parametrize(("pace", "requests", "fates"), [
    # Without deadlines all join.
    (LINEAR, [(1, NONE)] * 3, [JOINS] * 3),
    (LINEAR, [(1, at(50))] * 3, [JOINS] * 3),
    # A deadline that has passed: whatever is known, wherever it stands.
    (UNKNOWN, [(1, at(0)), (1, at(-1)), (1, at(1))], [LATE, LATE, JOINS]),
    (UNKNOWN, [(1, NONE), (1, at(0)), (1, NONE)], [JOINS, LATE, JOINS]),
    (LINEAR, [(1, at(0))], [LATE]),
    # What nobody has measured makes nobody late.
    (UNKNOWN, [(64, at(0.001)), (64, at(0.001))], [JOINS, JOINS]),
    # The first one cannot be answered in time, so that the others can.
    (LINEAR, [(4, at(3)), (1, at(50)), (1, at(50))], [LATE, JOINS, JOINS]),
    # ... but for one that none waits behind: how else would a wrong measure come right?
    (LINEAR, [(4, at(3))], [JOINS]),
    (LINEAR, [(4, at(3)), (4, at(3))], [LATE, JOINS]),
    # As many as the first one's deadline leaves time for.
    (LINEAR, [(1, at(2.5)), (1, at(50)), (1, at(50))], [JOINS, JOINS, STAYS]),
    (LINEAR, [(1, at(2.5)), (1, NONE), (1, NONE)], [JOINS, JOINS, STAYS]),
    # One that would be late in this batch waits for the next.
    (LINEAR, [(3, at(50)), (1, at(3.5))], [JOINS, STAYS]),
    # An eighth of the time is left for what nobody foresees.
    (LINEAR, [(3, at(50)), (1, at(4.5))], [JOINS, STAYS]),
    (LINEAR, [(3, at(50)), (1, at(4.6)), (1, at(50))], [JOINS, JOINS, STAYS]),
])
def test_fates(pace: PaceBox, requests: list[tuple[int, int]], fates: list[int]) -> None:
    assert pace.fates(requests, waiting_rows=sum(rows for rows, _ in requests), gather_rows=64, now=NOW) == fates


def test_a_full_batch_is_not_given_up_for_one_that_leaves_time_for_a_small_one() -> None:
    requests = [(1, at(11.66)), *[(1, at(50))] * 63]
    # 20 rows in 10.2 ms, or 63 in 10.6.
    assert FLAT.fates(requests, waiting_rows=64, gather_rows=64, now=NOW) == [LATE] + [JOINS] * 63
    # There is no full batch: it loses nothing.
    assert FLAT.fates(requests[:30], waiting_rows=30, gather_rows=64, now=NOW)[0] == JOINS
    # Where rows cost alike, a small batch is as good as a large one.
    assert LINEAR.fates(requests, waiting_rows=64, gather_rows=64, now=NOW) == [JOINS] * 10 + [STAYS]


def test_who_is_not_judged_is_late_at_its_deadline_alone() -> None:
    pace = PaceBox(judges=False)
    for _ in range(4):
        pace.ran(1, 10 * MS, NOW)
    requests = [(1, at(0)), (1, at(5)), (1, at(5))]
    assert pace.fates(requests, waiting_rows=3, gather_rows=64, now=NOW) == [LATE, JOINS, JOINS]


def test_a_larger_request_than_a_batch_gathers_is_judged_by_its_own_size() -> None:
    assert LINEAR.fates([(60, at(50)), (1, at(50))], waiting_rows=61, gather_rows=8, now=NOW) == [LATE, JOINS]
