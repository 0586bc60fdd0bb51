"""The order of the requests of one version that wait: buckets of one shape, one priority level and one tenant each.

Everything here is guarded by the batcher's mutex, which its callers hold. Requests in a queue belong to it until they
are taken or removed.
"""

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint64_t

from infer._core.codel cimport Codel
from infer._core.fair_share cimport Share
from infer._core.lanes cimport Lanes, lane_key, rows_ahead
from infer._core.model_version cimport Version
from infer._core.quota cimport Tenant
from infer._core.request cimport Request

cdef enum:
    UNLISTED = -1
    WAKE_NS = 500000             # an executor wakes up, and the loop sends the reply

cdef struct Bucket:
    Bucket *next                 # by the head's turn, the first in turn first; of free buckets when unused
    Bucket *prev
    Bucket *chain                # same hash slot
    Bucket *beside               # circular: those of the same shape, and other levels or lanes; itself where none is
    Request *head
    Request *tail
    int64_t rows
    int64_t deadline_ns          # the earliest of its requests, or of one that has left; INT64_MAX: none had one
    uint64_t shape_hash
    VersionQueue *queue
    int32_t level                # 0: of a version without levels; above its last: of those that were delayed, or late
    int32_t lane                 # of its requests; NO_LANE: delayed, late, or the version's tenants share no turns
    int32_t stale                # 1: the request with that deadline has left

cdef struct VersionQueue:
    Version *version
    VersionQueue *next           # in the batcher's list that it stands in
    VersionQueue *prev
    int32_t listed               # UNLISTED, or a batcher.ListKind
    int32_t n_buckets
    int32_t n_shapes
    int32_t levels               # of its version
    Bucket *first
    Bucket *last
    Bucket *free_buckets
    Bucket *slots[64]            # by shape_hash
    Bucket late                  # requests that are not to be run any more, until their deadline answers them
    int64_t rows                 # without late ones, as all that follow
    int64_t requests
    int64_t bytes                # of their messages
    int64_t running              # batches taken and not yet completed by their executor
    Share share                  # of the executors
    Lanes *lanes                 # NULL: no request had a tenant yet
    int64_t row_ns               # of executor time, smoothed; 0: not measured
    int64_t took_ns              # from take to completion, smoothed; 0: none was completed
    int64_t strayed_ns           # by how much batches miss that, smoothed
    int64_t taken_ns             # the last of them, and its rows
    int64_t taken_rows
    int32_t cut                  # 1: it was made smaller than it could be, so that nobody was late
    uint64_t sequence
    int64_t of_level[65]         # requests by their own level, delayed or not; unused without levels
    int64_t rows_of_level[67]    # rows by their bucket's level
    Codel codel                  # the loop's alone

cdef VersionQueue *queue_new(Version *version) noexcept nogil
cdef void queue_free(VersionQueue *queue) noexcept nogil                   # must be empty and not running, or NULL

# Whether both may be in one batch.
cdef bint same_shape(const Request *one, const Request *other) noexcept nogil
# Links the request in by its level; False: no memory for its bucket.
cdef bint enqueue(VersionQueue *queue, Request *request, int64_t now) noexcept nogil
cdef void dequeue(Request *request) noexcept nogil
# Moves a request, once, behind all others; False: no memory for its bucket, and it keeps its place.
cdef bint put_behind(Request *request, int64_t now) noexcept nogil
# Unlinks up to `capacity` requests, in turn and all of the shape of the first, marks them RUNNING and tells their rows.
# Those that are late go aside; 0 where that was all. `why`: becomes LEFT_DEADLINE where it is a part of what it could
# be, so that nobody is late.
cdef int take_in_turn(VersionQueue *queue, Request **requests, int capacity, int64_t *rows, int64_t now,
                      int32_t *why) noexcept nogil

# Of those that the next batch may hold: their rows, and when the first of them was queued (of each level the one whose
# turn it is counts).
cdef inline int64_t front_rows(const VersionQueue *queue, int64_t *oldest_ns) noexcept nogil:
    cdef const Bucket *each = queue.first
    cdef int64_t rows
    oldest_ns[0] = 0
    if each == NULL:
        return 0
    rows = each.rows
    oldest_ns[0] = each.head.queued_ns
    each = each.beside
    while each != queue.first:
        rows += each.rows
        oldest_ns[0] = min(oldest_ns[0], each.head.queued_ns)
        each = each.beside
    return rows

# The earliest deadline of those that the next batch may hold; INT64_MAX: none has one.
cdef int64_t front_deadline(VersionQueue *queue) noexcept nogil
# A batch of so many rows was completed that took so long, of which so much is charged.
cdef void learn(VersionQueue *queue, int64_t took_ns, int64_t rows, int64_t charged_ns) noexcept nogil

# How long before its deadline a request has to be taken: as a retransmission timer waits (RFC 6298), and for a thread
# to wake up. Until a batch was measured no time is enough.
cdef inline int64_t run_ns(const VersionQueue *queue) noexcept nogil:
    return queue.took_ns + 4 * queue.strayed_ns + WAKE_NS if queue.took_ns > 0 else INT64_MAX // 2

# Whether it is one's turn before the other's.
cdef inline bint precedes(const Request *one, const Request *other) noexcept nogil:
    if one.turn_ns != other.turn_ns:
        return one.turn_ns < other.turn_ns
    return one.sequence < other.sequence

# Requests of a level that wait, those that were delayed included.
cdef inline int64_t requests_of(const VersionQueue *queue, int32_t level) noexcept nogil:
    return queue.of_level[level] if queue.levels else queue.requests

# Rows that stand in front of one that comes now to the level; delayed ones and those of levels behind it do not.
cdef inline int64_t rows_before(const VersionQueue *queue, int32_t level) noexcept nogil:
    cdef int64_t rows = 0
    cdef int32_t each
    if not queue.levels:
        return queue.rows_of_level[0]
    for each in range(1, level + 1):
        rows += queue.rows_of_level[each]
    return rows

# Of these, those that would run before the request.
cdef inline int64_t rows_before_this(const VersionQueue *queue, const Request *request) noexcept nogil:
    cdef const Tenant *tenant = <const Tenant *> request.tenant
    cdef int64_t rows = rows_before(queue, request.level)
    if queue.lanes == NULL or tenant == NULL:
        return rows
    return rows_ahead(queue.lanes, lane_key(tenant.id, request.level), tenant.weight, request.rows, rows)

# What it holds of the memory for requests.
cdef inline int64_t held_bytes(const Request *request) noexcept nogil:
    return <int64_t> request.body.size_bytes if request.body != NULL else 0
