"""The prediction cache: answers kept for requests to come, within bounds in bytes, and one run for those at a time.

Loop thread. What is kept lies in the arena, entry by entry, and belongs to the Cache; `Version.cached` points to the
CachePart of a version that is cached, from `attach` to `detach`. A hit is only ever a request whose inputs are those of
the entry byte for byte, of the same loaded version, the same wanted outputs and the same tenant: the hash finds it, no
more.

Design note. What would be evicted stays where it is asked for more often than what comes (TinyLFU's admission), so a
scan does not empty the cache. A version with hardly any hit is looked up by samples alone, chosen by what they ask for:
then the hits among the samples are what the hits of all would be (Waldspurger et al., "Efficient MRC construction with
SHARDS", 2015).

What a reload or a purge forgets is out of use at once, and gives back its memory entry by entry, a few at each turn of
the loop: a million at once would stall it.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.batch cimport Batch
from infer._core.cache_entry cimport CacheEntry, CacheScope
from infer._core.flight cimport FlightTable
from infer._core.frequency cimport Frequency
from infer._core.hash128 cimport HashSecret
from infer._core.lru cimport Lru, LruGroup, LruNode, LruPart
from infer._core.model_version cimport CacheStats, Version, VersionEntry
from infer._core.request cimport Request, Segment
from infer._core.tensor_request cimport InferMessage

cdef enum CacheVerdict:
    CACHE_PASS                   # it runs, and the cache has nothing to do with it
    CACHE_LEADS                  # it runs, and its answer is for others too
    CACHE_WAITS                  # for the answer of another that runs
    CACHE_HIT

# What is kept of a version; outlives its CachePart for as long as it takes to remove it.
cdef struct CacheShelf:
    LruPart part                 # first: a node's part is its CacheShelf
    CacheStats *stats            # of the VersionEntry, which the Cache holds; NULL: forgotten, nothing of it is used
    CacheShelf *next             # of those that are forgotten

cdef struct CachePart:
    CacheShelf *shelf
    uint64_t generation
    int64_t ttl_ns               # 0: for as long as the version is loaded
    int64_t waiting_rows
    int32_t by_rows              # 1: requests of several rows are looked up row by row
    int64_t lookups              # of the window under way: requests, or rows where those are looked up
    int64_t window_hits
    int64_t seen                 # since it was attached, as lookups are counted
    CacheStats *stats            # of the VersionEntry, which the Cache holds

# The versions of one model share a bound.
cdef class CacheModel:
    cdef LruGroup group
    cdef int versions

cdef class Cache:
    cdef Lru lru
    cdef Frequency frequency
    cdef FlightTable flights
    cdef LruGroup gone           # of the shelves that are forgotten
    cdef CacheShelf *forgotten
    cdef int64_t removed_at_once
    cdef HashSecret secret
    cdef CacheEntry *found
    cdef readonly uint64_t limit_bytes
    cdef readonly bint shared
    cdef readonly bint filtering
    cdef uint64_t hash_mask      # of both halves; all ones, but where a test wants collisions
    cdef uint64_t generations
    cdef dict models             # CacheModel by name
    cdef dict versions           # VersionEntry by generation, to keep what parts point to
    # Of a request with its views bound; `found` is set for a hit, until the next call. `queued_rows` wait already.
    cdef CacheVerdict look(self, Request *request, const InferMessage *message, int64_t queued_rows,
                           int64_t now) noexcept
    # The reply of a hit; how many segments, 0: no memory.
    cdef int reply(self, Request *request, Segment *segments) noexcept
    # What a leader's run came to.
    cdef void keep(self, Request *leader, const Batch *batch, int index) noexcept
    # Or what another server's run came to.
    cdef void keep_tail(self, Request *leader, const uint8_t *tail, uint64_t size_bytes) noexcept
    # Whether it is neither looked up nor kept.
    cdef bint passes(self, const Request *request, const InferMessage *message, const CacheScope *scope) noexcept
    # What is kept for it, as long as it may be used.
    cdef CacheEntry *find(self, CachePart *part, const CacheScope *scope, const Request *request, uint64_t low,
                          uint64_t high, int64_t max_age_ns, int64_t now) noexcept
    # Not found: it waits for one that asks for the same, or leads. It stands for `lookups` of the window.
    cdef CacheVerdict fly(self, Request *request, const CacheScope *scope, uint64_t low, uint64_t high, bint fresh,
                          int64_t lookups, int64_t queued_rows, int64_t now) noexcept
    # An entry for what `request` asks, of which the tail is still to be written; NULL: it is not kept.
    cdef CacheEntry *place(self, CachePart *part, const CacheScope *scope, const Request *request, uint64_t low,
                           uint64_t high, uint64_t tail_size_bytes, int64_t now) noexcept
    cdef bint leave(self, Request *request) noexcept                    # True: some that wait have no leader
    cdef Request *take_waiting(self, Request *leader, int64_t now) noexcept      # now answered by the leader's run
    cdef Request *next_leader(self) noexcept
    cdef void forget(self, VersionEntry entry) noexcept
    # Takes the entry over, its node and times set; False: it is larger than a bound, and gone.
    cdef bint take(self, CachePart *part, CacheEntry *made) noexcept
    # What would have to go for so much more of the part, once nothing that is forgotten is in its way; NULL: nothing.
    cdef LruNode *victim_for(self, CachePart *part, uint64_t size_bytes) noexcept
    cdef void make_room(self, CachePart *part, uint64_t size_bytes) noexcept
    cdef void put_away(self, CacheShelf *shelf) noexcept
    cdef bint samples(self, CachePart *part, const Request *request) noexcept
    cdef void judge(self, CachePart *part) noexcept

cdef CacheScope scope_of(const CachePart *part, const Request *request, bint shared) noexcept nogil

cdef inline int64_t waiting_rows_of(const Version *version) noexcept nogil:
    return (<CachePart *> version.cached).waiting_rows if version.cached != NULL else 0
