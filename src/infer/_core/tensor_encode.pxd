"""ModelInferResponse around outputs that lie elsewhere: a head, then a tag and a length before each output's bytes.

nogil, any thread, owns nothing. Outputs go in the model's order, each answered in raw_output_contents.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from infer._core.span cimport Span
from infer._core.tensor_view cimport OutputMask, Signature, TensorView

# Fields of ModelInferResponse, of its outputs and of its parameters.
cdef enum ResponseField:
    RESPONSE_MODEL_NAME = 1
    RESPONSE_MODEL_VERSION = 2
    RESPONSE_ID = 3
    RESPONSE_PARAMETERS = 4
    RESPONSE_OUTPUTS = 5
    RESPONSE_RAW = 6
    OUTPUT_NAME = 1
    OUTPUT_DATA_TYPE = 2
    OUTPUT_SHAPE = 3
    ENTRY_KEY = 1
    ENTRY_VALUE = 2
    PARAMETER_STRING = 3

# One output of one reply.
cdef struct OutputSlice:
    const TensorView *tensor     # type and shape of the whole batch's tensor; if batched, `rows` replaces dimension 0
    const uint8_t *data
    uint64_t size_bytes

# `slices` has one entry for each output of the model, in its order; those outside the mask are not read. `prefix` is
# the encoded model_name and model_version fields (`encode_prefix`). The head is everything before the raw contents;
# each raw entry, empty ones included, is a tag and its length (`encode_raw_tag`), then the bytes.
cdef uint64_t response_head_bytes(const Signature *signature, const OutputMask *mask, const OutputSlice *slices,
                                  int64_t rows, uint64_t prefix_bytes, const Span *id) noexcept nogil
cdef uint8_t *encode_response_head(uint8_t *to, const Signature *signature, const OutputMask *mask,
                                   const OutputSlice *slices, int64_t rows, const uint8_t *prefix,
                                   uint64_t prefix_bytes, const Span *id) noexcept nogil
# The head's beginning: prefix and id.
cdef uint8_t *encode_identity(uint8_t *to, const uint8_t *prefix, uint64_t prefix_bytes,
                              const Span *id) noexcept nogil
cdef uint64_t raw_tag_bytes(uint64_t size_bytes) noexcept nogil
cdef uint8_t *encode_raw_tag(uint8_t *to, uint64_t size_bytes) noexcept nogil
cdef bytes encode_prefix(bytes model_name, bytes model_version)
# A parameter of the response that is a string.
cdef bytes encode_text_parameter(bytes name, bytes text)
