"""When does a batch close, and why? A pure decision over what one queue looks like now; batching is work-conserving.

With a delay of 0 (the default) an idle executor takes what is queued at once, and the next batch gathers while it runs.
With a delay, an incomplete batch waits for more rows until its oldest request has waited that long, or until one in it
could not be answered by its deadline any more.
"""

from libc.stdint cimport int32_t, int64_t

cdef enum:
    CLOSE_NOW = 0

# Nothing will change by waiting: only a put or a completion can.
cdef enum:
    WAIT_FOR_EVENT = -1

# Why a batch leaves its queue, the first that holds.
cdef enum Why:
    LEFT_FULL = 0                # it has its rows, or the next request does not fit
    LEFT_SHAPE = 1               # requests of another shape wait, which cannot join it
    LEFT_IDLE = 2                # an executor was free, and there is no delay to wait for
    LEFT_DELAY = 3               # its oldest request has waited for the delay
    LEFT_DEADLINE = 4            # one of its requests has no more time to wait

cdef struct QueueState:
    int64_t rows                 # that the next batch may choose from: all of one shape
    int64_t oldest_ns            # when the first of them was put
    int64_t deadline_ns          # their earliest; INT64_MAX: none has one. Asked for with a delay alone
    int64_t run_ns               # how long before its deadline a request has to be taken
    int64_t gather_rows
    int64_t delay_ns
    int64_t shapes               # that wait; more than one: waiting would hold the others up
    int64_t running
    int64_t max_running

cdef inline int64_t decide(const QueueState *queue, int64_t now, int32_t *why) noexcept nogil:
    """CLOSE_NOW, WAIT_FOR_EVENT, or the time (ns) at which to ask again; `why` a batch leaves now, or will then."""
    cdef int64_t due
    if queue.rows >= queue.gather_rows:
        why[0] = LEFT_FULL
    elif queue.shapes > 1:
        why[0] = LEFT_SHAPE
    else:
        why[0] = LEFT_IDLE
    if queue.rows == 0 or queue.running >= queue.max_running:
        return WAIT_FOR_EVENT
    if why[0] != LEFT_IDLE or queue.delay_ns == 0:
        return CLOSE_NOW
    why[0] = LEFT_DELAY
    due = queue.oldest_ns + queue.delay_ns
    if queue.deadline_ns - queue.run_ns < due:
        why[0] = LEFT_DEADLINE
        due = queue.deadline_ns - queue.run_ns
    return due if now < due else CLOSE_NOW

cdef inline bint takes(int64_t batch_rows, int64_t request_rows, int64_t gather_rows) noexcept nogil:
    """Whether the next request joins a batch that has `batch_rows`: the first always does, others while rows last."""
    return batch_rows == 0 or batch_rows + request_rows <= gather_rows
