"""How requests of one version wait, by priority level, as Triton's ModelQueuePolicy says it.

Owned by a VersionEntry. Loop thread only: what of it counts for a request is copied into the request at its put.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t

cdef enum:
    LEVELS_MAX = 64

# By how much each level's requests stand behind those of the level before it. A request of level n waits at most behind
# those that came within (n - 1) steps after it, so no level starves.
cdef enum:
    LEVEL_STEP_NS = 100000000

# Why a queue does not take a request, or gives it up. REFUSAL_NAMES has them in this order.
cdef enum Refusal:
    REFUSED_ROWS = 0
    REFUSED_BYTES = 1
    REFUSED_ROWS_TOTAL = 2
    REFUSED_BYTES_TOTAL = 3
    REFUSED_REQUESTS = 4         # the bound of their level
    REFUSED_TIMEOUT = 5          # waited too long
    REFUSED_DEADLINE = 6         # cannot be answered in time
    REFUSED_STANDING = 7         # the queue stands and grows
    REFUSED_ADAPTIVE = 8         # more rows would only wait longer
    REFUSALS = 9

cdef struct LevelPolicy:
    int64_t max_requests         # that may wait; 0: the version's bound in rows alone
    int64_t timeout_ns           # that one waits by default; 0: as long as its deadline allows
    uint8_t delays               # when it has: 1: it goes behind all others; 0: it is refused
    uint8_t overridable          # 1: by a request's own `timeout`

cdef struct QueuePolicy:
    int32_t levels               # 0: none; 1 is the most urgent
    int32_t default_level        # of a request that asks for none, or for one that there is not
    LevelPolicy of_level[65]     # from 1; of a version without levels the first

# NULL: nothing is asked for. `policies`: (max_requests, timeout_ns, delays, overridable) of each level, of a version
# without levels of all requests; empty: nothing is asked for but the levels. ValueError for what cannot be.
cdef QueuePolicy *policy_new(int levels, int default_level, policies) except? NULL
cdef void policy_free(QueuePolicy *policy) noexcept

# The level of a request that asks for `priority`, 0: for none.
cdef inline int32_t level_of(const QueuePolicy *policy, int64_t priority) noexcept nogil:
    return <int32_t> priority if 0 < priority <= policy.levels else policy.default_level

# How long a request may wait that asks for `timeout_us`, 0: for nothing; 0: as long as its deadline allows.
cdef inline int64_t timeout_of(const LevelPolicy *policy, int64_t timeout_us) noexcept nogil:
    cdef int64_t longest_us = 1LL << 52             # a century and more: in ns it can be added to a time
    cdef int64_t asked_ns = min(timeout_us, longest_us) * 1000
    if not policy.overridable or asked_ns == 0 or 0 < policy.timeout_ns < asked_ns:
        return policy.timeout_ns
    return asked_ns
