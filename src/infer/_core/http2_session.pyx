"""One HTTP/2 connection's protocol over libnghttp2. See http2_session.pxd.

nghttp2 calls back while it consumes input; a callback that fails stops the session. Nothing here calls into asyncio:
what has to be written is noted in `flushes`, cold calls go out through `spawn`.
Sources: RFC 9113; gRPC `doc/PROTOCOL-HTTP2.md`; nghttp2's programmers' guide.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy

from infer._core.block cimport Block, BlockView, block_data, block_new, block_unref
from infer._core.capi.nghttp2 cimport *
from infer._core.clock cimport now_ns
from infer._core.debug cimport LIVE_SESSION, count_live
from infer._core.grpc_message cimport PREFIX_BYTES, encodable_bytes, percent_encode, prefix_length, write_prefix
from infer._core.grpc_stream cimport (
    EVENT_CLOSE, EVENT_HEADERS_END, EVENT_MESSAGE_END, EVENT_REPLY, SEEN_ENCODING, SEEN_PATH, SEEN_TE, SEEN_TIMEOUT,
    STREAM_HEADERS, STREAM_MESSAGE, ColdCall, advance, check_headers, check_message,
    on_data, on_field, set_segments, stream_free, stream_new)
from infer._core.request cimport Request, Segment
from infer._core.slab cimport slab_calloc, slab_free, slab_malloc, slab_realloc
from infer._core.status cimport (
    STATUS_DEADLINE_EXCEEDED, STATUS_OK, STATUS_RESOURCE_EXHAUSTED, STATUS_UNAVAILABLE, STATUS_UNIMPLEMENTED)
from infer._core.tensor cimport ErrorText, say, say_name

cdef enum:
    SCRATCH_BYTES = 65536
    UNCOPIED_BYTES = 4096        # a segment with at least this left is sent from its Block
    EMPTY_FRAMES = 16
    MAX_FIELDS = 8
    MESSAGE_BYTES = 1024         # of grpc-message, percent-encoded
    ERR_TOO_MANY_CONTINUATIONS = -905    # declared since 1.61; distributions' patched older ones return it too

cdef const char *HOT_PATH = "/inference.GRPCInferenceService/ModelInfer"
cdef uint64_t HOT_PATH_BYTES = 42
cdef uint8_t[8] DRAIN_PING = [0x69, 0x6e, 0x66, 0x65, 0x72, 0x2d, 0x67, 0x6f]
cdef uint8_t[SCRATCH_BYTES] scratch_room
# One for all sessions: the loop thread alone writes refusals, one at a time.
cdef ErrorText error

cdef nghttp2_session_callbacks *callbacks = NULL
cdef nghttp2_option *options = NULL
cdef nghttp2_mem memory
memory.mem_user_data = NULL
memory.malloc = slab_malloc
memory.free = slab_free
memory.calloc = slab_calloc
memory.realloc = slab_realloc


cdef nghttp2_nv field(const char *name, size_t name_bytes, const char *value, size_t value_bytes) noexcept:
    """A header field whose name and value outlive the session."""
    cdef nghttp2_nv nv
    nv.name = <uint8_t *> name
    nv.namelen = name_bytes
    nv.value = <uint8_t *> value
    nv.valuelen = value_bytes
    nv.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
    return nv


cdef nghttp2_nv passing_field(const char *name, size_t name_bytes, const char *value, size_t value_bytes) noexcept:
    """A header field whose value is gone after the call."""
    cdef nghttp2_nv nv = field(name, name_bytes, value, value_bytes)
    nv.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME
    return nv

cdef nghttp2_nv[2] reply_fields
reply_fields[0] = field(":status", 7, "200", 3)
reply_fields[1] = field("content-type", 12, "application/grpc", 16)
cdef nghttp2_nv[1] ok_trailer
ok_trailer[0] = field("grpc-status", 11, "0", 1)


# Callbacks. `user_data` is the Http2Session, borrowed: it outlives its nghttp2 session.

cdef Stream *stream_of(nghttp2_session *session, int32_t stream_id) noexcept:
    return <Stream *> nghttp2_session_get_stream_user_data(session, stream_id)


cdef int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    stream = stream_new(frame.hd.stream_id, self.now)
    if stream == NULL:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    stream.next = self.streams
    if self.streams != NULL:
        self.streams.prev = stream
    self.streams = stream
    self.n_streams += 1
    self.stats.streams += 1
    self.stats.streams_total += 1
    nghttp2_session_set_stream_user_data(session, frame.hd.stream_id, stream)
    return 0


cdef int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes,
                   const uint8_t *value, size_t value_bytes, uint8_t flags, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream = stream_of(session, frame.hd.stream_id)
    cdef int code
    if stream == NULL or stream.dead or stream.state != STREAM_HEADERS:
        return 0
    error.size_bytes = 0
    code = on_field(stream, name, name_bytes, value, value_bytes, self.limits.header_bytes, &error)
    if code != STATUS_OK:
        self.stats.refused[<int> REFUSED_HEADERS] += 1
        self.refuse(stream, 200, code)
        return 0
    if name[0] == c':':
        if name_bytes == 5 and memcmp(name, b":path", 5) == 0:
            stream.seen |= SEEN_PATH
            if value_bytes == HOT_PATH_BYTES and memcmp(value, HOT_PATH, HOT_PATH_BYTES) == 0:
                stream.hot = 1
            else:
                self.open_cold(stream, value[:value_bytes])
    elif stream.cold != NULL:
        (<ColdCall> stream.cold).fields.append((name[:name_bytes], value[:value_bytes]))
    return 0


cdef int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes,
                           const uint8_t *value, size_t value_bytes, uint8_t flags, void *user_data) noexcept:
    """nghttp2 would drop a field with a bad value: a request that it came with is malformed (RFC 9113, 8.1.1)."""
    cdef Stream *stream = stream_of(session, frame.hd.stream_id)
    if stream != NULL and not stream.dead:
        stream.dead = 1
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_PROTOCOL_ERROR)
    return 0


cdef int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream
    cdef bint end_stream = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0
    if frame.hd.type == NGHTTP2_DATA:
        if end_stream:
            self.empty_frames = 0
            stream = stream_of(session, frame.hd.stream_id)
            if stream != NULL and not stream.dead:
                self.message_end(stream)
        elif frame.hd.length <= frame.data.padlen:
            self.empty_frames += 1
            if self.empty_frames > EMPTY_FRAMES:
                self.stats.refused[<int> REFUSED_EMPTY_FRAMES] += 1
                self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)
        else:
            self.empty_frames = 0
    elif frame.hd.type == NGHTTP2_HEADERS:
        stream = stream_of(session, frame.hd.stream_id)
        if stream == NULL or stream.dead:
            return 0
        if stream.state == STREAM_HEADERS:
            self.headers_end(stream, end_stream)
        elif end_stream:
            # Trailers from a client end its message as END_STREAM on DATA does.
            self.message_end(stream)
    elif frame.hd.type == NGHTTP2_SETTINGS:
        if frame.hd.flags & NGHTTP2_FLAG_ACK:
            self.settled = True
        else:
            self.greeted = True
    elif frame.hd.type == NGHTTP2_PING:
        if frame.hd.flags & NGHTTP2_FLAG_ACK and self.draining and memcmp(frame.ping.opaque_data, DRAIN_PING, 8) == 0:
            self.say_last_goaway()
    return 0


cdef int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
                       size_t size_bytes, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream = stream_of(session, stream_id)
    cdef int code
    if stream == NULL or stream.state != STREAM_MESSAGE or stream.dead:
        return 0
    error.size_bytes = 0
    code = on_data(
        stream, data, size_bytes, self.limits.max_message_bytes,
        self.buffered_bytes + self.outbound_bytes > self.limits.connection_buffered_bytes
        or self.stats.buffered_bytes + self.stats.outbound_bytes > self.limits.process_buffered_bytes, &error)
    self.buffered_bytes += size_bytes
    self.stats.buffered_bytes += size_bytes
    stream.buffered_bytes += size_bytes
    if code != STATUS_OK:
        if code == STATUS_RESOURCE_EXHAUSTED:
            self.count_refused(stream)
        self.refuse(stream, 200, code)
    return 0


cdef int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data) noexcept:
    cdef Stream *stream = stream_of(session, stream_id)
    if stream != NULL:
        (<Http2Session> user_data).drop(stream)
    return 0


cdef int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    """A call that was answered before its request ended: tell the client to stop sending (RFC 9113, 8.1)."""
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream
    if frame.hd.type == NGHTTP2_RST_STREAM and frame.rst_stream.error_code == NGHTTP2_REFUSED_STREAM:
        self.stats.refused[<int> REFUSED_STREAMS] += 1
    if self.early_replies > 0 and frame.hd.type == NGHTTP2_HEADERS and frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        stream = stream_of(session, frame.hd.stream_id)
        if stream != NULL and stream.early:
            self.set_early(stream, False)
            nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR)
    return 0


cdef ssize_t read_reply(nghttp2_session *session, int32_t stream_id, uint8_t *room, size_t room_bytes, uint32_t *flags,
                        nghttp2_data_source *source, void *user_data) noexcept:
    """Fills a DATA frame from the reply's segments: small ones are copied, the rest of a large one goes uncopied."""
    cdef Stream *stream = <Stream *> source.ptr
    cdef Segment *segment
    cdef uint64_t filled = 0
    cdef uint64_t copied = 0
    cdef uint64_t left
    while stream.segment < stream.n_segments and filled < room_bytes:
        segment = &stream.segments[stream.segment]
        left = segment.size_bytes - stream.sent
        if left >= UNCOPIED_BYTES:
            if filled == 0:
                flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
                filled = left if left < room_bytes else room_bytes
                if filled == left and stream.segment + 1 == stream.n_segments:
                    flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
                    nghttp2_submit_trailer(session, stream_id, ok_trailer, 1)
            break
        if left > room_bytes - filled:
            left = room_bytes - filled
        memcpy(room + filled, segment.data + stream.sent, left)
        filled += left
        copied += left
        stream.sent += left
        if stream.sent == segment.size_bytes:
            block_unref(segment.block)
            stream.segment += 1
            stream.sent = 0
    if stream.segment == stream.n_segments:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
        nghttp2_submit_trailer(session, stream_id, ok_trailer, 1)
    (<Http2Session> user_data).handed_out(stream, copied)
    return <ssize_t> filled


cdef int send_uncopied(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t size_bytes,
                       nghttp2_data_source *source, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream = <Stream *> source.ptr
    cdef Segment *segment = &stream.segments[stream.segment]
    cdef uint64_t start = <uint64_t> (segment.data - block_data(segment.block)) + stream.sent
    if self.taken >= self.take_limit:
        self.blocked = True
        return NGHTTP2_ERR_WOULDBLOCK
    try:
        self.put_bytes(head, 9)
        self.cut_piece()
        self.pieces.append(BlockView.over(segment.block, start, size_bytes))
    except MemoryError:
        return NGHTTP2_ERR_CALLBACK_FAILURE
    self.taken += size_bytes
    self.handed_out(stream, size_bytes)
    stream.sent += size_bytes
    if stream.sent == segment.size_bytes:
        block_unref(segment.block)
        stream.segment += 1
        stream.sent = 0
    return 0


cdef int prepare() except -1:
    """Callbacks and options, shared by all sessions of the process."""
    global callbacks, options
    if nghttp2_session_callbacks_new(&callbacks) != 0 or nghttp2_option_new(&options) != 0:
        raise MemoryError("no memory for nghttp2")
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header)
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close)
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_uncopied)
    nghttp2_option_set_no_closed_streams(options, 1)
    # The library's limit takes a token per incoming reset and would cut clients that cancel or time out often.
    infer_set_reset_rate(options, 1 << 40, 1 << 40)
    return 0

prepare()


cdef class Http2Session(ResponseSink):
    """See http2_session.pxd. Created by the protocol, which feeds it and sends what it gives out."""

    def __cinit__(self):
        self.session = NULL
        self.streams = NULL
        self.closed = True

    cdef int start(self) except -1:
        """Opens the nghttp2 session and queues our SETTINGS and window."""
        cdef nghttp2_settings_entry[3] settings
        if nghttp2_session_server_new3(&self.session, callbacks, <void *> self, options, &memory) != 0:
            raise MemoryError("no memory for an HTTP/2 session")
        count_live(LIVE_SESSION, 1)
        self.closed = False
        settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        settings[0].value = self.limits.max_streams
        settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
        settings[1].value = self.limits.stream_window_bytes
        settings[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
        settings[2].value = self.limits.header_bytes
        nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, settings, 3)
        nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, 0, self.limits.connection_window_bytes)
        return 0

    def __dealloc__(self):
        if self.session != NULL:
            nghttp2_session_del(self.session)

    # Input.

    cdef int feed(self, const uint8_t *data, uint64_t size_bytes) noexcept:
        cdef ssize_t consumed
        self.now = now_ns()
        self.stats.received_bytes += size_bytes
        # What this read brings about is flushed by the caller.
        self.feeding = True
        consumed = nghttp2_session_mem_recv(self.session, data, size_bytes)
        self.feeding = False
        if consumed < 0:
            if consumed == NGHTTP2_ERR_FLOODED or consumed == ERR_TOO_MANY_CONTINUATIONS:
                self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)
            return -1
        return 0

    cdef void open_cold(self, Stream *stream, bytes path) noexcept:
        cdef ColdCall call = ColdCall.__new__(ColdCall)
        call.stream = stream
        call.path = path.decode("ascii", "replace")
        call.peer = self.connection.peer_name()
        call.fields = []
        # Paired with the DECREF in `drop`.
        Py_INCREF(call)
        stream.cold = <void *> call

    cdef void headers_end(self, Stream *stream, bint end_stream) noexcept:
        cdef int http_status
        cdef int code
        cdef int64_t deadline_ns = 0
        stream.ended = end_stream
        if not stream.seen & SEEN_TE:
            self.stats.calls_without_te += 1
        error.size_bytes = 0
        code = check_headers(stream, &http_status, &error)
        if code == STATUS_OK and not stream.hot:
            code = self.check_path(stream)
        if code != STATUS_OK:
            self.refuse(stream, http_status, code)
            return
        advance(stream, EVENT_HEADERS_END)
        if stream.seen & SEEN_TIMEOUT and stream.timeout_ns <= INT64_MAX // 2:
            deadline_ns = stream.received_ns + stream.timeout_ns
        if stream.hot:
            # May answer at once: the stream is then REPLYING.
            stream.request = self.sink.open(self, stream, stream.received_ns, deadline_ns)
            if stream.request == NULL:
                return
        elif deadline_ns != 0:
            if deadline_ns <= now_ns():
                say(&error, "the deadline passed before the request was whole")
                self.refuse(stream, 200, STATUS_DEADLINE_EXCEEDED)
                return
            self.arm_cold(stream, deadline_ns)
        if end_stream:
            self.message_end(stream)

    cdef void arm_cold(self, Stream *stream, int64_t deadline_ns) noexcept:
        cdef ColdCall call = <ColdCall> stream.cold
        call.deadline_ns = deadline_ns
        try:
            call.timer = self.arm(self, call)
        except Exception:
            say(&error, "the server is stopping; send the request to another replica")
            self.refuse(stream, 200, STATUS_UNAVAILABLE)

    cdef int check_path(self, Stream *stream) noexcept:
        cdef ColdCall call
        if stream.cold == NULL:
            say(&error, "the request has no :path")
            return STATUS_UNIMPLEMENTED
        call = <ColdCall> stream.cold
        if call.path in self.handlers:
            return STATUS_OK
        path = call.path.encode()
        say(&error, "unknown method ")
        say_name(&error, <const uint8_t *> <const char *> path, <uint64_t> len(path))
        say(&error, ": this server does not offer it")
        return STATUS_UNIMPLEMENTED

    cdef void message_end(self, Stream *stream) noexcept:
        """END_STREAM has come: hand the call over."""
        cdef Block *body
        cdef Request *request
        cdef ColdCall call
        cdef int code
        stream.ended = 1
        if stream.early:
            self.set_early(stream, False)
        if stream.state != STREAM_MESSAGE:
            return
        error.size_bytes = 0
        code = check_message(stream, &error)
        if code != STATUS_OK:
            self.refuse(stream, 200, code)
            return
        advance(stream, EVENT_MESSAGE_END)
        body = stream.body
        stream.body = NULL
        if stream.hot:
            request = stream.request
            self.sink.submit(request, body, stream.lead + PREFIX_BYTES,
                             stream.message_bytes - stream.lead - PREFIX_BYTES)
            return
        self.stats.cold_calls_total += 1
        call = <ColdCall> stream.cold
        call.message = PyBytes_FromStringAndSize(<const char *> block_data(body) + stream.lead + PREFIX_BYTES,
                                                 <Py_ssize_t> stream.message_bytes - stream.lead - PREFIX_BYTES)
        block_unref(body)
        try:
            self.spawn(self, call, self.handlers[call.path])
        except Exception:
            self.finish_cold(call, STATUS_UNAVAILABLE, b"the server is stopping; send the request to another replica")

    cdef void count_refused(self, const Stream *stream) noexcept:
        """Which bound a message that was just refused for its size had reached."""
        cdef uint8_t flag
        if stream.body != NULL and stream.body.size_bytes >= PREFIX_BYTES and (
                <int64_t> prefix_length(block_data(stream.body) + stream.lead, &flag) > self.limits.max_message_bytes):
            self.stats.refused[<int> REFUSED_MESSAGE] += 1
        else:
            self.stats.refused[<int> REFUSED_BUFFERED] += 1

    cdef void set_early(self, Stream *stream, bint early) noexcept:
        if stream.early != early:
            stream.early = early
            self.early_replies += 1 if early else -1

    cdef void release_buffered(self, Stream *stream) noexcept:
        self.buffered_bytes -= stream.buffered_bytes
        self.stats.buffered_bytes -= stream.buffered_bytes
        stream.buffered_bytes = 0

    cdef inline void handed_out(self, Stream *stream, uint64_t size_bytes) noexcept:
        stream.outbound_bytes -= size_bytes
        self.outbound_bytes -= size_bytes
        self.stats.outbound_bytes -= size_bytes
        self.handed_bytes += size_bytes

    # Replies.

    cdef void finish(self, void *call, Reply *reply) noexcept:
        cdef Stream *stream = <Stream *> call
        cdef int i
        stream.request = NULL
        if not advance(stream, EVENT_REPLY):
            for i in range(reply.n_segments):
                block_unref(reply.segments[i].block)
            return
        self.set_early(stream, not stream.ended)
        self.release_buffered(stream)
        if reply.code != STATUS_OK:
            self.submit_refusal(stream, 200, reply.code, reply.message, reply.message_bytes, reply.pushback_ms)
        elif set_segments(stream, reply.segments, reply.n_segments):
            self.submit_reply(stream)
        else:
            self.submit_refusal(stream, 200, STATUS_RESOURCE_EXHAUSTED, "no memory for the reply", 23, -1)
        self.want_flush()

    def finish_cold(self, ColdCall call not None, int code, bytes message not None):
        """The outcome of a cold call: the reply's bytes, or where `code` is not 0 the status message."""
        cdef Stream *stream = call.stream
        cdef Segment segment
        if stream == NULL or self.closed or not advance(stream, EVENT_REPLY):
            return
        call.disarm()
        self.set_early(stream, not stream.ended)
        self.release_buffered(stream)
        if code != STATUS_OK:
            self.submit_refusal(stream, 200, code, message, <uint32_t> len(message), -1)
        else:
            segment.block = block_new(<uint64_t> len(message) + PREFIX_BYTES)
            if segment.block == NULL:
                self.submit_refusal(stream, 200, STATUS_RESOURCE_EXHAUSTED, "no memory for the reply", 23, -1)
            else:
                segment.data = block_data(segment.block)
                segment.size_bytes = <uint64_t> len(message) + PREFIX_BYTES
                segment.block.size_bytes = segment.size_bytes
                write_prefix(block_data(segment.block), <uint32_t> len(message))
                memcpy(block_data(segment.block) + PREFIX_BYTES, <const char *> message, len(message))
                set_segments(stream, &segment, 1)
                self.submit_reply(stream)
        self.want_flush()

    cdef void submit_reply(self, Stream *stream) noexcept:
        cdef nghttp2_data_provider provider
        cdef int i
        for i in range(stream.n_segments):
            stream.outbound_bytes += stream.segments[i].size_bytes
        self.outbound_bytes += stream.outbound_bytes
        self.stats.outbound_bytes += stream.outbound_bytes
        provider.source.ptr = stream
        provider.read_callback = read_reply
        nghttp2_submit_response(self.session, stream.id, reply_fields, 2, &provider)

    cdef void refuse(self, Stream *stream, int http_status, int code) noexcept:
        """Ends a call that the transport itself turns down, with the text in `error`."""
        cdef Request *request = stream.request
        if not advance(stream, EVENT_REPLY):
            return
        self.set_early(stream, not stream.ended)
        if request != NULL:
            stream.request = NULL
            self.sink.cancel(request, code)
        self.release_buffered(stream)
        self.submit_refusal(stream, http_status, code, error.text, error.size_bytes, -1)

    cdef void submit_refusal(self, Stream *stream, int http_status, int code, const char *message,
                             uint32_t message_bytes, int64_t pushback_ms) noexcept:
        """A reply without a message: one HEADERS frame with END_STREAM (Trailers-Only)."""
        cdef nghttp2_nv[MAX_FIELDS] fields
        cdef char[4] status_text
        cdef char[4] code_text
        cdef char[24] pushback_text
        cdef uint8_t[MESSAGE_BYTES] encoded
        cdef uint64_t encoded_bytes
        cdef int n = 0
        snprintf(status_text, 4, "%d", http_status)
        snprintf(code_text, 4, "%d", code)
        fields[n] = passing_field(":status", 7, status_text, 3)
        n += 1
        fields[n] = reply_fields[1]
        n += 1
        fields[n] = passing_field("grpc-status", 11, code_text, 1 if code < 10 else 2)
        n += 1
        if message_bytes > 0:
            encoded_bytes = encodable_bytes(<const uint8_t *> message, message_bytes, MESSAGE_BYTES)
            encoded_bytes = percent_encode(<const uint8_t *> message, encoded_bytes, encoded)
            fields[n] = passing_field("grpc-message", 12, <const char *> encoded, encoded_bytes)
            fields[n].flags |= NGHTTP2_NV_FLAG_NO_INDEX
            n += 1
        if pushback_ms >= 0:
            fields[n] = passing_field("grpc-retry-pushback-ms", 22, pushback_text,
                                      <size_t> snprintf(pushback_text, 24, "%lld", <long long> pushback_ms))
            n += 1
        if stream.seen & SEEN_ENCODING:
            fields[n] = field("grpc-accept-encoding", 20, "identity", 8)
            n += 1
        if http_status == 405:
            fields[n] = field("allow", 5, "POST", 4)
            n += 1
        nghttp2_submit_response(self.session, stream.id, fields, n, NULL)

    cdef void drop(self, Stream *stream) noexcept:
        """nghttp2 has closed the stream, or the connection is gone."""
        cdef Request *request = stream.request
        cdef ColdCall call
        if stream.prev != NULL:
            stream.prev.next = stream.next
        else:
            self.streams = stream.next
        if stream.next != NULL:
            stream.next.prev = stream.prev
        self.n_streams -= 1
        self.stats.streams -= 1
        self.set_early(stream, False)
        advance(stream, EVENT_CLOSE)
        if request != NULL:
            stream.request = NULL
            self.sink.cancel(request)
        self.release_buffered(stream)
        self.outbound_bytes -= stream.outbound_bytes
        self.stats.outbound_bytes -= stream.outbound_bytes
        if stream.cold != NULL:
            call = <ColdCall> stream.cold
            stream.cold = NULL
            call.stream = NULL
            call.disarm()
            if call.task is not None:
                call.task.cancel()
            # Paired with the INCREF in `open_cold`.
            Py_DECREF(call)
        stream_free(stream)

    # Output.

    cdef void want_flush(self) noexcept:
        if not self.listed and not self.closed and not self.feeding:
            self.listed = True
            self.flushes.append(self.connection)

    cdef bint wants_output(self) noexcept:
        return not self.closed and nghttp2_session_want_write(self.session) != 0

    cdef int put_bytes(self, const uint8_t *data, uint64_t size_bytes) except -1:
        if self.scratched + size_bytes > SCRATCH_BYTES:
            self.cut_piece()
        if size_bytes > SCRATCH_BYTES:
            self.pieces.append(PyBytes_FromStringAndSize(<const char *> data, <Py_ssize_t> size_bytes))
            return 0
        memcpy(self.scratch + self.scratched, data, size_bytes)
        self.scratched += size_bytes
        return 0

    cdef int cut_piece(self) except -1:
        if self.scratched > 0:
            self.pieces.append(PyBytes_FromStringAndSize(<const char *> self.scratch, <Py_ssize_t> self.scratched))
            self.scratched = 0
        return 0

    cdef list take_output(self, uint64_t limit_bytes, bint *more):
        cdef const uint8_t *frame
        cdef ssize_t size_bytes
        more[0] = False
        if self.closed:
            return None
        self.scratch = scratch_room
        self.scratched = 0
        self.pieces = []
        self.taken = 0
        self.take_limit = limit_bytes
        self.blocked = False
        while self.taken < limit_bytes:
            size_bytes = nghttp2_session_mem_send(self.session, &frame)
            if size_bytes < 0:
                raise MemoryError(f"nghttp2: {nghttp2_strerror(<int> size_bytes).decode()}")
            if size_bytes == 0:
                break
            self.put_bytes(frame, <uint64_t> size_bytes)
            self.taken += <uint64_t> size_bytes
        more[0] = self.blocked or self.taken >= limit_bytes
        self.cut_piece()
        self.stats.sent_bytes += <int64_t> self.taken
        pieces = self.pieces
        self.pieces = None
        return pieces or None

    cdef bint is_done(self) noexcept:
        if self.closed:
            return True
        if self.draining and not self.last_goaway:
            return False
        return not nghttp2_session_want_read(self.session) and not nghttp2_session_want_write(self.session)

    # The end.

    cdef void drain(self) noexcept:
        if self.closed or self.draining or self.last_goaway:
            return
        self.draining = True
        nghttp2_submit_shutdown_notice(self.session)
        nghttp2_submit_ping(self.session, NGHTTP2_FLAG_NONE, DRAIN_PING)
        self.want_flush()

    cdef void say_last_goaway(self) noexcept:
        if self.last_goaway:
            return
        self.last_goaway = True
        nghttp2_submit_goaway(self.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(self.session),
                              NGHTTP2_NO_ERROR, NULL, 0)
        self.want_flush()

    cdef void end_calls(self, const char *message) noexcept:
        cdef Stream *stream = self.streams
        cdef Stream *following
        while stream != NULL:
            following = stream.next
            error.size_bytes = 0
            say(&error, message)
            self.refuse(stream, 200, STATUS_UNAVAILABLE)
            stream = following
        self.say_last_goaway()
        self.want_flush()

    cdef void cut(self) noexcept:
        self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)

    cdef void terminate(self, uint32_t error_code) noexcept:
        nghttp2_session_terminate_session(self.session, error_code)
        self.want_flush()

    cdef void close(self) noexcept:
        self.connection = None
        if self.closed:
            return
        self.closed = True
        while self.streams != NULL:
            self.drop(self.streams)
        nghttp2_session_del(self.session)
        self.session = NULL
        count_live(LIVE_SESSION, -1)
