"""Protobuf wire format, read and written field by field; inline throughout.

Reading: `try_field` steps over one field at a time and classes it; a malformed field is WIRE_BAD and ends the message.
Writing: sizes first, then unchecked writes into room that was sized. Source: protobuf.dev, "Encoding".
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from infer._core.span cimport Span

cdef enum WireType:
    WIRE_VARINT = 0
    WIRE_FIXED64 = 1
    WIRE_BYTES = 2
    WIRE_GROUP = 3
    WIRE_GROUP_END = 4
    WIRE_FIXED32 = 5
