"""RouteTable: an immutable snapshot from model name, and version or label, to the version that serves it.

Built by Python, handed over on the loop thread by one reference assignment; a lookup takes no lock and makes no object.
Each model is a part of its own, which the next tables share while its route is the same: what one model's change costs
is that model and a copy of the slots.
"""

from libc.stdint cimport int32_t, uint64_t

from infer._core.model_version cimport VersionEntry
from infer._core.span cimport Span
from infer._core.tensor cimport ErrorText
from infer._core.variants cimport Split

# What one that names a version or label gets of its model.
cdef struct VersionSlot:
    uint64_t hash                # of the key
    const char *key              # NULL: free
    uint64_t key_bytes
    void *entry                  # VersionEntry, borrowed of the model's route; NULL: see refusal
    int32_t refusal              # index into the model's `refusals`

# What a request that names no version gets, and where the others look.
cdef struct ModelSlot:
    uint64_t hash                # of the name
    const char *name             # NULL: free
    uint64_t name_bytes
    void *entry                  # VersionEntry, borrowed of the model's route; NULL: see refusal
    VersionSlot *versions        # the model's
    uint64_t version_mask
    void *model                  # ModelPart, borrowed of `parts`
    void *split                  # variants.Split, borrowed of the model's part; NULL: its requests are not divided
    int32_t refusal              # index into the model's `refusals`

cdef class ModelPart:
    cdef ModelSlot slot          # as it goes into tables
    cdef object route            # the ModelRoute
    cdef Split split             # of the route, or None
    cdef tuple falling           # its versions, highest first
    cdef bytes name
    cdef list refusals           # (gRPC code, text as bytes)
    cdef list keys               # owners of the version slots' keys
    cdef add_version(self, str key, object entry, object refusal)
    cdef int32_t refusal_index(self, object refusal) except -2

cdef class RouteTable:
    cdef ModelSlot *models_by_name
    cdef uint64_t model_mask
    cdef dict parts              # ModelPart by name, as str
    cdef fill(self, dict parts)
    cdef ModelSlot *find(self, const Span *name) noexcept
    cdef void *refuse(self, const ModelSlot *model, int32_t refusal, int *code, ErrorText *error) noexcept
    cdef void *refuse_name(self, const Span *name, int *code, ErrorText *error) noexcept
    cdef void *refuse_version(self, const ModelSlot *model, const Span *version, int *code, ErrorText *error) noexcept
    # The version that `name` and `version` (a number, a label, or empty: the default) lead to, borrowed, or NULL with a
    # gRPC code and a text. `model`: of that name, borrowed of the table, or NULL.
    cdef void *route(self, const Span *name, const Span *version, const ModelSlot **model, int *code,
                     ErrorText *error) noexcept
    # Of the model's versions below the entry's, highest first, the `nth` from 0, borrowed; NULL: there are no more.
    cdef void *below(self, VersionEntry entry, int nth) noexcept
