"""Arena, Blocks and Spans as a test drives them; not in wheels.

A BlockHandle owns the references that it took; a chunk belongs to the test that allocated it. Any thread.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from infer._core cimport arena
from infer._core.block cimport (
    BLOCK_HEADER_BYTES, Block, BlockView, block_data, block_grow, block_new, block_ref, block_unref)
from infer._core.span cimport Span, span_left, span_over, try_take

HEADER_BYTES = BLOCK_HEADER_BYTES
CLASSES = arena.ARENA_CLASSES
SMALLEST_BYTES = arena.ARENA_SMALLEST_BYTES


def allocate(size_bytes: int) -> int:
    """Offset of a chunk, 0 where the arena refuses."""
    cdef uint64_t size = size_bytes
    return arena.allocate(size)


def release(offset: int, size_bytes: int) -> None:
    arena.release(offset, size_bytes)


def class_bytes(size_bytes: int) -> int:
    return arena.class_bytes(size_bytes)


def set_limit(limit_bytes: int) -> int:
    """Change the arena's limit and return the one before."""
    cdef arena.ArenaState *state = arena.shared_arena()
    cdef uint64_t before = state.limit_bytes
    state.limit_bytes = limit_bytes
    return before


def fill(offset: int, size_bytes: int, value: int) -> None:
    memset(arena.at(offset), value, size_bytes)


def read(offset: int, size_bytes: int) -> bytes:
    return PyBytes_FromStringAndSize(<char *> arena.at(offset), size_bytes)


cdef struct Held:
    uint64_t offset
    uint64_t size


cdef int64_t churn_chunks(Held *held, int slots, uint64_t rounds, uint64_t seed, int largest_log2) noexcept nogil:
    cdef uint64_t random = seed * 2 + 1
    cdef uint8_t tag = <uint8_t> seed
    cdef uint8_t *bytes
    cdef uint64_t turn
    cdef Held *slot
    for turn in range(rounds + slots):
        random ^= random << 13
        random ^= random >> 7
        random ^= random << 17
        slot = &held[turn - rounds if turn >= rounds else (random >> 32) % <uint64_t> slots]
        if slot.offset:
            bytes = <uint8_t *> arena.at(slot.offset)
            if bytes[0] != tag or bytes[slot.size - 1] != tag:
                return -1
            arena.release(slot.offset, slot.size)
            slot.offset = 0
        elif turn < rounds:
            slot.size = 1 + (random >> 8) % (<uint64_t> 1 << (random & 31) % <uint64_t> (largest_log2 + 1))
            slot.offset = arena.allocate(slot.size)
            if slot.offset:
                bytes = <uint8_t *> arena.at(slot.offset)
                bytes[0] = tag
                bytes[slot.size - 1] = tag
    return 0


def churn(rounds: int, tag: int, slots: int = 64, largest_log2: int = 20) -> bool:
    """Allocate and release at random without the GIL; False when a chunk lost what was written into it."""
    cdef Held *held = <Held *> calloc(slots, sizeof(Held))
    cdef uint64_t c_rounds = rounds
    cdef uint64_t seed = tag
    cdef int c_slots = slots
    cdef int largest = largest_log2
    cdef int64_t result
    if held == NULL:
        raise MemoryError
    with nogil:
        result = churn_chunks(held, c_slots, c_rounds, seed, largest)
    free(held)
    return result == 0


cdef class BlockHandle:
    """A Block and the references that this handle took and has not dropped."""
    cdef Block *block
    cdef readonly int references

    def __cinit__(self, capacity_bytes: int):
        cdef uint64_t capacity = capacity_bytes
        self.references = 0
        self.block = block_new(capacity)
        if self.block == NULL:
            raise MemoryError("arena at its limit")
        self.references = 1

    def __dealloc__(self):
        while self.references > 0:
            self.references -= 1
            block_unref(self.block)

    def ref(self) -> None:
        block_ref(self.block)
        self.references += 1

    def unref(self) -> None:
        if self.references == 0:
            raise ValueError("no reference left to drop")
        self.references -= 1
        block_unref(self.block)
        if self.references == 0:
            self.block = NULL

    def grow(self, capacity_bytes: int) -> bool:
        """False where the arena refuses; the Block stays as it was then."""
        cdef uint64_t capacity = capacity_bytes
        cdef Block *grown = block_grow(self.block, capacity)
        if grown == NULL:
            return False
        self.block = grown
        return True

    def append(self, data: bytes) -> None:
        cdef uint64_t size = len(data)
        if size > self.block.capacity_bytes - self.block.size_bytes:
            raise ValueError("no room")
        memcpy(block_data(self.block) + self.block.size_bytes, PyBytes_AS_STRING(data), size)
        self.block.size_bytes += size

    def view(self, start: int, size: int) -> BlockView:
        return BlockView.over(self.block, start, size)

    @property
    def count(self) -> int:
        """References of all holders."""
        return self.block.references

    @property
    def offset(self) -> int:
        return arena.offset_of(self.block)

    @property
    def capacity_bytes(self) -> int:
        return self.block.capacity_bytes

    @property
    def data(self) -> bytes:
        return PyBytes_FromStringAndSize(<char *> block_data(self.block), self.block.size_bytes)


def unref_null() -> None:
    block_unref(NULL)


cdef class SpanCursor:
    """A Span over bytes that this object keeps alive."""
    cdef bytes data
    cdef Span span

    def __cinit__(self, data: bytes):
        self.data = data
        self.span = span_over(<const uint8_t *> PyBytes_AS_STRING(data), len(data))

    @property
    def left(self) -> int:
        return span_left(&self.span)

    def take(self, size_bytes: int) -> bytes | None:
        """The next bytes, or None where there are fewer."""
        cdef Span part
        cdef uint64_t size = size_bytes
        if not try_take(&self.span, size, &part):
            return None
        return PyBytes_FromStringAndSize(<const char *> part.at, <Py_ssize_t> span_left(&part))
