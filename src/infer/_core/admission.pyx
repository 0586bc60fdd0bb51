"""Gates in front of the queue. Pure functions; any thread."""

from infer._core.status cimport STATUS_DEADLINE_EXCEEDED, STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.tensor cimport say, say_int


cdef int admit_deadline(int64_t deadline_ns, int64_t now) noexcept nogil:
    return STATUS_DEADLINE_EXCEEDED if deadline_ns != 0 and deadline_ns <= now else STATUS_OK


cdef void say_full(const Version *version, int64_t queued, int64_t bound, ErrorText *error) noexcept nogil:
    say(error, "the queue of model '")
    say(error, version.name)
    say(error, "' is full: it holds ")
    say_int(error, queued)
    say(error, " of at most ")
    say_int(error, bound)


cdef int admit_queue(const Version *version, int64_t queued_rows, int64_t rows, ErrorText *error) noexcept nogil:
    if queued_rows == 0 or queued_rows + rows <= version.queue_limit_rows:
        return STATUS_OK
    say_full(version, queued_rows, version.queue_limit_rows, error)
    say(error, " rows (--max-queue-rows), the request brings ")
    say_int(error, rows)
    say(error, "; retry later or send to another replica")
    return STATUS_RESOURCE_EXHAUSTED


cdef int admit_level(const Version *version, int32_t level, int64_t queued, ErrorText *error) noexcept nogil:
    cdef int64_t bound = version.policy.of_level[level].max_requests
    if bound == 0 or queued < bound:
        return STATUS_OK
    say_full(version, queued, bound, error)
    say(error, " requests")
    if level:
        say(error, " of priority ")
        say_int(error, level)
    say(error, " (max_queue_size); retry later or send to another replica")
    return STATUS_RESOURCE_EXHAUSTED


cdef void say_waited(const Version *version, int64_t wait_ns, ErrorText *error) noexcept nogil:
    say(error, "the request waited longer than ")
    say_int(error, wait_ns // 1000)
    say(error, " us in the queue of model '")
    say(error, version.name)
    say(error, "'; it was not run. Send to another replica, or let requests wait for longer "
               "(default_timeout_microseconds, or parameter `timeout` where allow_timeout_override is set)")


cdef void say_overdue(const Version *version, ErrorText *error) noexcept nogil:
    say(error, "model '")
    say(error, version.name)
    say(error, "' version ")
    say(error, version.number)
    say(error, " ran for longer than ")
    say_int(error, version.run_timeout_ns // 1000000)
    say(error, " ms (--run-timeout, or run_timeout of the model) on the batch that held this request, and was stopped; "
               "send fewer rows, or let runs take longer")
