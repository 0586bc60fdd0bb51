"""Drives slab from tests: pieces by number, each filled with a byte of its own."""

from libc.stdint cimport uint8_t, uintptr_t
from libc.string cimport memset

from infer._core.slab cimport (
    slab_calloc, slab_free, slab_kept_bytes, slab_live_pieces, slab_malloc, slab_realloc, slab_trim)


cdef class Piece:
    """One piece: made by malloc or calloc, grown by realloc, given back by free."""

    cdef uint8_t *data
    cdef readonly size_t size_bytes

    def __cinit__(self, size_t size_bytes, bint zeroed=False):
        self.data = <uint8_t *> (slab_calloc(1, size_bytes, NULL) if zeroed else slab_malloc(size_bytes, NULL))
        if self.data == NULL:
            raise MemoryError
        self.size_bytes = size_bytes

    @property
    def address(self):
        return <uintptr_t> self.data

    def fill(self, uint8_t value):
        memset(self.data, value, self.size_bytes)

    def content(self):
        return self.data[:self.size_bytes]

    def resize(self, size_t size_bytes):
        cdef uint8_t *moved = <uint8_t *> slab_realloc(self.data, size_bytes, NULL)
        if moved == NULL:
            raise MemoryError
        self.data = moved
        self.size_bytes = size_bytes

    def free(self):
        slab_free(self.data, NULL)
        self.data = NULL

    def __dealloc__(self):
        slab_free(self.data, NULL)


def calloc_overflows(size_t count, size_t size_bytes):
    """Whether calloc refuses a product that does not fit."""
    cdef void *piece = slab_calloc(count, size_bytes, NULL)
    if piece == NULL:
        return True
    slab_free(piece, NULL)
    return False


def kept_bytes():
    return slab_kept_bytes()


def live_pieces():
    """Not freed; 0 in a release build."""
    return slab_live_pieces()


def trim():
    slab_trim()
