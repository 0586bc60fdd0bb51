"""Captures. See capture.pxd.

Design note. The bytes are copied, not referenced: the writer is a thread of Python's, and references are counted by the
loop alone. What that costs the loop is bounded by the size of a message that is taken and by how many are in a second.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport ldexp
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t
from libc.string cimport memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from infer._core.block cimport block_data
from infer._core.clock cimport now_ns
from infer._core.draw cimport draw
from infer._core.grpc_message cimport PREFIX_BYTES
from infer._core.model_version cimport VersionEntry
from infer._core.request cimport Request, Segment
from infer._core.tap cimport add_tap, remove_tap

cdef enum:
    DROPPED_RATE = 0
    DROPPED_WAITING = 1
    DROPPED_LARGE = 2

cdef enum:
    SECOND_NS = 1000000000

DROP_NAMES = ("rate", "waiting", "large")


@cython.final
cdef class Capture(Tap):
    """`fraction` of the replies, at most `per_second`. `put` is called with (ns since the epoch, model, version,
    request, reply) of each; whoever has done with one calls `did`."""

    def __init__(self, put, *, double fraction, int64_t per_second, int64_t max_waiting, int64_t max_waiting_bytes,
                 int64_t max_message_bytes):
        if not 0 < fraction <= 1:
            raise ValueError(f"the fraction {fraction} of a capture must be above 0 and at most 1")
        if min(max_waiting, max_waiting_bytes, max_message_bytes) < 1 or per_second < 0:
            raise ValueError("the bounds of a capture must be at least 1")
        self.put = put
        self.versions = ()
        self.threshold = UINT64_MAX if fraction == 1 else <uint64_t> ldexp(fraction, 64)
        self.per_second = per_second
        self.max_waiting = max_waiting
        self.max_waiting_bytes = max_waiting_bytes
        self.max_message_bytes = max_message_bytes

    def capture_from(self, tuple versions not None):
        """Whose replies it is told of from now on."""
        for entry in self.versions:
            remove_tap(<VersionEntry> entry, self)
        self.versions = versions
        for entry in versions:
            add_tap(<VersionEntry?> entry, self)

    def drops(self):
        """Replies that were picked and not taken, by why."""
        return {name: self.dropped[kind] for kind, name in enumerate(DROP_NAMES)}

    def did(self, int64_t size_bytes):
        """A record of so many bytes waits no longer. The writer's thread."""
        self.done += 1
        self.done_bytes += size_bytes

    cdef void offer(self, Request *request, const Segment *segments, int n_segments) noexcept:
        cdef VersionEntry entry = <VersionEntry> request.version
        cdef int64_t now = now_ns()
        cdef uint64_t reply_bytes = 0
        cdef uint64_t total
        cdef timespec wall
        cdef bytes message, reply
        cdef char *to
        cdef int i
        self.seen += 1
        self.drawn += 1
        if draw(self.drawn) > self.threshold:
            return
        for i in range(n_segments):
            reply_bytes += segments[i].size_bytes
        total = request.body_bytes + reply_bytes
        if now - self.second_ns >= SECOND_NS:
            self.second_ns = now
            self.in_second = 0
        if total > <uint64_t> self.max_message_bytes:
            self.dropped[<int> DROPPED_LARGE] += 1
            return
        if self.per_second > 0 and self.in_second >= self.per_second:
            self.dropped[<int> DROPPED_RATE] += 1
            return
        if (self.taken - self.done >= self.max_waiting
                or self.put_bytes - self.done_bytes + <int64_t> total > self.max_waiting_bytes):
            self.dropped[<int> DROPPED_WAITING] += 1
            return
        self.in_second += 1
        message = PyBytes_FromStringAndSize(
            <const char *> block_data(request.body) + request.body_start, <Py_ssize_t> request.body_bytes)
        reply = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> reply_bytes)
        to = PyBytes_AS_STRING(reply)
        for i in range(n_segments):
            memcpy(to, segments[i].data, segments[i].size_bytes)
            to += segments[i].size_bytes
        clock_gettime(CLOCK_REALTIME, &wall)
        self.taken += 1
        self.put_bytes += <int64_t> total
        self.put((<int64_t> wall.tv_sec * SECOND_NS + wall.tv_nsec, entry.name, entry.version, message,
                  reply[PREFIX_BYTES:], <int64_t> total))
