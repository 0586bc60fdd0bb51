"""How calls end. See answers.pxd."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from infer._core.admission cimport ADMITTED, triton_code
from infer._core.arena cimport at
from infer._core.arm cimport Arm, count_arm, drop_arm
from infer._core.block cimport block_data
from infer._core.clock cimport now_ns
from infer._core.counters cimport observe
from infer._core.fallback cimport leave_trial
from infer._core.model_version cimport FALLBACK_NONE, drop_handle
from infer._core.reply cimport encode_kept, id_of
from infer._core.request cimport ANSWERED, DONE, RECEIVING, Reply, ResponseSink, request_free
from infer._core.row_cache cimport keep_run
from infer._core.row_plan cimport asked_rows, reply_run, rows_differ
from infer._core.span cimport Span
from infer._core.status cimport STATUS_CODES, STATUS_INTERNAL, STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.tap cimport tell_taps
from infer._core.tensor cimport say
from infer._core.timer_wheel cimport wheel_init, wheel_remove


cdef inline void *variant_of(const Request *request) noexcept:
    return NULL if request.arm == NULL else <void *> (<Arm> request.arm).variant


cdef class Answers(VersionQueues):
    """Whatever becomes of a call, its caller is told once and its Request is freed."""

    def __cinit__(self):
        wheel_init(&self.wheel, now_ns())
        memset(self.unrouted, 0, sizeof(self.unrouted))
        self.in_flight = 0
        self.leading = False
        self.refusal = ADMITTED

    cdef void enter_alone(self, Request *request) noexcept:
        pass

    def unrouted_calls(self):
        """Calls that ended before a model was found, by gRPC code."""
        cdef int code
        return [self.unrouted[code] for code in range(STATUS_CODES)]

    cdef void say_late(self, Request *request) noexcept:
        self.error.size_bytes = 0
        if request.flight != NULL and request.state == RECEIVING:
            say(&self.error, "the deadline passed while the request waited for the run of an identical one; it was not "
                             "run itself")
        elif request.state == RECEIVING:
            say(&self.error, "the deadline passed before the request was whole")
        elif request.state == DONE:
            say(&self.error, "the deadline passed while the request waited in its queue; it was not run")
        else:
            say(&self.error, "the deadline passed while the model ran")

    cdef int say_no_reply(self, Request *request) noexcept:
        if rows_differ(request):
            say(&self.error, "the model's outputs have not the shape that they had for equal inputs before, so that "
                             "rows which are kept do not go with others; it is run on whole requests from now on: send "
                             "the request again, and take cache_rows out of its configuration")
            return STATUS_INTERNAL
        say(&self.error, "the server's memory for replies is used up, or the reply passes 4 GiB; ask for less, or "
                         "retry later")
        return STATUS_RESOURCE_EXHAUSTED

    cdef void count(self, Request *request, int code) noexcept:
        cdef VersionEntry entry
        cdef int64_t duration_ns = now_ns() - request.received_ns
        if request.arm != NULL:
            count_arm(<Arm> request.arm, code, asked_rows(request), duration_ns)
        if request.version == NULL:
            self.unrouted[code] += 1
            return
        entry = <VersionEntry> request.version
        entry.stats.calls[code] += 1
        observe(&entry.stats.request, duration_ns)
        if code == STATUS_OK:
            entry.stats.request_ns += duration_ns
        else:
            entry.stats.failed_ns += duration_ns

    cdef void answer(self, Request *request, int code, int64_t pushback_ms) noexcept:
        """Ends the call with `code` and the text in `error`; frees the Request unless its batch still runs."""
        cdef Reply reply
        if self.triton_codes:
            code = triton_code(code, self.refusal, request.state != RECEIVING, &self.error)
        self.refusal = ADMITTED
        self.count(request, code)
        memset(&reply, 0, sizeof(reply))
        reply.code = code
        reply.message = self.error.text
        reply.message_bytes = self.error.size_bytes
        reply.pushback_ms = pushback_ms
        reply.id = <const uint8_t *> at(request.id_offset)
        reply.id_bytes = request.id_bytes
        reply.variant = variant_of(request)
        if request.sink != NULL:
            (<ResponseSink> request.sink).finish(request.call, &reply)
            request.sink = NULL
        if request.state == ANSWERED:
            wheel_remove(&self.wheel, &request.timer)
        else:
            self.retire(request)

    cdef void retire(self, Request *request) noexcept:
        cdef VersionEntry entry
        wheel_remove(&self.wheel, &request.timer)
        if request.flight != NULL and self.cache.leave(request) and not self.leading:
            # Not now: transports end their calls one after the other, and its refusal would be one more of theirs.
            self.leading = True
            self.loop.call_soon(self.lead_again)
        if self.second is not None:
            self.second.leave(request)
        if request.charged:
            self.tenants.release(request, &(<VersionEntry> request.version).c if request.version != NULL else NULL)
        if request.version != NULL:
            entry = <VersionEntry> request.version
            if request.probe != 0:
                leave_trial(entry, request)
            request.version = NULL
            drop_handle(entry)
        if request.arm != NULL:
            drop_arm(request.arm)
        request_free(request)
        self.in_flight -= 1

    def lead_again(self):
        """Of those that waited for a request which gave no answer, the first is run in its stead."""
        cdef Request *request
        self.leading = False
        request = self.cache.next_leader()
        while request != NULL:
            self.enter_alone(request)
            request = self.cache.next_leader()
        self.kick()
        if self.after_turn is not None:
            self.after_turn()

    cdef void share(self, Request *leader, Batch *batch, int index) noexcept:
        """Keeps what an item came to, and answers those that waited for it."""
        cdef int64_t now = now_ns()
        cdef Request *request
        keep_run(self.cache, leader, batch, index)
        if self.second is not None:
            self.second.store(leader, batch, index)
        request = self.cache.take_waiting(leader, now)
        while request != NULL:
            if not self.reply(request, batch, index):
                self.error.size_bytes = 0
                self.answer(request, self.say_no_reply(request), -1)
            request = self.cache.take_waiting(leader, now)

    cdef void report(self, VersionEntry entry, Block *detail) noexcept:
        """The runtime's own words about a failed run, for the log."""
        if self.on_run_failure is not None:
            text = (<const char *> block_data(detail))[:detail.size_bytes]
            self.on_run_failure(entry, text.decode("utf-8", "replace"))

    cdef bint reply(self, Request *request, Batch *batch, int index) noexcept:
        """Encodes the item's rows and hands them over; False: no memory."""
        cdef int n = reply_run(self.segments, request, batch, index)
        if n == 0:
            return False
        self.send(request, n)
        return True

    cdef void send(self, Request *request, int n_segments) noexcept:
        """Ends the call with the message in `segments`."""
        cdef Reply reply
        cdef VersionEntry entry = <VersionEntry> request.version
        self.count(request, STATUS_OK)
        if entry.c.tapped and request.fallback == FALLBACK_NONE:
            tell_taps(entry, request, self.segments, n_segments)
        memset(&reply, 0, sizeof(reply))
        reply.code = STATUS_OK
        reply.n_segments = n_segments
        reply.segments = self.segments
        reply.pushback_ms = -1
        reply.id = <const uint8_t *> at(request.id_offset)
        reply.id_bytes = request.id_bytes
        reply.variant = variant_of(request)
        reply.final = request.final_asked
        (<ResponseSink> request.sink).finish(request.call, &reply)
        request.sink = NULL
        self.retire(request)

    cdef void send_kept(self, Request *request, Block *block) noexcept:
        cdef Span identity = id_of(request)
        cdef int n = encode_kept(self.segments, <VersionEntry> request.version, &request.outputs, block,
                                 block_data(block), block.size_bytes, &identity, request.fallback, request.arm)
        if n > 0:
            self.send(request, n)
            return
        self.answer(request, self.say_no_reply(request), -1)
