"""One ONNX Runtime session, through the C API of the library inside the `onnxruntime` wheel.

A session is loaded on any thread, then run by several executors at once (`ort_run`) without the GIL.
"""

cimport cython

from infer._core.capi.onnxruntime cimport OrtSessionOptions
from infer._core.model_version cimport VersionEntry
from infer._core.ort_run cimport RunOutput, Session
from infer._core.ort_runtime cimport Runtime
from infer._core.tensor_view cimport Signature


@cython.final
cdef class OrtSession:
    cdef Session c
    cdef Signature signature               # of the outputs alone, without a row dimension, until a version is attached
    cdef readonly Runtime runtime
    cdef readonly list inputs              # TensorInfo
    cdef readonly list outputs
    cdef readonly dict metadata            # producer, graph name, domain, description, version, custom map
    cdef readonly list providers           # in use, in order, with options
    cdef readonly list messages            # what the runtime warned of while it loaded
    cdef list _names                       # owners of the names that c and signature point to
    cdef bint quiet                        # loads and cold runs take only the time that nobody else wants
    cdef load(self, file, providers, OrtSessionOptions *options)
    cdef set_threads(self, OrtSessionOptions *options, intra_op, inter_op)
    cdef describe(self)
    cdef const char *keep(self, str name) except NULL
    cdef list take_results(self, RunOutput *outputs)

# The entry's batches run on this session, which must be its alone: points each at the other.
cpdef void attach(VersionEntry entry, OrtSession session)
# Undoes it: the session is the caller's to close. The version has drained.
cpdef OrtSession take_session(VersionEntry entry)
