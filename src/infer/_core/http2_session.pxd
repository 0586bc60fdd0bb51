"""One HTTP/2 connection's protocol: bytes in, calls out; replies in, bytes out. No I/O.

Owns the nghttp2 session and its Streams. Loop thread only. Hot calls (ModelInfer) go to the RequestSink, all others to
a table of cold handlers. What only calls with a stream of messages need is in http2_streams, whose StreamingSession is
the one that a connection has.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from infer._core.abuse cimport AbuseLimits, Conduct
from infer._core.block cimport Block, BlockView
from infer._core.capi.nghttp2 cimport (
    nghttp2_data_provider, nghttp2_data_source_read_callback, nghttp2_nv, nghttp2_option, nghttp2_session,
    nghttp2_session_callbacks)
from infer._core.flush_buffer cimport FlushBuffer
from infer._core.frame_heads cimport FrameHeads
from infer._core.grpc_stream cimport Stream
from infer._core.request cimport Reply, Request, RequestSink, ResponseSink, Segment
from infer._core.stream_ids cimport StreamIds
from infer._core.tensor cimport ErrorText

# One of each for all sessions: the loop thread writes one refusal, and flushes one connection, at a time.
cdef ErrorText error
cdef FlushBuffer output
cdef uint8_t[8] DRAIN_PING                 # the payload of the PING between the two GOAWAYs
cdef uint8_t[8] ALIVE_PING                 # of the PING that asks a silent peer for a sign of life

# Called once by http2_events, with what nghttp2 calls back.
cdef void use_events(nghttp2_session_callbacks *table, nghttp2_option *chosen,
                     nghttp2_data_source_read_callback reader) noexcept

cdef enum:
    COSTLY_EVENTS = 32           # of a turn, for a stream that is reset or a call that the transport turns down
    BURST_STREAMS = 128          # whose requests are to come: one that is opened beside them counts as costly, too

cdef enum RefusedKind:
    REFUSED_HEADERS = 0          # a header block over the limit
    REFUSED_MESSAGE = 1          # a message over the limit
    REFUSED_BUFFERED = 2         # too many bytes of unfinished requests
    REFUSED_CONNECTIONS = 3
    REFUSED_PREFACE = 4          # no preface or no SETTINGS acknowledgement in time
    REFUSED_STALLED = 5          # a peer that does not read
    REFUSED_EMPTY_FRAMES = 6     # too many empty DATA frames in a row
    REFUSED_STREAMS = 7          # more streams at once than were allowed
    # Connections cut for their conduct: see abuse.pxd.
    REFUSED_EARLY_RESETS = 8
    REFUSED_STREAM_ERRORS = 9
    REFUSED_SETTINGS_FRAMES = 10
    REFUSED_PINGS = 11
    REFUSED_OVERSIZE_HEADERS = 12
    REFUSED_WINDOW_UPDATES = 13
    REFUSED_IDLE_FRAMES = 14
    REFUSED_QUEUED_FRAMES = 15
    REFUSED_CONTINUATIONS = 16
    REFUSED_PROTOCOL = 17        # libnghttp2's own judgement: a frame too large, an id that is not the peer's, ...
    # Connections that came to their end.
    REFUSED_KEEPALIVE = 18       # no sign of life
    REFUSED_IDLE = 19
    REFUSED_AGE = 20
    REFUSED_AGE_GRACE = 21       # with calls under way
    REFUSED_KINDS = 22

# Bounds of a transport, each a setting; shared by its sessions.
cdef struct Limits:
    int32_t header_bytes
    int32_t max_streams
    int32_t stream_window_bytes
    int32_t connection_window_bytes
    int32_t stream_messages      # of one stream of messages, handed over and not yet taken
    int64_t stream_outbound_bytes  # of one stream's replies, at which it has to wait
    int32_t reply_encodings      # a set of Encoding: which replies may have; two: that of the request
    int32_t coding_jobs          # messages that workers inflate or compress
    int64_t turn_events          # of one connection, in one turn of the loop
    int64_t max_message_bytes
    int64_t connection_buffered_bytes
    int64_t process_buffered_bytes
    const char *tenant_key       # metadata that names the tenant
    uint64_t tenant_key_bytes    # 0: none does
    uint8_t tenant_of_certificate  # over TLS the client's certificate does
    const char *routing_key      # metadata that a split goes by
    uint64_t routing_key_bytes   # 0: none
    AbuseLimits abuse

# Written by the loop thread, read by a scrape.
cdef struct TransportStats:
    int64_t connections
    int64_t connections_total
    int64_t streams
    int64_t streams_total
    int64_t cold_calls_total
    int64_t streams_held_total   # times that a stream of messages brought more than may wait
    int64_t turns_ended_total    # times that a connection brought more than is read in a turn of the loop
    int64_t calls_without_te     # `te: trailers`: by clients or proxies that may lose trailers
    int64_t received_bytes
    int64_t sent_bytes
    int64_t buffered_bytes       # of messages whose calls are not answered yet
    int64_t outbound_bytes       # of replies, not yet handed to a socket
    int64_t coding_jobs          # messages with workers now
    int64_t coding_refused       # for there being too many
    int64_t inflated_bytes       # of messages, once inflated
    int64_t tls_handshakes       # that ended in HTTP/2
    int64_t tls_failures         # handshakes and connections that ended in a TLS error
    int64_t tls_not_h2           # handshakes that did not agree on h2
    int64_t refused[22]          # by RefusedKind

cdef class Http2Session(ResponseSink):
    cdef nghttp2_session *session
    cdef RequestSink sink
    cdef Limits *limits                    # owner's
    cdef TransportStats *stats             # owner's
    cdef object owner                      # keeps limits and stats alive
    cdef dict handlers                     # path -> async handler
    cdef dict streaming                    # path of a streaming handler -> whether the client streams as well
    cdef object spawn                      # spawn(session, call, handler): runs a cold handler
    cdef object arm                        # arm(session, call) -> timer: ends a cold call at its deadline
    cdef object offload                    # offload(job): has a worker run it, then calls `finish_coding`
    cdef list flushes                      # sessions with something to send append themselves, once
    cdef object connection                 # the protocol's: given back through `flushes`, asked who its peer is
    cdef Stream *streams
    cdef Stream *due                       # those to be settled before anything is sent
    cdef int32_t n_streams
    cdef bytes certified                   # the tenant that the client's certificate names; None: not asked yet
    cdef int32_t tenant_bytes              # of `tenant`, by the header block that came last; -1: it names none
    cdef uint8_t tenant[256]               # room for one byte more than a tenant's name may have
    cdef uint64_t routing_key              # by the header block that came last; 0: it has none
    cdef int32_t open_requests             # of streams: not all of the request has come
    cdef int32_t early_replies             # replies whose request has not ended
    cdef Conduct conduct
    cdef int64_t events                    # frames and header fields that have come, and COSTLY_EVENTS
    cdef int64_t turn_from                 # `events` when the turn began
    cdef int32_t frame_stream_id           # of the DATA frame that is coming
    cdef uint64_t frame_left_bytes         # of its content; 0 where it is padded
    cdef StreamIds ids
    cdef FrameHeads heads
    cdef uint32_t frame_bytes              # largest frame that the peer may send
    cdef int64_t buffered_bytes
    cdef int64_t outbound_bytes            # of replies, not yet taken
    cdef int64_t own_bytes                 # of those, what waits for us: for an earlier reply, or with a worker
    cdef uint64_t handed_bytes             # of replies, taken: stands still while the peer opens no window
    cdef int64_t now                       # at the start of the current feed
    cdef int64_t inline_bytes              # that may still be inflated at once, of this read
    cdef bint listed                       # in `flushes`; cleared by whoever takes it out
    cdef bint feeding
    cdef bint greeted                      # the preface and the peer's SETTINGS have come
    cdef bint settled                      # the peer has acknowledged our SETTINGS
    cdef bint draining
    cdef bint stopping                     # drained since the server is, and not for what the connection is
    cdef bint last_goaway
    cdef bint peer_leaves                  # it said GOAWAY
    cdef bint starved                      # libnghttp2 had no memory: what would follow is not understood by the peer
    cdef bint cut_off                      # ended by us for what the peer did
    cdef const char *reason                # of the drain, said in the last GOAWAY: a literal, or NULL
    cdef bint closed

    cdef int start(self) except -1
    # What is fed from now on is of another read, and where `turn` of another turn of the loop.
    cdef void begin_read(self, bint turn) noexcept
    # Other connections are to be served before more is fed.
    cdef bint turn_is_over(self) noexcept
    # Consumes what came. 0, or -1: the connection is to be closed after what is still to be sent.
    cdef int feed(self, const uint8_t *data, uint64_t size_bytes) noexcept
    # Where the next bytes of a large message belong, to be read there and fed from there; None: nowhere in particular.
    cdef BlockView peek_room(self)
    # What is to be sent now, about `limit_bytes` at most: a list of bytes-like objects, or None. *more: not all of it.
    # Raises MemoryError where the connection can only be cut.
    cdef list take_output(self, uint64_t limit_bytes, bint *more)
    cdef bint wants_output(self) noexcept
    cdef bint is_done(self) noexcept
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
    cdef bint queue_coded(self, Stream *stream, const Segment *segments, int count, uint64_t size_bytes) noexcept
    cdef void forget_jobs(self, Stream *stream) noexcept
    # A message as the call takes it; the Block's reference goes over.
    cdef void hand_over(self, Stream *stream, Block *body, uint64_t start, uint64_t size_bytes) noexcept
    # The request of a call of one message has been handed over.
    cdef void begin_call(self, Stream *stream) noexcept
    # `queue` without a look at what the segments hold.
    cdef bint queue_segments(self, Stream *stream, const Segment *segments, int count) noexcept
    cdef void reply_moved(self, Stream *stream) noexcept
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
    # To be settled before anything is sent: it has replies to queue, or room for messages, or has ended.
    cdef void set_due(self, Stream *stream) noexcept
    cdef void settle(self) noexcept
    cdef void end_idle(self) noexcept
    cdef void start_cold(self, Stream *stream) noexcept
    cdef void open_cold(self, Stream *stream, bytes path) noexcept
    cdef void arm_cold(self, Stream *stream, int64_t deadline_ns) noexcept
    cdef int check_path(self, Stream *stream) noexcept
    # The call has ended with `code`: what it holds of the request goes, and what the pipeline has of it is cancelled.
    cdef void let_go(self, Stream *stream, int code) noexcept
    cdef void handed_out(self, Stream *stream, uint64_t size_bytes) noexcept
    cdef void buffer(self, Stream *stream, uint64_t size_bytes) noexcept
    cdef void release(self, Stream *stream, uint64_t size_bytes) noexcept
    cdef void set_early(self, Stream *stream, bint early) noexcept
    cdef void set_ended(self, Stream *stream) noexcept
    cdef void say_last_goaway(self) noexcept
    cdef void drop(self, Stream *stream) noexcept
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
