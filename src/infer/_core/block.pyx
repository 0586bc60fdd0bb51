"""Reference-counted bytes in the arena, and a Python buffer over part of them.

A Block belongs to those who hold its references: whoever made it holds the first. Any thread may make one; after it was
handed to the loop thread, only that thread touches its count.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from infer._core.arena cimport allocate, at, class_bytes, offset_of, release
from infer._core.debug cimport LIVE_BLOCK, count_live, require

cdef enum:
    LARGEST_LOG2 = 46            # no size class is larger: keeps the sum with the header from wrapping


cdef Block *block_new(uint64_t capacity_bytes) noexcept nogil:
    cdef uint64_t total = min(capacity_bytes, <uint64_t> 1 << LARGEST_LOG2) + BLOCK_HEADER_BYTES
    cdef uint64_t offset
    cdef Block *block
    # The whole class is asked for, since all of it may be used.
    total = class_bytes(total) or total
    offset = allocate(total)
    if not offset:
        return NULL
    block = <Block *> at(offset)
    block.capacity_bytes = total - BLOCK_HEADER_BYTES
    block.size_bytes = 0
    block.references = 1
    count_live(LIVE_BLOCK, 1)
    return block


cdef void block_ref(Block *block) noexcept nogil:
    require(block.references > 0, b"block: reference to a freed block")
    block.references += 1


cdef void block_unref(Block *block) noexcept nogil:
    if block == NULL:
        return
    require(block.references > 0, b"block: more references dropped than taken")
    block.references -= 1
    if block.references == 0:
        count_live(LIVE_BLOCK, -1)
        release(offset_of(block), block.capacity_bytes + BLOCK_HEADER_BYTES)


cdef Block *block_grow(Block *block, uint64_t capacity_bytes) noexcept nogil:
    cdef Block *grown
    if capacity_bytes <= block.capacity_bytes:
        return block
    require(block.references == 1, b"block: grown while shared")
    grown = block_new(capacity_bytes)
    if grown == NULL:
        return NULL
    grown.size_bytes = block.size_bytes
    memcpy(block_data(grown), block_data(block), block.size_bytes)
    block_unref(block)
    return grown


@cython.final
@cython.freelist(64)
@cython.no_gc
cdef class BlockView:
    def __cinit__(self):
        self.block = NULL
        self.start = 0
        self.size = 0
        self.writable = False

    def __init__(self):
        raise TypeError("a BlockView is made by the core alone")

    @staticmethod
    cdef BlockView over(Block *block, uint64_t start, uint64_t size):
        cdef BlockView view = BlockView.__new__(BlockView)
        require(start <= block.capacity_bytes and size <= block.capacity_bytes - start, b"block: view past the end")
        block_ref(block)         # dropped in __dealloc__
        view.block = block
        view.start = start
        view.size = <Py_ssize_t> size
        return view

    def __dealloc__(self):
        block_unref(self.block)

    def __len__(self) -> int:
        return self.size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.block == NULL:
            raise BufferError("this BlockView has no Block")
        PyBuffer_FillInfo(buffer, self, block_data(self.block) + self.start, self.size, not self.writable,
                          flags)
