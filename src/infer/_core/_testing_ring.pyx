"""Ring and Waker as a test drives them; not in wheels.

A RingBox or WakerBox owns its C struct, which must outlive every `produce` that runs on it.
"""

from libc.stdint cimport int64_t, uint64_t

from infer._core.ring cimport (
    Ring, Waker, ring_close, ring_open, ring_push, ring_size, ring_take, waker_acknowledge, waker_arm, waker_close,
    waker_notify, waker_open)

cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept


cdef class RingBox:
    cdef Ring ring

    def __cinit__(self, capacity: int):
        self.ring.slots = NULL
        if ring_open(&self.ring, capacity) < 0:
            raise MemoryError(f"no ring of {capacity}")

    def __dealloc__(self):
        ring_close(&self.ring)

    def __len__(self) -> int:
        return ring_size(&self.ring)

    @property
    def capacity(self) -> int:
        return self.ring.mask + 1

    def push(self, value: int) -> bool:
        return ring_push(&self.ring, value)

    def take(self) -> int | None:
        cdef uint64_t value
        return value if ring_take(&self.ring, &value) else None

    def start_at(self, position: int) -> None:
        """As if so many values had passed already; the ring must be empty."""
        cdef uint64_t at = position
        self.ring.head = self.ring.cached_tail = self.ring.tail = self.ring.cached_head = at


cdef class WakerBox:
    cdef Waker waker

    def __cinit__(self):
        self.waker.eventfd = -1
        if waker_open(&self.waker) < 0:
            raise OSError("no eventfd")

    def __dealloc__(self):
        waker_close(&self.waker)

    def fileno(self) -> int:
        return self.waker.eventfd

    @property
    def armed(self) -> bool:
        return self.waker.armed == 1

    def notify(self) -> None:
        waker_notify(&self.waker)

    def acknowledge(self) -> None:
        waker_acknowledge(&self.waker)

    def arm(self) -> None:
        waker_arm(&self.waker)

    def close(self) -> None:
        waker_close(&self.waker)


def produce(RingBox box, WakerBox waker_box, first: int, count: int, burst: int) -> int:
    """Push `count` values from `first` on, without the GIL, and return how often the ring was full.

    After each burst it waits until the consumer took all, so that the next push meets it on its way to sleep.
    """
    cdef Ring *ring = &box.ring
    cdef Waker *waker = &waker_box.waker
    cdef uint64_t value = first
    cdef uint64_t end = first + count
    cdef uint64_t c_burst = burst
    cdef uint64_t pushed = 0
    cdef int64_t full = 0
    with nogil:
        while value < end:
            while not ring_push(ring, value):
                full += 1
                sched_yield()
            waker_notify(waker)
            value += 1
            pushed += 1
            if pushed == c_burst:
                pushed = 0
                while ring_size(ring):
                    sched_yield()
    return full
