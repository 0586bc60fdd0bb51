"""What came last, by hash. See recent.pxd."""

from libc.stdlib cimport free
from libc.string cimport memset

from infer._core.debug cimport try_calloc

cimport cython

MAX_CAPACITY = 1 << 30


cdef inline uint64_t slot_of(const RecentTable *table, uint64_t hash) noexcept nogil:
    """The slot that leads to the hash, or the free one where it would be."""
    cdef uint64_t at = hash & table.mask
    while table.slots[at] != 0 and table.ring[table.slots[at] - 1].hash != hash:
        at = (at + 1) & table.mask
    return at


cdef void free_slot(RecentTable *table, uint64_t at) noexcept nogil:
    """Moves those behind it up, as far as that brings them nearer to where they belong."""
    cdef uint64_t hole = at
    cdef uint64_t home
    while True:
        at = (at + 1) & table.mask
        if table.slots[at] == 0:
            break
        home = table.ring[table.slots[at] - 1].hash & table.mask
        if ((at - home) & table.mask) >= ((at - hole) & table.mask):
            table.slots[hole] = table.slots[at]
            hole = at
    table.slots[hole] = 0


cdef bint recent_init(RecentTable *table, uint32_t capacity) noexcept nogil:
    cdef uint64_t size = 2
    memset(table, 0, sizeof(RecentTable))
    while size < 2 * <uint64_t> capacity:
        size *= 2
    table.ring = <RecentEntry *> try_calloc(capacity, sizeof(RecentEntry))
    table.slots = <uint32_t *> try_calloc(size, sizeof(uint32_t))
    table.mask = size - 1
    table.capacity = capacity
    if table.ring == NULL or table.slots == NULL:
        recent_free(table)
        return False
    return True


cdef void recent_free(RecentTable *table) noexcept nogil:
    free(table.ring)
    free(table.slots)
    table.ring = NULL
    table.slots = NULL


cdef void recent_put(RecentTable *table, uint64_t hash, uint64_t unit, int32_t arm, int64_t at_ns) noexcept nogil:
    cdef RecentEntry *entry = &table.ring[table.next]
    cdef uint64_t at
    if entry.hash != 0:
        free_slot(table, slot_of(table, entry.hash))
        table.count -= 1
        if entry.hash != hash:
            table.forgotten += 1
    at = slot_of(table, hash)
    if table.slots[at] != 0:
        table.ring[table.slots[at] - 1].hash = 0
        table.count -= 1
    entry.hash = hash
    entry.unit = unit
    entry.arm = arm
    entry.at_ns = at_ns
    table.slots[at] = table.next + 1
    table.count += 1
    table.next = table.next + 1 if table.next + 1 < table.capacity else 0


cdef const RecentEntry *recent_find(const RecentTable *table, uint64_t hash) noexcept nogil:
    cdef uint64_t at = slot_of(table, hash)
    return NULL if table.slots[at] == 0 else &table.ring[table.slots[at] - 1]


@cython.final
cdef class Recent:
    """At most `capacity` of them."""

    def __cinit__(self, int64_t capacity):
        if not 1 <= capacity <= MAX_CAPACITY:
            raise ValueError(f"capacity {capacity}: expected 1 to {MAX_CAPACITY}")
        if not recent_init(&self.table, <uint32_t> capacity):
            raise MemoryError(f"no memory to remember {capacity} hashes")

    def __dealloc__(self):
        recent_free(&self.table)

    def put(self, uint64_t hash, uint64_t unit=0, int32_t arm=0, int64_t at_ns=0):
        """`hash` is not 0."""
        recent_put(&self.table, hash, unit, arm, at_ns)

    def find(self, uint64_t hash):
        """(unit, arm, at_ns), or None."""
        cdef const RecentEntry *entry = recent_find(&self.table, hash)
        return None if entry == NULL else (entry.unit, entry.arm, entry.at_ns)

    def __len__(self):
        return self.table.count

    @property
    def forgotten(self):
        """Those that went for want of room."""
        return self.table.forgotten
