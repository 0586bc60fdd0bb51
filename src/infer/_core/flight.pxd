"""Single flight: of requests that ask for the same at a time one runs, the leader; the others wait for its answer.

Loop thread. A Flight belongs to its table from `flight_open` to `flight_close`. Those that wait are linked by their own
`next` and `prev`, which a queue has no need of meanwhile; they stay RECEIVING, and end like every other call: by their
deadline, or when their caller goes.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

from infer._core.cache_entry cimport CacheScope
from infer._core.model_version cimport CacheStats
from infer._core.request cimport Request

cdef enum:
    FLIGHT_BUCKETS = 4096

cdef struct Flight:
    Flight *next                 # in its bucket
    uint64_t low
    uint64_t high
    CacheScope scope
    CacheStats *stats            # of its version, which the leader holds or those that wait do
    Request *leader              # NULL: gone without an answer, one of those that wait is to run
    Request *first               # that waits
    Request *last
    Flight *next_orphan
    int64_t *waiting_rows        # of its version
    int32_t listed               # 1: others may join it
    int32_t kept                 # 1: what it comes to may be kept

cdef struct FlightTable:
    Flight **buckets
    Flight *orphans              # without a leader, first to be led again first
    Flight *last_orphan
    int64_t flights

cdef int flights_init(FlightTable *table) noexcept nogil                   # -1: no memory
cdef void flights_free(FlightTable *table) noexcept nogil                  # there are none left
# The one that runs, or will, for the same as `request`; NULL: there is none.
cdef Flight *flight_find(const FlightTable *table, uint64_t low, uint64_t high, const CacheScope *scope,
                         const Request *request) noexcept nogil
# One that `leader` runs for; NULL: no memory. `listed`: others may join it.
cdef Flight *flight_open(FlightTable *table, uint64_t low, uint64_t high, const CacheScope *scope, Request *leader,
                         CacheStats *stats, int64_t *waiting_rows, bint listed) noexcept nogil
cdef void flight_join(Flight *flight, Request *request, int64_t now) noexcept nogil
# The request, leader or not, has no more to do with its flight. True: it goes on without a leader (`flight_lead`).
cdef bint flight_leave(FlightTable *table, Request *request) noexcept nogil
# The next that waits, which is then the caller's; NULL: none waits.
cdef Request *flight_take(Flight *flight) noexcept nogil
# Of the next flight without a leader the first that waits, now its leader, to be run; NULL: every flight has one.
cdef Request *flight_lead(FlightTable *table) noexcept nogil
# What runs now is not to be kept, of the version whose waiting rows these are; of all: NULL.
cdef void flights_unkeep(FlightTable *table, const int64_t *waiting_rows) noexcept nogil
