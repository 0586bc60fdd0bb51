"""Hierarchical timer wheel of 1 ms ticks that ends calls at their deadline.

Owned and stepped by the loop thread. Nodes are intrusive: they live in the Request, and adding, moving or removing
one is O(1). Four levels of 256 slots reach 49 days; a deadline further away waits in the last slot and is put in
again. Source: Varghese and Lauck, "Hashed and hierarchical timing wheels" (1987), scheme 6/7.
"""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    WHEEL_LEVELS = 4
    WHEEL_SLOTS = 256
    WHEEL_TICK_NS = 1000000

cdef struct TimerNode:
    TimerNode *next              # NULL: not in a wheel
    TimerNode *prev
    int64_t deadline_ns
    int64_t slot                 # level * WHEEL_SLOTS + index; the wheel's own

cdef struct TimerWheel:
    TimerNode slots[1024]        # sentinels of circular lists
    uint64_t occupied[16]        # a bit per slot that is not empty
    int64_t now_tick             # every tick before it has been expired
    int64_t nodes

ctypedef void (*expiry_function)(TimerNode *node, void *context) noexcept

cdef void wheel_init(TimerWheel *wheel, int64_t now_ns) noexcept nogil
# A node that is in the wheel already is moved. A deadline in the past expires at the next `wheel_expire`.
cdef void wheel_add(TimerWheel *wheel, TimerNode *node, int64_t deadline_ns) noexcept nogil
cdef void wheel_remove(TimerWheel *wheel, TimerNode *node) noexcept nogil     # a node not in the wheel is let pass
# Takes out and hands over each node whose deadline, rounded up to a tick, is <= now: never one before its deadline,
# none a whole tick after it. `on_expiry` may add and remove nodes, itself included, and may free its own; what it
# adds expires at the next call. Returns how many expired.
cdef int64_t wheel_expire(TimerWheel *wheel, int64_t now_ns, expiry_function on_expiry, void *context) noexcept
# When to call `wheel_expire` next, in ns: less than a tick after the earliest deadline, and sooner only where a slot
# of a higher level must be spread first, so that each call at that time makes progress; -1 when the wheel is empty.
cdef int64_t wheel_next_ns(TimerWheel *wheel) noexcept nogil
