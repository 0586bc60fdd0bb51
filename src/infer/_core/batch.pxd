"""A batch: requests of one version and one shape, run as one - gather rows, run, scatter rows, a status per item.

Made by an executor from what it took, carried over the completion ring by its arena offset, read and freed by the loop.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

from infer._core.block cimport Block
from infer._core.model_version cimport Version
from infer._core.ort_run cimport RunOutput
from infer._core.ort_watch cimport RunWatch
from infer._core.request cimport Request
from infer._core.tensor_view cimport TensorView

# Where one item's part of one output lies.
cdef struct ItemOutput:
    uint64_t data                # arena offset
    uint64_t size_bytes

cdef struct BatchItem:
    Request *request
    int32_t code
    int32_t run                  # index of the run that answered it (several after a bisection)

# One successful run: the outputs of the items that it covered.
cdef struct BatchRun:
    TensorView *views            # per output of the model
    Block **blocks               # owners, one reference each; NULL: not asked for
    uint64_t allocated_bytes     # of both; 0: they are part of the Batch

cdef struct Batch:
    Version *version
    uint64_t allocated_bytes
    int32_t n_items
    int32_t n_outputs
    int32_t n_runs
    int32_t lent                 # of an emergency batch: 1 while the loop holds it; else 0
    int32_t stopped              # 1: a run of it was told to end, and its requests have been answered
    int64_t rows
    int64_t taken_ns
    int64_t gathered_ns          # of the first run; the rest is in run_ns and done_ns
    int64_t ran_ns
    int64_t done_ns
    BatchItem *items
    ItemOutput *outputs          # n_items x n_outputs
    BatchRun *runs               # room for n_items
    Block *detail                # the runtime's own words about the first failure, for the log; NULL: none

# One executor's own buffers, reused from batch to batch.
cdef struct Scratch:
    Block **gathered             # one per input, grown on demand
    TensorView *inputs           # of the run under way
    RunOutput *outputs
    int32_t n_inputs             # room
    int32_t n_outputs
    RunWatch watch
    Batch *emergency             # for requests that cannot have a Batch of their own; lent to the loop while so used

cdef int scratch_init(Scratch *scratch) noexcept nogil                 # 0, or -1: no memory
cdef void scratch_clear(Scratch *scratch) noexcept nogil               # drops what batches left for reuse
cdef void scratch_free(Scratch *scratch) noexcept nogil

# A Batch over requests[0:count], or NULL at the arena's limit.
cdef Batch *batch_new(Request **requests, int count, int64_t rows) noexcept nogil
# Gathers, runs, scatters; bisects on failure within its share of executor time. Every item has its code afterwards.
cdef void batch_run(Batch *batch, Scratch *scratch) noexcept nogil
# Loop thread: drops the runs' blocks and frees it.
cdef void batch_free(Batch *batch) noexcept nogil

# The executor's one Batch that needs no memory, its items already answered with RESOURCE_EXHAUSTED; NULL while the loop
# still holds it. At most EMERGENCY_ITEMS requests.
cdef enum:
    EMERGENCY_ITEMS = 1024

cdef Batch *batch_emergency(Scratch *scratch, Request **requests, int count, int64_t rows) noexcept nogil
