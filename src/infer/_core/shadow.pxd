"""Shadows: versions that are given copies of what others have answered, whose own answers only are compared.

A copy shares the request's bytes and the reply's: it holds references, which the loop alone counts. Loop thread only,
but that counters may be read anywhere; the lane is a thread of its own (shadow_lane).
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t

from infer._core.difference cimport OutputStats, Tolerance
from infer._core.model_version cimport VersionEntry
from infer._core.request cimport Request, Segment
from infer._core.ring cimport Waker
from infer._core.shadow_lane cimport Copy, Lane
from infer._core.tap cimport Tap

cdef enum Drop:
    DROPPED_COPIES = 0           # so many waited already
    DROPPED_BYTES = 1            # so many bytes were held already
    DROPPED_MEMORY = 2           # the arena is needed for others
    DROPPED_ENDED = 3            # its shadow ended before it was run
    DROPS = 4


@cython.final
cdef class Shadow(Tap):
    cdef readonly VersionEntry target
    cdef readonly tuple primaries          # VersionEntry of each that it copies from
    cdef readonly double fraction
    cdef readonly double rtol
    cdef readonly double atol
    cdef readonly object failure           # what the last copy that failed came to, or None
    cdef readonly int64_t picked           # replies that it was to have a copy of
    cdef readonly int64_t agreed
    cdef readonly int64_t differed
    cdef readonly int64_t failed
    cdef readonly int64_t waiting
    cdef readonly list worst               # (badness, id, primary's reply, shadow's) of those that differ most
    cdef ShadowPool pool
    cdef VersionEntry twin                 # what copies are run as: the target's session, counters of its own
    cdef uint64_t threshold                # of a number that is drawn for each reply
    cdef uint64_t drawn
    cdef OutputStats *outputs
    cdef int32_t ended                     # atomic: the lane looks at it
    cdef Copy *head
    cdef Copy *tail
    cdef int64_t dropped[4]
    cdef void keep_worst(self, Copy *copy) noexcept
    cdef Copy *take(self) noexcept
    cdef void leave(self) noexcept


@cython.final
cdef class ShadowPool:
    cdef readonly list shadows             # those that have copies, or may get some
    cdef readonly int64_t copies           # that wait, of all shadows
    cdef readonly int64_t bytes            # of the Blocks that copies keep, those in the lane included
    cdef readonly int64_t max_copies
    cdef readonly int64_t max_bytes
    cdef object loop
    cdef Waker waker
    cdef Lane *lane
    cdef Shadow given                      # whose copies the lane has
    cdef bint due                          # `give` is about to be called
    cdef int turn
    cdef Copy *copy_of(self, Shadow shadow, Request *request, const Segment *segments, int n_segments) noexcept
    cdef void drop(self, Copy *copy) noexcept
    cdef void collect(self) noexcept
