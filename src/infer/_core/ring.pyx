"""Bounded single-producer single-consumer ring of 64-bit values, lock-free, and the wake-up of its consumer.

A Ring and a Waker belong to the consumer, which opens and closes them while no producer runs. One thread pushes, one
thread takes; `waker_notify` may be called by any number of producers.

Why no wake-up is lost. Both sides touch `armed` by read-modify-write only. If a producer's exchange comes before the
consumer's in the order of changes to `armed`, the consumer's reads from it (at the end of an unbroken chain of
exchanges), so it sees the push made before it and its second look finds the value. If it comes after, it reads the 1
and writes the eventfd.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from infer._core.capi.atomics cimport exchange_i32, fence, load_acquire_u64, load_relaxed_u64, store_release_u64

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int open_eventfd "eventfd"(unsigned int initial, int flags) noexcept

cdef extern from "<unistd.h>" nogil:
    int close(int fd) noexcept
    ssize_t read(int fd, void *buffer, size_t size) noexcept
    ssize_t write(int fd, const void *buffer, size_t size) noexcept

cdef enum:
    LARGEST_CAPACITY_LOG2 = 32


cdef int ring_open(Ring *ring, uint64_t capacity) noexcept nogil:
    cdef uint64_t rounded = 1
    if capacity > <uint64_t> 1 << LARGEST_CAPACITY_LOG2:
        return -1
    while rounded < capacity:
        rounded <<= 1
    ring.mask = rounded - 1
    ring.head = ring.cached_tail = ring.tail = ring.cached_head = 0
    ring.slots = <uint64_t *> calloc(rounded, sizeof(uint64_t))
    return -1 if ring.slots == NULL else 0


cdef void ring_close(Ring *ring) noexcept nogil:
    free(ring.slots)
    ring.slots = NULL


cdef bint ring_push(Ring *ring, uint64_t value) noexcept nogil:
    cdef uint64_t tail = load_relaxed_u64(&ring.tail)
    if tail - ring.cached_head > ring.mask:
        ring.cached_head = load_acquire_u64(&ring.head)
        if tail - ring.cached_head > ring.mask:
            return False
    ring.slots[tail & ring.mask] = value
    store_release_u64(&ring.tail, tail + 1)
    return True


cdef bint ring_take(Ring *ring, uint64_t *value) noexcept nogil:
    cdef uint64_t head = load_relaxed_u64(&ring.head)
    if head == ring.cached_tail:
        ring.cached_tail = load_acquire_u64(&ring.tail)
        if head == ring.cached_tail:
            return False
    value[0] = ring.slots[head & ring.mask]
    store_release_u64(&ring.head, head + 1)
    return True


cdef uint64_t ring_size(Ring *ring) noexcept nogil:
    # head first: read the other way round, the difference could be negative
    cdef uint64_t head = load_acquire_u64(&ring.head)
    return load_acquire_u64(&ring.tail) - head


cdef int waker_open(Waker *waker) noexcept nogil:
    waker.armed = 0
    waker.eventfd = open_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    return -1 if waker.eventfd < 0 else 0


cdef void waker_close(Waker *waker) noexcept nogil:
    if waker.eventfd >= 0:
        close(waker.eventfd)
    waker.eventfd = -1


cdef void waker_notify(Waker *waker) noexcept nogil:
    cdef uint64_t one = 1
    if exchange_i32(&waker.armed, 0) == 1:
        # Fails only where the count is at its maximum: the consumer is being woken then.
        write(waker.eventfd, &one, sizeof(one))


cdef void waker_acknowledge(Waker *waker) noexcept nogil:
    cdef uint64_t count
    read(waker.eventfd, &count, sizeof(count))


cdef void waker_arm(Waker *waker) noexcept nogil:
    exchange_i32(&waker.armed, 1)
    fence()
