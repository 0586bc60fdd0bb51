"""The ONNX Runtime library inside the `onnxruntime` wheel (dlopen, never linked) and the process's one environment."""

cimport cython

from infer._core.capi.onnxruntime cimport OrtAllocator, OrtApi, OrtMemoryInfo, OrtStatus

# Filled by the first Runtime and never changed again; so are the two objects below, which live as long as the process.
cdef OrtApi ort
cdef OrtMemoryInfo *cpu_memory
cdef OrtAllocator *default_allocator

# Raises ModelLoadError, "<what>: <the runtime's words>", for a status that is not NULL, and releases it.
cdef int check(OrtStatus *status, str what) except -1
# What the runtime said as one line without positions in its source.
cdef str plain(const char *words)
# The words of a status as such a line; releases it.
cdef str take_words(OrtStatus *status)

# Warnings and errors that the library logs on the calling thread between the two calls; elsewhere it logs nothing.
cdef enum:
    LOG_BYTES = 8192

cdef struct LogLines:
    size_t used
    char text[8192]              # lines, each NUL-terminated; what does not fit is dropped

cdef void collect_log(LogLines *lines) noexcept nogil          # NULL ends it
cdef list log_lines(const LogLines *lines)


@cython.final
cdef class Runtime:
    cdef readonly str library_path
    cdef readonly str version
    cdef readonly list providers           # compiled into the library, as it names them
    cdef readonly int intra_op             # threads per operator, of sessions without a setting of their own
    cdef void *environment
