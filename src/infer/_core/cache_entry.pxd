"""What the cache keeps of one answered request, and how two requests are found to ask for the same.

A CacheEntry lies in a Block of its own with everything that it points to: its inputs and the tail of its reply. Loop
thread. The Block outlives the entry while a reply is sent from it.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.block cimport Block
from infer._core.hash128 cimport HashSecret
from infer._core.lru cimport LruNode
from infer._core.request cimport Request
from infer._core.tensor_view cimport OutputMask, TensorView

cdef enum:
    CACHE_ENTRY_LEAST_BYTES = 512    # the arena's class of the smallest: one input, one output

# What makes two requests ask for the same, beside their inputs.
cdef struct CacheScope:
    uint64_t generation          # of the loaded version: no two ever have the same
    uint64_t tenant              # its id; 0: of nobody in particular, or shared by all

cdef struct CacheEntry:
    LruNode node                 # first: a node's address is its entry's
    Block *block                 # where all of it lies
    CacheScope scope
    OutputMask outputs
    int64_t stored_ns
    int64_t expires_ns           # INT64_MAX: it has no end
    TensorView *views
    uint8_t *tail
    uint64_t tail_bytes
    int32_t n_views

# Of scope, wanted outputs and inputs, each with its place, type, shape and bytes.
cdef void hash_request(const HashSecret *secret, const CacheScope *scope, const Request *request, uint64_t *low,
                       uint64_t *high) noexcept nogil
# Byte for byte. `views` are of the same version's inputs.
cdef bint same_inputs(const TensorView *views, const OutputMask *outputs, const Request *request) noexcept nogil
cdef bint entry_answers(const CacheEntry *entry, const CacheScope *scope, const Request *request) noexcept nogil
# What an entry takes of the arena, all told.
cdef uint64_t entry_bytes(const Request *request, uint64_t tail_size_bytes) noexcept nogil
# A copy of the inputs, with room for the tail; its node's hash and size, its times and the tail are not set. NULL: no
# memory.
cdef CacheEntry *entry_new(const CacheScope *scope, const Request *request, uint64_t tail_size_bytes) noexcept nogil
