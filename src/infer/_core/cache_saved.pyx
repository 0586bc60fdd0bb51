"""Entries of a Cache as Python objects, for those that outlive a process. Loop thread.

Those of nobody in particular alone: a tenant is known by a number of its process.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.string cimport memcpy

from infer._core.arena cimport at, offset_of
from infer._core.block cimport block_data, block_new
from infer._core.cache cimport Cache, CachePart, CacheShelf
from infer._core.cache_entry cimport CacheEntry, CacheScope, entry_bytes, entry_new, hash_request
from infer._core.clock cimport now_ns
from infer._core.lru cimport LruLink, lru_peek
from infer._core.model_version cimport VersionEntry
from infer._core.request cimport Request, request_free, request_new, request_reserve_views
from infer._core.tensor_view cimport MAX_RANK, TYPE_NONE, TensorView, element_bytes

cdef enum:
    ALIGNMENT = 8


def saved(Cache cache not None, uint64_t limit_bytes):
    """What was used last, newest first, until it takes `limit_bytes`: (VersionEntry, age_ns, left_ns, outputs, inputs,
    tail). left_ns: -1 for no end; outputs: four numbers of 64 bits; inputs: (type, shape, content), None for one left
    out."""
    cdef LruLink *link = cache.lru.nodes.older
    cdef CacheEntry *entry
    cdef TensorView *view
    cdef uint64_t taken = 0
    cdef int64_t now = now_ns()
    cdef int i, k
    found = []
    while link != &cache.lru.nodes:
        entry = <CacheEntry *> link
        link = link.older
        if (<CacheShelf *> entry.node.part).stats == NULL or entry.scope.tenant != 0 or entry.expires_ns <= now:
            continue
        taken += entry.node.size_bytes
        if taken > limit_bytes:
            break
        inputs = []
        for i in range(entry.n_views):
            view = &entry.views[i]
            inputs.append(None if view.data_type == TYPE_NONE else (
                view.data_type, [view.shape[k] for k in range(view.rank)],
                (<const char *> at(view.data))[:view.size_bytes]))
        found.append((cache.versions[entry.scope.generation], now - entry.stored_ns,
                      -1 if entry.expires_ns == INT64_MAX else entry.expires_ns - now,
                      [entry.outputs.bits[k] for k in range(4)], inputs,
                      (<const char *> entry.tail)[:entry.tail_bytes]))
    return found


def warm(Cache cache not None, VersionEntry version not None, int64_t age_ns, int64_t left_ns, list outputs,
         list inputs, bytes tail not None) -> bool:
    """Keeps it as if the version had answered it so long ago. False: it does not fit the version, or not in."""
    cdef CachePart *part = <CachePart *> version.c.cached
    cdef Request *request
    cdef bint kept = False
    if part == NULL or len(inputs) != version.c.signature.n_inputs or len(outputs) != 4 or age_ns < 0:
        return False
    if part.ttl_ns > 0:
        left_ns = part.ttl_ns - age_ns if left_ns < 0 else min(left_ns, part.ttl_ns - age_ns)
        if left_ns <= 0:
            return False
    request = request_new()
    if request == NULL:
        return False
    try:
        if fill(request, version, outputs, inputs):
            kept = put(cache, part, request, age_ns, left_ns, tail)
    finally:
        request_free(request)
    return kept


cdef bint fill(Request *request, VersionEntry version, list outputs, list inputs) except -1:
    """The views of a request that asks for it; False: not of this version, or no memory."""
    cdef uint64_t room = sum([len(each[2]) + ALIGNMENT for each in inputs if each is not None])
    cdef uint64_t used = 0
    cdef uint64_t elements
    cdef TensorView *view
    cdef bytes content
    cdef int i, k
    if not request_reserve_views(request, <int> len(inputs)):
        return False
    request.decoded = block_new(room)
    if request.decoded == NULL:
        return False
    for k in range(4):
        request.outputs.bits[k] = outputs[k]
    for i in range(len(inputs)):
        view = &request.views[i]
        view.data_type = TYPE_NONE
        if inputs[i] is None:
            continue
        data_type, shape, content = inputs[i]
        if data_type != version.c.signature.inputs[i].data_type or len(shape) > MAX_RANK:
            return False
        view.data_type = data_type
        view.form = 0
        view.rank = <int> len(shape)
        view.size_bytes = <uint64_t> len(content)
        elements = 1
        for k in range(view.rank):
            view.shape[k] = shape[k]
            elements *= <uint64_t> view.shape[k]
        if element_bytes(view.data_type) and elements * element_bytes(view.data_type) != view.size_bytes:
            return False
        view.data = offset_of(block_data(request.decoded) + used)
        memcpy(block_data(request.decoded) + used, <const char *> content, view.size_bytes)
        used += (view.size_bytes + ALIGNMENT - 1) & ~(<uint64_t> ALIGNMENT - 1)
    return True


cdef bint put(Cache cache, CachePart *part, Request *request, int64_t age_ns, int64_t left_ns, bytes tail) noexcept:
    cdef int64_t now = now_ns()
    cdef uint64_t size_bytes = entry_bytes(request, <uint64_t> len(tail))
    cdef uint64_t low, high
    cdef CacheScope scope
    cdef CacheEntry *made
    scope.generation = part.generation
    scope.tenant = 0
    hash_request(&cache.secret, &scope, request, &low, &high)
    if size_bytes == 0 or size_bytes > part.shelf.part.group.limit_bytes or lru_peek(&cache.lru, low, high) != NULL:
        return False
    cache.make_room(part, size_bytes)
    made = entry_new(&scope, request, <uint64_t> len(tail))
    if made == NULL:
        return False
    memcpy(made.tail, <const char *> tail, len(tail))
    made.stored_ns = now - age_ns
    made.expires_ns = INT64_MAX if left_ns < 0 else now + left_ns
    made.node.low = low
    made.node.high = high
    made.node.size_bytes = size_bytes
    return cache.take(part, made)
