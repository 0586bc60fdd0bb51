"""Histograms against sorted lists of what they were told, with numpy's quantiles."""

from collections import Counter

import numpy
from hypothesis import given
from hypothesis import strategies as st

from infer._core._testing_counters import BUCKETS, HistogramBox, bucket_floor, bucket_of

LARGEST = (1 << 63) - 1
values = st.one_of(
    st.integers(-3, 40),
    st.integers(0, 10**6),
    st.integers(0, 62).flatmap(lambda log2: st.integers((1 << log2) - 1, (1 << log2) + 1)),
    st.integers(0, LARGEST),
)
observations = st.lists(values, max_size=200)


def filled(observed: list[int]) -> HistogramBox:
    histogram = HistogramBox()
    for value in observed:
        histogram.observe(value)
    return histogram


def bucket_range(value: float) -> tuple[int, int]:
    index = bucket_of(int(value))
    return bucket_floor(index), bucket_floor(index + 1)


@given(values)
def test_a_value_lies_in_its_bucket_and_the_bucket_is_narrow(value: int):
    index = bucket_of(value)
    low, above = bucket_floor(index), bucket_floor(index + 1)
    assert 0 <= index < BUCKETS
    assert low <= max(value, 0) < above or value == above == LARGEST
    assert above - low <= max(1, low / 8)


@given(values, values)
def test_buckets_keep_the_order(one: int, other: int):
    low, high = sorted((one, other))
    assert bucket_of(low) <= bucket_of(high)


@given(observations)
def test_count_sum_and_buckets(observed: list[int]):
    histogram = filled(observed)
    assert histogram.count == len(observed) == sum(histogram.buckets)
    assert histogram.sum == (sum(observed) + 2**63) % 2**64 - 2**63
    expected = Counter(bucket_of(value) for value in observed)
    assert histogram.buckets == [expected[index] for index in range(BUCKETS)]


@given(observations, observations)
def test_merging_is_observing_both(one: list[int], other: list[int]):
    merged = filled(one)
    merged.merge(filled(other))
    both = filled(one + other)
    assert (merged.count, merged.sum, merged.buckets) == (both.count, both.sum, both.buckets)


@given(st.lists(values, min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_fall_into_the_bucket_of_the_true_one(observed: list[int], q: float):
    clipped = numpy.array(sorted(max(value, 0) for value in observed), dtype=numpy.int64)
    got = filled(observed).quantile(q)
    # The true quantile by rank: between the observations on either side of it.
    low, _ = bucket_range(int(numpy.quantile(clipped, q, method="inverted_cdf")) if q else int(clipped[0]))
    _, above = bucket_range(int(clipped[min(len(clipped) - 1, int(q * len(clipped)))]))
    assert low <= got <= float(above)


@given(observations, values)
def test_cumulative_counts_are_exact_at_bucket_edges_and_between_them_elsewhere(observed: list[int], bound: int):
    histogram = filled(observed)
    clipped = [max(value, 0) for value in observed]
    got = histogram.count_up_to(bound)
    if bound < 0:
        assert got == 0
        return
    low, above = bucket_range(bound)
    assert sum(value < low for value in clipped) <= got
    assert got <= sum(value < above or above == LARGEST for value in clipped)
    if bound == above - 1 or above == LARGEST == bound:
        assert got == sum(value <= bound for value in clipped)


@given(observations, st.lists(values, max_size=20))
def test_a_snapshot_is_cumulative(observed: list[int], bounds: list[int]):
    bounds = sorted(bounds)
    count, total, cumulative = filled(observed).snapshot(tuple(bounds))
    assert count == len(observed)
    assert total == filled(observed).sum
    assert list(cumulative) == sorted(cumulative)
    assert len(cumulative) == len(bounds)
    assert all(part <= count for part in cumulative)
