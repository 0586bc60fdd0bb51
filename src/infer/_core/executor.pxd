"""Executor threads: take a batch, run it, publish it. They never want the GIL.

Each has its own completion ring; the loop drains them all when the eventfd wakes it.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t

from infer._core.batch cimport Batch, Scratch
from infer._core.batcher cimport Batcher
from infer._core.capi.pthread cimport pthread_cond_t, pthread_mutex_t, pthread_t
from infer._core.ring cimport Ring, Waker

cdef enum:
    TAKE_LIMIT = 1024            # requests in one batch
    RING_CAPACITY = 1024         # finished batches that the loop has not seen
    STUCK_NS = 1000000000        # a run that was told to end and is still there after so long may never end

# Executors that wait for the loop: to empty their ring, or to give their emergency batch back.
cdef struct Drain:
    pthread_mutex_t mutex
    pthread_cond_t drained
    int32_t waiting
    int32_t stopping

cdef struct Executor:
    Ring ring
    Scratch scratch
    Batcher *batcher
    Waker *waker
    Drain *drain
    pthread_t thread
    int32_t index
    int32_t started


@cython.final
cdef class ExecutorPool:
    cdef Batcher batcher
    cdef Waker waker
    cdef Drain drain
    cdef Executor *executors
    cdef readonly int count
    cdef int turn                          # whose ring is looked at first
    cdef bint running
    cdef void join(self) noexcept
    cdef void relieve(self) noexcept
    # The next finished batch of any executor, or NULL. Loop thread; to be called once more after the last batch was
    # freed.
    cdef Batch *take_finished(self) noexcept
    # Looks at the run of one executor: tells it to end where it has taken longer than its version's may, and returns
    # its batch then, for the loop, which alone frees it, to answer. Once more, with `stuck`, STUCK_NS later. Else NULL.
    # `next_ns` becomes earlier where it has to be looked at before. Loop thread.
    cdef Batch *stop_overdue(self, int index, int64_t now, int64_t *next_ns, bint *stuck) noexcept
