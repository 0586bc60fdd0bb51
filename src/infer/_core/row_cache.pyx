"""Rows looked up, taken out, kept, and put together again. See row_cache.pxd."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from infer._core.arena cimport at, offset_of, release
from infer._core.cache cimport CACHE_HIT, CACHE_PASS, CachePart, scope_of
from infer._core.cache_entry cimport CacheEntry, CacheScope, hash_request
from infer._core.clock cimport now_ns
from infer._core.difference cimport Output
from infer._core.flight cimport Flight
from infer._core.frequency cimport frequency_add
from infer._core.hash128 cimport Hash128, hash_begin, hash_end, hash_words
from infer._core.model_version cimport CacheStats, Signature, VersionEntry
from infer._core.reply cimport encode_tail, item_slices, tail_bytes
from infer._core.reply_reader cimport ReplyOutputs, read_tail
from infer._core.request cimport request_reserve_views
from infer._core.row_plan cimport (
    ROW_KNOWN, RowPlan, known_at, plan_of, plan_rows, reply_known)
from infer._core.tensor_encode cimport OutputSlice
from infer._core.tensor_request cimport CACHE_NO_CACHE
from infer._core.tensor_view cimport MAX_OUTPUTS, TYPE_NONE, TensorView, mask_has

cdef enum:
    TABLE_SLOTS_MOST = 2 * CACHE_ROWS_MOST

# Of the request that is being looked up.
cdef struct Rows:
    uint64_t low[CACHE_ROWS_MOST]
    uint64_t high[CACHE_ROWS_MOST]
    int32_t place[CACHE_ROWS_MOST]
    int32_t source[CACHE_ROWS_MOST]          # of those that are left: which row it is
    int32_t hashed[CACHE_ROWS_MOST]          # of those as well
    int32_t table[TABLE_SLOTS_MOST]          # rows by hash, plus 1; 0: none
    uint64_t slots
    int64_t new_rows
    int64_t looked                           # rows that were not passed by
    const CacheEntry *first                  # that is known; NULL: none is
    const CacheEntry *entry[CACHE_ROWS_MOST]     # of those that are known
    ReplyOutputs kept                        # of that one
    TensorView outputs[MAX_OUTPUTS]          # the same; data is not set
    uint64_t begin[MAX_OUTPUTS]              # where the contents of each begin in a tail

cdef Rows found


# One row as a request.

cdef bint row_begin(Request *one, const Request *request) noexcept nogil:
    """The first row; False: no memory. Nothing but views and outputs is set."""
    cdef TensorView *view
    cdef int i
    one.views = one.inline_views
    if not request_reserve_views(one, request.n_views):
        return False
    one.outputs = request.outputs
    for i in range(request.n_views):
        view = &one.views[i]
        view[0] = request.views[i]
        if view.data_type != TYPE_NONE:
            view.shape[0] = 1
            view.size_bytes //= <uint64_t> request.rows
    return True


cdef void row_next(Request *one) noexcept nogil:
    cdef int i
    for i in range(one.n_views):
        if one.views[i].data_type != TYPE_NONE:
            one.views[i].data += one.views[i].size_bytes


cdef void row_end(Request *one) noexcept nogil:
    if one.views != one.inline_views:
        release(offset_of(one.views), <uint64_t> one.n_views * sizeof(TensorView))


# Looking up.

cdef bint same_rows(const Request *request, int64_t one, int64_t other) noexcept nogil:
    cdef const TensorView *view
    cdef const uint8_t *data
    cdef uint64_t row_bytes
    cdef int i
    for i in range(request.n_views):
        view = &request.views[i]
        if view.data_type == TYPE_NONE:
            continue
        data = <const uint8_t *> at(view.data)
        row_bytes = view.size_bytes // <uint64_t> request.rows
        if memcmp(data + <uint64_t> one * row_bytes, data + <uint64_t> other * row_bytes, row_bytes) != 0:
            return False
    return True


cdef int64_t equal_before(const Request *request, int64_t row) noexcept nogil:
    """An earlier row that the row equals, or -1, and the row is noted for those to come."""
    cdef uint64_t slot = found.low[row] & (found.slots - 1)
    cdef int64_t other
    while found.table[slot] != 0:
        other = found.table[slot] - 1
        if (found.low[other] == found.low[row] and found.high[other] == found.high[row]
                and same_rows(request, other, row)):
            return other
        slot = (slot + 1) & (found.slots - 1)
    found.table[slot] = <int32_t> row + 1
    return -1


cdef bint read_first(const CacheEntry *entry, const Signature *signature) noexcept nogil:
    """Where the outputs of one row lie in its tail; False: it has not those that are wanted."""
    cdef const Output *output
    cdef TensorView *view
    cdef int read = 0
    cdef int i
    if not read_tail(entry.tail, entry.tail_bytes, &found.kept):
        return False
    for i in range(signature.n_outputs):
        if not mask_has(&entry.outputs, i):
            continue
        if read == found.kept.count or found.kept.outputs[read].rank < 1 or found.kept.outputs[read].shape[0] != 1:
            return False
        output = &found.kept.outputs[read]
        found.begin[i] = <uint64_t> (output.data - entry.tail)
        view = &found.outputs[i]
        view.size_bytes = output.size_bytes
        view.data_type = output.data_type
        view.rank = <int16_t> output.rank
        memcpy(view.shape, output.shape, <uint64_t> output.rank * sizeof(int64_t))
        read += 1
    return read == found.kept.count


cdef bint fits(const CacheEntry *entry, const Signature *signature) noexcept nogil:
    """Whether its row can stand beside the first that is known: their tails differ in the contents alone."""
    cdef uint64_t end = 0
    cdef int i
    if found.first == NULL:
        if not read_first(entry, signature):
            return False
        found.first = entry
    if entry.tail_bytes != found.first.tail_bytes:
        return False
    for i in range(signature.n_outputs):
        if mask_has(&entry.outputs, i):
            if memcmp(entry.tail + end, found.first.tail + end, found.begin[i] - end) != 0:
                return False
            end = found.begin[i] + found.outputs[i].size_bytes
    return end == entry.tail_bytes


cdef void left_to_run(int64_t row, bint hashed) noexcept nogil:
    found.place[row] = <int32_t> found.new_rows
    found.source[found.new_rows] = <int32_t> row
    found.hashed[found.new_rows] = hashed
    found.new_rows += 1


cdef void find_rows(Cache cache, CachePart *part, const CacheScope *scope, const Request *request, Request *one,
                    bint fresh, int64_t max_age_ns, int64_t now) noexcept:
    """Fills `found`. Its entries are there until something is kept, or removed."""
    cdef const Signature *signature = &(<VersionEntry> request.version).c.signature
    cdef int64_t row, other
    cdef CacheEntry *entry
    found.new_rows = found.looked = 0
    found.first = NULL
    found.slots = 2
    while found.slots < <uint64_t> (2 * request.rows):
        found.slots *= 2
    memset(found.table, 0, found.slots * sizeof(int32_t))
    for row in range(request.rows):
        if row > 0:
            row_next(one)
        if part.stats.bypassing and not cache.samples(part, one):
            left_to_run(row, False)
            continue
        found.looked += 1
        hash_request(&cache.secret, scope, one, &found.low[row], &found.high[row])
        found.low[row] &= cache.hash_mask
        found.high[row] &= cache.hash_mask
        other = equal_before(request, row)
        if other >= 0:
            found.place[row] = found.place[other]
            found.entry[row] = found.entry[other]
            continue
        if cache.filtering:
            frequency_add(&cache.frequency, found.low[row], found.high[row])
        entry = NULL if fresh else cache.find(part, scope, one, found.low[row], found.high[row], max_age_ns, now)
        if entry != NULL and fits(entry, signature):
            found.place[row] = ROW_KNOWN
            found.entry[row] = entry
        else:
            left_to_run(row, True)


cdef bint make_plan(Request *request) noexcept nogil:
    """False: no memory."""
    cdef const Signature *signature = &(<VersionEntry> request.version).c.signature
    cdef RowPlan *plan
    cdef int64_t row, source
    cdef int i
    if not plan_rows(request, found.place, found.source, found.new_rows,
                     found.outputs if found.first != NULL else NULL):
        return False
    plan = plan_of(request)
    for row in range(plan.new_rows):
        source = found.source[row]
        plan.keys[row].kept = found.hashed[row]
        plan.keys[row].low = found.low[source]
        plan.keys[row].high = found.high[source]
    for i in range(signature.n_outputs if found.first != NULL else 0):
        if not mask_has(&request.outputs, i):
            continue
        for row in range(plan.rows):
            if plan.place[row] == ROW_KNOWN:
                memcpy(known_at(plan, i, row), found.entry[row].tail + found.begin[i], found.outputs[i].size_bytes)
    return True


cdef void hash_left(Cache cache, const CacheScope *scope, const RowPlan *plan, uint64_t *low, uint64_t *high) noexcept:
    """Of the rows that are left, by their own: it finds what the bytes are then compared with."""
    cdef Hash128 state
    cdef int64_t row
    hash_begin(&state, &cache.secret)
    hash_words(&state, scope.generation, <uint64_t> plan.new_rows)
    for row in range(plan.new_rows):
        hash_words(&state, plan.keys[row].low, plan.keys[row].high)
    hash_end(&state)
    low[0] = state.low & cache.hash_mask
    high[0] = state.high & cache.hash_mask


cdef CacheVerdict look_up(Cache cache, Request *request, const InferMessage *message, int64_t queued_rows,
                          int64_t now) noexcept:
    cdef CachePart *part = <CachePart *> (<VersionEntry> request.version).c.cached
    cdef CacheStats *stats = part.stats
    cdef CacheScope scope
    cdef Request one
    cdef bint fresh = message.cache_use == CACHE_NO_CACHE
    cdef int64_t known
    cdef uint64_t low, high
    if not part.by_rows or not 1 < request.rows <= CACHE_ROWS_MOST:
        return cache.look(request, message, queued_rows, now)
    scope = scope_of(part, request, cache.shared)
    part.seen += request.rows
    if cache.passes(request, message, &scope) or not row_begin(&one, request):
        stats.passed += 1
        return CACHE_PASS
    find_rows(cache, part, &scope, request, &one, fresh, message.max_age_ns, now)
    row_end(&one)
    if found.looked == 0:
        stats.passed += 1
        return CACHE_PASS
    part.lookups += found.looked
    # Without memory it runs as it came.
    if not make_plan(request):
        stats.passed += 1
        return CACHE_PASS
    known = plan_of(request).rows - found.new_rows
    stats.known_rows += known
    stats.new_rows += found.looked - known
    part.window_hits += known
    if found.new_rows == 0:
        stats.hits += 1
        stats.hit_ns += now_ns() - now
        cache.judge(part)
        return CACHE_HIT
    hash_left(cache, &scope, plan_of(request), &low, &high)
    return cache.fly(request, &scope, low, high, fresh, found.looked - known, queued_rows, now)


# Keeping.

cdef void keep_run(Cache cache, Request *leader, const Batch *batch, int index) noexcept:
    cdef VersionEntry entry = <VersionEntry> leader.version
    cdef CachePart *part = <CachePart *> entry.c.cached
    cdef Flight *flight = <Flight *> leader.flight
    cdef OutputSlice slices[MAX_OUTPUTS]
    cdef Request one
    cdef RowPlan *plan = plan_of(leader)
    cdef CacheEntry *made
    cdef uint64_t size_bytes
    cdef int64_t now = now_ns()
    cdef int64_t row
    cdef int i
    if plan == NULL:
        cache.keep(leader, batch, index)
        return
    if not flight.kept or not row_begin(&one, leader):
        return
    item_slices(batch, index, &leader.outputs, slices)
    for i in range(entry.c.signature.n_outputs):
        if mask_has(&leader.outputs, i):
            slices[i].size_bytes //= <uint64_t> leader.rows
    size_bytes = tail_bytes(&entry.c.signature, &leader.outputs, slices, 1)
    for row in range(leader.rows):
        if plan.keys[row].kept:
            made = cache.place(part, &flight.scope, &one, plan.keys[row].low, plan.keys[row].high, size_bytes, now)
            if made != NULL:
                encode_tail(made.tail, &entry.c.signature, &leader.outputs, slices, 1)
        row_next(&one)
        for i in range(entry.c.signature.n_outputs):
            if mask_has(&leader.outputs, i):
                slices[i].data += slices[i].size_bytes
    row_end(&one)
    part.stats.miss_ns += now_ns() - now


cdef int reply_hit(Cache cache, Request *request, Segment *segments) noexcept:
    return reply_known(segments, request) if request.planned else cache.reply(request, segments)
