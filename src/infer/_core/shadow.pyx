"""Shadows and what they share: the bounds, and the lane that runs their copies.

Design note. A copy is made as the primary's reply is handed to its transport, and given to the lane by a callback of
the loop, when that reply has been written. From then on the loop has nothing to do with it until it has been compared.
The queue is the loop's alone, and so an end takes back at once what waits; the one group that the lane has is all that
an unload may have to wait for, and it is told to stop.
What is dropped is the copy that comes when there is no room: those that wait are as good as any.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport ldexp
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from infer._core.arena cimport allocate, at, offset_of, release, shared_arena
from infer._core.batch cimport batch_free
from infer._core.block cimport block_ref, block_unref
from infer._core.capi.atomics cimport load_acquire_i32, store_release_i32
from infer._core.debug cimport try_calloc
from infer._core.difference cimport described
from infer._core.draw cimport draw
from infer._core.grpc_message cimport PREFIX_BYTES
from infer._core.model_version cimport drop_handle, take_handle
from infer._core.reply cimport encode_tail, item_slices, tail_bytes
from infer._core.request cimport request_free, request_new, request_reserve_views
from infer._core.ring cimport waker_acknowledge, waker_arm, waker_close, waker_open
from infer._core.shadow_lane cimport (
    COPY_AGREES, COPY_DIFFERS, COPY_FAILED, GROUP_COPIES, LANE_ENDED, LANE_FREE, lane_close, lane_give,
    lane_interrupt, lane_open, lane_start, lane_stop)
from infer._core.tap cimport add_tap, remove_tap
from infer._core.tensor cimport OutputSlice

cdef enum:
    WORST_PAIRS = 8
    WORST_BYTES = 65536          # a reply no larger is kept whole
    ARENA_SHARE = 2              # no copy is made while more than half of the arena is in use

# In the order of Drop.
DROP_NAMES = ("copies", "bytes", "memory", "ended")
# Between two attempts to stop a run.
AGAIN_SECONDS = 0.01


cdef uint64_t threshold_of(double fraction) except? 0:
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction {fraction} of a shadow must be above 0 and at most 1")
    return UINT64_MAX if fraction == 1 else <uint64_t> ldexp(fraction, 64)


cdef VersionEntry twin_of(VersionEntry entry):
    """The same session and tensors; counters of its own. Not to be run once `entry` has drained."""
    cdef VersionEntry twin = VersionEntry(
        entry.name.decode(), entry.version, None, entry.inputs, entry.outputs, batched=entry.batched,
        max_rows=entry.max_rows, gather_rows=entry.gather_rows, delay_ns=0, queue_limit_rows=1, max_running=1,
        properties=entry.properties)
    twin.c.session = entry.c.session
    return twin


@cython.final
cdef class Shadow(Tap):
    """A version that has copies of what others answer. Made and ended by a ShadowPool."""

    def __cinit__(self):
        self.outputs = NULL
        self.head = self.tail = NULL
        self.worst = []

    def __dealloc__(self):
        free(self.outputs)

    def drops(self):
        """Copies that were not made or not run, by why."""
        return {name: self.dropped[kind] for kind, name in enumerate(DROP_NAMES)}

    def outputs_compared(self):
        """By output of the target what came of the comparison (difference.described)."""
        cdef int i
        return {self.target.outputs[i].name: described(&self.outputs[i])
                for i in range(self.target.c.signature.n_outputs) if self.outputs[i].compared}

    cdef void offer(self, Request *request, const Segment *segments, int n_segments) noexcept:
        cdef Copy *copy
        self.drawn += 1
        if draw(self.drawn) > self.threshold or self.target.c.closing:
            return
        self.picked += 1
        copy = self.pool.copy_of(self, request, segments, n_segments)
        if copy == NULL:
            return
        if self.tail != NULL:
            self.tail.next = copy
        else:
            self.head = copy
        self.tail = copy
        self.waiting += 1
        self.pool.copies += 1
        if not self.pool.due and self.pool.given is None:
            self.pool.due = True
            self.pool.loop.call_soon(self.pool.give)

    cdef Copy *take(self) noexcept:
        """The one that waits longest, or NULL."""
        cdef Copy *copy = self.head
        if copy != NULL:
            self.head = copy.next
            if self.head == NULL:
                self.tail = NULL
            self.waiting -= 1
            self.pool.copies -= 1
        return copy

    cdef void leave(self) noexcept:
        """Drops what waits."""
        cdef Copy *copy = self.take()
        while copy != NULL:
            self.dropped[<int> DROPPED_ENDED] += 1
            self.pool.drop(copy)
            copy = self.take()

    cdef void keep_worst(self, Copy *copy) noexcept:
        """Where it differs more than one that is kept: its id and, unless they are large, both replies."""
        cdef bytes primary = None
        cdef bytes own = None
        cdef uint64_t size = 0
        cdef int i
        if len(self.worst) == WORST_PAIRS and copy.badness <= self.worst[WORST_PAIRS - 1][0]:
            return
        for i in range(copy.n_segments):
            size += copy.segments[i].size_bytes
        if size - PREFIX_BYTES <= WORST_BYTES:
            primary = joined(copy, size)
            own = encoded(self.twin, copy)
        identity = (<const char *> at(copy.request.id_offset))[:copy.request.id_bytes] if copy.request.id_bytes else b""
        self.worst.append((copy.badness, identity.decode("utf-8", "replace"), primary, own))
        self.worst.sort(key=badness_of, reverse=True)
        del self.worst[WORST_PAIRS:]


def badness_of(tuple pair):
    return pair[0]


cdef bytes joined(const Copy *copy, uint64_t size_bytes):
    """The primary's reply without its prefix."""
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size_bytes)
    cdef char *to = PyBytes_AS_STRING(whole)
    cdef int i
    for i in range(copy.n_segments):
        memcpy(to, copy.segments[i].data, copy.segments[i].size_bytes)
        to += copy.segments[i].size_bytes
    return whole[PREFIX_BYTES:]


cdef bytes encoded(VersionEntry twin, const Copy *copy):
    """The shadow's reply; None: it is large."""
    cdef OutputSlice slices[256]
    cdef Request *request = copy.request
    cdef uint64_t size
    cdef bytes tail
    item_slices(copy.batch, copy.item, &request.outputs, slices)
    size = tail_bytes(&twin.c.signature, &request.outputs, slices, request.rows)
    if size > WORST_BYTES:
        return None
    tail = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
    encode_tail(<uint8_t *> PyBytes_AS_STRING(tail), &twin.c.signature, &request.outputs, slices, request.rows)
    return twin.prefix + tail


@cython.final
cdef class ShadowPool:
    """All shadows of a server. `on_wake` is to be called when `eventfd` becomes readable."""

    def __cinit__(self, loop, *, int64_t max_copies, int64_t max_bytes):
        self.waker.eventfd = -1
        if min(max_copies, max_bytes) < 1:
            raise ValueError(f"max_copies {max_copies} and max_bytes {max_bytes} must be at least 1")
        self.loop = loop
        self.max_copies = max_copies
        self.max_bytes = max_bytes
        self.shadows = []
        self.given = None
        self.lane = <Lane *> calloc(1, sizeof(Lane))
        if self.lane == NULL or waker_open(&self.waker) != 0 or lane_open(self.lane, &self.waker) != 0:
            raise MemoryError("no memory for shadows")
        waker_arm(&self.waker)

    def __dealloc__(self):
        if self.lane != NULL:
            lane_close(self.lane)
            free(self.lane)
        waker_close(&self.waker)

    @property
    def eventfd(self):
        """Readable when the lane has done its part; belongs to the pool."""
        return self.waker.eventfd

    # Shadows.

    def begin(self, VersionEntry target not None, tuple primaries not None, *, double fraction, double rtol,
              double atol):
        """From now on `target` has a copy of that fraction of what `primaries` answer."""
        cdef Shadow shadow = Shadow.__new__(Shadow)
        shadow.threshold = threshold_of(fraction)
        shadow.outputs = <OutputStats *> try_calloc(max(1, target.c.signature.n_outputs), sizeof(OutputStats))
        if shadow.outputs == NULL:
            raise MemoryError("no memory for the counts of a shadow")
        shadow.pool = self
        shadow.target = target
        shadow.twin = twin_of(target)
        shadow.fraction = fraction
        shadow.rtol = rtol
        shadow.atol = atol
        shadow.primaries = ()
        self.shadows.append(shadow)
        self.copy_from(shadow, primaries)
        return shadow

    def copy_from(self, Shadow shadow not None, tuple primaries not None):
        """Others that it has its copies from."""
        for entry in shadow.primaries:
            remove_tap(<VersionEntry> entry, shadow)
        shadow.primaries = primaries
        for entry in primaries:
            add_tap(<VersionEntry?> entry, shadow)

    def set_fraction(self, Shadow shadow not None, double fraction):
        shadow.threshold = threshold_of(fraction)
        shadow.fraction = fraction

    def end(self, Shadow shadow not None):
        """It has no more copies, and those that wait are dropped. What the lane has of it is told to stop."""
        if shadow.ended:
            return
        self.copy_from(shadow, ())
        store_release_i32(&shadow.ended, 1)
        shadow.leave()
        self.shadows.remove(shadow)
        if self.given is shadow:
            self.stop_run()

    def stop_run(self):
        """Tells the run of a shadow that has ended to end too."""
        if self.given is None or not self.given.ended or load_acquire_i32(&self.lane.state) == LANE_ENDED:
            return
        lane_interrupt(self.lane)
        # One that was just beginning was not seen yet.
        self.loop.call_later(AGAIN_SECONDS, self.stop_run)

    # Copies.

    cdef Copy *copy_of(self, Shadow shadow, Request *request, const Segment *segments, int n_segments) noexcept:
        """A copy that nothing is done with yet; NULL: there is no room, which is counted."""
        cdef uint64_t total = sizeof(Copy) + <uint64_t> n_segments * sizeof(Segment)
        cdef int64_t held = <int64_t> request.body.capacity_bytes
        cdef int kind = -1
        cdef uint64_t offset
        cdef Request *own
        cdef Copy *copy
        cdef int i
        for i in range(n_segments):
            if i == 0 or segments[i].block != segments[i - 1].block:
                held += <int64_t> segments[i].block.capacity_bytes
        if self.copies >= self.max_copies:
            kind = DROPPED_COPIES
        elif self.bytes + held > self.max_bytes:
            kind = DROPPED_BYTES
        elif shared_arena().live_bytes > <int64_t> (shared_arena().limit_bytes // ARENA_SHARE):
            kind = DROPPED_MEMORY
        if kind >= 0:
            shadow.dropped[kind] += 1
            return NULL
        own = request_new()
        offset = allocate(total) if own != NULL else 0
        if offset == 0 or not request_reserve_views(own, shadow.twin.c.signature.n_inputs):
            release(offset, total)
            if own != NULL:
                request_free(own)
            shadow.dropped[<int> DROPPED_MEMORY] += 1
            return NULL
        block_ref(request.body)
        own.body = request.body
        own.body_start = request.body_start
        own.body_bytes = request.body_bytes
        own.id_offset = request.id_offset
        own.id_bytes = request.id_bytes
        own.version = <void *> shadow.twin
        copy = <Copy *> at(offset)
        copy.next = NULL
        copy.request = own
        copy.segments = <Segment *> (<uint8_t *> copy + sizeof(Copy))
        copy.allocated_bytes = total
        copy.held_bytes = <uint64_t> held
        copy.n_segments = n_segments
        copy.outcome = copy.item = 0
        copy.batch = NULL
        copy.badness = 0
        for i in range(n_segments):
            copy.segments[i] = segments[i]
            block_ref(segments[i].block)
        self.bytes += held
        return copy

    cdef void drop(self, Copy *copy) noexcept:
        """Gives back what it holds."""
        cdef int i
        self.bytes -= <int64_t> copy.held_bytes
        for i in range(copy.n_segments):
            block_unref(copy.segments[i].block)
        request_free(copy.request)
        release(offset_of(copy), copy.allocated_bytes)

    # The lane.

    def give(self):
        """Gives the lane the copies of the next shadow that has some."""
        cdef Shadow shadow
        cdef int _i
        self.due = False
        if self.given is not None:
            return
        for _i in range(len(self.shadows)):
            self.turn = self.turn + 1 if self.turn + 1 < len(self.shadows) else 0
            shadow = self.shadows[self.turn]
            if shadow.head != NULL and shadow.target.c.closing:
                shadow.leave()
            if shadow.head == NULL:
                continue
            self.lane.group.version = &shadow.twin.c
            self.lane.group.tolerance.rtol = shadow.rtol
            self.lane.group.tolerance.atol = shadow.atol
            self.lane.group.outputs = shadow.outputs
            self.lane.group.ended = &shadow.ended
            self.lane.group.n_copies = self.lane.group.n_batches = 0
            self.lane.group.failure.size_bytes = 0
            while self.lane.group.n_copies < GROUP_COPIES and shadow.head != NULL:
                self.lane.group.copies[self.lane.group.n_copies] = shadow.take()
                self.lane.group.n_copies += 1
            # Dropped in `collect`.
            take_handle(shadow.target)
            self.given = shadow
            lane_give(self.lane)
            return

    def on_wake(self):
        """Takes what the lane has done, and gives it more."""
        waker_acknowledge(&self.waker)
        if load_acquire_i32(&self.lane.state) == LANE_ENDED:
            self.collect()
        waker_arm(&self.waker)
        self.give()
        if load_acquire_i32(&self.lane.state) == LANE_ENDED:
            # Published before the waker was armed.
            self.collect()
            self.give()

    cdef void collect(self) noexcept:
        cdef Shadow shadow = self.given
        cdef Copy *copy
        cdef int i
        for i in range(self.lane.group.n_copies):
            copy = self.lane.group.copies[i]
            if copy.outcome == COPY_AGREES:
                shadow.agreed += 1
            elif copy.outcome == COPY_DIFFERS:
                shadow.differed += 1
                shadow.keep_worst(copy)
            elif copy.outcome == COPY_FAILED:
                shadow.failed += 1
            else:
                shadow.dropped[<int> DROPPED_ENDED] += 1
            self.drop(copy)
        for i in range(self.lane.group.n_batches):
            batch_free(self.lane.group.batches[i])
        if self.lane.group.failure.size_bytes > 0:
            shadow.failure = self.lane.group.failure.text[:self.lane.group.failure.size_bytes].decode(
                "utf-8", "replace")
        store_release_i32(&self.lane.state, LANE_FREE)
        self.given = None
        drop_handle(shadow.target)

    # Its life.

    def start(self):
        """Starts the lane's thread, infer-shadow."""
        cdef int failed = lane_start(self.lane)
        if failed:
            raise OSError(failed, "cannot start the thread of shadows")

    def stop(self):
        """Ends every shadow, and the thread, which is waited for."""
        for shadow in list(self.shadows):
            self.end(shadow)
        with nogil:
            lane_stop(self.lane)
        if load_acquire_i32(&self.lane.state) == LANE_ENDED:
            self.collect()
