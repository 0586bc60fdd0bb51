"""What the codec says to a client: element type names and the text of an error."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from infer._core.span cimport Span
from infer._core.tensor_view cimport Signature

cdef enum:
    ERROR_TEXT_BYTES = 1024

# A message for the client: UTF-8, NUL-terminated, cut at a character's edge. Foreign bytes go in escaped and cut.
cdef struct ErrorText:
    uint32_t size_bytes
    char text[1024]

# Empties the text; the codec's functions do it on entry.
cdef inline void clear_error(ErrorText *error) noexcept nogil:
    error.size_bytes = 0
    error.text[0] = 0

# Appends to an error. `say_name` escapes what is not printable ASCII and cuts at 64 bytes.
cdef void say(ErrorText *error, const char *text) noexcept nogil
cdef void say_name(ErrorText *error, const uint8_t *data, uint64_t size_bytes) noexcept nogil
cdef void say_int(ErrorText *error, int64_t value) noexcept nogil
# `FP32 [-1,4]` as the protocol writes types and shapes; rank -1: the model does not say.
cdef void say_tensor(ErrorText *error, int data_type, int rank, const int64_t *shape) noexcept nogil
cdef void say_shape(ErrorText *error, int rank, const int64_t *shape) noexcept nogil
# `input 'x' of model 'm': `
cdef void say_input(ErrorText *error, const Signature *signature, int input) noexcept nogil

cdef int data_type_of(const Span *name) noexcept nogil             # TYPE_NONE: unknown
cdef const char *data_type_name(int data_type) noexcept nogil      # "FP32"; "?" for what the protocol has no name for
