"""One shared mapping (memfd) from which Blocks, Requests, Batches and bound outputs are carved by size class.

Offsets, not pointers, leave the process's own structures: an executor in another process could map the same memory.
Any thread may allocate and free (one short mutex); offset 0 is never handed out and means "none".
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    ARENA_SMALLEST_BYTES = 128
    ARENA_CLASSES = 40

cdef struct ArenaState:
    uint8_t *base
    uint64_t reserved_bytes      # address space of the mapping; memory is used only where touched
    uint64_t limit_bytes         # live_bytes never passes it
    int64_t live_bytes           # handed out and not yet freed, in whole size classes
    int64_t high_water_bytes
    int64_t cached_bound_bytes   # what trim_surplus leaves
    int64_t cached_bytes         # free large allocations that still hold their pages
    int64_t failures             # allocations refused, at the limit or for want of address space

# The process's arena: `arena_open` makes it once, before the first allocation. Opening it again with the same sizes
# does nothing; with others it raises RuntimeError.
cdef ArenaState *shared_arena() noexcept nogil
cdef int arena_open(uint64_t reserved_bytes, uint64_t limit_bytes) except -1

# Size classes are powers of two from ARENA_SMALLEST_BYTES. `allocate` returns an offset aligned to 64 bytes (to 4096
# from that size up), or 0 at the limit; what it holds is undefined. `release` takes the size that was asked for, or
# another of its class; offset 0 is let pass.
cdef uint64_t allocate(uint64_t size_bytes) noexcept nogil
cdef void release(uint64_t offset, uint64_t size_bytes) noexcept nogil
# What an allocation of `size_bytes` takes and may use; 0 for sizes past the largest class.
cdef uint64_t class_bytes(uint64_t size_bytes) noexcept nogil
# Gives pages of free large allocations back to the kernel until at most `bound_bytes` are cached.
cdef void trim_pages(int64_t bound_bytes) noexcept nogil

cdef uint8_t *arena_base            # == shared_arena().base once open

cdef inline void *at(uint64_t offset) noexcept nogil:
    return arena_base + offset

cdef inline uint64_t offset_of(const void *address) noexcept nogil:
    return <uint64_t> (<const uint8_t *> address - arena_base)
