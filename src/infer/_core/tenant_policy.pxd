"""What the settings ask of tenants and models, in the form that quotas are counted by.

A box owns a TenantPolicy or a ModelQuota and the texts of its refusals; who points to one keeps its box. Loop thread.
"""

from libc.stdint cimport int32_t

from infer._core.quota cimport Limits, ModelQuota, TenantPolicy

cdef class PolicyBox:
    cdef TenantPolicy c
    cdef list kept                         # owners of texts
    cdef Limits *pairs
    cdef int32_t *places
    cdef dict pair_names                   # model name -> place

cdef class ModelBox:
    cdef ModelQuota c
    cdef list kept                         # owners of texts

# Counters go on; of tenants that have no table any more with all others.
cdef int carry_counts(dict before, dict policies) except -1
