"""What libnghttp2 tells about a connection, passed on to its Http2Session.

The callbacks run inside `nghttp2_session_mem_recv` and `_mem_send`, on the loop thread. One that fails stops the
session. `user_data` is the Http2Session, borrowed: it outlives its nghttp2 session. Importing this module registers
them.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from infer._core.abuse cimport (
    EARLY_NS, data_sent, empty_data_came, headers_sent, idle_frame_came, oversize_header, ping_answered, ping_came,
    settings_came, stream_closed, stream_error, window_update_came)
from infer._core.block cimport block_data, block_unref
from infer._core.capi.nghttp2 cimport *
from infer._core.cold_call cimport ColdCall
from infer._core.grpc_stream cimport (
    CALL_COLD_STREAM, CALL_INFER, CALL_INFER_STREAM, SEEN_PATH, STREAM_HEADERS, STREAM_MESSAGE, STREAM_TALKING, Stream,
    on_data, on_field, stream_new)
from infer._core.http2_limits cimport (
    REFUSED_EARLY_RESETS, REFUSED_EMPTY_FRAMES, REFUSED_HEADERS, REFUSED_IDLE_FRAMES, REFUSED_OVERSIZE_HEADERS,
    REFUSED_PINGS, REFUSED_PROTOCOL, REFUSED_SETTINGS_FRAMES, REFUSED_STREAMS, REFUSED_STREAM_ERRORS,
    REFUSED_WINDOW_UPDATES)
from infer._core.http2_replies cimport COSTLY_EVENTS, error, output
from infer._core.http2_session cimport BURST_STREAMS, DRAIN_PING, Http2Session, use_events
from infer._core.request cimport Segment
from infer._core.split cimport key_hash
from infer._core.status cimport STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.stream_ids cimport GONE_RESET, frame_for_gone, stream_opened, stream_reset

cdef enum:
    UNCOPIED_BYTES = 4096        # a segment with at least this left is sent from its Block
    FRAME_HEAD_BYTES = 9
    SMALL_FRAME_BYTES = 16384
    LARGE_FRAME_BYTES = 262144
    FIELD_OVERHEAD_BYTES = 32    # that a header field counts besides its text (RFC 9113, 6.5.2)
    UPLOAD_BYTES = 16384         # of a message: a client that sent so much of it was not opening streams to reset them
    SETTINGS_ENTRIES = 32
    SURPLUS_SHARE = 4            # fields of no use are too much at this part of what a header block may have
    FIRST_UNKNOWN_FRAME = 10

cdef const char *HOT_PATH = "/inference.GRPCInferenceService/ModelInfer"
cdef uint64_t HOT_PATH_BYTES = 42


cdef Stream *stream_of(nghttp2_session *session, int32_t stream_id) noexcept:
    return <Stream *> nghttp2_session_get_stream_user_data(session, stream_id)


cdef int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *user_data) noexcept:
    """Notes how much of a DATA frame is to come, and judges the frames whose stream may be gone."""
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream
    cdef int gone
    if self.cut_off:
        # By a callback that could not say so to nghttp2.
        return NGHTTP2_ERR_CALLBACK_FAILURE
    self.events += 1
    self.frame_left_bytes = 0
    if head.type == NGHTTP2_DATA:
        self.frame_stream_id = head.stream_id
        self.frame_left_bytes = head.length
        if head.flags & NGHTTP2_FLAG_PADDED:
            self.frame_left_bytes = 0
            stream = stream_of(session, head.stream_id)
            if stream != NULL:
                stream.padded = 1
    elif head.type == NGHTTP2_HEADERS:
        # Of a stream that is open, or about to be; even ids and 0 are the library's to refuse.
        if head.stream_id > self.ids.highest or stream_of(session, head.stream_id) != NULL or not head.stream_id & 1:
            return 0
        if self.last_goaway or nghttp2_session_find_stream(session, head.stream_id) != NULL:
            return 0
        gone = frame_for_gone(&self.ids, head.stream_id)
        if gone != GONE_RESET:
            self.terminate(<uint32_t> gone)
            return NGHTTP2_ERR_CALLBACK_FAILURE
    elif head.type == NGHTTP2_WINDOW_UPDATE:
        if window_update_came(&self.conduct, &self.limits.abuse):
            return self.cut(REFUSED_WINDOW_UPDATES)
    elif head.type == NGHTTP2_PRIORITY or head.type >= FIRST_UNKNOWN_FRAME:
        if idle_frame_came(&self.conduct, &self.limits.abuse):
            return self.cut(REFUSED_IDLE_FRAMES)
    return 0


cdef int skip_unknown(nghttp2_session *session, void **payload, const nghttp2_frame_hd *head, void *user_data) noexcept:
    return NGHTTP2_ERR_CANCEL


cdef int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream
    if frame.hd.type != NGHTTP2_HEADERS or frame.headers.cat != NGHTTP2_HCAT_REQUEST:
        return 0
    stream_opened(&self.ids, frame.hd.stream_id)
    # A header block is not interrupted by another one.
    self.tenant_bytes = -1
    self.routing_key = 0
    stream = stream_new(frame.hd.stream_id, self.now)
    if stream == NULL:
        # A client takes this code for RESOURCE_EXHAUSTED.
        self.heed(nghttp2_submit_rst_stream(
            session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_ENHANCE_YOUR_CALM))
        return 0
    self.open_requests += 1
    if self.open_requests > BURST_STREAMS:
        # It costs what a call costs, and comes in a few bytes. Clients open many at once, and then send the messages.
        self.events += COSTLY_EVENTS
    stream.next = self.streams
    if self.streams != NULL:
        self.streams.prev = stream
    self.streams = stream
    self.n_streams += 1
    self.conduct.streams += 1
    self.stats.streams += 1
    self.stats.streams_total += 1
    nghttp2_session_set_stream_user_data(session, frame.hd.stream_id, stream)
    return 0


cdef int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes,
                   const uint8_t *value, size_t value_bytes, uint8_t flags, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream = stream_of(session, frame.hd.stream_id)
    cdef int code
    self.events += 1
    if stream == NULL:
        return 0
    if stream.dead or stream.state != STREAM_HEADERS:
        return surplus_field(self, stream, name_bytes + value_bytes + FIELD_OVERHEAD_BYTES)
    error.size_bytes = 0
    code = on_field(stream, name, name_bytes, value, value_bytes, self.limits.header_bytes, &error)
    if code != STATUS_OK:
        self.stats.refused[<int> REFUSED_HEADERS] += 1
        self.refuse(stream, 200, code)
        return oversize(self, stream)
    if name_bytes == self.limits.tenant_key_bytes and memcmp(name, self.limits.tenant_key, name_bytes) == 0:
        self.note_tenant(value, value_bytes)
    if (name_bytes == self.limits.routing_key_bytes and value_bytes > 0
            and memcmp(name, self.limits.routing_key, name_bytes) == 0):
        self.routing_key = key_hash(value, value_bytes)
    if name[0] == c':':
        if name_bytes == 5 and memcmp(name, b":path", 5) == 0:
            stream.seen |= SEEN_PATH
            if value_bytes == HOT_PATH_BYTES and memcmp(value, HOT_PATH, HOT_PATH_BYTES) == 0:
                stream.kind = CALL_INFER
            else:
                self.open_cold(stream, value[:value_bytes])
    elif stream.cold != NULL:
        (<ColdCall> stream.cold).fields.append((name[:name_bytes], value[:value_bytes]))
    return 0


cdef int oversize(Http2Session self, Stream *stream) noexcept:
    # What is still to come of the block is measured anew: one small block can decode to megabytes.
    stream.header_bytes = 0
    if oversize_header(&self.conduct, &self.limits.abuse, self.now):
        return self.cut(REFUSED_OVERSIZE_HEADERS)
    return 0


cdef int surplus_field(Http2Session self, Stream *stream, uint64_t field_bytes) noexcept:
    """A field of no use: the rest of a block that was refused, or a trailer."""
    stream.header_bytes += <int32_t> field_bytes
    return oversize(self, stream) if stream.header_bytes > self.limits.header_bytes // SURPLUS_SHARE else 0


cdef int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes,
                           const uint8_t *value, size_t value_bytes, uint8_t flags, void *user_data) noexcept:
    """nghttp2 would drop a field with a bad value: a request that it came with is malformed (RFC 9113, 8.1.1)."""
    cdef Stream *stream = stream_of(session, frame.hd.stream_id)
    if stream != NULL and not stream.dead:
        stream.dead = 1
        (<Http2Session> user_data).events += COSTLY_EVENTS
        (<Http2Session> user_data).heed(nghttp2_submit_rst_stream(
            session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_PROTOCOL_ERROR))
    return 0


cdef int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int result, void *user_data) noexcept:
    """The library is about to reset the stream, or to end the connection."""
    (<Http2Session> user_data).events += COSTLY_EVENTS
    stream_reset(&(<Http2Session> user_data).ids, frame.hd.stream_id)
    return 0


cdef int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream
    cdef bint end_stream = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0
    if frame.hd.type == NGHTTP2_DATA:
        if end_stream:
            self.conduct.empty_frames = 0
            stream = stream_of(session, frame.hd.stream_id)
            if stream != NULL and not stream.dead:
                stream.whole = 1
                self.message_end(stream)
        elif frame.hd.length <= frame.data.padlen:
            if empty_data_came(&self.conduct, &self.limits.abuse):
                return self.cut(REFUSED_EMPTY_FRAMES)
        else:
            self.conduct.empty_frames = 0
    elif frame.hd.type == NGHTTP2_HEADERS:
        stream = stream_of(session, frame.hd.stream_id)
        if stream == NULL or stream.dead:
            return 0
        if stream.state == STREAM_HEADERS:
            self.headers_end(stream, end_stream)
        elif end_stream:
            # Trailers from a client end its message as END_STREAM on DATA does.
            stream.whole = 1
            self.message_end(stream)
    elif frame.hd.type == NGHTTP2_RST_STREAM:
        stream = stream_of(session, frame.hd.stream_id)
        if stream != NULL:
            stream.early_reset = is_early(stream, self.now)
        elif idle_frame_came(&self.conduct, &self.limits.abuse):
            return self.cut(REFUSED_IDLE_FRAMES)
    else:
        return on_connection_frame(self, frame)
    return 0


cdef inline bint is_early(const Stream *stream, int64_t now) noexcept:
    # A stream of messages needs none: good clients cancel such as soon as they are made, so it is as good as whole.
    if stream.kind == CALL_INFER_STREAM or stream.kind == CALL_COLD_STREAM:
        return False
    if stream.whole or now - stream.received_ns >= <int64_t> EARLY_NS:
        return False
    if stream.body == NULL or stream.message_bytes == 0:
        return True
    return stream.body.size_bytes < UPLOAD_BYTES and stream.body.size_bytes < stream.message_bytes


cdef int on_connection_frame(Http2Session self, const nghttp2_frame *frame) noexcept:
    if frame.hd.type == NGHTTP2_SETTINGS:
        if frame.hd.flags & NGHTTP2_FLAG_ACK:
            self.settled = True
        else:
            self.greeted = True
            if settings_came(&self.conduct, &self.limits.abuse, self.now):
                return self.cut(REFUSED_SETTINGS_FRAMES)
    elif frame.hd.type == NGHTTP2_PING:
        if not frame.hd.flags & NGHTTP2_FLAG_ACK:
            if ping_came(&self.conduct, &self.limits.abuse, self.now):
                return self.cut(REFUSED_PINGS)
        elif ping_answered(&self.conduct, &self.limits.abuse, self.now):
            return self.cut(REFUSED_PINGS)
        elif self.draining and memcmp(frame.ping.opaque_data, DRAIN_PING, 8) == 0:
            self.say_last_goaway()
    elif frame.hd.type == NGHTTP2_GOAWAY:
        self.peer_leaves = True
        if idle_frame_came(&self.conduct, &self.limits.abuse):
            return self.cut(REFUSED_IDLE_FRAMES)
    return 0


cdef int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
                       size_t size_bytes, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream = stream_of(session, stream_id)
    cdef int code
    if self.frame_left_bytes > 0:
        self.frame_left_bytes -= size_bytes
    code = nghttp2_session_consume_connection(session, size_bytes)
    if code != 0:
        self.heed(code)
    if stream == NULL or stream.dead:
        return 0
    if stream.state == STREAM_TALKING:
        self.stream_data(stream, data, size_bytes)
        return 0
    if stream.state != STREAM_MESSAGE:
        return 0
    error.size_bytes = 0
    code = on_data(stream, data, size_bytes, self.limits.max_message_bytes, self.is_over_limit(0), &error)
    self.buffer(stream, size_bytes)
    if code == STATUS_RESOURCE_EXHAUSTED:
        self.refuse_size(stream)
    elif code != STATUS_OK:
        self.refuse(stream, 200, code)
    elif stream.padded or stream.message_bytes > <uint64_t> self.limits.stream_window_bytes:
        self.open_window(stream)
    return 0


cdef int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream = stream_of(session, stream_id)
    cdef bint early
    if stream == NULL:
        return 0
    if error_code != NGHTTP2_NO_ERROR:
        self.events += COSTLY_EVENTS
    early = stream.early_reset
    self.drop(stream)
    # Not an error for nghttp2: it would keep the stream, and the Stream is gone.
    if stream_closed(&self.conduct, &self.limits.abuse, early, self.now) and early:
        self.cut(REFUSED_EARLY_RESETS)
    return 0


cdef int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream
    if frame.hd.type == NGHTTP2_DATA:
        data_sent(&self.conduct)
    elif frame.hd.type == NGHTTP2_HEADERS:
        headers_sent(&self.conduct)
        # A call that was answered before its request ended: tell the client to stop sending (RFC 9113, 8.1).
        if self.early_replies > 0 and frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            stream = stream_of(session, frame.hd.stream_id)
            if stream != NULL and stream.early:
                self.set_early(stream, False)
                self.heed(nghttp2_submit_rst_stream(
                    session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR))
    elif frame.hd.type == NGHTTP2_RST_STREAM:
        stream_reset(&self.ids, frame.hd.stream_id)
        if frame.rst_stream.error_code == NGHTTP2_REFUSED_STREAM:
            self.stats.refused[<int> REFUSED_STREAMS] += 1
        if is_peers_fault(frame.rst_stream.error_code) and stream_error(&self.conduct, &self.limits.abuse, self.now):
            self.cut(REFUSED_STREAM_ERRORS)
    elif frame.hd.type == NGHTTP2_GOAWAY and frame.goaway.error_code != NGHTTP2_NO_ERROR:
        # The library ends the connection by itself, also in the middle of a drain.
        self.last_goaway = True
        if not self.cut_off:
            self.stats.refused[<int> REFUSED_PROTOCOL] += 1
    return 0


cdef inline bint is_peers_fault(uint32_t error_code) noexcept:
    return (error_code == NGHTTP2_PROTOCOL_ERROR or error_code == NGHTTP2_FLOW_CONTROL_ERROR
            or error_code == NGHTTP2_STREAM_CLOSED or error_code == NGHTTP2_REFUSED_STREAM)


cdef ssize_t read_reply(nghttp2_session *session, int32_t stream_id, uint8_t *room, size_t room_bytes, uint32_t *flags,
                        nghttp2_data_source *source, void *user_data) noexcept:
    """Fills a DATA frame from the reply's segments: small ones are copied, the rest of a large one goes uncopied."""
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream = <Stream *> source.ptr
    cdef Segment *segment
    cdef uint64_t filled = 0
    cdef uint64_t copied = 0
    cdef uint64_t left
    cdef bint ends = False
    while stream.segment < stream.n_segments and filled < room_bytes:
        segment = &stream.segments[stream.segment]
        left = segment.size_bytes - stream.sent
        if left >= UNCOPIED_BYTES:
            if filled == 0:
                flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
                filled = left if left < room_bytes else room_bytes
                ends = filled == left and stream.segment + 1 == stream.n_segments
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
    if stream.last and (ends or stream.segment == stream.n_segments):
        flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
        self.submit_trailers(stream)
    elif filled == 0 and stream.segment == stream.n_segments:
        stream.deferred = 1
        return NGHTTP2_ERR_DEFERRED
    self.handed_out(stream, copied)
    return <ssize_t> filled


cdef ssize_t frame_length(nghttp2_session *session, uint8_t frame_type, int32_t stream_id, int32_t session_window,
                          int32_t stream_window, uint32_t max_frame_bytes, void *user_data) noexcept:
    """Large replies go in frames as large as the client takes; nghttp2 makes room for a frame before it is known."""
    cdef Stream *stream = stream_of(session, stream_id)
    if stream == NULL or stream.outbound_bytes <= SMALL_FRAME_BYTES:
        return SMALL_FRAME_BYTES
    return min(min(session_window, stream_window), <int32_t> min(max_frame_bytes, <uint32_t> LARGE_FRAME_BYTES))


cdef int send_uncopied(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t size_bytes,
                       nghttp2_data_source *source, void *user_data) noexcept:
    cdef Http2Session self = <Http2Session> user_data
    cdef Stream *stream = <Stream *> source.ptr
    cdef Segment *segment = &stream.segments[stream.segment]
    cdef uint64_t start = <uint64_t> (segment.data - block_data(segment.block)) + stream.sent
    if output.is_full():
        output.blocked = True
        return NGHTTP2_ERR_WOULDBLOCK
    try:
        output.put(head, FRAME_HEAD_BYTES)
        output.put_view(segment.block, start, size_bytes)
    except MemoryError:
        return NGHTTP2_ERR_CALLBACK_FAILURE
    self.handed_out(stream, size_bytes)
    stream.sent += size_bytes
    if stream.sent == segment.size_bytes:
        block_unref(segment.block)
        stream.segment += 1
        stream.sent = 0
    return 0


cdef int register() except -1:
    """Callbacks and options, shared by all sessions of the process."""
    cdef nghttp2_session_callbacks *callbacks = NULL
    cdef nghttp2_option *options = NULL
    cdef int kind
    if nghttp2_session_callbacks_new(&callbacks) != 0 or nghttp2_option_new(&options) != 0:
        raise MemoryError("no memory for nghttp2")
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame)
    nghttp2_session_callbacks_set_unpack_extension_callback(callbacks, skip_unknown)
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header)
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close)
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_uncopied)
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, frame_length)
    nghttp2_option_set_no_closed_streams(options, 1)
    nghttp2_option_set_no_auto_window_update(options, 1)
    nghttp2_option_set_max_settings(options, SETTINGS_ENTRIES)
    # Types that nghttp2 does not know are skipped without a callback, unless they are said to be ours.
    for kind in range(FIRST_UNKNOWN_FRAME, 256):
        nghttp2_option_set_user_recv_extension_type(options, <uint8_t> kind)
    # The library's limit takes a token per incoming reset and would cut clients that cancel or time out often.
    infer_set_reset_rate(options, 1 << 40, 1 << 40)
    use_events(callbacks, options, read_reply)
    return 0

register()
