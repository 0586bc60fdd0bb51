"""One call on one HTTP/2 stream: what has come of it, in which state it is, what is still to be sent.

A Stream is malloc'd by its Http2Session, set as nghttp2's user data of the stream, and freed when nghttp2 closes the
stream. Loop thread only. No I/O and no nghttp2 in here: rules and bytes.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from infer._core.block cimport Block
from infer._core.request cimport Request, Segment
from infer._core.tensor cimport ErrorText

# Transitions are a table (state x event -> state), walked whole by a property test.
cdef enum StreamState:
    STREAM_HEADERS = 0           # the header block is coming
    STREAM_MESSAGE = 1           # the message is coming
    STREAM_CALLED = 2            # the call is with the pipeline or with a cold handler
    STREAM_REPLYING = 3          # a reply or a refusal is queued for sending
    STREAM_CLOSED = 4
    STREAM_STATES = 5

cdef enum StreamEvent:
    EVENT_HEADERS_END = 0
    EVENT_MESSAGE_END = 1
    EVENT_REPLY = 2
    EVENT_CLOSE = 3
    STREAM_EVENTS = 4

cdef enum Seen:
    SEEN_POST = 1
    SEEN_GRPC = 2                # a content-type of application/grpc
    SEEN_TE = 4
    SEEN_TIMEOUT = 8
    SEEN_ENCODING = 16           # a grpc-encoding other than identity
    SEEN_BAD_TIMEOUT = 32
    SEEN_PATH = 64
    SEEN_BAD_METADATA = 128      # a -bin value that is not base64

cdef struct Stream:
    Stream *next                 # among the session's streams, or free ones
    Stream *prev
    int32_t id
    uint8_t state
    uint8_t seen
    uint8_t hot                  # ModelInfer
    uint8_t dead                 # reset by us: what still comes of it is dropped
    uint8_t ended                # END_STREAM has come
    uint8_t early                # answered before it came: a reset has to follow the reply
    uint8_t lead                 # unused bytes ahead of the body, for its end to be aligned; counted in its sizes
    int32_t header_bytes         # decoded, each field with 32 of overhead (RFC 9113, 6.5.2)
    int32_t n_segments
    int32_t segment
    int64_t timeout_ns           # grpc-timeout; 0: none
    int64_t received_ns
    uint64_t message_bytes       # announced by the prefix, prefix included; 0: not yet known
    uint64_t sent                # of the current segment
    uint64_t consumed_bytes      # of those buffered, given back to the stream's window
    uint64_t buffered_bytes      # of the message, counted into the session's until the call is answered
    uint64_t outbound_bytes      # of the reply, counted into the session's until they are taken
    Request *request
    Block *body
    void *cold                   # ColdCall, one reference
    Segment *segments            # inline_segments, or malloc'd when there are more
    Segment inline_segments[2]

cdef Stream *stream_new(int32_t id, int64_t received_ns) noexcept
cdef void stream_free(Stream *stream) noexcept                            # unrefs body and unsent segments
# The state after `event`, or -1: the event cannot come in this state.
cdef int next_state(int state, int event) noexcept nogil
cdef bint advance(Stream *stream, int event) noexcept

# One header field. STATUS_OK, or the gRPC status that ends the call with a text in `error`.
cdef int on_field(Stream *stream, const uint8_t *name, uint64_t name_bytes, const uint8_t *value, uint64_t value_bytes,
                  int32_t limit_bytes, ErrorText *error) noexcept
# Once the header block is whole. HTTP status 200 and STATUS_OK, or how the call ends.
cdef int check_headers(const Stream *stream, int *http_status, ErrorText *error) noexcept
# Appends DATA to the body. A gRPC status: RESOURCE_EXHAUSTED at the prefix of a message over the limit, INTERNAL for a
# bad flag, UNIMPLEMENTED for a second message.
cdef int on_data(Stream *stream, const uint8_t *data, uint64_t size_bytes, uint64_t limit_bytes, bint refuse_new,
                 ErrorText *error) noexcept
# Once END_STREAM has come. UNIMPLEMENTED: no message; INTERNAL: a message cut short.
cdef int check_message(const Stream *stream, ErrorText *error) noexcept
# Takes over the segments' references.
cdef bint set_segments(Stream *stream, const Segment *segments, int count) noexcept

# A call for a cold handler: the `call` of the contract in infer.services.call.
cdef class ColdCall:
    cdef Stream *stream                    # NULL once the stream is closed
    cdef readonly str path
    cdef readonly bytes message
    cdef readonly str peer
    cdef list fields                       # of (bytes name, bytes value), as they came
    cdef int64_t deadline_ns
    cdef public object task
    cdef object timer                      # ends the call at its deadline, or None
    cdef void disarm(self) noexcept
