"""Counters and log-bucket histograms with a single writer, read at any time by a scrape.

Each has one writing thread (the loop); readers on other threads see whole 64-bit values and may see a sum one update
ahead of its count. Histograms have 8 buckets per doubling (relative width <= 12.5%), are mergeable by addition and
are folded into the exported bounds at scrape time, so that an observation costs a shift and two adds.
"""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    HISTOGRAM_BUCKETS = 496      # values 0..2^62, 8 sub-buckets per doubling

cdef struct Histogram:
    int64_t count
    int64_t sum
    int64_t buckets[496]

cdef inline int bucket_of(int64_t value) noexcept nogil:
    """Index of the bucket that holds `value` (negative counts as 0): exact below 16, then 8 per doubling."""
    cdef int shift
    cdef uint64_t v
    if value < 16:
        return <int> value if value > 0 else 0
    v = <uint64_t> value
    shift = 60 - __builtin_clzll(v)
    return (shift << 3) + <int> (v >> shift)

cdef inline void observe(Histogram *histogram, int64_t value) noexcept nogil:
    histogram.count += 1
    histogram.sum += value
    histogram.buckets[bucket_of(value)] += 1

cdef extern from * nogil:
    int __builtin_clzll(unsigned long long value)

# Smallest value that falls into bucket `index`; the inverse of bucket_of at bucket edges.
cdef int64_t bucket_floor(int index) noexcept nogil
# Value at quantile q in 0..1 by linear interpolation inside the bucket; 0 when empty.
cdef double quantile(const Histogram *histogram, double q) noexcept nogil
cdef void merge(Histogram *into, const Histogram *other) noexcept nogil
# Observations <= bound (a bucket that straddles the bound is divided linearly), for an exported cumulative bucket.
cdef int64_t count_up_to(const Histogram *histogram, int64_t bound) noexcept nogil
# (count, sum, cumulative counts at `bounds`, a tuple) as Python objects.
cdef tuple snapshot(const Histogram *histogram, tuple bounds)
