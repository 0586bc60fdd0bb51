"""The table of tenants, and the stage of a request that holds it to its quotas. See tenants.pxd."""

from libc.stdint cimport uint16_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy

from infer._core.clock cimport now_ns
from infer._core.debug cimport try_calloc
from infer._core.hash128 cimport Hash128, HashSecret, hash_begin, hash_end, hash_secret, hash_span
from infer._core.quota cimport (
    CHARGED_ANYWHERE, LIMIT_KINDS, QUOTA_SCOPES, TENANT_NAME_BYTES, Demand, ModelQuota, Usage, Verdict, pushback_of,
    quotas_allow, quotas_charge, quotas_release, say_refused, usage_convert, usage_init, usage_is_idle)
from infer._core.request cimport FROM_CERTIFICATE
from infer._core.status cimport STATUS_OK, STATUS_UNAUTHENTICATED
from infer._core.tenant_policy cimport ModelBox, PolicyBox, carry_counts
from infer._core.tensor cimport say

cimport cython

cdef enum:
    CHARGED_TENANT_HELD = 8      # of Request.charged: `tenant` is held by it

SCOPES = ("tenant", "model", "tenant_model")
LIMITS = ("requests_per_second", "rows_per_second", "max_concurrent", "max_in_flight_bytes")
# The label of all tenants without a table.
OTHERS = "other"


cdef inline uint64_t hash_name(const HashSecret *secret, const uint8_t *name, uint64_t name_bytes) noexcept nogil:
    cdef Hash128 state
    hash_begin(&state, secret)
    hash_span(&state, name, name_bytes)
    hash_end(&state)
    return state.low


cdef bint is_printable(const uint8_t *name, uint64_t name_bytes) noexcept nogil:
    cdef uint64_t i
    for i in range(name_bytes):
        if not 0x20 <= name[i] < 0x7F:
            return False
    return True


@cython.final
cdef class Tenants:
    """`max_tenants`: how many without a table of their own are told apart; `quotas`: those of infer.quotas."""

    def __cinit__(self, int64_t max_tenants, quotas):
        cdef int64_t now = now_ns()
        if max_tenants < 1:
            raise ValueError(f"max_tenants is {max_tenants}: expected 1 or more")
        self.table = NULL
        self.nobody = self.shared = NULL
        self.newest = self.oldest = self.recent = NULL
        self.known = self.n_shared = 0
        self.next_id = 1
        self.max_tenants = max_tenants
        if not hash_secret(&self.secret):
            raise OSError("the system has no random bytes for the table of tenants")
        self.policies = {}
        self.models = {}
        self.entries = {}
        if not self.grow(max_tenants):
            raise MemoryError("no memory for the table of tenants")
        self.nobody = self.fixed(now)
        self.shared = self.fixed(now)
        self.nobody.id = self.next_id
        self.next_id += 1
        self.configure(quotas)

    def __dealloc__(self):
        cdef uint64_t i
        cdef Tenant *tenant
        for each in (<size_t> self.nobody, <size_t> self.shared):
            tenant = <Tenant *> <size_t> each
            if tenant != NULL:
                free(tenant.pairs)
                free(tenant)
        if self.table == NULL:
            return
        for i in range(self.mask + 1):
            while self.table[i] != NULL:
                tenant = self.table[i]
                self.table[i] = tenant.next
                free(tenant.pairs)
                free(tenant)
        free(self.table)

    # The table.

    cdef Tenant *fixed(self, int64_t now) except NULL:
        """One that is not in the table."""
        cdef Tenant *tenant = <Tenant *> try_calloc(1, sizeof(Tenant))
        if tenant == NULL:
            raise MemoryError("no memory for the table of tenants")
        tenant.pinned = 1
        return tenant

    cdef bint grow(self, int64_t count) noexcept:
        """Chains for `count` tenants; those that are in it move."""
        cdef uint64_t size = 16
        cdef uint64_t i
        cdef Tenant **grown
        cdef Tenant *tenant
        while size < 2 * <uint64_t> count:
            size *= 2
        if self.table != NULL and size <= self.mask + 1:
            return True
        grown = <Tenant **> try_calloc(size, sizeof(Tenant *))
        if grown == NULL:
            return False
        if self.table != NULL:
            for i in range(self.mask + 1):
                while self.table[i] != NULL:
                    tenant = self.table[i]
                    self.table[i] = tenant.next
                    tenant.next = grown[tenant.hash & (size - 1)]
                    grown[tenant.hash & (size - 1)] = tenant
            free(self.table)
        self.table = grown
        self.mask = size - 1
        return True

    cdef Tenant *find(self, const uint8_t *name, uint64_t name_bytes, uint64_t h) noexcept:
        cdef Tenant *tenant = self.table[h & self.mask]
        while tenant != NULL:
            if tenant.hash == h and tenant.name_bytes == name_bytes and memcmp(tenant.name, name, name_bytes) == 0:
                return tenant
            tenant = tenant.next
        return NULL

    cdef void unlink(self, Tenant *tenant) noexcept:
        if tenant.newer != NULL:
            tenant.newer.older = tenant.older
        else:
            self.newest = tenant.older
        if tenant.older != NULL:
            tenant.older.newer = tenant.newer
        else:
            self.oldest = tenant.newer
        tenant.newer = tenant.older = NULL

    cdef void link(self, Tenant *tenant) noexcept:
        tenant.newer = NULL
        tenant.older = self.newest
        if self.newest != NULL:
            self.newest.newer = tenant
        else:
            self.oldest = tenant
        self.newest = tenant

    cdef Tenant *evict(self, int64_t now) noexcept:
        """Takes one out that nothing is lost with; NULL: there is none among those looked at."""
        cdef Tenant *tenant = self.oldest
        cdef Tenant *newer
        cdef Tenant **place
        cdef bint idle
        cdef int _look, i
        for _look in range(EVICT_LOOKS):
            if tenant == NULL:
                return NULL
            newer = tenant.newer
            if tenant.holders > 0:
                # It is in use, however long ago that began.
                self.unlink(tenant)
                self.link(tenant)
            else:
                idle = usage_is_idle(&tenant.usage, &tenant.policy.limits, now)
                if tenant.pairs != NULL:
                    for i in range(tenant.policy.n_pairs):
                        idle = idle and usage_is_idle(&tenant.pairs[i], &tenant.policy.pairs[i], now)
                if idle:
                    self.unlink(tenant)
                    place = &self.table[tenant.hash & self.mask]
                    while place[0] != tenant:
                        place = &place[0].next
                    place[0] = tenant.next
                    self.known -= 1
                    return tenant
            tenant = newer
        return NULL

    cdef void use(self, Tenant *tenant, PolicyBox box, int64_t now) except *:
        """Puts a tenant that has nothing in use under a policy."""
        cdef int i
        tenant.policy = &box.c
        tenant.weight = box.c.weight
        usage_init(&tenant.usage, &box.c.limits, now)
        if tenant.pairs == NULL and box.c.n_pairs > 0:
            tenant.pairs = <Usage *> try_calloc(box.c.n_pairs, sizeof(Usage))
            if tenant.pairs == NULL:
                raise MemoryError("no memory for the quotas of a tenant")
        for i in range(box.c.n_pairs):
            usage_init(&tenant.pairs[i], &box.pairs[i], now)

    cdef Tenant *add(self, const uint8_t *name, uint64_t name_bytes, uint64_t h, int64_t now) noexcept:
        """A new one without a table of its own, in the place of another where there are enough; NULL: no room."""
        cdef PolicyBox others = <PolicyBox> self.policies[None]
        cdef Tenant *tenant
        if self.known >= self.max_tenants:
            tenant = self.evict(now)
        else:
            tenant = <Tenant *> try_calloc(1, sizeof(Tenant))
        if tenant == NULL:
            return NULL
        try:
            self.use(tenant, others, now)
        except MemoryError:
            free(tenant)
            return NULL
        self.name_it(tenant, name, name_bytes, h)
        self.link(tenant)
        self.known += 1
        return tenant

    cdef void name_it(self, Tenant *tenant, const uint8_t *name, uint64_t name_bytes, uint64_t h) noexcept:
        tenant.id = self.next_id
        self.next_id += 1
        tenant.hash = h
        tenant.name_bytes = <uint16_t> name_bytes
        memcpy(tenant.name, name, name_bytes)
        tenant.next = self.table[h & self.mask]
        self.table[h & self.mask] = tenant

    cdef Tenant *take(self, const uint8_t *name, uint64_t name_bytes, int64_t now) noexcept:
        cdef Tenant *tenant = self.recent
        cdef uint64_t h
        # Calls of one client come together.
        if tenant == NULL or tenant.name_bytes != name_bytes or memcmp(tenant.name, name, name_bytes) != 0:
            h = hash_name(&self.secret, name, name_bytes)
            tenant = self.find(name, name_bytes, h)
            if tenant == NULL:
                if not is_printable(name, name_bytes):
                    return NULL
                tenant = self.add(name, name_bytes, h, now)
            elif not tenant.pinned:
                self.unlink(tenant)
                self.link(tenant)
            self.recent = tenant
            if tenant == NULL:
                self.n_shared += 1
                tenant = self.shared
        tenant.holders += 1
        return tenant

    # Stages of a request.

    cdef int identify(self, Request *request, const uint8_t *name, uint64_t name_bytes, int source,
                      ErrorText *error) noexcept:
        if 0 < name_bytes <= TENANT_NAME_BYTES:
            request.tenant = self.take(name, name_bytes, request.received_ns)
            if request.tenant != NULL:
                request.charged = CHARGED_TENANT_HELD
                return STATUS_OK
        if source != FROM_CERTIFICATE:
            say(error, "malformed tenant in the metadata (--tenant-metadata-key): expected it once, with 1 to 255 "
                       "printable ASCII characters")
            return STATUS_UNAUTHENTICATED
        if not self.listed:
            return STATUS_OK
        say(error, "the client's certificate names no tenant: expected exactly one URI among its subject alternative "
                   "names, of at most 255 printable ASCII characters; use one that was issued with it")
        return STATUS_UNAUTHENTICATED

    cdef int admit(self, Request *request, const Version *version, int64_t rows, int64_t now,
                   int64_t *pushback_ms, ErrorText *error) noexcept:
        cdef Tenant *tenant = <Tenant *> request.tenant
        cdef Demand demand
        cdef Verdict verdict
        if not self.limited and version.quota == NULL:
            return STATUS_OK
        if tenant == NULL:
            tenant = self.nobody
        demand.counted = request.charged & CHARGED_ANYWHERE
        demand.rows = rows
        demand.bytes = <int64_t> request.body.size_bytes
        demand.now = now
        if quotas_allow(tenant, <ModelQuota *> version.quota, &demand, &verdict):
            return STATUS_OK
        pushback_ms[0] = pushback_of(&verdict)
        return say_refused(tenant, <ModelQuota *> version.quota, &demand, &verdict, error)

    cdef void charge(self, Request *request, const Version *version, int64_t rows) noexcept:
        cdef Demand demand
        if not self.limited and version.quota == NULL:
            return
        demand.counted = request.charged & CHARGED_ANYWHERE
        demand.rows = rows
        demand.bytes = <int64_t> request.body.size_bytes
        demand.now = 0
        request.charged |= quotas_charge(<Tenant *> request.tenant if request.tenant != NULL else self.nobody,
                                         <ModelQuota *> version.quota, &demand)

    cdef void release(self, Request *request, const Version *version) noexcept:
        cdef Tenant *tenant = <Tenant *> request.tenant if request.tenant != NULL else self.nobody
        quotas_release(tenant, <ModelQuota *> version.quota if version != NULL else NULL, request.charged,
                       <int64_t> request.body.size_bytes if request.body != NULL else 0)
        if request.charged & CHARGED_TENANT_HELD:
            tenant.holders -= 1
        request.charged = 0
        request.tenant = NULL

    # Settings.

    def attach(self, VersionEntry entry not None):
        """A version that is going to be served counts for its model from now on."""
        cdef ModelBox box = self.models.get(entry.name)
        self.entries.setdefault(entry.name, set()).add(entry)
        if box is not None:
            entry.c.quota = &box.c

    def detach(self, VersionEntry entry not None):
        """The version has drained."""
        entry.c.quota = NULL
        attached = self.entries.get(entry.name, set())
        attached.discard(entry)
        if not attached:
            self.entries.pop(entry.name, None)

    def configure(self, quotas):
        """Other limits, from now on. Buckets keep their tokens, as far as the new ones have room for them; what is
        under way counts on. Raises ValueError, and changes nothing, for limits that cannot be counted."""
        cdef int64_t now = now_ns()
        cdef dict before = self.policies
        cdef dict policies, models
        cdef Tenant *tenant
        cdef uint64_t i
        names = sorted({*quotas.models, *(model for each in (quotas.others, *quotas.tenants.values())
                                          for model in each.models)})
        index = {name: at for at, name in enumerate(names)}
        policies = {name.encode(): PolicyBox(name, given, index) for name, given in quotas.tenants.items()}
        policies[None] = PolicyBox(None, quotas.others, index)
        models = {name.encode(): ModelBox(name.encode(), quotas.models.get(name), at) for name, at in index.items()}
        if not self.grow(self.max_tenants + len(policies)):
            raise MemoryError("no memory for the table of tenants")
        carry_counts(before, policies)
        self.recent = NULL
        self.policies = policies
        self.configure_models(models, now)
        self.limited = any((<PolicyBox> box).c.limits.any or (<PolicyBox> box).c.n_pairs for box in policies.values())
        self.listed = bool(quotas.listed)
        self.move(self.nobody, b"", before, now)
        self.move(self.shared, None, before, now)
        for i in range(self.mask + 1):
            tenant = self.table[i]
            while tenant != NULL:
                self.move(tenant, (<const char *> tenant.name)[:tenant.name_bytes], before, now)
                tenant = tenant.next
        for name in policies:
            if name:
                self.pin(name, now)
        # Those that had a table of their own, and no longer have.
        while self.known > self.max_tenants:
            tenant = self.evict(now)
            if tenant == NULL:
                break
            free(tenant.pairs)
            free(tenant)

    cdef PolicyBox box_of(self, dict policies, name):
        return policies.get(name) or policies[None]

    cdef int move(self, Tenant *tenant, name, dict before, int64_t now) except -1:
        """Under the policy that it has now, with what it has in use."""
        cdef PolicyBox new = self.box_of(self.policies, name)
        cdef PolicyBox old
        cdef Usage *pairs
        cdef int at, place
        if tenant.policy == NULL:
            self.use(tenant, new, now)
            return 0
        old = self.box_of(before, name)
        # Without memory for them, those at single models are not held against it.
        pairs = <Usage *> try_calloc(max(new.c.n_pairs, 1), sizeof(Usage))
        usage_convert(&tenant.usage, &old.c.limits, &new.c.limits, now)
        for model, place_of in new.pair_names.items():
            place = place_of
            at = old.pair_names.get(model, -1)
            if pairs == NULL:
                break
            if at >= 0 and tenant.pairs != NULL:
                pairs[place] = tenant.pairs[at]
                usage_convert(&pairs[place], &old.pairs[at], &new.pairs[place], now)
            else:
                usage_init(&pairs[place], &new.pairs[place], now)
        free(tenant.pairs)
        tenant.pairs = pairs
        tenant.policy = &new.c
        tenant.weight = new.c.weight
        if tenant.pinned and tenant != self.nobody and tenant != self.shared and name not in self.policies:
            tenant.pinned = 0
            self.link(tenant)
            self.known += 1
        return 0

    cdef int pin(self, bytes name, int64_t now) except -1:
        """One with a table of its own is there before its first request, and is never forgotten."""
        cdef const uint8_t *at = <const uint8_t *> <const char *> name
        cdef uint64_t name_bytes = <uint64_t> len(name)
        cdef uint64_t h = hash_name(&self.secret, at, name_bytes)
        cdef Tenant *tenant = self.find(at, name_bytes, h)
        if tenant == NULL:
            tenant = self.fixed(now)
            try:
                self.use(tenant, <PolicyBox> self.policies[name], now)
            except MemoryError:
                free(tenant)
                raise
            self.name_it(tenant, at, name_bytes, h)
        elif not tenant.pinned:
            self.unlink(tenant)
            self.known -= 1
            tenant.pinned = 1
        return 0

    cdef int configure_models(self, dict models, int64_t now) except -1:
        """A model's quota stays where it is while versions of it are attached, with or without limits."""
        cdef ModelBox box, new
        for name in list(self.models):
            if name not in models and name not in self.entries:
                del self.models[name]
        for name, box in self.models.items():
            new = models.pop(name, None) or ModelBox(name, None, -1)
            usage_convert(&box.c.usage, &box.c.limits, &new.c.limits, now)
            box.kept, box.c.name = new.kept, new.c.name
            box.c.limits, box.c.index = new.c.limits, new.c.index
        for name, box in models.items():
            usage_init(&box.c.usage, &box.c.limits, now)
            self.models[name] = box
            for entry in self.entries.get(name, ()):
                (<VersionEntry> entry).c.quota = &box.c
        return 0

    # What a scrape sees.

    def refused(self):
        """Refusals by (tenant, scope, limit); tenants without a table are one."""
        cdef PolicyBox box
        counts = {}
        for name, box in self.policies.items():
            label = OTHERS if name is None else name.decode()
            for i in range(QUOTA_SCOPES):
                for k in range(LIMIT_KINDS):
                    if box.c.refused[i * <int> LIMIT_KINDS + k]:
                        counts[label, SCOPES[i], LIMITS[k]] = box.c.refused[i * <int> LIMIT_KINDS + k]
        return counts

    @property
    def count(self):
        """Tenants that are told apart, those with a table of their own left out."""
        return self.known

    @property
    def shared_requests(self):
        """Requests whose tenants shared one quota, for want of room."""
        return self.n_shared
