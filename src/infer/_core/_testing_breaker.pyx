"""A breaker as a test drives it, with its own clock; not in wheels."""

from libc.stdint cimport int64_t, uint32_t

from infer._core.breaker cimport (
    CALL_ERROR, CALL_GOOD, CALL_NO_MATTER, CLOSED, HALF_OPEN, LONGEST_OPEN_NS, MOST_DOUBLINGS, OPEN, WHOLE_SHARE,
    WINDOW_BUCKETS, Breaker, BreakerLimits, breaker_admit, breaker_count, breaker_init, breaker_limit, breaker_record,
    breaker_release, breaker_wait_ns, breaker_would_admit)
from infer._core.clock cimport now_ns


BUCKETS = WINDOW_BUCKETS
WHOLE = WHOLE_SHARE
DOUBLINGS = MOST_DOUBLINGS
LONGEST_NS = LONGEST_OPEN_NS
STATES = {CLOSED: "closed", HALF_OPEN: "half-open", OPEN: "open"}
OUTCOMES = {"good": CALL_GOOD, "error": CALL_ERROR, "no matter": CALL_NO_MATTER}


cdef BreakerLimits limits_of(dict given):
    cdef BreakerLimits limits
    limits.window_ns = given["window_ns"]
    limits.min_calls = given["min_calls"]
    limits.error_share = given["error_share"]
    limits.slow_ns = given["slow_ns"]
    limits.slow_share = given["slow_share"]
    limits.open_ns = given["open_ns"]
    limits.probes = given["probes"]
    return limits


cdef class BreakerBench:
    cdef Breaker breaker

    def __init__(self, int64_t now, **limits):
        cdef BreakerLimits given = limits_of(limits)
        breaker_init(&self.breaker, &given, now)

    def limit(self, int64_t now, **limits):
        cdef BreakerLimits given = limits_of(limits)
        breaker_limit(&self.breaker, &given, now)

    def admit(self, int64_t now):
        """(whether it is admitted, its trial)"""
        cdef uint32_t probe = 77
        admitted = breaker_admit(&self.breaker, now, &probe)
        return bool(admitted), probe

    def would_admit(self, int64_t now):
        return bool(breaker_would_admit(&self.breaker, now))

    def record(self, str outcome, int64_t ran_ns, uint32_t probe, int64_t now):
        breaker_record(&self.breaker, OUTCOMES[outcome], ran_ns, probe, now)

    def count(self, int64_t calls, int64_t errors, int64_t ran_ns, int64_t now):
        breaker_count(&self.breaker, calls, errors, ran_ns, now)

    def release(self, uint32_t probe):
        breaker_release(&self.breaker, probe)

    def wait_ns(self, int64_t now):
        return breaker_wait_ns(&self.breaker, now)

    @property
    def state(self):
        return STATES[self.breaker.state]

    @property
    def opened(self):
        return self.breaker.opened_total

    @property
    def probes_running(self):
        return self.breaker.probes_running


def good_calls(int64_t rounds):
    """ns for as many good calls, a microsecond apart: what a closed breaker costs each."""
    cdef Breaker breaker
    cdef BreakerLimits limits
    cdef uint32_t probe = 0
    cdef int64_t now = 1000000000
    cdef int64_t start, _i
    limits.window_ns = 10000000000
    limits.min_calls = 20
    limits.error_share = limits.slow_share = WHOLE_SHARE // 2
    limits.slow_ns = 1000000
    limits.open_ns = 1000000000
    limits.probes = 3
    breaker_init(&breaker, &limits, now)
    start = now_ns()
    for _i in range(rounds):
        now += 1000
        if breaker_admit(&breaker, now, &probe):
            breaker_record(&breaker, CALL_GOOD, 500, probe, now)
    return now_ns() - start
