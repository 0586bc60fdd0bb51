"""Bounded single-producer single-consumer ring of 64-bit arena offsets, lock-free, and the wake-up that goes with it.

An executor pushes a finished Batch and wakes the loop through an eventfd only when the loop said it was about to
sleep: producer: push (release), then `exchange(armed, 0) == 1` -> write the eventfd. Consumer: drain, armed = 1, full
fence, look once more. Capacity is a power of two and at least the bound on work in flight, so a push to a well-sized
ring cannot fail. Source: Lamport, "Specifying concurrent program modules" (1983), with cached indices as in folly's
ProducerConsumerQueue.
"""

from libc.stdint cimport int32_t, uint64_t

cdef struct Ring:
    uint64_t *slots
    uint64_t mask
    char pad0[48]
    uint64_t head                # next to take; written by the consumer
    uint64_t cached_tail         # the consumer's last sight of tail
    char pad1[48]
    uint64_t tail                # next to fill; written by the producer
    uint64_t cached_head         # the producer's last sight of head
    char pad2[48]

# Shared by all rings of one consumer.
cdef struct Waker:
    int32_t armed                # 1: the consumer sleeps or is about to
    int eventfd
    char pad[56]

cdef int ring_open(Ring *ring, uint64_t capacity) noexcept nogil      # rounds up to a power of two; 0, or -1: no memory
cdef void ring_close(Ring *ring) noexcept nogil
cdef bint ring_push(Ring *ring, uint64_t value) noexcept nogil        # False: full
cdef bint ring_take(Ring *ring, uint64_t *value) noexcept nogil       # False: empty
cdef uint64_t ring_size(Ring *ring) noexcept nogil                    # exact only from the consumer or the producer

cdef int waker_open(Waker *waker) noexcept nogil                      # 0, or -1: no eventfd
cdef void waker_close(Waker *waker) noexcept nogil
# Producer, after its push: wakes the consumer if it sleeps.
cdef void waker_notify(Waker *waker) noexcept nogil
# Consumer, when woken: resets the eventfd's count.
cdef void waker_acknowledge(Waker *waker) noexcept nogil
# Consumer, when it found nothing: from now on producers wake it. It must look once more after this.
cdef void waker_arm(Waker *waker) noexcept nogil
