"""Queues of versions: put by the loop, taken by executors, under one short mutex.

Memory: queues and buckets are malloc'd and owned here; Requests are only linked. Threads: `put`, `remove_queued` and
`kick` are the loop's, `take_batch` and `complete_batch` the executors'.

Design note. A queue keeps its requests in buckets, one per shape, in the order of their heads' arrival: the oldest
request of all is at the head of the first bucket, and a batch is what that bucket holds, up to the version's
gather_rows. A queue that could run stands in exactly one list; one that is empty or already runs `max_running` batches
stands in none and is listed again by a put or a completion. `idle` counts executors asleep less the signals on their
way, so that a burst of kicks wakes each executor once.
"""

from libc.stdlib cimport free
from libc.stdint cimport INT64_MAX
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, timespec

from infer._core.batch_policy cimport CLOSE_NOW, WAIT_FOR_EVENT, QueueState, decide, takes
from infer._core.capi.pthread cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t,
    pthread_cond_timedwait, pthread_cond_wait, pthread_condattr_destroy, pthread_condattr_init,
    pthread_condattr_setclock, pthread_condattr_t, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_t, pthread_mutex_unlock)
from infer._core.clock cimport now_ns
from infer._core.debug cimport try_calloc, try_malloc
from infer._core.request cimport DONE, QUEUED, RECEIVING, RUNNING, try_transition
from infer._core.tensor_view cimport TYPE_NONE, TensorView

cdef enum:
    SLOTS = 64
    SPARE_BUCKETS = 16


cdef struct Internals:
    pthread_mutex_t mutex
    pthread_cond_t awake


cdef inline Internals *inside(Batcher *batcher) noexcept nogil:
    return <Internals *> batcher.internals


cdef int batcher_init(Batcher *batcher, int executors) noexcept nogil:
    cdef pthread_condattr_t attributes
    memset(batcher, 0, sizeof(Batcher))
    batcher.internals = try_malloc(sizeof(Internals))
    if batcher.internals == NULL:
        return -1
    pthread_mutex_init(&inside(batcher).mutex, NULL)
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(&inside(batcher).awake, &attributes)
    pthread_condattr_destroy(&attributes)
    batcher.executors = executors
    batcher.wait_until_ns = INT64_MAX
    return 0


cdef void batcher_free(Batcher *batcher) noexcept nogil:
    if batcher.internals != NULL:
        pthread_cond_destroy(&inside(batcher).awake)
        pthread_mutex_destroy(&inside(batcher).mutex)
        free(batcher.internals)
        batcher.internals = NULL


cdef VersionQueue *queue_new(Version *version) noexcept nogil:
    cdef VersionQueue *queue = <VersionQueue *> try_calloc(1, sizeof(VersionQueue))
    if queue != NULL:
        queue.version = version
        queue.listed = UNLISTED
    return queue


cdef void queue_free(VersionQueue *queue) noexcept nogil:
    cdef Bucket *bucket
    if queue == NULL:
        return
    while queue.free_buckets != NULL:
        bucket = queue.free_buckets
        queue.free_buckets = bucket.next
        free(bucket)
    free(queue)


# Lists of queues.

cdef void unlist(Batcher *batcher, VersionQueue *queue) noexcept nogil:
    cdef QueueList *where
    if queue.listed == UNLISTED:
        return
    where = &batcher.lists[queue.listed]
    if queue.prev != NULL:
        queue.prev.next = queue.next
    else:
        where.head = queue.next
    if queue.next != NULL:
        queue.next.prev = queue.prev
    else:
        where.tail = queue.prev
    queue.next = queue.prev = NULL
    queue.listed = UNLISTED


cdef void enlist(Batcher *batcher, VersionQueue *queue, int kind) noexcept nogil:
    cdef QueueList *where = &batcher.lists[kind]
    queue.listed = kind
    queue.next = NULL
    queue.prev = where.tail
    if where.tail != NULL:
        where.tail.next = queue
    else:
        where.head = queue
    where.tail = queue


cdef int64_t judge(VersionQueue *queue, int64_t now) noexcept nogil:
    """The policy's word on a queue."""
    cdef QueueState state
    cdef Bucket *bucket = queue.oldest
    state.rows = bucket.rows if bucket != NULL else 0
    state.oldest_ns = bucket.head.queued_ns if bucket != NULL else 0
    state.gather_rows = queue.version.gather_rows
    state.delay_ns = queue.version.delay_ns
    state.buckets = queue.n_buckets
    state.running = queue.running
    state.max_running = queue.version.max_running
    return decide(&state, now)


cdef void relist(Batcher *batcher, VersionQueue *queue, int64_t now) noexcept nogil:
    """Puts the queue at the end of the list that it now belongs to; one that is rightly listed keeps its place."""
    cdef int64_t verdict = judge(queue, now)
    cdef int kind = LIST_DELAYED
    if verdict == WAIT_FOR_EVENT:
        kind = UNLISTED
    elif verdict == CLOSE_NOW:
        kind = LIST_FRESH if queue.running == 0 else LIST_BUSY
    if kind == queue.listed:
        return
    unlist(batcher, queue)
    if kind != UNLISTED:
        enlist(batcher, queue, kind)


# Buckets.

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


cdef void unplace(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    if bucket.prev != NULL:
        bucket.prev.next = bucket.next
    else:
        queue.oldest = bucket.next
    if bucket.next != NULL:
        bucket.next.prev = bucket.prev
    else:
        queue.newest = bucket.prev
    bucket.next = bucket.prev = NULL


cdef void place(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    """Keeps the order by the head's arrival; a head is mostly newer than others, so the search starts at the end."""
    cdef Bucket *before = queue.newest
    while before != NULL and before.head.sequence > bucket.head.sequence:
        before = before.prev
    bucket.prev = before
    if before != NULL:
        bucket.next = before.next
        before.next = bucket
    else:
        bucket.next = queue.oldest
        queue.oldest = bucket
    if bucket.next != NULL:
        bucket.next.prev = bucket
    else:
        queue.newest = bucket


cdef Bucket *bucket_for(VersionQueue *queue, Request *request) noexcept nogil:
    """The bucket of the request's shape, not yet placed if it is new; NULL: no memory."""
    cdef Bucket **slot = &queue.slots[request.shape_hash % SLOTS]
    cdef Bucket *bucket = slot[0]
    while bucket != NULL:
        if bucket.shape_hash == request.shape_hash and (
                not queue.version.signature.batched or same_shape(bucket.head, request)):
            return bucket
        bucket = bucket.chain
    bucket = queue.free_buckets
    if bucket != NULL:
        queue.free_buckets = bucket.next
    else:
        bucket = <Bucket *> try_malloc(sizeof(Bucket))
        if bucket == NULL:
            return NULL
    memset(bucket, 0, sizeof(Bucket))
    bucket.shape_hash = request.shape_hash
    bucket.queue = queue
    bucket.chain = slot[0]
    slot[0] = bucket
    queue.n_buckets += 1
    return bucket


cdef void drop_bucket(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    cdef Bucket **slot = &queue.slots[bucket.shape_hash % SLOTS]
    unplace(queue, bucket)
    while slot[0] != bucket:
        slot = &slot[0].chain
    slot[0] = bucket.chain
    queue.n_buckets -= 1
    if queue.n_buckets < SPARE_BUCKETS:
        bucket.next = queue.free_buckets
        queue.free_buckets = bucket
    else:
        free(bucket)


cdef void unlink(Batcher *batcher, VersionQueue *queue, Bucket *bucket, Request *request) noexcept nogil:
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
    queue.rows -= request.rows
    queue.requests -= 1
    batcher.rows -= request.rows
    batcher.requests -= 1


cdef void settle(VersionQueue *queue, Bucket *bucket) noexcept nogil:
    """Drops a bucket that ran empty, or gives it the place that its new head deserves."""
    if bucket.head == NULL:
        drop_bucket(queue, bucket)
    elif bucket.next != NULL and bucket.head.sequence > bucket.next.head.sequence:
        unplace(queue, bucket)
        place(queue, bucket)


# The loop's side.

cdef bint put(Batcher *batcher, Request *request, VersionQueue *queue, int64_t now) noexcept nogil:
    cdef Bucket *bucket
    cdef bint placed
    pthread_mutex_lock(&inside(batcher).mutex)
    bucket = bucket_for(queue, request)
    if bucket == NULL:
        pthread_mutex_unlock(&inside(batcher).mutex)
        return False
    placed = bucket.head != NULL
    queue.sequence += 1
    request.sequence = queue.sequence
    request.queued_ns = now
    request.bucket = bucket
    request.next = NULL
    request.prev = bucket.tail
    if placed:
        bucket.tail.next = request
    else:
        bucket.head = request
    bucket.tail = request
    bucket.rows += request.rows
    queue.rows += request.rows
    queue.requests += 1
    batcher.rows += request.rows
    batcher.requests += 1
    if not placed:
        place(queue, bucket)
    try_transition(request, RECEIVING, QUEUED)
    if queue.listed != LIST_FRESH and queue.listed != LIST_BUSY:
        relist(batcher, queue, now)
    pthread_mutex_unlock(&inside(batcher).mutex)
    return True


cdef bint remove_queued(Batcher *batcher, Request *request) noexcept nogil:
    cdef Bucket *bucket
    cdef VersionQueue *queue
    pthread_mutex_lock(&inside(batcher).mutex)
    if not try_transition(request, QUEUED, DONE):
        pthread_mutex_unlock(&inside(batcher).mutex)
        return False
    bucket = <Bucket *> request.bucket
    queue = bucket.queue
    unlink(batcher, queue, bucket, request)
    settle(queue, bucket)
    relist(batcher, queue, now_ns())
    pthread_mutex_unlock(&inside(batcher).mutex)
    return True


cdef void set_limits(Batcher *batcher, VersionQueue *queue, int64_t delay_ns, int64_t limit_rows) noexcept nogil:
    pthread_mutex_lock(&inside(batcher).mutex)
    queue.version.delay_ns = delay_ns
    queue.version.queue_limit_rows = limit_rows
    relist(batcher, queue, now_ns())
    pthread_mutex_unlock(&inside(batcher).mutex)


cdef int64_t batches_ready(Batcher *batcher, int64_t enough) noexcept nogil:
    """How many batches could be taken now, counted no further than `enough`."""
    cdef int64_t ready = 0
    cdef int64_t of_one
    cdef int kind
    cdef VersionQueue *queue
    for kind in range(LIST_DELAYED):
        queue = batcher.lists[kind].head
        while queue != NULL and ready < enough:
            of_one = 1 + (queue.rows - 1) // queue.version.gather_rows
            if of_one > queue.version.max_running - queue.running:
                of_one = queue.version.max_running - queue.running
            ready += of_one
            queue = queue.next
    return ready if ready < enough else enough


cdef int64_t earliest_close(Batcher *batcher, int64_t now) noexcept nogil:
    """When the first delayed queue closes its batch; INT64_MAX where none waits. Those that are due are moved over."""
    cdef VersionQueue *queue = batcher.lists[<int> LIST_DELAYED].head
    cdef VersionQueue *following
    cdef int64_t earliest = INT64_MAX
    cdef int64_t verdict
    while queue != NULL:
        following = queue.next
        verdict = judge(queue, now)
        if verdict == CLOSE_NOW:
            relist(batcher, queue, now)
        elif verdict < earliest:
            earliest = verdict
        queue = following
    return earliest


cdef int64_t sleepers_wanted(Batcher *batcher) noexcept nogil:
    """How many sleepers to wake: one for each batch that no wake-up is on its way for; else one to keep the time, where
    a delayed queue closes before any sleeper wakes by itself."""
    cdef int64_t earliest_ns = INT64_MAX
    cdef int64_t ready
    if batcher.idle == 0:
        return 0
    if batcher.lists[<int> LIST_DELAYED].head != NULL:
        earliest_ns = earliest_close(batcher, now_ns())
    ready = batches_ready(batcher, batcher.idle + batcher.signals) - batcher.signals
    if ready > 0:
        return ready
    # One that has been signalled keeps the time itself when it goes back to sleep.
    return batcher.signals == 0 and earliest_ns < batcher.wait_until_ns


cdef void kick(Batcher *batcher) noexcept nogil:
    cdef int64_t wake, _i
    # Without the mutex: the last put took it, so an executor that slept before that put is seen here as idle, and one
    # that goes to sleep later has seen what was put.
    if batcher.idle == 0 or batcher.requests == 0:
        return
    pthread_mutex_lock(&inside(batcher).mutex)
    wake = sleepers_wanted(batcher)
    batcher.idle -= <int32_t> wake
    batcher.signals += <int32_t> wake
    pthread_mutex_unlock(&inside(batcher).mutex)
    for _i in range(wake):
        pthread_cond_signal(&inside(batcher).awake)


# The executors' side.

cdef void sleep_until(Batcher *batcher, int64_t until_ns) noexcept nogil:
    """Sleeps on the condition variable, the mutex held before and after."""
    cdef timespec until
    batcher.idle += 1
    if until_ns == INT64_MAX:
        pthread_cond_wait(&inside(batcher).awake, &inside(batcher).mutex)
    else:
        if until_ns < batcher.wait_until_ns:
            batcher.wait_until_ns = until_ns
        until.tv_sec = until_ns // 1000000000
        until.tv_nsec = until_ns % 1000000000
        pthread_cond_timedwait(&inside(batcher).awake, &inside(batcher).mutex, &until)
        batcher.wait_until_ns = INT64_MAX
    # A signal's sender has counted this sleeper out already; one that wakes by itself counts itself out.
    if batcher.signals > 0:
        batcher.signals -= 1
    else:
        batcher.idle -= 1


cdef int take_from(Batcher *batcher, VersionQueue *queue, Request **requests, int capacity,
                   int64_t *rows) noexcept nogil:
    cdef Bucket *bucket = queue.oldest
    cdef Request *request
    cdef int count = 0
    rows[0] = 0
    while count < capacity and bucket.head != NULL:
        request = bucket.head
        if not takes(rows[0], request.rows, queue.version.gather_rows):
            break
        unlink(batcher, queue, bucket, request)
        try_transition(request, QUEUED, RUNNING)
        rows[0] += request.rows
        requests[count] = request
        count += 1
    settle(queue, bucket)
    return count


cdef int take_batch(Batcher *batcher, Request **requests, int capacity, int64_t *rows, bint block) noexcept nogil:
    cdef VersionQueue *queue
    cdef int64_t now, until
    cdef int count = 0
    pthread_mutex_lock(&inside(batcher).mutex)
    while True:
        now = 0
        until = INT64_MAX
        if batcher.lists[<int> LIST_DELAYED].head != NULL:
            now = now_ns()
            until = earliest_close(batcher, now)
        queue = batcher.lists[<int> LIST_FRESH].head
        if queue == NULL:
            queue = batcher.lists[<int> LIST_BUSY].head
        if queue == NULL and batcher.stopping:
            queue = batcher.lists[<int> LIST_DELAYED].head
        if queue != NULL:
            count = take_from(batcher, queue, requests, capacity, rows)
            queue.running += 1
            unlist(batcher, queue)
            relist(batcher, queue, now if now != 0 else now_ns())
            break
        if not block or batcher.stopping:
            break
        sleep_until(batcher, until)
    # What is left over may be a batch for an executor that still sleeps; and if this one was to keep the time for a
    # delayed queue, another has to. One is enough: it looks again when it has taken its batch.
    if count != 0 and sleepers_wanted(batcher) > 0:
        batcher.idle -= 1
        batcher.signals += 1
        pthread_mutex_unlock(&inside(batcher).mutex)
        pthread_cond_signal(&inside(batcher).awake)
        return count
    pthread_mutex_unlock(&inside(batcher).mutex)
    return count


cdef void complete_batch(Batcher *batcher, Version *version) noexcept nogil:
    cdef VersionQueue *queue = <VersionQueue *> version.queue
    pthread_mutex_lock(&inside(batcher).mutex)
    queue.running -= 1
    relist(batcher, queue, now_ns())
    pthread_mutex_unlock(&inside(batcher).mutex)


cdef void batcher_stop(Batcher *batcher) noexcept nogil:
    pthread_mutex_lock(&inside(batcher).mutex)
    batcher.stopping = 1
    batcher.signals += batcher.idle
    batcher.idle = 0
    pthread_mutex_unlock(&inside(batcher).mutex)
    pthread_cond_broadcast(&inside(batcher).awake)
