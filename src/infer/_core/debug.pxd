"""Counts of live objects, fatal assertions, allocations that fail on demand: in debug builds, nothing in release ones.

Any thread may count and allocate. Every test's teardown asserts that all counts are back to zero.
"""

from libc.stdlib cimport calloc, malloc, realloc

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

# Whether the allocation that is about to be made is the one that a test wants to fail.
cdef bint failure_is_due() noexcept nogil

cdef inline bint allocation_fails() noexcept nogil:
    return INFER_DEBUG and failure_is_due()

# The C library's, where a test can make them fail.
cdef inline void *try_malloc(size_t size_bytes) noexcept nogil:
    return NULL if allocation_fails() else malloc(size_bytes)

cdef inline void *try_calloc(size_t count, size_t size_bytes) noexcept nogil:
    return NULL if allocation_fails() else calloc(count, size_bytes)

cdef inline void *try_realloc(void *piece, size_t size_bytes) noexcept nogil:
    return NULL if allocation_fails() else realloc(piece, size_bytes)

# An invariant that only a bug of ours can break.
cdef inline void require(bint holds, const char *what) noexcept nogil:
    if INFER_DEBUG and not holds:
        die(what)
