"""asyncio BufferedProtocol over Http2Session, and the Endpoint that owns what its connections share.

uvloop reads into `get_buffer`'s memory and calls `buffer_updated`; one buffer serves all connections, since a read is
consumed before the next begins. What a turn of the loop has to send is noted in `flushes` and written at its end.
"""

import random

from cpython.bytes cimport PyBytes_FromStringAndSize
from infer._core.block cimport BlockView, block_data
from infer._core.clock cimport now_ns
from infer._core import http2_events  # no-cython-lint: registers the callbacks
from infer._core.http2_limits cimport (
    REFUSED_AGE, REFUSED_AGE_GRACE, REFUSED_CONNECTIONS, REFUSED_IDLE, REFUSED_KEEPALIVE, REFUSED_KINDS,
    REFUSED_PREFACE, REFUSED_STALLED)
from infer._core.http2_session cimport BURST_STREAMS, Http2Session
from infer._core.grpc_message cimport ENCODING_DEFLATE, ENCODING_GZIP
from infer._core.http2_streams cimport StreamingSession
from infer._core.tls_layer cimport (
    PENDING_BYTES, RECORD_BYTES, SLICE_BYTES, TLS_MORE, TLS_NO_H2, TLS_OVER, TlsLayer)
from libc.string cimport memset

import ssl

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    READ_BYTES = 131072
    CLOSED_STREAMS = 128             # of a connection that is lost, dropped in one turn of the loop
    PIECE_BYTES = 1024               # fed at once, or what is left of a frame of DATA: a turn ends between two
    CAREFUL_BYTES = 128              # instead, of a peer that has opened many streams and sent no messages
    GOAWAY_WAIT_NS = 10000000000     # for the answer to the PING after the first GOAWAY
    LINGER_NS = 2000000000           # for the peer to close once all is said and sent
    LATE_CHECK_NS = 5000000000       # between two checks: the loop stood still, and what peers sent is not read yet

# The settings' names, in the order of RefusedKind; what has no setting is a bound of libnghttp2 or of HTTP/2.
REFUSED_NAMES = (
    "header_bytes", "max_message_bytes", "max_buffered_bytes", "max_connections", "preface_timeout",
    "write_stall_timeout", "max_empty_frames", "max_streams", "max_early_resets", "max_stream_errors",
    "max_settings_frames", "max_ping_strikes", "max_oversize_headers", "max_window_updates", "max_idle_frames",
    "max_queued_frames", "continuations", "protocol", "keepalive_timeout", "max_connection_idle",
    "max_connection_age", "max_connection_age_grace")
assert len(REFUSED_NAMES) == REFUSED_KINDS
AGE_JITTER = 0.1

cdef const char *MAX_AGE = "max_age"
cdef const char *MAX_IDLE = "max_idle"


# By value of the setting: what replies may be compressed with; both: with what the request was.
REPLY_COMPRESSIONS = {"none": 0, "deflate": int(ENCODING_DEFLATE), "gzip": int(ENCODING_GZIP),
                      "auto": ENCODING_DEFLATE | ENCODING_GZIP}


cdef class Endpoint:
    """What the connections of one server share: limits, statistics, the sink, cold handlers, the read buffer.

    handlers: path -> async handler. spawn(session, call, handler) runs a cold call and ends in `session.finish_cold`;
    arm(session, call) returns a timer that does so at the call's deadline and that can be cancelled; soon(function) has
    it called in the next turn of the loop. streaming: path of
    each handler that reads and writes messages -> whether the client may send more than one.
    Sizes in bytes, times in seconds; keepalive_time, max_connection_idle, max_connection_age and its grace are without
    end where they are 0. Raises ValueError for a bound that is not positive.
    """

    def __init__(self, RequestSink sink not None, dict handlers not None, spawn, arm, soon, *, dict streaming=None,
                 int header_bytes=16384, int stream_messages=64, int64_t stream_outbound_bytes=256 << 10,
                 int max_streams=1024, int64_t max_message_bytes=64 << 20, int64_t connection_buffered_bytes=128 << 20,
                 int64_t process_buffered_bytes=1 << 32, int64_t outbound_bytes=4 << 20, int64_t max_connections=0,
                 double preface_timeout=10.0, double settings_timeout=10.0, double write_stall_timeout=30.0,
                 int stream_window_bytes=1 << 20, int connection_window_bytes=16 << 20, int max_early_resets=500,
                 int max_stream_errors=100, int max_settings_frames=10, int max_ping_strikes=100,
                 int max_empty_frames=16, int max_oversize_headers=20, int max_window_updates=10,
                 int max_idle_frames=100, int max_queued_frames=10000, double keepalive_time=7200.0,
                 double keepalive_timeout=20.0, double max_connection_idle=3600.0, double max_connection_age=0.0,
                 double max_connection_age_grace=0.0,
                 int max_turn_events=1000, offload=None, str reply_compression="none", int coding_jobs=256,
                 bytes tenant_key=b"", bint tenant_of_certificate=False, bytes routing_key=b""):
        for name, bound in (("header_bytes", header_bytes), ("max_streams", max_streams),
                            ("max_message_bytes", max_message_bytes), ("outbound_bytes", outbound_bytes),
                            ("stream_messages", stream_messages), ("stream_outbound_bytes", stream_outbound_bytes),
                            ("max_stream_errors", max_stream_errors), ("max_settings_frames", max_settings_frames),
                            ("max_oversize_headers", max_oversize_headers), ("max_queued_frames", max_queued_frames),
                            ("max_turn_events", max_turn_events)):
            if bound <= 0:
                raise ValueError(f"{name} must be positive, got {bound}")
        memset(&self.stats, 0, sizeof(self.stats))
        self.sink = sink
        self.handlers = handlers
        self.streaming = streaming or {}
        self.spawn = spawn
        self.arm = arm
        self.offload = offload
        self.limits.turn_events = max_turn_events
        self.soon = soon
        self.limits.reply_encodings = REPLY_COMPRESSIONS[reply_compression]
        self.limits.coding_jobs = coding_jobs
        self.tenant_key = tenant_key
        self.limits.tenant_key = tenant_key
        self.limits.tenant_key_bytes = <uint64_t> len(tenant_key)
        self.limits.tenant_of_certificate = tenant_of_certificate
        self.routing_key = routing_key
        self.limits.routing_key = routing_key
        self.limits.routing_key_bytes = <uint64_t> len(routing_key)
        self.flushes = []
        self.connections = set()
        self.read_room = bytearray(READ_BYTES)
        self.read_view = memoryview(self.read_room)
        self.read_bytes = <uint8_t *> <char *> self.read_room
        self.tls_context = None
        self.on_tls_failure = None
        self.limits.header_bytes = header_bytes
        self.limits.max_streams = max_streams
        self.limits.stream_window_bytes = stream_window_bytes
        self.limits.connection_window_bytes = connection_window_bytes
        self.limits.stream_messages = stream_messages
        self.limits.stream_outbound_bytes = stream_outbound_bytes
        self.limits.max_message_bytes = max_message_bytes
        self.limits.connection_buffered_bytes = connection_buffered_bytes
        self.limits.process_buffered_bytes = process_buffered_bytes
        self.outbound_bytes = outbound_bytes
        self.max_connections = max_connections
        self.preface_timeout_ns = <int64_t> (preface_timeout * 1e9)
        self.settings_timeout_ns = <int64_t> (settings_timeout * 1e9)
        self.write_stall_timeout_ns = <int64_t> (write_stall_timeout * 1e9)
        self.limits.abuse.early_resets = max_early_resets
        self.limits.abuse.stream_errors = max_stream_errors
        self.limits.abuse.settings_frames = max_settings_frames
        self.limits.abuse.ping_strikes = max_ping_strikes
        self.limits.abuse.empty_frames = max_empty_frames
        self.limits.abuse.oversize_headers = max_oversize_headers
        self.limits.abuse.window_updates = max_window_updates
        self.limits.abuse.idle_frames = max_idle_frames
        self.limits.abuse.queued_frames = max_queued_frames
        self.keepalive_ns = <int64_t> (keepalive_time * 1e9)
        self.keepalive_timeout_ns = <int64_t> (keepalive_timeout * 1e9)
        self.idle_ns = <int64_t> (max_connection_idle * 1e9)
        self.age_ns = <int64_t> (max_connection_age * 1e9)
        self.age_grace_ns = <int64_t> (max_connection_age_grace * 1e9)
        self.on_idle = None
        self.draining = False

    def connection(self):
        """A protocol for one accepted connection: the server's protocol factory."""
        cdef Connection connection = Connection.__new__(Connection)
        connection.endpoint = self
        return connection

    def tls_connection(self):
        """As `connection`, over TLS, with the context of the latest `use_tls`."""
        cdef Connection connection = self.connection()
        connection.tls = TlsLayer(self.tls_context)
        return connection

    def use_tls(self, context not None, on_failure not None):
        """The ssl.SSLContext of connections to come; on_failure(peer, reason) is told of handshakes that fail."""
        self.tls_context = context
        self.on_tls_failure = on_failure
        if self.plain_view is None:
            self.plain_room = bytearray(RECORD_BYTES)
            self.plain_view = memoryview(self.plain_room)
            self.plain_bytes = <uint8_t *> <char *> self.plain_room

    def flush_all(self):
        """Writes what every connection has to send; called at the end of a turn that produced replies."""
        cdef list flushes = self.flushes
        cdef Connection connection
        while flushes:
            connection = <Connection> flushes.pop()
            connection.session.listed = False
            connection.flush()

    def check_timeouts(self):
        """Ends connections whose peer is silent or does not read, those that are idle or old. Called each second."""
        cdef int64_t now = now_ns()
        cdef bint late = 0 < self.checked_ns < now - <int64_t> LATE_CHECK_NS
        self.checked_ns = now
        if late:
            return
        for each in self.open_connections():
            self.check(<Connection> each, now)

    cdef void check(self, Connection connection, int64_t now) except *:
        cdef Http2Session session = connection.session
        cdef int64_t age_ns = now - connection.opened_ns
        # Only what the peer could take: not what waits for us.
        if session.outbound_bytes == session.own_bytes or session.handed_bytes != connection.handed_bytes:
            connection.waiting_ns = 0
        elif connection.waiting_ns == 0:
            connection.waiting_ns = now
        connection.handed_bytes = session.handed_bytes
        if connection.transport.is_closing() and connection.closing_ns == 0:
            connection.closing_ns = now
        self.watch_reader(connection, now)
        if (not session.greeted and age_ns > self.preface_timeout_ns) or (
                not session.settled and age_ns > self.settings_timeout_ns):
            self.stats.refused[<int> REFUSED_PREFACE] += 1
            connection.transport.abort()
        elif (connection.lingering and now - connection.closing_ns > <int64_t> LINGER_NS
              and connection.transport.get_write_buffer_size() == 0):
            connection.transport.abort()
        elif (0 < connection.stalled_ns < now - self.write_stall_timeout_ns
              or 0 < connection.closing_ns < now - self.write_stall_timeout_ns):
            self.stats.refused[<int> REFUSED_STALLED] += 1
            connection.transport.abort()
        elif 0 < connection.waiting_ns < now - self.write_stall_timeout_ns and not connection.failed:
            session.cut(REFUSED_STALLED)
            connection.failed = True
            connection.flush()
        elif not connection.failed and not connection.lingering and self.check_peer(connection, now):
            self.check_life(connection, now)

    cdef void watch_reader(self, Connection connection, int64_t now) except *:
        """A peer that is slow and goes on has not stalled: some of what the socket did not take at once is gone."""
        cdef int64_t unsent_bytes = 0
        if connection.stalled_ns > 0 or connection.closing_ns > 0:
            unsent_bytes = connection.transport.get_write_buffer_size()
            if unsent_bytes < connection.unsent_bytes:
                connection.waiting_ns = 0
                connection.stalled_ns = now if connection.stalled_ns > 0 else 0
                connection.closing_ns = now if connection.closing_ns > 0 and unsent_bytes > 0 else connection.closing_ns
        connection.unsent_bytes = unsent_bytes

    cdef bint check_peer(self, Connection connection, int64_t now) except *:
        """Asks a peer that was silent for long for a sign of life; False: it gave none, and is cut off."""
        cdef Http2Session session = connection.session
        if connection.asked_ns == 0:
            if 0 < self.keepalive_ns < now - max(session.now, connection.opened_ns):
                connection.asked_ns = now
                session.ask_alive()
                connection.flush()
        elif session.now >= connection.asked_ns:
            connection.asked_ns = 0
        elif now - connection.asked_ns > self.keepalive_timeout_ns:
            self.stats.refused[<int> REFUSED_KEEPALIVE] += 1
            connection.transport.abort()
            return False
        return True

    cdef void check_life(self, Connection connection, int64_t now) except *:
        cdef Http2Session session = connection.session
        if session.n_streams > 0 or connection.streams != session.conduct.streams:
            connection.streams = session.conduct.streams
            connection.idle_ns = now
        if connection.draining_ns == 0:
            if 0 < connection.age_ns < now - connection.opened_ns:
                self.stats.refused[<int> REFUSED_AGE] += 1
                connection.drain(now, MAX_AGE)
            elif 0 < self.idle_ns < now - connection.idle_ns:
                self.stats.refused[<int> REFUSED_IDLE] += 1
                connection.drain(now, MAX_IDLE)
        elif session.reason == MAX_AGE and 0 < self.age_grace_ns < now - connection.draining_ns:
            self.stats.refused[<int> REFUSED_AGE_GRACE] += 1
            connection.end_calls(
                b"the connection is past --max-connection-age and its grace; send what was not answered again")
        elif now - connection.draining_ns > <int64_t> GOAWAY_WAIT_NS:
            session.say_last_goaway()
            connection.flush()

    def drain(self, on_idle):
        """GOAWAY on every connection; calls under way finish. `on_idle()` is called once no connection is left."""
        cdef int64_t now = now_ns()
        self.draining = True
        self.on_idle = on_idle
        for each in self.open_connections():
            (<Connection> each).drain(now, NULL)
        if not self.connections:
            self.on_idle = None
            on_idle()

    def end_calls(self, bytes message not None):
        """Ends every call under way with UNAVAILABLE and closes the connections."""
        for each in self.open_connections():
            (<Connection> each).end_calls(message)

    def abort(self):
        """Closes every connection at once, sending nothing more."""
        for each in self.open_connections():
            (<Connection> each).transport.abort()

    def open_connections(self):
        """The Connections that are open now: of one that is lost, there may still be streams to drop."""
        return [each for each in self.connections if (<Connection> each).transport is not None]

    cdef void closed(self, Connection connection) except *:
        self.connections.discard(connection)
        self.stats.connections -= 1
        if self.on_idle is not None and not self.connections:
            on_idle = self.on_idle
            self.on_idle = None
            on_idle()

    def snapshot(self):
        """Gauges and counters by name; `refused` by limit."""
        return {
            "connections": self.stats.connections,
            "connections_total": self.stats.connections_total,
            "streams": self.stats.streams,
            "streams_total": self.stats.streams_total,
            "cold_calls_total": self.stats.cold_calls_total,
            "streams_held_total": self.stats.streams_held_total,
            "turns_ended_total": self.stats.turns_ended_total,
            "calls_without_te": self.stats.calls_without_te,
            "received_bytes_total": self.stats.received_bytes,
            "sent_bytes_total": self.stats.sent_bytes,
            "buffered_bytes": self.stats.buffered_bytes,
            "outbound_bytes": self.stats.outbound_bytes,
            "coding_jobs": self.stats.coding_jobs,
            "inflated_bytes_total": self.stats.inflated_bytes,
            "tls_handshakes": {
                "done": self.stats.tls_handshakes,
                "failed": self.stats.tls_failures,
                "not_h2": self.stats.tls_not_h2,
            },
            "refused": {name: self.stats.refused[kind] for kind, name in enumerate(REFUSED_NAMES)} | {
                "max_coding_jobs": self.stats.coding_refused},
        }


cdef class Connection:
    """One connection's protocol. Not derived from asyncio.Protocol, so that uvloop reads into our buffer."""

    def connection_made(self, transport):
        cdef Endpoint endpoint = self.endpoint
        cdef StreamingSession session
        self.transport = transport
        self.opened_ns = now_ns()
        endpoint.stats.connections += 1
        endpoint.stats.connections_total += 1
        session = self.new_session()
        session.sink = endpoint.sink
        session.limits = &endpoint.limits
        session.stats = &endpoint.stats
        session.owner = endpoint
        session.handlers = endpoint.handlers
        session.streaming = endpoint.streaming
        session.spawn = endpoint.spawn
        session.arm = endpoint.arm
        session.offload = endpoint.offload
        session.flushes = endpoint.flushes
        session.connection = self
        self.session = session
        endpoint.connections.add(self)
        if 0 < endpoint.max_connections < endpoint.stats.connections:
            endpoint.stats.refused[<int> REFUSED_CONNECTIONS] += 1
            transport.abort()
            return
        transport.set_write_buffer_limits(high=endpoint.outbound_bytes // 2, low=endpoint.outbound_bytes // 8)
        try:
            session.start()
        except MemoryError:
            transport.abort()
            return
        self.idle_ns = self.opened_ns
        if endpoint.age_ns > 0:
            # So that connections which were opened together do not all end together.
            self.age_ns = <int64_t> (endpoint.age_ns * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER))
        if endpoint.draining:
            self.drain(self.opened_ns, NULL)
        self.flush()

    cdef StreamingSession new_session(self):
        return StreamingSession.__new__(StreamingSession)

    def peer_name(self):
        """Address of the other end as gRPC writes it."""
        peer = self.transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            return f"ipv6:[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"ipv4:{peer[0]}:{peer[1]}"
        return "unix:"

    def get_buffer(self, sizehint):
        cdef BlockView room
        self.reading_into = NULL
        if self.session.frame_left_bytes > 0 and self.tls is None:
            room = self.session.peek_room()
            if room is not None:
                self.reading_into = block_data(room.block) + room.start
                return room
        return self.endpoint.read_view

    def buffer_updated(self, Py_ssize_t size_bytes):
        cdef Endpoint endpoint = self.endpoint
        cdef Http2Session session = self.session
        cdef Py_ssize_t consumed
        if self.failed or self.lingering or session.closed:
            return
        if self.reading_into != NULL:
            session.begin_read(True)
            if session.feed(self.reading_into, <uint64_t> size_bytes) != 0:
                self.failed = True
            self.after_input()
            return
        session.begin_read(not self.filled)
        self.filled = size_bytes == READ_BYTES
        consumed = self.consume(endpoint.read_bytes, endpoint.read_view, size_bytes)
        if consumed < size_bytes and not self.failed:
            self.rest = PyBytes_FromStringAndSize(<const char *> endpoint.read_bytes + consumed, size_bytes - consumed)
            self.rest_at = 0
            endpoint.stats.turns_ended_total += 1
            self.transport.pause_reading()
            endpoint.soon(self.read_on)
        self.after_input()

    def read_on(self):
        """Goes on with the rest of a read, in a turn of its own; reading is resumed once there is none."""
        cdef bytes rest = self.rest
        if self.failed or self.session.closed or self.transport.is_closing():
            self.rest = None
            return
        if self.lingering:
            self.rest = None
            self.transport.resume_reading()
            return
        # The loop does not sleep while there is a rest: executors that share its core would wait for their time slice.
        sched_yield()
        self.session.begin_read(True)
        self.rest_at += self.consume(
            <const uint8_t *> <const char *> rest + self.rest_at, memoryview(rest)[self.rest_at:],
            len(rest) - self.rest_at)
        if self.rest_at < len(rest) and not self.failed:
            self.endpoint.stats.turns_ended_total += 1
            self.endpoint.soon(self.read_on)
        else:
            self.rest = None
            self.filled = False
            if not self.failed:
                self.transport.resume_reading()
        self.after_input()

    cdef Py_ssize_t consume(self, const uint8_t *data, object view, Py_ssize_t size_bytes) except -1:
        cdef Http2Session session = self.session
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t piece_bytes
        cdef uint64_t least_bytes
        while at < size_bytes and not self.failed and not session.turn_is_over():
            if self.tls is None:
                least_bytes = CAREFUL_BYTES if session.open_requests > BURST_STREAMS else PIECE_BYTES
                piece_bytes = min(size_bytes - at, <Py_ssize_t> max(least_bytes, session.frame_left_bytes))
                if session.feed(data + at, <uint64_t> piece_bytes) != 0:
                    self.failed = True
            else:
                piece_bytes = min(size_bytes - at, <Py_ssize_t> SLICE_BYTES)
                self.decrypt(view[at:at + piece_bytes])
            at += piece_bytes
        return at

    cdef void after_input(self) except *:
        cdef Http2Session session = self.session
        if self.transport is None:
            return
        self.endpoint.sink.kick()
        if session.wants_output() or (self.tls is not None and self.tls.pending_bytes() > 0):
            self.flush()
        elif self.failed or session.is_done():
            self.finish()

    cdef void decrypt(self, object piece) except *:
        """Feeds the session with what the records hold that `piece`, SLICE_BYTES at most, ends."""
        cdef Endpoint endpoint = self.endpoint
        cdef TlsLayer tls = self.tls
        cdef bint established = tls.established
        cdef Py_ssize_t plain
        tls.put(piece)
        plain = tls.read(endpoint.plain_view)
        while plain > 0:
            if self.session.feed(endpoint.plain_bytes, <uint64_t> plain) != 0:
                self.failed = True
                break
            plain = tls.read(endpoint.plain_view)
        if plain < TLS_MORE:
            self.failed = True
        if tls.established and not established:
            endpoint.stats.tls_handshakes += 1
        if plain == TLS_NO_H2:
            endpoint.stats.tls_not_h2 += 1
            endpoint.on_tls_failure(self.peer_name(), "the client does not offer h2 (ALPN)")
            self.transport.abort()
        elif plain < TLS_OVER:
            endpoint.stats.tls_failures += 1
            endpoint.on_tls_failure(self.peer_name(), tls.reason)

    def peer_identity(self):
        """Whom the client's certificate names; "" where clients are not asked for one."""
        return "" if self.tls is None else self.tls.peer_identity()

    def peer_tenant(self):
        """The tenant that the client's certificate names, b"" for one that names none; None over plaintext."""
        return None if self.tls is None else self.tls.peer_tenant()

    def peer_certificate(self):
        """The client's certificate as DER; None over plaintext, and where clients are not asked for one."""
        return None if self.tls is None else self.tls.peer_certificate()

    def eof_received(self):
        return False

    def pause_writing(self):
        self.stalled_ns = now_ns()

    def resume_writing(self):
        self.stalled_ns = 0
        self.flush()

    def connection_lost(self, error):
        self.rest = None
        self.transport = None
        self.drop_streams()

    def drop_streams(self):
        """Drops the streams of a connection that is lost, many of them in turns: other connections are served between.

        Until the last is gone, the connection counts as one of those that there are.
        """
        if self.session.close(CLOSED_STREAMS):
            self.endpoint.closed(self)
        else:
            sched_yield()
            self.endpoint.soon(self.drop_streams)

    cdef void drain(self, int64_t now, const char *reason) except *:
        if self.draining_ns == 0:
            self.draining_ns = now
        self.session.drain(reason)
        self.flush()

    cdef void end_calls(self, bytes message) except *:
        self.session.end_calls(message)
        self.failed = True
        self.flush()

    cdef void flush(self) except *:
        """Hands over what the session has to send, while the socket takes it, and closes once all is said."""
        if self.transport is None or self.lingering:
            return
        try:
            self.send()
        except (MemoryError, ssl.SSLError):
            # Part of a frame may be lost: nothing that follows would be understood.
            self.failed = True
            self.transport.abort()
            return
        if self.failed or self.session.is_done():
            self.finish()

    cdef void send(self) except *:
        cdef Http2Session session = self.session
        cdef bint more = True
        cdef list pieces
        if self.tls is not None and not self.send_tls():
            return
        while more and self.stalled_ns == 0:
            pieces = session.take_output(<uint64_t> self.endpoint.outbound_bytes // 4, &more)
            if pieces is None:
                break
            if self.tls is not None:
                pieces = self.tls.encrypt(pieces)
            if len(pieces) == 1:
                self.transport.write(pieces[0])
            else:
                self.transport.writelines(pieces)

    cdef bint send_tls(self) except *:
        """Hands over what TLS itself has to say; whether the session may speak."""
        cdef TlsLayer tls = self.tls
        if self.transport.is_closing():
            return False
        if self.stalled_ns == 0:
            for records in tls.encrypt([]):
                self.transport.write(records)
        elif tls.pending_bytes() > PENDING_BYTES:
            # A peer that asks and does not read: what it is owed is dropped with it.
            self.endpoint.stats.refused[<int> REFUSED_STALLED] += 1
            self.failed = True
            self.transport.abort()
        return tls.established and not tls.ended

    cdef void finish(self) except *:
        """Nothing more will be said: closes once what is buffered is sent, or `check_timeouts` has seen it stall.

        A peer that leaves, or is asked to, closes first: a socket that is closed with something unread resets the
        connection, and the peer may lose what it was sent (RFC 9112, 9.6).
        """
        if self.lingering or self.transport.is_closing():
            return
        if self.tls is not None and not self.tls.ended:
            self.tls.end()
            for records in self.tls.encrypt([]):
                self.transport.write(records)
        if self.failed or not (self.session.draining or self.session.peer_leaves):
            self.transport.close()
        else:
            self.lingering = True
            self.closing_ns = now_ns()
            self.transport.write_eof()
