"""Counts of live objects, fatal assertions and failing allocations of debug builds.

All of it is the module's own; any thread may count and allocate, with or without the GIL.
"""

from libc.stdint cimport int64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort

from infer._core.capi.atomics cimport add_i64, load_relaxed_i64, store_relaxed_i64

cdef int64_t counts[LIVE_KINDS]
cdef int64_t until_failure = 0   # allocations until one fails, that one included; 0 or less: none will
cdef int64_t failures = 0
cdef bint failing_on = False     # all that follow fail too

NAMES = ("block", "request", "stream", "session", "batch")     # in the order of LiveKind
ENABLED = bool(INFER_DEBUG)


cdef void add_live(int kind, int delta) noexcept nogil:
    add_i64(&counts[kind], delta)


cdef void die(const char *what) noexcept nogil:
    fprintf(stderr, b"infer: broken invariant: %s\n", what)
    abort()


cdef bint failure_is_due() noexcept nogil:
    if load_relaxed_i64(&until_failure) <= 0 or add_i64(&until_failure, -1) != 1:
        return False
    if failing_on:
        store_relaxed_i64(&until_failure, 1)
    add_i64(&failures, 1)
    return True


def fail_allocation(nth: int, and_on: bool = False) -> int:
    """The nth allocation from now fails, with `and_on` those after it too; 0: none. How many failed since it was last
    called. Raises RuntimeError in a release build, where no allocation asks."""
    global failing_on, failures
    cdef int64_t failed = failures
    if not ENABLED:
        raise RuntimeError("allocations fail on demand in debug builds only")
    failures = 0
    failing_on = and_on
    store_relaxed_i64(&until_failure, nth)
    return failed


def live() -> dict[str, int]:
    """Objects alive now, by kind; all zero in a release build, which does not count."""
    cdef int kind
    return {name: load_relaxed_i64(&counts[kind]) for kind, name in enumerate(NAMES)}
