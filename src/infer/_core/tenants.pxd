"""The tenants of a server: a bounded table by name, what is asked of each, and the stage that holds requests to it.

Loop thread only, but for `counts`, which a scrape reads. Owns every Tenant.

Those that have a table of their own in the settings are always there. Clients can make up any number of others: of
them so many are told apart as `max_tenants` allows, and one more takes the place of one that was used the longest ago,
has nothing under way and full buckets: nothing is lost, and nobody gains a burst by being forgotten. Where there is no
such one, those that come share the quota of one. Requests without a tenant count as one tenant, whose name is empty.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from infer._core.hash128 cimport HashSecret
from infer._core.model_version cimport Version, VersionEntry
from infer._core.quota cimport Tenant
from infer._core.request cimport Request
from infer._core.tenant_policy cimport PolicyBox
from infer._core.tensor cimport ErrorText

cdef enum:
    EVICT_LOOKS = 8              # of those used the longest ago, for one that can go

cdef class Tenants:
    cdef readonly int64_t max_tenants
    cdef bint limited                      # some tenant, or all, have limits
    cdef bint listed                       # some tenant has a table
    cdef Tenant **table
    cdef uint64_t mask
    cdef HashSecret secret                 # who may choose names must not choose chains
    cdef uint64_t next_id
    cdef int64_t known                     # of those without a table
    cdef int64_t n_shared                  # requests for whose tenants there was no room
    cdef Tenant *newest
    cdef Tenant *oldest
    cdef Tenant *recent                    # that the last name led to, or NULL
    cdef Tenant *nobody                    # of requests without a tenant
    cdef Tenant *shared                    # of those for which there is no room
    cdef dict policies                     # name as bytes -> PolicyBox, None: of all others
    cdef dict models                       # name as bytes -> ModelBox: those with limits, or once with them
    cdef dict entries                      # name as bytes -> set of the attached versions
    cdef Tenant *find(self, const uint8_t *name, uint64_t name_bytes, uint64_t h) noexcept
    cdef Tenant *add(self, const uint8_t *name, uint64_t name_bytes, uint64_t h, int64_t now) noexcept
    cdef void name_it(self, Tenant *tenant, const uint8_t *name, uint64_t name_bytes, uint64_t h) noexcept
    cdef Tenant *evict(self, int64_t now) noexcept
    cdef void use(self, Tenant *tenant, PolicyBox box, int64_t now) except *
    cdef void unlink(self, Tenant *tenant) noexcept
    cdef void link(self, Tenant *tenant) noexcept
    cdef Tenant *fixed(self, int64_t now) except NULL
    cdef bint grow(self, int64_t count) noexcept
    cdef PolicyBox box_of(self, dict policies, name)
    cdef int move(self, Tenant *tenant, name, dict before, int64_t now) except -1
    cdef int pin(self, bytes name, int64_t now) except -1
    cdef int configure_models(self, dict models, int64_t now) except -1
    # The tenant of that name, held: paired with `release`. NULL: it is not printable.
    cdef Tenant *take(self, const uint8_t *name, uint64_t name_bytes, int64_t now) noexcept
    # Whose the request is, as its transport says it (request.IdentitySource). A gRPC status.
    cdef int identify(self, Request *request, const uint8_t *name, uint64_t name_bytes, int source,
                      ErrorText *error) noexcept
    # The last stage before the queue, and before an answer from the cache (0 rows): a gRPC status. Takes nothing. Of a
    # request that was charged before, since it waited for the run of another, it looks at rows alone.
    cdef int admit(self, Request *request, const Version *version, int64_t rows, int64_t now,
                   int64_t *pushback_ms, ErrorText *error) noexcept
    # Takes what `admit` has just allowed: after the put, so that what is refused there costs nothing either.
    cdef void charge(self, Request *request, const Version *version, int64_t rows) noexcept
    # The request is freed; its version, NULL where it has none, is still held.
    cdef void release(self, Request *request, const Version *version) noexcept
