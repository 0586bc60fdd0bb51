"""VersionEntry: what a route points at - a model version's signature, limits, statistics and live handles.

Made and dropped on the loop thread. Executors read `Version`, its plain C part, while a Request holds a handle on it.
The `void *` slots belong to modules of L3 and are opaque here.
"""

from cpython.ref cimport Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.counters cimport Histogram, bucket_of
from infer._core.queue_policy cimport QueuePolicy
from infer._core.tensor_view cimport ModelShape, Signature, TensorSpec

cdef enum:
    EXACT_ROWS = 1024            # batches of up to so many rows are counted by their size, larger ones by log buckets

# What answers a request in the place of the version that it was meant for. Replies are marked with it.
cdef enum Fallback:
    FALLBACK_NONE = 0            # its own version does
    FALLBACK_PREVIOUS = 1        # the next lower version that is ready
    FALLBACK_STATIC = 2          # a reply that was written down
    FALLBACK_UNAVAILABLE = 3     # nothing: UNAVAILABLE
    FALLBACKS = 4

# Runs of one size; sums over them. Written by the loop thread alone.
cdef struct SizeStats:
    int64_t runs
    int64_t gather_ns
    int64_t run_ns
    int64_t scatter_ns

# What the cache came to for one version; all zero where it is not cached. Written by the loop thread alone.
cdef struct CacheStats:
    int64_t hits                 # answered without a run, by what was kept or by another's run
    int64_t joined               # of those, by a run that was under way
    int64_t misses
    int64_t passed               # not looked up: they asked for that, or the cache is of no use to the version
    int64_t hit_ns               # looking up, and waiting for another's run
    int64_t miss_ns              # looking up and keeping
    int64_t entries
    int64_t bytes
    int64_t evictions            # for want of room
    int64_t expiries
    int64_t rejections           # not kept, since what would have had to go is asked for more often
    int64_t known_rows           # of those requests that were looked up row by row, and did not have to run
    int64_t new_rows             # ... and had to, or to wait for another's run
    int64_t waiting              # requests that wait for another's run
    int64_t bypassing            # 1: few hits, so that only samples are looked up

# Written by the loop thread alone; read by a scrape.
cdef struct VersionStats:
    CacheStats cache
    int64_t calls[17]            # finished requests by gRPC code
    int64_t rows                 # rows executed (Triton's inference_count)
    int64_t batches              # executions (Triton's execution_count)
    int64_t last_inference_ms    # wall clock, since the epoch
    int64_t queue_ns             # sums over successful requests
    int64_t request_ns
    int64_t failed_ns
    int64_t refused[9]           # requests, by queue_policy.Refusal
    int64_t expired_queued       # requests whose deadline passed while they waited; they were not run
    int64_t expired_running      # ... while they ran
    int64_t delayed              # behind all others, for having waited too long
    int64_t gather_ns            # sums over executed requests' batches, counted once per request
    int64_t run_ns
    int64_t scatter_ns
    Histogram request            # ns from the call's first byte to its reply handed to the transport
    Histogram queue              # ns from put to taken
    Histogram compute            # ns of the batch's gather, run and scatter
    Histogram batch_rows         # rows per executed batch

cdef struct Version:
    Signature signature
    const char *name
    const char *number
    int64_t gather_rows          # rows that a batch gathers (one request may carry more, up to signature.max_rows)
    int64_t delay_ns             # how long a batch may wait for more rows
    int64_t queue_limit_rows
    int64_t queue_limit_bytes
    int64_t adaptive_rows        # that may wait, by what waiting costs; 0: as many as the limit. Loop thread only
    int64_t weight               # by which it shares executors with other versions
    int32_t max_running          # batches of this version at once
    int32_t closing              # 1: unloading, nothing new is taken in
    int64_t run_timeout_ns       # how long one run may take; 0: as long as it likes. Loop thread only
    int64_t handles              # Requests that hold this version; loop thread only
    int64_t executor_ns          # executor time spent running; executors add to it
    int64_t charged_ns           # executor time by which it shares them; written under the batcher's mutex
    int64_t left[5]              # batches by why they left (batch_policy.Why); written under the batcher's mutex
    int64_t bisect_ns            # part of it spent on bisecting failed batches
    QueuePolicy *policy          # NULL: nothing is asked for; loop thread only
    void *pace                   # pace.Pace: how long runs take, by what was measured; NULL: not measured
    void *breaker                # breaker.Breaker of the entry's guard; NULL: nobody watches. Loop thread
    void *cached                 # the cache's part of it; NULL: not cached. Loop thread
    void *quota                  # limits of the model; NULL: none. Loop thread
    int32_t tapped               # 1: the entry has taps. Loop thread
    void *queue                  # queue_order.VersionQueue
    void *session                # ort_session.Session

# One declared input or output, for Python: metadata, tables, messages.
cdef class TensorInfo:
    cdef readonly str name
    cdef readonly int data_type            # tensor_view.DataType; TYPE_NONE for what is not a tensor
    cdef readonly str datatype             # the protocol's name: "FP32"; "SEQUENCE" or "MAP" for what is not served
    cdef readonly tuple shape              # -1: any; None: the model does not say the rank
    cdef readonly tuple symbols            # per dimension the symbolic name, "" where it has none
    cdef readonly bint served
    cdef readonly bint optional
    cdef readonly tuple reshape            # the model's own shape, where `shape` is another; else None

cdef class VersionEntry:
    cdef Version c
    cdef VersionStats stats
    cdef readonly bytes name
    cdef readonly str version
    cdef readonly bytes prefix             # encoded model_name and model_version of every reply
    cdef readonly tuple marked             # the same with the parameter that tells a Fallback, by its number
    cdef readonly list inputs              # TensorInfo of each, in the model's order
    cdef readonly list outputs
    cdef readonly dict properties          # platform, producer, batching in words: for metadata and the start-up table
    cdef public object session             # keeps what c.session points to alive
    cdef public object guard               # keeps what c.breaker points to alive
    cdef tuple taps                        # tap.Tap of each that is told of its replies
    cdef public object settings            # what its operator asked for, completed (models.settings); None: nothing
    cdef public object on_drained          # called once when closing and the last handle is gone
    cdef ModelShape *reshaped              # of the tensors that have one
    cdef int n_reshaped
    cdef list _strings                     # owners of the names that the signature points to
    cdef SizeStats *sizes                  # at size_slot of a run's rows
    cdef int n_sizes                       # as many as the largest batch needs
    cdef TensorSpec *specs(self, list tensors, bint batched) except? NULL
    cdef const ModelShape *model_shape(self, tuple shape, bint batched) noexcept

cdef inline int size_slot(int64_t rows) noexcept nogil:
    return <int> rows if rows <= EXACT_ROWS else EXACT_ROWS + 1 + bucket_of(rows) - bucket_of(EXACT_ROWS)

# The first handle takes a reference on the entry: a Request borrows its pointer.
cdef inline void take_handle(VersionEntry entry) noexcept:
    if entry.c.handles == 0:
        Py_INCREF(entry)
    entry.c.handles += 1

# Paired with take_handle; the last one drops the reference, and of a closing version calls on_drained.
cdef void drop_handle(VersionEntry entry) noexcept
