"""Gates in front of the queue: each answers a gRPC status or a Refusal and, where it refuses, a text. Pure functions.

What is read of queues changes meanwhile, since executors take from them: every count is read once. Loop thread.
"""

from libc.stdint cimport int32_t, int64_t

from infer._core.batcher cimport Batcher
from infer._core.model_version cimport Version
from infer._core.queue_order cimport VersionQueue
from infer._core.request cimport Request
from infer._core.tensor cimport ErrorText

cdef enum:
    ADMITTED = -1

# Over the queues of all versions.
cdef struct Bounds:
    int64_t rows
    int64_t bytes

# DEADLINE_EXCEEDED for a call whose deadline is not in the future.
cdef int admit_deadline(int64_t deadline_ns, int64_t now) noexcept nogil
# Whether the request, whose rows, level, body and deadline are known, may wait in its version's queue: ADMITTED or a
# Refusal. An empty queue takes any one request. `beside_rows`: rows that count for the version's bound and do not wait.
cdef int admit_to_queue(const Version *version, const Batcher *batcher, const Bounds *bounds, const Request *request,
                        int64_t beside_rows, int64_t now, ErrorText *error) noexcept nogil
# When a request of so many rows that comes now, with so many ahead of it, will have been answered, from now; 0 where
# the version is idle.
cdef int64_t expected_ns(const Version *version, int64_t rows, int64_t ahead, int64_t now) noexcept nogil
# What Triton's clients are told instead of `code`, its text included. `refusal`: ADMITTED, or why the queue refused;
# `ran`: the request was run.
cdef int triton_code(int code, int refusal, bint ran, ErrorText *error) noexcept nogil
# How long the queue will take, 1 ms to 10 s: when a retry may find room.
cdef int64_t time_to_drain_ms(const Version *version, int64_t now) noexcept nogil
# What a request is told that waited for longer than it may.
cdef void say_waited(const Version *version, int64_t wait_ns, ErrorText *error) noexcept nogil
# And one whose run was stopped.
cdef void say_overdue(const Version *version, ErrorText *error) noexcept nogil
cdef void say_no_memory(ErrorText *error) noexcept nogil
