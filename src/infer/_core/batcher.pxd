"""A queue per version; put by the loop, taken by executors.

The loop thread is the only producer. One short mutex guards everything here; executors sleep on its condition variable
with a monotonic deadline. Versions with something to run stand in lists, so that taking costs the same however many
models there are. Requests in a queue belong to it until taken or removed.
"""

from libc.stdint cimport int32_t, int64_t

from infer._core.model_version cimport Version
from infer._core.queue_order cimport VersionQueue
from infer._core.request cimport Request

cdef enum ListKind:
    LIST_DELAYED = 0             # has rows that may wait for more
    LIST_FRESH = 1               # has credit, runs nowhere: first in line, so no version holds the last free executor
    LIST_BUSY = 2                # has credit, runs somewhere and may run once more
    LIST_SPENT = 3               # may run, but has had its part of the round (fair_share)
    LIST_SATURATED = 4           # has rows, and runs as many batches as it may
    LISTS = 5

cdef enum:
    HOLD_NS = 100000000          # how long one batch keeps versions without credit from an executor

cdef struct QueueList:
    VersionQueue *head
    VersionQueue *tail

cdef struct Batcher:
    void *internals              # mutex and condition variable
    QueueList lists[5]
    int64_t rows                 # queued, over all versions
    int64_t requests
    int64_t bytes
    int64_t wait_until_ns        # the earliest time that a sleeping executor wakes by itself
    int64_t round                # of fair_share
    int64_t compute_ns           # a clock that stands still for the part of a batch's time that others took from it
    int64_t compute_at_ns        # when it was last put forward
    int32_t running              # batches taken and not yet completed
    int32_t parallel             # batches that the cores can run at once
    int32_t crowded              # 1: there are more executors
    int32_t idle                 # executors that sleep and have no wake-up on its way
    int32_t signals              # wake-ups on their way
    int32_t stopping

# Of a batch, for its completion.
cdef struct Taken:
    int64_t rows
    int64_t at_ns
    int64_t compute_ns
    int64_t cpu_ns               # of the executor's thread, when it was taken; 0: not looked at

# `parallel`: batches that the cores can run at once; `crowded`: there are more executors than that.
cdef int batcher_init(Batcher *batcher, int parallel, bint crowded) noexcept nogil      # 0, or -1: no memory
cdef void batcher_free(Batcher *batcher) noexcept nogil                    # no executor may be inside

# Links a RECEIVING Request in as QUEUED; False: no memory for its bucket. Wakes nobody.
cdef bint put(Batcher *batcher, Request *request, VersionQueue *queue, int64_t now) noexcept nogil
# Unlinks it if it is still QUEUED (it is then the caller's again, DONE); False: an executor has it.
cdef bint remove_queued(Batcher *batcher, Request *request) noexcept nogil
# Moves it, once, behind all others of its version; False: an executor has it, or there is no memory for that.
cdef bint delay_queued(Batcher *batcher, Request *request, int64_t now) noexcept nogil
# Wakes at most one idle executor per batch that could run now and that none is being woken for.
cdef void kick(Batcher *batcher) noexcept nogil
# An executor: sleeps until a batch can close, then unlinks its requests and marks them RUNNING. Writes up to `capacity`
# of them, in turn and all of one shape; returns how many, or 0 when stopping and nothing is left.
# `block` False: 0 at once where nothing can close now.
cdef int take_batch(Batcher *batcher, Request **requests, int capacity, Taken *taken, bint block) noexcept nogil
# Other bounds for a queue that may have requests in it; those that wait are judged anew.
cdef void set_limits(
    Batcher *batcher, VersionQueue *queue, int64_t delay_ns, int64_t limit_rows, int64_t weight) noexcept nogil
# How many batches of the version run at once; as above.
cdef void set_max_running(Batcher *batcher, VersionQueue *queue, int32_t max_running) noexcept nogil
# How many rows the version's batches gather, and how long they may wait; as above.
cdef void set_batching(Batcher *batcher, VersionQueue *queue, int64_t gather_rows, int64_t delay_ns) noexcept nogil
# The executor has published the batch that it took from `version`.
cdef void complete_batch(Batcher *batcher, Version *version, const Taken *taken) noexcept nogil
# Executors return 0 from take_batch once their queues are empty.
cdef void batcher_stop(Batcher *batcher) noexcept nogil
