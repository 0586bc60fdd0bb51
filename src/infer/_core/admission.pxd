"""Gates in front of the queue: each answers a gRPC status and, where it refuses, a text. Pure functions."""

from libc.stdint cimport int32_t, int64_t

from infer._core.model_version cimport Version
from infer._core.tensor cimport ErrorText

# DEADLINE_EXCEEDED for a call whose deadline is not in the future.
cdef int admit_deadline(int64_t deadline_ns, int64_t now) noexcept nogil
# RESOURCE_EXHAUSTED where `rows` more would pass the version's queue limit (an empty queue takes any one request).
cdef int admit_queue(const Version *version, int64_t queued_rows, int64_t rows, ErrorText *error) noexcept nogil
# As much where `level`, of which `queued` requests wait, may have no more of them.
cdef int admit_level(const Version *version, int32_t level, int64_t queued, ErrorText *error) noexcept nogil
# What a request is told that waited for longer than it may.
cdef void say_waited(const Version *version, int64_t wait_ns, ErrorText *error) noexcept nogil
# And one whose run was stopped.
cdef void say_overdue(const Version *version, ErrorText *error) noexcept nogil
