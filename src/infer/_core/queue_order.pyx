"""The order of the requests of one version that wait.

Memory: queues and buckets are malloc'd and owned here; Requests are only linked. Threads: any that holds the batcher's
mutex, but `queue_new` and `queue_free`, which are the loop's.

Design note. A request's turn is the time of its put, and a LEVEL_STEP_NS later for each level below the most urgent; of
two with the same turn the one that came first is first. Inside a bucket turns only grow, so its head is first, and
buckets stand in the order of their heads' turns: without levels that is the order of arrival. A batch is what the first
bucket holds, merged with those beside it, up to the version's gather_rows. A request that was delayed goes to a level
of its own below the last, and its turn counts from then on.

From the first request on that has a tenant, turns are in the virtual time of `lanes` instead, which begins at the time
of that put: a level then stands LEVEL_STEP_NS of the model's time behind the one before it, for each tenant, so that
none starves however many of these there are.
"""

from libc.stdint cimport INT64_MAX, UINT64_MAX
from libc.stdlib cimport free
from libc.string cimport memset

from infer._core.batch_policy cimport LEFT_DEADLINE, takes
from infer._core.debug cimport try_calloc, try_malloc
from infer._core.lanes cimport LANES, NO_LANE, ROW_NS, Lanes, enter, give_up, lane_of, leave
from infer._core.lateness cimport FATE_JOINS, FATE_LATE, FATE_STAYS, Making, fate_of, making_begin
from infer._core.pace cimport Pace
from infer._core.queue_policy cimport LEVEL_STEP_NS, LEVELS_MAX
from infer._core.request cimport QUEUED, RUNNING, try_transition
from infer._core.tensor_view cimport TYPE_NONE, TensorView

cdef enum:
    SLOTS = 64
    SPARE_BUCKETS = 16
    LATE_LEVEL = LEVELS_MAX + 2


cdef VersionQueue *queue_new(Version *version) noexcept nogil:
    cdef VersionQueue *queue = <VersionQueue *> try_calloc(1, sizeof(VersionQueue))
    if queue != NULL:
        queue.version = version
        queue.listed = UNLISTED
        queue.levels = version.policy.levels if version.policy != NULL else 0
        queue.late.queue = queue
        queue.late.beside = &queue.late
        queue.late.level = LATE_LEVEL
        queue.late.lane = NO_LANE
    return queue


cdef void queue_free(VersionQueue *queue) noexcept nogil:
    cdef Bucket *bucket
    if queue == NULL:
        return
    while queue.free_buckets != NULL:
        bucket = queue.free_buckets
        queue.free_buckets = bucket.next
        free(bucket)
    free(queue.lanes)
    free(queue)


cdef bint same_shape(const Request *one, const Request *other) noexcept nogil:
    cdef int i, k
    cdef const TensorView *a
    cdef const TensorView *b
    if one.n_views != other.n_views:
        return False
    for i in range(4):
        if one.outputs.bits[i] != other.outputs.bits[i]:
            return False
    for i in range(one.n_views):
        a = &one.views[i]
        b = &other.views[i]
        if a.data_type != b.data_type:
            return False
        if a.data_type == TYPE_NONE:
            continue
        if a.rank != b.rank:
            return False
        for k in range(1, a.rank):
            if a.shape[k] != b.shape[k]:
                return False
    return True


# Buckets.

cdef void unplace(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    if bucket.prev != NULL:
        bucket.prev.next = bucket.next
    else:
        queue.first = bucket.next
    if bucket.next != NULL:
        bucket.next.prev = bucket.prev
    else:
        queue.last = bucket.prev
    bucket.next = bucket.prev = NULL


cdef void place(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    """Keeps the order by the heads' turns; a head's is mostly later than others', so the search starts at the end."""
    cdef Bucket *before = queue.last
    while before != NULL and precedes(bucket.head, before.head):
        before = before.prev
    bucket.prev = before
    if before != NULL:
        bucket.next = before.next
        before.next = bucket
    else:
        bucket.next = queue.first
        queue.first = bucket
    if bucket.next != NULL:
        bucket.next.prev = bucket
    else:
        queue.last = bucket


cdef Bucket *bucket_for(VersionQueue *queue, Request *request, int32_t level, int32_t lane) noexcept nogil:
    """The bucket of the request's shape, the level and the lane, empty and not yet placed if it is new; NULL: no
    memory."""
    cdef Bucket **slot = &queue.slots[request.key.shape % SLOTS]
    cdef Bucket *beside = slot[0]
    cdef Bucket *bucket
    while beside != NULL and (beside.shape_hash != request.key.shape or (
            queue.version.signature.batched and not same_shape(beside.head, request))):
        beside = beside.chain
    bucket = beside
    while bucket != NULL:
        if bucket.level == level and bucket.lane == lane:
            return bucket
        bucket = bucket.beside if bucket.beside != beside else NULL
    bucket = queue.free_buckets
    if bucket != NULL:
        queue.free_buckets = bucket.next
    else:
        bucket = <Bucket *> try_malloc(sizeof(Bucket))
        if bucket == NULL:
            return NULL
    memset(bucket, 0, sizeof(Bucket))
    bucket.deadline_ns = INT64_MAX
    bucket.shape_hash = request.key.shape
    bucket.queue = queue
    bucket.level = level
    bucket.lane = lane
    bucket.chain = slot[0]
    slot[0] = bucket
    queue.n_buckets += 1
    if beside != NULL:
        bucket.beside = beside.beside
        beside.beside = bucket
    else:
        bucket.beside = bucket
        queue.n_shapes += 1
    return bucket


cdef void drop_bucket(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    cdef Bucket **slot = &queue.slots[bucket.shape_hash % SLOTS]
    cdef Bucket *before = bucket.beside
    unplace(queue, bucket)
    while slot[0] != bucket:
        slot = &slot[0].chain
    slot[0] = bucket.chain
    queue.n_buckets -= 1
    if before == bucket:
        queue.n_shapes -= 1
    while before.beside != bucket:
        before = before.beside
    before.beside = bucket.beside
    if queue.n_buckets < SPARE_BUCKETS:
        bucket.next = queue.free_buckets
        queue.free_buckets = bucket
    else:
        free(bucket)


cdef void settle(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    """Drops a bucket that ran empty, or gives it the place that its new head deserves. Late ones have no place."""
    if bucket == &queue.late:
        return
    if bucket.head == NULL:
        drop_bucket(queue, bucket)
    elif bucket.next != NULL and precedes(bucket.next.head, bucket.head):
        unplace(queue, bucket)
        place(queue, bucket)


cdef void settle_beside(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    """As `settle` for a bucket and those beside it. None is placed among others that stand wrongly."""
    cdef Bucket *each = bucket.beside
    cdef Bucket *following
    while each != bucket:
        following = each.beside
        if each.head == NULL:
            drop_bucket(queue, each)
        else:
            unplace(queue, each)
        each = following
    following = bucket.beside
    if bucket.head != NULL:
        unplace(queue, bucket)
    else:
        drop_bucket(queue, bucket)
        if following == bucket:
            return
        bucket = following
    each = bucket
    while True:
        place(queue, each)
        each = each.beside
        if each == bucket:
            return


# Requests in buckets.

cdef inline void append(VersionQueue *queue, Bucket *bucket, Request *request) noexcept nogil:
    cdef bint placed = bucket.head != NULL
    queue.sequence += 1
    request.sequence = queue.sequence
    request.bucket = bucket
    request.next = NULL
    request.prev = bucket.tail
    if placed:
        bucket.tail.next = request
    else:
        bucket.head = request
    bucket.tail = request
    bucket.rows += request.rows
    if request.deadline_ns != 0 and request.deadline_ns < bucket.deadline_ns:
        bucket.deadline_ns = request.deadline_ns
        bucket.stale = 0
    queue.rows_of_level[bucket.level] += request.rows
    if not placed:
        place(queue, bucket)


cdef inline void unlink(Bucket *bucket, Request *request) noexcept nogil:
    """Takes the request out of its bucket; the bucket's place is the caller's to mend."""
    if request.prev != NULL:
        request.prev.next = request.next
    else:
        bucket.head = request.next
    if request.next != NULL:
        request.next.prev = request.prev
    else:
        bucket.tail = request.prev
    request.next = request.prev = NULL
    request.bucket = NULL
    bucket.rows -= request.rows
    if request.deadline_ns == bucket.deadline_ns:
        bucket.stale = 1
    bucket.queue.rows_of_level[bucket.level] -= request.rows


cdef inline void count(VersionQueue *queue, const Request *request, int sign) noexcept nogil:
    queue.rows += sign * request.rows
    queue.requests += sign
    queue.bytes += sign * held_bytes(request)
    if queue.levels:
        queue.of_level[request.level] += sign


# Lanes.

cdef Lanes *lanes_new(int64_t now) noexcept nogil:
    cdef Lanes *lanes = <Lanes *> try_calloc(1, sizeof(Lanes))
    cdef int i
    if lanes != NULL:
        lanes.now_ns = now
        for i in range(LANES):
            lanes.of[i].key = UINT64_MAX
    return lanes


cdef inline void leave_lane(
        VersionQueue *queue, const Bucket *bucket, const Request *request, bint runs) noexcept nogil:
    """Of a request that was unlinked from the bucket."""
    if bucket.lane == NO_LANE:
        return
    if not runs:
        give_up(queue.lanes, bucket.lane, request.rows)
    else:
        leave(queue.lanes, bucket.lane, request.rows)
        queue.lanes.now_ns = max(queue.lanes.now_ns, request.turn_ns - behind_ns(queue, request.level))


cdef inline int64_t behind_ns(const VersionQueue *queue, int32_t level) noexcept nogil:
    return <int64_t> (level - 1) * LEVEL_STEP_NS if queue.levels else 0


cdef bint enqueue(VersionQueue *queue, Request *request, int64_t now) noexcept nogil:
    cdef const Tenant *tenant = <const Tenant *> request.tenant
    cdef uint64_t key = 0
    cdef Bucket *bucket
    cdef int lane = NO_LANE
    if tenant != NULL and queue.lanes == NULL:
        queue.lanes = lanes_new(now)
        if queue.lanes == NULL:
            return False
    if queue.lanes != NULL:
        key = lane_key(tenant.id if tenant != NULL else 0, request.level)
        lane = lane_of(queue.lanes, key)
    bucket = bucket_for(queue, request, request.level, lane)
    if bucket == NULL:
        return False
    request.queued_ns = request.turn_ns = now
    if lane != NO_LANE:
        request.turn_ns = enter(queue.lanes, lane, key, tenant.weight if tenant != NULL else 1, request.rows,
                                max(queue.row_ns, <int64_t> ROW_NS))
    request.turn_ns += behind_ns(queue, request.level)
    append(queue, bucket, request)
    count(queue, request, 1)
    return True


cdef void dequeue(Request *request) noexcept nogil:
    cdef Bucket *bucket = <Bucket *> request.bucket
    unlink(bucket, request)
    leave_lane(bucket.queue, bucket, request, False)
    if bucket.level != LATE_LEVEL:
        count(bucket.queue, request, -1)
    settle(bucket.queue, bucket)


cdef bint put_behind(Request *request, int64_t now) noexcept nogil:
    cdef Bucket *bucket = <Bucket *> request.bucket
    cdef VersionQueue *queue = bucket.queue
    cdef Bucket *into = NULL
    if bucket.level != LATE_LEVEL:
        into = bucket_for(queue, request, queue.levels + 1, NO_LANE)
    if into == NULL:
        return False
    unlink(bucket, request)
    leave_lane(queue, bucket, request, False)
    settle(queue, bucket)
    if queue.lanes != NULL:
        now = queue.lanes.now_ns
    request.turn_ns = now + <int64_t> max(queue.levels, 1) * LEVEL_STEP_NS
    append(queue, into, request)
    return True


cdef Bucket *next_beside(Bucket *bucket) noexcept nogil:
    """Of a bucket and those beside it the one that is first in turn; NULL: all ran empty."""
    cdef Bucket *found = NULL
    cdef Bucket *each = bucket
    while True:
        if each.head != NULL and (found == NULL or precedes(each.head, found.head)):
            found = each
        each = each.beside
        if each == bucket:
            return found


cdef int64_t front_deadline(VersionQueue *queue) noexcept nogil:
    cdef int64_t earliest = INT64_MAX
    cdef Bucket *each = queue.first
    cdef Request *request
    while True:
        if each.stale:
            # Asked for where the front is less than a batch, so that there are few to look at.
            each.stale = 0
            each.deadline_ns = INT64_MAX
            request = each.head
            while request != NULL:
                if request.deadline_ns != 0:
                    each.deadline_ns = min(each.deadline_ns, request.deadline_ns)
                request = request.next
        earliest = min(earliest, each.deadline_ns)
        each = each.beside
        if each == queue.first:
            return earliest


cdef void learn(VersionQueue *queue, int64_t took_ns, int64_t rows, int64_t charged_ns) noexcept nogil:
    cdef int64_t miss = took_ns - queue.took_ns
    cdef int64_t row_ns = charged_ns // rows
    queue.row_ns += (row_ns - queue.row_ns) // 8 if queue.row_ns > 0 else row_ns
    if queue.took_ns == 0:
        queue.took_ns = max(took_ns, 1)
        queue.strayed_ns = took_ns // 2
        return
    queue.took_ns = max(queue.took_ns + miss // 8, 1)
    queue.strayed_ns += ((miss if miss > 0 else -miss) - queue.strayed_ns) // 4


cdef void set_aside(VersionQueue *queue, Request *request) noexcept nogil:
    """Of a request that was unlinked: it is QUEUED, and none of those that wait."""
    count(queue, request, -1)
    request.bucket = &queue.late
    request.prev = queue.late.tail
    if queue.late.tail != NULL:
        queue.late.tail.next = request
    else:
        queue.late.head = request
    queue.late.tail = request
    queue.late.rows += request.rows
    queue.rows_of_level[LATE_LEVEL] += request.rows


cdef int take_in_turn(VersionQueue *queue, Request **requests, int capacity, int64_t *rows, int64_t now,
                      int32_t *why) noexcept nogil:
    cdef Bucket *first = queue.first
    cdef Bucket *bucket = first
    cdef bint alone = first.beside == first
    cdef Request *request
    cdef Making making
    cdef int64_t oldest_ns
    cdef int taken = 0
    cdef int fate = FATE_JOINS
    rows[0] = 0
    making_begin(&making, <const Pace *> queue.version.pace, front_rows(queue, &oldest_ns), queue.version.gather_rows,
                 now)
    while taken < capacity and bucket != NULL and bucket.head != NULL:
        request = bucket.head
        fate = fate_of(&making, request, rows[0], queue.requests == 1)
        if fate == FATE_JOINS:
            if not takes(rows[0], request.rows, queue.version.gather_rows):
                break
            unlink(bucket, request)
            leave_lane(queue, bucket, request, True)
            count(queue, request, -1)
            try_transition(request, QUEUED, RUNNING)
            rows[0] += request.rows
            requests[taken] = request
            taken += 1
        elif fate == FATE_LATE:
            unlink(bucket, request)
            leave_lane(queue, bucket, request, False)
            set_aside(queue, request)
        else:
            why[0] = LEFT_DEADLINE
            break
        if not alone:
            bucket = next_beside(first)
    if alone:
        settle(queue, first)
    else:
        settle_beside(queue, first)
    if taken:
        queue.taken_ns = now
        queue.taken_rows = rows[0]
        queue.cut = fate == FATE_STAYS
    return taken
