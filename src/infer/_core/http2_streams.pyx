"""Streams of messages over one HTTP/2 connection. See http2_streams.pxd.

Sources: gRPC `doc/PROTOCOL-HTTP2.md`; RFC 9113, 5.2 (flow control).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from infer._core.block cimport Block, block_data, block_unref
from infer._core.capi.nghttp2 cimport nghttp2_session_consume_stream
from infer._core.clock cimport now_ns
from infer._core.cold_call cimport ColdCall, ColdStream
from infer._core.grpc_message cimport ENCODING_IDENTITY, PREFIX_BYTES
from infer._core.grpc_stream cimport (
    CALL_INFER_STREAM, EVENT_MESSAGE_END, EVENT_PART, EVENT_REPLY, STREAM_CALLED, STREAM_TALKING, add_segments, advance,
    check_message, hold, is_whole, take_data)
from infer._core.http2_coding cimport CodingSession
from infer._core.http2_replies cimport error
from infer._core.infer_stream cimport (
    InferStream, claim_slot, infer_stream_free, infer_stream_new, keep_reply, oldest_answered, pass_slot)
from infer._core.request cimport Request, Segment
from infer._core.status cimport (
    STATUS_DEADLINE_EXCEEDED, STATUS_OK, STATUS_RESOURCE_EXHAUSTED, STATUS_UNAVAILABLE)
from infer._core.tensor cimport say

from infer import errors


cdef class SlotSink(ResponseSink):
    cdef void finish(self, void *call, Reply *reply) noexcept:
        cdef Slot *slot = <Slot *> call
        (<StreamingSession> slot.owner.session).slot_finished(slot, reply)


cdef SlotSink slot_sink = SlotSink()


cdef void say_end(Slot *slot) noexcept:
    """The text of a request that ends its stream, for `error`."""
    cdef Segment *text = &slot.segments[0]
    if slot.n_segments == 0:
        say(&error, "no memory for the reply")
        return
    memcpy(error.text, text.data, text.size_bytes)
    error.size_bytes = <uint32_t> text.size_bytes


cdef class StreamingSession(CodingSession):
    """See http2_streams.pxd. Created by the protocol, one for each connection."""

    # Input.

    cdef bint is_full(self, Stream *stream) noexcept:
        if stream.kind == CALL_INFER_STREAM and (
                stream.deflating != NULL or stream.outbound_bytes > <uint64_t> self.limits.stream_outbound_bytes):
            return True
        # One message may always wait, however large: the next is looked at once the handler has taken it.
        if stream.inflating != NULL:
            return True
        if stream.pending == 0:
            return False
        # A compressed message that finds no room once it is inflated ends the stream: it comes when any would find it.
        if stream.pending >= self.limits.stream_messages or self.is_over_limit(
                0 if stream.encoding == ENCODING_IDENTITY else <uint64_t> self.limits.max_message_bytes):
            return True
        return stream.kind != CALL_INFER_STREAM and (
            stream.buffered_bytes > <uint64_t> self.limits.stream_window_bytes)

    cdef void stream_data(self, Stream *stream, const uint8_t *data, uint64_t size_bytes) noexcept:
        cdef int code = STATUS_OK
        self.buffer(stream, size_bytes)
        stream.owed_bytes += size_bytes
        if stream.held == NULL:
            code = self.take_messages(stream, &data, &size_bytes)
        if code == STATUS_OK and size_bytes > 0 and stream.state == STREAM_TALKING:
            if stream.held == NULL:
                self.stats.streams_held_total += 1
            if not hold(stream, data, size_bytes):
                say(&error, "the server's memory for requests is used up; retry later or send to another replica")
                code = STATUS_RESOURCE_EXHAUSTED
        if code != STATUS_OK:
            self.refuse_data(stream, code)
            return
        self.give_window(stream)

    cdef int take_messages(self, Stream *stream, const uint8_t **data, uint64_t *size_bytes) noexcept:
        cdef int code
        error.size_bytes = 0
        while size_bytes[0] > 0 and stream.state == STREAM_TALKING:
            if stream.body == NULL and self.is_full(stream):
                break
            code = take_data(stream, data, size_bytes, self.limits.max_message_bytes, self.is_over_limit(0), &error)
            if code != STATUS_OK:
                return code
            if is_whole(stream):
                stream.whole = 1
                self.put_message(stream)
        return STATUS_OK

    cdef void refuse_data(self, Stream *stream, int code) noexcept:
        if code == STATUS_RESOURCE_EXHAUSTED:
            self.refuse_size(stream)
        else:
            self.refuse(stream, 200, code)

    cdef void pump(self, Stream *stream) noexcept:
        cdef const uint8_t *data
        cdef uint64_t size_bytes
        cdef int code
        if stream.held == NULL or self.is_full(stream):
            return
        data = block_data(stream.held) + stream.held_start
        size_bytes = stream.held.size_bytes - stream.held_start
        code = self.take_messages(stream, &data, &size_bytes)
        if code != STATUS_OK:
            self.refuse_data(stream, code)
        if stream.held == NULL:
            return
        stream.held_start = stream.held.size_bytes - size_bytes
        if size_bytes == 0:
            block_unref(stream.held)
            stream.held = NULL
        self.give_window(stream)
        if stream.held == NULL and stream.inflating == NULL and stream.ended:
            self.end_request(stream)

    cdef void go_on(self, Stream *stream) noexcept:
        if stream.held != NULL:
            self.pump(stream)
        elif stream.ended:
            self.end_request(stream)

    cdef void give_window(self, Stream *stream) noexcept:
        """All but what is held; the library tells the client once it is half a window."""
        cdef uint64_t held_bytes = 0
        if stream.held != NULL:
            held_bytes = stream.held.size_bytes - stream.held_start
        if stream.owed_bytes > held_bytes:
            self.heed(nghttp2_session_consume_stream(self.session, stream.id, stream.owed_bytes - held_bytes))
            stream.owed_bytes = held_bytes

    cdef void half_close(self, Stream *stream) noexcept:
        # What is held, or with a worker, comes first.
        if stream.held == NULL and stream.inflating == NULL:
            self.end_request(stream)

    cdef void end_request(self, Stream *stream) noexcept:
        """END_STREAM has come, and all that came before it has been handed over."""
        cdef int code
        error.size_bytes = 0
        if stream.body != NULL:
            code = check_message(stream, &error)
            self.refuse(stream, 200, code)
            return
        if not advance(stream, EVENT_MESSAGE_END):
            return
        if stream.kind == CALL_INFER_STREAM:
            self.set_due(stream)
            return
        (<ColdStream> stream.cold).ended = True
        (<ColdStream> stream.cold).wake_reader()

    # ModelStreamInfer.

    cdef void open_infer(self, Stream *stream) noexcept:
        cdef ColdCall call = <ColdCall> stream.cold
        cdef InferStream *talk = infer_stream_new(stream, <void *> self, self.limits.stream_messages)
        if talk == NULL:
            error.size_bytes = 0
            say(&error, "the server's memory for requests is used up; retry later or send to another replica")
            self.refuse(stream, 200, STATUS_RESOURCE_EXHAUSTED)
            return
        talk.real_status = (b"triton_grpc_error", b"true") in call.fields
        if self.tenant_bytes >= 0:
            call.tenant = (<const char *> self.tenant)[:self.tenant_bytes]
        call.routing_key = self.routing_key
        stream.talk = talk

    cdef void put_infer(self, Stream *stream, Block *body, uint64_t start, uint64_t size_bytes,
                        uint64_t wire_bytes) noexcept:
        cdef Slot *slot = claim_slot(<InferStream *> stream.talk)
        cdef int64_t received_ns = self.now if self.feeding else now_ns()
        cdef bytes tenant = (<ColdCall> stream.cold).tenant
        slot.request_bytes = wire_bytes
        self.put_since = True
        # May answer at once, as may `submit`: the reply is in the slot then.
        slot.request = self.sink.open(slot_sink, slot, received_ns, (<ColdCall> stream.cold).deadline_ns)
        if slot.request != NULL:
            slot.request.key.routing = (<ColdCall> stream.cold).routing_key
        if slot.request == NULL or not self.identify(
                slot.request, <const uint8_t *> <const char *> tenant if tenant is not None else NULL,
                <int32_t> len(tenant) if tenant is not None else -1):
            block_unref(body)
            return
        self.sink.submit(slot.request, body, start, size_bytes)

    cdef void slot_finished(self, Slot *slot, Reply *reply) noexcept:
        cdef Stream *stream = slot.owner.stream
        cdef int64_t deadline_ns = (<ColdCall> stream.cold).deadline_ns
        slot.request = NULL
        self.release(stream, slot.request_bytes)
        # The deadline is the stream's, not the one message's.
        if reply.code == STATUS_DEADLINE_EXCEEDED and 0 < deadline_ns <= now_ns():
            slot.owner.late = 1
        keep_reply(slot, reply)
        self.count_outbound(stream, slot.reply_bytes)
        self.own_bytes += <int64_t> slot.reply_bytes
        self.set_due(stream)

    cdef void settle(self) noexcept:
        cdef Stream *stream
        while self.due != NULL:
            stream = self.due
            self.due = stream.next_due
            stream.due = 0
            if stream.talk != NULL:
                self.settle_stream(stream)
        if self.put_since:
            self.put_since = False
            self.sink.kick()

    cdef void settle_stream(self, Stream *stream) noexcept:
        error.size_bytes = 0
        if (<InferStream *> stream.talk).late:
            say(&error, "the deadline passed before the stream ended")
            self.refuse(stream, 200, STATUS_DEADLINE_EXCEEDED)
            return
        if not self.pass_replies(stream):
            return
        self.pump(stream)
        if stream.pending > 0 or stream.inflating != NULL:
            return
        if stream.state == STREAM_CALLED:
            advance(stream, EVENT_REPLY)
            self.let_go(stream, STATUS_OK)
            (<ColdCall> stream.cold).disarm()
            self.submit_reply(stream)
        elif stream.state == STREAM_TALKING and self.stopping and self.last_goaway:
            error.size_bytes = 0
            say(&error, "the server is stopping; send the rest to another replica")
            self.refuse(stream, 200, STATUS_UNAVAILABLE)

    cdef bint pass_replies(self, Stream *stream) noexcept:
        cdef InferStream *talk = <InferStream *> stream.talk
        cdef Slot *slot = oldest_answered(talk)
        cdef bint queued
        if slot == NULL:
            return True
        while slot != NULL:
            if slot.code != STATUS_OK:
                say_end(slot)
                self.refuse(stream, 200, slot.code)
                return False
            # The peer's to take now. Counted as outbound when it was answered; `queue` counts what it becomes.
            self.own_bytes -= <int64_t> slot.reply_bytes
            if stream.reply_encoding != ENCODING_IDENTITY:
                self.uncount_outbound(stream, slot.reply_bytes)
                queued = self.queue(stream, slot.segments, slot.n_segments)
            else:
                queued = add_segments(stream, slot.segments, slot.n_segments)
                if not queued:
                    self.uncount_outbound(stream, slot.reply_bytes)
            if not queued:
                pass_slot(talk)
                say(&error, "no memory for the reply")
                self.refuse(stream, 200, STATUS_RESOURCE_EXHAUSTED)
                return False
            pass_slot(talk)
            stream.pending -= 1
            slot = oldest_answered(talk)
        advance(stream, EVENT_PART)
        if stream.headed:
            self.resume(stream)
        else:
            self.submit_head(stream)
        return True

    cdef inline void uncount_outbound(self, Stream *stream, uint64_t size_bytes) noexcept:
        stream.outbound_bytes -= size_bytes
        self.outbound_bytes -= size_bytes
        self.stats.outbound_bytes -= size_bytes

    cdef void let_go(self, Stream *stream, int code) noexcept:
        cdef InferStream *talk = <InferStream *> stream.talk
        cdef Slot *slot
        cdef Request *request
        cdef uint64_t left_bytes
        cdef uint64_t i
        CodingSession.let_go(self, stream, code)
        if talk == NULL:
            return
        for i in range(talk.first, talk.last):
            slot = &talk.slots[i % talk.room]
            if slot.request != NULL:
                request = slot.request
                slot.request = NULL
                self.sink.cancel(request, code)
        stream.talk = NULL
        stream.pending = 0
        left_bytes = infer_stream_free(talk)
        self.own_bytes -= <int64_t> left_bytes
        self.uncount_outbound(stream, left_bytes)

    cdef void end_idle(self) noexcept:
        """No stream follows: one of ModelStreamInfer ends once its replies are out."""
        cdef Stream *stream = self.streams
        while stream != NULL:
            if stream.talk != NULL:
                self.set_due(stream)
            stream = stream.next

    # Handlers.

    def read_cold(self, ColdStream call not None):
        """The oldest message that has come whole, or None. Raises InferError once the call has ended."""
        cdef Stream *stream = self.under_way(call)
        cdef bytes message
        if not call.inbox:
            return None
        message = call.inbox.popleft()
        stream.pending -= 1
        self.release(stream, <uint64_t> len(message) + PREFIX_BYTES)
        self.pump(stream)
        self.want_flush()
        return message

    def write_cold(self, ColdStream call not None, bytes message not None):
        """Queues a message for sending. Raises InferError once the call has ended, or where there is no memory."""
        cdef Stream *stream = self.under_way(call)
        advance(stream, EVENT_PART)
        if not self.queue_message(stream, message):
            raise errors.ResourceExhausted(
                f"{call.path}: no memory for a reply of {len(message)} bytes, or it passes 4 GiB")
        if stream.headed:
            self.resume(stream)
        else:
            self.submit_head(stream)
        self.want_flush()

    def send_head(self, ColdStream call not None):
        """Sends the reply's head with the initial metadata that was set, ahead of the first message."""
        cdef Stream *stream = self.under_way(call)
        if not stream.headed:
            advance(stream, EVENT_PART)
            self.submit_head(stream)
            self.want_flush()

    def has_room(self, ColdStream call not None):
        """Whether a message may be written now; the call's `writer` is woken once it may."""
        cdef Stream *stream = self.under_way(call)
        return stream.deflating == NULL and stream.outbound_bytes < <uint64_t> self.limits.stream_outbound_bytes

    cdef Stream *under_way(self, ColdStream call) except NULL:
        cdef Stream *stream = call.stream
        if stream == NULL or self.closed or stream.state not in (STREAM_TALKING, STREAM_CALLED):
            raise errors.Cancelled(f"{call.path}: the call has ended")
        return stream
