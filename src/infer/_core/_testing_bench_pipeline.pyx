"""Loops over requests, batcher, router and pipeline for bench/micro; not in wheels.

Each returns the nanoseconds it took.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from infer._core.arena cimport offset_of
from infer._core.batch cimport Batch, batch_new, batch_run
from infer._core.batcher cimport (
    Batcher, Taken, batcher_free, batcher_init, complete_batch, kick, put, remove_queued, take_batch)
from infer._core.block cimport Block, block_data, block_new, block_unref
from infer._core.clock cimport now_ns
from infer._core.executor cimport TAKE_LIMIT, Executor, ExecutorPool
from infer._core.model_version cimport Version
from infer._core.pipeline cimport Pipeline
from infer._core.queue_order cimport VersionQueue, queue_free, queue_new
from infer._core.request cimport (
    QUEUED, RECEIVING, Reply, Request, ResponseSink, request_free, request_new, request_reserve_views, try_transition)
from infer._core.ring cimport ring_push, waker_notify
from infer._core.router cimport ModelSlot, RouteTable
from infer._core.span cimport Span, span_over
from infer._core.tensor cimport ErrorText
from infer._core.tensor_view cimport TYPE_FP32

cdef enum:
    HELD = 1024


def request_pairs(rounds: int, views: int) -> int:
    """request_new, request_reserve_views, request_free."""
    cdef int64_t left = rounds
    cdef int count = views
    cdef Request *request
    cdef int64_t start = now_ns()
    with nogil:
        while left > 0:
            request = request_new()
            request_reserve_views(request, count)
            request_free(request)
            left -= 1
    return now_ns() - start


def transitions(rounds: int) -> int:
    """try_transition along the table."""
    cdef int64_t left = rounds
    cdef Request *request = request_new()
    cdef int64_t start = now_ns()
    with nogil:
        while left > 0:
            try_transition(request, RECEIVING, QUEUED)
            request.state = RECEIVING
            left -= 1
        request_free(request)
    return now_ns() - start


cdef class QueueBench:
    """A batcher with `HELD` requests and `versions` queues, one thread."""
    cdef Batcher batcher
    cdef Version *versions
    cdef int n_versions
    cdef Request *requests[HELD]

    def __cinit__(self, gather_rows: int, versions: int = 1, shapes: int = 1):
        cdef int i
        cdef int n_shapes = shapes
        self.n_versions = versions
        self.versions = <Version *> calloc(versions, sizeof(Version))
        if self.versions == NULL or batcher_init(&self.batcher, 1, False) != 0:
            raise MemoryError
        for i in range(self.n_versions):
            self.versions[i].signature.batched = 1
            self.versions[i].gather_rows = gather_rows
            self.versions[i].max_running = 1
            self.versions[i].weight = 1
            self.versions[i].queue = queue_new(&self.versions[i])
        for i in range(HELD):
            self.requests[i] = request_new()
            self.requests[i].rows = 1
            self.requests[i].n_views = 1
            self.requests[i].views[0].data_type = TYPE_FP32
            self.requests[i].views[0].rank = 2
            self.requests[i].views[0].shape[0] = 1
            self.requests[i].views[0].shape[1] = i % n_shapes
            self.requests[i].key.shape = <uint64_t> (i % n_shapes)
            self.requests[i].version = &self.versions[i % self.n_versions]

    def __dealloc__(self):
        cdef int i
        for i in range(HELD):
            request_free(self.requests[i])
        for i in range(self.n_versions):
            queue_free(<VersionQueue *> self.versions[i].queue)
        free(self.versions)
        batcher_free(&self.batcher)

    def cycles(self, rounds: int) -> int:
        """put, kick, take_batch, complete_batch, `HELD` requests at a time."""
        cdef Request *requests[TAKE_LIMIT]
        cdef Taken taken
        cdef int64_t left = rounds
        cdef int64_t start = now_ns()
        cdef int i, count
        with nogil:
            while left > 0:
                for i in range(HELD):
                    self.requests[i].state = RECEIVING
                    put(&self.batcher, self.requests[i], self.queue_of(i), start)
                kick(&self.batcher)
                count = take_batch(&self.batcher, requests, TAKE_LIMIT, &taken, False)
                while count > 0:
                    complete_batch(&self.batcher, <Version *> requests[0].version, &taken)
                    count = take_batch(&self.batcher, requests, TAKE_LIMIT, &taken, False)
                left -= HELD
        return now_ns() - start

    def removals(self, rounds: int) -> int:
        """put, remove_queued in order of arrival, `HELD` requests at a time."""
        cdef int64_t left = rounds
        cdef int64_t start = now_ns()
        cdef int i
        with nogil:
            while left > 0:
                for i in range(HELD):
                    self.requests[i].state = RECEIVING
                    put(&self.batcher, self.requests[i], self.queue_of(i), start)
                for i in range(HELD):
                    remove_queued(&self.batcher, self.requests[i])
                left -= HELD
        return now_ns() - start

    cdef VersionQueue *queue_of(self, int i) noexcept nogil:
        return <VersionQueue *> (<Version *> self.requests[i].version).queue


def lookups(rounds: int, RouteTable table not None, bytes name not None, bytes version not None) -> int:
    cdef int64_t left = rounds
    cdef Span name_span = span_over(<const uint8_t *> <const char *> name, len(name))
    cdef Span version_span = span_over(<const uint8_t *> <const char *> version, len(version))
    cdef ErrorText error
    cdef const ModelSlot *model
    cdef int code
    cdef int64_t start = now_ns()
    while left > 0:
        error.size_bytes = 0
        table.route(&name_span, &version_span, &model, &code, &error)
        left -= 1
    return now_ns() - start


cdef class CountingSink(ResponseSink):
    cdef int64_t ok
    cdef int64_t failed

    cdef void finish(self, void *call, Reply *reply) noexcept:
        cdef int i
        for i in range(reply.n_segments):
            block_unref(reply.segments[i].block)
        if reply.code == 0:
            self.ok += 1
        else:
            self.failed += 1


def calls(rounds: int, Pipeline pipeline not None, ExecutorPool pool not None, bytes message not None, batch: int,
          deadline_ns: int = 0) -> int:
    """open, submit, kick; take, run, publish by the first executor of a pool that was not started; complete. `batch`
    calls at a time."""
    cdef Executor *executor = &pool.executors[0]
    cdef CountingSink sink = CountingSink()
    cdef Request *requests[TAKE_LIMIT]
    cdef Request *request
    cdef Block *body
    cdef int64_t left = rounds
    cdef int64_t deadline = deadline_ns
    cdef Taken taken
    cdef uint64_t size = len(message)
    cdef const char *data = message
    cdef int together = batch
    cdef int _i, count
    cdef int64_t start = now_ns()
    while left > 0:
        for _i in range(together):
            body = block_new(size)
            memcpy(block_data(body), data, size)
            body.size_bytes = size
            request = pipeline.open(sink, NULL, start, deadline)
            pipeline.submit(request, body, 0, size)
        pipeline.kick()
        with nogil:
            count = take_batch(&pool.batcher, requests, TAKE_LIMIT, &taken, False)
            while count > 0:
                finish(executor, requests, count, &taken)
                count = take_batch(&pool.batcher, requests, TAKE_LIMIT, &taken, False)
        pipeline.on_wake()
        left -= together
    start = now_ns() - start
    if sink.failed or sink.ok < rounds:
        raise RuntimeError(f"{sink.failed} calls failed, {sink.ok} succeeded")
    return start


cdef void finish(Executor *executor, Request **requests, int count, const Taken *taken) noexcept nogil:
    cdef Batch *batch = batch_new(requests, count, taken.rows)
    batch_run(batch, &executor.scratch)
    complete_batch(executor.batcher, batch.version, taken)
    ring_push(&executor.ring, offset_of(batch))
    waker_notify(executor.waker)
