"""One ONNX Runtime session, through the C API of the library inside the `onnxruntime` wheel (dlopen, never linked).

`Runtime` is the process's one environment with global thread pools. A Session is loaded on any thread, then run by several
executors at once (`OrtSession::Run` is thread-safe) without the GIL.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.model_version cimport VersionEntry
from infer._core.ort_runtime cimport Runtime
from infer._core.tensor_text cimport ErrorText
from infer._core.tensor_view cimport OutputMask, Signature, TensorView
from infer._core.block cimport Block

# What executors use of a session.
cdef struct Session:
    void *session                # OrtSession *
    const char **input_names
    const char **output_names    # all, in the model's order
    int32_t n_inputs
    int32_t n_outputs
    const Signature *signature
    uint8_t *bindable            # per output: may be given memory before the run; its declared shape is what it makes

# One run's output: bound memory that came back filled, or a runtime-owned value copied out once.
cdef struct RunOutput:
    TensorView view              # data: arena offset of the first byte (BYTES: length-prefixed elements)
    Block *block                 # one reference, the caller's; NULL: not asked for
    uint64_t *element_ends       # BYTES of a batched model: end of each row's bytes, n = rows; malloc'd, the caller's

# Runs `inputs` (FORM_RAW, contiguous, aligned, in the model's order; TYPE_NONE: left out) for the outputs in `mask`.
# `rows` is the rows of a batched model, else -1. STATUS_OK; STATUS_INVALID_ARGUMENT (the runtime blames the input);
# STATUS_RESOURCE_EXHAUSTED (no memory); STATUS_INTERNAL, also where an output has not `rows` rows. On failure `outputs` holds
# nothing and `detail` the runtime's own words, for the log only.
cdef int session_run(const Session *session, const TensorView *inputs, const OutputMask *mask, int64_t rows,
                     RunOutput *outputs, ErrorText *detail) noexcept nogil

cdef class OrtSession:
    cdef Session c
    cdef Signature signature
    cdef readonly Runtime runtime
    cdef readonly list inputs              # TensorInfo
    cdef readonly list outputs
    cdef readonly dict metadata            # producer, graph name, domain, description, version, custom map
    cdef readonly list providers           # in use, in order, with options
    cdef readonly list messages            # what the runtime warned of while it loaded
    cdef list _names                       # owners of the names that c and signature point to
    cdef load(self, bytes path, providers, intra_op)
    cdef describe(self)
    cdef const char *keep(self, str name) except NULL
    cdef list take_results(self, RunOutput *outputs)

# The entry's batches run on this session, which must be its alone: points each at the other.
cpdef void attach(VersionEntry entry, OrtSession session)
