"""Executor threads: take a batch, run it, publish it. They never want the GIL.

Each has its own completion ring; the loop drains them all when the eventfd wakes it.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t

from infer._core.batch cimport Batch, Scratch
from infer._core.batcher cimport Batcher
from infer._core.capi.pthread cimport pthread_cond_t, pthread_mutex_t, pthread_t
from infer._core.ring cimport Ring, Waker

cdef enum:
    TAKE_LIMIT = 1024            # requests in one batch
    RING_CAPACITY = 1024         # finished batches that the loop has not seen
    STUCK_NS = 1000000000        # a run that was told to end and is still there after so long may never end
    LOOP_FIRST_NS = 100000000    # after a refusal: longer than any batch should take

# Executors that wait for the loop: to empty their ring, to give their emergency batch back, or to have its turn.
cdef struct Drain:
    pthread_mutex_t mutex
    pthread_cond_t drained
    int32_t waiting
    int32_t stopping
    int32_t loop_first           # 1: the executors that share the loop's core wait for its turn after each batch
    int32_t turns                # of the loop that ended after it had taken batches; wraps

cdef struct Executor:
    Ring ring
    Scratch scratch
    Batcher *batcher
    Waker *waker
    Drain *drain
    pthread_t thread
    int32_t index
    int32_t started
    int32_t shares_core          # 1: with the loop
    int32_t turn                 # `turns` before its last batch was published
    int32_t gives_way            # 1: it waits for a later turn, while the loop goes first


@cython.final
cdef class ExecutorPool:
    cdef Batcher batcher
    cdef Waker waker
    cdef Drain drain
    cdef Executor *executors
    cdef readonly int count
    cdef int turn                          # whose ring is looked at first
    cdef int64_t refused_ns                # when the loop last said that it is to go first
    cdef bint running
    cdef void join(self) noexcept
    cdef void relieve(self) noexcept
    # More comes than can be run: what the kernel has for the loop is read before the next batch begins. Loop thread.
    cdef void go_first(self, int64_t now) noexcept
    # Whether a turn that took batches has to end with `end_turn`.
    cdef bint goes_first(self) noexcept
    # What could be read has been read. Loop thread.
    cdef void end_turn(self, int64_t now) noexcept
    # The next finished batch of any executor, or NULL. Loop thread; to be called once more after the last batch was
    # freed.
    cdef Batch *take_finished(self) noexcept
    # Looks at the run of one executor: tells it to end where it has taken longer than its version's may, and returns
    # its batch then, for the loop, which alone frees it, to answer. Once more, with `stuck`, STUCK_NS later. Else NULL.
    # `next_ns` becomes earlier where it has to be looked at before. Loop thread.
    cdef Batch *stop_overdue(self, int index, int64_t now, int64_t *next_ns, bint *stuck) noexcept
