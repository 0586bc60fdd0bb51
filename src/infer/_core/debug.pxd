"""Counts of live objects and fatal assertions in debug builds; nothing at all in release builds.

Any thread may count. Every test's teardown asserts that all counts are back to zero.
"""

cdef extern from *:
    """
    #ifndef INFER_DEBUG
    #define INFER_DEBUG 0
    #endif
    """
    const bint INFER_DEBUG

cdef enum LiveKind:
    LIVE_BLOCK
    LIVE_REQUEST
    LIVE_STREAM
    LIVE_SESSION
    LIVE_BATCH
    LIVE_KINDS

cdef void add_live(int kind, int delta) noexcept nogil
# Ends the process, saying what was broken.
cdef void die(const char *what) noexcept nogil

cdef inline void count_live(int kind, int delta) noexcept nogil:
    if INFER_DEBUG:
        add_live(kind, delta)

# An invariant that only a bug of ours can break.
cdef inline void require(bint holds, const char *what) noexcept nogil:
    if INFER_DEBUG and not holds:
        die(what)
