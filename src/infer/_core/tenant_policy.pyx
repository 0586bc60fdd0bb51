"""Limits as the core counts by them. See tenant_policy.pxd."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t
from libc.string cimport memset

from infer._core.quota cimport LIMIT_KINDS, QUOTA_SCOPES
from infer._core.token_bucket cimport BucketRate, rate_init


cdef int fill_rate(BucketRate *rate, object per_second, int64_t burst) except -1:
    if per_second is None:
        return 0
    if not rate_init(rate, per_second.numerator, per_second.denominator, burst):
        raise ValueError(f"{per_second} a second with a burst of {burst} cannot be counted")
    return 0


cdef const char *kept_text(list kept, object value) except NULL:
    cdef bytes text = str(value).encode()
    kept.append(text)
    return text


cdef int fill_limits(Limits *limits, object given, list kept) except -1:
    memset(limits, 0, sizeof(Limits))
    if given is None:
        return 0
    fill_rate(&limits.requests, given.requests_per_second, given.requests_burst)
    fill_rate(&limits.rows, given.rows_per_second, given.rows_burst)
    limits.max_concurrent = given.max_concurrent
    limits.max_in_flight_bytes = given.max_in_flight_bytes
    limits.requests_text = kept_text(kept, given.requests_per_second)
    limits.rows_text = kept_text(kept, given.rows_per_second)
    limits.any = bool(given)
    return 0


cdef class PolicyBox:
    """`name`: None for all others; `given`: limits, weight, and limits by model; `index`: of each limited model."""

    def __cinit__(self, name, given, dict index not None):
        cdef int i
        self.kept = []
        self.pair_names = {}
        self.pairs = <Limits *> PyMem_Calloc(max(1, len(given.models)), sizeof(Limits))
        self.places = <int32_t *> PyMem_Calloc(max(1, len(index)), sizeof(int32_t))
        if self.pairs == NULL or self.places == NULL:
            raise MemoryError("no memory for the quotas of a tenant")
        memset(&self.c, 0, sizeof(self.c))
        if name is not None:
            # As the key of a TOML table.
            self.c.name = kept_text(self.kept, name if name.replace("-", "_").replace("_", "x").isalnum()
                                    else f'"{name}"')
        self.c.weight = given.weight
        fill_limits(&self.c.limits, given.limits, self.kept)
        for i in range(len(index)):
            self.places[i] = -1
        for model, limits in given.models.items():
            self.places[<int> index[model]] = self.c.n_pairs
            self.pair_names[model] = self.c.n_pairs
            fill_limits(&self.pairs[self.c.n_pairs], limits, self.kept)
            self.c.n_pairs += 1
        self.c.pairs = self.pairs
        self.c.place_of = self.places

    def __dealloc__(self):
        PyMem_Free(self.pairs)
        PyMem_Free(self.places)


cdef class ModelBox:
    def __cinit__(self, bytes name not None, limits, int index):
        memset(&self.c, 0, sizeof(self.c))
        self.kept = [name]
        self.c.name = name
        self.c.index = index
        fill_limits(&self.c.limits, limits, self.kept)


cdef int carry_counts(dict before, dict policies) except -1:
    """Counters go on; of tenants that have no table any more with all others."""
    cdef PolicyBox old, new
    cdef int i
    for name, old in before.items():
        new = policies.get(name) or policies[None]
        for i in range(QUOTA_SCOPES * <int> LIMIT_KINDS):
            new.c.refused[i] += old.c.refused[i]
    return 0
