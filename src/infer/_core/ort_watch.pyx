"""RunOptions of executors, and the runs that they are in. See ort_watch.pxd."""

from libc.string cimport memset

from infer._core.capi.onnxruntime cimport OrtRunOptions, OrtStatus
from infer._core.capi.pthread cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock)
from infer._core.clock cimport now_ns
from infer._core.ort_runtime cimport ort


cdef void watch_init(RunWatch *watch) noexcept nogil:
    memset(watch, 0, sizeof(RunWatch))
    pthread_mutex_init(&watch.mutex, NULL)


cdef void watch_free(RunWatch *watch) noexcept nogil:
    if watch.options != NULL:
        ort.ReleaseRunOptions(<OrtRunOptions *> watch.options)
    pthread_mutex_destroy(&watch.mutex)


cdef inline void drop(OrtStatus *status) noexcept nogil:
    if status != NULL:
        ort.ReleaseStatus(status)


cdef void watch_begin(RunWatch *watch, void *batch) noexcept nogil:
    cdef OrtRunOptions *options = NULL
    # The library is there once a version is.
    if watch.options == NULL:
        drop(ort.CreateRunOptions(&options))
        watch.options = options
    pthread_mutex_lock(&watch.mutex)
    watch.batch = batch
    watch.begun_ns = now_ns()
    pthread_mutex_unlock(&watch.mutex)


cdef bint watch_end(RunWatch *watch) noexcept nogil:
    cdef bint stopped
    pthread_mutex_lock(&watch.mutex)
    watch.batch = NULL
    stopped = watch.stopped_ns != 0
    watch.stopped_ns = 0
    watch.told = 0
    pthread_mutex_unlock(&watch.mutex)
    # Nobody stops a run that is not under way.
    if stopped and watch.options != NULL:
        drop(ort.RunOptionsUnsetTerminate(<OrtRunOptions *> watch.options))
    return stopped


cdef void watch_stop(RunWatch *watch, int64_t now) noexcept nogil:
    watch.stopped_ns = now
    if watch.options != NULL:
        drop(ort.RunOptionsSetTerminate(<OrtRunOptions *> watch.options))
