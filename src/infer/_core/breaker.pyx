"""The state of a breaker and its window of counts. See breaker.pxd.

A window is WINDOW_BUCKETS counters of a tenth of its length each, of which the latest is still filling: a call counts
for nine to ten tenths of the window.
"""

from libc.string cimport memset


cdef inline int64_t bucket_ns(const Breaker *breaker) noexcept nogil:
    return breaker.limits.window_ns // WINDOW_BUCKETS


cdef void forget_window(Breaker *breaker, int64_t now) noexcept nogil:
    memset(&breaker.window, 0, sizeof(CallCounts))
    memset(breaker.buckets, 0, sizeof(breaker.buckets))
    breaker.slot = now // bucket_ns(breaker)


cdef void move_window(Breaker *breaker, int64_t now) noexcept nogil:
    """Lets go of the buckets that have left the window. A time before the latest bucket counts as in it."""
    cdef int64_t slot = now // bucket_ns(breaker)
    cdef CallCounts *bucket
    if slot >= breaker.slot + WINDOW_BUCKETS:
        forget_window(breaker, now)
        return
    while breaker.slot < slot:
        breaker.slot += 1
        bucket = &breaker.buckets[breaker.slot % WINDOW_BUCKETS]
        breaker.window.calls -= bucket.calls
        breaker.window.errors -= bucket.errors
        breaker.window.slow -= bucket.slow
        memset(bucket, 0, sizeof(CallCounts))


cdef void breaker_init(Breaker *breaker, const BreakerLimits *limits, int64_t now) noexcept nogil:
    memset(breaker, 0, sizeof(Breaker))
    breaker.limits = limits[0]
    breaker.state = CLOSED
    breaker.closed_ns = now
    breaker.trial = 1
    forget_window(breaker, now)


cdef void breaker_limit(Breaker *breaker, const BreakerLimits *limits, int64_t now) noexcept nogil:
    cdef bint other = limits.window_ns != breaker.limits.window_ns
    breaker.limits = limits[0]
    if other:
        forget_window(breaker, now)


cdef int64_t open_for_ns(const Breaker *breaker) noexcept nogil:
    cdef int32_t doublings = breaker.openings - 1
    cdef int64_t longest = LONGEST_OPEN_NS
    cdef int64_t time_ns
    if doublings > MOST_DOUBLINGS:
        doublings = MOST_DOUBLINGS
    if breaker.limits.open_ns >= longest:
        return breaker.limits.open_ns
    time_ns = breaker.limits.open_ns << doublings
    return time_ns if time_ns < longest else longest


cdef void open_breaker(Breaker *breaker, int64_t now) noexcept nogil:
    if breaker.state == CLOSED and now - breaker.closed_ns >= breaker.limits.window_ns:
        breaker.openings = 0
    breaker.openings += 1
    breaker.opened_total += 1
    breaker.state = OPEN
    breaker.until_ns = now + open_for_ns(breaker)


cdef void close_breaker(Breaker *breaker, int64_t now) noexcept nogil:
    breaker.state = CLOSED
    breaker.closed_ns = now
    forget_window(breaker, now)


cdef bint breaker_would_admit(const Breaker *breaker, int64_t now) noexcept nogil:
    if breaker.state == OPEN:
        return now >= breaker.until_ns
    return breaker.state == CLOSED or breaker.probes_running + breaker.probes_good < breaker.limits.probes


cdef bint breaker_admit(Breaker *breaker, int64_t now, uint32_t *probe) noexcept nogil:
    probe[0] = 0
    if not breaker_would_admit(breaker, now):
        return False
    if breaker.state == OPEN:
        breaker.state = HALF_OPEN
        breaker.trial = breaker.trial + 1 if breaker.trial + 1 != 0 else 1
        breaker.probes_running = 0
        breaker.probes_good = 0
    if breaker.state == HALF_OPEN:
        breaker.probes_running += 1
        probe[0] = breaker.trial
    return True


cdef void record_probe(Breaker *breaker, bint error, bint slow, int64_t now) noexcept nogil:
    breaker.probes_running -= 1
    if error or slow:
        breaker.opened_by.calls = 1
        breaker.opened_by.errors = error
        breaker.opened_by.slow = slow
        open_breaker(breaker, now)
        return
    breaker.probes_good += 1
    if breaker.probes_good >= breaker.limits.probes:
        close_breaker(breaker, now)


cdef inline bint is_slow(const Breaker *breaker, int64_t ran_ns) noexcept nogil:
    return breaker.limits.slow_ns > 0 and ran_ns >= breaker.limits.slow_ns


cdef void breaker_count(Breaker *breaker, int64_t calls, int64_t errors, int64_t ran_ns, int64_t now) noexcept nogil:
    cdef CallCounts *bucket
    cdef CallCounts *window = &breaker.window
    cdef int64_t slow = calls if is_slow(breaker, ran_ns) else 0
    if breaker.state != CLOSED or calls == 0:
        return
    move_window(breaker, now)
    bucket = &breaker.buckets[breaker.slot % WINDOW_BUCKETS]
    bucket.calls += calls
    bucket.errors += errors
    bucket.slow += slow
    window.calls += calls
    window.errors += errors
    window.slow += slow
    if window.calls >= breaker.limits.min_calls and (
            window.errors * WHOLE_SHARE >= breaker.limits.error_share * window.calls
            or (breaker.limits.slow_ns > 0
                and window.slow * WHOLE_SHARE >= breaker.limits.slow_share * window.calls)):
        breaker.opened_by = window[0]
        open_breaker(breaker, now)


cdef void breaker_record(Breaker *breaker, int outcome, int64_t ran_ns, uint32_t probe, int64_t now) noexcept nogil:
    cdef bint error = outcome == CALL_ERROR
    if outcome == CALL_NO_MATTER:
        breaker_release(breaker, probe)
    elif breaker.state == CLOSED:
        breaker_count(breaker, 1, error, ran_ns, now)
    elif breaker.state == HALF_OPEN and probe == breaker.trial:
        record_probe(breaker, error, is_slow(breaker, ran_ns), now)


cdef void breaker_release(Breaker *breaker, uint32_t probe) noexcept nogil:
    if probe != 0 and breaker.state == HALF_OPEN and probe == breaker.trial and breaker.probes_running > 0:
        breaker.probes_running -= 1


cdef int64_t breaker_wait_ns(const Breaker *breaker, int64_t now) noexcept nogil:
    return breaker.until_ns - now if breaker.state == OPEN and now < breaker.until_ns else 0
