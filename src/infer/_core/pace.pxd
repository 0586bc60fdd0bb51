"""How long runs of one version take, by what was measured: the time of a run by its rows, and what else holds it up.

The loop thread writes after each batch; executors and the loop read without a lock, whole 64-bit values, which may be
of two batches. Owned by whoever made it; a version's lives as long as its queue.

Of each power of two of rows there is a moving average. A time that is asked for lies between the two measured sizes
around it. Where larger sizes were not measured, the guess is low: what nobody has seen refuses nobody; `steep`: it is
that rows cost as much as in the largest size that was, for when larger ones are not run. A size counts
once it was measured MEASURED_RUNS times, and until STALE_NS after the last time.
"""

from libc.stdint cimport int32_t, int64_t

cdef enum:
    PACE_SIZES = 21              # powers of two up to the most rows that a request may carry
    MEASURED_RUNS = 2

cdef enum:
    STALE_NS = 30000000000

cdef struct SizePace:
    int64_t rows_16ths           # moving averages of what ran
    int64_t run_ns
    int64_t measured_ns          # when the last one ended
    int64_t runs

cdef struct Pace:
    SizePace sizes[21]
    int64_t ended_ns             # of the last batch
    int64_t gap_ns               # moving averages: from the end of one batch to that of the next, while others waited
    int64_t alone_ns             # ... and what that would have been without anything else on the machine
    int32_t standing             # 1: when the last batch ended others waited
    int32_t judges               # 1: requests are refused and set aside by it; written before anybody else knows it

# One run of `rows` rows has ended.
cdef void pace_ran(Pace *pace, int64_t rows, int64_t run_ns, int64_t ended_ns) noexcept nogil
# After `pace_ran` of a batch's runs: `waiting`: rows that are queued now. `side_by_side`: batches that may run at once.
cdef void pace_ended(Pace *pace, int64_t rows, int64_t ended_ns, int32_t side_by_side, bint waiting) noexcept nogil
# How long a run of `rows` takes; 0 where nobody knows.
cdef int64_t run_time_ns(const Pace *pace, int64_t rows, int64_t now, bint steep=*) noexcept nogil
# The most rows, of `most`, whose run takes no longer than that; 0 where not even one does.
cdef int64_t rows_within(const Pace *pace, int64_t time_ns, int64_t most, int64_t now) noexcept nogil
# `wait_ns` of waiting for this version's own batches, as long as it takes beside all else that the machine does.
cdef int64_t held_up_ns(const Pace *pace, int64_t wait_ns, int64_t now) noexcept nogil
