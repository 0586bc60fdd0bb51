"""Nodes by recency and by hash. See lru.pxd.

Linear probing; whoever leaves closes the gap behind it, so there are no tombstones and a table that has been in use for
long is as good as a new one (Knuth, vol. 3, 6.4, algorithm R). The low half of the hash is the place.
"""

from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free
from libc.string cimport memset

from infer._core.debug cimport require, try_calloc

cdef enum:
    SLOTS_LEAST = 16


cdef uint64_t slots_for(uint64_t limit_bytes, uint64_t least_bytes) noexcept nogil:
    """A power of two, at most three quarters of it in use."""
    cdef uint64_t entries = limit_bytes // least_bytes
    cdef uint64_t slots = SLOTS_LEAST
    while slots // 4 * 3 < entries:
        slots *= 2
    return slots


cdef uint64_t lru_table_bytes(uint64_t limit_bytes, uint64_t least_bytes) noexcept nogil:
    return slots_for(limit_bytes, least_bytes) * sizeof(LruSlot)


cdef int lru_init(Lru *lru, uint64_t limit_bytes, uint64_t least_bytes, gone_function gone, void *owner) noexcept nogil:
    cdef uint64_t slots = slots_for(limit_bytes, least_bytes)
    memset(lru, 0, sizeof(Lru))
    lru.slots = <LruSlot *> try_calloc(slots, sizeof(LruSlot))
    if lru.slots == NULL:
        return -1
    lru.nodes.newer = lru.nodes.older = &lru.nodes
    lru.mask = slots - 1
    lru.limit_bytes = limit_bytes
    lru.limit_entries = <int64_t> (slots // 4 * 3)
    lru.gone = gone
    lru.owner = owner
    return 0


cdef void lru_free(Lru *lru) noexcept nogil:
    if lru.slots == NULL:
        return
    while lru.nodes.newer != &lru.nodes:
        lru_remove(lru, <LruNode *> lru.nodes.newer)
    free(lru.slots)
    lru.slots = NULL


# Lists.

cdef inline void unlink(LruLink *link) noexcept nogil:
    link.newer.older = link.older
    link.older.newer = link.newer


cdef inline void link_newest(LruLink *nodes, LruLink *link) noexcept nogil:
    link.newer = nodes
    link.older = nodes.older
    nodes.older.newer = link
    nodes.older = link


cdef inline LruNode *of_own(LruLink *link) noexcept nogil:
    return <LruNode *> (<char *> link - sizeof(LruLink))


cdef void lru_group_init(LruGroup *group, uint64_t limit_bytes) noexcept nogil:
    group.parts = NULL
    group.bytes = 0
    group.limit_bytes = limit_bytes


cdef void lru_add_part(LruGroup *group, LruPart *part) noexcept nogil:
    memset(part, 0, sizeof(LruPart))
    part.nodes.newer = part.nodes.older = &part.nodes
    part.group = group
    part.next = group.parts
    group.parts = part


cdef bint lru_clear_part(Lru *lru, LruPart *part, int64_t most) noexcept nogil:
    while most > 0 and part.nodes.newer != &part.nodes:
        lru_remove(lru, of_own(part.nodes.newer))
        most -= 1
    return part.nodes.newer != &part.nodes


cdef void take_out(LruPart *part) noexcept nogil:
    cdef LruPart **at = &part.group.parts
    while at[0] != part:
        at = &at[0].next
    at[0] = part.next
    part.group.bytes -= part.bytes


cdef void lru_move_part(LruPart *part, LruGroup *group) noexcept nogil:
    take_out(part)
    part.group = group
    part.next = group.parts
    group.parts = part
    group.bytes += part.bytes


cdef void lru_drop_part(Lru *lru, LruPart *part) noexcept nogil:
    lru_clear_part(lru, part, INT64_MAX)
    take_out(part)


# Table.

cdef inline uint64_t slot_of(const Lru *lru, uint64_t low, uint64_t high) noexcept nogil:
    """Where the hash stands, or the empty slot where it would."""
    cdef uint64_t at = low & lru.mask
    while lru.slots[at].node != NULL and (lru.slots[at].low != low or lru.slots[at].node.high != high):
        at = (at + 1) & lru.mask
    return at


cdef inline void vacate(Lru *lru, uint64_t gap) noexcept nogil:
    cdef uint64_t at = gap
    while True:
        at = (at + 1) & lru.mask
        if lru.slots[at].node == NULL:
            break
        # One whose own place lies behind the gap stays.
        if ((at - (lru.slots[at].low & lru.mask)) & lru.mask) >= ((at - gap) & lru.mask):
            lru.slots[gap] = lru.slots[at]
            gap = at
    lru.slots[gap].node = NULL


cdef void leave(Lru *lru, LruNode *node, int reason) noexcept nogil:
    cdef uint64_t at = slot_of(lru, node.low, node.high)
    require(lru.slots[at].node == node, b"lru: a node that is not in its slot")
    vacate(lru, at)
    unlink(&node.all)
    unlink(&node.own)
    lru.bytes -= node.size_bytes
    lru.entries -= 1
    node.part.bytes -= node.size_bytes
    node.part.entries -= 1
    node.part.group.bytes -= node.size_bytes
    if reason == LRU_EVICTED:
        lru.evictions += 1
        node.part.evictions += 1
    lru.gone(node, reason, lru.owner)


cdef void lru_remove(Lru *lru, LruNode *node) noexcept nogil:
    leave(lru, node, LRU_REMOVED)


cdef void lru_evict(Lru *lru, LruNode *node) noexcept nogil:
    leave(lru, node, LRU_EVICTED)


cdef LruNode *lru_peek(const Lru *lru, uint64_t low, uint64_t high) noexcept nogil:
    return lru.slots[slot_of(lru, low, high)].node


cdef LruNode *lru_get(Lru *lru, uint64_t low, uint64_t high) noexcept nogil:
    cdef LruNode *node = lru.slots[slot_of(lru, low, high)].node
    if node != NULL:
        lru.touches += 1
        node.touched = lru.touches
        unlink(&node.all)
        link_newest(&lru.nodes, &node.all)
        unlink(&node.own)
        link_newest(&node.part.nodes, &node.own)
    return node


cdef LruNode *oldest_of(const LruGroup *group) noexcept nogil:
    cdef LruPart *part = group.parts
    cdef LruNode *oldest = NULL
    cdef LruNode *node
    while part != NULL:
        if part.nodes.newer != &part.nodes:
            node = of_own(part.nodes.newer)
            if oldest == NULL or node.touched < oldest.touched:
                oldest = node
        part = part.next
    return oldest


cdef LruNode *lru_victim(const Lru *lru, const LruPart *part, uint64_t size_bytes) noexcept nogil:
    if part.group.bytes + size_bytes > part.group.limit_bytes:
        return oldest_of(part.group)
    if lru.bytes + size_bytes > lru.limit_bytes or lru.entries >= lru.limit_entries:
        return <LruNode *> lru.nodes.newer
    return NULL


cdef bint lru_put(Lru *lru, LruPart *part, LruNode *node) noexcept nogil:
    cdef LruNode *victim
    cdef uint64_t at
    if node.size_bytes > lru.limit_bytes or node.size_bytes > part.group.limit_bytes:
        return False
    at = slot_of(lru, node.low, node.high)
    if lru.slots[at].node != NULL:
        leave(lru, lru.slots[at].node, LRU_OVERWRITTEN)
    victim = lru_victim(lru, part, node.size_bytes)
    while victim != NULL:
        lru_evict(lru, victim)
        victim = lru_victim(lru, part, node.size_bytes)
    at = slot_of(lru, node.low, node.high)
    lru.slots[at].low = node.low
    lru.slots[at].node = node
    lru.touches += 1
    node.touched = lru.touches
    node.part = part
    link_newest(&lru.nodes, &node.all)
    link_newest(&part.nodes, &node.own)
    lru.bytes += node.size_bytes
    lru.entries += 1
    part.bytes += node.size_bytes
    part.entries += 1
    part.group.bytes += node.size_bytes
    return True
