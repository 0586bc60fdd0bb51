"""Counts of live objects and fatal assertions of debug builds.

The counts are the module's own; any thread may change them, with or without the GIL.
"""

from libc.stdint cimport int64_t
from libc.stdio cimport fprintf, stderr
from libc.stdlib cimport abort

from infer._core.capi.atomics cimport add_i64, load_relaxed_i64

cdef int64_t counts[LIVE_KINDS]

NAMES = ("block", "request", "stream", "session", "batch")     # in the order of LiveKind
ENABLED = bool(INFER_DEBUG)


cdef void add_live(int kind, int delta) noexcept nogil:
    add_i64(&counts[kind], delta)


cdef void die(const char *what) noexcept nogil:
    fprintf(stderr, b"infer: broken invariant: %s\n", what)
    abort()


def live() -> dict[str, int]:
    """Objects alive now, by kind; all zero in a release build, which does not count."""
    cdef int kind
    return {name: load_relaxed_i64(&counts[kind]) for kind, name in enumerate(NAMES)}
