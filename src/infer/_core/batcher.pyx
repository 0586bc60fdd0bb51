"""Queues of versions: put by the loop, taken by executors, under one short mutex.

Memory: of Requests and queues none is owned here, they are only linked. Threads: `put`, `remove_queued`, `delay_queued`
and `kick` are the loop's, `take_batch` and `complete_batch` the executors'.

Design note. What of a queue makes the next batch is queue_order's to say, when it closes batch_policy's, and who has
credit for an executor fair_share's. A queue with rows stands in exactly one list. Those that have credit are served in
turn, then a round begins. Where as many batches run as there are cores, further executors only divide these: none is
lent to a version without credit while one that has credit runs already and has more waiting, or weights would come to
nothing on a machine with fewer cores than executors. It is free again when that one's batch completes, or has run for
HOLD_NS: a run that hangs holds up nobody else.
There a batch is charged what its thread had of a core; where asking the kernel for that would cost more than it tells,
the part that it had if all that ran had the cores alike.
`idle` counts executors asleep less the signals on their way, so that a burst of
kicks wakes each executor once.
"""

from libc.stdlib cimport free
from libc.stdint cimport INT64_MAX, int32_t
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec

from infer._core.batch_policy cimport CLOSE_NOW, WAIT_FOR_EVENT, QueueState, decide
from infer._core.capi.pthread cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t,
    pthread_cond_timedwait, pthread_cond_wait, pthread_condattr_destroy, pthread_condattr_init,
    pthread_condattr_setclock, pthread_condattr_t, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_t, pthread_mutex_unlock)
from infer._core.clock cimport now_ns
from infer._core.debug cimport try_malloc
from infer._core.fair_share cimport renew, reserve, rounds_to_credit, settle
from infer._core.queue_order cimport (
    UNLISTED, Bucket, dequeue, enqueue, front_deadline, front_rows, learn, put_behind, run_ns, take_in_turn)
from infer._core.request cimport DONE, QUEUED, RECEIVING, try_transition

cdef enum:
    LONG_NS = 500000             # a batch of a version whose batches take longer is worth looks at the thread's clock

cdef struct Internals:
    pthread_mutex_t mutex
    pthread_cond_t awake


cdef struct Counts:
    int64_t rows
    int64_t requests
    int64_t bytes


cdef inline Internals *inside(Batcher *batcher) noexcept nogil:
    return <Internals *> batcher.internals


cdef int batcher_init(Batcher *batcher, int parallel, bint crowded) noexcept nogil:
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
    batcher.parallel = parallel
    batcher.crowded = crowded
    batcher.round = 1
    batcher.wait_until_ns = INT64_MAX
    return 0


cdef void batcher_free(Batcher *batcher) noexcept nogil:
    if batcher.internals != NULL:
        pthread_cond_destroy(&inside(batcher).awake)
        pthread_mutex_destroy(&inside(batcher).mutex)
        free(batcher.internals)
        batcher.internals = NULL


cdef int64_t cpu_ns() noexcept nogil:
    """What this thread has had of a core."""
    cdef timespec now
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


# Counts over all queues.

cdef inline Counts counts_of(const VersionQueue *queue) noexcept nogil:
    cdef Counts counts
    counts.rows = queue.rows
    counts.requests = queue.requests
    counts.bytes = queue.bytes
    return counts


cdef inline void recount(Batcher *batcher, const VersionQueue *queue, const Counts *before) noexcept nogil:
    batcher.rows += queue.rows - before.rows
    batcher.requests += queue.requests - before.requests
    batcher.bytes += queue.bytes - before.bytes


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


cdef int64_t judge(VersionQueue *queue, int64_t now, int32_t *why) noexcept nogil:
    """The policy's word on a queue."""
    cdef QueueState state
    state.rows = front_rows(queue, &state.oldest_ns)
    state.deadline_ns = INT64_MAX
    state.run_ns = 0
    if queue.version.delay_ns > 0 and 0 < state.rows < queue.version.gather_rows:
        state.deadline_ns = front_deadline(queue)
        state.run_ns = run_ns(queue)
    state.gather_rows = queue.version.gather_rows
    state.delay_ns = queue.version.delay_ns
    state.shapes = queue.n_shapes
    state.running = queue.running
    state.max_running = queue.version.max_running
    return decide(&state, now, why)


cdef void relist(Batcher *batcher, VersionQueue *queue, int64_t now) noexcept nogil:
    """Puts the queue at the end of the list that it now belongs to; one that is rightly listed keeps its place."""
    cdef int32_t why
    cdef int64_t verdict = judge(queue, now, &why)
    cdef int kind = LIST_DELAYED
    if verdict == WAIT_FOR_EVENT:
        kind = LIST_SATURATED if queue.rows > 0 else UNLISTED
    elif verdict == CLOSE_NOW:
        if not renew(&queue.share, batcher.round, queue.version.weight):
            kind = LIST_SPENT
        else:
            kind = LIST_FRESH if queue.running == 0 else LIST_BUSY
    if kind == queue.listed:
        return
    unlist(batcher, queue)
    if kind != UNLISTED:
        enlist(batcher, queue, kind)


# Shares of executors.

cdef inline void put_forward(Batcher *batcher, int64_t now) noexcept nogil:
    """Brings the clock of compute time to `now`, before the number of running batches changes."""
    cdef int64_t passed_ns = now - batcher.compute_at_ns
    batcher.compute_at_ns = now
    if batcher.running > batcher.parallel:
        passed_ns = passed_ns * batcher.parallel // batcher.running
    batcher.compute_ns += passed_ns


cdef int64_t fewest_rounds(Batcher *batcher) noexcept nogil:
    """Until one of those that may run has credit; INT64_MAX: there are none."""
    cdef VersionQueue *queue = batcher.lists[<int> LIST_SPENT].head
    cdef int64_t fewest = INT64_MAX
    while queue != NULL and fewest > 0:
        fewest = min(fewest, rounds_to_credit(&queue.share, batcher.round, queue.version.weight))
        queue = queue.next
    return fewest


cdef int64_t rounds_of_running(Batcher *batcher, int64_t *until_ns) noexcept nogil:
    """Until a version has credit that has a core and waits for its own batch; 0: those without credit have to wait for
    it, until `until_ns` at the latest. INT64_MAX: nobody does, or there are cores for more."""
    cdef VersionQueue *queue = batcher.lists[<int> LIST_SATURATED].head
    cdef int64_t fewest = INT64_MAX
    cdef int64_t rounds, now
    until_ns[0] = 0
    if batcher.running < batcher.parallel or queue == NULL:
        return INT64_MAX
    now = now_ns()
    while queue != NULL:
        if queue.taken_ns + HOLD_NS > now:
            rounds = rounds_to_credit(&queue.share, batcher.round, queue.version.weight)
            fewest = min(fewest, rounds)
            if rounds == 0:
                until_ns[0] = max(until_ns[0], queue.taken_ns + HOLD_NS)
        queue = queue.next
    return fewest


cdef int64_t begin_round(Batcher *batcher) noexcept nogil:
    """With nobody left who has credit and may run: as many rounds as it takes until somebody has, moved over. When to
    try again at the latest, where others are waited for; else INT64_MAX."""
    cdef VersionQueue *queue = batcher.lists[<int> LIST_SPENT].head
    cdef VersionQueue *following
    cdef int64_t rounds, until_ns
    if queue == NULL:
        return INT64_MAX
    rounds = rounds_of_running(batcher, &until_ns)
    if rounds == 0:
        return until_ns
    batcher.round += min(rounds, fewest_rounds(batcher))
    while queue != NULL:
        following = queue.next
        if renew(&queue.share, batcher.round, queue.version.weight):
            unlist(batcher, queue)
            enlist(batcher, queue, LIST_FRESH if queue.running == 0 else LIST_BUSY)
        queue = following
    return INT64_MAX


cdef VersionQueue *next_in_line(Batcher *batcher) noexcept nogil:
    if batcher.lists[<int> LIST_FRESH].head != NULL:
        return batcher.lists[<int> LIST_FRESH].head
    return batcher.lists[<int> LIST_BUSY].head


# The loop's side.

cdef bint put(Batcher *batcher, Request *request, VersionQueue *queue, int64_t now) noexcept nogil:
    cdef Counts before
    pthread_mutex_lock(&inside(batcher).mutex)
    before = counts_of(queue)
    if not enqueue(queue, request, now):
        pthread_mutex_unlock(&inside(batcher).mutex)
        return False
    recount(batcher, queue, &before)
    try_transition(request, RECEIVING, QUEUED)
    # One that may run keeps its place, and one that may not waits for a completion.
    if queue.listed <= LIST_DELAYED:
        relist(batcher, queue, now)
    pthread_mutex_unlock(&inside(batcher).mutex)
    return True


cdef bint remove_queued(Batcher *batcher, Request *request) noexcept nogil:
    cdef VersionQueue *queue
    cdef Counts before
    pthread_mutex_lock(&inside(batcher).mutex)
    if not try_transition(request, QUEUED, DONE):
        pthread_mutex_unlock(&inside(batcher).mutex)
        return False
    queue = (<Bucket *> request.bucket).queue
    before = counts_of(queue)
    dequeue(request)
    recount(batcher, queue, &before)
    relist(batcher, queue, now_ns())
    pthread_mutex_unlock(&inside(batcher).mutex)
    return True


cdef bint delay_queued(Batcher *batcher, Request *request, int64_t now) noexcept nogil:
    cdef bint moved
    pthread_mutex_lock(&inside(batcher).mutex)
    # Whoever unlinks it says so under this mutex.
    moved = request.bucket != NULL and put_behind(request, now)
    if moved:
        relist(batcher, (<Bucket *> request.bucket).queue, now)
    pthread_mutex_unlock(&inside(batcher).mutex)
    return moved


cdef void set_limits(
        Batcher *batcher, VersionQueue *queue, int64_t delay_ns, int64_t limit_rows, int64_t weight) noexcept nogil:
    pthread_mutex_lock(&inside(batcher).mutex)
    queue.version.delay_ns = delay_ns
    queue.version.queue_limit_rows = limit_rows
    queue.version.weight = weight
    relist(batcher, queue, now_ns())
    pthread_mutex_unlock(&inside(batcher).mutex)


cdef void set_max_running(Batcher *batcher, VersionQueue *queue, int32_t max_running) noexcept nogil:
    pthread_mutex_lock(&inside(batcher).mutex)
    queue.version.max_running = max_running
    relist(batcher, queue, now_ns())
    pthread_mutex_unlock(&inside(batcher).mutex)


cdef void set_batching(Batcher *batcher, VersionQueue *queue, int64_t gather_rows, int64_t delay_ns) noexcept nogil:
    pthread_mutex_lock(&inside(batcher).mutex)
    queue.version.gather_rows = gather_rows
    queue.version.delay_ns = delay_ns
    relist(batcher, queue, now_ns())
    pthread_mutex_unlock(&inside(batcher).mutex)


cdef int64_t batches_ready(Batcher *batcher, int64_t enough, int64_t *later_ns) noexcept nogil:
    """How many batches could be taken now, counted no further than `enough`. `later_ns`: when others can be, at the
    latest; INT64_MAX: there are none."""
    cdef int64_t ready = 0
    cdef int64_t of_one, until_ns
    cdef int kind
    cdef VersionQueue *queue
    later_ns[0] = INT64_MAX
    for kind in range(LIST_FRESH, LIST_SATURATED):
        queue = batcher.lists[kind].head
        if (kind == LIST_SPENT and queue != NULL and ready < enough
                and rounds_of_running(batcher, &until_ns) == 0):
            later_ns[0] = until_ns
            break
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
    cdef int32_t why
    while queue != NULL:
        following = queue.next
        verdict = judge(queue, now, &why)
        if verdict == CLOSE_NOW:
            relist(batcher, queue, now)
        elif verdict < earliest:
            earliest = verdict
        queue = following
    return earliest


cdef int64_t sleepers_wanted(Batcher *batcher) noexcept nogil:
    """How many sleepers to wake: one for each batch that no wake-up is on its way for; else one to keep the time, where
    a batch can be taken before any sleeper wakes by itself."""
    cdef int64_t earliest_ns = INT64_MAX
    cdef int64_t ready, later_ns
    if batcher.idle == 0:
        return 0
    if batcher.lists[<int> LIST_DELAYED].head != NULL:
        earliest_ns = earliest_close(batcher, now_ns())
    ready = batches_ready(batcher, batcher.idle + batcher.signals, &later_ns) - batcher.signals
    if ready > 0:
        return ready
    earliest_ns = min(earliest_ns, later_ns)
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


cdef int take_batch(Batcher *batcher, Request **requests, int capacity, Taken *taken, bint block) noexcept nogil:
    cdef VersionQueue *queue
    cdef Counts before
    cdef int64_t now, until
    cdef int32_t why
    cdef int count = 0
    pthread_mutex_lock(&inside(batcher).mutex)
    while True:
        now = 0
        until = INT64_MAX
        if batcher.lists[<int> LIST_DELAYED].head != NULL:
            now = now_ns()
            until = earliest_close(batcher, now)
        queue = next_in_line(batcher)
        if queue == NULL:
            until = min(until, begin_round(batcher))
            queue = next_in_line(batcher)
        if queue == NULL and batcher.stopping:
            queue = batcher.lists[<int> LIST_DELAYED].head
        if queue != NULL:
            taken.at_ns = now if now != 0 else now_ns()
            judge(queue, taken.at_ns, &why)
            before = counts_of(queue)
            count = take_in_turn(queue, requests, capacity, &taken.rows, taken.at_ns, &why)
            recount(batcher, queue, &before)
            unlist(batcher, queue)
            if count == 0:
                relist(batcher, queue, taken.at_ns)
                continue
            queue.version.left[why] += 1
            put_forward(batcher, taken.at_ns)
            taken.compute_ns = batcher.compute_ns
            taken.cpu_ns = cpu_ns() if batcher.crowded and queue.took_ns > LONG_NS else 0
            batcher.running += 1
            queue.running += 1
            reserve(&queue.share)
            relist(batcher, queue, taken.at_ns)
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


cdef void complete_batch(Batcher *batcher, Version *version, const Taken *taken) noexcept nogil:
    cdef VersionQueue *queue = <VersionQueue *> version.queue
    cdef int64_t now, charged_ns
    cdef int64_t used_ns = cpu_ns() - taken.cpu_ns if taken.cpu_ns != 0 else 0
    pthread_mutex_lock(&inside(batcher).mutex)
    now = now_ns()
    put_forward(batcher, now)
    charged_ns = used_ns if taken.cpu_ns != 0 else batcher.compute_ns - taken.compute_ns
    settle(&queue.share, charged_ns, queue.running)
    version.charged_ns += charged_ns
    batcher.running -= 1
    queue.running -= 1
    learn(queue, now - taken.at_ns, taken.rows, charged_ns)
    relist(batcher, queue, now)
    pthread_mutex_unlock(&inside(batcher).mutex)


cdef void batcher_stop(Batcher *batcher) noexcept nogil:
    pthread_mutex_lock(&inside(batcher).mutex)
    batcher.stopping = 1
    batcher.signals += batcher.idle
    batcher.idle = 0
    pthread_mutex_unlock(&inside(batcher).mutex)
    pthread_cond_broadcast(&inside(batcher).awake)
