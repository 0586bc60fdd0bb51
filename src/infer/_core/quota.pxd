"""Quotas: what a tenant, a model, and a tenant at a model may ask for, and what of it is in use.

Structs, and functions of them alone; whose they are is in `tenants`, which owns all of them. Loop thread only. A
request is checked against everything that applies to it before anything of it is taken: all or nothing.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t

from infer._core.tensor_text cimport ErrorText
from infer._core.token_bucket cimport BucketRate, TokenBucket

cdef enum:
    TENANT_NAME_BYTES = 255      # of SPIFFE ids, too: longer ones are refused

cdef enum LimitKind:
    LIMIT_REQUESTS = 0           # a second
    LIMIT_ROWS = 1               # a second
    LIMIT_CONCURRENT = 2         # requests admitted and not yet freed
    LIMIT_IN_FLIGHT_BYTES = 3    # of their messages
    LIMIT_KINDS = 4

cdef enum QuotaScope:
    SCOPE_TENANT = 0
    SCOPE_MODEL = 1
    SCOPE_TENANT_MODEL = 2
    QUOTA_SCOPES = 3

cdef struct Limits:
    BucketRate requests          # burst 0: none
    BucketRate rows
    int64_t max_concurrent       # 0: none
    int64_t max_in_flight_bytes  # 0: none
    const char *requests_text    # the rate as it was written
    const char *rows_text
    uint8_t any                  # 0: none of them

cdef struct Usage:
    TokenBucket requests
    TokenBucket rows
    int64_t concurrent
    int64_t in_flight_bytes

# Of a model that has limits, or of which a tenant has; what Version.quota points to, the same for all versions.
cdef struct ModelQuota:
    const char *name
    int32_t index                # into every TenantPolicy's place_of; -1: no limit is left
    Limits limits
    Usage usage

# What is asked of one tenant, or of all that have no table of their own.
cdef struct TenantPolicy:
    const char *name             # of its table; NULL: of all others
    int32_t weight
    int32_t n_pairs
    const int32_t *place_of      # by ModelQuota.index: in `pairs`; -1: no limit of it at that model
    const Limits *pairs
    Limits limits
    int64_t refused[12]          # by scope * LIMIT_KINDS + kind

# Lives as long as a Request points to it, and may be another tenant's after that: what outlives a Request keeps `id`.
cdef struct Tenant:
    uint64_t id                  # never given twice; 0: of several, for which there was no room (max_tenants)
    int32_t weight               # its share beside others'
    int32_t holders              # Requests that point to it
    TenantPolicy *policy
    Usage usage
    Usage *pairs                 # as many as its policy's, or NULL
    Tenant *newer                # among those without a table of their own, by last use
    Tenant *older
    Tenant *next                 # in its chain of the table
    uint64_t hash
    uint8_t pinned               # it has a table of its own, or stands for several
    uint16_t name_bytes
    uint8_t name[256]

# What is asked for.
cdef struct Demand:
    uint8_t counted              # it is under way already: rows alone are asked for
    int64_t rows
    int64_t bytes
    int64_t now

# What stands against it most.
cdef struct Verdict:
    int scope                    # -1: nothing
    int kind
    int64_t wait_ns              # until it is there; NEVER_NS; UNKNOWN_NS: until others have ended

cdef enum:
    UNKNOWN_NS = -2

# Bits of Request.charged: where it counts as under way.
cdef enum:
    CHARGED_TENANT = 1
    CHARGED_MODEL = 2
    CHARGED_PAIR = 4
    CHARGED_ANYWHERE = 7

cdef void usage_init(Usage *usage, const Limits *limits, int64_t now) noexcept nogil
# Whether nothing of it is in use: a new one would give no more.
cdef bint usage_is_idle(Usage *usage, const Limits *limits, int64_t now) noexcept nogil
# What `old` limits have left under `new` ones.
cdef void usage_convert(Usage *usage, const Limits *old, const Limits *new, int64_t now) noexcept nogil

# A tenant's use of a model, and its limits; NULL: there are none.
cdef inline Usage *pair_of(Tenant *tenant, const ModelQuota *model) noexcept nogil:
    if model == NULL or tenant.pairs == NULL or model.index < 0 or tenant.policy.place_of[model.index] < 0:
        return NULL
    return &tenant.pairs[tenant.policy.place_of[model.index]]

# Checks all that apply, and takes nothing. `model`: may be NULL.
cdef bint quotas_allow(Tenant *tenant, ModelQuota *model, const Demand *demand, Verdict *verdict) noexcept nogil
# Takes what quotas_allow has just allowed; the bits for Request.charged.
cdef uint8_t quotas_charge(Tenant *tenant, ModelQuota *model, const Demand *demand) noexcept nogil
# The request is freed: it is no longer under way. Tokens are spent.
cdef void quotas_release(Tenant *tenant, ModelQuota *model, uint8_t charged, int64_t bytes) noexcept nogil
# What a refused request is told: whose limit, which, set where, and when to come back. Its gRPC status.
cdef int say_refused(const Tenant *tenant, const ModelQuota *model, const Demand *demand, const Verdict *verdict,
                     ErrorText *error) noexcept nogil
# For Reply.pushback_ms.
cdef int64_t pushback_of(const Verdict *verdict) noexcept nogil
