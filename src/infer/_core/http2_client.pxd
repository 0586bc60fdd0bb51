# Client side of HTTP/2 for gRPC calls: bytes in, bytes out, no I/O. See http2_client.pyx.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from infer._core.capi.nghttp2_client cimport nghttp2_nv, nghttp2_session
from infer._core.client_messages cimport Messages

cdef enum:
    NO_GRPC_STATUS = -1      # the stream ended without trailers
    MESSAGE_PREFIX_BYTES = 5
    DETAIL_BYTES = 160       # of grpc-message; the rest is cut
    SEND_ROOM_BYTES = 65536  # least capacity of the buffer given to session_send: a frame that is not lent fits
    MAX_HEADERS = 16
    OWN_HEADERS = 7            # of session_open; the rest may be its caller's

# One unary call, or one bidirectional stream of messages: it is then reported once for each message, as if that were a
# call, and once more when it has ended. Lives in its session's array; its contents are valid until on_reply returns.
cdef struct ClientCall:
    int32_t stream_id          # 0 = free
    int32_t http_status        # 0 until the response headers came
    int32_t grpc_status        # NO_GRPC_STATUS until the trailers came
    uint32_t reset_code        # HTTP/2 error code that the stream closed with; 0 = closed in order
    bint abandoned             # the connection ended first
    bint unanswered            # a message whose stream ended in order, without a reply to it
    bint error_message         # a message in a stream whose reply is an error
    bint ended                 # the end of a stream is reported, not a message
    uint32_t message_bytes     # as the prefix announces
    uint64_t body_bytes        # DATA received, prefix included; of a stream: of this message
    const uint8_t *request     # framed message, lent by the caller until on_reply
    size_t request_bytes
    size_t sent_bytes
    int64_t scheduled_ns       # of the caller
    int64_t started_ns         # of the caller
    bint keep_reply            # collect the body in `reply`
    bint out_of_memory         # `reply` is not whole
    uint8_t *reply             # owned; freed after on_reply unless on_reply took it and set NULL
    size_t reply_capacity
    size_t detail_bytes
    char detail[DETAIL_BYTES]  # grpc-message, still percent-encoded; of an error_message: its text
    Messages messages          # of a stream
    ClientCall *next_free

# Bytes to send: data[start:lent_at], then what is lent of a request, then data[lent_at:end].
cdef struct Output:
    uint8_t *data
    size_t start
    size_t lent_at
    size_t end
    const uint8_t *lent
    size_t lent_bytes

cdef inline size_t output_bytes(const Output *output) noexcept nogil:
    return output.end - output.start + output.lent_bytes

ctypedef void (*reply_callback)(void *owner, ClientCall *call) noexcept nogil

cdef struct ClientSession:
    nghttp2_session *h2
    nghttp2_nv headers[MAX_HEADERS]
    size_t header_count
    char timeout[16]
    reply_callback on_reply
    void *owner
    ClientCall *calls          # array of capacity + 1, owned: on_reply can start a call beside its own
    ClientCall *free_call
    uint32_t capacity
    uint32_t active
    uint32_t peer_max_streams
    uint32_t stream_messages   # messages under way on one stream at most; 0: calls are unary
    uint32_t under_way         # messages, of all streams
    uint64_t varied            # calls sent with an end of their own; counts from 1, 0: none has one
    uint32_t cursor            # where the search for a stream with room begins
    int64_t *scheduled_ns      # the rings of all streams, owned
    uint64_t reply_bytes       # taken for replies that are not whole, or not reported
    uint64_t max_reply_bytes   # of these; a reply that would pass it is not kept. 0: no bound
    Output *output             # of the session_send under way
    int error                  # of nghttp2; the connection is to be closed
    bint goaway
    uint32_t goaway_code

# 0, or a negative nghttp2 error. `path` and `authority` are lent for the session's life. timeout_ns 0: no grpc-timeout.
# One more field of every request; name and value are lent for as long as the session lives.
cdef void put_header(
    ClientSession *session, const char *name, size_t name_bytes, const char *value, size_t value_bytes) noexcept nogil
cdef int session_open(
    ClientSession *session, const char *path, size_t path_bytes, const char *authority, size_t authority_bytes,
    int64_t timeout_ns, uint32_t capacity, uint32_t stream_messages, reply_callback on_reply,
    void *owner) noexcept nogil
# Frees everything; calls under way get no on_reply. Safe on a zeroed session and when called twice.
cdef void session_close(ClientSession *session) noexcept nogil
cdef bint session_can_start(ClientSession *session) noexcept nogil
# A call, or a message on a stream, which is opened where there are fewer than `capacity`. NULL when session_can_start
# would be false or memory is out. May be called from on_reply.
cdef ClientCall *session_start(
    ClientSession *session, const uint8_t *framed, size_t framed_bytes, int64_t scheduled_ns,
    bint keep_reply) noexcept nogil
# No message follows: every stream ends its request, and is reported once the peer has ended it too.
cdef void session_end_streams(ClientSession *session) noexcept nogil
# 0, or the negative nghttp2 error that is also left in session.error.
cdef int session_feed(ClientSession *session, const uint8_t *data, size_t size) noexcept nogil
# Fills an output whose data has room for `capacity` bytes. Nothing in it: nothing to send, or session.error.
cdef void session_send(ClientSession *session, Output *output, size_t capacity) noexcept nogil
# Ends every call under way: on_reply with what had come. For a connection that was lost; nothing can be started after.
cdef void session_abandon(ClientSession *session) noexcept nogil
# Why the session ended or is ending; static text.
cdef const char *session_reason(const ClientSession *session) noexcept nogil
cdef const char *reset_text(uint32_t code) noexcept nogil
cdef bint session_is_finished(ClientSession *session) noexcept nogil
# -1 when the body is not exactly one message.
cdef int64_t reply_message_bytes(const ClientCall *call) noexcept nogil
