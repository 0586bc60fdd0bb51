"""What came last, by hash: the last so many hashes, each with what is to be known of it; older ones are forgotten.

A ring in the order of arrival under open addressing. Its owner keeps the memory, of which pages are taken as they are
used. Hashes are never 0, as split.key_hash has them; two things of one hash are one. One thread.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef struct RecentEntry:
    uint64_t hash                # 0: free, or come again since
    uint64_t unit
    int64_t at_ns
    int32_t arm

cdef struct RecentTable:
    RecentEntry *ring
    uint32_t *slots              # place in the ring and 1; 0: free. At most half full
    uint64_t mask
    uint32_t capacity
    uint32_t next                # place of the next one
    int64_t count
    int64_t forgotten            # for want of room

# False: no memory. `capacity`: 1 to 2^30.
cdef bint recent_init(RecentTable *table, uint32_t capacity) noexcept nogil
cdef void recent_free(RecentTable *table) noexcept nogil
# The hash is now the last that came, whether it was there or not.
cdef void recent_put(RecentTable *table, uint64_t hash, uint64_t unit, int32_t arm, int64_t at_ns) noexcept nogil
# Lent until the next `recent_put`; NULL: it is not remembered.
cdef const RecentEntry *recent_find(const RecentTable *table, uint64_t hash) noexcept nogil

cdef class Recent:
    cdef RecentTable table
