"""malloc with free lists by size class, for one thread: what libnghttp2 allocates for each call comes back at once.

Loop thread only, no lock. glibc keeps at most seven freed pieces of a size at hand; a read of 64 calls frees and takes
hundreds.
"""

from libc.stdint cimport int64_t

cdef enum:
    SLAB_STEP_BYTES = 64
    SLAB_CLASSES = 16            # up to 1024 bytes; larger pieces go to malloc and back
    SLAB_KEPT = 4096             # pieces per class kept at most

cdef void *slab_malloc(size_t size_bytes, void *unused) noexcept nogil
cdef void slab_free(void *piece, void *unused) noexcept nogil
cdef void *slab_calloc(size_t count, size_t size_bytes, void *unused) noexcept nogil
cdef void *slab_realloc(void *piece, size_t size_bytes, void *unused) noexcept nogil
# Gives all kept pieces back to malloc.
cdef void slab_trim() noexcept nogil
cdef int64_t slab_kept_bytes() noexcept nogil
# Pieces that were not freed; counted in debug builds, else 0.
cdef int64_t slab_live_pieces() noexcept nogil
