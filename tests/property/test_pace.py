"""The measured pace: what it says of sizes that ran, of those that did not, and that single runs do not sway it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_pace import MEASURED_RUNS, STALE_NS, PaceBox

SECOND_NS = 1_000_000_000
ROWS = st.integers(1, 1 << 20)
# A run costs something for itself and something for each row.
COSTS = st.tuples(st.integers(1, 10**8), st.integers(0, 10**5))


def measured(fixed: int, each: int, sizes: list[int]) -> PaceBox:
    pace = PaceBox()
    for rows in sizes:
        for _ in range(MEASURED_RUNS):
            pace.ran(rows, fixed + each * rows, SECOND_NS)
    return pace


@given(runs=st.lists(st.tuples(ROWS, st.integers(0, 1 << 62), st.integers(0, 2**40))), asked=ROWS,
       now=st.integers(0, 2**41))
def test_it_is_never_negative_whatever_ran(runs: list[tuple[int, int, int]], asked: int, now: int) -> None:
    pace = PaceBox()
    for rows, run_ns, ended_ns in runs:
        pace.ran(rows, run_ns, ended_ns)
        pace.ended(rows, ended_ns)
    assert pace.run_time(asked, now) >= 0
    assert pace.held_up(10**9, now) >= 10**9
    assert pace.held_up(2**62, now) >= 2**62


@given(cost=COSTS, sizes=st.lists(ROWS, min_size=1, max_size=12), asked=ROWS)
def test_what_was_not_measured_is_guessed_low(cost: tuple[int, int], sizes: list[int], asked: int) -> None:
    fixed, each = cost
    truth = fixed + each * asked
    assert measured(fixed, each, sizes).run_time(asked, SECOND_NS) <= truth + truth // 1000 + 32


@given(cost=COSTS, asked=ROWS, data=st.data())
def test_between_two_measured_sizes_it_is_the_line(cost: tuple[int, int], asked: int, data: st.DataObject) -> None:
    fixed, each = cost
    lower = data.draw(st.integers(1, asked))
    upper = data.draw(st.integers(asked, 1 << 20))
    truth = fixed + each * asked
    if lower.bit_length() != upper.bit_length():
        assert abs(measured(fixed, each, [lower, upper]).run_time(asked, SECOND_NS) - truth) <= truth // 100 + 32


@given(cost=COSTS, sizes=st.lists(ROWS, min_size=1, max_size=12), one=ROWS, other=ROWS)
def test_more_rows_never_take_less(cost: tuple[int, int], sizes: list[int], one: int, other: int) -> None:
    pace = measured(*cost, sizes)
    assert pace.run_time(min(one, other), SECOND_NS) <= pace.run_time(max(one, other), SECOND_NS)


@given(runs=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 10**8)), min_size=1, max_size=40),
       time_ns=st.integers(0, 10**8), most=st.integers(0, 100))
def test_the_rows_within_a_time_are_as_many_as_there_can_be(
        runs: list[tuple[int, int]], time_ns: int, most: int) -> None:
    pace = PaceBox()
    for rows, run_ns in runs:
        pace.ran(rows, run_ns, SECOND_NS)
    found = pace.rows_within(time_ns, most, SECOND_NS)
    if all(pace.run_time(rows, SECOND_NS) <= pace.run_time(rows + 1, SECOND_NS) for rows in range(1, most)):
        assert found == max((rows for rows in range(1, most + 1) if pace.run_time(rows, SECOND_NS) <= time_ns),
                            default=0)
    assert found == 0 or pace.run_time(found, SECOND_NS) <= time_ns


@given(noise=st.lists(st.integers(900, 1100), min_size=40, max_size=80), outlier=st.integers(1_100, 10**12),
       at=st.integers(2, 39))
def test_a_run_that_was_held_up_for_once_moves_it_by_an_eighth_at_most(
        noise: list[int], outlier: int, at: int) -> None:
    pace = PaceBox()
    for index, run_ns in enumerate(noise):
        before = pace.run_time(4, SECOND_NS)
        pace.ran(4, outlier if index == at else run_ns, SECOND_NS)
        if index == at:
            assert pace.run_time(4, SECOND_NS) <= before + before // 8 + 1


@given(old=st.integers(10_000, 10**9), new=st.integers(10_000, 10**9))
def test_it_follows_a_change(old: int, new: int) -> None:
    pace = measured(old, 0, [8])
    for _ in range(40 + 6 * max(1, new // old).bit_length()):
        pace.ran(8, new, SECOND_NS)
    assert abs(pace.run_time(8, SECOND_NS) - new) <= max(new, old) // 50 + 8


def test_nothing_is_known_before_a_size_ran_twice_nor_long_after() -> None:
    pace = PaceBox()
    assert pace.run_time(1, SECOND_NS) == 0
    pace.ran(1, 9_000, SECOND_NS)
    assert pace.run_time(1, SECOND_NS) == 0
    # The first one found cold caches.
    pace.ran(1, 1_000, SECOND_NS)
    assert pace.run_time(1, SECOND_NS) == 1_000
    assert pace.run_time(1, SECOND_NS + STALE_NS) == 1_000
    assert pace.run_time(1, SECOND_NS + STALE_NS + 1) == 0
    pace.ran(1, 2_000, SECOND_NS + STALE_NS + 1)
    assert pace.run_time(1, SECOND_NS + STALE_NS + 1) == 0


def test_beyond_what_was_seen_the_last_two_sizes_count_as_far_again() -> None:
    pace = measured(100, 10, [1, 8])
    assert [pace.run_time(rows, SECOND_NS) for rows in (8, 16, 17, 1000)] == [180, 260, 260, 260]
    assert measured(100, 10, [8]).run_time(1000, SECOND_NS) == 180
    assert [pace.run_time(rows, SECOND_NS, steep=True) for rows in (1, 8, 16, 800)] == [110, 180, 360, 18_000]


def test_what_holds_a_standing_queue_up_is_measured() -> None:
    pace = measured(1_000_000, 0, [1])
    now = SECOND_NS
    for _ in range(60):
        pace.ended(1, now)
        now += 3_000_000
    assert abs(pace.held_up(10_000_000, now) - 30_000_000) < 1_000_000
    # Two side by side: each of them twice as long is no hold-up.
    pair = measured(1_000_000, 0, [1])
    for index in range(60):
        pair.ended(1, SECOND_NS + index * 500_000, 2)
    assert pair.held_up(10_000_000, SECOND_NS) == 10_000_000
    # A queue that ran empty: from now on nobody knows.
    pace.ended(1, now, waiting=False)
    pace.ended(1, now + 1)
    assert pace.held_up(10_000_000, now) == 10_000_000
