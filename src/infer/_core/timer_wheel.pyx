"""Hierarchical timer wheel of 1 ms ticks.

The wheel owns its slots, never its nodes: whoever embeds a node removes it before freeing it. Loop thread only.

Design. A deadline is rounded up to a tick, so a slot of level 0 expires as a whole. A node sits in the level whose
slots are just fine enough to tell its tick from the present one; entering a slot of a higher level spreads its nodes
over the levels below. The bitmap of occupied slots lets a long jump pass over empty ones.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t

cdef extern from * nogil:
    int __builtin_ctzll(unsigned long long value) noexcept

cdef enum:
    SLOT_BITS = 8
    SLOT_MASK = 255
    REACH_TICKS = 0xFFFFFFFF     # furthest tick from now that has a slot


cdef inline void link(TimerNode *list, TimerNode *node) noexcept nogil:
    node.prev = list.prev
    node.next = list
    list.prev.next = node
    list.prev = node


cdef inline void unlink(TimerNode *node) noexcept nogil:
    node.prev.next = node.next
    node.next.prev = node.prev
    node.next = NULL
    node.prev = NULL


cdef inline void splice(TimerWheel *wheel, int64_t slot, TimerNode *onto) noexcept nogil:
    """Moves all nodes of a slot to the end of the list `onto`."""
    cdef TimerNode *list = &wheel.slots[slot]
    if list.next == list:
        return
    list.next.prev = onto.prev
    list.prev.next = onto
    onto.prev.next = list.next
    onto.prev = list.prev
    list.next = list.prev = list
    wheel.occupied[slot >> 6] &= ~(<uint64_t> 1 << (slot & 63))


cdef inline int64_t tick_of(int64_t deadline_ns) noexcept nogil:
    return deadline_ns // WHEEL_TICK_NS + (deadline_ns % WHEEL_TICK_NS > 0)


cdef void place(TimerWheel *wheel, TimerNode *node) noexcept nogil:
    cdef int64_t tick = max(tick_of(node.deadline_ns), wheel.now_tick)
    cdef int64_t ahead = tick - wheel.now_tick
    cdef int level = 0
    if ahead > REACH_TICKS:
        ahead = REACH_TICKS
        tick = wheel.now_tick + ahead
    while ahead >> SLOT_BITS * (level + 1):
        level += 1
    node.slot = level * WHEEL_SLOTS + (tick >> SLOT_BITS * level & SLOT_MASK)
    link(&wheel.slots[node.slot], node)
    wheel.occupied[node.slot >> 6] |= <uint64_t> 1 << (node.slot & 63)


cdef void wheel_init(TimerWheel *wheel, int64_t now_ns) noexcept nogil:
    cdef int slot
    for slot in range(WHEEL_LEVELS * WHEEL_SLOTS):
        wheel.slots[slot].next = wheel.slots[slot].prev = &wheel.slots[slot]
    for slot in range(WHEEL_LEVELS * WHEEL_SLOTS // 64):
        wheel.occupied[slot] = 0
    wheel.now_tick = now_ns // WHEEL_TICK_NS
    wheel.nodes = 0


cdef void wheel_add(TimerWheel *wheel, TimerNode *node, int64_t deadline_ns) noexcept nogil:
    wheel_remove(wheel, node)
    node.deadline_ns = deadline_ns
    place(wheel, node)
    wheel.nodes += 1


cdef void wheel_remove(TimerWheel *wheel, TimerNode *node) noexcept nogil:
    cdef TimerNode *list
    if node.next == NULL:
        return
    unlink(node)
    wheel.nodes -= 1
    list = &wheel.slots[node.slot]
    if list.next == list:
        wheel.occupied[node.slot >> 6] &= ~(<uint64_t> 1 << (node.slot & 63))


cdef int64_t occupied_after(TimerWheel *wheel, int level, int64_t index) noexcept nogil:
    """How many slots from `index` on, going round, to the first occupied one of the level; -1: none is."""
    cdef uint64_t *words = &wheel.occupied[level * WHEEL_SLOTS // 64]
    cdef int64_t step, word
    cdef uint64_t bits = words[index >> 6] >> (index & 63)
    if bits:
        return __builtin_ctzll(bits)
    for step in range(1, WHEEL_SLOTS // 64 + 1):
        word = ((index >> 6) + step) & (WHEEL_SLOTS // 64 - 1)
        if words[word]:
            return ((word << 6) + __builtin_ctzll(words[word]) - index) & SLOT_MASK
    return -1


cdef int64_t next_tick(TimerWheel *wheel) noexcept nogil:
    """The first tick at which a slot expires or is spread; -1 when the wheel is empty."""
    cdef int64_t found = -1
    cdef int64_t position, ahead
    cdef int level
    for level in range(WHEEL_LEVELS):
        position = wheel.now_tick >> SLOT_BITS * level
        if level:
            # The slot that the present tick lies in was spread on entering: what it holds now is one round away.
            position += 1
        ahead = occupied_after(wheel, level, position & SLOT_MASK)
        if ahead >= 0:
            position = (position + ahead) << SLOT_BITS * level
            if found < 0 or position < found:
                found = position
    return found


cdef int64_t wheel_expire(TimerWheel *wheel, int64_t now_ns, expiry_function on_expiry, void *context) noexcept:
    cdef int64_t target = now_ns // WHEEL_TICK_NS
    cdef int64_t tick, position
    cdef int64_t expired = 0
    cdef int level
    cdef TimerNode due, spread
    cdef TimerNode *node
    if target < wheel.now_tick:
        return 0
    # All that is due is gathered before the first callback, so that callbacks find the wheel at rest.
    due.next = due.prev = &due
    while True:
        tick = next_tick(wheel)
        if tick < 0 or tick > target:
            break
        wheel.now_tick = tick
        for level in range(WHEEL_LEVELS - 1, 0, -1):
            position = tick >> SLOT_BITS * level
            if position << SLOT_BITS * level == tick:
                spread.next = spread.prev = &spread
                splice(wheel, level * WHEEL_SLOTS + (position & SLOT_MASK), &spread)
                while spread.next != &spread:
                    node = spread.next
                    unlink(node)
                    place(wheel, node)
        splice(wheel, tick & SLOT_MASK, &due)
    wheel.now_tick = target
    while due.next != &due:
        node = due.next
        unlink(node)
        wheel.nodes -= 1
        expired += 1
        on_expiry(node, context)
    return expired


cdef int64_t wheel_next_ns(TimerWheel *wheel) noexcept nogil:
    cdef int64_t tick = next_tick(wheel)
    if tick < 0:
        return -1
    return tick * WHEEL_TICK_NS if tick <= INT64_MAX // WHEEL_TICK_NS else INT64_MAX
