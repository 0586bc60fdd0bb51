"""Circuit breaker of one version: counts its calls over a sliding window and says whether it may have the next one.

Plain structs without a clock, a lock or memory of their own: `now` is an argument, in ns, and everything is O(1) in
integers. One thread at a time.

    CLOSED     every call is let through; it opens when the share of errors, or of slow calls, reaches its bound
    OPEN       none is, for a time that doubles with each opening in a row, up to a bound
    HALF_OPEN  a few at once are, as a trial; it closes once that many went well and opens with the first that did not

Sources: Nygard, "Release It!" (2007), 5.2; Envoy's outlier detection for the growing time.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t

cdef enum BreakerState:
    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2

# What became of a call, as far as it is the version's doing.
cdef enum CallOutcome:
    CALL_GOOD = 0
    CALL_ERROR = 1
    CALL_NO_MATTER = 2           # its client's doing, or nobody's: it is not counted

cdef enum:
    WINDOW_BUCKETS = 10          # a window moves on by a tenth of its length
    WHOLE_SHARE = 1000000        # shares are in millionths
    MOST_DOUBLINGS = 5           # of the open time
    LONGEST_OPEN_NS = 300000000000    # ... which grows no further, unless it is longer to begin with

cdef struct BreakerLimits:
    int64_t window_ns            # from WINDOW_BUCKETS
    int64_t min_calls            # in the window; fewer say nothing
    int64_t error_share          # from 1 to WHOLE_SHARE
    int64_t slow_ns              # a call that ran for so long is slow; 0: none is
    int64_t slow_share           # from 1 to WHOLE_SHARE
    int64_t open_ns              # how long it is open at first
    int32_t probes               # at once in a trial, and that many have to go well

cdef struct CallCounts:
    int64_t calls
    int64_t errors
    int64_t slow

cdef struct Breaker:
    BreakerLimits limits
    int32_t state                # BreakerState; OPEN turns to HALF_OPEN with the first call after `until_ns`
    int32_t openings             # in a row: without a whole window of being closed in between
    int64_t until_ns             # OPEN: when a trial may begin
    int64_t closed_ns            # when it closed last
    int64_t opened_total
    uint32_t trial               # number of the trial, never 0
    int32_t probes_running
    int32_t probes_good
    int64_t slot                 # of the window's latest bucket: time over a bucket's length
    CallCounts window            # sums over the buckets
    CallCounts opened_by         # the window that it opened for, or the trial's failed call
    CallCounts buckets[10]       # by slot modulo WINDOW_BUCKETS

# Closed, nothing counted.
cdef void breaker_init(Breaker *breaker, const BreakerLimits *limits, int64_t now) noexcept nogil
# Other limits; counts are kept where the window stays as long as it was. One that is open stays open.
cdef void breaker_limit(Breaker *breaker, const BreakerLimits *limits, int64_t now) noexcept nogil
# Whether the next call may be had. `probe`: the trial that it is a part of, or 0; to be told to `breaker_record`, or to
# `breaker_release` where nothing becomes of the call.
cdef bint breaker_admit(Breaker *breaker, int64_t now, uint32_t *probe) noexcept nogil
# Whether `breaker_admit` would let a call through.
cdef bint breaker_would_admit(const Breaker *breaker, int64_t now) noexcept nogil
# A call has run for `ran_ns`. Calls of before the last opening do not judge a trial.
cdef void breaker_record(Breaker *breaker, int outcome, int64_t ran_ns, uint32_t probe, int64_t now) noexcept nogil
# As many calls that are part of no trial, `errors` of them failed, at once.
cdef void breaker_count(Breaker *breaker, int64_t calls, int64_t errors, int64_t ran_ns, int64_t now) noexcept nogil
cdef void breaker_release(Breaker *breaker, uint32_t probe) noexcept nogil
# How long calls are refused for certain; 0: a trial is on, or may begin.
cdef int64_t breaker_wait_ns(const Breaker *breaker, int64_t now) noexcept nogil
