"""What was used last, within bounds in bytes: an intrusive list under open addressing, keyed by 128-bit hashes.

Nodes live in their owner's structs; the Lru owns the table alone. Every node is in two lists, of all and of its part (a
model's version), so that a part goes at once and a group of parts (a model) has a bound of its own. Whoever owns the
nodes is told of each one that leaves. One thread. The table has its size from the start: nothing is ever hashed anew.
"""

from libc.stdint cimport int64_t, uint64_t

cdef struct LruLink:
    LruLink *newer
    LruLink *older

cdef struct LruNode:
    LruLink all                  # first: a link's address is its node's
    LruLink own                  # in its part
    uint64_t low                 # the hash
    uint64_t high
    uint64_t size_bytes
    uint64_t touched             # order of its last use
    LruPart *part

cdef struct LruPart:
    LruLink nodes                # sentinel: its `older` is the newest
    LruGroup *group
    LruPart *next                # of the group
    uint64_t bytes
    int64_t entries
    int64_t evictions            # for want of room

cdef struct LruGroup:
    LruPart *parts
    uint64_t bytes
    uint64_t limit_bytes

cdef struct LruSlot:
    uint64_t low
    LruNode *node

cdef enum LruReason:
    LRU_EVICTED                  # for want of room
    LRU_OVERWRITTEN              # by one of the same hash
    LRU_REMOVED

# The node is in nothing any more and the owner's again.
ctypedef void (*gone_function)(LruNode *node, int reason, void *owner) noexcept nogil

cdef struct Lru:
    LruLink nodes                # sentinel
    LruSlot *slots
    uint64_t mask
    uint64_t bytes
    uint64_t limit_bytes
    uint64_t touches
    int64_t entries
    int64_t limit_entries
    int64_t evictions
    gone_function gone
    void *owner

# Within `limit_bytes`, and as many entries as those make of `least_bytes`; -1: no memory.
cdef int lru_init(Lru *lru, uint64_t limit_bytes, uint64_t least_bytes, gone_function gone, void *owner) noexcept nogil
cdef uint64_t lru_table_bytes(uint64_t limit_bytes, uint64_t least_bytes) noexcept nogil
cdef void lru_free(Lru *lru) noexcept nogil                                # removes what is in it
cdef void lru_group_init(LruGroup *group, uint64_t limit_bytes) noexcept nogil
cdef void lru_add_part(LruGroup *group, LruPart *part) noexcept nogil
# Removes up to `most` nodes of it, oldest first; whether more are left.
cdef bint lru_clear_part(Lru *lru, LruPart *part, int64_t most) noexcept nogil
cdef void lru_move_part(LruPart *part, LruGroup *group) noexcept nogil     # with what is in it
cdef void lru_drop_part(Lru *lru, LruPart *part) noexcept nogil            # removes all, and takes it out of its group

cdef LruNode *lru_get(Lru *lru, uint64_t low, uint64_t high) noexcept nogil     # now the last used; NULL: there is none
cdef LruNode *lru_peek(const Lru *lru, uint64_t low, uint64_t high) noexcept nogil
# Takes the node in, its hash and size set, as the last used of `part`; evicts what was used longest ago until it fits.
# False: it is larger than a bound and stays the caller's.
cdef bint lru_put(Lru *lru, LruPart *part, LruNode *node) noexcept nogil
cdef void lru_remove(Lru *lru, LruNode *node) noexcept nogil
cdef void lru_evict(Lru *lru, LruNode *node) noexcept nogil
# What would be evicted first for `size_bytes` more of `part`; NULL: they fit as it is.
cdef LruNode *lru_victim(const Lru *lru, const LruPart *part, uint64_t size_bytes) noexcept nogil
