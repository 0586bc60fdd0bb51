"""What quotas allow, and what a refused request is told. See quota.pxd."""

from libc.stdint cimport INT32_MAX, int64_t

from infer._core.retry_info cimport BUSY_PUSHBACK_MS
from infer._core.status cimport STATUS_INVALID_ARGUMENT, STATUS_RESOURCE_EXHAUSTED
from infer._core.tensor_text cimport say, say_int, say_name
from infer._core.token_bucket cimport (
    NEVER_NS, bucket_fill, bucket_is_full, bucket_refill, bucket_take, bucket_wait_ns, converted_units)

cdef enum:
    MILLISECOND_NS = 1000000

cdef const char *OTHERS = "\"*\""
cdef const char *SETTINGS[LIMIT_KINDS]
SETTINGS[<int> LIMIT_REQUESTS] = "requests_per_second"
SETTINGS[<int> LIMIT_ROWS] = "rows_per_second"
SETTINGS[<int> LIMIT_CONCURRENT] = "max_concurrent"
SETTINGS[<int> LIMIT_IN_FLIGHT_BYTES] = "max_in_flight_bytes"


cdef void usage_init(Usage *usage, const Limits *limits, int64_t now) noexcept nogil:
    bucket_fill(&usage.requests, &limits.requests, now)
    bucket_fill(&usage.rows, &limits.rows, now)
    usage.concurrent = 0
    usage.in_flight_bytes = 0


cdef bint usage_is_idle(Usage *usage, const Limits *limits, int64_t now) noexcept nogil:
    return usage.concurrent == 0 and (
        limits.requests.burst == 0 or bucket_is_full(&usage.requests, &limits.requests, now)) and (
        limits.rows.burst == 0 or bucket_is_full(&usage.rows, &limits.rows, now))


cdef void convert(TokenBucket *bucket, const BucketRate *old, const BucketRate *new, int64_t now) noexcept nogil:
    bucket_refill(bucket, old, now)
    bucket.level_units = converted_units(bucket.level_units, old, new)


cdef void usage_convert(Usage *usage, const Limits *old, const Limits *new, int64_t now) noexcept nogil:
    convert(&usage.requests, &old.requests, &new.requests, now)
    convert(&usage.rows, &old.rows, &new.rows, now)


cdef inline void object_to(Verdict *verdict, int scope, int kind, int64_t wait_ns) noexcept nogil:
    """What never comes outweighs what comes at no known time, and that what can be waited for, the longest first."""
    cdef bint heavier = verdict.scope < 0
    if wait_ns == NEVER_NS:
        heavier = heavier or verdict.wait_ns != NEVER_NS
    elif wait_ns == UNKNOWN_NS:
        heavier = heavier or verdict.wait_ns >= 0
    else:
        heavier = heavier or 0 <= verdict.wait_ns < wait_ns
    if heavier:
        verdict.scope = scope
        verdict.kind = kind
        verdict.wait_ns = wait_ns


cdef void check(const Limits *limits, Usage *usage, const Demand *demand, int scope, Verdict *verdict) noexcept nogil:
    cdef int64_t wait_ns
    if limits.rows.burst > 0:
        wait_ns = bucket_wait_ns(&usage.rows, &limits.rows, demand.rows, demand.now)
        if wait_ns != 0:
            object_to(verdict, scope, LIMIT_ROWS, wait_ns)
    if demand.counted:
        return
    if limits.requests.burst > 0:
        wait_ns = bucket_wait_ns(&usage.requests, &limits.requests, 1, demand.now)
        if wait_ns != 0:
            object_to(verdict, scope, LIMIT_REQUESTS, wait_ns)
    if limits.max_concurrent > 0 and usage.concurrent >= limits.max_concurrent:
        object_to(verdict, scope, LIMIT_CONCURRENT, UNKNOWN_NS)
    if limits.max_in_flight_bytes > 0 and demand.bytes > limits.max_in_flight_bytes - usage.in_flight_bytes:
        object_to(verdict, scope, LIMIT_IN_FLIGHT_BYTES,
                  NEVER_NS if demand.bytes > limits.max_in_flight_bytes else UNKNOWN_NS)


cdef inline const Limits *limits_of_pair(const Tenant *tenant, const ModelQuota *model) noexcept nogil:
    return &tenant.policy.pairs[tenant.policy.place_of[model.index]]


cdef bint quotas_allow(Tenant *tenant, ModelQuota *model, const Demand *demand, Verdict *verdict) noexcept nogil:
    cdef Usage *pair = pair_of(tenant, model)
    verdict.scope = -1
    if tenant.policy.limits.any:
        check(&tenant.policy.limits, &tenant.usage, demand, SCOPE_TENANT, verdict)
    if model != NULL and model.limits.any:
        check(&model.limits, &model.usage, demand, SCOPE_MODEL, verdict)
    if pair != NULL:
        check(limits_of_pair(tenant, model), pair, demand, SCOPE_TENANT_MODEL, verdict)
    if verdict.scope < 0:
        return True
    tenant.policy.refused[verdict.scope * <int> LIMIT_KINDS + verdict.kind] += 1
    return False


cdef inline void charge(const Limits *limits, Usage *usage, const Demand *demand) noexcept nogil:
    if limits.rows.burst > 0:
        bucket_take(&usage.rows, &limits.rows, demand.rows)
    if demand.counted:
        return
    if limits.requests.burst > 0:
        bucket_take(&usage.requests, &limits.requests, 1)
    usage.concurrent += 1
    usage.in_flight_bytes += demand.bytes


cdef uint8_t quotas_charge(Tenant *tenant, ModelQuota *model, const Demand *demand) noexcept nogil:
    cdef Usage *pair = pair_of(tenant, model)
    cdef uint8_t charged = 0
    if tenant.policy.limits.any:
        charge(&tenant.policy.limits, &tenant.usage, demand)
        charged |= CHARGED_TENANT
    if model != NULL and model.limits.any:
        charge(&model.limits, &model.usage, demand)
        charged |= CHARGED_MODEL
    if pair != NULL:
        charge(limits_of_pair(tenant, model), pair, demand)
        charged |= CHARGED_PAIR
    return charged


cdef inline void release(Usage *usage, int64_t bytes) noexcept nogil:
    # One whose limits went and came again while requests were under way began anew.
    if usage.concurrent > 0:
        usage.concurrent -= 1
        usage.in_flight_bytes = max(usage.in_flight_bytes - bytes, <int64_t> 0)


cdef void quotas_release(Tenant *tenant, ModelQuota *model, uint8_t charged, int64_t bytes) noexcept nogil:
    cdef Usage *pair
    if charged & CHARGED_TENANT:
        release(&tenant.usage, bytes)
    if charged & CHARGED_MODEL and model != NULL:
        release(&model.usage, bytes)
    if charged & CHARGED_PAIR:
        pair = pair_of(tenant, model)
        if pair != NULL:
            release(pair, bytes)


cdef void say_tenant(const Tenant *tenant, ErrorText *error) noexcept nogil:
    if tenant.id == 0:
        say(error, "tenants for which there is no room (--max-tenants) together")
    elif tenant.name_bytes == 0:
        say(error, "requests without a tenant")
    else:
        say(error, "tenant ")
        say_name(error, tenant.name, tenant.name_bytes)


cdef void say_setting(const Tenant *tenant, const ModelQuota *model, int scope, const char *setting,
                      ErrorText *error) noexcept nogil:
    """Where the limit stands in infer.toml."""
    if scope == SCOPE_MODEL:
        say(error, " ([models.")
        say(error, model.name)
        say(error, ".limits] ")
    else:
        say(error, " ([tenants.")
        say(error, tenant.policy.name if tenant.policy.name != NULL else <const char *> OTHERS)
        if scope == SCOPE_TENANT_MODEL:
            say(error, ".models.")
            say(error, model.name)
        say(error, "] ")
    say(error, setting)
    say(error, ")")


cdef void say_limit(const Limits *limits, int kind, ErrorText *error) noexcept nogil:
    cdef bint rows = kind == LIMIT_ROWS
    if kind == LIMIT_CONCURRENT:
        say_int(error, limits.max_concurrent)
        say(error, " requests under way")
    elif kind == LIMIT_IN_FLIGHT_BYTES:
        say_int(error, limits.max_in_flight_bytes)
        say(error, " bytes of requests under way")
    else:
        say(error, limits.rows_text if rows else limits.requests_text)
        say(error, " rows/s, " if rows else " requests/s, ")
        say_int(error, limits.rows.burst if rows else limits.requests.burst)
        say(error, " at once")


cdef int say_refused(const Tenant *tenant, const ModelQuota *model, const Demand *demand, const Verdict *verdict,
                     ErrorText *error) noexcept nogil:
    cdef const Limits *limits = &tenant.policy.limits
    if verdict.scope == SCOPE_MODEL:
        limits = &model.limits
        say(error, "model '")
        say(error, model.name)
        say(error, "'")
    else:
        say_tenant(tenant, error)
    if verdict.scope == SCOPE_TENANT_MODEL:
        limits = limits_of_pair(tenant, model)
        say(error, " at model '")
        say(error, model.name)
        say(error, "'")
    say(error, ": the limit is ")
    say_limit(limits, verdict.kind, error)
    say_setting(tenant, model, verdict.scope, SETTINGS[verdict.kind], error)
    if verdict.wait_ns == NEVER_NS:
        say(error, ", the request has ")
        say_int(error, demand.rows if verdict.kind == LIMIT_ROWS else demand.bytes)
        say(error, " rows; send fewer in one request" if verdict.kind == LIMIT_ROWS else " bytes; send less in one")
        return STATUS_INVALID_ARGUMENT
    if verdict.wait_ns == UNKNOWN_NS:
        say(error, "; retry when others have ended")
    else:
        say(error, "; retry in ")
        say_int(error, pushback_of(verdict))
        say(error, " ms")
    return STATUS_RESOURCE_EXHAUSTED


cdef int64_t pushback_of(const Verdict *verdict) noexcept nogil:
    if verdict.wait_ns == NEVER_NS:
        return -1
    if verdict.wait_ns == UNKNOWN_NS:
        return BUSY_PUSHBACK_MS
    # Clients take it for 32 bits.
    return min((verdict.wait_ns - 1) // MILLISECOND_NS + 1, <int64_t> INT32_MAX)
