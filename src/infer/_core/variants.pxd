"""Split: how the requests of a model that name no version are divided over its variants; a part of its route.

Immutable, built by Python on the loop thread and read there. It keeps its Arms and VersionEntries alive.

A request's routing key is the first of: the metadata that the transport was told to take it from (Request.key),
a parameter of the request, its tenant. Without any it goes by chance, each anew.
"""

from libc.stdint cimport uint8_t, uint64_t

from infer._core.request cimport Request
from infer._core.split cimport SplitTable

cdef class Split:
    cdef SplitTable table
    cdef readonly str name       # the salt
    cdef readonly tuple arms     # of each: the Arm that its requests count for, or None
    cdef readonly tuple entries  # of each: the VersionEntry, or None: whatever the model's default is
    cdef bytes parameter         # the request's, with its routing key
    cdef void *arm_of[16]        # the same, borrowed
    cdef void *entry_of[16]

# The version that the request goes to, borrowed, by `split` (a Split, borrowed); `otherwise`: the default, NULL where
# there is none, which may come back. Notes the Arm in the request. [message, message + message_bytes) is what
# decode_request has taken.
cdef void *assign_variant(void *split, Request *request, const uint8_t *message, uint64_t message_bytes,
                          void *otherwise) noexcept
