"""Load generator for gRPC calls, unary or as messages on long-lived streams: connects, drives the loop of load_loop
without the GIL, reports.

Memory: a run owns its loop and its sockets and frees both however it ends. Threads: a run belongs to the thread that
called it, which takes the GIL only between slices of SLICE_NS, so that signals are noticed.
"""

import socket
from dataclasses import dataclass

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t

from infer._core.http2_client cimport MAX_HEADERS, MESSAGE_PREFIX_BYTES, OWN_HEADERS, put_header
from infer._core.load_loop cimport *
from infer._core.load_record cimport CallRecord, Record, record_open
from infer._core.load_stats cimport *

cdef extern from "<sys/resource.h>" nogil:
    enum:
        RUSAGE_THREAD

    struct timeval:
        long tv_sec
        long tv_usec

    struct rusage:
        timeval ru_utime
        timeval ru_stime

    int getrusage(int, rusage *)

cdef enum:
    VARIED_BYTES_MOST = 16384   # a larger message is lent, not copied
    SLICE_NS = 250000000

CODE_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")
FAILURE_NAMES = (
    "http_status", "no_grpc_status", "wrong_length", "stream_reset", "stream_refused", "connection_lost", "unanswered",
    "not_started", "error_message", "stream_end")


cdef inline int64_t cpu_ns() noexcept nogil:
    """CPU time of this thread."""
    cdef rusage usage
    getrusage(RUSAGE_THREAD, &usage)
    return ((<int64_t>usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000
            + (<int64_t>usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000)


@dataclass(frozen=True)
class LoadResult:
    sent: int
    ok: int
    statuses: dict
    failures: dict
    reason: str
    measured: int
    duration_s: float
    rate: float
    min_us: float
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    reply_bytes: int
    first_reply: bytes | None
    peak_in_flight: int
    cpu_share: float
    bottleneck: bool
    calls: bytes = b""
    replies: tuple = ()


@cython.final
cdef class LoopOwner:
    cdef Loop loop

    def __cinit__(self):
        loop_clear(&self.loop)

    def __dealloc__(self):
        loop_close(&self.loop)

    cdef int open(
            self, list sockets, bytes path, bytes authority, int64_t timeout_ns, uint32_t streams,
            uint32_t stream_messages, list metadata) except -1:
        cdef bytes name, value
        if not loop_open(&self.loop, len(sockets)):
            raise MemoryError("load generator: no memory or no descriptor for its loop")
        for opened in sockets:
            if not loop_add(
                    &self.loop, opened.fileno(), path, len(path), authority, len(authority), timeout_ns, streams,
                    stream_messages):
                raise MemoryError("load generator: no memory for a connection")
            for name, value in metadata:
                put_header(&self.loop.connections[self.loop.n_connections - 1].session, name, len(name), value,
                           len(value))
        return 0

    cdef int run(self, until) except -1:
        cdef bint over = False
        with nogil:
            loop_begin(&self.loop)
        while not over:
            with nogil:
                over = loop_drive(&self.loop, now_ns() + SLICE_NS)
            PyErr_CheckSignals()
            if until is not None and not over and until():
                self.loop.stop_ns = now_ns()
                until = None
        return 0

    cdef double quantile_us(self, double share) except? -1:
        """Middle of the bucket that holds the quantile, within the exact bounds."""
        cdef uint64_t rank = max(<uint64_t>1, <uint64_t>(share * self.loop.stats.measured + 0.999999))
        cdef uint64_t seen = 0
        cdef int i
        for i in range(BUCKETS):
            seen += self.loop.stats.buckets[i]
            if seen >= rank:
                return min(max(middle_of(i), <double>self.loop.stats.min_ns), <double>self.loop.stats.max_ns) / 1e3
        return 0.0

    cdef bytes calls(self):
        cdef Record *record = &self.loop.record
        cdef Py_ssize_t size_bytes = <Py_ssize_t>(record.n_calls * sizeof(CallRecord))
        return (<const char *>record.calls)[:size_bytes] if size_bytes else b""

    cdef tuple replies(self):
        cdef Record *record = &self.loop.record
        cdef uint64_t i
        if record.out_of_memory:
            raise MemoryError("load generator: no memory for the record of its calls")
        if record.out_of_replies:
            raise ValueError(f"load generator: more than {record.n_replies} different replies, which no record holds")
        return tuple([record.replies[i].body[:<Py_ssize_t>record.replies[i].size_bytes]
                      for i in range(record.n_replies)])

    cdef object result(self, double cpu_share):
        cdef LoadStats *stats = &self.loop.stats
        cdef double seconds = max(<double>(stats.last_reply_ns - self.loop.warm_ns), 0.0) / 1e9
        statuses = {CODE_NAMES[i]: stats.codes[i] for i in range(GRPC_CODES) if stats.codes[i]}
        if stats.other_code:
            statuses["OTHER"] = stats.other_code
        first = None
        if self.loop.first_reply != NULL:
            first = self.loop.first_reply[MESSAGE_PREFIX_BYTES:self.loop.first_reply_bytes]
        return LoadResult(
            sent=stats.sent, ok=stats.ok, statuses=statuses,
            failures={FAILURE_NAMES[i]: stats.failures[i] for i in range(FAILURES) if stats.failures[i]},
            reason=(<bytes>self.loop.reason).decode("utf-8", "replace"), measured=stats.measured, duration_s=seconds,
            rate=stats.measured / seconds if seconds > 0 else 0.0, min_us=stats.min_ns / 1e3,
            mean_us=stats.latency_sum_ns / 1e3 / max(stats.measured, 1), p50_us=self.quantile_us(0.5),
            p90_us=self.quantile_us(0.9), p99_us=self.quantile_us(0.99), p999_us=self.quantile_us(0.999),
            max_us=stats.max_ns / 1e3, reply_bytes=self.loop.expected_bytes, first_reply=first,
            peak_in_flight=stats.peak_in_flight, cpu_share=cpu_share, bottleneck=cpu_share > 0.8,
            calls=self.calls(), replies=self.replies())


def split_address(str address):
    """(family, address for connect, authority) of host:port, [v6]:port, unix:path or unix:///path."""
    if address.startswith("unix:"):
        return socket.AF_UNIX, address[5:].removeprefix("//"), "localhost"
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{address!r} is not host:port, [v6]:port or unix:path")
    return socket.AF_INET, (host.strip("[]"), int(port)), address


def connect_all(str address, int count, double timeout_s):
    """`count` connected, non-blocking sockets, or ConnectionError and none left open."""
    family, target, _ = split_address(address)
    opened = []
    try:
        for _ in range(count):
            if family == socket.AF_UNIX:
                each = socket.socket(socket.AF_UNIX)
                opened.append(each)
                each.settimeout(timeout_s)
                each.connect(target)
            else:
                each = socket.create_connection(target, timeout_s)
                opened.append(each)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setblocking(False)
    except OSError as error:
        for each in opened:
            each.close()
        raise ConnectionError(f"{address}: connection {len(opened)} of {count}: {error}") from error
    return opened


def run(
        str address, str path, bytes payload, connections=1, streams=1, *, duration_s=None, requests=None, rate=None,
        stream_messages=None, warmup_s=0.0, timeout_s=None, patience_s=None, expected_bytes=None, stall_s=10.0,
        capture_first_reply=True, record=False, until=None, vary_from=0, metadata=(),
        any_length=False):
    cdef LoopOwner owner = LoopOwner()
    cdef Loop *loop = &owner.loop
    cdef bytes framed = b"\0" + len(payload).to_bytes(4, "big") + payload
    cdef bytes path_bytes = path.encode()
    cdef bytes authority = split_address(address)[2].encode()
    cdef int64_t cpu_before, cpu_used, wall
    cdef list fields = [(name.encode(), value.encode()) for name, value in metadata]
    if len(fields) > MAX_HEADERS - OWN_HEADERS:
        raise ValueError(f"at most {MAX_HEADERS - OWN_HEADERS} fields of metadata can be sent")
    if duration_s is None and requests is None and until is None:
        raise ValueError("a run needs duration_s, requests or until")
    if (connections < 1 or streams < 1 or (stream_messages is not None and stream_messages < 1)
            or (rate is not None and rate <= 0) or (requests is not None and requests < 1)):
        raise ValueError("connections, streams, stream_messages, rate and requests must be positive")
    if record and stream_messages is not None:
        raise ValueError("a record is of unary calls, not of a stream's messages")
    if vary_from and (stream_messages is not None or not 8 <= len(framed) <= VARIED_BYTES_MOST):
        raise ValueError(f"messages of 3 to {VARIED_BYTES_MOST - 5} bytes can vary, of unary calls")
    if record and not record_open(&loop.record):
        raise MemoryError("load generator: no memory for the record of its calls")
    sockets = connect_all(address, connections, stall_s)
    try:
        loop.framed = framed
        loop.framed_bytes = len(framed)
        loop.max_requests = requests or 0
        loop.interval_ps = 0 if rate is None else round(1e12 / rate)
        loop.stall_ns = round(stall_s * 1e9)
        loop.expected_bytes = -1 if expected_bytes is None else expected_bytes
        loop.any_length = any_length
        loop.capture = capture_first_reply
        loop.varied = vary_from
        patience_s = timeout_s if patience_s is None else patience_s
        loop.patience_ns = 0 if patience_s is None else max(1, round(patience_s * 1e9))
        owner.open(sockets, path_bytes, authority, 0 if timeout_s is None else round(timeout_s * 1e9), streams,
                   stream_messages or 0, fields)
        cpu_before = cpu_ns()
        loop.start_ns = loop.alive_ns = now_ns()
        loop.warm_ns = loop.start_ns + <int64_t>round(warmup_s * 1e9)
        if duration_s is not None:
            loop.stop_ns = loop.warm_ns + <int64_t>round(duration_s * 1e9)
        owner.run(until)
        wall = max(now_ns() - loop.start_ns, 1)
        cpu_used = cpu_ns() - cpu_before
    finally:
        for each in sockets:
            each.close()
    if (loop.stats.ok == 0 and not any(loop.stats.codes[i] for i in range(GRPC_CODES))
            and not loop.stats.failures[<int> FAIL_ERROR_MESSAGE]):
        raise ConnectionError(f"{address}: no reply: {(<bytes>loop.reason).decode('utf-8', 'replace')}")
    return owner.result(<double>cpu_used / wall)
