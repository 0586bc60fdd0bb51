"""Protobuf wire format, read and written field by field; inline throughout.

Reading: `try_field` steps over one field at a time and classes it; a malformed field is WIRE_BAD and ends the message.
It accepts and refuses exactly what protobuf's own C parser does: bits past the 64th of a varint are dropped, a tag or a
length takes five bytes at most, a known field of another wire type is for the caller to ignore like an unknown one.
Writing: sizes first, then unchecked writes into room that was sized. Source: protobuf.dev, "Encoding".
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from infer._core.span cimport Span, try_take

cdef extern from * nogil:
    bint likely(bint condition)
    int __builtin_clzll(unsigned long long value)

cdef enum WireType:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    WIRE_GROUP = 3
    WIRE_GROUP_END = 4
    WIRE_FIXED32 = 5

cdef enum WireStep:
    WIRE_BAD = -1
    WIRE_END = 0
    WIRE_FIELD = 1

cdef enum:
    WIRE_DEPTH = 100             # groups and submessages inside each other that a message may have

cdef struct Field:
    uint32_t tag                 # number << 3 | wire type
    uint64_t value               # of a varint or fixed field, zero-extended
    Span body                    # of a WIRE_BYTES field

cdef inline bint try_varint(Span *span, uint64_t *value) noexcept nogil:
    cdef uint64_t result, byte
    cdef int shift = 7
    if likely(span.at < span.end and span.at[0] < 0x80):
        value[0] = span.at[0]
        span.at += 1
        return True
    if span.at == span.end:
        return False
    result = span.at[0] & 0x7F
    span.at += 1
    while span.at < span.end and shift < 70:
        byte = span.at[0]
        span.at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = result
            return True
        shift += 7
    return False

# A varint of at most five bytes and at most `limit`: tags and lengths.
cdef inline bint try_short_varint(Span *span, uint64_t limit, uint64_t *value) noexcept nogil:
    cdef const uint8_t *start = span.at
    return try_varint(span, value) and span.at - start <= 5 and value[0] <= limit

# Steps over a group whose start tag has been read; `depth` is how many groups may be open, this one included. Inside an
# unknown group nobody minds the number 0.
cdef inline bint skip_group(Span *span, uint32_t number, int depth) noexcept nogil:
    cdef uint32_t[WIRE_DEPTH] open_numbers
    cdef int n_open = 1
    cdef uint64_t tag, value
    cdef Span part
    if depth < 1:
        return False
    open_numbers[0] = number
    while n_open:
        if not try_short_varint(span, 0xFFFFFFFFU, &tag):
            return False
        if tag & 7 == WIRE_GROUP:
            if n_open == depth:
                return False
            open_numbers[n_open] = <uint32_t> (tag >> 3)
            n_open += 1
        elif tag & 7 == WIRE_GROUP_END:
            n_open -= 1
            if open_numbers[n_open] != tag >> 3:
                return False
        elif tag & 7 == WIRE_VARINT:
            if not try_varint(span, &value):
                return False
        elif tag & 7 == WIRE_BYTES:
            if not try_short_varint(span, 0x7FFFFFFF, &value) or not try_take(span, value, &part):
                return False
        elif tag & 7 > WIRE_FIXED32 or not try_take(span, 8 if tag & 7 == WIRE_FIXED64 else 4, &part):
            return False
    return True

# Reads the next field and steps over it; a group is skipped whole. `depth`: WIRE_DEPTH less the submessages around it.
cdef inline int try_field(Span *message, Field *field, int depth) noexcept nogil:
    cdef uint64_t tag, size_bytes
    cdef Span part
    if message.at == message.end:
        return WIRE_END
    if not try_short_varint(message, 0xFFFFFFFFU, &tag) or tag < 8:
        return WIRE_BAD
    field.tag = <uint32_t> tag
    if likely(tag & 7 == WIRE_BYTES):
        if not try_short_varint(message, 0x7FFFFFFF, &size_bytes) or not try_take(message, size_bytes, &field.body):
            return WIRE_BAD
    elif tag & 7 == WIRE_VARINT:
        if not try_varint(message, &field.value):
            return WIRE_BAD
    elif tag & 7 == WIRE_FIXED64 or tag & 7 == WIRE_FIXED32:
        size_bytes = 8 if tag & 7 == WIRE_FIXED64 else 4
        field.value = 0
        if not try_take(message, size_bytes, &part):
            return WIRE_BAD
        memcpy(&field.value, part.at, size_bytes)
    elif tag & 7 != WIRE_GROUP or not skip_group(message, field.tag >> 3, depth):
        return WIRE_BAD
    return WIRE_FIELD

cdef inline uint64_t varint_size(uint64_t value) noexcept nogil:
    return <uint64_t> ((64 - __builtin_clzll(value | 1)) * 9 + 64) >> 6

cdef inline uint8_t *write_varint(uint8_t *to, uint64_t value) noexcept nogil:
    while value >= 0x80:
        to[0] = <uint8_t> (value | 0x80)
        to += 1
        value >>= 7
    to[0] = <uint8_t> value
    return to + 1

cdef inline uint8_t *write_tag(uint8_t *to, uint32_t number, uint32_t wire_type) noexcept nogil:
    return write_varint(to, (<uint64_t> number << 3) | wire_type)

# A whole WIRE_BYTES field whose number is below 16, and its size.
cdef inline uint64_t bytes_field_size(uint64_t size_bytes) noexcept nogil:
    return 1 + varint_size(size_bytes) + size_bytes

cdef inline uint8_t *write_bytes(uint8_t *to, uint32_t number, const void *data, uint64_t size_bytes) noexcept nogil:
    to = write_varint(write_tag(to, number, WIRE_BYTES), size_bytes)
    if size_bytes:
        memcpy(to, data, size_bytes)
    return to + size_bytes
