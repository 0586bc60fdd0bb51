"""The batcher and its policy as a test drives them: numbered requests in queues of plain versions; not in wheels.

A BatcherBox owns its Requests until they are removed, completed or it goes. Its executors are the test: `take` never
sleeps, and `pretend_asleep` makes the batcher believe in sleepers. `Rush` runs real ones against one producer.
"""

from builtins import hash as builtin_hash

from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint64_t
from libc.string cimport memset

from infer._core.batch_policy cimport CLOSE_NOW as C_CLOSE_NOW, WAIT_FOR_EVENT as C_WAIT_FOR_EVENT, QueueState
from infer._core.batch_policy cimport decide as c_decide, takes as c_takes
from infer._core.batcher cimport HOLD_NS as C_HOLD_NS
from infer._core.batcher cimport (
    Batcher, Taken, batcher_free, batcher_init, batcher_stop, complete_batch, delay_queued, kick, put, remove_queued,
    take_batch)
from infer._core.capi.atomics cimport add_i64, load_relaxed_i64, store_release_i32
from infer._core.clock cimport now_ns
from infer._core.fair_share cimport QUANTUM_NS as C_QUANTUM_NS
from infer._core.lanes cimport LANES as C_LANES, ROW_NS as C_ROW_NS
from infer._core.model_version cimport Version
from infer._core.model_version import LEFT
from infer._core.queue_order cimport VersionQueue, learn, precedes, queue_free, queue_new, run_ns as c_run_ns
from infer._core.quota cimport Tenant
from infer._core.queue_policy cimport LEVEL_STEP_NS as C_LEVEL_STEP_NS, LEVELS_MAX, QueuePolicy
from infer._core.request cimport Request, request_free, request_new
from infer._core.tensor_view cimport TYPE_FP32, TYPE_NONE

cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept

cdef enum:
    TAKE_LIMIT = 1024
    RUSH_BURST = 64
    RUSH_QUEUES = 4
    WATCHDOG_NS = 60000000000

CLOSE_NOW = C_CLOSE_NOW
WAIT_FOR_EVENT = C_WAIT_FOR_EVENT
NEVER_NS = INT64_MAX
LEVEL_STEP_NS = C_LEVEL_STEP_NS
QUANTUM_NS = C_QUANTUM_NS
LANES = C_LANES
HOLD_NS = C_HOLD_NS
ROW_NS = C_ROW_NS


def decide(*, rows: int, oldest_ns: int, gather_rows: int, delay_ns: int, shapes: int, running: int, max_running: int,
           now: int, deadline_ns: int = INT64_MAX, run_ns: int = 0) -> tuple[int, str]:
    """The verdict, and why a batch leaves."""
    cdef QueueState state
    cdef int32_t why
    cdef int64_t verdict
    state.rows = rows
    state.oldest_ns = oldest_ns
    state.deadline_ns = deadline_ns
    state.run_ns = run_ns
    state.gather_rows = gather_rows
    state.delay_ns = delay_ns
    state.shapes = shapes
    state.running = running
    state.max_running = max_running
    verdict = c_decide(&state, now, &why)
    return verdict, LEFT[why]


def takes(batch_rows: int, request_rows: int, gather_rows: int) -> bool:
    return c_takes(batch_rows, request_rows, gather_rows)


def run_ns(took_ns: list[int]) -> int:
    """How long before its deadline a request has to be taken, after batches that took so long."""
    cdef VersionQueue queue
    memset(&queue, 0, sizeof(queue))
    for each in took_ns:
        learn(&queue, each, 1, each)
    return c_run_ns(&queue)


cdef void fill_version(Version *version, int64_t gather_rows, int64_t delay_ns, int max_running, bint batched,
                       int64_t weight) noexcept:
    memset(version, 0, sizeof(Version))
    version.weight = weight
    version.name = b"puppet"
    version.number = b"1"
    version.signature.batched = batched
    version.gather_rows = gather_rows
    version.delay_ns = delay_ns
    version.queue_limit_rows = INT64_MAX
    version.max_running = max_running


cdef class QueueBox:
    """A version's queue. Its box must be told to give up its requests before this goes."""
    cdef Version version
    cdef VersionQueue *queue
    cdef QueuePolicy policy

    def __cinit__(self, gather_rows: int, delay_ns: int = 0, max_running: int = 1, batched: bool = True,
                  levels: int = 0, weight: int = 1):
        if not 0 <= levels <= LEVELS_MAX:
            raise ValueError(levels)
        fill_version(&self.version, gather_rows, delay_ns, max_running, batched, weight)
        memset(&self.policy, 0, sizeof(self.policy))
        self.policy.levels = levels
        self.version.policy = &self.policy
        self.queue = queue_new(&self.version)
        if self.queue == NULL:
            raise MemoryError
        self.version.queue = self.queue

    def __dealloc__(self):
        queue_free(self.queue)

    @property
    def rows(self) -> int:
        return self.queue.rows

    @property
    def requests(self) -> int:
        return self.queue.requests

    @property
    def running(self) -> int:
        return self.queue.running

    @property
    def buckets(self) -> int:
        return self.queue.n_buckets

    @property
    def shapes(self) -> int:
        return self.queue.n_shapes

    @property
    def gather_rows(self) -> int:
        return self.version.gather_rows

    @property
    def run_ns(self) -> int:
        """How long before its deadline a request has to be taken."""
        return c_run_ns(self.queue)

    @property
    def charged_ns(self) -> int:
        """Of executor time, by which versions share it."""
        return self.version.charged_ns

    @property
    def credit_ns(self) -> int:
        return self.queue.share.credit_ns

    @property
    def lanes(self) -> bool:
        """Whether a request had a tenant."""
        return self.queue.lanes != NULL

    @property
    def left(self) -> dict[str, int]:
        """Batches by why they left."""
        cdef int why
        return {LEFT[why]: self.version.left[why] for why in range(len(LEFT))}

    def requests_of(self, level: int) -> int:
        return self.queue.of_level[level]

    @property
    def listed(self) -> int:
        """-1: in no list; else batcher.ListKind."""
        return self.queue.listed


cdef class BatcherBox:
    cdef Batcher batcher
    cdef dict requests           # number -> address
    cdef dict taken              # number -> address
    cdef dict batches            # first number -> what its Taken holds
    cdef list queues             # kept alive for the Versions that Requests point to

    def __cinit__(self, parallel: int = 1, crowded: bool = False):
        self.requests = {}
        self.taken = {}
        self.batches = {}
        self.queues = []
        if batcher_init(&self.batcher, parallel, crowded) != 0:
            raise MemoryError

    def __dealloc__(self):
        for address in (*self.requests.values(), *self.taken.values()):
            request_free(<Request *> <size_t> address)
        batcher_free(&self.batcher)

    def put(self, QueueBox queue, number: int, shape, *, hash=None, outputs: int = 1, noise: int = 0,
            level: int = 0, deadline_ns: int = 0, tenant: tuple[int, int] | None = None) -> bool:
        """Queues a request; `shape` is (rows, ...). It leaves a second, optional input out, with `noise` where that
        input's shape would be."""
        cdef Request *request = request_new()
        cdef Tenant owner
        cdef int k
        if request == NULL:
            raise MemoryError
        if queue not in self.queues:
            self.queues.append(queue)
        request.n_views = 2
        memset(request.views, noise, 2 * sizeof(request.views[0]))
        request.views[0].data_type = TYPE_FP32
        request.views[0].rank = len(shape)
        for k in range(len(shape)):
            request.views[0].shape[k] = shape[k]
        request.views[1].data_type = TYPE_NONE
        request.rows = shape[0]
        request.key.shape = 0 if not queue.version.signature.batched else (
            hash if hash is not None else <uint64_t> abs(builtin_hash(tuple(shape[1:]))) + outputs)
        request.outputs.bits[0] = outputs
        request.level = level
        request.deadline_ns = deadline_ns
        request.call = <void *> <size_t> number
        request.version = &queue.version
        if tenant is not None:
            memset(&owner, 0, sizeof(owner))
            owner.id, owner.weight = tenant
            request.tenant = &owner
        if not put(&self.batcher, request, queue.queue, now_ns()):
            request.tenant = NULL
            request_free(request)
            return False
        request.tenant = NULL
        self.requests[number] = <size_t> request
        return True

    def remove(self, number: int) -> bool:
        """False: it is in a batch. A request that was removed is gone."""
        cdef size_t address = self.requests[number] if number in self.requests else self.taken[number]
        if not remove_queued(&self.batcher, <Request *> address):
            return False
        del self.requests[number]
        request_free(<Request *> address)
        return True

    def delay(self, number: int) -> bool:
        """False: it is in a batch, or there is no memory."""
        cdef size_t address = self.requests[number] if number in self.requests else self.taken[number]
        return delay_queued(&self.batcher, <Request *> address, now_ns())

    def kick(self) -> None:
        kick(&self.batcher)

    def take(self, capacity: int = TAKE_LIMIT):
        """(queue, numbers in order, rows), or None where nothing can close now."""
        cdef Request *requests[TAKE_LIMIT]
        cdef Taken taken
        cdef int i
        cdef int count = take_batch(&self.batcher, requests, capacity, &taken, False)
        if count == 0:
            return None
        numbers = []
        for i in range(count):
            number = <size_t> requests[i].call
            self.taken[number] = self.requests.pop(number)
            numbers.append(number)
        self.batches[numbers[0]] = taken
        for queue in self.queues:
            if &(<QueueBox> queue).version == <Version *> requests[0].version:
                return queue, numbers, taken.rows
        raise AssertionError("a request of no queue")

    def complete(self, QueueBox queue, numbers) -> None:
        """The batch has been published; its requests are gone."""
        cdef Taken taken = self.batches.pop(numbers[0])
        complete_batch(&self.batcher, &queue.version, &taken)
        for number in numbers:
            request_free(<Request *> <size_t> self.taken.pop(number))

    def stop(self) -> None:
        batcher_stop(&self.batcher)

    def pretend_asleep(self, count: int, wait_until_ns: int = INT64_MAX) -> None:
        """As if `count` executors slept and the first to wake by itself did so at `wait_until_ns`."""
        self.batcher.idle = count
        self.batcher.signals = 0
        self.batcher.wait_until_ns = wait_until_ns

    @property
    def idle(self) -> int:
        return self.batcher.idle

    @property
    def signals(self) -> int:
        return self.batcher.signals

    @property
    def rows(self) -> int:
        return self.batcher.rows

    @property
    def request_count(self) -> int:
        return self.batcher.requests


cdef class Rush:
    """Real executors against one producer, without the GIL; the producer waits for each burst to be done, so that the
    next one meets executors on their way to sleep."""
    cdef Batcher batcher
    cdef Version versions[RUSH_QUEUES]
    cdef QueuePolicy policy
    cdef int n_queues
    cdef int64_t finished        # atomic
    cdef int64_t wrong           # atomic
    cdef readonly int64_t removed
    cdef readonly int64_t delayed

    def __cinit__(self, executors: int, queues: int, gather_rows: int, max_running: int, delay_ns: int = 0,
                  levels: int = 0):
        cdef int i
        memset(&self.policy, 0, sizeof(self.policy))
        self.policy.levels = levels
        if not 1 <= queues <= RUSH_QUEUES:
            raise ValueError(queues)
        if batcher_init(&self.batcher, executors, False) != 0:
            raise MemoryError
        for i in range(queues):
            fill_version(&self.versions[i], gather_rows, delay_ns, max_running, True, 1)
            self.versions[i].policy = &self.policy
            self.versions[i].queue = queue_new(&self.versions[i])
            if self.versions[i].queue == NULL:
                raise MemoryError
            self.n_queues += 1

    def __dealloc__(self):
        cdef int i
        for i in range(self.n_queues):
            queue_free(<VersionQueue *> self.versions[i].queue)
        batcher_free(&self.batcher)

    def execute(self) -> int:
        """An executor until `stop`; how many requests it took."""
        cdef Request *requests[TAKE_LIMIT]
        cdef Version *version
        cdef Taken taken
        cdef int64_t total = 0
        cdef int64_t counted
        cdef int count, i
        with nogil:
            while True:
                count = take_batch(&self.batcher, requests, TAKE_LIMIT, &taken, True)
                if count == 0:
                    break
                version = <Version *> requests[0].version
                counted = 0
                for i in range(count):
                    counted += requests[i].rows
                    if (<Version *> requests[i].version != version
                            or requests[i].key.shape != requests[0].key.shape
                            or (i > 0 and not precedes(requests[i - 1], requests[i]))):
                        add_i64(&self.wrong, 1)
                if counted != taken.rows or (count > 1 and taken.rows > version.gather_rows):
                    add_i64(&self.wrong, 1)
                for i in range(count):
                    # A request that is taken twice says so here.
                    if (<int32_t *> &requests[i].call)[0] != 0:
                        add_i64(&self.wrong, 1)
                    store_release_i32(<int32_t *> &requests[i].call, 1)
                complete_batch(&self.batcher, version, &taken)
                total += count
                add_i64(&self.finished, count)
        return total

    def produce(self, total: int, burst: int, cancel_every: int = 0, delay_every: int = 0) -> bool:
        """Puts `total` requests, a kick per burst; with `cancel_every` each such request is removed after the kick,
        with `delay_every` delayed, if still possible. False: a burst was never finished."""
        cdef Request *made[RUSH_BURST]
        cdef int64_t left = total
        cdef int64_t every = cancel_every
        cdef int64_t later = delay_every
        cdef int64_t expected = load_relaxed_i64(&self.finished)
        cdef int64_t number = 0
        cdef int64_t gone = 0
        cdef int64_t put_later = 0
        cdef int64_t began
        cdef int size = burst
        cdef int i, count
        cdef bint served = True
        if not 1 <= size <= RUSH_BURST:
            raise ValueError(burst)
        with nogil:
            while left > 0 and served:
                count = size if left > size else <int> left
                for i in range(count):
                    made[i] = request_new()
                    made[i].n_views = 0
                    made[i].rows = 1 + number % 3
                    made[i].key.shape = <uint64_t> (number % 2)
                    made[i].level = <int32_t> (number % self.policy.levels) + 1 if self.policy.levels else 0
                    made[i].version = &self.versions[number % self.n_queues]
                    number += 1
                    put(&self.batcher, made[i], <VersionQueue *> (<Version *> made[i].version).queue, now_ns())
                kick(&self.batcher)
                expected += count
                if later > 0:
                    for i in range(count):
                        put_later += (number + i) % later == 0 and delay_queued(&self.batcher, made[i], now_ns())
                if every > 0:
                    for i in range(count):
                        if (number + i) % every == 0 and remove_queued(&self.batcher, made[i]):
                            gone += 1
                            expected -= 1
                began = now_ns()
                while load_relaxed_i64(&self.finished) != expected:
                    sched_yield()
                    if now_ns() - began > WATCHDOG_NS:
                        served = False
                        break
                if served:
                    for i in range(count):
                        request_free(made[i])
                left -= count
        self.removed += gone
        self.delayed += put_later
        return served

    def stop(self) -> None:
        batcher_stop(&self.batcher)

    @property
    def executed(self) -> int:
        return load_relaxed_i64(&self.finished)

    @property
    def violations(self) -> int:
        return load_relaxed_i64(&self.wrong)

    @property
    def asleep(self) -> int:
        """Executors asleep or with a wake-up on its way."""
        return self.batcher.idle + self.batcher.signals

    @property
    def rows(self) -> int:
        return self.batcher.rows
