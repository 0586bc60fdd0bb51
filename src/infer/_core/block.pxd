"""Reference-counted bytes in the arena: a message as it came, a decoded tensor, a batch's outputs, an encoded reply.

A Block is a 64-byte header followed by its data. An executor may make one and hand it over; from then on the counts are
touched by the loop thread only.
"""

cimport cython
from libc.stdint cimport int32_t, uint8_t, uint64_t

cdef enum:
    BLOCK_HEADER_BYTES = 64

cdef struct Block:
    uint64_t capacity_bytes      # room for data
    uint64_t size_bytes          # data present
    int32_t references
    uint8_t padding[44]

cdef inline uint8_t *block_data(Block *block) noexcept nogil:
    return <uint8_t *> block + BLOCK_HEADER_BYTES

# A Block with one reference and room for at least `capacity_bytes`, or NULL at the arena's limit.
cdef Block *block_new(uint64_t capacity_bytes) noexcept nogil
cdef void block_ref(Block *block) noexcept nogil
# Frees at zero; NULL is let pass.
cdef void block_unref(Block *block) noexcept nogil
# Room for at least `capacity_bytes`, keeping the data: the same Block or a new one in its place (the old is then
# gone), or NULL at the limit (the old stays). Only while there is a single reference.
cdef Block *block_grow(Block *block, uint64_t capacity_bytes) noexcept nogil


@cython.final
cdef class BlockView:
    """Buffer over part of a Block, read-only but for a message that is coming; made and freed on the loop thread.

    Each buffer taken from it keeps it alive, and it keeps the Block alive by one reference of its own: the Block
    outlives the last buffer.
    """
    cdef Block *block
    cdef uint64_t start
    cdef Py_ssize_t size
    cdef bint writable

    # Takes a reference of its own; `start + size` lies within the Block's capacity.
    @staticmethod
    cdef BlockView over(Block *block, uint64_t start, uint64_t size)
