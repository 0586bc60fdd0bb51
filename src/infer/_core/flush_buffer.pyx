"""Joins small frames and keeps large payloads uncopied. See flush_buffer.pxd."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memcpy

from infer._core.block cimport BlockView

cimport cython

cdef enum:
    ROOM_BYTES = 65536


@cython.final
cdef class FlushBuffer:
    """Begun, filled and taken once per flush of a connection."""

    def __cinit__(self):
        self.room = <uint8_t *> PyMem_Malloc(ROOM_BYTES)
        if self.room == NULL:
            raise MemoryError("no memory for the flush buffer")
        self.pieces = []

    def __dealloc__(self):
        PyMem_Free(self.room)

    cdef void begin(self, uint64_t limit_bytes) except *:
        self.joined_bytes = 0
        self.taken_bytes = 0
        self.limit_bytes = limit_bytes
        self.blocked = False
        self.pieces = []

    cdef bint is_full(self) noexcept:
        return self.taken_bytes >= self.limit_bytes

    cdef int put(self, const uint8_t *data, uint64_t size_bytes) except -1:
        self.taken_bytes += size_bytes
        if self.joined_bytes + size_bytes > ROOM_BYTES:
            self.cut()
        if size_bytes > ROOM_BYTES:
            self.pieces.append(PyBytes_FromStringAndSize(<const char *> data, <Py_ssize_t> size_bytes))
            return 0
        memcpy(self.room + self.joined_bytes, data, size_bytes)
        self.joined_bytes += size_bytes
        return 0

    cdef int put_view(self, Block *block, uint64_t start, uint64_t size_bytes) except -1:
        self.taken_bytes += size_bytes
        self.cut()
        self.pieces.append(BlockView.over(block, start, size_bytes))
        return 0

    cdef list take(self):
        self.cut()
        pieces = self.pieces
        self.pieces = []
        return pieces or None

    cdef int cut(self) except -1:
        """Makes a piece of what has been joined."""
        if self.joined_bytes > 0:
            self.pieces.append(PyBytes_FromStringAndSize(<const char *> self.room, <Py_ssize_t> self.joined_bytes))
            self.joined_bytes = 0
        return 0
