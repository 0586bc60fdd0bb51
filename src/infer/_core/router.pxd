"""RouteTable: an immutable snapshot from model name to its servable versions, looked up once per request.

Built by Python, handed over on the loop thread by one reference assignment; a lookup takes no lock and makes no object.
"""

from libc.stdint cimport int32_t, uint64_t

from infer._core.model_version cimport VersionEntry
from infer._core.span cimport Span
from infer._core.tensor cimport ErrorText

cdef struct RouteSlot:
    uint64_t hash
    const char *name
    uint64_t name_bytes
    int32_t first                # index of the first version in `entries`, highest first; -1: none is ready
    int32_t count
    int32_t reason               # index into `reasons` where none is ready

cdef class RouteTable:
    cdef RouteSlot *slots
    cdef uint64_t mask
    cdef list entries            # VersionEntry, grouped by model
    cdef list unready            # (code, text as bytes) of models that are known and not servable
    cdef list names              # owners of the name bytes
    cdef RouteSlot *find(self, const Span *name) noexcept
    cdef void *refuse_name(self, const Span *name, int *code, ErrorText *error) noexcept
    # The version that `name` and `version` (empty: the highest) lead to, borrowed, or NULL with a gRPC code and a text.
    cdef void *route(self, const Span *name, const Span *version, int *code, ErrorText *error) noexcept
