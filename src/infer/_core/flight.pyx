"""Flights by what they run for. See flight.pxd."""

from libc.stdlib cimport free
from libc.string cimport memset

from infer._core.cache_entry cimport same_inputs
from infer._core.debug cimport require, try_calloc, try_malloc


cdef int flights_init(FlightTable *table) noexcept nogil:
    memset(table, 0, sizeof(FlightTable))
    table.buckets = <Flight **> try_calloc(FLIGHT_BUCKETS, sizeof(Flight *))
    return -1 if table.buckets == NULL else 0


cdef void flights_free(FlightTable *table) noexcept nogil:
    require(table.flights == 0, b"flight: requests run or wait for a cache that goes")
    free(table.buckets)
    table.buckets = NULL


cdef inline Flight **bucket_of(const FlightTable *table, uint64_t low) noexcept nogil:
    return &table.buckets[low & (FLIGHT_BUCKETS - 1)]


cdef Flight *flight_find(const FlightTable *table, uint64_t low, uint64_t high, const CacheScope *scope,
                         const Request *request) noexcept nogil:
    cdef Flight *flight = bucket_of(table, low)[0]
    cdef const Request *one
    while flight != NULL:
        one = flight.leader if flight.leader != NULL else flight.first
        # One whose rows are put together afterwards can do nothing with a whole reply.
        if (flight.low == low and flight.high == high and flight.listed and one != NULL
                and one.planned == request.planned
                and flight.scope.generation == scope.generation and flight.scope.tenant == scope.tenant
                and same_inputs(one.views, &one.outputs, request)):
            return flight
        flight = flight.next
    return NULL


cdef Flight *flight_open(FlightTable *table, uint64_t low, uint64_t high, const CacheScope *scope, Request *leader,
                         CacheStats *stats, int64_t *waiting_rows, bint listed) noexcept nogil:
    cdef Flight *flight = <Flight *> try_malloc(sizeof(Flight))
    cdef Flight **bucket = bucket_of(table, low)
    if flight == NULL:
        return NULL
    flight.next = bucket[0]
    bucket[0] = flight
    flight.low = low
    flight.high = high
    flight.scope = scope[0]
    flight.stats = stats
    flight.waiting_rows = waiting_rows
    flight.leader = leader
    flight.first = flight.last = NULL
    flight.next_orphan = NULL
    flight.listed = listed
    flight.kept = 1
    leader.flight = flight
    table.flights += 1
    return flight


cdef void flight_close(FlightTable *table, Flight *flight) noexcept nogil:
    cdef Flight **link = bucket_of(table, flight.low)
    while link[0] != flight:
        link = &link[0].next
    link[0] = flight.next
    table.flights -= 1
    free(flight)


cdef void flight_join(Flight *flight, Request *request, int64_t now) noexcept nogil:
    request.flight = flight
    request.queued_ns = now
    request.next = NULL
    request.prev = flight.last
    if flight.last != NULL:
        flight.last.next = request
    else:
        flight.first = request
    flight.last = request
    flight.stats.waiting += 1
    flight.waiting_rows[0] += request.rows


cdef void unlink(Flight *flight, Request *request) noexcept nogil:
    if request.prev != NULL:
        request.prev.next = request.next
    else:
        flight.first = request.next
    if request.next != NULL:
        request.next.prev = request.prev
    else:
        flight.last = request.prev
    request.next = request.prev = NULL
    flight.stats.waiting -= 1
    flight.waiting_rows[0] -= request.rows


cdef Request *flight_take(Flight *flight) noexcept nogil:
    cdef Request *request = flight.first
    if request != NULL:
        unlink(flight, request)
        request.flight = NULL
    return request


cdef bint flight_leave(FlightTable *table, Request *request) noexcept nogil:
    cdef Flight *flight = <Flight *> request.flight
    request.flight = NULL
    if flight.leader != request:
        # A flight without a leader that nobody waits for any more is closed when its turn comes.
        unlink(flight, request)
        return False
    flight.leader = NULL
    if flight.first == NULL:
        flight_close(table, flight)
        return False
    if table.last_orphan != NULL:
        table.last_orphan.next_orphan = flight
    else:
        table.orphans = flight
    table.last_orphan = flight
    return True


cdef Request *flight_lead(FlightTable *table) noexcept nogil:
    cdef Flight *flight
    while table.orphans != NULL:
        flight = table.orphans
        table.orphans = flight.next_orphan
        if table.orphans == NULL:
            table.last_orphan = NULL
        flight.next_orphan = NULL
        flight.leader = flight.first
        if flight.leader != NULL:
            unlink(flight, flight.leader)
            return flight.leader
        flight_close(table, flight)
    return NULL


cdef void flights_unkeep(FlightTable *table, const int64_t *waiting_rows) noexcept nogil:
    cdef Flight *flight
    cdef int i
    for i in range(FLIGHT_BUCKETS):
        flight = table.buckets[i]
        while flight != NULL:
            if waiting_rows == NULL or flight.waiting_rows == waiting_rows:
                flight.kept = 0
            flight = flight.next
