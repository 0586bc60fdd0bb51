"""Error texts are built in place, without allocation, so that any thread may do it without the GIL."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy, strlen

from infer._core.span cimport Span, span_left
from infer._core.tensor_view cimport MAX_RANK, TYPE_BF16, TYPE_BOOL, TYPE_BYTES, TYPE_COUNT, TYPE_FP16, TYPE_FP32
from infer._core.tensor_view cimport TYPE_FP64, TYPE_INT8, TYPE_INT16, TYPE_INT32, TYPE_INT64, TYPE_NONE, TYPE_UINT8
from infer._core.tensor_view cimport TYPE_UINT16, TYPE_UINT32, TYPE_UINT64, Signature

cdef enum:
    NAME_SHOWN_BYTES = 64

cdef const char *NAMES[TYPE_COUNT]
for _index in range(TYPE_COUNT):
    NAMES[_index] = "?"
NAMES[<int> TYPE_BOOL] = "BOOL"
NAMES[<int> TYPE_UINT8] = "UINT8"
NAMES[<int> TYPE_UINT16] = "UINT16"
NAMES[<int> TYPE_UINT32] = "UINT32"
NAMES[<int> TYPE_UINT64] = "UINT64"
NAMES[<int> TYPE_INT8] = "INT8"
NAMES[<int> TYPE_INT16] = "INT16"
NAMES[<int> TYPE_INT32] = "INT32"
NAMES[<int> TYPE_INT64] = "INT64"
NAMES[<int> TYPE_FP16] = "FP16"
NAMES[<int> TYPE_FP32] = "FP32"
NAMES[<int> TYPE_FP64] = "FP64"
NAMES[<int> TYPE_BF16] = "BF16"
NAMES[<int> TYPE_BYTES] = "BYTES"


cdef const char *data_type_name(int data_type) noexcept nogil:
    return NAMES[data_type if 0 <= data_type < TYPE_COUNT else 0]


cdef int data_type_of(const Span *name) noexcept nogil:
    cdef int data_type
    cdef uint64_t size_bytes = span_left(name)
    if size_bytes < 2:
        return TYPE_NONE
    for data_type in range(1, <int> TYPE_COUNT):
        if strlen(NAMES[data_type]) == size_bytes and memcmp(NAMES[data_type], name.at, size_bytes) == 0:
            return data_type
    return TYPE_NONE


cdef void append(ErrorText *error, const char *text, uint64_t size_bytes) noexcept nogil:
    cdef uint64_t room = ERROR_TEXT_BYTES - 1 - error.size_bytes
    if size_bytes > room:
        size_bytes = room
        while size_bytes and (<uint8_t> text[size_bytes] & 0xC0) == 0x80:
            size_bytes -= 1
    memcpy(&error.text[error.size_bytes], text, size_bytes)
    error.size_bytes += <uint32_t> size_bytes
    error.text[error.size_bytes] = 0


cdef void say(ErrorText *error, const char *text) noexcept nogil:
    append(error, text, strlen(text))


cdef void say_name(ErrorText *error, const uint8_t *data, uint64_t size_bytes) noexcept nogil:
    cdef char escaped[5]
    cdef uint64_t i
    cdef uint64_t shown = size_bytes if size_bytes < NAME_SHOWN_BYTES else NAME_SHOWN_BYTES
    append(error, "'", 1)
    for i in range(shown):
        if 0x20 <= data[i] < 0x7F and data[i] != c'\\':
            append(error, <const char *> data + i, 1)
        else:
            snprintf(escaped, 5, "\\x%02x", <int> data[i])
            append(error, escaped, 4)
    if shown < size_bytes:
        append(error, "...", 3)
    append(error, "'", 1)


cdef void say_int(ErrorText *error, int64_t value) noexcept nogil:
    cdef char digits[24]
    append(error, digits, snprintf(digits, 24, "%lld", <long long> value))


cdef void say_shape(ErrorText *error, int rank, const int64_t *shape) noexcept nogil:
    cdef int i
    append(error, "[", 1)
    for i in range(rank if rank < MAX_RANK else MAX_RANK):
        if i:
            append(error, ",", 1)
        say_int(error, shape[i])
    if rank > MAX_RANK:
        append(error, ",...", 4)
    append(error, "]", 1)


cdef void say_tensor(ErrorText *error, int data_type, int rank, const int64_t *shape) noexcept nogil:
    say(error, data_type_name(data_type))
    if rank < 0:
        say(error, " of any shape")
    else:
        append(error, " ", 1)
        say_shape(error, rank, shape)


cdef void say_input(ErrorText *error, const Signature *signature, int input) noexcept nogil:
    say(error, "input ")
    say_name(error, <const uint8_t *> signature.inputs[input].name, signature.inputs[input].name_bytes)
    say(error, " of model ")
    say_name(error, <const uint8_t *> signature.model, strlen(signature.model))
    say(error, ": ")
