"""Rates of token buckets. See token_bucket.pxd, where all that a request pays for is."""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    static inline int64_t scaled(int64_t value, int64_t factor, int64_t divisor) {
        __int128 result = (__int128) value * factor / divisor;
        return result > INT64_MAX ? INT64_MAX : (int64_t) result;
    }
    """
    # value * factor / divisor, of positive numbers, INT64_MAX at most.
    int64_t scaled(int64_t value, int64_t factor, int64_t divisor) noexcept nogil

cdef enum:
    SECOND_NS = 1000000000

# Two of them can be added.
cdef int64_t UNITS_MAX = 1LL << 61


cdef bint rate_init(BucketRate *rate, int64_t numerator, int64_t denominator, int64_t burst) noexcept nogil:
    cdef int64_t a, b
    if numerator < 1 or denominator < 1 or burst < 1:
        return False
    if numerator > UNITS_MAX or denominator > UNITS_MAX // SECOND_NS:
        return False
    denominator *= SECOND_NS
    a, b = numerator, denominator
    while b:
        a, b = b, a % b
    numerator //= a
    denominator //= a
    if burst > UNITS_MAX // denominator:
        return False
    rate.burst = burst
    rate.token_units = denominator
    rate.units_per_ns = numerator
    rate.capacity_units = burst * denominator
    rate.full_ns = <uint64_t> ((rate.capacity_units - 1) // numerator + 1)
    return True


cdef int64_t converted_units(int64_t level_units, const BucketRate *rate, const BucketRate *new) noexcept nogil:
    if rate.burst == 0:
        return new.capacity_units
    return min(scaled(level_units, new.token_units, rate.token_units), new.capacity_units)
