"""Queues, bounds and batching of versions. See version_queues.pxd."""

from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free

from infer._core.batcher cimport kick as kick_batcher
from infer._core.batcher cimport set_batching, set_limits
from infer._core.debug cimport try_calloc
from infer._core.fair_share cimport WEIGHT_MAX
from infer._core.pace cimport Pace
from infer._core.queue_order cimport VersionQueue, queue_free, queue_new
from infer._core.queue_policy cimport QueuePolicy, policy_free, policy_new


cdef class VersionQueues(RequestSink):
    """What operators ask of queues."""

    def attach(self, VersionEntry entry not None, cached=None):
        """Gives the version its queue, and with `cached` a part of the cache, whose bounds it has (Cache.attach);
        before a RouteTable that leads to it is set."""
        entry.c.queue = queue_new(&entry.c)
        entry.c.pace = try_calloc(1, sizeof(Pace))
        if entry.c.queue == NULL or entry.c.pace == NULL:
            self.detach(entry)
            raise MemoryError("no memory for the version's queue")
        (<Pace *> entry.c.pace).judges = self.judge_deadlines
        (<VersionQueue *> entry.c.queue).codel.target_ns = self.codel_target_ns
        (<VersionQueue *> entry.c.queue).codel.interval_ns = self.codel_interval_ns
        self.tenants.attach(entry)
        if cached is not None and self.cache is not None:
            try:
                self.cache.attach(entry, **cached)
            except MemoryError:
                self.detach(entry)
                raise

    def detach(self, VersionEntry entry not None):
        """Takes the queue back, and what is kept of it; after the version has drained."""
        if entry.c.cached != NULL:
            self.cache.forget(entry)
        if self.second is not None:
            self.second.forget(entry)
        self.tenants.detach(entry)
        queue_free(<VersionQueue *> entry.c.queue)
        free(entry.c.pace)
        entry.c.queue = entry.c.pace = NULL

    def set_bounds(self, *, int64_t queued_rows, int64_t queued_bytes):
        """What may wait in all queues together."""
        if min(queued_rows, queued_bytes) < 1:
            raise ValueError(f"queued_rows {queued_rows} and queued_bytes {queued_bytes} must be at least 1")
        self.bounds.rows = queued_rows
        self.bounds.bytes = queued_bytes

    def set_limits(self, VersionEntry entry not None, *, int64_t delay_ns, int64_t queue_limit_rows,
                   int64_t queue_limit_bytes=INT64_MAX, int64_t weight=1, int default_level=0, policies=()):
        """Other bounds for an attached version; they count for requests that wait as well, but for how long they may
        wait and what becomes of them then. The levels stay: a queue has its requests in their order."""
        cdef QueuePolicy *policy
        if delay_ns < 0 or min(queue_limit_rows, queue_limit_bytes) < 1 or not 0 < weight <= WEIGHT_MAX:
            raise ValueError(f"{entry!r}: delay_ns {delay_ns} must be at least 0, queue_limit_rows {queue_limit_rows} "
                             f"and queue_limit_bytes {queue_limit_bytes} at least 1, weight {weight} from 1 to "
                             f"{WEIGHT_MAX}")
        if entry.c.queue == NULL:
            raise ValueError(f"{entry!r} is not attached")
        policy = policy_new(entry.levels, default_level, policies)
        policy_free(entry.c.policy)
        entry.c.policy = policy
        entry.c.queue_limit_bytes = queue_limit_bytes
        set_limits(&self.pool.batcher, <VersionQueue *> entry.c.queue, delay_ns if entry.c.signature.batched else 0,
                   queue_limit_rows, weight)
        self.kick()

    def set_adaptive_rows(self, VersionEntry entry not None, int64_t rows):
        """How many rows of an attached version may wait beside its bound; 0: as many as that. Nothing that waits is
        refused."""
        if rows < 0 or entry.c.queue == NULL:
            raise ValueError(f"{entry!r} must be attached, rows {rows} at least 0")
        entry.c.adaptive_rows = rows

    def set_batching(self, VersionEntry entry not None, *, int64_t gather_rows, int64_t delay_ns):
        """What an attached version that is batched gathers, and how long a batch may wait; for what waits as well."""
        if entry.c.queue == NULL or not entry.c.signature.batched or gather_rows < 1 or delay_ns < 0:
            raise ValueError(f"{entry!r} must be attached and batched, gather_rows {gather_rows} at least 1, delay_ns "
                             f"{delay_ns} at least 0")
        set_batching(&self.pool.batcher, <VersionQueue *> entry.c.queue, gather_rows, delay_ns)
        self.kick()

    def queued_rows_of(self, VersionEntry entry not None):
        """Rows that wait in the version's queue."""
        return (<VersionQueue *> entry.c.queue).rows if entry.c.queue != NULL else 0

    def queued_bytes_of(self, VersionEntry entry not None):
        """Bytes of the messages that wait in the version's queue."""
        return (<VersionQueue *> entry.c.queue).bytes if entry.c.queue != NULL else 0

    @property
    def queued_rows(self):
        return self.pool.batcher.rows

    @property
    def queued_requests(self):
        return self.pool.batcher.requests

    cdef void kick(self) noexcept:
        kick_batcher(&self.pool.batcher)
