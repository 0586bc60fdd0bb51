"""Loops over the lowest layers, without the GIL, for bench/micro; not in wheels.

Each returns the nanoseconds it took.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset

from infer._core.arena cimport allocate, release
from infer._core.block cimport Block, block_grow, block_new, block_ref, block_unref
from infer._core.clock cimport now_ns
from infer._core.counters cimport Histogram, merge, observe, quantile
from infer._core.model_version cimport VersionEntry, drop_handle, take_handle
from infer._core.ring cimport (
    Ring, Waker, ring_close, ring_open, ring_push, ring_take, waker_acknowledge, waker_arm, waker_close, waker_notify,
    waker_open)
from infer._core.slab cimport slab_free, slab_malloc
from infer._core.span cimport Span, span_over, try_take
from infer._core.timer_wheel cimport (
    WHEEL_TICK_NS, TimerNode, TimerWheel, wheel_add, wheel_expire, wheel_init, wheel_next_ns, wheel_remove)
from infer._core.utf8 cimport is_utf8

cdef enum:
    HELD = 1024

cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept


def clock_reads(rounds: int) -> int:
    cdef int64_t left = rounds
    cdef int64_t start = now_ns()
    with nogil:
        while left > 0:
            now_ns()
            left -= 1
    return now_ns() - start


def arena_pairs(rounds: int, size_bytes: int) -> int:
    """allocate, release."""
    cdef int64_t left = rounds
    cdef uint64_t size = size_bytes
    cdef int64_t start = now_ns()
    with nogil:
        while left > 0:
            release(allocate(size), size)
            left -= 1
    return now_ns() - start


def arena_queue(rounds: int, size_bytes: int) -> int:
    """allocate, release what was allocated HELD allocations ago."""
    cdef uint64_t held[HELD]
    cdef uint64_t size = size_bytes
    cdef int64_t c_rounds = rounds
    cdef int64_t turn, start
    memset(held, 0, sizeof(held))
    start = now_ns()
    with nogil:
        for turn in range(c_rounds):
            release(held[turn % HELD], size)
            held[turn % HELD] = allocate(size)
        for turn in range(HELD):
            release(held[turn], size)
    return now_ns() - start


def block_pairs(rounds: int, capacity_bytes: int) -> int:
    """block_new, block_unref."""
    cdef int64_t left = rounds
    cdef uint64_t capacity = capacity_bytes
    cdef int64_t start = now_ns()
    with nogil:
        while left > 0:
            block_unref(block_new(capacity))
            left -= 1
    return now_ns() - start


def block_references(rounds: int) -> int:
    """block_ref, block_unref of a live block."""
    cdef int64_t left = rounds
    cdef Block *block = block_new(0)
    cdef int64_t start = now_ns()
    with nogil:
        while left > 0:
            block_ref(block)
            block_unref(block)
            left -= 1
        block_unref(block)
    return now_ns() - start


def block_growths(rounds: int, to_bytes: int) -> int:
    """block_new, block_grow by doubling up to `to_bytes` with the data kept, block_unref."""
    cdef int64_t left = rounds
    cdef uint64_t last = to_bytes
    cdef Block *block
    cdef int64_t start = now_ns()
    with nogil:
        while left > 0:
            block = block_new(1)
            while block.capacity_bytes < last:
                block.size_bytes = block.capacity_bytes
                block = block_grow(block, block.capacity_bytes + 1)
            block_unref(block)
            left -= 1
    return now_ns() - start


def ring_pairs(rounds: int) -> int:
    """ring_push, ring_take on one thread."""
    cdef Ring ring
    cdef uint64_t value = 0
    cdef int64_t left = rounds
    cdef int64_t start
    if ring_open(&ring, 1024) < 0:
        raise MemoryError
    start = now_ns()
    with nogil:
        while left > 0:
            ring_push(&ring, value)
            ring_take(&ring, &value)
            left -= 1
    start = now_ns() - start
    ring_close(&ring)
    return start


def ring_notifies(rounds: int) -> int:
    """ring_push, waker_notify, ring_take with the consumer awake: no system call."""
    cdef Ring ring
    cdef Waker waker
    cdef uint64_t value = 0
    cdef int64_t left = rounds
    cdef int64_t start
    if ring_open(&ring, 1024) < 0 or waker_open(&waker) < 0:
        raise MemoryError
    start = now_ns()
    with nogil:
        while left > 0:
            ring_push(&ring, value)
            waker_notify(&waker)
            ring_take(&ring, &value)
            left -= 1
    start = now_ns() - start
    ring_close(&ring)
    waker_close(&waker)
    return start


def ring_wakes(rounds: int) -> int:
    """waker_arm, waker_notify, waker_acknowledge: two system calls."""
    cdef Waker waker
    cdef int64_t left = rounds
    cdef int64_t start
    if waker_open(&waker) < 0:
        raise OSError("no eventfd")
    start = now_ns()
    with nogil:
        while left > 0:
            waker_arm(&waker)
            waker_notify(&waker)
            waker_acknowledge(&waker)
            left -= 1
    start = now_ns() - start
    waker_close(&waker)
    return start


cdef class SharedRing:
    """A ring between two benchmark threads; owned by the benchmark, which joins both before it drops this."""
    cdef Ring ring

    def __cinit__(self):
        self.ring.slots = NULL
        if ring_open(&self.ring, 1024) < 0:
            raise MemoryError

    def __dealloc__(self):
        ring_close(&self.ring)

    def push(self, rounds: int) -> int:
        cdef Ring *ring = &self.ring
        cdef int64_t left = rounds
        cdef int64_t start = now_ns()
        with nogil:
            while left > 0:
                if ring_push(ring, <uint64_t> left):
                    left -= 1
                else:
                    sched_yield()
        return now_ns() - start

    def take(self, rounds: int) -> int:
        cdef Ring *ring = &self.ring
        cdef uint64_t value
        cdef int64_t left = rounds
        cdef int64_t start = now_ns()
        with nogil:
            while left > 0:
                if ring_take(ring, &value):
                    left -= 1
                else:
                    sched_yield()
        return now_ns() - start


cdef void ignore(TimerNode *node, void *context) noexcept:
    pass


def wheel_pairs(rounds: int, ahead_ns: int) -> int:
    """wheel_add, wheel_remove of a deadline so far ahead, among others: what a call that is answered in time costs."""
    cdef TimerWheel wheel
    cdef TimerNode nodes[HELD]
    cdef int64_t ahead = ahead_ns
    cdef int64_t c_rounds = rounds
    cdef int64_t turn, start
    memset(nodes, 0, sizeof(nodes))
    wheel_init(&wheel, 0)
    start = now_ns()
    with nogil:
        for turn in range(c_rounds):
            wheel_remove(&wheel, &nodes[turn % HELD])
            wheel_add(&wheel, &nodes[turn % HELD], ahead + turn)
    return now_ns() - start


def wheel_expiries(rounds: int, ahead_ns: int) -> int:
    """wheel_add of nodes spread over `ahead_ns`, then wheel_expire whenever told until all have expired."""
    cdef TimerWheel wheel
    cdef TimerNode nodes[HELD]
    cdef int64_t ahead = ahead_ns
    cdef int64_t c_rounds = rounds
    cdef int64_t time = 0
    cdef int64_t done = 0
    cdef int64_t node, start
    memset(nodes, 0, sizeof(nodes))
    wheel_init(&wheel, 0)
    start = now_ns()
    while done < c_rounds:
        for node in range(HELD):
            wheel_add(&wheel, &nodes[node], time + ahead * node // HELD)
        while wheel.nodes:
            time = wheel_next_ns(&wheel)
            done += wheel_expire(&wheel, time, ignore, NULL)
    return (now_ns() - start) * c_rounds // done


def wheel_idle_ticks(rounds: int) -> int:
    """wheel_expire once per tick while a single far deadline waits."""
    cdef TimerWheel wheel
    cdef TimerNode node
    cdef int64_t c_rounds = rounds
    cdef int64_t turn, start
    memset(&node, 0, sizeof(node))
    wheel_init(&wheel, 0)
    wheel_add(&wheel, &node, 1 << 60)
    start = now_ns()
    for turn in range(c_rounds):
        wheel_expire(&wheel, turn * WHEEL_TICK_NS, ignore, NULL)
    return now_ns() - start


def histogram_observations(rounds: int) -> int:
    cdef Histogram histogram
    cdef uint64_t value = 12345
    cdef int64_t left = rounds
    cdef int64_t start
    memset(&histogram, 0, sizeof(histogram))
    start = now_ns()
    with nogil:
        while left > 0:
            value = value * 6364136223846793005ULL + 1442695040888963407ULL
            observe(&histogram, <int64_t> (value >> 40))
            left -= 1
    return now_ns() - start


def histogram_quantiles(rounds: int) -> int:
    cdef Histogram histogram
    cdef int64_t value
    cdef int64_t left = rounds
    cdef int64_t start
    memset(&histogram, 0, sizeof(histogram))
    for value in range(100000):
        observe(&histogram, value)
    start = now_ns()
    with nogil:
        while left > 0:
            quantile(&histogram, 0.99)
            left -= 1
    return now_ns() - start


def histogram_merges(rounds: int) -> int:
    cdef Histogram into, other
    cdef int64_t left = rounds
    cdef int64_t start
    memset(&into, 0, sizeof(into))
    memset(&other, 0, sizeof(other))
    start = now_ns()
    with nogil:
        while left > 0:
            merge(&into, &other)
            left -= 1
    return now_ns() - start


def slab_bursts(rounds: int, size_bytes: int) -> int:
    """malloc of a burst of HELD pieces, then free of all: what a read of many calls does; per piece."""
    cdef void *held[HELD]
    cdef int64_t c_rounds = rounds
    cdef size_t size = size_bytes
    cdef int64_t _turn, start
    cdef int i
    start = now_ns()
    with nogil:
        for _turn in range(c_rounds // HELD):
            for i in range(HELD):
                held[i] = slab_malloc(size, NULL)
            for i in range(HELD):
                slab_free(held[i], NULL)
    return now_ns() - start


def span_parts(rounds: int) -> int:
    """Parts of 16 bytes taken from a span over 64 KiB, over and over."""
    cdef uint8_t room[65536]
    cdef int64_t left = rounds
    cdef int64_t taken = 0
    cdef Span whole, part
    cdef int64_t start
    memset(room, 1, sizeof(room))
    start = now_ns()
    with nogil:
        whole = span_over(room, sizeof(room))
        while left > 0:
            if not try_take(&whole, 16, &part):
                whole = span_over(room, sizeof(room))
                continue
            taken += part.at[0]
            left -= 1
    return now_ns() - start if taken > 0 else 0


def utf8_checks(rounds: int, text: bytes) -> int:
    """Validation of one text."""
    cdef const uint8_t *data = <const uint8_t *> <const char *> text
    cdef uint64_t size = <uint64_t> len(text)
    cdef int64_t left = rounds
    cdef int64_t good = 0
    cdef Span span
    cdef int64_t start = now_ns()
    with nogil:
        while left > 0:
            span = span_over(data, size)
            good += is_utf8(&span)
            left -= 1
    return now_ns() - start if good == rounds else 0


def handle_pairs(rounds: int, entry: VersionEntry) -> int:
    """take_handle, drop_handle."""
    cdef VersionEntry held = entry
    cdef int64_t left = rounds
    cdef int64_t start = now_ns()
    while left > 0:
        take_handle(held)
        drop_handle(held)
        left -= 1
    return now_ns() - start
