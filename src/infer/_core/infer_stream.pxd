"""ModelStreamInfer: the requests of one stream that are under way, and their replies in the order of the requests.

An InferStream belongs to its Stream and goes with the last of its reply. It has a Slot for each message handed over
whose reply has not been queued yet. Loop thread only. No I/O and no nghttp2 in here: order and bytes.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t

from infer._core.grpc_stream cimport Stream
from infer._core.request cimport Reply, Request, Segment

cdef struct Slot:
    InferStream *owner
    Request *request             # NULL once it is answered
    uint64_t request_bytes       # counted into the stream's buffered bytes until it is answered
    uint64_t reply_bytes         # counted into the stream's outbound bytes from then on
    uint8_t answered
    int32_t code                 # STATUS_OK: the segments are a message to send; else the stream ends with it
    int32_t n_segments           # where the stream ends, one at most: the status message
    Segment *segments            # inline_segments, or malloc'd when there are more
    Segment inline_segments[3]

cdef struct InferStream:
    Stream *stream
    void *session                # borrowed
    uint8_t real_status          # an error ends the stream with its status instead of travelling in a message
    uint8_t late                 # a request has met the stream's deadline
    int32_t room
    uint64_t first               # of the slots under way, counted from the stream's start; its place is `first % room`
    uint64_t last                # one past the last of them
    Slot *slots

cdef InferStream *infer_stream_new(Stream *stream, void *session, int32_t room) noexcept     # NULL: no memory
# Returns the bytes of replies that were not passed on.
cdef uint64_t infer_stream_free(InferStream *talk) noexcept
cdef Slot *claim_slot(InferStream *talk) noexcept            # at most `room` at a time
# Makes a ModelStreamInferResponse of a request's outcome and keeps it in the slot, or what the stream ends with.
cdef void keep_reply(Slot *slot, Reply *reply) noexcept
# The oldest slot once it is answered, or NULL.
cdef Slot *oldest_answered(InferStream *talk) noexcept
# The oldest slot's segments have been taken over.
cdef void pass_slot(InferStream *talk) noexcept
