"""Executor threads: take a batch, run it, publish it. They never want the GIL.

Each has its own completion ring; the loop drains them all when the eventfd wakes it.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

from infer._core.batch cimport Batch, Scratch
from infer._core.batcher cimport Batcher
from infer._core.ring cimport Ring, Waker

cdef enum:
    TAKE_LIMIT = 1024            # requests in one batch
    RING_CAPACITY = 1024         # finished batches that the loop has not seen

cdef struct Executor:
    Ring ring
    Scratch scratch
    Batcher *batcher
    Waker *waker
    void *thread                 # pthread_t
    int32_t index
    int32_t started

cdef class ExecutorPool:
    cdef Batcher batcher
    cdef Waker waker
    cdef Executor *executors
    cdef readonly int count
    cdef bint running
    # The next finished batch of any executor, or NULL.
    cdef Batch *take_finished(self) noexcept
