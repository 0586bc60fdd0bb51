"""RouteTable: an immutable snapshot from model name, and version or label, to the version that serves it.

Built by Python, handed over on the loop thread by one reference assignment; a lookup takes no lock and makes no object.
"""

from libc.stdint cimport int32_t, uint64_t

from infer._core.span cimport Span
from infer._core.tensor cimport ErrorText

# What a request that names no version gets of a model.
cdef struct ModelSlot:
    uint64_t hash                # of the name
    const char *name             # NULL: free
    uint64_t name_bytes
    void *entry                  # VersionEntry, borrowed of `routes`; NULL: see refusal
    int32_t refusal              # index into `refusals`
    int32_t index                # into `names` and `routes`

# What one that names a version or label gets.
cdef struct VersionSlot:
    uint64_t hash                # of the model's name, a NUL, and the key
    const char *key              # NULL: free
    uint64_t key_bytes
    void *entry
    int32_t refusal
    int32_t index                # the model's

cdef class RouteTable:
    cdef ModelSlot *models_by_name
    cdef VersionSlot *versions_by_key
    cdef uint64_t model_mask
    cdef uint64_t version_mask
    cdef list names              # of the models, as bytes
    cdef list routes             # the ModelRoute of each
    cdef list refusals           # (gRPC code, text as bytes)
    cdef list keys               # owners of the version slots' keys
    cdef add_model(self, int32_t index, bytes name, object route)
    cdef add_version(self, ModelSlot *model, str key, object entry, object refusal)
    cdef int32_t refusal_index(self, object refusal) except -2
    cdef ModelSlot *find(self, const Span *name) noexcept
    cdef VersionSlot *find_version(self, const ModelSlot *model, const Span *version) noexcept
    cdef void *refuse(self, int32_t refusal, int *code, ErrorText *error) noexcept
    cdef void *refuse_name(self, const Span *name, int *code, ErrorText *error) noexcept
    cdef void *refuse_version(self, const ModelSlot *model, const Span *version, int *code, ErrorText *error) noexcept
    # The version that `name` and `version` (a number, a label, or empty: the default) lead to, borrowed, or NULL with a
    # gRPC code and a text.
    cdef void *route(self, const Span *name, const Span *version, int *code, ErrorText *error) noexcept
