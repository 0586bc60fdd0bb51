"""Elements of a tensor: typed contents decoded to raw, and raw elements that need more than their size checked.

nogil, any thread, owns nothing. What protobuf would refuse inside `contents` is refused here, when the tensor is
decoded.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from infer._core.span cimport Span
from infer._core.tensor_text cimport ErrorText
from infer._core.tensor_view cimport Signature, TensorView

cdef enum:
    INPUT_CONTENTS = 5 << 3 | 2  # tag of InferInputTensor.contents

# Number of the InferTensorContents field that carries `data_type`; 0: none does (FP16, BF16).
cdef int contents_field(int data_type) noexcept nogil
cdef const char *contents_field_name(int data_type) noexcept nogil

# Decodes the typed contents of a FORM_TYPED view into `to` (view.size_bytes of room): raw little-endian elements, BYTES
# with their lengths before them. `view.data` is a delimited InferInputTensor: its length, then the submessage. `input`
# (index in the signature) is named in the error. STATUS_OK, STATUS_INTERNAL (malformed), STATUS_INVALID_ARGUMENT.
cdef int decode_contents(const TensorView *view, const Signature *signature, int input, uint8_t *to,
                         ErrorText *error) noexcept nogil

# Size that the bytes_contents of the delimited InferInputTensor at `at` will decode to; errors as decode_contents.
cdef int measure_contents(const uint8_t *at, const Signature *signature, int input, uint64_t elements,
                          uint64_t *size_bytes, ErrorText *error) noexcept nogil

# Holds raw BOOL and BYTES elements against their rules; other types pass.
cdef int check_raw(const Span *raw, const Signature *signature, int input, uint64_t elements,
                   ErrorText *error) noexcept nogil
