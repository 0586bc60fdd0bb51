"""Looking up, keeping, forgetting. See cache.pxd."""

cimport cython
from libc.stdint cimport INT64_MAX, uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from infer._core.arena cimport at
from infer._core.block cimport block_unref
from infer._core.cache_entry cimport (
    CACHE_ENTRY_LEAST_BYTES, entry_answers, entry_bytes, entry_new, hash_request)
from infer._core.clock cimport now_ns
from infer._core.debug cimport try_calloc
from infer._core.flight cimport (
    Flight, flight_find, flight_join, flight_lead, flight_leave, flight_open, flight_take, flights_free, flights_init,
    flights_unkeep)
from infer._core.frequency cimport frequency_add, frequency_free, frequency_init, frequency_of
from infer._core.hash128 cimport hash_secret
from infer._core.lru cimport (
    LRU_EVICTED, LruNode, lru_add_part, lru_clear_part, lru_drop_part, lru_evict, lru_free, lru_get, lru_group_init,
    lru_init, lru_move_part, lru_put, lru_remove, lru_table_bytes, lru_victim)
from infer._core.quota cimport Tenant
from infer._core.reply cimport encode_kept, encode_tail, id_of, item_slices, tail_bytes
from infer._core.span cimport Span
from infer._core.tensor_encode cimport OutputSlice
from infer._core.tensor_request cimport CACHE_NO_CACHE, CACHE_NO_STORE
from infer._core.tensor_view cimport TYPE_NONE, TensorView

cdef enum:
    WINDOW_LOOKUPS = 1024        # after so many a version is judged
    WINDOW_SAMPLES = 256         # ... where samples alone are looked up
    LEAST_HITS_SHARE = 100       # with less than 1 hit in so many it is bypassed
    ENOUGH_HITS_SHARE = 50       # with 1 in so many samples it is not any more
    SAMPLED_SHARE = 64           # 1 request of so many
    SALT_REQUESTS_LOG2 = 14      # samples are others after so many requests
    JITTER_SHARE = 10            # of the time that an entry lives, at most 1/10 is taken off it
    REMOVED_AT_ONCE = 256        # of what is forgotten: as long as a batch's replies take


cdef void on_gone(LruNode *node, int reason, void *owner) noexcept nogil:
    cdef CacheShelf *shelf = <CacheShelf *> node.part
    if shelf.stats != NULL:
        note_size(shelf)
        shelf.stats.evictions += reason == LRU_EVICTED
    block_unref((<CacheEntry *> node).block)


cdef inline void note_size(CacheShelf *shelf) noexcept nogil:
    shelf.stats.entries = shelf.part.entries
    shelf.stats.bytes = <int64_t> shelf.part.bytes


cdef CacheShelf *new_shelf(LruGroup *group, CacheStats *stats) noexcept nogil:
    """NULL: no memory."""
    cdef CacheShelf *shelf = <CacheShelf *> try_calloc(1, sizeof(CacheShelf))
    if shelf != NULL:
        shelf.stats = stats
        lru_add_part(group, &shelf.part)
    return shelf


cdef CacheScope scope_of(const CachePart *part, const Request *request, bint shared) noexcept nogil:
    cdef CacheScope scope
    scope.generation = part.generation
    scope.tenant = 0 if shared or request.tenant == NULL else (<Tenant *> request.tenant).id
    return scope


cdef class CacheModel:
    def __cinit__(self):
        self.versions = 0


@cython.no_gc_clear
cdef class Cache:
    """At most `limit_bytes` in all. `shared`: tenants get each other's answers; `filtering`: what is asked for less
    often than what it would push out is not kept."""

    def __cinit__(self, uint64_t limit_bytes, *, bint shared=False, bint filtering=True):
        cdef uint64_t table_bytes = lru_table_bytes(limit_bytes, CACHE_ENTRY_LEAST_BYTES)
        self.limit_bytes = limit_bytes
        self.shared = shared
        self.filtering = filtering
        self.hash_mask = ~(<uint64_t> 0)
        self.generations = 0
        self.removed_at_once = REMOVED_AT_ONCE
        self.models = {}
        self.versions = {}
        if not hash_secret(&self.secret):
            raise OSError("the system gives no random bytes for the cache's secret")
        # The table is part of the budget.
        if (lru_init(&self.lru, limit_bytes - min(table_bytes, limit_bytes), CACHE_ENTRY_LEAST_BYTES, on_gone,
                     NULL) < 0
                or frequency_init(&self.frequency, <uint64_t> self.lru.limit_entries) < 0
                or flights_init(&self.flights) < 0):
            raise MemoryError(f"no memory for a cache of {limit_bytes} bytes")
        self.forgotten = NULL
        lru_group_init(&self.gone, self.lru.limit_bytes)

    def __dealloc__(self):
        if self.flights.buckets != NULL:
            flight_lead(&self.flights)
            flights_free(&self.flights)
        self.close()
        frequency_free(&self.frequency)
        lru_free(&self.lru)

    def close(self):
        """Forgets every version, and has removed all of it."""
        for entry in list(self.versions.values()):
            self.forget(entry)
        while self.sweep():
            pass

    # Versions.

    def attach(self, VersionEntry entry not None, *, int64_t ttl_ns=0, uint64_t model_bytes=0, bint rows=False):
        """Its answers are kept from now on: each for `ttl_ns` at most (0: as long as the version), those of its model
        within `model_bytes` (0: within all). `rows`: row by row, which the version has to be able to (row_cache)."""
        cdef CachePart *part
        cdef CacheModel model
        if entry.c.cached != NULL:
            raise ValueError(f"{entry!r} is cached already")
        if entry.name not in self.models:
            model = CacheModel()
            lru_group_init(&model.group, 0)
        else:
            model = self.models[entry.name]
        part = <CachePart *> try_calloc(1, sizeof(CachePart))
        if part != NULL:
            part.shelf = new_shelf(&model.group, &entry.stats.cache)
        if part == NULL or part.shelf == NULL:
            free(part)
            raise MemoryError("no memory for the version's part of the cache")
        self.models[entry.name] = model
        model.versions += 1
        model.group.limit_bytes = self.lru.limit_bytes
        if 0 < model_bytes < model.group.limit_bytes:
            model.group.limit_bytes = model_bytes
        self.make_room(part, 0)
        self.generations += 1
        part.generation = self.generations
        part.ttl_ns = ttl_ns
        part.by_rows = rows
        part.stats = &entry.stats.cache
        self.versions[part.generation] = entry
        entry.c.cached = part

    cdef void forget(self, VersionEntry entry) noexcept:
        """The version's last request is gone: with it goes all that it answered."""
        cdef CachePart *part = <CachePart *> entry.c.cached
        cdef CacheModel model
        if part == NULL:
            return
        self.put_away(part.shelf)
        model = self.models[entry.name]
        model.versions -= 1
        if model.versions == 0:
            del self.models[entry.name]
        entry.c.cached = NULL
        del self.versions[part.generation]
        free(part)

    def purge(self, str model=None, str version=None):
        """Forgets what is kept of a model, of one of its versions, or of all; (entries, bytes) that it was. Runs under
        way are not kept either."""
        cdef VersionEntry entry
        cdef CachePart *part
        cdef CacheShelf *shelf
        cdef int64_t entries = 0
        cdef int64_t size_bytes = 0
        for entry in self.versions.values():
            if (model is None or entry.name == model.encode()) and version in (None, entry.version):
                part = <CachePart *> entry.c.cached
                shelf = new_shelf(part.shelf.part.group, part.stats)
                if shelf == NULL:
                    raise MemoryError("no memory to forget what is kept")
                entries += part.shelf.part.entries
                size_bytes += <int64_t> part.shelf.part.bytes
                self.put_away(part.shelf)
                part.shelf = shelf
                flights_unkeep(&self.flights, &part.waiting_rows)
        return entries, size_bytes

    cdef void put_away(self, CacheShelf *shelf) noexcept:
        shelf.stats.entries = shelf.stats.bytes = 0
        shelf.stats = NULL
        lru_move_part(&shelf.part, &self.gone)
        shelf.next = self.forgotten
        self.forgotten = shelf
        self.sweep()

    def sweep(self) -> bint:
        """Removes some of what is forgotten; whether there is more."""
        cdef CacheShelf *shelf = self.forgotten
        if shelf != NULL and not lru_clear_part(&self.lru, &shelf.part, self.removed_at_once):
            self.forgotten = shelf.next
            lru_drop_part(&self.lru, &shelf.part)
            free(shelf)
        return self.forgotten != NULL

    def cached(self):
        """The VersionEntries whose answers are kept."""
        return list(self.versions.values())

    @property
    def bytes(self):
        """What is forgotten counts until it is removed."""
        return self.lru.bytes

    @property
    def entries(self):
        """The same."""
        return self.lru.entries

    def limit_of(self, VersionEntry entry not None):
        """The bound of its model."""
        return (<CacheModel> self.models[entry.name]).group.limit_bytes

    # Looking up.

    cdef CacheVerdict look(self, Request *request, const InferMessage *message, int64_t queued_rows,
                           int64_t now) noexcept:
        cdef VersionEntry entry = <VersionEntry> request.version
        cdef CachePart *part = <CachePart *> entry.c.cached
        cdef CacheScope scope = scope_of(part, request, self.shared)
        cdef CacheStats *stats = part.stats
        cdef bint fresh = message.cache_use == CACHE_NO_CACHE
        cdef uint64_t low, high
        part.seen += 1
        if self.passes(request, message, &scope) or (stats.bypassing and not self.samples(part, request)):
            stats.passed += 1
            return CACHE_PASS
        hash_request(&self.secret, &scope, request, &low, &high)
        low &= self.hash_mask
        high &= self.hash_mask
        if self.filtering:
            frequency_add(&self.frequency, low, high)
        part.lookups += 1
        if not fresh:
            self.found = self.find(part, &scope, request, low, high, message.max_age_ns, now)
            if self.found != NULL:
                part.window_hits += 1
                stats.hits += 1
                stats.hit_ns += now_ns() - now
                self.judge(part)
                return CACHE_HIT
        return self.fly(request, &scope, low, high, fresh, 1, queued_rows, now)

    cdef bint passes(self, const Request *request, const InferMessage *message, const CacheScope *scope) noexcept:
        # A tenant without an id is several.
        return (message.cache_use == CACHE_NO_STORE or message.sequence or request.deferred
                or (request.tenant != NULL and scope.tenant == 0 and not self.shared))

    cdef CacheEntry *find(self, CachePart *part, const CacheScope *scope, const Request *request, uint64_t low,
                          uint64_t high, int64_t max_age_ns, int64_t now) noexcept:
        cdef CacheEntry *found = <CacheEntry *> lru_get(&self.lru, low, high)
        if found == NULL or found.node.part != &part.shelf.part or not entry_answers(found, scope, request):
            return NULL
        if found.expires_ns <= now:
            part.stats.expiries += 1
            lru_remove(&self.lru, &found.node)
            return NULL
        return found if max_age_ns < 0 or now - found.stored_ns <= max_age_ns else NULL

    cdef CacheVerdict fly(self, Request *request, const CacheScope *scope, uint64_t low, uint64_t high, bint fresh,
                          int64_t lookups, int64_t queued_rows, int64_t now) noexcept:
        cdef VersionEntry entry = <VersionEntry> request.version
        cdef CachePart *part = <CachePart *> entry.c.cached
        cdef CacheStats *stats = part.stats
        cdef Flight *flight = NULL if fresh else flight_find(&self.flights, low, high, scope, request)
        if flight != NULL:
            part.window_hits += lookups
            self.judge(part)
            # Over the bound it is refused like all that would have to wait.
            if queued_rows + part.waiting_rows + request.rows > entry.c.queue_limit_rows:
                return CACHE_PASS
            flight_join(flight, request, now)
            return CACHE_WAITS
        self.judge(part)
        stats.misses += 1
        # Without memory for a flight it runs for itself.
        flight = flight_open(&self.flights, low, high, scope, request, stats, &part.waiting_rows, not fresh)
        stats.miss_ns += now_ns() - now
        return CACHE_PASS if flight == NULL else CACHE_LEADS

    cdef bint samples(self, CachePart *part, const Request *request) noexcept:
        """Whether this one is looked up of a version that is bypassed: by a few bytes of what it asks for, so that
        what is asked for again is sampled again."""
        cdef uint64_t mixed = self.secret.words[0] ^ <uint64_t> (part.seen >> SALT_REQUESTS_LOG2)
        cdef uint64_t piece
        cdef const TensorView *view
        cdef const uint8_t *data
        cdef int i
        for i in range(request.n_views):
            view = &request.views[i]
            if view.data_type == TYPE_NONE or view.size_bytes == 0:
                continue
            data = <const uint8_t *> at(view.data)
            piece = 0
            memcpy(&piece, data, min(view.size_bytes, 8))
            mixed = (mixed ^ piece) * 0x9e3779b97f4a7c15ULL
            if view.size_bytes > 8:
                memcpy(&piece, data + view.size_bytes - 8, 8)
                mixed = (mixed ^ (mixed >> 32) ^ piece) * 0x9e3779b97f4a7c15ULL
                memcpy(&piece, data + ((view.size_bytes - 8) >> 1), 8)
                mixed = (mixed ^ (mixed >> 32) ^ piece) * 0x9e3779b97f4a7c15ULL
        return ((mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9ULL) >> 32 & (SAMPLED_SHARE - 1) == 0

    cdef void judge(self, CachePart *part) noexcept:
        """At the end of a window: whether the version is worth looking up."""
        if part.lookups < (WINDOW_SAMPLES if part.stats.bypassing else WINDOW_LOOKUPS):
            return
        part.stats.bypassing = part.window_hits * (
            ENOUGH_HITS_SHARE if part.stats.bypassing else LEAST_HITS_SHARE) < part.lookups
        part.lookups = part.window_hits = 0

    cdef int reply(self, Request *request, Segment *segments) noexcept:
        cdef Span identity = id_of(request)
        return encode_kept(segments, <VersionEntry> request.version, &request.outputs, self.found.block,
                           self.found.tail, self.found.tail_bytes, &identity, request.fallback, request.arm)

    # Keeping.

    cdef LruNode *victim_for(self, CachePart *part, uint64_t size_bytes) noexcept:
        cdef LruGroup *group = part.shelf.part.group
        cdef LruNode *victim = lru_victim(&self.lru, &part.shelf.part, size_bytes)
        # Where the model's own bound is in the way, only what is the model's can go.
        while victim != NULL and self.forgotten != NULL and group.bytes + size_bytes <= group.limit_bytes:
            self.sweep()
            victim = lru_victim(&self.lru, &part.shelf.part, size_bytes)
        return victim

    cdef void make_room(self, CachePart *part, uint64_t size_bytes) noexcept:
        cdef LruNode *victim = self.victim_for(part, size_bytes)
        while victim != NULL:
            lru_evict(&self.lru, victim)
            victim = self.victim_for(part, size_bytes)

    cdef void keep(self, Request *leader, const Batch *batch, int index) noexcept:
        cdef VersionEntry entry = <VersionEntry> leader.version
        cdef CachePart *part = <CachePart *> entry.c.cached
        cdef Flight *flight = <Flight *> leader.flight
        cdef int64_t now = now_ns()
        cdef OutputSlice slices[256]
        cdef CacheEntry *made
        if not flight.kept:
            return
        item_slices(batch, index, &leader.outputs, slices)
        made = self.place(part, &flight.scope, leader, flight.low, flight.high,
                          tail_bytes(&entry.c.signature, &leader.outputs, slices, leader.rows), now)
        if made != NULL:
            encode_tail(made.tail, &entry.c.signature, &leader.outputs, slices, leader.rows)
            part.stats.miss_ns += now_ns() - now

    cdef void keep_tail(self, Request *leader, const uint8_t *tail, uint64_t size_bytes) noexcept:
        cdef CachePart *part = <CachePart *> (<VersionEntry> leader.version).c.cached
        cdef Flight *flight = <Flight *> leader.flight
        cdef CacheEntry *made = NULL
        # To look it up was of use.
        part.window_hits += 1
        if flight.kept:
            made = self.place(part, &flight.scope, leader, flight.low, flight.high, size_bytes, now_ns())
        if made != NULL:
            memcpy(made.tail, tail, size_bytes)

    cdef CacheEntry *place(self, CachePart *part, const CacheScope *scope, const Request *request, uint64_t low,
                           uint64_t high, uint64_t tail_size_bytes, int64_t now) noexcept:
        cdef CacheEntry *made
        cdef LruNode *victim
        cdef uint64_t size_bytes = entry_bytes(request, tail_size_bytes)
        if size_bytes == 0 or size_bytes > part.shelf.part.group.limit_bytes:
            return NULL
        victim = self.victim_for(part, size_bytes)
        if (victim != NULL and self.filtering
                and frequency_of(&self.frequency, low, high)
                < frequency_of(&self.frequency, victim.low, victim.high)):
            part.stats.rejections += 1
            return NULL
        # Before it is made: never more than the budget.
        self.make_room(part, size_bytes)
        made = entry_new(scope, request, tail_size_bytes)
        if made == NULL:
            return NULL
        made.stored_ns = now
        made.expires_ns = INT64_MAX
        if part.ttl_ns > 0:
            # Those of one moment do not all expire in one.
            made.expires_ns = now + part.ttl_ns - <int64_t> (
                <uint64_t> (part.ttl_ns // JITTER_SHARE) * ((high >> 32) & 1023) // 1024)
        made.node.low = low
        made.node.high = high
        made.node.size_bytes = size_bytes
        return made if self.take(part, made) else NULL

    cdef bint take(self, CachePart *part, CacheEntry *made) noexcept:
        cdef bint taken = lru_put(&self.lru, &part.shelf.part, &made.node)
        if not taken:
            block_unref(made.block)
        note_size(part.shelf)
        return taken

    # Flights.

    cdef bint leave(self, Request *request) noexcept:
        return flight_leave(&self.flights, request)

    cdef Request *take_waiting(self, Request *leader, int64_t now) noexcept:
        cdef Flight *flight = <Flight *> leader.flight
        cdef Request *request = flight_take(flight)
        if request != NULL:
            flight.stats.hits += 1
            flight.stats.joined += 1
            flight.stats.hit_ns += now - request.queued_ns
        return request

    cdef Request *next_leader(self) noexcept:
        cdef Request *request = flight_lead(&self.flights)
        if request != NULL:
            (<Flight *> request.flight).stats.misses += 1
        return request
