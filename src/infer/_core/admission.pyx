"""Gates in front of the queue. Pure functions; any thread."""

from infer._core.status cimport STATUS_DEADLINE_EXCEEDED, STATUS_OK, STATUS_RESOURCE_EXHAUSTED
from infer._core.tensor cimport say, say_int


cdef int admit_deadline(int64_t deadline_ns, int64_t now) noexcept nogil:
    return STATUS_DEADLINE_EXCEEDED if deadline_ns != 0 and deadline_ns <= now else STATUS_OK


cdef int admit_queue(const Version *version, int64_t queued_rows, int64_t rows, ErrorText *error) noexcept nogil:
    if queued_rows == 0 or queued_rows + rows <= version.queue_limit_rows:
        return STATUS_OK
    say(error, "the queue of model '")
    say(error, version.name)
    say(error, "' is full: it holds ")
    say_int(error, queued_rows)
    say(error, " of at most ")
    say_int(error, version.queue_limit_rows)
    say(error, " rows (--max-queue-rows), the request brings ")
    say_int(error, rows)
    say(error, "; retry later or send to another replica")
    return STATUS_RESOURCE_EXHAUSTED
