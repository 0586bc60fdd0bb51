"""Whole messages as `bytes` to the pipeline, its answers to futures. See unary_sink.pxd."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from infer._core.block cimport Block, block_data, block_new, block_unref
from infer._core.clock cimport now_ns
from infer._core.grpc_message cimport PREFIX_BYTES
from infer._core.request cimport Reply
from infer._core.retry_info cimport BUSY_PUSHBACK_MS
from infer._core.split cimport key_hash
from infer._core.status cimport (
    STATUS_CANCELLED, STATUS_DEADLINE_EXCEEDED, STATUS_OK, STATUS_RESOURCE_EXHAUSTED)

cimport cython

cdef enum:
    ALIGNMENT = 64


cdef bytes joined(Reply *reply):
    """The message behind its prefix, copied; raises MemoryError."""
    cdef uint64_t total = 0
    cdef uint64_t skipped
    cdef uint64_t left = PREFIX_BYTES
    cdef char *to
    cdef bytes content
    cdef int i
    for i in range(reply.n_segments):
        total += reply.segments[i].size_bytes
    content = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> (total - PREFIX_BYTES))
    to = PyBytes_AS_STRING(content)
    for i in range(reply.n_segments):
        skipped = min(left, reply.segments[i].size_bytes)
        left -= skipped
        memcpy(to, reply.segments[i].data + skipped, reply.segments[i].size_bytes - skipped)
        to += reply.segments[i].size_bytes - skipped
    return content


@cython.final
cdef class Refusal:
    """The status and text of a call that did not succeed."""

    def __repr__(self):
        return f"<Refusal {self.code}: {self.message!r}>"


cdef Refusal refusal(int code, str message, int64_t pushback_ms=-1, str id=""):
    cdef Refusal made = Refusal.__new__(Refusal)
    made.code = code
    made.message = message
    made.pushback_ms = pushback_ms
    made.id = id
    return made


@cython.final
@cython.freelist(256)
cdef class UnaryCall:
    """One call: `future` has its outcome; `cancel` takes it back."""

    def __cinit__(self):
        self.request = NULL

    def cancel(self):
        """The caller is gone, or its deadline has passed: the pipeline is to forget the call. Nothing for one that has
        been answered."""
        if self.request != NULL:
            self.end(STATUS_DEADLINE_EXCEEDED if 0 < self.deadline_ns <= now_ns() else STATUS_CANCELLED)

    def refuse(self, int code, str message not None):
        """The transport answers the call itself."""
        if self.request != NULL:
            self.end(code)
            if not self.future.done():
                self.future.set_result(refusal(code, message))

    cdef void end(self, int code) except *:
        cdef Request *request = self.request
        self.sink.release(self)
        self.sink.requests.cancel(request, code)


@cython.final
cdef class UnarySink(ResponseSink):
    """`requests` is the pipeline; messages under way hold `limit_bytes` together at most, 0: no bound."""

    def __cinit__(self, loop, RequestSink requests not None, uint64_t limit_bytes=0):
        self.loop = loop
        self.create_future = loop.create_future
        self.requests = requests
        self.kick_later = self.kick
        self.kicking = False
        self.timer = None
        self.kicked_ns = self.answer_ns = self.window_ns = 0
        self.peak = self.peak_next = self.waiting = 0
        self.limit_bytes = limit_bytes
        self.calls = set()
        self.buffered_bytes = 0
        self.refused_buffered = 0

    def call(self, bytes message not None, time_remaining=None, bytes tenant=None, int source=0,
             bytes routing_key=None):
        """Starts a call; `time_remaining`: seconds to its deadline, None without one; `tenant`, `source`: as for
        RequestSink.identify, None: of none; `routing_key`: what a split goes by, or None."""
        cdef UnaryCall call = UnaryCall.__new__(UnaryCall)
        cdef uint64_t size_bytes = <uint64_t> len(message)
        cdef int64_t received_ns = now_ns()
        cdef uint64_t lead
        cdef bint due
        cdef Block *body
        cdef Request *request
        call.sink = self
        call.size_bytes = size_bytes
        call.future = self.create_future()
        call.deadline_ns = 0
        if time_remaining is not None:
            # Clamped so that the sum stays within its type; 1 ns is a deadline that has passed.
            call.deadline_ns = received_ns + max(<int64_t> 1, <int64_t> (min(<double> time_remaining, 1e9) * 1e9))
        if 0 < self.limit_bytes < self.buffered_bytes + size_bytes and self.buffered_bytes > 0:
            self.refused_buffered += 1
            call.future.set_result(refusal(
                STATUS_RESOURCE_EXHAUSTED,
                "too many bytes of unfinished requests are buffered; retry later or send to another replica",
                BUSY_PUSHBACK_MS))
            return call
        request = self.requests.open(self, <void *> call, received_ns, call.deadline_ns)
        if request == NULL:
            return call
        if routing_key:
            request.key.routing = key_hash(<const uint8_t *> <const char *> routing_key, <uint64_t> len(routing_key))
        if tenant is not None and not self.requests.identify(
                request, <const uint8_t *> <const char *> tenant, <uint64_t> len(tenant), source):
            return call
        # The end is aligned: what stands there is mostly the raw data of the last tensor.
        lead = -size_bytes & (ALIGNMENT - 1)
        body = block_new(lead + size_bytes)
        if body == NULL:
            self.requests.cancel(request, STATUS_RESOURCE_EXHAUSTED)
            call.future.set_result(refusal(
                STATUS_RESOURCE_EXHAUSTED,
                "the server's memory for requests is used up; retry later or send to another replica",
                BUSY_PUSHBACK_MS))
            return call
        memcpy(block_data(body) + lead, PyBytes_AS_STRING(message), size_bytes)
        body.size_bytes = lead + size_bytes
        call.request = request
        self.calls.add(call)
        self.buffered_bytes += size_bytes
        self.requests.submit(request, body, lead, size_bytes)
        if call.request != NULL:
            self.waiting += 1
            due = self.is_due(received_ns)
            if self.kicking:
                pass
            elif due:
                # Once per turn: the calls that came together make one batch.
                self.kicking = True
                self.loop.call_soon(self.kick_later)
            elif self.timer is None:
                self.timer = self.loop.call_later(GATHER_NS / 1e9, self.kick_later)
        return call

    def kick(self):
        """Wakes executors for what was put."""
        self.kicking = False
        self.waiting = 0
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.kicked_ns == 0:
            self.kicked_ns = now_ns()
        self.requests.kick()

    cdef bint is_due(self, int64_t received_ns) noexcept:
        """Whether executors are to be woken now, and not when the next call has come or GATHER_NS have passed."""
        cdef int64_t under_way = len(self.calls)
        if received_ns - self.window_ns > WINDOW_NS:
            self.peak = self.peak_next if received_ns - self.window_ns <= 2 * WINDOW_NS else 0
            self.peak_next = 0
            self.window_ns = received_ns
        if under_way > self.peak_next:
            self.peak_next = under_way
        return self.waiting >= max(self.peak, self.peak_next) or self.answer_ns > GATHER_NS

    def end_calls(self, int code, str message not None):
        """Answers every call that is under way."""
        for call in list(self.calls):
            (<UnaryCall> call).refuse(code, message)

    @property
    def in_flight(self):
        return len(self.calls)

    cdef void release(self, UnaryCall call) except *:
        call.request = NULL
        self.calls.discard(call)
        self.buffered_bytes -= call.size_bytes

    cdef void finish(self, void *call, Reply *reply) noexcept:
        cdef UnaryCall ended = <UnaryCall> call
        cdef int i
        try:
            if self.kicked_ns != 0:
                self.answer_ns = now_ns() - self.kicked_ns
                self.kicked_ns = 0
            if ended.request != NULL:
                self.release(ended)
            if reply.variant != NULL:
                ended.variant = <bytes> reply.variant
            # A caller that gave up this very turn has cancelled it.
            if not ended.future.done():
                if reply.code == STATUS_OK:
                    ended.final_asked = reply.final != 0
                    ended.future.set_result(joined(reply))
                else:
                    ended.future.set_result(refusal(
                        reply.code, reply.message[:reply.message_bytes].decode("utf-8", "replace"), reply.pushback_ms,
                        (<const char *> reply.id)[:reply.id_bytes].decode("utf-8", "replace")
                        if reply.id_bytes > 0 else ""))
        except MemoryError:
            ended.future.set_result(refusal(STATUS_RESOURCE_EXHAUSTED, "no memory for the reply"))
        finally:
            for i in range(reply.n_segments):
                block_unref(reply.segments[i].block)
