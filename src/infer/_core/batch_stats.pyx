"""What a finished batch says of its version. Loop thread; owns nothing."""

from libc.stdint cimport int32_t, int64_t
from posix.time cimport clock_gettime, timespec

from infer._core.codel cimport codel_left
from infer._core.counters cimport observe
from infer._core.model_version cimport SizeStats, size_slot
from infer._core.pace cimport Pace, pace_ended, pace_ran
from infer._core.queue_order cimport VersionQueue
from infer._core.status cimport STATUS_OK


cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_REALTIME_COARSE


cdef int64_t wall_clock_ms() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME_COARSE, &now)
    return <int64_t> now.tv_sec * 1000 + now.tv_nsec // 1000000


cdef void count_runs(VersionEntry entry, const Batch *batch) noexcept:
    """Each run under its number of rows; several, after a bisection, share the batch's time alike. A run's items lie
    together, with failed ones between them."""
    cdef SizeStats *size
    cdef int64_t rows = 0
    cdef int32_t run = 0
    cdef int32_t i
    if batch.n_runs == 0:
        return
    for i in range(batch.n_items + 1):
        if i < batch.n_items and batch.items[i].code != STATUS_OK:
            continue
        if i == batch.n_items or batch.items[i].run != run:
            size = &entry.sizes[min(size_slot(rows), entry.n_sizes - 1)]
            size.runs += 1
            size.gather_ns += (batch.gathered_ns - batch.taken_ns) // batch.n_runs
            size.run_ns += (batch.ran_ns - batch.gathered_ns) // batch.n_runs
            size.scatter_ns += (batch.done_ns - batch.ran_ns) // batch.n_runs
            rows = 0
        if i < batch.n_items:
            run = batch.items[i].run
            rows += batch.items[i].request.rows


cdef void count_batch(VersionEntry entry, const Batch *batch) noexcept:
    cdef Pace *pace = <Pace *> entry.c.pace
    cdef VersionQueue *queue = <VersionQueue *> entry.c.queue
    entry.stats.batches += batch.n_runs
    entry.stats.last_inference_ms = wall_clock_ms()
    observe(&entry.stats.batch_rows, batch.rows)
    count_runs(entry, batch)
    # What was bisected, or failed, is no measure of what runs take.
    if pace != NULL and batch.n_runs == 1:
        pace_ran(pace, batch.rows, batch.done_ns - batch.taken_ns, batch.done_ns)
        pace_ended(pace, batch.rows, batch.done_ns, entry.c.max_running,
                   queue.rows > 0)
        codel_left(&queue.codel, batch.rows, batch.taken_ns - batch.items[batch.n_items - 1].request.queued_ns,
                   batch.done_ns - batch.taken_ns, batch.done_ns)
