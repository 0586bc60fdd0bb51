"""What one connection's flush hands to the socket: frames joined in one buffer, large payloads left where they are.

Loop thread only; one flush at a time, so one FlushBuffer serves all sessions.
"""

from libc.stdint cimport uint8_t, uint64_t

from infer._core.block cimport Block

cdef class FlushBuffer:
    cdef uint8_t *room
    cdef uint64_t joined_bytes             # in `room`, not yet a piece
    cdef list pieces
    cdef readonly uint64_t taken_bytes     # by this flush
    cdef uint64_t limit_bytes
    cdef bint blocked                      # something was turned away at the limit
    cdef void begin(self, uint64_t limit_bytes) except *
    cdef bint is_full(self) noexcept
    cdef int put(self, const uint8_t *data, uint64_t size_bytes) except -1
    # Takes a reference of its own on the Block.
    cdef int put_view(self, Block *block, uint64_t start, uint64_t size_bytes) except -1
    # The pieces, bytes-like, or None where there is nothing.
    cdef list take(self)
    cdef int cut(self) except -1
