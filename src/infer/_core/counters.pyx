"""Log-bucket histograms with a single writer.

A histogram belongs to the struct that embeds it. One thread observes; any thread may read or take a snapshot meanwhile.
"""

from libc.stdint cimport INT64_MAX, int64_t

cdef int64_t bucket_floor(int index) noexcept nogil:
    if index < 16:
        return index
    if index > bucket_of(INT64_MAX):
        return INT64_MAX
    return <int64_t> ((index & 7) + 8) << ((index >> 3) - 1)


cdef inline int64_t bucket_ceiling(int index) noexcept nogil:
    """Largest value that falls into the bucket."""
    return bucket_floor(index + 1) - 1 if index < bucket_of(INT64_MAX) else INT64_MAX


cdef double quantile(const Histogram *histogram, double q) noexcept nogil:
    cdef int64_t total = 0
    cdef double rank, low, high
    cdef int64_t before = 0
    cdef int64_t inside
    cdef int index
    for index in range(HISTOGRAM_BUCKETS):
        total += histogram.buckets[index]
    rank = q * total
    for index in range(HISTOGRAM_BUCKETS):
        inside = histogram.buckets[index]
        if inside and before + inside >= rank:
            low = bucket_floor(index)
            high = bucket_ceiling(index)
            return low + (high - low) * max(rank - before, 0.0) / inside
        before += inside
    return 0.0


cdef void merge(Histogram *into, const Histogram *other) noexcept nogil:
    cdef int index
    into.count += other.count
    into.sum += other.sum
    for index in range(HISTOGRAM_BUCKETS):
        into.buckets[index] += other.buckets[index]


cdef int64_t count_up_to(const Histogram *histogram, int64_t bound) noexcept nogil:
    cdef int last
    cdef int index
    cdef int64_t counted = 0
    cdef double low, high
    if bound < 0:
        return 0
    last = bucket_of(bound)
    for index in range(last):
        counted += histogram.buckets[index]
    if bound == bucket_ceiling(last):
        return counted + histogram.buckets[last]
    low = bucket_floor(last)
    high = bucket_ceiling(last)
    return counted + <int64_t> (histogram.buckets[last] * ((bound - low + 1) / (high - low + 1)))


cdef tuple snapshot(const Histogram *histogram, tuple bounds):
    # From a copy, and the count from its buckets, so that no cumulative count is above the total.
    cdef Histogram copy = histogram[0]
    cdef int index
    copy.count = 0
    for index in range(HISTOGRAM_BUCKETS):
        copy.count += copy.buckets[index]
    return copy.count, copy.sum, tuple([count_up_to(&copy, bound) for bound in bounds])
