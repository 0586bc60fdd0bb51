"""What a frame may mean that comes for a stream which is gone (RFC 9113, 5.1 and 5.1.1): a plain struct, without I/O.

libnghttp2 keeps no closed streams for us, so it lets such frames pass. They are due where the server reset the stream,
since the client may not have known; otherwise the client has ended the stream itself, or never opened it.
"""

from libc.stdint cimport int32_t

cdef enum:
    RESETS_KEPT = 16             # by id; whatever comes for a stream up to the highest one forgotten is let pass

# The HTTP/2 error that ends the connection, 0 for none.
cdef enum GoneStream:
    GONE_RESET = 0
    GONE_NEVER_OPENED = 1        # PROTOCOL_ERROR
    GONE_ENDED = 5               # STREAM_CLOSED

# Zeroed at first.
cdef struct StreamIds:
    int32_t highest              # that the client has opened
    int32_t passed_low           # ids that it passed over when it last left some out: low to high
    int32_t passed_high
    int32_t resets[16]           # RESETS_KEPT ids that the server reset, the next to be forgotten at resets_at
    int32_t resets_at
    int32_t forgotten            # the highest id that was among them and is no more
    int32_t cancels[16]          # RESETS_KEPT ids that the client reset, the next to be replaced at cancels_at
    int32_t cancels_at

cdef inline void stream_opened(StreamIds *ids, int32_t id) noexcept nogil:
    if id > ids.highest + 2:
        ids.passed_low = ids.highest + 1
        ids.passed_high = id - 1
    ids.highest = id

cdef inline void stream_reset(StreamIds *ids, int32_t id) noexcept nogil:
    """By the server; again does nothing."""
    cdef int32_t *place = &ids.resets[ids.resets_at]
    cdef int i
    for i in range(RESETS_KEPT):
        if ids.resets[i] == id:
            return
    if place[0] > ids.forgotten:
        ids.forgotten = place[0]
    place[0] = id
    ids.resets_at = (ids.resets_at + 1) % RESETS_KEPT

cdef inline void stream_cancelled(StreamIds *ids, int32_t id) noexcept nogil:
    """By the client."""
    ids.cancels[ids.cancels_at] = id
    ids.cancels_at = (ids.cancels_at + 1) % RESETS_KEPT

cdef inline bint is_cancelled(const StreamIds *ids, int32_t id) noexcept nogil:
    """One of the latest: in the read that reset a stream nothing else tells that it is gone."""
    cdef int i
    for i in range(RESETS_KEPT):
        if ids.cancels[i] == id:
            return True
    return False

cdef inline int frame_for_gone(const StreamIds *ids, int32_t id) noexcept nogil:
    """For DATA or HEADERS on a stream that was at most `highest` and is gone: a GoneStream."""
    cdef int i
    if id <= ids.forgotten:
        return GONE_RESET
    for i in range(RESETS_KEPT):
        if ids.resets[i] == id:
            return GONE_RESET
    if ids.passed_low <= id <= ids.passed_high:
        return GONE_NEVER_OPENED
    return GONE_ENDED
