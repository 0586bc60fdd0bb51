"""Monotonic time in nanoseconds, as one function pointer that a test may replace by a clock it steps."""

from libc.stdint cimport int64_t

ctypedef int64_t (*clock_function)() noexcept nogil

cdef clock_function now_ns
