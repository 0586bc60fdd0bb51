"""Free lists over malloc. Each piece begins with its class, 16 bytes ahead of what the caller sees.

In debug builds every call goes to malloc and back, so that AddressSanitizer sees each piece by itself.
"""

from libc.stdint cimport SIZE_MAX, int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from infer._core.debug cimport INFER_DEBUG, try_malloc

cdef enum:
    HEAD_BYTES = 16              # keeps malloc's alignment

cdef struct Piece:
    uint64_t room_bytes          # for the caller
    Piece *next                  # among the free ones

cdef Piece *kept[SLAB_CLASSES]
cdef int n_kept[SLAB_CLASSES]
cdef int64_t n_live = 0         # counted in debug builds


cdef inline Piece *piece_of(void *address) noexcept nogil:
    return <Piece *> (<char *> address - HEAD_BYTES)


cdef inline void *address_of(Piece *piece) noexcept nogil:
    return <char *> piece + HEAD_BYTES


cdef void *slab_malloc(size_t size_bytes, void *unused) noexcept nogil:
    global n_live
    cdef size_t kind = (size_bytes + SLAB_STEP_BYTES - 1) // SLAB_STEP_BYTES - 1 if size_bytes else 0
    cdef size_t room = size_bytes
    cdef Piece *piece
    if kind < SLAB_CLASSES:
        piece = kept[kind]
        if piece != NULL:
            kept[kind] = piece.next
            n_kept[kind] -= 1
            return address_of(piece)
        room = (kind + 1) * SLAB_STEP_BYTES
    if room > SIZE_MAX - HEAD_BYTES:
        return NULL
    if INFER_DEBUG:
        room = size_bytes
    piece = <Piece *> try_malloc(HEAD_BYTES + room)
    if piece == NULL:
        return NULL
    if INFER_DEBUG:
        n_live += 1
    piece.room_bytes = room
    return address_of(piece)


cdef void slab_free(void *address, void *unused) noexcept nogil:
    global n_live
    cdef Piece *piece
    cdef size_t kind
    if address == NULL:
        return
    piece = piece_of(address)
    kind = piece.room_bytes // SLAB_STEP_BYTES - 1
    if INFER_DEBUG:
        n_live -= 1
    if INFER_DEBUG or piece.room_bytes > SLAB_CLASSES * SLAB_STEP_BYTES or n_kept[kind] >= SLAB_KEPT:
        free(piece)
        return
    piece.next = kept[kind]
    kept[kind] = piece
    n_kept[kind] += 1


cdef void *slab_calloc(size_t count, size_t size_bytes, void *unused) noexcept nogil:
    cdef void *address
    if size_bytes != 0 and count > SIZE_MAX // size_bytes:
        return NULL
    address = slab_malloc(count * size_bytes, unused)
    if address != NULL:
        memset(address, 0, count * size_bytes)
    return address


cdef void *slab_realloc(void *address, size_t size_bytes, void *unused) noexcept nogil:
    cdef size_t room
    cdef void *moved
    if address == NULL:
        return slab_malloc(size_bytes, unused)
    room = piece_of(address).room_bytes
    if size_bytes <= room and not INFER_DEBUG:
        return address
    moved = slab_malloc(size_bytes, unused)
    if moved == NULL:
        return NULL
    memcpy(moved, address, size_bytes if size_bytes < room else room)
    slab_free(address, unused)
    return moved


cdef void slab_trim() noexcept nogil:
    cdef int kind
    cdef Piece *piece
    for kind in range(SLAB_CLASSES):
        while kept[kind] != NULL:
            piece = kept[kind]
            kept[kind] = piece.next
            free(piece)
        n_kept[kind] = 0


cdef int64_t slab_kept_bytes() noexcept nogil:
    cdef int64_t total = 0
    cdef int kind
    for kind in range(SLAB_CLASSES):
        total += <int64_t> n_kept[kind] * (HEAD_BYTES + (kind + 1) * SLAB_STEP_BYTES)
    return total


cdef int64_t slab_live_pieces() noexcept nogil:
    return n_live
