"""One run of an ONNX Runtime session: inputs by view, outputs in Blocks."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from infer._core.block cimport Block
from infer._core.tensor_text cimport ErrorText
from infer._core.tensor_view cimport OutputMask, Signature, TensorView

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
# STATUS_RESOURCE_EXHAUSTED (no memory); STATUS_INTERNAL, also where an output has not `rows` rows. On failure `outputs`
# holds nothing and `detail` the runtime's own words, for the log only. `options` are OrtRunOptions, or NULL.
cdef int session_run(const Session *session, const void *options, const TensorView *inputs, const OutputMask *mask,
                     int64_t rows, RunOutput *outputs, ErrorText *detail) noexcept nogil
# Releases what a run's outputs hold.
cdef void drop_outputs(RunOutput *outputs, int32_t count) noexcept nogil
