"""Batches and executors as a test drives them; not in wheels.

A Call is a Request made by hand: it owns it and keeps its version alive. `run_batch` makes and runs a batch on the
calling thread; a PuppetLoop stands where the event loop stands: it puts calls, kicks, and takes what the pool has
finished.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int16_t, int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

from infer._core.arena cimport at, offset_of
from infer._core.batch cimport (
    Batch, BatchItem, ItemOutput, Scratch, batch_emergency, batch_free, batch_new, batch_run, scratch_clear,
    scratch_free, scratch_init)
from infer._core.batcher cimport kick, put, remove_queued
from infer._core.block cimport Block, block_data, block_new
from infer._core.capi.atomics cimport load_acquire_i32
from infer._core.clock cimport now_ns
from infer._core.executor cimport ExecutorPool
from infer._core.model_version cimport VersionEntry, drop_handle, take_handle
from infer._core.queue_order cimport VersionQueue, queue_free, queue_new
from infer._core.request cimport (
    ANSWERED, DONE, QUEUED, RECEIVING, RUNNING, Request, request_free, request_new, request_reserve_views,
    try_transition)
from infer._core.ring cimport waker_acknowledge, waker_arm
from infer._core.span cimport Span, span_over
from infer._core.status cimport STATUS_OK
from infer._core.tensor_text cimport data_type_name, data_type_of
from infer._core.tensor_view cimport FORM_RAW, FORM_TYPED, TYPE_NONE, TensorView, mask_add, mask_has

STATES = {RECEIVING: "receiving", QUEUED: "queued", RUNNING: "running", ANSWERED: "answered", DONE: "done"}


cdef class Call:
    """`inputs`: per model input (datatype, shape, raw) or None; `typed`: the same index to (delimited InferInputTensor,
    decoded size). `skew` shifts every tensor off its alignment. `outputs`: wanted indices, default all."""

    cdef Request *request
    cdef readonly VersionEntry entry
    cdef readonly object outcome           # (code, outputs or error text) once finished

    def __cinit__(self, VersionEntry entry not None, list inputs not None, *, int64_t rows=1, int skew=0, outputs=None,
                  typed=None):
        cdef uint64_t used = 0
        cdef uint64_t room = 0
        cdef int32_t i, k
        cdef Block *body
        cdef TensorView *view
        self.entry = entry
        self.outcome = None
        self.request = request_new()
        if self.request == NULL or not request_reserve_views(self.request, <int32_t> len(inputs)):
            raise MemoryError("no memory for a request")
        take_handle(entry)
        self.request.version = <void *> entry
        self.request.rows = rows
        for i in range(entry.c.signature.n_outputs) if outputs is None else outputs:
            if entry.c.signature.outputs[i].served:
                mask_add(&self.request.outputs, i)
        typed = typed or {}
        parts = [typed[i][0] if i in typed else b"" if inputs[i] is None else inputs[i][2] for i in range(len(inputs))]
        for part in parts:
            room += <uint64_t> len(part) + 64 + skew
        body = block_new(room)
        if body == NULL:
            raise MemoryError("no memory for a body")
        self.request.body = body
        for i in range(len(inputs)):
            view = &self.request.views[i]
            memset(view, 0, sizeof(TensorView))
            if inputs[i] is None:
                view.data_type = TYPE_NONE
                continue
            used = ((used + 63) & ~(<uint64_t> 63)) + skew
            datatype, shape, raw = inputs[i]
            raw = parts[i]
            memcpy(block_data(body) + used, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
            view.data = offset_of(block_data(body) + used)
            view.size_bytes = typed[i][1] if i in typed else <uint64_t> PyBytes_GET_SIZE(raw)
            view.form = FORM_TYPED if i in typed else FORM_RAW
            view.data_type = type_named(datatype)
            view.rank = <int16_t> len(shape)
            for k in range(view.rank):
                view.shape[k] = shape[k]
                if k > 0:
                    self.request.key.shape = self.request.key.shape * 31 + <uint64_t> view.shape[k]
            used += <uint64_t> PyBytes_GET_SIZE(raw)
        self.request.deferred = 1 if typed else 0

    def __dealloc__(self):
        if self.request != NULL:
            request_free(self.request)
            drop_handle(self.entry)

    @property
    def state(self):
        return STATES[self.request.state]

    def answer(self):
        """What a deadline or a cancellation does to a running request."""
        return try_transition(self.request, RUNNING, ANSWERED)


cdef int type_named(str name) except -1:
    cdef bytes encoded = name.encode()
    cdef Span span = span_over(<const unsigned char *> PyBytes_AS_STRING(encoded), <uint64_t> PyBytes_GET_SIZE(encoded))
    return data_type_of(&span)


cdef object outcome_of(Batch *batch, int32_t index):
    """(code, {output index: (datatype, shape, raw)}) or (code, error text) of one item."""
    cdef BatchItem *item = &batch.items[index]
    cdef Block *text
    cdef ItemOutput *part
    cdef TensorView *view
    cdef int32_t i, k
    if item.code != STATUS_OK:
        if item.request.error == 0:
            return item.code, ""
        text = <Block *> at(item.request.error)
        return item.code, PyBytes_FromStringAndSize(<char *> block_data(text), <Py_ssize_t> text.size_bytes).decode()
    outputs = {}
    for i in range(batch.n_outputs):
        if not mask_has(&item.request.outputs, i):
            continue
        view = &batch.runs[item.run].views[i]
        part = &batch.outputs[index * batch.n_outputs + i]
        shape = [view.shape[k] for k in range(view.rank)]
        if batch.version.signature.batched:
            shape[0] = item.request.rows
        outputs[i] = (data_type_name(view.data_type).decode(), tuple(shape),
                      PyBytes_FromStringAndSize(<char *> at(part.data), <Py_ssize_t> part.size_bytes))
    return item.code, outputs


cdef dict facts_of(Batch *batch):
    cdef int32_t i
    detail = b""
    if batch.detail != NULL:
        detail = PyBytes_FromStringAndSize(<char *> block_data(batch.detail), <Py_ssize_t> batch.detail.size_bytes)
    return {"runs": batch.n_runs, "run_of": [batch.items[i].run for i in range(batch.n_items)], "rows": batch.rows,
            "times": (batch.taken_ns, batch.gathered_ns, batch.ran_ns, batch.done_ns), "detail": detail.decode()}


cdef class Bench:
    """One executor's buffers, used by the calling thread."""

    cdef Scratch scratch

    def __cinit__(self):
        if scratch_init(&self.scratch) != 0:
            raise MemoryError("no memory for an executor's buffers")

    def __dealloc__(self):
        scratch_free(&self.scratch)

    def close(self):
        scratch_clear(&self.scratch)

    def run(self, list calls not None):
        """Runs the calls as one batch and answers them; returns facts about the batch."""
        cdef Request *requests[1024]
        cdef Batch *batch
        cdef int64_t rows = 0
        cdef int i
        for i in range(len(calls)):
            requests[i] = (<Call> calls[i]).request
            rows += requests[i].rows
        batch = batch_new(requests, <int> len(calls), rows)
        if batch == NULL:
            raise MemoryError("no memory for a batch")
        with nogil:
            batch_run(batch, &self.scratch)
        for i in range(batch.n_items):
            (<Call> calls[i]).outcome = outcome_of(batch, i)
        facts = facts_of(batch)
        batch_free(batch)
        return facts

    def emergency(self, list calls not None):
        """Answers the calls without memory; False while an earlier answer is still out. `release` gives it back."""
        cdef Request *requests[1024]
        cdef Batch *batch
        cdef int i
        for i in range(len(calls)):
            requests[i] = (<Call> calls[i]).request
        batch = batch_emergency(&self.scratch, requests, <int> len(calls), len(calls))
        if batch == NULL:
            return False
        for i in range(batch.n_items):
            (<Call> calls[i]).outcome = outcome_of(batch, i)
        return True

    def release(self):
        batch_free(self.scratch.emergency)

    def cycle_ns(self, list calls not None, int64_t rounds):
        """Mean time of making, running and freeing a batch of the calls."""
        cdef Request *requests[1024]
        cdef Batch *batch
        cdef int count = <int> len(calls)
        cdef int64_t rows = 0
        cdef int64_t begun, _i
        cdef int i
        for i in range(count):
            requests[i] = (<Call> calls[i]).request
            rows += requests[i].rows
        with nogil:
            begun = now_ns()
            for _i in range(rounds):
                batch = batch_new(requests, count, rows)
                batch_run(batch, &self.scratch)
                batch_free(batch)
        return (now_ns() - begun) / <double> rounds


def budget(VersionEntry entry not None):
    """(executor_ns, bisect_ns) of a version."""
    return entry.c.executor_ns, entry.c.bisect_ns


def set_budget(VersionEntry entry not None, int64_t executor_ns, int64_t bisect_ns):
    entry.c.executor_ns = executor_ns
    entry.c.bisect_ns = bisect_ns


cdef class PuppetLoop:
    """Puts calls into a pool's batcher and takes its batches; the caller waits for `pool.eventfd` between."""

    cdef readonly ExecutorPool pool
    cdef list entries
    cdef dict calls                        # by the address of their Request

    def __init__(self, ExecutorPool pool not None, list entries not None):
        cdef VersionEntry entry
        self.pool = pool
        self.entries = entries
        self.calls = {}
        for entry in entries:
            entry.c.queue = queue_new(&entry.c)

    def put(self, Call call not None):
        self.calls[<uint64_t> call.request] = call
        return put(&self.pool.batcher, call.request, <VersionQueue *> call.entry.c.queue, now_ns())

    def remove(self, Call call not None):
        removed = remove_queued(&self.pool.batcher, call.request)
        if removed:
            del self.calls[<uint64_t> call.request]
        return removed

    def kick(self):
        kick(&self.pool.batcher)

    def go_first(self):
        """More comes than can be run: executors that share the loop's core wait for `end_turn` after each batch."""
        self.pool.go_first(now_ns())

    def end_turn(self):
        self.pool.end_turn(now_ns())

    @property
    def goes_first(self):
        return self.pool.goes_first()

    @property
    def waiting(self):
        """Executors that wait for the loop."""
        return load_acquire_i32(&self.pool.drain.waiting)

    def on_wake(self):
        """Takes everything that is finished, answers its calls and arms the wake-up; returns facts per batch."""
        cdef Batch *batch
        cdef Request *request
        cdef bint armed = False
        cdef int32_t i
        finished = []
        waker_acknowledge(&self.pool.waker)
        while True:
            batch = self.pool.take_finished()
            if batch == NULL:
                if armed:
                    return finished
                waker_arm(&self.pool.waker)
                armed = True
                continue
            for i in range(batch.n_items):
                request = batch.items[i].request
                (<Call> self.calls.pop(<uint64_t> request)).outcome = outcome_of(batch, i)
                if not try_transition(request, RUNNING, DONE):
                    try_transition(request, ANSWERED, DONE)
            finished.append(facts_of(batch))
            batch_free(batch)

    def close(self):
        """Frees the queues; the pool has stopped."""
        cdef VersionEntry entry
        for entry in self.entries:
            queue_free(<VersionQueue *> entry.c.queue)
            entry.c.queue = NULL
        self.entries = []
