"""Histograms as a test drives them; not in wheels."""

from libc.string cimport memset

from infer._core cimport counters

BUCKETS = counters.HISTOGRAM_BUCKETS


def bucket_of(value: int) -> int:
    return counters.bucket_of(value)


def bucket_floor(index: int) -> int:
    return counters.bucket_floor(index)


cdef class HistogramBox:
    cdef counters.Histogram histogram

    def __cinit__(self):
        memset(&self.histogram, 0, sizeof(self.histogram))

    def observe(self, value: int) -> None:
        counters.observe(&self.histogram, value)

    def merge(self, HistogramBox other) -> None:
        counters.merge(&self.histogram, &other.histogram)

    def quantile(self, q: float) -> float:
        return counters.quantile(&self.histogram, q)

    def count_up_to(self, bound: int) -> int:
        return counters.count_up_to(&self.histogram, bound)

    def snapshot(self, bounds: tuple) -> tuple:
        return counters.snapshot(&self.histogram, bounds)

    @property
    def count(self) -> int:
        return self.histogram.count

    @property
    def sum(self) -> int:
        return self.histogram.sum

    @property
    def buckets(self) -> list[int]:
        cdef int index
        return [self.histogram.buckets[index] for index in range(counters.HISTOGRAM_BUCKETS)]
