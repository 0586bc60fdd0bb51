"""Token buckets and the table of tenants as a test drives them; not in wheels."""

from libc.stdint cimport int64_t, uint8_t

from infer._core.clock cimport now_ns
from infer._core.quota cimport Demand, Tenant, Verdict, quotas_allow, quotas_charge, quotas_release
from infer._core.tenants cimport EVICT_LOOKS as C_EVICT_LOOKS
from infer._core.tenants cimport Tenants
from infer._core.token_bucket cimport (
    BucketRate, TokenBucket, bucket_fill, bucket_is_full, bucket_wait_ns, converted_units, rate_init, try_take)

EVICT_LOOKS = C_EVICT_LOOKS


cdef class Holding:
    """A tenant that a request points to, and what it counts for."""
    cdef Tenants tenants
    cdef Tenant *tenant
    cdef uint8_t charged
    cdef readonly int64_t wait_ns          # 0: it was allowed

    @property
    def id(self) -> int:
        return self.tenant.id

    @property
    def weight(self) -> int:
        return self.tenant.weight

    @property
    def name(self) -> bytes:
        return (<const char *> self.tenant.name)[:self.tenant.name_bytes]

    def release(self) -> None:
        quotas_release(self.tenant, NULL, self.charged, 0)
        self.tenant.holders -= 1


def ask(Tenants tenants not None, bytes name not None, now: int, rows: int = 1) -> Holding:
    """A request of that tenant, as the pipeline treats it."""
    cdef Holding holding = Holding.__new__(Holding)
    cdef Demand demand
    cdef Verdict verdict
    holding.tenants = tenants
    holding.tenant = tenants.take(<const uint8_t *> <const char *> name, len(name), now)
    demand.counted = 0
    demand.rows = rows
    demand.bytes = 0
    demand.now = now
    holding.charged = 0
    holding.wait_ns = 0
    if quotas_allow(holding.tenant, NULL, &demand, &verdict):
        holding.charged = quotas_charge(holding.tenant, NULL, &demand)
    else:
        holding.wait_ns = verdict.wait_ns
    return holding


def ask_in_turn(Tenants tenants not None, list names not None, rounds: int, *, now: int) -> int:
    """Nanoseconds that so many requests of these tenants, in turn, need."""
    cdef int64_t left = rounds
    cdef int64_t own_ns = now
    cdef int64_t start = now_ns()
    cdef Tenant *tenant
    cdef Demand demand
    cdef Verdict verdict
    cdef bytes name
    cdef uint8_t charged
    demand.counted = 0
    demand.rows = 1
    demand.bytes = 64
    while left > 0:
        name = names[left % len(names)]
        own_ns += 1000
        demand.now = own_ns
        tenant = tenants.take(<const uint8_t *> <const char *> name, len(name), own_ns)
        charged = 0
        if quotas_allow(tenant, NULL, &demand, &verdict):
            charged = quotas_charge(tenant, NULL, &demand)
        quotas_release(tenant, NULL, charged, 64)
        tenant.holders -= 1
        left -= 1
    return now_ns() - start


cdef class Bucket:
    """A bucket of `numerator` / `denominator` tokens a second that is full at `now`. ValueError for a rate that cannot
    be."""
    cdef BucketRate rate
    cdef TokenBucket bucket

    def __cinit__(self, numerator: int, denominator: int, burst: int, now: int):
        if not rate_init(&self.rate, numerator, denominator, burst):
            raise ValueError(f"{numerator}/{denominator} with a burst of {burst}")
        bucket_fill(&self.bucket, &self.rate, now)

    def try_take(self, tokens: int, now: int) -> bool:
        return try_take(&self.bucket, &self.rate, tokens, now)

    def wait_ns(self, tokens: int, now: int) -> int:
        return bucket_wait_ns(&self.bucket, &self.rate, tokens, now)

    def is_full(self, now: int) -> bool:
        return bucket_is_full(&self.bucket, &self.rate, now)

    @property
    def token_units(self) -> int:
        return self.rate.token_units

    @property
    def level_units(self) -> int:
        return self.bucket.level_units

    def converted_to(self, Bucket other not None) -> int:
        return converted_units(self.bucket.level_units, &self.rate, &other.rate)

    def takes(self, rounds: int, tokens: int, step_ns: int) -> int:
        """Nanoseconds that so many takes need; the bucket's own time moves by `step_ns` a take."""
        cdef int64_t left = rounds
        cdef int64_t c_tokens = tokens
        cdef int64_t c_step_ns = step_ns
        cdef int64_t own_ns = self.bucket.seen_ns
        cdef int64_t start = now_ns()
        with nogil:
            while left > 0:
                own_ns += c_step_ns
                try_take(&self.bucket, &self.rate, c_tokens, own_ns)
                left -= 1
        return now_ns() - start
