"""Which rows of a request run and which are known, and how the reply comes together of both.

Loop thread. A RowPlan lies in the Block that a Request has decoded contents in, which is then the plan's: with copies
of what is known, so that nothing which becomes of an entry of the cache afterwards matters to the reply, and with the
rows that are left, which are all that the Request is of from then on.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.arena cimport at
from infer._core.batch cimport Batch
from infer._core.block cimport block_data
from infer._core.request cimport Request, Segment
from infer._core.tensor_view cimport TensorView

cdef enum:
    ROW_KNOWN = -1
    ROW_ALIGNMENT = 64

# Of a row that runs.
cdef struct RowKey:
    uint64_t low
    uint64_t high
    int64_t kept                 # 1: it was looked up, and what it comes to may be kept

cdef struct RowPlan:
    int64_t rows                 # of the request as it came
    int64_t new_rows             # that are left
    int32_t *place               # of each row: its turn among those that are left, or ROW_KNOWN
    RowKey *keys                 # of those that are left
    TensorView *outputs          # room for all rows of each wanted output, size_bytes of one row; NULL: none is known
    int32_t differs              # 1: what ran has not the shape of what is known

cdef inline RowPlan *plan_of(const Request *request) noexcept nogil:
    return <RowPlan *> block_data(request.decoded) if request.planned else NULL

cdef inline bint rows_differ(const Request *request) noexcept nogil:
    return request.planned and plan_of(request).differs

cdef inline int64_t asked_rows(const Request *request) noexcept nogil:
    return plan_of(request).rows if request.planned else request.rows

# Where what is known of a row belongs.
cdef inline uint8_t *known_at(const RowPlan *plan, int output, int64_t row) noexcept nogil:
    return <uint8_t *> at(plan.outputs[output].data) + <uint64_t> row * plan.outputs[output].size_bytes

# Plans the request, all of whose rows have a place in `place`, for those that are left, `source` being which they are.
# It is of those from then on; where none is left, of all as before. Keys and what is known are still to be filled in.
# `outputs`: of one row; NULL: none is known. False: no memory, and nothing has changed.
cdef bint plan_rows(Request *request, const int32_t *place, const int32_t *source, int64_t new_rows,
                    const TensorView *outputs) noexcept nogil
# The reply of a request of which every row is known; how many segments, 0: no memory.
cdef int reply_known(Segment *segments, Request *request) noexcept
# The reply that an item of a batch comes to, of a request with a plan or without; how many segments, 0: no memory, or
# `rows_differ`.
cdef int reply_run(Segment *segments, Request *request, const Batch *batch, int index) noexcept
