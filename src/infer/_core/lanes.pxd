"""Whose turn it is among tenants that wait for the same model: start-time fair queueing, in virtual time.

Pure arithmetic over plain structs; the lock of the queue they belong to guards them.

Design note. Goyal, Vin and Cheng 1996. A request starts, in virtual time, where the one before it in its tenant's lane
ends, or at the virtual time where that is over; it ends later by what it costs, divided by its tenant's weight. They
run in the order of their starts, and virtual time is the start of the last one that was taken. Of two tenants that
always have something waiting, what they get by weight differs by no more than a request of each, and a batch where
shapes differ: the bound of deficit round robin, and it makes one order of all that waits, which batches of mixed
tenants need.

Tenants can be any number, lanes are few: where all are in use, those that come share one. Each level of priority has
lanes of its own.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    LANES = 32
    NO_LANE = -1
    ROW_NS = 1000                # what a row costs at least, and until batches were measured; so that weights count

cdef struct Lane:
    uint64_t key                 # of a tenant at a level
    int64_t finish_ns            # virtual: where its last request ends
    int64_t requests             # that wait; 0: another may have it
    int64_t rows
    int32_t weight

cdef struct Lanes:
    int64_t now_ns               # virtual
    int64_t weights              # of lanes with requests
    Lane of[32]

cdef inline uint64_t lane_key(uint64_t tenant, int32_t level) noexcept nogil:
    """`tenant`: 0: nobody in particular."""
    return tenant * 128 + <uint64_t> level

cdef inline int lane_of(const Lanes *lanes, uint64_t key) noexcept nogil:
    """Its own, else one that nobody uses, else one that it shares."""
    cdef int begin = <int> ((key ^ (key >> 7)) % LANES)
    cdef int free = NO_LANE
    cdef int i, at
    for i in range(LANES):
        at = (begin + i) % LANES
        if lanes.of[at].key == key:
            return at
        if free == NO_LANE and lanes.of[at].requests == 0:
            free = at
    return begin if free == NO_LANE else free

cdef inline int64_t enter(
        Lanes *lanes, int at, uint64_t key, int32_t weight, int64_t rows, int64_t row_ns) noexcept nogil:
    """A request waits in the lane; where it starts."""
    cdef Lane *lane = &lanes.of[at]
    cdef int64_t start_ns
    if lane.requests == 0:
        if lane.key != key:
            lane.key = key
            lane.finish_ns = 0
        lane.weight = weight
        lanes.weights += weight
    lane.requests += 1
    lane.rows += rows
    start_ns = max(lane.finish_ns, lanes.now_ns)
    lane.finish_ns = start_ns + max(rows * row_ns // weight, 1)
    return start_ns

cdef inline void leave(Lanes *lanes, int at, int64_t rows) noexcept nogil:
    """One that does not wait there any more."""
    cdef Lane *lane = &lanes.of[at]
    lane.requests -= 1
    lane.rows -= rows
    if lane.requests == 0:
        lanes.weights -= lane.weight

cdef inline void give_up(Lanes *lanes, int at, int64_t rows) noexcept nogil:
    """One that will not run from there; where that was all, nothing is owed for those."""
    leave(lanes, at, rows)
    if lanes.of[at].requests == 0:
        lanes.of[at].finish_ns = min(lanes.of[at].finish_ns, lanes.now_ns)

cdef inline int64_t rows_ahead(
        const Lanes *lanes, uint64_t key, int32_t weight, int64_t rows, int64_t waiting_rows) noexcept nogil:
    """Of those that wait, the rows that run before one with so many ends, at most: its own lane's, and by weight as
    much of each other."""
    cdef const Lane *lane = &lanes.of[lane_of(lanes, key)]
    cdef int64_t own_rows = lane.rows if lane.key == key or lane.requests > 0 else 0
    cdef int64_t others = lanes.weights - (lane.weight if lane.requests > 0 else 0)
    return min(waiting_rows, own_rows + (own_rows + rows) * others // weight)
