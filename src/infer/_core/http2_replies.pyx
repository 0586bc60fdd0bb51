"""Replies over libnghttp2. See http2_replies.pxd.

Nothing here calls into asyncio: what has to be written is noted in `flushes`.
"""

from cpython.ref cimport Py_DECREF
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from infer._core.block cimport block_data, block_new, block_unref
from infer._core.capi.nghttp2 cimport *
from infer._core.cold_call cimport ColdCall, ColdStream
from infer._core.grpc_message cimport ENCODING_GZIP, ENCODING_IDENTITY, PREFIX_BYTES, write_prefix
from infer._core.grpc_stream cimport (
    CALL_COLD, CALL_COLD_STREAM, CALL_INFER_STREAM, EVENT_CLOSE, EVENT_REPLY, SEEN_ENCODING, SEEN_TOO_LONG,
    add_segments, advance, set_end, set_variant, stream_free)
from infer._core.http2_limits cimport REFUSED_BUFFERED, REFUSED_MESSAGE
from infer._core.reply_fields cimport (
    Refusal, add_retry_info, add_variant, build_ok_trailers, build_refusal, build_trailers, deflate_head, gzip_head,
    join_pairs, ok_trailer, reply_head)
from infer._core.request cimport Reply, Request, Segment
from infer._core.retry_info cimport BUSY_PUSHBACK_MS
from infer._core.status cimport STATUS_CANCELLED, STATUS_OK, STATUS_RESOURCE_EXHAUSTED

output = FlushBuffer()

cdef nghttp2_data_source_read_callback read_reply = NULL


cdef void use_reader(nghttp2_data_source_read_callback reader) noexcept:
    global read_reply
    read_reply = reader


cdef class Http2Replies(ResponseSink):
    """See http2_replies.pxd."""

    def __cinit__(self):
        self.session = NULL
        self.streams = NULL
        self.closed = True
        self.events = 0

    cdef void finish(self, void *call, Reply *reply) noexcept:
        cdef Stream *stream = <Stream *> call
        cdef int i
        stream.request = NULL
        if self.closed or not advance(stream, EVENT_REPLY):
            for i in range(reply.n_segments):
                block_unref(reply.segments[i].block)
            return
        self.set_early(stream, not stream.ended)
        self.let_go(stream, reply.code)
        set_variant(stream, reply.variant)
        if reply.code != STATUS_OK:
            self.submit_end(stream, 200, reply.code, reply.message, reply.message_bytes, reply.pushback_ms)
        elif self.queue(stream, reply.segments, reply.n_segments):
            self.submit_reply(stream)
        else:
            self.submit_end(stream, 200, STATUS_RESOURCE_EXHAUSTED, "no memory for the reply", 23, -1)
        self.want_flush()

    def finish_cold(self, ColdCall call not None, int code, bytes message not None):
        """The outcome of a cold call: where `code` is 0 the bytes of a unary reply, else the status message."""
        cdef Stream *stream = call.stream
        if stream == NULL or self.closed or not advance(stream, EVENT_REPLY):
            return
        call.disarm()
        self.set_early(stream, not stream.ended)
        self.let_go(stream, code)
        if code != STATUS_OK:
            self.submit_end(stream, 200, code, message, <uint32_t> len(message), -1)
        elif stream.kind == CALL_COLD and not self.queue_message(stream, message):
            self.submit_end(stream, 200, STATUS_RESOURCE_EXHAUSTED, "no memory for the reply", 23, -1)
        else:
            self.submit_reply(stream)
        self.want_flush()

    cdef bint queue_message(self, Stream *stream, bytes message) noexcept:
        cdef uint64_t size_bytes = <uint64_t> len(message)
        cdef Segment segment
        if size_bytes > UINT32_MAX:
            return False
        segment.block = block_new(size_bytes + PREFIX_BYTES)
        if segment.block == NULL:
            return False
        segment.data = block_data(segment.block)
        segment.size_bytes = segment.block.size_bytes = size_bytes + PREFIX_BYTES
        write_prefix(block_data(segment.block), <uint32_t> size_bytes)
        memcpy(block_data(segment.block) + PREFIX_BYTES, <const char *> message, size_bytes)
        return self.queue(stream, &segment, 1)

    cdef bint queue(self, Stream *stream, const Segment *segments, int count) noexcept:
        cdef uint64_t size_bytes = 0
        cdef int i
        if stream.reply_encoding != ENCODING_IDENTITY:
            for i in range(count):
                size_bytes += segments[i].size_bytes
            return self.queue_coded(stream, segments, count, size_bytes)
        return self.queue_segments(stream, segments, count)

    cdef bint queue_segments(self, Stream *stream, const Segment *segments, int count) noexcept:
        cdef uint64_t size_bytes = 0
        cdef int i
        for i in range(count):
            size_bytes += segments[i].size_bytes
        if not add_segments(stream, segments, count):
            return False
        self.count_outbound(stream, size_bytes)
        return True

    cdef bint queue_coded(self, Stream *stream, const Segment *segments, int count, uint64_t size_bytes) noexcept:
        return self.queue_segments(stream, segments, count)

    cdef inline void count_outbound(self, Stream *stream, uint64_t size_bytes) noexcept:
        stream.outbound_bytes += size_bytes
        self.outbound_bytes += size_bytes
        self.stats.outbound_bytes += size_bytes

    cdef void submit_reply(self, Stream *stream) noexcept:
        if stream.deflating != NULL:
            stream.closing = 1
            return
        stream.last = 1
        if stream.headed:
            self.resume(stream)
        else:
            self.submit_head(stream)

    cdef void resume(self, Stream *stream) noexcept:
        """There is more to send, if only trailers."""
        if stream.deferred:
            stream.deferred = 0
            self.heed(nghttp2_session_resume_data(self.session, stream.id))

    cdef void submit_head(self, Stream *stream) noexcept:
        cdef nghttp2_data_provider provider
        cdef const nghttp2_nv *head = reply_head
        cdef int count = 2
        if stream.reply_encoding != ENCODING_IDENTITY:
            head = &gzip_head[0] if stream.reply_encoding == ENCODING_GZIP else &deflate_head[0]
            count = 3
        provider.source.ptr = stream
        provider.read_callback = read_reply
        stream.headed = 1
        if stream.cold == NULL or (<ColdCall> stream.cold).head is None:
            self.heed(nghttp2_submit_response(self.session, stream.id, head, count, &provider))
        else:
            self.submit_pairs(stream, head, count, (<ColdCall> stream.cold).head, &provider)

    cdef void submit_pairs(self, Stream *stream, const nghttp2_nv *fields, int count, list pairs,
                           const nghttp2_data_provider *provider) noexcept:
        """A head with a handler's metadata; without a provider the whole of a reply."""
        cdef nghttp2_nv *joined = join_pairs(fields, count, pairs)
        if joined == NULL:
            self.heed(NGHTTP2_ERR_NOMEM)
            return
        self.heed(nghttp2_submit_response(self.session, stream.id, joined, count + len(pairs), provider))
        free(joined)

    cdef void submit_trailers(self, Stream *stream) noexcept:
        """Called once the last of the reply is being sent."""
        cdef Refusal refusal
        cdef nghttp2_nv *joined
        cdef list pairs = (<ColdCall> stream.cold).trailing if stream.cold != NULL else None
        if stream.end_code == STATUS_OK and pairs is None and stream.variant == NULL:
            self.heed(nghttp2_submit_trailer(self.session, stream.id, ok_trailer, 1))
            return
        if stream.end_code == STATUS_OK:
            build_ok_trailers(&refusal, stream.variant)
        else:
            build_trailers(&refusal, stream.end_code, stream.end_text, stream.end_bytes)
            add_variant(&refusal, stream.variant)
        if pairs is None:
            self.heed(nghttp2_submit_trailer(self.session, stream.id, refusal.fields, refusal.n_fields))
            return
        joined = join_pairs(refusal.fields, refusal.n_fields, pairs)
        if joined == NULL:
            self.heed(NGHTTP2_ERR_NOMEM)
            return
        self.heed(nghttp2_submit_trailer(self.session, stream.id, joined, refusal.n_fields + len(pairs)))
        free(joined)

    # A status that is not OK.

    cdef void refuse(self, Stream *stream, int http_status, int code) noexcept:
        """Ends a call that the transport itself turns down, with the text in `error`."""
        self.end_refused(stream, http_status, code, -1)

    cdef void refuse_size(self, Stream *stream) noexcept:
        """Counts which bound a message had reached, its own or that of all."""
        cdef bint too_long = (stream.seen & SEEN_TOO_LONG) != 0
        self.stats.refused[<int> REFUSED_MESSAGE if too_long else <int> REFUSED_BUFFERED] += 1
        self.end_refused(stream, 200, STATUS_RESOURCE_EXHAUSTED, -1 if too_long else <int64_t> BUSY_PUSHBACK_MS)

    cdef void end_refused(self, Stream *stream, int http_status, int code, int64_t pushback_ms) noexcept:
        if not advance(stream, EVENT_REPLY):
            return
        self.events += COSTLY_EVENTS
        self.set_early(stream, not stream.ended)
        self.let_go(stream, code)
        if stream.cold != NULL:
            (<ColdCall> stream.cold).disarm()
        self.submit_end(stream, http_status, code, error.text, error.size_bytes, pushback_ms)
        if stream.cold != NULL:
            (<ColdCall> stream.cold).stop()

    cdef void submit_end(self, Stream *stream, int http_status, int code, const char *message, uint32_t message_bytes,
                         int64_t pushback_ms) noexcept:
        """A status that is not OK: one HEADERS frame with END_STREAM (Trailers-Only), unless the reply has a head."""
        cdef Refusal refusal
        cdef ColdCall call = <ColdCall> stream.cold if stream.cold != NULL else None
        if (stream.headed or stream.n_segments > 0 or stream.deflating != NULL
                or call is not None and call.head is not None):
            # Without memory for its text, the status goes without.
            set_end(stream, code, message, message_bytes)
            self.submit_reply(stream)
            return
        build_refusal(&refusal, http_status, code, message, message_bytes, pushback_ms,
                      (stream.seen & SEEN_ENCODING) != 0)
        add_variant(&refusal, stream.variant)
        if call is None or call.trailing is None:
            # A handler that gives trailers may give details of its own.
            if pushback_ms >= 0:
                add_retry_info(&refusal, code, message, pushback_ms)
            self.heed(nghttp2_submit_response(self.session, stream.id, refusal.fields, refusal.n_fields, NULL))
        else:
            self.submit_pairs(stream, refusal.fields, refusal.n_fields, call.trailing, NULL)

    # Streams.

    cdef void set_early(self, Stream *stream, bint early) noexcept:
        if stream.early != early:
            stream.early = early
            self.early_replies += 1 if early else -1

    cdef inline void set_ended(self, Stream *stream) noexcept:
        self.open_requests -= not stream.ended
        stream.ended = 1

    cdef inline void release(self, Stream *stream, uint64_t size_bytes) noexcept:
        self.buffered_bytes -= size_bytes
        self.stats.buffered_bytes -= size_bytes
        stream.buffered_bytes -= size_bytes

    cdef void let_go(self, Stream *stream, int code) noexcept:
        cdef Request *request = stream.request
        if request != NULL:
            stream.request = NULL
            self.sink.cancel(request, code)
        self.release(stream, stream.buffered_bytes)
        block_unref(stream.held)
        stream.held = NULL

    cdef void drop(self, Stream *stream) noexcept:
        """nghttp2 has closed the stream, or the connection is gone."""
        cdef Stream **link = &self.due
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
        self.set_ended(stream)
        if stream.inflating != NULL or stream.deflating != NULL:
            self.forget_jobs(stream)
        advance(stream, EVENT_CLOSE)
        self.let_go(stream, STATUS_CANCELLED)
        if stream.due:
            while link[0] != stream:
                link = &link[0].next_due
            link[0] = stream.next_due
        self.outbound_bytes -= stream.outbound_bytes
        self.stats.outbound_bytes -= stream.outbound_bytes
        if stream.cold != NULL:
            call = <ColdCall> stream.cold
            stream.cold = NULL
            call.stream = NULL
            call.stop()
            # Paired with the INCREF in `open_cold`.
            Py_DECREF(call)
        stream_free(stream)

    # Output.

    cdef void want_flush(self) noexcept:
        if not self.listed and not self.closed and not self.feeding:
            self.listed = True
            self.flushes.append(self.connection)

    cdef void heed(self, int result) noexcept:
        if result == NGHTTP2_ERR_NOMEM:
            self.starved = True
            self.want_flush()

    cdef void set_due(self, Stream *stream) noexcept:
        if not stream.due:
            stream.due = 1
            stream.next_due = self.due
            self.due = stream
            self.want_flush()

    cdef void settle(self) noexcept:
        pass

    cdef void forget_jobs(self, Stream *stream) noexcept:
        pass

    cdef bint wants_output(self) noexcept:
        return not self.closed and (
            self.starved or self.due != NULL or nghttp2_session_want_write(self.session) != 0)

    cdef list take_output(self, uint64_t limit_bytes, bint *more):
        cdef const uint8_t *frame
        cdef ssize_t size_bytes
        more[0] = False
        if self.closed:
            return None
        output.begin(limit_bytes)
        while not output.is_full():
            if self.due != NULL:
                self.settle()
            size_bytes = nghttp2_session_mem_send(self.session, &frame)
            if size_bytes < 0:
                raise MemoryError(f"nghttp2: {nghttp2_strerror(<int> size_bytes).decode()}")
            if size_bytes == 0:
                if self.due == NULL:
                    break
                continue
            output.put(frame, <uint64_t> size_bytes)
        if self.starved:
            raise MemoryError("nghttp2: no memory for what was to be sent")
        more[0] = output.blocked or output.is_full()
        self.stats.sent_bytes += <int64_t> output.taken_bytes
        return output.take()

    cdef inline void handed_out(self, Stream *stream, uint64_t size_bytes) noexcept:
        stream.outbound_bytes -= size_bytes
        self.outbound_bytes -= size_bytes
        self.stats.outbound_bytes -= size_bytes
        self.handed_bytes += size_bytes
        self.reply_moved(stream)

    cdef inline void reply_moved(self, Stream *stream) noexcept:
        if stream.kind == CALL_COLD_STREAM and stream.outbound_bytes < <uint64_t> self.limits.stream_outbound_bytes:
            (<ColdStream> stream.cold).wake_writer()
        elif stream.kind == CALL_INFER_STREAM and stream.held != NULL:
            self.set_due(stream)
