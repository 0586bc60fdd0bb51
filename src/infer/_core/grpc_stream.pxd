"""One call on one HTTP/2 stream: what has come of it, in which state it is, what is still to be sent.

A Stream is malloc'd by its Http2Session, set as nghttp2's user data of the stream, and freed when nghttp2 closes the
stream. Loop thread only. No I/O and no nghttp2 in here: rules and bytes.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from infer._core.block cimport Block
from infer._core.request cimport Request, Segment
from infer._core.tensor cimport ErrorText

# Transitions are a table (state x event -> state), walked whole by a property test.
cdef enum StreamState:
    STREAM_HEADERS = 0           # the header block is coming
    STREAM_MESSAGE = 1           # the one message is coming
    STREAM_TALKING = 2           # messages are coming, the call is with a handler, replies may go
    STREAM_CALLED = 3            # the request has ended, the call is with the pipeline or with a cold handler
    STREAM_REPLYING = 4          # the last of the reply, or a refusal, is queued for sending
    STREAM_CLOSED = 5
    STREAM_STATES = 6

cdef enum StreamEvent:
    EVENT_HEADERS_END = 0        # one message follows
    EVENT_TALK = 1               # the header block's end, and any number of messages follow
    EVENT_MESSAGE_END = 2        # END_STREAM, and what came before it is whole
    EVENT_PART = 3               # one of several replies is queued
    EVENT_REPLY = 4
    EVENT_CLOSE = 5
    STREAM_EVENTS = 6

# Whom a call is for, and how many replies it has.
cdef enum CallKind:
    CALL_COLD = 0
    CALL_COLD_STREAM = 1         # a cold handler that reads and writes messages
    CALL_INFER = 2               # ModelInfer
    CALL_INFER_STREAM = 3        # ModelStreamInfer

cdef enum Seen:
    SEEN_POST = 1
    SEEN_GRPC = 2                # a content-type of application/grpc
    SEEN_TE = 4
    SEEN_TIMEOUT = 8
    SEEN_ENCODING = 16           # a grpc-encoding that there is none of
    SEEN_BAD_TIMEOUT = 32
    SEEN_PATH = 64
    SEEN_BAD_METADATA = 128      # a -bin value that is not base64
    SEEN_TOO_LONG = 256          # a prefix that announces more than a message may have

cdef struct Stream:
    Stream *next                 # among the session's streams, or free ones
    Stream *prev
    Stream *next_due             # among those that the session settles before it sends
    int32_t id
    uint16_t seen
    uint8_t state
    uint8_t kind
    uint8_t dead                 # reset by us: what still comes of it is dropped
    uint8_t ended                # END_STREAM has come
    uint8_t early                # answered before it came: a reset has to follow the reply
    uint8_t whole                # a message and what ends it, or a whole one of several, has come
    uint8_t early_reset          # as abuse.stream_closed counts them
    uint8_t lead                 # unused bytes ahead of the body, for its end to be aligned; counted in its sizes
    uint8_t headed               # the head of the reply is submitted
    uint8_t last                 # nothing but trailers follows what is queued
    uint8_t closing              # the same, once what is being compressed is queued
    uint8_t deferred             # the library waits to be told that there is more to send
    uint8_t due                  # among those that the session settles before it sends
    uint8_t encoding             # of the request's messages: an Encoding
    uint8_t compressed           # the message that is coming is
    uint8_t accepted             # encodings that the client takes, a set
    uint8_t reply_encoding       # of the reply's messages, once its head is submitted fixed
    int32_t header_bytes         # decoded, each field with 32 of overhead (RFC 9113, 6.5.2)
    int32_t n_segments
    int32_t segment              # the first that is not wholly sent
    int32_t segment_room
    int32_t pending              # messages handed over that the handler has not taken yet
    int32_t end_code             # what the trailers will say
    uint32_t end_bytes
    char *end_text               # malloc'd, or NULL
    int64_t timeout_ns           # grpc-timeout; 0: none
    int64_t received_ns
    uint64_t message_bytes       # announced by the prefix, prefix included; 0: not yet known
    uint64_t sent                # of the current segment
    uint8_t padded               # a DATA frame with padding has come
    uint8_t widened              # its window holds the whole message
    uint64_t consumed_bytes      # of a unary message's, given back to the stream's window
    uint64_t owed_bytes          # of a stream of messages: came, and not given back to the stream's window
    uint64_t buffered_bytes      # of messages, counted into the session's until the call is answered or they are taken
    uint64_t held_start          # of what is held, the first byte not looked at
    uint64_t outbound_bytes      # of the reply, counted into the session's until they are taken
    Request *request
    Block *body
    Block *held                  # bytes that came while the handler had messages enough, at most a window of them
    void *cold                   # ColdCall, one reference
    void *variant                # bytes, one reference: what the trailers name; NULL: nothing
    void *talk                   # InferStream, or NULL
    void *inflating              # CodingJob of the message that came last, borrowed, or NULL
    void *deflating              # CodingJob of the reply that is to be queued next, borrowed, or NULL
    Segment *segments            # inline_segments, or malloc'd when there are more
    Segment inline_segments[2]

# The variant's name goes into the trailers: bytes, or NULL. `stream_free` has the pair of the reference.
cdef void set_variant(Stream *stream, void *variant) noexcept
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
# Appends DATA to the body up to the message's end, moving *data and *size_bytes on. A gRPC status: RESOURCE_EXHAUSTED
# at the prefix of a message over the limit or without memory, INTERNAL for a bad flag.
cdef int take_data(Stream *stream, const uint8_t **data, uint64_t *size_bytes, uint64_t limit_bytes, bint refuse_new,
                   ErrorText *error) noexcept
# How much of the message can be written behind what has come of it, `limit_bytes` at most; 0: nothing yet, or no
# memory. take_data leaves it where it is.
cdef uint64_t body_room(Stream *stream, uint64_t limit_bytes) noexcept
# As take_data, for a call of one message: UNIMPLEMENTED for a second one.
cdef int on_data(Stream *stream, const uint8_t *data, uint64_t size_bytes, uint64_t limit_bytes, bint refuse_new,
                 ErrorText *error) noexcept
cdef inline bint is_whole(const Stream *stream) noexcept:
    return stream.message_bytes != 0 and stream.body.size_bytes >= stream.message_bytes
# Once END_STREAM has come. UNIMPLEMENTED: no message; INTERNAL: a message cut short.
cdef int check_message(const Stream *stream, ErrorText *error) noexcept
# The whole message's Block, whose reference goes over; the next message may come.
cdef Block *take_body(Stream *stream) noexcept
# Keeps bytes for later; False: no memory.
cdef bint hold(Stream *stream, const uint8_t *data, uint64_t size_bytes) noexcept
# Queues segments for sending and takes over their references, also where it fails: no memory.
cdef bint add_segments(Stream *stream, const Segment *segments, int count) noexcept
# Notes what the trailers will say. False: no memory for the text.
cdef bint set_end(Stream *stream, int code, const char *text, uint32_t size_bytes) noexcept
