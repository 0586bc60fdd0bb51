"""One HTTP/2 connection's protocol over libnghttp2. See http2_session.pxd; what nghttp2 calls back is in http2_events.

Nothing here calls into asyncio: what has to be written is noted in `flushes`, cold calls go out through `spawn`.
Sources: RFC 9113; gRPC `doc/PROTOCOL-HTTP2.md`; nghttp2's programmers' guide.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset, strlen

from infer._core.block cimport Block, BlockView, block_data, block_unref
from infer._core.capi.nghttp2 cimport *
from infer._core.clock cimport now_ns
from infer._core.cold_call cimport ColdCall, ColdStream
from infer._core.debug cimport LIVE_SESSION, count_live
from infer._core.frame_heads cimport HEAD_BYTES, PREFACE_BYTES, next_head, stream_id_of
from infer._core.grpc_message cimport ENCODING_DEFLATE, ENCODING_GZIP, PREFIX_BYTES
from infer._core.grpc_stream cimport (
    CALL_COLD_STREAM, CALL_INFER, CALL_INFER_STREAM, EVENT_HEADERS_END, EVENT_MESSAGE_END, EVENT_TALK, SEEN_TE,
    SEEN_TIMEOUT, STREAM_CALLED, STREAM_MESSAGE, STREAM_TALKING, advance, body_room, check_headers, check_message,
    take_body)
from infer._core.http2_limits cimport REFUSED_CONTINUATIONS, REFUSED_PINGS, REFUSED_QUEUED_FRAMES
from infer._core.http2_replies cimport error, use_reader
from infer._core.request cimport FROM_CERTIFICATE, FROM_METADATA, Request
from infer._core.slab cimport slab_calloc, slab_free, slab_malloc, slab_realloc
from infer._core.status cimport STATUS_DEADLINE_EXCEEDED, STATUS_OK, STATUS_UNAVAILABLE, STATUS_UNIMPLEMENTED
from infer._core.stream_ids cimport GONE_ENDED, GONE_RESET, frame_for_gone, is_cancelled, stream_cancelled
from infer._core.tensor cimport say, say_name

cdef enum:
    FRAME_BYTES = 1048576                # largest that a peer may send
    ROOM_BYTES = 65536                   # with less to come of a frame, reading it in place is not worth it
    INLINE_INFLATED_BYTES = 262144       # by the loop, for one read of a socket
    ERR_TOO_MANY_CONTINUATIONS = -905    # declared since 1.61; distributions' patched older ones return it too

STREAM_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"
DRAIN_PING[:] = [0x69, 0x6e, 0x66, 0x65, 0x72, 0x2d, 0x67, 0x6f]
ALIVE_PING[:] = [0x69, 0x6e, 0x66, 0x65, 0x72, 0x2d, 0x6b, 0x61]

cdef const char *TOO_MANY_PINGS = "too_many_pings"

cdef nghttp2_session_callbacks *callbacks = NULL
cdef nghttp2_option *options = NULL
cdef nghttp2_mem memory
memory.mem_user_data = NULL
memory.malloc = slab_malloc
memory.free = slab_free
memory.calloc = slab_calloc
memory.realloc = slab_realloc


cdef void use_events(nghttp2_session_callbacks *table, nghttp2_option *chosen,
                     nghttp2_data_source_read_callback reader) noexcept:
    global callbacks, options
    callbacks = table
    options = chosen
    use_reader(reader)


cdef class Http2Session(Http2Replies):
    """See http2_session.pxd. The protocol feeds it and sends what it gives out."""

    def __cinit__(self):
        self.reason = NULL
        memset(&self.conduct, 0, sizeof(self.conduct))
        memset(&self.ids, 0, sizeof(self.ids))
        memset(&self.heads, 0, sizeof(self.heads))
        self.heads.left_bytes = PREFACE_BYTES
        self.frame_bytes = FRAME_BYTES
        self.tenant_bytes = -1
        self.routing_key = 0

    cdef int start(self) except -1:
        """Opens the nghttp2 session and queues our SETTINGS and window."""
        cdef nghttp2_settings_entry[4] settings
        if callbacks == NULL:
            raise RuntimeError("http2_events has to be imported first")
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
        settings[3].settings_id = NGHTTP2_SETTINGS_MAX_FRAME_SIZE
        settings[3].value = self.frame_bytes
        self.heed(nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, settings, 4))
        self.heed(nghttp2_session_set_local_window_size(
            self.session, NGHTTP2_FLAG_NONE, 0, self.limits.connection_window_bytes))
        return 0

    def __dealloc__(self):
        if self.session != NULL:
            nghttp2_session_del(self.session)
            count_live(LIVE_SESSION, -1)

    # Input.

    cdef void begin_read(self, bint turn) noexcept:
        if turn:
            self.turn_from = self.events
        self.inline_bytes = INLINE_INFLATED_BYTES

    cdef bint turn_is_over(self) noexcept:
        return self.events - self.turn_from > self.limits.turn_events

    cdef int feed(self, const uint8_t *data, uint64_t size_bytes) noexcept:
        cdef int gone
        cdef uint64_t sound_bytes = self.sound_bytes(data, size_bytes, &gone)
        cdef ssize_t consumed
        self.now = now_ns()
        self.stats.received_bytes += size_bytes
        # What this read brings about is flushed by the caller.
        self.feeding = True
        consumed = nghttp2_session_mem_recv(self.session, data, sound_bytes)
        self.feeding = False
        if consumed < 0:
            if consumed == NGHTTP2_ERR_FLOODED:
                self.cut(REFUSED_QUEUED_FRAMES)
            elif consumed == ERR_TOO_MANY_CONTINUATIONS:
                self.cut(REFUSED_CONTINUATIONS)
            return -1
        # Replies to streams that are gone, resets and acknowledgements wait in nghttp2 while the peer does not read.
        if nghttp2_session_get_outbound_queue_size(self.session) > <size_t> self.limits.abuse.queued_frames:
            self.cut(REFUSED_QUEUED_FRAMES)
        if gone != GONE_RESET:
            self.terminate(<uint32_t> gone)
            return -1
        return -1 if self.cut_off or self.starved else 0

    cdef BlockView peek_room(self):
        cdef Stream *stream
        cdef BlockView view
        cdef uint64_t size_bytes
        if self.frame_left_bytes < ROOM_BYTES or self.closed:
            return None
        stream = <Stream *> nghttp2_session_get_stream_user_data(self.session, self.frame_stream_id)
        if stream == NULL or stream.dead or stream.state != STREAM_MESSAGE:
            return None
        size_bytes = body_room(stream, self.frame_left_bytes)
        if size_bytes < ROOM_BYTES:
            return None
        view = BlockView.over(stream.body, stream.body.size_bytes, size_bytes)
        view.writable = True
        return view

    cdef uint64_t sound_bytes(self, const uint8_t *data, uint64_t size_bytes, int *gone) noexcept:
        cdef const uint8_t *at = data
        cdef uint64_t left_bytes = size_bytes
        gone[0] = GONE_RESET
        while next_head(&self.heads, &at, &left_bytes):
            if self.heads.head[3] == NGHTTP2_DATA:
                gone[0] = self.data_for(stream_id_of(self.heads.head))
                if gone[0] != GONE_RESET:
                    return <uint64_t> (at - data - HEAD_BYTES) if at - data > HEAD_BYTES else 0
            elif self.heads.head[3] == NGHTTP2_RST_STREAM:
                stream_cancelled(&self.ids, stream_id_of(self.heads.head))
        return size_bytes

    cdef int data_for(self, int32_t stream_id) noexcept:
        # Even ids and 0 are the library's to refuse. After the last GOAWAY streams went that the client did not end.
        if not stream_id & 1 or self.last_goaway:
            return GONE_RESET
        if is_cancelled(&self.ids, stream_id):
            return GONE_ENDED
        if stream_id > self.ids.highest or nghttp2_session_get_stream_user_data(self.session, stream_id) != NULL:
            return GONE_RESET
        if nghttp2_session_find_stream(self.session, stream_id) != NULL:
            return GONE_RESET
        return frame_for_gone(&self.ids, stream_id)

    cdef void open_cold(self, Stream *stream, bytes path) noexcept:
        cdef str name = path.decode("ascii", "replace")
        cdef ColdCall call
        if name == STREAM_PATH:
            call = ColdCall.__new__(ColdCall)
            stream.kind = CALL_INFER_STREAM
        elif name in self.streaming:
            call = ColdStream.__new__(ColdStream)
            stream.kind = CALL_COLD_STREAM
        else:
            call = ColdCall.__new__(ColdCall)
        call.stream = stream
        call.path = name
        call.peer = self.connection.peer_name()
        call.identity = self.connection.peer_identity()
        call.fields = []
        # Paired with the DECREF in `drop`.
        Py_INCREF(call)
        stream.cold = <void *> call

    cdef void headers_end(self, Stream *stream, bint end_stream) noexcept:
        cdef int http_status
        cdef int code
        cdef int64_t deadline_ns = 0
        cdef bint talks
        if end_stream:
            self.set_ended(stream)
        if not stream.seen & SEEN_TE:
            self.stats.calls_without_te += 1
        error.size_bytes = 0
        code = check_headers(stream, &http_status, &error)
        if code == STATUS_OK and stream.kind != CALL_INFER:
            code = self.check_path(stream)
        if code != STATUS_OK:
            self.refuse(stream, http_status, code)
            return
        if self.limits.reply_encodings != 0:
            stream.reply_encoding = <uint8_t> (self.limits.reply_encodings & stream.accepted)
            if self.limits.reply_encodings == ENCODING_DEFLATE | ENCODING_GZIP:
                stream.reply_encoding &= stream.encoding
        talks = stream.kind == CALL_INFER_STREAM or (
            stream.kind == CALL_COLD_STREAM and self.streaming[(<ColdCall> stream.cold).path])
        advance(stream, EVENT_TALK if talks else EVENT_HEADERS_END)
        if stream.seen & SEEN_TIMEOUT and stream.timeout_ns <= INT64_MAX // 2:
            deadline_ns = stream.received_ns + stream.timeout_ns
        if stream.kind == CALL_INFER:
            # May answer at once: the stream is then REPLYING.
            stream.request = self.sink.open(self, stream, stream.received_ns, deadline_ns)
            if stream.request == NULL:
                return
            stream.request.key.routing = self.routing_key
            if not self.identify(stream.request, self.tenant, self.tenant_bytes):
                return
        elif deadline_ns != 0:
            if deadline_ns <= now_ns():
                say(&error, "the deadline passed before the request was whole")
                self.refuse(stream, 200, STATUS_DEADLINE_EXCEEDED)
                return
            self.arm_cold(stream, deadline_ns)
        if stream.state == STREAM_TALKING and stream.kind == CALL_INFER_STREAM:
            self.open_infer(stream)
        elif stream.state == STREAM_TALKING:
            self.start_cold(stream)
        if end_stream:
            self.message_end(stream)

    cdef void note_tenant(self, const uint8_t *name, uint64_t name_bytes) noexcept:
        # A second one, and one too long, make it a name that nobody can have.
        if self.tenant_bytes >= 0:
            self.tenant_bytes = 0
            return
        self.tenant_bytes = <int32_t> min(name_bytes, sizeof(self.tenant))
        memcpy(self.tenant, name, self.tenant_bytes)

    cdef bint identify(self, Request *request, const uint8_t *name, int32_t name_bytes) noexcept:
        if self.limits.tenant_of_certificate:
            if self.certified is None:
                self.certified = self.connection.peer_tenant()
            if self.certified is not None:
                return self.sink.identify(request, <const uint8_t *> <const char *> self.certified,
                                          <uint64_t> len(self.certified), FROM_CERTIFICATE)
        return name_bytes < 0 or self.sink.identify(request, name, <uint64_t> name_bytes, FROM_METADATA)

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
        if stream.kind == CALL_INFER_STREAM or call.path in self.handlers:
            return STATUS_OK
        path = call.path.encode()
        say(&error, "unknown method ")
        say_name(&error, <const uint8_t *> <const char *> path, <uint64_t> len(path))
        say(&error, ": this server does not offer it")
        return STATUS_UNIMPLEMENTED

    cdef void message_end(self, Stream *stream) noexcept:
        cdef int code
        self.set_ended(stream)
        if stream.early:
            self.set_early(stream, False)
        if stream.state == STREAM_TALKING:
            self.half_close(stream)
            return
        if stream.state != STREAM_MESSAGE:
            return
        error.size_bytes = 0
        code = check_message(stream, &error)
        if code != STATUS_OK:
            self.refuse(stream, 200, code)
            return
        advance(stream, EVENT_MESSAGE_END)
        self.put_message(stream)
        if stream.inflating == NULL and stream.state == STREAM_CALLED:
            self.begin_call(stream)

    cdef void begin_call(self, Stream *stream) noexcept:
        if stream.kind == CALL_INFER:
            return
        if stream.kind == CALL_COLD_STREAM:
            (<ColdStream> stream.cold).ended = True
        self.start_cold(stream)

    cdef void put_message(self, Stream *stream) noexcept:
        cdef uint64_t start = stream.lead + PREFIX_BYTES
        cdef uint64_t size_bytes = stream.message_bytes - start
        if stream.compressed:
            self.inflate(stream)
        else:
            self.hand_over(stream, take_body(stream), start, size_bytes)

    cdef void hand_over(self, Stream *stream, Block *body, uint64_t start, uint64_t size_bytes) noexcept:
        if stream.kind == CALL_INFER:
            self.sink.submit(stream.request, body, start, size_bytes)
            return
        stream.pending += 1
        if stream.kind == CALL_INFER_STREAM:
            self.put_infer(stream, body, start, size_bytes, size_bytes + PREFIX_BYTES)
            return
        (<ColdCall> stream.cold).put(
            PyBytes_FromStringAndSize(<const char *> block_data(body) + start, <Py_ssize_t> size_bytes))
        block_unref(body)

    cdef void start_cold(self, Stream *stream) noexcept:
        cdef ColdCall call = <ColdCall> stream.cold
        self.stats.cold_calls_total += 1
        try:
            self.spawn(self, call, self.handlers[call.path])
        except Exception:
            self.finish_cold(call, STATUS_UNAVAILABLE, b"the server is stopping; send the request to another replica")

    cdef void inflate(self, Stream *stream) noexcept:
        pass

    cdef void stream_data(self, Stream *stream, const uint8_t *data, uint64_t size_bytes) noexcept:
        pass

    cdef void half_close(self, Stream *stream) noexcept:
        pass

    cdef void open_infer(self, Stream *stream) noexcept:
        pass

    cdef void put_infer(self, Stream *stream, Block *body, uint64_t start, uint64_t size_bytes,
                        uint64_t wire_bytes) noexcept:
        pass

    cdef void end_idle(self) noexcept:
        pass

    cdef bint is_over_limit(self, uint64_t size_bytes) noexcept:
        cdef int64_t held_bytes = self.buffered_bytes + self.outbound_bytes
        cdef int64_t sum_bytes = held_bytes + <int64_t> size_bytes
        # A connection may have one message, however large, of which the prefix is held already: what is over by itself
        # would be over forever.
        if sum_bytes > self.limits.connection_buffered_bytes and held_bytes > <int64_t> PREFIX_BYTES:
            return True
        # Peers that hold much must not make those pay that hold little: over the bound of all, a connection is served
        # while it holds less than its share of half the bound. All together hold half as much again at most.
        return (self.stats.buffered_bytes + self.stats.outbound_bytes + <int64_t> size_bytes
                > self.limits.process_buffered_bytes
                and 2 * self.stats.connections * sum_bytes >= self.limits.process_buffered_bytes)

    cdef void open_window(self, Stream *stream) noexcept:
        # A message that fits the window needs no more of it, nor does a longer one once the window holds all of it: no
        # WINDOW_UPDATEs, no writes, no wake-ups. What bounds memory is that the prefix was accepted.
        if not stream.widened and stream.message_bytes > <uint64_t> self.limits.stream_window_bytes:
            stream.widened = 1
            self.heed(nghttp2_session_set_local_window_size(
                self.session, NGHTTP2_FLAG_NONE, stream.id, <int32_t> min(stream.message_bytes, <uint64_t> INT32_MAX)))
        # Padding counts too, and nobody can tell how much will come.
        if stream.padded:
            self.heed(nghttp2_session_consume_stream(
                self.session, stream.id, stream.buffered_bytes - stream.consumed_bytes))
            stream.consumed_bytes = stream.buffered_bytes

    cdef inline void buffer(self, Stream *stream, uint64_t size_bytes) noexcept:
        self.buffered_bytes += size_bytes
        self.stats.buffered_bytes += size_bytes
        stream.buffered_bytes += size_bytes

    cdef bint is_done(self) noexcept:
        if self.closed:
            return True
        if self.draining and not self.last_goaway:
            return False
        return not nghttp2_session_want_read(self.session) and not nghttp2_session_want_write(self.session)

    # The end.

    cdef void drain(self, const char *reason=NULL) noexcept:
        if self.closed:
            return
        if reason == NULL and not self.stopping:
            self.stopping = True
            if self.last_goaway:
                self.end_idle()
        if self.draining or self.last_goaway:
            return
        self.draining = True
        self.reason = reason
        self.heed(nghttp2_submit_shutdown_notice(self.session))
        self.ping(DRAIN_PING)
        self.want_flush()

    cdef void ask_alive(self) noexcept:
        if not self.closed:
            self.ping(ALIVE_PING)
            self.want_flush()

    cdef void ping(self, const uint8_t *payload) noexcept:
        self.heed(nghttp2_submit_ping(self.session, NGHTTP2_FLAG_NONE, payload))
        self.conduct.awaited_acks += 1

    cdef void say_last_goaway(self) noexcept:
        if self.last_goaway:
            return
        self.last_goaway = True
        if self.stopping:
            self.end_idle()
        self.heed(nghttp2_submit_goaway(
            self.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(self.session), NGHTTP2_NO_ERROR,
            <const uint8_t *> self.reason, 0 if self.reason == NULL else strlen(self.reason)))
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

    cdef int cut(self, int kind) noexcept:
        if not self.cut_off:
            self.cut_off = True
            self.stats.refused[kind] += 1
            if kind == REFUSED_PINGS:
                # Clients look for this text (gRPC A8) and ping less often from then on.
                self.heed(nghttp2_submit_goaway(
                    self.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(self.session),
                    NGHTTP2_ENHANCE_YOUR_CALM, <const uint8_t *> TOO_MANY_PINGS, strlen(TOO_MANY_PINGS)))
            self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)
        return NGHTTP2_ERR_CALLBACK_FAILURE

    cdef void terminate(self, uint32_t error_code) noexcept:
        self.heed(nghttp2_session_terminate_session(self.session, error_code))
        self.want_flush()

    cdef bint close(self, int most) noexcept:
        self.connection = None
        self.closed = True
        while self.streams != NULL and most > 0:
            self.drop(self.streams)
            most -= 1
        if self.streams != NULL:
            return False
        if self.session == NULL:
            return True
        nghttp2_session_del(self.session)
        self.session = NULL
        count_live(LIVE_SESSION, -1)
        return True
