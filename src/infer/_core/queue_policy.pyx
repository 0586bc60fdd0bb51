"""Queue policies as a version has them. Made and freed on the loop thread or while nobody else knows the version."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free

# Settings of the server, fields of a config.pbtxt, and what a deadline does.
REFUSAL_NAMES = ("max_queue_rows", "max_queue_bytes", "max_queue_rows_total", "max_queue_bytes_total",
                 "max_queue_size", "queue_timeout", "deadline", "codel", "adaptive_limit")


cdef QueuePolicy *policy_new(int levels, int default_level, policies) except? NULL:
    cdef QueuePolicy *policy
    cdef LevelPolicy *of_level
    cdef int64_t max_requests, timeout_ns
    cdef int first = 1 if levels else 0
    cdef int i
    given = list(policies) or [(0, 0, False, False)] * max(levels, 1)
    if not 0 <= levels <= LEVELS_MAX or not first <= default_level <= levels or len(given) != max(levels, 1):
        raise ValueError(f"levels {levels} must be from 0 to {LEVELS_MAX}, default_level {default_level} one of them, "
                         f"and policies, of which there are {len(given)}, one for each")
    for max_requests, timeout_ns, _, _ in given:
        if max_requests < 0 or timeout_ns < 0:
            raise ValueError(f"max_requests {max_requests} and timeout_ns {timeout_ns} must be at least 0")
    if not levels and not any(max_requests or timeout_ns or overridable
                              for max_requests, timeout_ns, _, overridable in given):
        return NULL
    policy = <QueuePolicy *> PyMem_Calloc(1, sizeof(QueuePolicy))
    if policy == NULL:
        raise MemoryError("no memory for the version's queue policy")
    policy.levels = levels
    policy.default_level = default_level
    for i in range(len(given)):
        of_level = &policy.of_level[first + i]
        of_level.max_requests, of_level.timeout_ns, of_level.delays, of_level.overridable = given[i]
    return policy


cdef void policy_free(QueuePolicy *policy) noexcept:
    PyMem_Free(policy)
