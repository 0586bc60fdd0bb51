"""The executor threads and their pool.

The pool owns the threads, their rings and buffers; the loop thread makes, starts, drains and stops it. A thread touches
only its own Executor, the batcher, and what its batches hold. Signals are blocked in it, so Python's handlers run on
the main thread.

Design note. Three things can hold an executor up on the way to the loop: a ring that the loop has not drained; with the
arena full, an emergency batch that it has not given back; and, while more comes than can be run, the loop's turn. For
each the executor counts itself as waiting and looks again before it sleeps; the loop gives room and then looks for
waiters, with a full fence between on both sides, so one of the two always sees the other.

The loop's turn: where executors take what the loop needs of a core, calls that it has not read yet grow old in the
kernel, where no deadline is judged, and all that is answered is too late. So while calls are being refused, executors
that share its core begin no batch before a turn of the loop has ended that took the one before. `turns` is read before
a batch is published, so that the turn which takes it is a later one.
"""

cimport cython
from libc.stdint cimport INT64_MAX, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from infer._core.arena cimport at, offset_of
from infer._core.batch cimport (
    batch_emergency, batch_free, batch_new, batch_run, scratch_clear, scratch_free, scratch_init)
from infer._core.batcher cimport Taken, batcher_free, batcher_init, batcher_stop, complete_batch, take_batch
from infer._core.capi.atomics cimport add_i32, fence, load_acquire_i32, store_release_i32, store_seq_cst_i32
from infer._core.capi.pthread cimport (
    SIG_SETMASK, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait, pthread_create,
    pthread_join, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
    pthread_setname_np, pthread_sigmask, sigfillset, sigset_t)
from infer._core.clock cimport now_ns
from infer._core.debug cimport require
from infer._core.ort_watch cimport RunWatch, watch_stop
from infer._core.request cimport Request
from infer._core.ring cimport (
    ring_close, ring_open, ring_push, ring_size, ring_take, waker_close, waker_notify, waker_open)

cdef enum:
    NAME_BYTES = 24


cdef bint held_up(Executor *executor) noexcept nogil:
    if ring_size(&executor.ring) >= RING_CAPACITY or load_acquire_i32(&executor.scratch.emergency.lent) != 0:
        return True
    return (executor.gives_way != 0 and load_acquire_i32(&executor.drain.loop_first) != 0
            and load_acquire_i32(&executor.drain.turns) == executor.turn)


cdef void wait_for_loop(Executor *executor) noexcept nogil:
    """Sleeps until the ring has room and the emergency batch is back, or the pool stops."""
    cdef Drain *drain = executor.drain
    if not held_up(executor):
        return
    pthread_mutex_lock(&drain.mutex)
    add_i32(&drain.waiting, 1)
    fence()
    while held_up(executor) and not load_acquire_i32(&drain.stopping):
        pthread_cond_wait(&drain.drained, &drain.mutex)
    add_i32(&drain.waiting, -1)
    pthread_mutex_unlock(&drain.mutex)


cdef void publish(Executor *executor, Batch *batch, const Taken *taken) noexcept nogil:
    # The version may be gone as soon as the loop has seen the batch.
    complete_batch(executor.batcher, batch.version, taken)
    executor.turn = load_acquire_i32(&executor.drain.turns)
    executor.gives_way = executor.shares_core
    if not ring_push(&executor.ring, offset_of(batch)):
        require(False, b"executor: its ring was full")
    waker_notify(executor.waker)


cdef void *execute(void *argument) noexcept nogil:
    cdef Executor *executor = <Executor *> argument
    cdef Request *requests[TAKE_LIMIT]
    cdef Batch *batch
    cdef Taken taken
    cdef int count
    while True:
        wait_for_loop(executor)
        if held_up(executor):
            break
        executor.gives_way = 0
        count = take_batch(executor.batcher, requests, TAKE_LIMIT, &taken, True)
        if count == 0:
            break
        batch = batch_new(requests, count, taken.rows)
        if batch == NULL:
            batch = batch_emergency(&executor.scratch, requests, count, taken.rows)
        else:
            batch_run(batch, &executor.scratch)
        publish(executor, batch, &taken)
    return NULL


@cython.final
cdef class ExecutorPool:
    """`count` executors over one batcher, on cores that run `parallel` batches at once (0: as many). The loop watches
    `eventfd` and takes finished batches when it is readable."""

    def __cinit__(self, int count, int parallel=0):
        cdef int i
        memset(&self.batcher, 0, sizeof(self.batcher))
        memset(&self.drain, 0, sizeof(self.drain))
        self.waker.eventfd = -1
        self.executors = NULL
        self.running = False
        self.count = 0
        if count < 1:
            raise ValueError(f"a pool needs at least one executor, got {count}")
        if not 0 <= parallel <= count:
            raise ValueError(f"of {count} executors at most as many run in parallel, got {parallel}")
        pthread_mutex_init(&self.drain.mutex, NULL)
        pthread_cond_init(&self.drain.drained, NULL)
        if waker_open(&self.waker) != 0:
            raise OSError("no eventfd for the executors")
        self.executors = <Executor *> calloc(<size_t> count, sizeof(Executor))
        if self.executors == NULL or batcher_init(&self.batcher, parallel or count, 0 < parallel < count) != 0:
            raise MemoryError("no memory for the executors")
        self.count = count
        for i in range(count):
            self.executors[i].index = i
            self.executors[i].batcher = &self.batcher
            self.executors[i].waker = &self.waker
            self.executors[i].drain = &self.drain
            self.executors[i].shares_core = i <= count - (parallel or count)
            if scratch_init(&self.executors[i].scratch) != 0 or ring_open(&self.executors[i].ring, RING_CAPACITY) != 0:
                raise MemoryError("no memory for the executors")

    def __dealloc__(self):
        cdef Batch *batch
        cdef int i
        self.join()
        if self.executors != NULL:
            batch = self.take_finished()
            while batch != NULL:
                batch_free(batch)
                batch = self.take_finished()
            for i in range(self.count):
                ring_close(&self.executors[i].ring)
                scratch_free(&self.executors[i].scratch)
            free(self.executors)
        batcher_free(&self.batcher)
        waker_close(&self.waker)
        pthread_cond_destroy(&self.drain.drained)
        pthread_mutex_destroy(&self.drain.mutex)

    @property
    def eventfd(self):
        """Readable when a batch has finished while the loop slept; belongs to the pool."""
        return self.waker.eventfd

    @property
    def busy(self):
        """Threads that do not sleep, as far as the loop has seen."""
        cdef int asleep = self.batcher.idle
        return self.count - asleep if self.running and asleep < self.count else 0

    def start(self):
        """Starts the threads, named infer-exec-N."""
        cdef sigset_t every, before
        cdef char name[NAME_BYTES]
        cdef int failed = 0
        cdef int i
        if self.running:
            raise RuntimeError("the executors run already")
        self.running = True
        sigfillset(&every)
        pthread_sigmask(SIG_SETMASK, &every, &before)
        for i in range(self.count):
            failed = pthread_create(&self.executors[i].thread, NULL, execute, &self.executors[i])
            if failed:
                break
            self.executors[i].started = 1
            snprintf(name, NAME_BYTES, b"infer-exec-%d", i)
            pthread_setname_np(self.executors[i].thread, name)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if failed:
            self.join()
            raise OSError(failed, f"cannot start executor thread {i + 1} of {self.count}")

    def stop(self):
        """Ends the threads once their queues are empty and waits. Batches that they finished can still be taken."""
        self.join()

    cdef void join(self) noexcept:
        cdef int i
        if not self.running:
            return
        with nogil:
            batcher_stop(&self.batcher)
            pthread_mutex_lock(&self.drain.mutex)
            store_seq_cst_i32(&self.drain.stopping, 1)
            store_seq_cst_i32(&self.drain.loop_first, 0)
            pthread_cond_broadcast(&self.drain.drained)
            pthread_mutex_unlock(&self.drain.mutex)
            for i in range(self.count):
                if self.executors[i].started:
                    pthread_join(self.executors[i].thread, NULL)
                    self.executors[i].started = 0
                    scratch_clear(&self.executors[i].scratch)
        self.running = False

    @property
    def stuck(self):
        """Executors whose run was told to end and has not ended yet. Any thread."""
        cdef int i
        return sum([self.executors[i].scratch.watch.stopped_ns != 0 for i in range(self.count)])

    def interrupt(self):
        """Tells the runs under way to end; what they would have answered is nobody's any more."""
        cdef RunWatch *watch
        cdef int i
        for i in range(self.count):
            watch = &self.executors[i].scratch.watch
            pthread_mutex_lock(&watch.mutex)
            if watch.batch != NULL and watch.stopped_ns == 0:
                watch_stop(watch, now_ns())
            pthread_mutex_unlock(&watch.mutex)

    cdef Batch *stop_overdue(self, int index, int64_t now, int64_t *next_ns, bint *stuck) noexcept:
        cdef RunWatch *watch = &self.executors[index].scratch.watch
        cdef Batch *batch
        cdef int64_t due_ns = INT64_MAX
        pthread_mutex_lock(&watch.mutex)
        batch = <Batch *> watch.batch
        stuck[0] = watch.stopped_ns != 0
        if batch != NULL and stuck[0] and not watch.told:
            due_ns = watch.stopped_ns + STUCK_NS
            watch.told = due_ns <= now
        elif batch != NULL and not stuck[0] and batch.version.run_timeout_ns > 0:
            due_ns = watch.begun_ns + batch.version.run_timeout_ns
            if due_ns <= now:
                watch_stop(watch, now)
                next_ns[0] = min(next_ns[0], now + STUCK_NS)
        pthread_mutex_unlock(&watch.mutex)
        if due_ns <= now:
            return batch
        next_ns[0] = min(next_ns[0], due_ns)
        return NULL

    cdef Batch *take_finished(self) noexcept:
        cdef uint64_t offset
        cdef int _i
        for _i in range(self.count):
            self.turn = self.turn + 1 if self.turn + 1 < self.count else 0
            if ring_take(&self.executors[self.turn].ring, &offset):
                self.relieve()
                return <Batch *> at(offset)
        self.relieve()
        return NULL

    cdef void relieve(self) noexcept:
        """Wakes executors that wait for the loop: it has just taken from a ring, or freed a batch before this call."""
        fence()
        if load_acquire_i32(&self.drain.waiting):
            pthread_mutex_lock(&self.drain.mutex)
            pthread_cond_broadcast(&self.drain.drained)
            pthread_mutex_unlock(&self.drain.mutex)

    cdef void go_first(self, int64_t now) noexcept:
        self.refused_ns = now
        store_release_i32(&self.drain.loop_first, 1)

    cdef bint goes_first(self) noexcept:
        return self.drain.loop_first != 0

    cdef void end_turn(self, int64_t now) noexcept:
        add_i32(&self.drain.turns, 1)
        if now - self.refused_ns > LOOP_FIRST_NS:
            store_seq_cst_i32(&self.drain.loop_first, 0)
        self.relieve()
