"""One walk serves every type: each value found is counted, and stored while there is room for it.

Several `contents` submessages merge and a field may come packed or not, as in any protobuf parser.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from infer._core.arena cimport at as address_of
from infer._core.span cimport Span, span_left, span_over
from infer._core.status cimport STATUS_INTERNAL, STATUS_INVALID_ARGUMENT, STATUS_OK
from infer._core.tensor_text cimport ErrorText, data_type_name, say, say_input, say_int
from infer._core.tensor_view cimport TYPE_BOOL, TYPE_BYTES, TYPE_FP32, TYPE_FP64, TYPE_INT8, TYPE_INT16, TYPE_INT32
from infer._core.tensor_view cimport TYPE_INT64, TYPE_UINT8, TYPE_UINT16, TYPE_UINT32, TYPE_UINT64, Signature
from infer._core.tensor_view cimport TensorView, element_bytes
from infer._core.wire cimport WIRE_BAD, WIRE_BYTES, WIRE_DEPTH, WIRE_END, WIRE_FIELD, WIRE_FIXED32, WIRE_FIXED64
from infer._core.wire cimport WIRE_VARINT, Field, try_field, try_short_varint, try_varint

cdef enum:
    BOOL_CONTENTS = 1
    INT_CONTENTS = 2
    INT64_CONTENTS = 3
    UINT_CONTENTS = 4
    UINT64_CONTENTS = 5
    FP32_CONTENTS = 6
    FP64_CONTENTS = 7
    BYTES_CONTENTS = 8

cdef const char *FIELD_NAMES[9]
FIELD_NAMES[0] = "raw_input_contents"
FIELD_NAMES[BOOL_CONTENTS] = "bool_contents"
FIELD_NAMES[INT_CONTENTS] = "int_contents"
FIELD_NAMES[INT64_CONTENTS] = "int64_contents"
FIELD_NAMES[UINT_CONTENTS] = "uint_contents"
FIELD_NAMES[UINT64_CONTENTS] = "uint64_contents"
FIELD_NAMES[FP32_CONTENTS] = "fp32_contents"
FIELD_NAMES[FP64_CONTENTS] = "fp64_contents"
FIELD_NAMES[BYTES_CONTENTS] = "bytes_contents"

# Where a walk stores and what it has seen.
cdef struct Filling:
    uint8_t *to                  # NULL: values are measured, not stored
    uint64_t room_bytes
    uint64_t elements            # that the shape asks for
    uint64_t count               # values seen in the type's own field
    uint64_t size_bytes          # that those values take
    int64_t out_of_range         # the first value that the type cannot hold
    uint64_t out_of_range_at     # its position + 1; 0: none
    int32_t data_type
    int32_t field                # the type's own
    int32_t other                # another field that has values; 0: none


cdef int contents_field(int data_type) noexcept nogil:
    if data_type == TYPE_FP32:
        return FP32_CONTENTS
    if data_type == TYPE_FP64:
        return FP64_CONTENTS
    if data_type == TYPE_INT8 or data_type == TYPE_INT16 or data_type == TYPE_INT32:
        return INT_CONTENTS
    if data_type == TYPE_UINT8 or data_type == TYPE_UINT16 or data_type == TYPE_UINT32:
        return UINT_CONTENTS
    if data_type == TYPE_INT64:
        return INT64_CONTENTS
    if data_type == TYPE_UINT64:
        return UINT64_CONTENTS
    if data_type == TYPE_BOOL:
        return BOOL_CONTENTS
    if data_type == TYPE_BYTES:
        return BYTES_CONTENTS
    return 0


cdef const char *contents_field_name(int data_type) noexcept nogil:
    return FIELD_NAMES[contents_field(data_type)]


cdef inline void fill_fixed(Filling *filling, const void *values, uint64_t count, uint64_t width) noexcept nogil:
    """Values that lie in the message as they lie in memory."""
    if filling.count + count <= filling.elements:
        memcpy(filling.to + filling.count * width, values, count * width)
    filling.count += count


cdef inline void fill_varint(Filling *filling, uint64_t value) noexcept nogil:
    cdef uint64_t position = filling.count
    cdef uint64_t width = element_bytes(filling.data_type)
    cdef int64_t widened = <int32_t> value
    filling.count += 1
    if position >= filling.elements:
        return
    if filling.data_type == TYPE_BOOL:
        value = value != 0
    elif width < 4:
        if filling.data_type == TYPE_UINT8 or filling.data_type == TYPE_UINT16:
            widened = <uint32_t> value
            if widened < <int64_t> 1 << 8 * width:
                widened = 0
        elif -(<int64_t> 1 << (8 * width - 1)) <= widened < <int64_t> 1 << (8 * width - 1):
            widened = 0
        if widened and not filling.out_of_range_at:
            filling.out_of_range = widened
            filling.out_of_range_at = position + 1
    if width == 8:
        memcpy(filling.to + position * 8, &value, 8)
    elif width == 4:
        memcpy(filling.to + position * 4, &value, 4)
    else:
        memcpy(filling.to + position * width, &value, width)


cdef inline void fill_bytes(Filling *filling, const Span *value) noexcept nogil:
    cdef uint32_t size_bytes = <uint32_t> span_left(value)
    cdef uint64_t start = filling.size_bytes
    filling.count += 1
    filling.size_bytes += <uint64_t> 4 + size_bytes
    if filling.to != NULL and filling.size_bytes <= filling.room_bytes:
        memcpy(filling.to + start, &size_bytes, 4)
        memcpy(filling.to + start + 4, value.at, size_bytes)


cdef bint try_fill_packed(Filling *filling, int number, Span values) noexcept nogil:
    cdef uint64_t value
    cdef uint64_t width = 4 if number == FP32_CONTENTS else 8
    if values.at == values.end:
        return True
    if number != filling.field:
        filling.other = number
    if number == FP32_CONTENTS or number == FP64_CONTENTS:
        if span_left(&values) % width:
            return False
        if number == filling.field:
            fill_fixed(filling, values.at, span_left(&values) // width, width)
        return True
    while values.at < values.end:
        if not try_varint(&values, &value):
            return False
        if number == filling.field:
            fill_varint(filling, value)
    return True


cdef bint try_fill(Filling *filling, Span contents) noexcept nogil:
    """One InferTensorContents. A field of another wire type than its own is passed over like an unknown one."""
    cdef Field field
    cdef int number, wire_type, own
    cdef int step = try_field(&contents, &field, WIRE_DEPTH - 2)
    while step == WIRE_FIELD:
        number = <int> (field.tag >> 3)
        wire_type = field.tag & 7
        if BOOL_CONTENTS <= number <= BYTES_CONTENTS:
            own = WIRE_FIXED32 if number == FP32_CONTENTS else WIRE_FIXED64 if number == FP64_CONTENTS else WIRE_VARINT
            if number == BYTES_CONTENTS:
                if wire_type == WIRE_BYTES:
                    if number == filling.field:
                        fill_bytes(filling, &field.body)
                    else:
                        filling.other = number
            elif wire_type == WIRE_BYTES:
                if not try_fill_packed(filling, number, field.body):
                    return False
            elif wire_type == own:
                if number != filling.field:
                    filling.other = number
                elif own == WIRE_VARINT:
                    fill_varint(filling, field.value)
                else:
                    fill_fixed(filling, &field.value, 1, 4 if own == WIRE_FIXED32 else 8)
        step = try_field(&contents, &field, WIRE_DEPTH - 2)
    return step == WIRE_END


cdef int fill(Filling *filling, const uint8_t *delimited, const Signature *signature, int input,
              ErrorText *error) noexcept nogil:
    """Walks a delimited InferInputTensor and holds what was found against the tensor's type and shape."""
    cdef Span message = span_over(delimited, 5)
    cdef Field field
    cdef uint64_t size_bytes = 0
    cdef int step = WIRE_BAD
    if try_short_varint(&message, 0x7FFFFFFF, &size_bytes):
        message.end = message.at + size_bytes
        step = try_field(&message, &field, WIRE_DEPTH - 1)
        while step == WIRE_FIELD:
            if field.tag == INPUT_CONTENTS and not try_fill(filling, field.body):
                step = WIRE_BAD
                break
            step = try_field(&message, &field, WIRE_DEPTH - 1)
    if step == WIRE_END and not filling.other and not filling.out_of_range_at and filling.count == filling.elements:
        return STATUS_OK
    say_input(error, signature, input)
    if step != WIRE_END:
        say(error, "`contents` is not valid protobuf")
        return STATUS_INTERNAL
    if filling.other:
        say(error, "values came in ")
        say(error, FIELD_NAMES[filling.other])
        say(error, "; send ")
        say(error, data_type_name(filling.data_type))
        say(error, " values in ")
        say(error, FIELD_NAMES[filling.field])
        say(error, " alone, or as raw_input_contents")
    elif filling.count != filling.elements:
        say(error, "expected ")
        say_int(error, <int64_t> filling.elements)
        say(error, " values in ")
        say(error, FIELD_NAMES[filling.field])
        say(error, ", got ")
        say_int(error, <int64_t> filling.count)
        say(error, "; send one value for each element of the shape")
    else:
        say(error, "value ")
        say_int(error, filling.out_of_range)
        say(error, " of element ")
        say_int(error, <int64_t> filling.out_of_range_at - 1)
        say(error, " does not fit ")
        say(error, data_type_name(filling.data_type))
        say(error, "; clip or rescale the data")
    return STATUS_INVALID_ARGUMENT


cdef Filling filling_of(int data_type, uint64_t elements) noexcept nogil:
    cdef Filling filling
    filling.to = NULL
    filling.room_bytes = filling.count = filling.size_bytes = filling.out_of_range_at = 0
    filling.out_of_range = 0
    filling.other = 0
    filling.elements = elements
    filling.data_type = data_type
    filling.field = contents_field(data_type)
    return filling


cdef int decode_contents(const TensorView *view, const Signature *signature, int input, uint8_t *to,
                         ErrorText *error) noexcept nogil:
    cdef uint64_t elements = 1
    cdef Filling filling
    cdef int i
    error.size_bytes = 0
    for i in range(view.rank):
        elements *= <uint64_t> view.shape[i]
    filling = filling_of(view.data_type, elements)
    filling.to = to
    filling.room_bytes = view.size_bytes
    return fill(&filling, <const uint8_t *> address_of(view.data), signature, input, error)


cdef int measure_contents(const uint8_t *at, const Signature *signature, int input, uint64_t elements,
                          uint64_t *size_bytes, ErrorText *error) noexcept nogil:
    cdef Filling filling = filling_of(TYPE_BYTES, elements)
    cdef int status = fill(&filling, at, signature, input, error)
    size_bytes[0] = filling.size_bytes
    return status


cdef int refuse_bytes(const Signature *signature, int input, uint64_t element, uint64_t elements, const char *what,
                      ErrorText *error) noexcept nogil:
    say_input(error, signature, input)
    say(error, what)
    say(error, " at element ")
    say_int(error, <int64_t> element)
    say(error, " of ")
    say_int(error, <int64_t> elements)
    say(error, "; raw BYTES are, for each element, its length as 4 little-endian bytes, then the bytes, nothing after")
    return STATUS_INVALID_ARGUMENT


cdef int check_bytes(Span raw, const Signature *signature, int input, uint64_t elements,
                     ErrorText *error) noexcept nogil:
    cdef uint64_t element
    cdef uint32_t size_bytes
    for element in range(elements):
        if span_left(&raw) < 4:
            return refuse_bytes(signature, input, element, elements, "the data ends", error)
        memcpy(&size_bytes, raw.at, 4)
        raw.at += 4
        if size_bytes > span_left(&raw):
            return refuse_bytes(signature, input, element, elements, "the length goes past the end of the data", error)
        raw.at += size_bytes
    if raw.at != raw.end:
        return refuse_bytes(signature, input, elements, elements, "the data goes on", error)
    return STATUS_OK


cdef int check_bools(Span raw, const Signature *signature, int input, ErrorText *error) noexcept nogil:
    cdef const uint8_t *start = raw.at
    cdef uint64_t word
    while span_left(&raw) >= 8:
        memcpy(&word, raw.at, 8)
        if word & 0xFEFEFEFEFEFEFEFEULL:
            break
        raw.at += 8
    while raw.at < raw.end:
        if raw.at[0] > 1:
            say_input(error, signature, input)
            say(error, "byte ")
            say_int(error, raw.at - start)
            say(error, " is ")
            say_int(error, raw.at[0])
            say(error, ", a BOOL is one byte 0 or 1; send numpy's bool as it is, or compare with 0 first")
            return STATUS_INVALID_ARGUMENT
        raw.at += 1
    return STATUS_OK


cdef int check_raw(const Span *raw, const Signature *signature, int input, uint64_t elements,
                   ErrorText *error) noexcept nogil:
    cdef int data_type = signature.inputs[input].data_type
    if data_type == TYPE_BYTES:
        return check_bytes(raw[0], signature, input, elements, error)
    if data_type == TYPE_BOOL:
        return check_bools(raw[0], signature, input, error)
    return STATUS_OK
