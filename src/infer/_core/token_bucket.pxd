"""Token buckets: so many tokens a second, and so many at once, exactly, in whole numbers.

A TokenBucket is two words, part of whatever it limits; a BucketRate is shared by all that have the same limit. No lock:
whoever owns the bucket calls. `now` is an argument, in ns, of any clock. Time is what the clock moves on: a step back
counts for nothing, neither against the bucket nor for it, and a step forward fills it at most.

A rate is any positive fraction p/q of tokens a second. The level is counted in units of which a nanosecond brings
`units_per_ns` and a token costs `token_units`: p and q * 10^9 without their common divisor, so that nothing is rounded.
"""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    NEVER_NS = -1                # of bucket_wait_ns: more than the bucket holds when it is full

cdef struct BucketRate:
    int64_t burst                # tokens in a full bucket; 0: there is no limit, and no bucket of it is to be asked
    int64_t token_units
    int64_t units_per_ns
    int64_t capacity_units
    uint64_t full_ns             # in which an empty one fills

cdef struct TokenBucket:
    int64_t level_units          # 0 to capacity_units
    int64_t seen_ns              # when it was looked at last

# False: the fraction or the burst is below 1, or so large that the units pass 61 bits.
cdef bint rate_init(BucketRate *rate, int64_t numerator, int64_t denominator, int64_t burst) noexcept nogil
# The level that a bucket of `rate` has under another one: its tokens, as far as the new burst allows; full where there
# was no limit.
cdef int64_t converted_units(int64_t level_units, const BucketRate *rate, const BucketRate *new) noexcept nogil

cdef inline void bucket_fill(TokenBucket *bucket, const BucketRate *rate, int64_t now) noexcept nogil:
    bucket.level_units = rate.capacity_units
    bucket.seen_ns = now

cdef inline void bucket_refill(TokenBucket *bucket, const BucketRate *rate, int64_t now) noexcept nogil:
    cdef uint64_t elapsed_ns
    if now > bucket.seen_ns:
        # The distance of two signed numbers may pass what one can hold.
        elapsed_ns = <uint64_t> now - <uint64_t> bucket.seen_ns
        if elapsed_ns >= rate.full_ns:
            bucket.level_units = rate.capacity_units
        else:
            bucket.level_units += <int64_t> elapsed_ns * rate.units_per_ns
            if bucket.level_units > rate.capacity_units:
                bucket.level_units = rate.capacity_units
    bucket.seen_ns = now

# How long from `now` until `tokens` are there, to the nanosecond; 0: they are; NEVER_NS.
cdef inline int64_t bucket_wait_ns(TokenBucket *bucket, const BucketRate *rate, int64_t tokens,
                                   int64_t now) noexcept nogil:
    cdef int64_t missing_units
    bucket_refill(bucket, rate, now)
    if tokens > rate.burst:
        return NEVER_NS
    missing_units = tokens * rate.token_units - bucket.level_units
    if missing_units <= 0:
        return 0
    return (missing_units - 1) // rate.units_per_ns + 1

# Of a bucket whose bucket_wait_ns has just said 0.
cdef inline void bucket_take(TokenBucket *bucket, const BucketRate *rate, int64_t tokens) noexcept nogil:
    bucket.level_units -= tokens * rate.token_units

cdef inline bint try_take(TokenBucket *bucket, const BucketRate *rate, int64_t tokens, int64_t now) noexcept nogil:
    bucket_refill(bucket, rate, now)
    if tokens > rate.burst or tokens * rate.token_units > bucket.level_units:
        return False
    bucket_take(bucket, rate, tokens)
    return True

# Whether one that is made now, full, would give no more.
cdef inline bint bucket_is_full(TokenBucket *bucket, const BucketRate *rate, int64_t now) noexcept nogil:
    bucket_refill(bucket, rate, now)
    return bucket.level_units == rate.capacity_units
