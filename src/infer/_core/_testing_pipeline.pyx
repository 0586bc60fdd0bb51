"""The pipeline between puppets: a transport that opens, submits and cancels, a sink that notes what comes back, and
executors that take, run and publish when they are told to; not in wheels.

A call is a number of the test's. All on one thread, which is the pipeline's loop thread; a pool whose threads run as
usual may stand behind it instead of PuppetExecutors.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from infer._core.arena cimport offset_of
from infer._core.batch cimport Batch, batch_emergency, batch_new, batch_run
from infer._core.batcher cimport Taken, complete_batch, take_batch
from infer._core.block cimport Block, block_data, block_new, block_unref
from infer._core.capi.atomics cimport load_acquire_i32
from infer._core.clock cimport now_ns
from infer._core.executor cimport TAKE_LIMIT, Executor, ExecutorPool
from infer._core.grpc_message cimport PREFIX_BYTES, write_prefix
from infer._core.ort_watch cimport watch_begin, watch_end
from infer._core.pipeline cimport Pipeline
from infer._core.reply cimport COPIED_REPLY_BYTES as C_COPIED_REPLY_BYTES
from infer._core.quota cimport Tenant
from infer._core.request cimport Reply, Request, ResponseSink, Segment
from infer._core.ring cimport ring_push, waker_notify
from infer._core.split cimport key_hash
from infer._core.tensor cimport DEFERRED_BYTES as C_DEFERRED_BYTES

COPIED_REPLY_BYTES = C_COPIED_REPLY_BYTES
DEFERRED_BYTES = C_DEFERRED_BYTES


cdef class Outcome:
    """What `finish` said about a call. Its Blocks stay referenced until `data` is asked for or it is dropped."""
    cdef readonly int call
    cdef readonly int code
    cdef readonly str message
    cdef readonly int64_t pushback_ms
    cdef readonly int segments
    cdef readonly bytes variant  # None: none
    cdef Segment *parts
    cdef bytes joined

    def __cinit__(self):
        self.parts = NULL
        self.segments = 0

    def __dealloc__(self):
        self.release()

    cdef void release(self) noexcept:
        cdef int i
        if self.parts != NULL:
            for i in range(self.segments):
                block_unref(self.parts[i].block)
            free(self.parts)
            self.parts = NULL

    @property
    def data(self) -> bytes:
        """The reply with its 5-byte prefix; gives the Blocks back."""
        cdef int i
        if self.parts != NULL:
            self.joined = b"".join([
                PyBytes_FromStringAndSize(<const char *> self.parts[i].data, <Py_ssize_t> self.parts[i].size_bytes)
                for i in range(self.segments)])
            self.release()
        return self.joined

    def __repr__(self):
        return f"<Outcome of call {self.call}: {self.code} {self.message!r}>"


cdef class PuppetSink(ResponseSink):
    cdef dict calls              # number -> address of its Request, while the transport may use it
    cdef readonly list outcomes
    cdef public object on_finish  # called with each Outcome
    cdef object error

    def __cinit__(self):
        self.calls = {}
        self.outcomes = []
        self.on_finish = None
        self.error = None

    cdef void finish(self, void *call, Reply *reply) noexcept:
        cdef Outcome outcome = Outcome.__new__(Outcome)
        try:
            outcome.call = <int> <size_t> call
            outcome.code = reply.code
            outcome.pushback_ms = reply.pushback_ms
            outcome.message = reply.message[:reply.message_bytes].decode() if reply.code else ""
            outcome.joined = b""
            outcome.variant = <bytes> reply.variant if reply.variant != NULL else None
            if reply.code == 0 and reply.n_segments > 0:
                outcome.parts = <Segment *> malloc(reply.n_segments * sizeof(Segment))
                memcpy(outcome.parts, reply.segments, reply.n_segments * sizeof(Segment))
                outcome.segments = reply.n_segments
            # None for a call that was refused while it was opened.
            self.calls.pop(outcome.call, None)
            self.outcomes.append(outcome)
            if self.on_finish is not None:
                self.on_finish(outcome)
        except BaseException as error:
            self.error = error


cdef class Watch:
    """Looks at a Request, which must not be freed yet."""
    cdef Request *request

    @property
    def state(self) -> int:
        return self.request.state

    @property
    def deferred(self) -> bool:
        return self.request.deferred != 0

    @property
    def timed(self) -> bool:
        return self.request.timer.next != NULL


cdef class PuppetTransport:
    cdef Pipeline pipeline
    cdef PuppetSink sink

    def __cinit__(self, Pipeline pipeline not None):
        self.pipeline = pipeline
        self.sink = PuppetSink()

    @property
    def outcomes(self) -> list:
        return self.sink.outcomes

    @property
    def on_finish(self):
        return self.sink.on_finish

    @on_finish.setter
    def on_finish(self, callback):
        self.sink.on_finish = callback

    @property
    def open_calls(self) -> list:
        """Calls that were opened and neither finished nor cancelled."""
        return list(self.sink.calls)

    def is_open(self, call: int) -> bool:
        return call in self.sink.calls

    cdef int raise_error(self) except -1:
        error = self.sink.error
        self.sink.error = None
        if error is not None:
            raise error
        return 0

    cdef Request *request_of(self, call: int) except NULL:
        return <Request *> <size_t> self.sink.calls[call]

    def open(self, call: int, deadline_ns: int = 0, routing_key: bytes = b"") -> bool:
        """False: the call was refused at once."""
        cdef Request *request = self.pipeline.open(self.sink, <void *> <size_t> call, now_ns(), deadline_ns)
        self.raise_error()
        if request == NULL:
            return False
        self.sink.calls[call] = <size_t> request
        if routing_key:
            request.key.routing = key_hash(<const uint8_t *> <const char *> routing_key, <uint64_t> len(routing_key))
        return True

    def identify(self, call: int, name: bytes, source: int = 0) -> bool:
        """False: the call was refused at once."""
        cdef bint going_on
        going_on = self.pipeline.identify(self.request_of(call), <const uint8_t *> <const char *> name,
                                          <uint64_t> len(name), source)
        self.raise_error()
        return going_on

    def tenant(self, call: int) -> tuple[int, int, bytes] | None:
        """(id, weight, name) of an open call's tenant, None where it has none."""
        cdef Tenant *tenant = <Tenant *> self.request_of(call).tenant
        return None if tenant == NULL else (
            tenant.id, tenant.weight, (<const char *> tenant.name)[:tenant.name_bytes])

    def watch(self, call: int) -> Watch:
        cdef Watch watch = Watch.__new__(Watch)
        watch.request = self.request_of(call)
        return watch

    def submit(self, call: int, message: bytes, lead: int = 0) -> None:
        """The message has come, behind `lead` other bytes and its prefix. Raises MemoryError where the arena has no
        room for it."""
        cdef uint64_t prefix = lead
        cdef uint64_t start = prefix + PREFIX_BYTES
        cdef uint64_t size = len(message)
        cdef Request *request = self.request_of(call)
        cdef Block *body = block_new(start + size)
        if body == NULL:
            raise MemoryError
        write_prefix(block_data(body) + prefix, <uint32_t> size)
        memcpy(block_data(body) + start, PyBytes_AS_STRING(message), size)
        body.size_bytes = start + size
        self.pipeline.submit(request, body, start, size)
        self.raise_error()

    def cancel(self, call: int) -> None:
        cdef Request *request = self.request_of(call)
        del self.sink.calls[call]
        self.pipeline.cancel(request)
        self.raise_error()

    def kick(self) -> None:
        self.pipeline.kick()


cdef class PuppetExecutor:
    """Executor `index` of a pool whose threads were not started: what its thread would do, a step at a time."""
    cdef ExecutorPool pool
    cdef Executor *executor
    cdef Request *requests[TAKE_LIMIT]
    cdef Batch *batch
    cdef int count
    cdef Taken of_batch

    def __cinit__(self, ExecutorPool pool not None, index: int = 0):
        if not 0 <= index < pool.count:
            raise IndexError(index)
        self.pool = pool
        self.executor = &pool.executors[index]
        self.batch = NULL
        self.count = 0

    @property
    def held_up(self) -> bool:
        """Its emergency batch has not come back."""
        return load_acquire_i32(&self.executor.scratch.emergency.lent) != 0

    @property
    def calls(self) -> list[int]:
        """Those in the batch that it holds, by their numbers."""
        return [<size_t> self.requests[i].call for i in range(self.count)]

    @property
    def taken_rows(self) -> int:
        return self.of_batch.rows if self.count else 0

    @property
    def taken(self) -> int:
        """Requests of the batch that it holds."""
        return self.count

    def take(self) -> int:
        """Takes a batch where one can close now; how many requests are in it."""
        if self.count:
            raise RuntimeError("it holds a batch already")
        if not self.held_up:
            self.count = take_batch(&self.pool.batcher, self.requests, TAKE_LIMIT, &self.of_batch, False)
        return self.count

    def run(self, took_ns: int = 0) -> None:
        """`took_ns`: by a stopped clock, the batch was taken so long ago and ran until now."""
        if self.count == 0 or self.batch != NULL:
            raise RuntimeError("nothing to run")
        with nogil:
            self.batch = batch_new(self.requests, self.count, self.of_batch.rows)
            if self.batch == NULL:
                self.batch = batch_emergency(&self.executor.scratch, self.requests, self.count, self.of_batch.rows)
            else:
                batch_run(self.batch, &self.executor.scratch)
        self.batch.taken_ns -= took_ns
        self.batch.gathered_ns -= took_ns

    def begin(self) -> None:
        """It is inside a run from now on, as far as the loop can see."""
        self.batch = batch_new(self.requests, self.count, self.of_batch.rows)
        watch_begin(&self.executor.scratch.watch, self.batch)

    def end(self) -> None:
        """The run of `begin` returns; one that nobody stopped is made now."""
        self.batch.stopped = watch_end(&self.executor.scratch.watch)
        with nogil:
            batch_run(self.batch, &self.executor.scratch)

    def publish(self) -> None:
        if self.batch == NULL:
            raise RuntimeError("nothing was run")
        complete_batch(&self.pool.batcher, self.batch.version, &self.of_batch)
        if not ring_push(&self.executor.ring, offset_of(self.batch)):
            raise RuntimeError("its ring is full")
        waker_notify(&self.pool.waker)
        self.batch = NULL
        self.count = 0

    def step(self) -> int:
        """Takes, runs and publishes one batch; how many requests were in it."""
        cdef int count = self.take()
        if count:
            self.run()
            self.publish()
        return count


def run_begun(ExecutorPool pool not None, index: int) -> bool:
    """Whether its thread is inside a run."""
    return pool.executors[index].scratch.watch.batch != NULL


def sleepers(ExecutorPool pool not None) -> tuple[int, int]:
    """Executors asleep without and with a wake-up on its way."""
    return pool.batcher.idle, pool.batcher.signals
