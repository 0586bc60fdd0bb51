"""The token bucket against fractions: what it gives, when it says to come back, and what no clock can make it do."""

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from infer._core._testing_quotas import Bucket

SECOND_NS = 10**9
CENTURY_NS = 100 * 366 * 86400 * SECOND_NS
EARLIEST, LATEST = -(2**63), 2**63 - 1
NEVER = -1
UNITS_MAX = 2**61

TERMS = st.one_of(st.integers(1, 20), st.integers(1, 10**6), st.sampled_from([10**9, 2**30, 999_999_937]))
RATES = st.builds(Fraction, TERMS, TERMS)
BURSTS = st.one_of(st.integers(1, 5), st.integers(1, 1000), st.integers(1, 10**6))
TIMES = st.one_of(st.integers(-(10**12), 10**12), st.integers(EARLIEST, LATEST), st.sampled_from([EARLIEST, 0, LATEST]))
STEPS = st.one_of(
    st.integers(0, 3), st.integers(0, 5 * SECOND_NS), st.integers(-5 * SECOND_NS, 0),
    st.sampled_from([CENTURY_NS, -CENTURY_NS, 2**63 - 1, -(2**63), SECOND_NS]))


class Model:
    """The bucket in fractions of tokens."""

    def __init__(self, rate: Fraction, burst: int, now: int) -> None:
        self.rate, self.burst, self.now = rate, burst, now
        self.level = Fraction(burst)

    def come(self, now: int) -> None:
        self.level = min(Fraction(self.burst), self.level + self.rate * max(0, now - self.now) / SECOND_NS)
        self.now = now

    def try_take(self, tokens: int, now: int) -> bool:
        self.come(now)
        if tokens > self.level:
            return False
        self.level -= tokens
        return True

    def wait_ns(self, tokens: int, now: int) -> int:
        self.come(now)
        if tokens > self.burst:
            return NEVER
        missing = max(Fraction(0), tokens - self.level) * SECOND_NS / self.rate
        return -(-missing.numerator // missing.denominator)


def bucket_of(rate: Fraction, burst: int, now: int) -> Bucket:
    """Of the rates that can be counted."""
    assume(burst * SECOND_NS * rate.denominator <= UNITS_MAX)
    return Bucket(rate.numerator, rate.denominator, burst, now)


def clocked(start: int, steps: Sequence[int]) -> list[int]:
    times = [start]
    for step in steps:
        times.append(min(max(times[-1] + step, EARLIEST), LATEST))
    return times[1:]


CALLS = st.lists(st.tuples(STEPS, st.integers(0, 12)), max_size=40)


@given(RATES, BURSTS, TIMES, CALLS)
@example(Fraction(1, 2), 1, 0, [(SECOND_NS, 1), (SECOND_NS, 1), (SECOND_NS, 1), (1, 1)])
@example(Fraction(3, 7), 1, EARLIEST, [(0, 1), (2**63 - 1, 1), (2**63 - 1, 1), (-(2**63), 1)])
def test_it_gives_what_the_fractions_give(rate: Fraction, burst: int, start: int,
                                          calls: Sequence[tuple[int, int]]) -> None:
    bucket, model = bucket_of(rate, burst, start), Model(rate, burst, start)
    for now, (_, tokens) in zip(clocked(start, [step for step, _ in calls]), calls, strict=True):
        assert bucket.wait_ns(tokens, now) == model.wait_ns(tokens, now)
        assert bucket.try_take(tokens, now) == model.try_take(tokens, now)
        assert Fraction(bucket.level_units, bucket.token_units) == model.level
        assert bucket.is_full(now) == (model.level == burst)


@given(RATES, BURSTS, TIMES, CALLS)
def test_no_window_has_more_than_its_burst_and_rate(rate: Fraction, burst: int, start: int,
                                                    calls: Sequence[tuple[int, int]]) -> None:
    """Whatever the clock does; a window is as long as the clock moved on in it."""
    bucket = bucket_of(rate, burst, start)
    times = clocked(start, [step for step, _ in calls])
    moved, at, taken = [], start, []
    for now, (_, tokens) in zip(times, calls, strict=True):
        moved.append(max(0, now - at))
        at = now
        taken.append(tokens if bucket.try_take(tokens, now) else 0)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            # What came before the first take of a window is not part of it.
            assert sum(taken[first:last + 1]) <= burst + rate * sum(moved[first + 1:last + 1]) / SECOND_NS


@given(RATES, BURSTS, st.integers(0, 10**15), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_retry_succeeds_when_it_was_told_to_and_not_before(rate: Fraction, burst: int, start: int, first: int,
                                                             then: int) -> None:
    def emptied() -> Bucket:
        bucket = bucket_of(rate, burst, start)
        assert bucket.try_take(min(first, burst), start)
        return bucket

    then = min(then, burst)
    wait_ns = emptied().wait_ns(then, start)
    assume(wait_ns < CENTURY_NS)
    assert emptied().try_take(then, start + wait_ns)
    if wait_ns > 0:
        assert not emptied().try_take(then, start + wait_ns - 1)


@given(RATES, st.integers(1, 1000))
def test_a_caller_that_asks_often_gets_all_that_was_promised(rate: Fraction, asks: int) -> None:
    """One token at a time, as soon as each is there."""
    assume(asks * SECOND_NS / rate < LATEST)
    bucket = bucket_of(rate, 1, 0)
    assert bucket.try_take(1, 0)
    now = 0
    for taken in range(1, min(asks, 50) + 1):
        now += bucket.wait_ns(1, now)
        assert bucket.try_take(1, now)
        # A bucket of one token drops what comes while it is full, never more than a nanosecond's worth a take.
        assert now - taken * SECOND_NS / rate < taken


@given(RATES, BURSTS, RATES, BURSTS, st.integers(0, 100))
def test_another_rate_keeps_the_tokens(rate: Fraction, burst: int, other_rate: Fraction, other_burst: int,
                                       tokens: int) -> None:
    bucket = bucket_of(rate, burst, 0)
    bucket.try_take(min(tokens, burst), 0)
    other = bucket_of(other_rate, other_burst, 0)
    kept = Fraction(bucket.converted_to(other), other.token_units)
    left = Fraction(burst - min(tokens, burst))
    assert min(left, other_burst) - Fraction(1, other.token_units) < kept <= min(left, other_burst)


@pytest.mark.parametrize(("p", "q", "burst"), [
    (0, 1, 1), (-1, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, -5), (1, 1, UNITS_MAX), (1, UNITS_MAX, 1), (2**62, 1, 1),
    (1, 7, UNITS_MAX // (7 * SECOND_NS) + 1)])
def test_a_rate_that_cannot_be_counted_is_refused(p: int, q: int, burst: int) -> None:
    with pytest.raises(ValueError, match="with a burst"):
        Bucket(p, q, burst, 0)


@pytest.mark.parametrize(("p", "q", "burst"), [(1, 7, UNITS_MAX // (7 * SECOND_NS)), (SECOND_NS, 1, UNITS_MAX),
                                               (UNITS_MAX - 1, 1, 1), (1, UNITS_MAX // SECOND_NS, 1)])
def test_the_largest_that_can_be_counted_do_not_overflow(p: int, q: int, burst: int) -> None:
    rate = Fraction(p, q)
    bucket, model = Bucket(p, q, burst, EARLIEST), Model(rate, burst, EARLIEST)
    for now in (EARLIEST, EARLIEST + 1, 0, LATEST - 1, LATEST, EARLIEST, LATEST):
        for tokens in (burst, 1, burst // 2, LATEST):
            assert bucket.wait_ns(tokens, now) == model.wait_ns(tokens, now)
            assert bucket.try_take(tokens, now) == model.try_take(tokens, now)
