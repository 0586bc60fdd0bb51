"""Streams of messages over one HTTP/2 connection. See http2_streams.pxd.

Sources: gRPC `doc/PROTOCOL-HTTP2.md`; RFC 9113, 5.2 (flow control).
"""

from infer._core.block cimport block_data, block_unref
from infer._core.capi.nghttp2 cimport nghttp2_session_consume_stream
from infer._core.cold_call cimport ColdStream
from infer._core.grpc_message cimport PREFIX_BYTES
from infer._core.grpc_stream cimport (
    EVENT_MESSAGE_END, EVENT_PART, STREAM_CALLED, STREAM_TALKING, advance, check_message, hold, is_whole, take_data)
from infer._core.http2_session cimport error
from infer._core.status cimport STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.tensor cimport say

from infer import errors


cdef class StreamingSession(Http2Session):
    """See http2_streams.pxd. Created by the protocol, one for each connection."""

    # Input.

    cdef bint is_full(self, Stream *stream) noexcept:
        # One message may always wait, however large: the next is looked at once the handler has taken it.
        if stream.pending == 0:
            return False
        return (stream.pending >= self.limits.stream_messages
                or stream.buffered_bytes > <uint64_t> self.limits.stream_window_bytes or self.is_over_limit())

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
            code = take_data(stream, data, size_bytes, self.limits.max_message_bytes, self.is_over_limit(), &error)
            if code != STATUS_OK:
                return code
            if is_whole(stream):
                self.put_message(stream)
        return STATUS_OK

    cdef void refuse_data(self, Stream *stream, int code) noexcept:
        if code == STATUS_RESOURCE_EXHAUSTED:
            self.count_refused(stream)
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
        if stream.held == NULL and stream.ended:
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
        # What is held comes first.
        if stream.held == NULL:
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
        (<ColdStream> stream.cold).ended = True
        (<ColdStream> stream.cold).wake_reader()

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
        return self.under_way(call).outbound_bytes < <uint64_t> self.limits.stream_outbound_bytes

    cdef Stream *under_way(self, ColdStream call) except NULL:
        cdef Stream *stream = call.stream
        if stream == NULL or self.closed or stream.state not in (STREAM_TALKING, STREAM_CALLED):
            raise errors.Cancelled(f"{call.path}: the call has ended")
        return stream
