"""The run that an executor is in, so that the loop can see how long it takes, and end it.

One RunWatch per executor, in its Scratch. The executor begins and ends; the loop looks and stops. The mutex is held for
a few instructions on both sides, so that a run which has just ended is never taken for the next one.
"""

from libc.stdint cimport int32_t, int64_t

from infer._core.capi.pthread cimport pthread_mutex_t

cdef struct RunWatch:
    pthread_mutex_t mutex
    void *options                # OrtRunOptions of every run; NULL before the first, or where there was no memory
    void *batch                  # under way; NULL: none. Under the mutex
    int64_t begun_ns             # of the run, not of its batch: one that is bisected has several
    int64_t stopped_ns           # when it was told to end; 0: it was not
    int32_t told                 # 1: that it does not end was said

cdef void watch_init(RunWatch *watch) noexcept nogil
cdef void watch_free(RunWatch *watch) noexcept nogil
# The executor is about to run for `batch`, with `options`.
cdef void watch_begin(RunWatch *watch, void *batch) noexcept nogil
# The run has returned; True: it was told to end.
cdef bint watch_end(RunWatch *watch) noexcept nogil
# Tells the run under way to end, which it does once the node that it is in has run. The mutex is held.
cdef void watch_stop(RunWatch *watch, int64_t now) noexcept nogil
