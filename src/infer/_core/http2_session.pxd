"""One HTTP/2 connection's protocol: bytes in, calls out; replies in, bytes out. No I/O.

Owns the nghttp2 session. Loop thread only. The way back is its base, http2_replies. Hot calls (ModelInfer) go to the
RequestSink, all others to a table of cold handlers. What only calls with a stream of messages need is in
http2_streams, whose StreamingSession is the one that a connection has.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from infer._core.abuse cimport Conduct
from infer._core.block cimport Block, BlockView
from infer._core.capi.nghttp2 cimport (
    nghttp2_data_source_read_callback, nghttp2_option, nghttp2_session_callbacks)
from infer._core.frame_heads cimport FrameHeads
from infer._core.grpc_stream cimport Stream
from infer._core.http2_replies cimport Http2Replies
from infer._core.request cimport Request
from infer._core.stream_ids cimport StreamIds

cdef uint8_t[8] DRAIN_PING                 # the payload of the PING between the two GOAWAYs
cdef uint8_t[8] ALIVE_PING                 # of the PING that asks a silent peer for a sign of life

# Called once by http2_events, with what nghttp2 calls back.
cdef void use_events(nghttp2_session_callbacks *table, nghttp2_option *chosen,
                     nghttp2_data_source_read_callback reader) noexcept

cdef enum:
    BURST_STREAMS = 128          # whose requests are to come: one that is opened beside them counts as costly, too

cdef class Http2Session(Http2Replies):
    cdef object owner                      # keeps limits and stats alive
    cdef dict handlers                     # path -> async handler
    cdef dict streaming                    # path of a streaming handler -> whether the client streams as well
    cdef object spawn                      # spawn(session, call, handler): runs a cold handler
    cdef object arm                        # arm(session, call) -> timer: ends a cold call at its deadline
    cdef object offload                    # offload(job): has a worker run it, then calls `finish_coding`
    cdef bytes certified                   # the tenant that the client's certificate names; None: not asked yet
    cdef int32_t tenant_bytes              # of `tenant`, by the header block that came last; -1: it names none
    cdef uint8_t tenant[256]               # room for one byte more than a tenant's name may have
    cdef uint64_t routing_key              # by the header block that came last; 0: it has none
    cdef Conduct conduct
    cdef int64_t turn_from                 # `events` when the turn began
    cdef int32_t frame_stream_id           # of the DATA frame that is coming
    cdef uint64_t frame_left_bytes         # of its content; 0 where it is padded
    cdef StreamIds ids
    cdef FrameHeads heads
    cdef uint32_t frame_bytes              # largest frame that the peer may send
    cdef int64_t now                       # at the start of the current feed
    cdef int64_t inline_bytes              # that may still be inflated at once, of this read
    cdef bint greeted                      # the preface and the peer's SETTINGS have come
    cdef bint settled                      # the peer has acknowledged our SETTINGS
    cdef bint draining
    cdef bint stopping                     # drained since the server is, and not for what the connection is
    cdef bint last_goaway
    cdef bint peer_leaves                  # it said GOAWAY
    cdef bint cut_off                      # ended by us for what the peer did
    cdef const char *reason                # of the drain, said in the last GOAWAY: a literal, or NULL

    cdef int start(self) except -1
    # What is fed from now on is of another read, and where `turn` of another turn of the loop.
    cdef void begin_read(self, bint turn) noexcept
    # Other connections are to be served before more is fed.
    cdef bint turn_is_over(self) noexcept
    # Consumes what came. 0, or -1: the connection is to be closed after what is still to be sent.
    cdef int feed(self, const uint8_t *data, uint64_t size_bytes) noexcept
    # Where the next bytes of a large message belong, to be read there and fed from there; None: nowhere in particular.
    cdef BlockView peek_room(self)
    cdef bint is_done(self) noexcept
    cdef void headers_end(self, Stream *stream, bint end_stream) noexcept
    # The header block has the tenant's metadata.
    cdef void note_tenant(self, const uint8_t *name, uint64_t name_bytes) noexcept
    # Whose request it is: the certificate's, or of that name; below 0 bytes: of none. False: it was refused.
    cdef bint identify(self, Request *request, const uint8_t *name, int32_t name_bytes) noexcept
    # END_STREAM has come.
    cdef void message_end(self, Stream *stream) noexcept
    # The way of every whole message, which is the stream's body, to whom its call is for.
    cdef void put_message(self, Stream *stream) noexcept
    # What is left to compressed messages: CodingSession.
    cdef void inflate(self, Stream *stream) noexcept
    # A message as the call takes it; the Block's reference goes over.
    cdef void hand_over(self, Stream *stream, Block *body, uint64_t start, uint64_t size_bytes) noexcept
    # The request of a call of one message has been handed over.
    cdef void begin_call(self, Stream *stream) noexcept
    # Whether a message of `size_bytes`, on top of all that the connection and the process hold, is too much.
    cdef bint is_over_limit(self, uint64_t size_bytes) noexcept
    # For a message that the stream's window, as it stands, does not hold.
    cdef void open_window(self, Stream *stream) noexcept
    # How many bytes come ahead of a frame that ends the connection, which *gone then tells (GoneStream).
    cdef uint64_t sound_bytes(self, const uint8_t *data, uint64_t size_bytes, int *gone) noexcept
    cdef int data_for(self, int32_t stream_id) noexcept
    # DATA and END_STREAM of a stream of messages.
    cdef void stream_data(self, Stream *stream, const uint8_t *data, uint64_t size_bytes) noexcept
    cdef void half_close(self, Stream *stream) noexcept
    # ModelStreamInfer: its header block has come; a message of it, `wire_bytes` of them counted as buffered.
    cdef void open_infer(self, Stream *stream) noexcept
    cdef void put_infer(self, Stream *stream, Block *body, uint64_t start, uint64_t size_bytes,
                        uint64_t wire_bytes) noexcept
    cdef void end_idle(self) noexcept
    cdef void start_cold(self, Stream *stream) noexcept
    cdef void open_cold(self, Stream *stream, bytes path) noexcept
    cdef void arm_cold(self, Stream *stream, int64_t deadline_ns) noexcept
    cdef int check_path(self, Stream *stream) noexcept
    cdef void buffer(self, Stream *stream, uint64_t size_bytes) noexcept
    cdef void say_last_goaway(self) noexcept
    # GOAWAY, a PING, and once it is answered the last GOAWAY with `reason`; streams under way finish. Without one the
    # server stops: idle streams of ModelStreamInfer end with the last GOAWAY.
    cdef void drain(self, const char *reason=*) noexcept
    # A PING that a peer that is there answers.
    cdef void ask_alive(self) noexcept
    cdef void ping(self, const uint8_t *payload) noexcept
    # Ends every call with UNAVAILABLE and the session with GOAWAY.
    cdef void end_calls(self, const char *message) noexcept
    # Ends the session with GOAWAY(ENHANCE_YOUR_CALM) for a bound, which is counted. A callback of `feed` that returns
    # the result stops nghttp2.
    cdef int cut(self, int kind) noexcept
    # The connection is gone: every call is cancelled, all memory freed. False: that was done for `most` streams, and
    # there are more, for which it has to be called again.
    cdef bint close(self, int most) noexcept
    cdef void terminate(self, uint32_t error_code) noexcept
