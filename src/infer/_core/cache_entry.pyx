"""Keys and entries of the cache. See cache_entry.pxd."""

from libc.string cimport memcmp, memcpy

from infer._core.arena cimport at, class_bytes, offset_of
from infer._core.block cimport BLOCK_HEADER_BYTES, block_data, block_new
from infer._core.hash128 cimport Hash128, hash_begin, hash_end, hash_span, hash_words
from infer._core.tensor_view cimport TYPE_NONE

cdef enum:
    ALIGNMENT = 8


cdef inline uint64_t aligned(uint64_t size_bytes) noexcept nogil:
    return (size_bytes + ALIGNMENT - 1) & ~(<uint64_t> ALIGNMENT - 1)


cdef void hash_request(const HashSecret *secret, const CacheScope *scope, const Request *request, uint64_t *low,
                       uint64_t *high) noexcept nogil:
    cdef const TensorView *view
    cdef Hash128 state
    cdef int i
    hash_begin(&state, secret)
    hash_words(&state, scope.generation, scope.tenant)
    hash_words(&state, request.outputs.bits[0], request.outputs.bits[1])
    hash_words(&state, request.outputs.bits[2], request.outputs.bits[3])
    for i in range(request.n_views):
        view = &request.views[i]
        if view.data_type == TYPE_NONE:
            continue
        hash_words(&state, <uint64_t> i, (<uint64_t> view.data_type << 32) | <uint64_t> view.rank)
        hash_span(&state, <const uint8_t *> view.shape, <uint64_t> view.rank * sizeof(int64_t))
        hash_span(&state, <const uint8_t *> at(view.data), view.size_bytes)
    hash_end(&state)
    low[0] = state.low
    high[0] = state.high


cdef bint same_inputs(const TensorView *views, const OutputMask *outputs, const Request *request) noexcept nogil:
    cdef const TensorView *kept
    cdef const TensorView *view
    cdef int i
    if memcmp(outputs, &request.outputs, sizeof(OutputMask)) != 0:
        return False
    for i in range(request.n_views):
        kept = &views[i]
        view = &request.views[i]
        if kept.data_type != view.data_type:
            return False
        # One that was left out has a type alone.
        if view.data_type == TYPE_NONE:
            continue
        if kept.rank != view.rank or kept.size_bytes != view.size_bytes:
            return False
        if memcmp(kept.shape, view.shape, <uint64_t> view.rank * sizeof(int64_t)) != 0:
            return False
        if memcmp(at(kept.data), at(view.data), view.size_bytes) != 0:
            return False
    return True


cdef bint entry_answers(const CacheEntry *entry, const CacheScope *scope, const Request *request) noexcept nogil:
    return (entry.scope.generation == scope.generation and entry.scope.tenant == scope.tenant
            and same_inputs(entry.views, &entry.outputs, request))


cdef uint64_t content_bytes(const Request *request, uint64_t tail_size_bytes) noexcept nogil:
    cdef uint64_t size_bytes = sizeof(CacheEntry) + <uint64_t> request.n_views * sizeof(TensorView) + tail_size_bytes
    cdef int i
    for i in range(request.n_views):
        if request.views[i].data_type != TYPE_NONE:
            size_bytes += aligned(request.views[i].size_bytes)
    return size_bytes


cdef uint64_t entry_bytes(const Request *request, uint64_t tail_size_bytes) noexcept nogil:
    return class_bytes(content_bytes(request, tail_size_bytes) + BLOCK_HEADER_BYTES)


cdef CacheEntry *entry_new(const CacheScope *scope, const Request *request, uint64_t tail_size_bytes) noexcept nogil:
    cdef uint64_t size_bytes = content_bytes(request, tail_size_bytes)
    cdef Block *block = block_new(size_bytes)
    cdef CacheEntry *entry
    cdef TensorView *view
    cdef uint8_t *to
    cdef int i
    if block == NULL:
        return NULL
    block.size_bytes = size_bytes
    entry = <CacheEntry *> block_data(block)
    entry.block = block
    entry.scope = scope[0]
    entry.outputs = request.outputs
    entry.n_views = request.n_views
    entry.views = <TensorView *> (entry + 1)
    to = <uint8_t *> (entry.views + request.n_views)
    for i in range(request.n_views):
        view = &entry.views[i]
        view[0] = request.views[i]
        if view.data_type == TYPE_NONE:
            continue
        memcpy(to, at(view.data), view.size_bytes)
        view.data = offset_of(to)
        to += aligned(view.size_bytes)
    entry.tail = to
    entry.tail_bytes = tail_size_bytes
    return entry
