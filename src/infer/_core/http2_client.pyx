"""Client side of HTTP/2 for gRPC calls, without I/O.

What it is: a session over libnghttp2 that turns framed request messages into bytes to send, and bytes received into
one `on_reply` per call, or per message where calls are streams of messages. The C functions are for the load generator,
which drives many sessions without the GIL; `ClientConnection` is the same session for Python.

Memory: a session owns its array of calls and nghttp2's state. Request bytes, path and authority are lent by the caller.
A call is free again as soon as on_reply has returned.

Threads: a session belongs to one thread at a time. on_reply runs inside session_feed, session_send or session_abandon;
it may start further calls and must not feed, send or close.
"""

from typing import NamedTuple
from urllib.parse import unquote

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from infer._core.capi.nghttp2_client cimport *
from infer._core.client_messages cimport (
    Messages, awaits_reply, has_room, put_message, read_message, take_scheduled, write_messages)

cdef enum:
    # Windows and frames as gRPC's own clients have them.
    STREAM_WINDOW_BYTES = 4194304
    CONNECTION_WINDOW_BYTES = 67108864
    FRAME_BYTES = 1048576
    MANTISSA = 0x7fffff          # what varies of the two FP32 that a message ends with
    MANTISSA_BITS = 23
    SMALL_FRAME_BYTES = 16384  # a request up to this is copied, and no frame that is copied has more
    FRAME_HEAD_BYTES = 9
    SEND_CHUNK_BYTES = 262144
    ERROR_MESSAGE_TAG = 10     # field 1 of ModelStreamInferResponse; a good reply begins with field 2


cdef inline bint name_is(const uint8_t *name, size_t size, const char *expected, size_t expected_bytes) noexcept nogil:
    return size == expected_bytes and memcmp(name, expected, size) == 0


cdef int32_t parse_status(const uint8_t *text, size_t size) noexcept nogil:
    """Up to three digits, as both :status and grpc-status have them; -1 for anything else."""
    cdef int32_t value = 0
    cdef size_t i
    if size == 0 or size > 3:
        return -1
    for i in range(size):
        if text[i] < 48 or text[i] > 57:
            return -1
        value = value * 10 + text[i] - 48
    return value


cdef inline ClientCall *peek_call(nghttp2_session *h2, int32_t stream_id) noexcept nogil:
    return <ClientCall *>nghttp2_session_get_stream_user_data(h2, stream_id)


cdef void finish_call(ClientSession *session, ClientCall *call, uint32_t reset_code) noexcept nogil:
    """Report the call, then free its place: what on_reply starts gets another."""
    call.reset_code = reset_code
    session.active -= 1
    if session.stream_messages > 0:
        end_stream(session, call)
    else:
        session.on_reply(session.owner, call)
    free_reply(session, call)
    call.stream_id = 0
    call.next_free = session.free_call
    session.free_call = call


cdef void end_stream(ClientSession *session, ClientCall *call) noexcept nogil:
    """Report each message that no reply came for, then the end itself."""
    cdef Messages *messages = &call.messages
    messages.ending = True
    call.unanswered = messages.under_way > 0
    call.error_message = False
    call.keep_reply = False
    call.message_bytes = 0
    call.body_bytes = 0
    while messages.under_way > 0:
        call.scheduled_ns = take_scheduled(messages)
        session.under_way -= 1
        session.on_reply(session.owner, call)
    call.ended = True
    session.on_reply(session.owner, call)


cdef inline void free_reply(ClientSession *session, ClientCall *call) noexcept nogil:
    free(call.reply)
    session.reply_bytes -= call.reply_capacity
    call.reply = NULL
    call.reply_capacity = 0


cdef inline bint passes_bound(const ClientSession *session, const ClientCall *call, size_t capacity) noexcept nogil:
    return 0 < session.max_reply_bytes < session.reply_bytes - call.reply_capacity + capacity


cdef void append_reply(ClientSession *session, ClientCall *call, const uint8_t *data, size_t size) noexcept nogil:
    cdef size_t needed = call.body_bytes + size
    cdef size_t capacity = call.reply_capacity
    cdef uint8_t *grown
    if needed > capacity:
        capacity = max(needed, 2 * capacity)
        if passes_bound(session, call, capacity):
            capacity = needed
        if passes_bound(session, call, capacity):
            free_reply(session, call)
            call.keep_reply = False
            return
        grown = <uint8_t *>realloc(call.reply, capacity)
        if grown == NULL:
            call.out_of_memory = True
            call.keep_reply = False
            return
        call.reply = grown
        session.reply_bytes += capacity - call.reply_capacity
        call.reply_capacity = capacity
    memcpy(call.reply + call.body_bytes, data, size)


cdef int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *context) noexcept nogil:
    cdef ClientSession *session = <ClientSession *>context
    if frame.hd.type == NGHTTP2_SETTINGS and not frame.hd.flags & NGHTTP2_FLAG_ACK:
        session.peer_max_streams = nghttp2_session_get_remote_settings(
            h2, <nghttp2_settings_id>NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
    elif frame.hd.type == NGHTTP2_GOAWAY:
        session.goaway = True
        session.goaway_code = frame.goaway.error_code
    return 0


cdef int on_header(
        nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes, const uint8_t *value,
        size_t value_bytes, uint8_t flags, void *context) noexcept nogil:
    cdef ClientCall *call = peek_call(h2, frame.hd.stream_id)
    if call == NULL:
        return 0
    if name_is(name, name_bytes, b":status", 7):
        call.http_status = parse_status(value, value_bytes)
    elif name_is(name, name_bytes, b"grpc-status", 11):
        call.grpc_status = parse_status(value, value_bytes)
    elif name_is(name, name_bytes, b"grpc-message", 12):
        call.detail_bytes = 0
        append_detail(call, value, value_bytes)
    return 0


cdef void append_detail(ClientCall *call, const uint8_t *data, size_t size) noexcept nogil:
    size = min(size, <size_t>DETAIL_BYTES - call.detail_bytes)
    memcpy(call.detail + call.detail_bytes, data, size)
    call.detail_bytes += size


cdef void report_message(ClientSession *session, ClientCall *call) noexcept nogil:
    """A reply in a stream is whole."""
    cdef Messages *messages = &call.messages
    cdef size_t head = 1
    call.error_message = messages.first_byte == ERROR_MESSAGE_TAG
    if call.error_message:
        # The text stands behind its tag and its length, a varint.
        while head < call.detail_bytes and call.detail[head] & 0x80:
            head += 1
        head = min(head + 1, call.detail_bytes)
        call.detail_bytes -= head
        memmove(call.detail, call.detail + head, call.detail_bytes)
    if not awaits_reply(messages):
        messages.surplus += 1
    else:
        call.scheduled_ns = take_scheduled(messages)
        session.under_way -= 1
        call.message_bytes = messages.reply_bytes
        call.grpc_status = 0
        session.on_reply(session.owner, call)
        call.grpc_status = NO_GRPC_STATUS
    free_reply(session, call)
    call.keep_reply = False
    call.body_bytes = 0
    call.detail_bytes = 0


cdef void read_messages(ClientSession *session, ClientCall *call, const uint8_t *data, size_t size) noexcept nogil:
    cdef Messages *messages = &call.messages
    cdef size_t taken, part
    cdef bint whole
    while size > 0:
        if call.body_bytes == 0:
            call.keep_reply = messages.keep_next
            messages.keep_next = False
        taken = read_message(messages, data, size, &whole)
        if call.keep_reply:
            append_reply(session, call, data, taken)
        if messages.first_byte == ERROR_MESSAGE_TAG:
            # Of what was taken, without the prefix.
            part = min(taken, <size_t>messages.reply_read)
            append_detail(call, data + taken - part, part)
        call.body_bytes += taken
        data += taken
        size -= taken
        if whole:
            report_message(session, call)


cdef int on_data(
        nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size,
        void *context) noexcept nogil:
    cdef ClientCall *call = peek_call(h2, stream_id)
    cdef size_t i
    if call == NULL:
        return 0
    if call.messages.capacity > 0:
        read_messages(<ClientSession *>context, call, data, size)
        return 0
    # The length is the last four bytes of the prefix, which DATA frames may split.
    if call.body_bytes < MESSAGE_PREFIX_BYTES:
        for i in range(min(size, <size_t>(MESSAGE_PREFIX_BYTES - call.body_bytes))):
            call.message_bytes = call.message_bytes << 8 | data[i]
    if call.keep_reply:
        append_reply(<ClientSession *>context, call, data, size)
    call.body_bytes += size
    return 0


cdef int on_stream_close(
        nghttp2_session *h2, int32_t stream_id, uint32_t error_code, void *context) noexcept nogil:
    cdef ClientCall *call = peek_call(h2, stream_id)
    if call != NULL:
        finish_call(<ClientSession *>context, call, error_code)
    return 0


cdef int on_frame_not_sent(
        nghttp2_session *h2, const nghttp2_frame *frame, int error, void *context) noexcept nogil:
    """A request that the session refused to open, after a GOAWAY for one, never gets a stream_close."""
    cdef ClientSession *session = <ClientSession *>context
    cdef uint32_t i
    if frame.hd.type == NGHTTP2_HEADERS and peek_call(h2, frame.hd.stream_id) == NULL:
        for i in range(session.capacity + 1):
            if session.calls[i].stream_id == frame.hd.stream_id:
                finish_call(session, &session.calls[i], NGHTTP2_REFUSED_STREAM)
                break
    return 0


cdef ssize_t read_request(
        nghttp2_session *h2, int32_t stream_id, uint8_t *out, size_t capacity, uint32_t *flags,
        nghttp2_data_source *source, void *context) noexcept nogil:
    cdef ClientSession *session = <ClientSession *>context
    cdef ClientCall *call = <ClientCall *>source.ptr
    cdef size_t size
    cdef uint64_t number
    if call.messages.capacity > 0:
        size = write_messages(
            &call.messages, call.request, call.request_bytes, &call.sent_bytes, out, capacity)
        if call.messages.unsent == 0 and call.messages.ending:
            flags[0] |= NGHTTP2_DATA_FLAG_EOF
        elif size == 0:
            return NGHTTP2_ERR_DEFERRED
        return <ssize_t>size
    size = min(capacity, call.request_bytes - call.sent_bytes)
    if size == call.request_bytes - call.sent_bytes:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
    if call.request_bytes > SMALL_FRAME_BYTES:
        flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
        return <ssize_t>size
    memcpy(out, call.request + call.sent_bytes, size)
    call.sent_bytes += size
    if session.varied > 0 and call.sent_bytes == call.request_bytes and size >= sizeof(number):
        memcpy(&number, out + size - sizeof(number), sizeof(number))
        number ^= (session.varied & MANTISSA) | (session.varied >> MANTISSA_BITS & MANTISSA) << 32
        memcpy(out + size - sizeof(number), &number, sizeof(number))
        session.varied += 1
    return <ssize_t>size


cdef int lend_request(
        nghttp2_session *h2, nghttp2_frame *frame, const uint8_t *head, size_t size, nghttp2_data_source *source,
        void *context) noexcept nogil:
    """Part of a large request goes out from where it is; one part for each output."""
    cdef ClientSession *session = <ClientSession *>context
    cdef ClientCall *call = <ClientCall *>source.ptr
    cdef Output *output = session.output
    if output.lent_bytes > 0:
        return NGHTTP2_ERR_WOULDBLOCK
    memcpy(output.data + output.end, head, FRAME_HEAD_BYTES)
    output.end += FRAME_HEAD_BYTES
    output.lent_at = output.end
    output.lent = call.request + call.sent_bytes
    output.lent_bytes = size
    call.sent_bytes += size
    return 0


cdef ssize_t frame_length(
        nghttp2_session *h2, uint8_t frame_type, int32_t stream_id, int32_t session_window, int32_t stream_window,
        uint32_t max_frame_bytes, void *context) noexcept nogil:
    cdef ClientCall *call = peek_call(h2, stream_id)
    if call == NULL or call.messages.capacity > 0 or call.request_bytes <= SMALL_FRAME_BYTES:
        return SMALL_FRAME_BYTES
    return min(min(session_window, stream_window), <int32_t>min(max_frame_bytes, <uint32_t>FRAME_BYTES))


cdef void put_header(
        ClientSession *session, const char *name, size_t name_bytes, const char *value,
        size_t value_bytes) noexcept nogil:
    cdef nghttp2_nv *header = &session.headers[session.header_count]
    header.name = <uint8_t *>name
    header.namelen = name_bytes
    header.value = <uint8_t *>value
    header.valuelen = value_bytes
    header.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
    session.header_count += 1


cdef size_t write_timeout(char *out, size_t capacity, int64_t timeout_ns) noexcept nogil:
    """grpc-timeout allows eight digits, so a coarser unit is taken where they do not suffice; rounded up."""
    cdef int64_t unit_ns = 1
    cdef const char *units = b"numS"
    cdef int unit = 0
    while unit < 3 and timeout_ns > 99999999 * unit_ns:
        unit_ns *= 1000
        unit += 1
    cdef int64_t value = min((timeout_ns + unit_ns - 1) // unit_ns, <int64_t>99999999)
    return <size_t>snprintf(out, capacity, b"%lld%c", <long long>value, <int>units[unit])


cdef int open_h2(ClientSession *session) noexcept nogil:
    cdef nghttp2_session_callbacks *callbacks = NULL
    cdef nghttp2_settings_entry[3] settings
    cdef int code = nghttp2_session_callbacks_new(&callbacks)
    if code != 0:
        return code
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame)
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_sent)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close)
    nghttp2_session_callbacks_set_send_data_callback(callbacks, lend_request)
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, frame_length)
    code = nghttp2_session_client_new(&session.h2, callbacks, session)
    nghttp2_session_callbacks_del(callbacks)
    if code != 0:
        return code
    settings[0].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
    settings[0].value = 0
    settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[1].value = STREAM_WINDOW_BYTES
    settings[2].settings_id = NGHTTP2_SETTINGS_MAX_FRAME_SIZE
    settings[2].value = FRAME_BYTES
    code = nghttp2_submit_settings(session.h2, NGHTTP2_FLAG_NONE, settings, 3)
    if code == 0:
        code = nghttp2_session_set_local_window_size(session.h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES)
    return code


cdef int session_open(
        ClientSession *session, const char *path, size_t path_bytes, const char *authority, size_t authority_bytes,
        int64_t timeout_ns, uint32_t capacity, uint32_t stream_messages, reply_callback on_reply,
        void *owner) noexcept nogil:
    cdef uint32_t i
    cdef int code
    memset(session, 0, sizeof(ClientSession))
    session.on_reply = on_reply
    session.owner = owner
    session.peer_max_streams = capacity
    session.calls = <ClientCall *>calloc(<size_t>capacity + 1, sizeof(ClientCall))
    if session.calls == NULL:
        return NGHTTP2_ERR_NOMEM
    session.capacity = capacity
    if stream_messages > 0:
        session.stream_messages = stream_messages
        session.scheduled_ns = <int64_t *>calloc((<size_t>capacity + 1) * stream_messages, sizeof(int64_t))
        if session.scheduled_ns == NULL:
            session_close(session)
            return NGHTTP2_ERR_NOMEM
    for i in range(capacity + 1):
        session.calls[i].next_free = session.free_call
        session.free_call = &session.calls[i]
    put_header(session, b":method", 7, b"POST", 4)
    put_header(session, b":scheme", 7, b"http", 4)
    put_header(session, b":path", 5, path, path_bytes)
    put_header(session, b":authority", 10, authority, authority_bytes)
    put_header(session, b"te", 2, b"trailers", 8)
    put_header(session, b"content-type", 12, b"application/grpc", 16)
    if timeout_ns > 0:
        put_header(session, b"grpc-timeout", 12, session.timeout,
                   write_timeout(session.timeout, sizeof(session.timeout), timeout_ns))
    code = open_h2(session)
    if code != 0:
        session_close(session)
    return code


cdef void session_close(ClientSession *session) noexcept nogil:
    cdef uint32_t i
    nghttp2_session_del(session.h2)
    if session.calls != NULL:
        for i in range(session.capacity + 1):
            free(session.calls[i].reply)
    free(session.calls)
    free(session.scheduled_ns)
    session.h2 = NULL
    session.calls = NULL
    session.scheduled_ns = NULL
    session.free_call = NULL
    session.capacity = 0
    session.active = 0


cdef inline bint can_open(ClientSession *session) noexcept nogil:
    return (session.active < session.capacity and session.active < session.peer_max_streams
            and session.error == 0 and not session.goaway and nghttp2_session_check_request_allowed(session.h2) != 0)


cdef bint session_can_start(ClientSession *session) noexcept nogil:
    if session.stream_messages == 0:
        return can_open(session)
    return peek_stream(session) != NULL or can_open(session)


cdef ClientCall *peek_stream(ClientSession *session) noexcept nogil:
    """Round robin: an open stream with room for a message, or NULL."""
    cdef uint32_t i, index
    cdef ClientCall *call
    if session.error != 0 or session.goaway or session.under_way >= session.active * session.stream_messages:
        return NULL
    for i in range(session.capacity + 1):
        index = (session.cursor + i) % (session.capacity + 1)
        call = &session.calls[index]
        if call.stream_id != 0 and not call.ended and has_room(&call.messages):
            session.cursor = index
            return call
    return NULL


cdef ClientCall *open_call(ClientSession *session, const uint8_t *framed, size_t framed_bytes) noexcept nogil:
    cdef nghttp2_data_provider provider
    cdef ClientCall *call = session.free_call
    cdef ClientCall *next_free
    cdef int32_t stream_id
    if not can_open(session):
        return NULL
    next_free = call.next_free
    memset(call, 0, sizeof(ClientCall))
    call.grpc_status = NO_GRPC_STATUS
    call.request = framed
    call.request_bytes = framed_bytes
    if session.stream_messages > 0:
        call.messages.scheduled_ns = session.scheduled_ns + (call - session.calls) * session.stream_messages
        call.messages.capacity = session.stream_messages
    provider.source.ptr = call
    provider.read_callback = read_request
    stream_id = nghttp2_submit_request(session.h2, NULL, session.headers, session.header_count, &provider, call)
    if stream_id < 0:
        call.next_free = next_free
        return NULL
    call.stream_id = stream_id
    session.free_call = next_free
    session.active += 1
    return call


cdef ClientCall *session_start(
        ClientSession *session, const uint8_t *framed, size_t framed_bytes, int64_t scheduled_ns,
        bint keep_reply) noexcept nogil:
    cdef ClientCall *call = open_call(session, framed, framed_bytes)
    if session.stream_messages == 0:
        if call != NULL:
            call.scheduled_ns = scheduled_ns
            call.keep_reply = keep_reply
        return call
    if call == NULL:
        call = peek_stream(session)
        if call == NULL:
            return NULL
        session.cursor += 1
        # Does nothing where the stream still has something to send.
        nghttp2_session_resume_data(session.h2, call.stream_id)
    put_message(&call.messages, scheduled_ns)
    if keep_reply:
        call.messages.keep_next = True
    session.under_way += 1
    return call


cdef void session_end_streams(ClientSession *session) noexcept nogil:
    cdef uint32_t i
    cdef ClientCall *call
    for i in range(session.capacity + 1):
        call = &session.calls[i]
        if call.stream_id != 0 and call.messages.capacity > 0 and not call.messages.ending:
            call.messages.ending = True
            nghttp2_session_resume_data(session.h2, call.stream_id)


cdef int session_feed(ClientSession *session, const uint8_t *data, size_t size) noexcept nogil:
    cdef ssize_t taken
    if session.error == 0:
        taken = nghttp2_session_mem_recv(session.h2, data, size)
        if taken < 0:
            session.error = <int>taken
    return session.error


cdef void session_send(ClientSession *session, Output *output, size_t capacity) noexcept nogil:
    cdef const uint8_t *chunk = NULL
    cdef ssize_t size
    output.start = output.lent_at = output.end = output.lent_bytes = 0
    session.output = output
    # nghttp2 hands out one frame at a time and must not be asked for one that would not fit.
    while session.error == 0 and output.lent_bytes == 0 and capacity - output.end >= SEND_ROOM_BYTES:
        size = nghttp2_session_mem_send(session.h2, &chunk)
        if size < 0:
            session.error = <int>size
        if size <= 0:
            break
        memcpy(output.data + output.end, chunk, <size_t>size)
        output.end += <size_t>size
    if output.lent_bytes == 0:
        output.lent_at = output.end
    session.output = NULL


cdef void session_abandon(ClientSession *session) noexcept nogil:
    cdef uint32_t i
    if session.calls == NULL:
        return
    if session.error == 0:
        session.error = NGHTTP2_ERR_EOF
    for i in range(session.capacity + 1):
        if session.calls[i].stream_id != 0:
            session.calls[i].abandoned = True
            finish_call(session, &session.calls[i], 0)


cdef bint session_is_finished(ClientSession *session) noexcept nogil:
    """True once nothing more can come: the socket is to be closed."""
    return session.error != 0 or (
        nghttp2_session_want_read(session.h2) == 0 and nghttp2_session_want_write(session.h2) == 0)


cdef const char *session_reason(const ClientSession *session) noexcept nogil:
    if session.error != 0:
        return nghttp2_strerror(session.error)
    # nghttp2 answers a peer that breaks the protocol by a GOAWAY of its own, and is finished.
    return nghttp2_http2_strerror(session.goaway_code if session.goaway else NGHTTP2_PROTOCOL_ERROR)


cdef const char *reset_text(uint32_t code) noexcept nogil:
    return nghttp2_http2_strerror(code)


cdef int64_t reply_message_bytes(const ClientCall *call) noexcept nogil:
    if call.body_bytes != <uint64_t>call.message_bytes + MESSAGE_PREFIX_BYTES:
        return -1
    return call.message_bytes


cdef void collect_reply(void *owner, ClientCall *call) noexcept nogil:
    with gil:
        (<ClientConnection>owner).collect(call)


class Reply(NamedTuple):
    call_id: int
    http_status: int
    grpc_status: int
    message: bytes | None
    detail: str
    failure: str | None


@cython.final
cdef class ClientConnection:
    cdef ClientSession session
    cdef bytes path
    cdef bytes authority
    cdef dict requests          # call id -> framed bytes, lent to the session
    cdef list replies
    cdef object failure         # stashed by collect, raised by the entry point
    cdef int64_t next_id

    def __cinit__(self):
        memset(&self.session, 0, sizeof(ClientSession))

    def __dealloc__(self):
        session_close(&self.session)

    def __init__(self, str path, str authority, *, timeout_s=None, uint32_t max_calls=100, uint64_t max_reply_bytes=0):
        cdef int64_t timeout_ns = 0 if timeout_s is None else max(1, round(timeout_s * 1e9))
        cdef int code
        if self.session.h2 != NULL:
            raise RuntimeError("the connection is already open")
        self.path = path.encode()
        self.authority = authority.encode()
        self.requests = {}
        self.replies = []
        code = session_open(
            &self.session, self.path, len(self.path), self.authority, len(self.authority), timeout_ns, max_calls, 0,
            collect_reply, <void *>self)
        if code != 0:
            raise MemoryError(nghttp2_strerror(code).decode())
        self.session.max_reply_bytes = max_reply_bytes

    cdef void collect(self, ClientCall *call) noexcept:
        cdef int64_t size = reply_message_bytes(call)
        cdef object message = None
        cdef object failure = None
        try:
            self.requests.pop(call.scheduled_ns)
            if call.abandoned:
                failure = "connection lost"
            elif call.reset_code != 0:
                failure = nghttp2_http2_strerror(call.reset_code).decode()
            elif call.out_of_memory:
                failure = "out of memory"
            if size >= 0 and call.keep_reply:
                message = call.reply[MESSAGE_PREFIX_BYTES:MESSAGE_PREFIX_BYTES + size]
            self.replies.append(Reply(
                call.scheduled_ns, call.http_status, call.grpc_status, message,
                unquote(call.detail[:call.detail_bytes].decode("ascii", "replace")), failure))
        except BaseException as error:
            self.failure = error

    cdef list take_replies(self):
        cdef list replies = self.replies
        self.replies = []
        if self.failure is not None:
            error, self.failure = self.failure, None
            raise error
        return replies

    @property
    def active(self):
        return self.session.active

    @property
    def can_start(self):
        return session_can_start(&self.session)

    @property
    def is_finished(self):
        return session_is_finished(&self.session)

    def start(self, bytes message):
        cdef bytes framed = b"\0" + len(message).to_bytes(4, "big") + message
        cdef int64_t call_id = self.next_id
        if session_start(&self.session, framed, len(framed), call_id, True) == NULL:
            raise ConnectionError("no call can be started: the connection is closing or at its limit of calls")
        self.next_id += 1
        self.requests[call_id] = framed
        return call_id

    def feed(self, const uint8_t[::1] data):
        cdef int code = 0 if data.shape[0] == 0 else session_feed(&self.session, &data[0], data.shape[0])
        cdef list replies = self.take_replies()
        if code != 0:
            self.replies = replies
            raise ConnectionError(f"HTTP/2: {nghttp2_strerror(code).decode()}")
        return replies

    def take_output(self):
        cdef bytearray out = bytearray()
        cdef bytearray chunk = bytearray(SEND_CHUNK_BYTES)
        cdef Output output
        output.data = chunk
        session_send(&self.session, &output, SEND_CHUNK_BYTES)
        while output_bytes(&output) != 0:
            out += chunk[:output.lent_at]
            out += output.lent[:output.lent_bytes]
            out += chunk[output.lent_at:output.end]
            session_send(&self.session, &output, SEND_CHUNK_BYTES)
        return bytes(out)

    def abandon(self):
        session_abandon(&self.session)
        return self.take_replies()
