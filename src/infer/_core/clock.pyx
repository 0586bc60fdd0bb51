"""Monotonic time in nanoseconds: CLOCK_MONOTONIC, or a clock that a test steps.

`now_ns` may be called by any thread, with or without the GIL. Tests replace it while no other thread calls it; a
stepped time is seen by all threads.
"""

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from infer._core.capi.atomics cimport add_i64, load_relaxed_i64, store_relaxed_i64

cdef int64_t fake_time_ns = 0


cdef int64_t monotonic_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <int64_t> time.tv_sec * 1000000000 + time.tv_nsec


cdef int64_t fake_ns() noexcept nogil:
    return load_relaxed_i64(&fake_time_ns)


now_ns = monotonic_ns


def now() -> int:
    """The time that the core sees now, in nanoseconds."""
    return now_ns()


def set_fake(time_ns: int) -> None:
    """Stop the clock at `time_ns`; from now on it moves by `advance` alone."""
    global now_ns
    cdef int64_t time = time_ns
    store_relaxed_i64(&fake_time_ns, time)
    now_ns = fake_ns


def advance(delta_ns: int) -> int:
    """Move the stopped clock and return its new time."""
    if now_ns != fake_ns:
        raise RuntimeError("the clock runs by itself; stop it with set_fake() first")
    cdef int64_t delta = delta_ns
    return add_i64(&fake_time_ns, delta) + delta


def restore() -> None:
    """Back to the system's monotonic clock."""
    global now_ns
    now_ns = monotonic_ns
