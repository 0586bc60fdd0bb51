"""What a version's breaker comes to for calls: another version, a reply that was written down, or UNAVAILABLE at once.

A Guard is a VersionEntry's own and lives as long as it. Loop thread only, but that its counters may be read anywhere.
"""

cimport cython
from libc.stdint cimport int64_t

from infer._core.batch cimport Batch
from infer._core.breaker cimport Breaker
from infer._core.model_version cimport VersionEntry
from infer._core.request cimport Request
from infer._core.router cimport RouteTable
from infer._core.tensor cimport ErrorText


@cython.final
cdef class Guard:
    cdef Breaker breaker
    cdef int fallback            # model_version.Fallback: what answers while it is open
    cdef tuple reply             # FALLBACK_STATIC: (tensor type, shape, bytes of a row) of each output
    cdef object on_change        # called with the VersionEntry when the breaker's state is another
    cdef int64_t answered[4]     # calls that were meant for it, by Fallback

# The version that is to have the request, borrowed: `entry`, which has a guard, or the one that answers for it. What it
# is goes into `request`: FALLBACK_STATIC and FALLBACK_UNAVAILABLE keep it from the queue. `named`: the caller insists
# on the version. Not to be asked while the breaker is CLOSED.
cdef void *divert(VersionEntry entry, Request *request, RouteTable routes, bint named, int64_t now) noexcept
# UNAVAILABLE, its text, and in how many ms a trial may begin.
cdef int say_open(VersionEntry entry, ErrorText *error, int64_t now, int64_t *pushback_ms) noexcept
# A batch of the request alone that holds its version's written reply, as often as it has rows; NULL: no memory.
cdef Batch *static_batch(VersionEntry entry, Request *request) noexcept
# What the batch says about its version. `code` STATUS_OK: as its items say; else all of them failed with it.
cdef void record_batch(VersionEntry entry, const Batch *batch, int code, int64_t ran_ns, int64_t now) noexcept
# The request ends; what it was part of goes on without it.
cdef void leave_trial(VersionEntry entry, Request *request) noexcept
