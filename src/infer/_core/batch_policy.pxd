"""When does a batch close? A pure decision over what one queue looks like now; batching is work-conserving.

With a delay of 0 (the default) an idle executor takes what is queued at once, and the next batch gathers while it runs.
With a delay, an incomplete batch waits for more rows until its oldest request has waited that long.
"""

from libc.stdint cimport int64_t

cdef enum:
    CLOSE_NOW = 0

# Nothing will change by waiting: only a put or a completion can.
cdef enum:
    WAIT_FOR_EVENT = -1

cdef struct QueueState:
    int64_t rows                 # that the next batch may choose from: all of one shape
    int64_t oldest_ns            # when the first of them was put
    int64_t gather_rows
    int64_t delay_ns
    int64_t shapes               # that wait; more than one: waiting would hold the others up
    int64_t running
    int64_t max_running

cdef inline int64_t decide(const QueueState *queue, int64_t now) noexcept nogil:
    """CLOSE_NOW, WAIT_FOR_EVENT, or the time (ns) at which to ask again."""
    if queue.rows == 0 or queue.running >= queue.max_running:
        return WAIT_FOR_EVENT
    if queue.rows >= queue.gather_rows or queue.delay_ns == 0 or queue.shapes > 1:
        return CLOSE_NOW
    if now - queue.oldest_ns >= queue.delay_ns:
        return CLOSE_NOW
    return queue.oldest_ns + queue.delay_ns

cdef inline bint takes(int64_t batch_rows, int64_t request_rows, int64_t gather_rows) noexcept nogil:
    """Whether the next request joins a batch that has `batch_rows`: the first always does, others while rows last."""
    return batch_rows == 0 or batch_rows + request_rows <= gather_rows
