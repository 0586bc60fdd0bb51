"""The native transport without a socket, as a test drives it; not in wheels.

A SessionDriver is one Http2Session over a PuppetSink: bytes in, bytes out, and the calls that came of them, which the
test answers when and how it likes. One thread.
"""

cimport cython
from libc.stdint cimport INT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from infer._core.abuse cimport AbuseLimits
from infer._core.block cimport Block, BlockView, block_data, block_new, block_unref
from infer._core.clock cimport now_ns
from infer._core cimport grpc_message
from infer._core cimport grpc_stream
from infer._core cimport retry_info
from infer._core.cold_call cimport ColdCall, ColdStream
from infer._core.grpc_stream cimport Stream, stream_free, stream_new
from infer._core import http2_events  # no-cython-lint: registers the callbacks
from infer._core.http2_limits cimport Limits, TransportStats
from infer._core.http2_streams cimport StreamingSession
from infer._core.protocol import REFUSED_NAMES
from infer._core.request cimport Reply, Request, RequestSink, ResponseSink, Segment, request_free, request_new
from infer._core.status cimport STATUS_CANCELLED
from infer._core.tensor cimport ErrorText

STATES = ("headers", "message", "talking", "called", "replying", "closed")     # in the order of StreamState
EVENTS = ("headers_end", "talk", "message_end", "part", "reply", "close")       # in the order of StreamEvent
assert len(STATES) == grpc_stream.STREAM_STATES and len(EVENTS) == grpc_stream.STREAM_EVENTS

cdef enum:
    MAX_SEGMENTS = 64
    READ_BYTES = 4096
    ECHOED = 128


def next_state(state: int, event: int) -> int:
    """The state that follows, -1 where the event cannot come."""
    return grpc_stream.next_state(state, event)


def message_prefix(text: bytes, limit_bytes: int) -> int:
    """How many bytes of `text` stay within `limit_bytes` once percent-encoded."""
    return grpc_message.encodable_bytes(<const uint8_t *> <const char *> text, <uint64_t> len(text), limit_bytes)


def encode_base64(data: bytes) -> bytes:
    cdef bytearray room = bytearray(len(data) * 4 // 3 + 2)
    return bytes(room[:retry_info.encode_base64(<const uint8_t *> <const char *> data, <uint32_t> len(data),
                                                <uint8_t *> <char *> room)])


ENCODINGS = {"deflate": int(grpc_message.ENCODING_DEFLATE), "gzip": int(grpc_message.ENCODING_GZIP)}
OUTCOMES = ("inflated", "corrupt", "cut short", "trailing", "too long", "no memory")    # in the order of Inflated


def encoding_of(name: bytes) -> int:
    return grpc_message.encoding_of(<const uint8_t *> <const char *> name, <uint64_t> len(name))


def accepted_encodings(names: bytes) -> int:
    return grpc_message.accepted_encodings(<const uint8_t *> <const char *> names, <uint64_t> len(names))


def inflate(encoding: str, data: bytes, limit_bytes: int, on_loop: bool = True) -> tuple[str, bytes, int]:
    """How it ended, the message, and the room that it took."""
    cdef Block *block
    cdef int outcome = grpc_message.inflate_message(
        ENCODINGS[encoding], <const uint8_t *> <const char *> data, <uint64_t> len(data), limit_bytes, on_loop, &block)
    if block == NULL:
        return OUTCOMES[outcome], b"", 0
    message = (<const char *> block_data(block))[:block.size_bytes]
    room = block.capacity_bytes
    block_unref(block)
    return OUTCOMES[outcome], message, room


def deflate(encoding: str, pieces: list[bytes], on_loop: bool = True) -> bytes | None:
    """The message with its prefix, or None where compressing gains nothing."""
    cdef grpc_message.Deflation deflation
    cdef Block *block
    cdef uint64_t size_bytes = sum(len(piece) for piece in pieces)
    if not grpc_message.deflate_begin(&deflation, ENCODINGS[encoding], size_bytes, on_loop):
        raise MemoryError
    for i, piece in enumerate(pieces):
        grpc_message.deflate_add(&deflation, <const uint8_t *> <const char *> piece, <uint64_t> len(piece),
                                 i + 1 == len(pieces))
    block = grpc_message.deflate_end(&deflation)
    if block == NULL:
        return None
    message = (<const char *> block_data(block))[:block.size_bytes]
    block_unref(block)
    return message


cdef class StreamDriver:
    """A Stream by itself."""
    cdef Stream *stream
    cdef ErrorText error

    def __cinit__(self):
        self.stream = stream_new(1, now_ns())
        if self.stream == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.stream != NULL:
            stream_free(self.stream)

    cdef object outcome(self, int code):
        return code, self.error.text[:self.error.size_bytes].decode()

    def field(self, name: bytes, value: bytes, limit_bytes: int = 16384) -> tuple[int, str]:
        """Status and text of one header field."""
        self.error.size_bytes = 0
        return self.outcome(grpc_stream.on_field(
            self.stream, <const uint8_t *> <const char *> name, <uint64_t> len(name),
            <const uint8_t *> <const char *> value, <uint64_t> len(value), limit_bytes, &self.error))

    def check_headers(self) -> tuple[int, int, str]:
        """HTTP status, gRPC status and text of the fields together."""
        cdef int http_status
        cdef int code
        self.error.size_bytes = 0
        code = grpc_stream.check_headers(self.stream, &http_status, &self.error)
        return (http_status, *self.outcome(code))

    def data(self, chunk: bytes, limit_bytes: int = 64 << 20, refuse_new: bool = False) -> tuple[int, str]:
        self.error.size_bytes = 0
        return self.outcome(grpc_stream.on_data(
            self.stream, <const uint8_t *> <const char *> chunk, <uint64_t> len(chunk), limit_bytes, refuse_new,
            &self.error))

    def check_message(self) -> tuple[int, str]:
        self.error.size_bytes = 0
        return self.outcome(grpc_stream.check_message(self.stream, &self.error))

    @property
    def header_bytes(self) -> int:
        return self.stream.header_bytes

    @property
    def timeout_ns(self) -> int:
        return self.stream.timeout_ns

    @property
    def body(self) -> bytes | None:
        """What was kept, prefix included."""
        if self.stream.body == NULL:
            return None
        return (<const char *> block_data(self.stream.body))[self.stream.lead:self.stream.body.size_bytes]

    @property
    def capacity_bytes(self) -> int:
        return 0 if self.stream.body == NULL else self.stream.body.capacity_bytes

    @property
    def end_past_alignment(self) -> int:
        """Bytes from the last multiple of 64 to the body's end."""
        return <uint64_t> (block_data(self.stream.body) + self.stream.body.size_bytes) % 64


@cython.no_gc_clear
cdef class PuppetSink(RequestSink):
    """Collects calls by number, from 0; answers one when told to, or at once where that was asked for before."""
    cdef dict requests                     # number -> address of the Request
    cdef dict numbers                      # address of the Request -> number
    cdef dict calls                        # number -> address of the transport's own
    cdef dict sinks
    cdef public list events
    cdef public object answer_open         # (code, text): how `open` ends every call
    cdef public object answer_identify     # (code, text): how `identify` ends every call
    cdef public object answer_submit       # (code, text, segments): how `submit` ends every call
    cdef readonly int kicks
    cdef int opened

    def __cinit__(self):
        self.requests = {}
        self.numbers = {}
        self.calls = {}
        self.sinks = {}
        self.events = []
        self.answer_open = None
        self.answer_identify = None
        self.answer_submit = None
        self.kicks = 0
        self.opened = 0

    def __dealloc__(self):
        for address in self.requests.values():
            request_free(<Request *> <uint64_t> address)

    @property
    def live(self) -> list[int]:
        """Calls that are neither answered nor cancelled."""
        return sorted(self.requests)

    cdef Request *open(self, ResponseSink sink, void *call, int64_t received_ns, int64_t deadline_ns) noexcept:
        cdef Request *request
        number = self.opened
        self.opened += 1
        self.events.append(("open", number, deadline_ns - received_ns if deadline_ns != 0 else None))
        if self.answer_open is not None:
            code, text = self.answer_open
            finish_call(sink, call, code, text, (), -1)
            return NULL
        request = request_new()
        if request == NULL:
            finish_call(sink, call, 8, b"no memory", (), -1)
            return NULL
        self.requests[number] = <uint64_t> request
        self.numbers[<uint64_t> request] = number
        self.calls[number] = <uint64_t> call
        self.sinks[number] = sink
        return request

    cdef bint identify(self, Request *request, const uint8_t *name, uint64_t name_bytes, int source) noexcept:
        number = self.numbers[<uint64_t> request]
        self.events.append(("identify", number, (<const char *> name)[:name_bytes], source))
        if self.answer_identify is not None:
            code, text = self.answer_identify
            self.answer(number, code, text)
            return False
        return True

    cdef void submit(self, Request *request, Block *body, uint64_t start, uint64_t size_bytes) noexcept:
        number = self.numbers[<uint64_t> request]
        self.events.append(("submit", number, (<const char *> block_data(body) + start)[:size_bytes]))
        request.body = body
        if self.answer_submit is not None:
            code, text, segments = self.answer_submit
            self.answer(number, code, text, segments)

    cdef void cancel(self, Request *request, int code=STATUS_CANCELLED) noexcept:
        number = self.numbers[<uint64_t> request]
        self.events.append(("cancel", number, code))
        self.forget(number)

    cdef void kick(self) noexcept:
        self.kicks += 1

    cdef void forget(self, int number) noexcept:
        cdef uint64_t address = self.requests.pop(number)
        del self.numbers[address]
        del self.calls[number]
        del self.sinks[number]
        request_free(<Request *> address)

    def answer(self, number: int, code: int = 0, text: bytes = b"", segments: tuple = (),
               pushback_ms: int = -1, id: bytes = b"", final: bool = False) -> None:
        """Ends a call; `segments` are the pieces of an OK reply, its prefix among them."""
        finish_call(self.sinks[number], <void *> <uint64_t> self.calls[number], code, text, segments, pushback_ms, id,
                    final)
        self.forget(number)


cdef object finish_call(ResponseSink sink, void *call, int code, bytes text, segments, int64_t pushback_ms,
                        bytes id=b"", bint final=False):
    cdef Segment[MAX_SEGMENTS] pieces
    cdef Reply reply
    cdef int n = 0
    if len(segments) > MAX_SEGMENTS:
        raise ValueError("too many segments")
    memset(&reply, 0, sizeof(reply))
    for segment in segments:
        pieces[n].block = block_new(<uint64_t> len(segment))
        if pieces[n].block == NULL:
            while n > 0:
                n -= 1
                block_unref(pieces[n].block)
            code, text = 8, b"no memory for the reply"
            break
        memcpy(block_data(pieces[n].block), <const char *> segment, len(segment))
        pieces[n].block.size_bytes = <uint64_t> len(segment)
        pieces[n].data = block_data(pieces[n].block)
        pieces[n].size_bytes = <uint64_t> len(segment)
        n += 1
    reply.code = code
    reply.n_segments = n
    reply.segments = pieces
    reply.message = text
    reply.message_bytes = <uint32_t> len(text)
    reply.pushback_ms = pushback_ms
    reply.id = <const uint8_t *> <const char *> id
    reply.id_bytes = <uint32_t> len(id)
    reply.final = final
    sink.finish(call, &reply)


class Timer:
    """Stands for the loop's timer of a cold call's deadline."""

    def __init__(self, call):
        self.call = call
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


cdef class SessionDriver:
    """One session and what its Connection and Endpoint would give it.

    A cold call that is ready to run is appended to `cold` as (ColdCall, handler).
    """
    cdef StreamingSession session
    cdef Limits limits
    cdef TransportStats stats
    cdef readonly PuppetSink sink
    cdef bytes tenant_key
    cdef bytes certified                   # the tenant that the client's certificate names, None: there is no TLS
    cdef readonly list cold
    cdef readonly list jobs                # CodingJobs, as they were given away
    cdef readonly list timers              # of cold calls with a deadline, as they were armed
    cdef readonly list flushes
    cdef public bint refuse_spawn

    def __init__(self, dict handlers=None, *, int header_bytes=16384, int max_streams=1024,
                 int stream_window_bytes=1 << 20, int connection_window_bytes=16 << 20,
                 int64_t max_message_bytes=64 << 20, int64_t connection_buffered_bytes=128 << 20,
                 int64_t process_buffered_bytes=1 << 32, dict streaming=None, int stream_messages=64,
                 int64_t stream_outbound_bytes=256 << 10, int reply_encodings=0, int coding_jobs=256,
                 int early_resets=500, int stream_errors=100,
                 int settings_frames=10, int ping_strikes=100, int empty_frames=16, int oversize_headers=20,
                 int window_updates=10, int idle_frames=100, int queued_frames=10000,
                 bytes tenant_key=b"", bint tenant_of_certificate=False, bytes certified=None):
        self.tenant_key = tenant_key
        self.certified = certified
        memset(&self.stats, 0, sizeof(self.stats))
        self.limits.header_bytes = header_bytes
        self.limits.max_streams = max_streams
        self.limits.stream_window_bytes = stream_window_bytes
        self.limits.connection_window_bytes = connection_window_bytes
        self.limits.stream_messages = stream_messages
        self.limits.stream_outbound_bytes = stream_outbound_bytes
        self.limits.max_message_bytes = max_message_bytes
        self.limits.connection_buffered_bytes = connection_buffered_bytes
        self.limits.process_buffered_bytes = process_buffered_bytes
        self.limits.reply_encodings = reply_encodings
        self.limits.coding_jobs = coding_jobs
        self.limits.turn_events = 1000
        self.limits.tenant_key = tenant_key
        self.limits.tenant_key_bytes = <uint64_t> len(tenant_key)
        self.limits.tenant_of_certificate = tenant_of_certificate
        self.limits.abuse = AbuseLimits(
            early_resets=early_resets, stream_errors=stream_errors, settings_frames=settings_frames,
            ping_strikes=ping_strikes, empty_frames=empty_frames, oversize_headers=oversize_headers,
            window_updates=window_updates, idle_frames=idle_frames, queued_frames=queued_frames)
        self.sink = PuppetSink.__new__(PuppetSink)
        self.cold = []
        self.jobs = []
        self.timers = []
        self.flushes = []
        self.session = StreamingSession.__new__(StreamingSession)
        self.session.sink = self.sink
        self.session.limits = &self.limits
        self.session.stats = &self.stats
        self.session.owner = self
        self.session.handlers = handlers or {}
        self.session.streaming = streaming or {}
        self.session.spawn = self.spawn
        self.session.arm = self.arm
        self.session.offload = self.offload
        self.session.flushes = self.flushes
        self.session.connection = self
        self.session.start()

    def spawn(self, session, call, handler):
        if self.refuse_spawn:
            raise RuntimeError("the loop is closed")
        self.cold.append((call, handler))

    def arm(self, session, call):
        timer = Timer(call)
        self.timers.append(timer)
        return timer

    def offload(self, job):
        if self.refuse_spawn:
            raise RuntimeError("the loop is closed")
        self.jobs.append(job)

    def code(self, run: bool = True) -> None:
        """The oldest job comes back, run or not."""
        job = self.jobs.pop(0)
        if run:
            job.run()
        self.session.finish_coding(job)

    def peer_name(self) -> str:
        return "test"

    def peer_tenant(self):
        return self.certified

    def peer_identity(self) -> str:
        return ""

    def feed(self, data: bytes) -> bool:
        """False: the session wants to be closed."""
        self.session.begin_read(True)
        return self.session.feed(<const uint8_t *> <const char *> data, <uint64_t> len(data)) == 0

    def feed_in_place(self, data: bytes) -> bool:
        """As `feed`, by the way of a Connection: what the session makes room for is read where it belongs."""
        cdef const uint8_t *at = <const uint8_t *> <const char *> data
        cdef uint64_t left = <uint64_t> len(data)
        cdef uint64_t size_bytes
        cdef BlockView room
        while left > 0:
            self.session.begin_read(True)
            room = self.session.peek_room()
            if room is None:
                size_bytes = min(left, <uint64_t> READ_BYTES)
                if self.session.feed(at, size_bytes) != 0:
                    return False
            else:
                size_bytes = min(left, <uint64_t> room.size)
                memcpy(block_data(room.block) + room.start, at, size_bytes)
                if self.session.feed(block_data(room.block) + room.start, size_bytes) != 0:
                    return False
            at += size_bytes
            left -= size_bytes
        return True

    def take(self, limit_bytes: int = 1 << 20) -> tuple[list[bytes], bool]:
        """What is to be sent, in pieces, and whether there is more."""
        cdef bint more = False
        cdef list pieces = self.session.take_output(limit_bytes, &more)
        return [bytes(piece) for piece in pieces or ()], more

    def output(self) -> bytes:
        """Everything that is to be sent."""
        parts = []
        more = True
        while more:
            pieces, more = self.take()
            parts += pieces
        return b"".join(parts)

    def finish_cold(self, call: ColdCall, code: int, content: bytes) -> None:
        self.session.finish_cold(call, code, content)

    def read_cold(self, call: ColdStream) -> bytes | None:
        return self.session.read_cold(call)

    def write_cold(self, call: ColdStream, message: bytes) -> None:
        self.session.write_cold(call, message)

    def send_head(self, call: ColdStream) -> None:
        self.session.send_head(call)

    def has_room(self, call: ColdStream) -> bool:
        return self.session.has_room(call)

    def drain(self) -> None:
        self.session.drain()

    def end_calls(self, message: bytes) -> None:
        self.session.end_calls(message)

    def close(self, most: int = INT32_MAX) -> bool:
        """The connection is lost. False: more than `most` streams were left."""
        return self.session.close(most)

    @property
    def done(self) -> bool:
        return self.session.is_done()

    @property
    def wants_output(self) -> bool:
        return self.session.wants_output()

    @property
    def streams(self) -> int:
        return self.session.n_streams

    @property
    def early_replies(self) -> int:
        return self.session.early_replies

    @property
    def buffered_bytes(self) -> int:
        return self.session.buffered_bytes

    @property
    def outbound_bytes(self) -> int:
        return self.session.outbound_bytes

    @property
    def greeted(self) -> bool:
        return self.session.greeted

    @property
    def settled(self) -> bool:
        return self.session.settled

    def counters(self) -> dict[str, int]:
        return {"streams": self.stats.streams, "streams_total": self.stats.streams_total,
                "cold_calls_total": self.stats.cold_calls_total,
                "streams_held_total": self.stats.streams_held_total, "received_bytes": self.stats.received_bytes,
                "sent_bytes": self.stats.sent_bytes, "buffered_bytes": self.stats.buffered_bytes,
                "outbound_bytes": self.stats.outbound_bytes, "coding_jobs": self.stats.coding_jobs,
                "coding_refused": self.stats.coding_refused, "inflated_bytes": self.stats.inflated_bytes}

    def refused(self) -> dict[str, int]:
        """By the limit's name; those that were not reached are left out."""
        return {name: self.stats.refused[kind] for kind, name in enumerate(REFUSED_NAMES) if self.stats.refused[kind]}

    def time_calls(self, client, message: bytes, reply: bytes, streams: int, rounds: int) -> int:
        """Nanoseconds of `rounds` calls, `streams` to a read: feed, an answer of `reply` in submit, take_output."""
        cdef int64_t total_ns = 0
        cdef int64_t begin_ns
        cdef int64_t done = 0
        cdef bint more = False
        cdef list pieces
        cdef bytes data
        self.session.sink = EchoSink(reply)
        while done < rounds:
            for _ in range(streams):
                client.start(message)
            data = b"".join(iter(client.take_output, b""))
            begin_ns = now_ns()
            self.feed(data)
            pieces = self.session.take_output(1 << 24, &more)
            total_ns += now_ns() - begin_ns
            done += len(client.feed(b"".join(pieces)))
        self.session.sink = self.sink
        return total_ns


cdef class EchoSink(RequestSink):
    """Answers every call at once."""
    cdef bytes content
    cdef Request[ECHOED] requests          # more than a read brings
    cdef int turn

    def __cinit__(self, content: bytes):
        self.content = content

    cdef Request *open(self, ResponseSink sink, void *call, int64_t received_ns, int64_t deadline_ns) noexcept:
        cdef Request *request = &self.requests[self.turn]
        self.turn = (self.turn + 1) % ECHOED
        request.sink = <void *> sink
        request.call = call
        return request

    cdef void submit(self, Request *request, Block *body, uint64_t start, uint64_t size_bytes) noexcept:
        cdef Segment segment
        cdef Reply reply
        block_unref(body)
        memset(&reply, 0, sizeof(reply))
        segment.block = block_new(<uint64_t> len(self.content))
        segment.data = block_data(segment.block)
        segment.size_bytes = <uint64_t> len(self.content)
        memcpy(block_data(segment.block), <const char *> self.content, len(self.content))
        reply.n_segments = 1
        reply.segments = &segment
        reply.pushback_ms = -1
        (<ResponseSink> request.sink).finish(request.call, &reply)
