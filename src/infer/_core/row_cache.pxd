"""The prediction cache row by row: of a request of several rows those that are known do not run.

Loop thread. A row is looked up and kept as a request of that row alone would be. What is known, and a row that another
of its request equals, is taken out of the Request, which from then on is one of the rows that are left: as such it
queues, runs, fails and ends, and is the same as another. Its RowPlan says how the reply comes together.
"""

from libc.stdint cimport int64_t

from infer._core.batch cimport Batch
from infer._core.cache cimport Cache, CacheVerdict
from infer._core.request cimport Request, Segment
from infer._core.tensor_request cimport InferMessage

cdef enum:
    CACHE_ROWS_MOST = 1024       # of a request that is looked up so: the loop does nothing else meanwhile

# As Cache.look. Of a request with its views bound; afterwards `rows` are those that are left.
cdef CacheVerdict look_up(Cache cache, Request *request, const InferMessage *message, int64_t queued_rows,
                          int64_t now) noexcept
# The reply of a hit; how many segments, 0: no memory.
cdef int reply_hit(Cache cache, Request *request, Segment *segments) noexcept
# As Cache.keep, of a leader.
cdef void keep_run(Cache cache, Request *leader, const Batch *batch, int index) noexcept
