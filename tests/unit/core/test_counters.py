import pytest

from infer._core import _testing_counters as counters

LARGEST = (1 << 63) - 1


@pytest.fixture
def histogram() -> counters.HistogramBox:
    return counters.HistogramBox()


def test_small_values_have_buckets_of_their_own():
    assert [counters.bucket_of(value) for value in range(32)] == [*range(16), *[16 + n // 2 for n in range(16)]]
    assert counters.bucket_of(-1) == counters.bucket_of(-LARGEST - 1) == 0


def test_the_largest_value_has_a_bucket():
    assert counters.bucket_of(LARGEST) < counters.BUCKETS
    assert counters.bucket_floor(counters.BUCKETS - 1) == LARGEST


def test_an_empty_histogram_answers_zero(histogram: counters.HistogramBox):
    assert histogram.quantile(0.5) == 0
    assert histogram.count_up_to(LARGEST) == 0
    assert histogram.snapshot((1, 2)) == (0, 0, (0, 0))


def test_count_sum_and_cumulative_buckets(histogram: counters.HistogramBox):
    for value in (0, 1, 1, 7, 100, 1_000_000, LARGEST - 1_000_109):
        histogram.observe(value)
    assert histogram.count == 7
    assert histogram.sum == LARGEST
    assert histogram.snapshot((-1, 0, 1, 15, 2_000_000, LARGEST)) == (7, LARGEST, (0, 1, 3, 4, 6, 7))


def test_a_bucket_that_straddles_the_bound_is_divided(histogram: counters.HistogramBox):
    low = counters.bucket_floor(100)
    width = counters.bucket_floor(101) - low
    for _ in range(100):
        histogram.observe(low)
    assert histogram.count_up_to(low - 1) == 0
    assert histogram.count_up_to(low + width // 2 - 1) == 50
    assert histogram.count_up_to(low + width - 1) == 100


def test_quantiles_of_exact_buckets_are_exact(histogram: counters.HistogramBox):
    for value in (3, 3, 3, 9):
        histogram.observe(value)
    assert [histogram.quantile(q) for q in (0.0, 0.5, 0.75, 0.76, 1.0)] == [3, 3, 3, 9, 9]


def test_snapshot_counts_what_its_buckets_hold(histogram: counters.HistogramBox):
    histogram.observe(5)
    count, total, cumulative = histogram.snapshot((10**9,))
    assert (count, total, cumulative) == (1, 5, (1,))
