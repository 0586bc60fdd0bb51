"""How replies leave a connection: queued on their streams, ended with a status, and given out as bytes to be sent.

The base of Http2Session, which is how requests come in. Owns the Streams. Loop thread only.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from infer._core.capi.nghttp2 cimport (
    nghttp2_data_provider, nghttp2_data_source_read_callback, nghttp2_nv, nghttp2_session)
from infer._core.flush_buffer cimport FlushBuffer
from infer._core.grpc_stream cimport Stream
from infer._core.http2_limits cimport Limits, TransportStats
from infer._core.request cimport RequestSink, ResponseSink, Segment
from infer._core.tensor cimport ErrorText

# One of each for all sessions: the loop thread writes one refusal, and flushes one connection, at a time.
cdef ErrorText error
cdef FlushBuffer output

cdef enum:
    COSTLY_EVENTS = 32           # of a turn, for a stream that is reset or a call that the transport turns down

# Called once, with what gives nghttp2 the bytes of a reply.
cdef void use_reader(nghttp2_data_source_read_callback reader) noexcept

cdef class Http2Replies(ResponseSink):
    cdef nghttp2_session *session
    cdef RequestSink sink
    cdef Limits *limits                    # owner's
    cdef TransportStats *stats             # owner's
    cdef list flushes                      # sessions with something to send append themselves, once
    cdef object connection                 # the protocol's: given back through `flushes`, asked who its peer is
    cdef Stream *streams
    cdef Stream *due                       # those to be settled before anything is sent
    cdef int32_t n_streams
    cdef int32_t open_requests             # of streams: not all of the request has come
    cdef int32_t early_replies             # replies whose request has not ended
    cdef int64_t events                    # frames and header fields that have come, and COSTLY_EVENTS
    cdef int64_t buffered_bytes
    cdef int64_t outbound_bytes            # of replies, not yet taken
    cdef int64_t own_bytes                 # of those, what waits for us: for an earlier reply, or with a worker
    cdef uint64_t handed_bytes             # of replies, taken: stands still while the peer opens no window
    cdef bint listed                       # in `flushes`; cleared by whoever takes it out
    cdef bint feeding
    cdef bint starved                      # libnghttp2 had no memory: what would follow is not understood by the peer
    cdef bint closed

    # What is to be sent now, about `limit_bytes` at most: a list of bytes-like objects, or None. *more: not all of it.
    # Raises MemoryError where the connection can only be cut.
    cdef list take_output(self, uint64_t limit_bytes, bint *more)
    cdef bint wants_output(self) noexcept
    cdef void want_flush(self) noexcept
    # What a call of the library returned that is not 0.
    cdef void heed(self, int result) noexcept
    cdef void refuse(self, Stream *stream, int http_status, int code) noexcept
    # With RESOURCE_EXHAUSTED; the client is told when to try again, where trying again is of use.
    cdef void refuse_size(self, Stream *stream) noexcept
    cdef void end_refused(self, Stream *stream, int http_status, int code, int64_t pushback_ms) noexcept
    # A reply's segments, whose references go over, behind those that are queued. False: no memory.
    cdef bint queue(self, Stream *stream, const Segment *segments, int count) noexcept
    cdef void count_outbound(self, Stream *stream, uint64_t size_bytes) noexcept
    cdef bint queue_message(self, Stream *stream, bytes message) noexcept
    # All of the reply is queued. With a status of OK, and then with another one.
    cdef void submit_reply(self, Stream *stream) noexcept
    cdef void submit_end(self, Stream *stream, int http_status, int code, const char *message, uint32_t message_bytes,
                         int64_t pushback_ms) noexcept
    cdef void submit_head(self, Stream *stream) noexcept
    cdef void submit_pairs(self, Stream *stream, const nghttp2_nv *fields, int count, list pairs,
                           const nghttp2_data_provider *provider) noexcept
    cdef void submit_trailers(self, Stream *stream) noexcept
    cdef void resume(self, Stream *stream) noexcept
    # What is left to compressed messages: CodingSession.
    cdef bint queue_coded(self, Stream *stream, const Segment *segments, int count, uint64_t size_bytes) noexcept
    cdef void forget_jobs(self, Stream *stream) noexcept
    # `queue` without a look at what the segments hold.
    cdef bint queue_segments(self, Stream *stream, const Segment *segments, int count) noexcept
    cdef void reply_moved(self, Stream *stream) noexcept
    # To be settled before anything is sent: it has replies to queue, or room for messages, or has ended.
    cdef void set_due(self, Stream *stream) noexcept
    cdef void settle(self) noexcept         # StreamingSession's
    # The call has ended with `code`: what it holds of the request goes, and what the pipeline has of it is cancelled.
    cdef void let_go(self, Stream *stream, int code) noexcept
    cdef void handed_out(self, Stream *stream, uint64_t size_bytes) noexcept
    cdef void release(self, Stream *stream, uint64_t size_bytes) noexcept
    cdef void set_early(self, Stream *stream, bint early) noexcept
    cdef void set_ended(self, Stream *stream) noexcept
    cdef void drop(self, Stream *stream) noexcept
