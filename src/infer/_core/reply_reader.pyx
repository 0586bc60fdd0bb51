"""Encoded replies, read again. See reply_reader.pxd.

A field lies in one segment, but that the contents of an output may be the whole of the segment behind its length.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcmp

from infer._core.grpc_message cimport PREFIX_BYTES
from infer._core.span cimport span_left, span_over, try_take
from infer._core.tensor_encode cimport OUTPUT_DATA_TYPE, OUTPUT_NAME, OUTPUT_SHAPE, RESPONSE_OUTPUTS, RESPONSE_RAW
from infer._core.tensor_text cimport data_type_of
from infer._core.tensor_view cimport MAX_OUTPUTS, MAX_RANK, TYPE_NONE
from infer._core.wire cimport WIRE_BYTES, WIRE_DEPTH, WIRE_FIELD, Field, try_field, try_short_varint, try_varint


cdef bint read_output(Span message, Span *name, Output *output) noexcept nogil:
    cdef Field field
    cdef uint64_t size = 0
    output.data_type = TYPE_NONE
    output.rank = 0
    output.size_bytes = 0
    output.data = message.at
    while try_field(&message, &field, WIRE_DEPTH) == WIRE_FIELD:
        if field.tag == (OUTPUT_NAME << 3 | WIRE_BYTES):
            name[0] = field.body
        elif field.tag == (OUTPUT_DATA_TYPE << 3 | WIRE_BYTES):
            output.data_type = data_type_of(&field.body)
        elif field.tag == (OUTPUT_SHAPE << 3 | WIRE_BYTES):
            while span_left(&field.body) > 0:
                if output.rank == MAX_RANK or not try_varint(&field.body, &size):
                    return False
                output.shape[output.rank] = <int64_t> size
                output.rank += 1
    return message.at == message.end


cdef bint read_outputs(Span rest, const Segment *segments, int n_segments, ReplyOutputs *reply) noexcept nogil:
    """`rest`: of the first segment."""
    cdef Span body
    cdef uint64_t tag = 0
    cdef uint64_t size = 0
    cdef int32_t contents = 0
    cdef int at = 0
    reply.count = 0
    while True:
        if span_left(&rest) == 0:
            at += 1
            if at == n_segments:
                return contents == reply.count
            rest = span_over(segments[at].data, segments[at].size_bytes)
            continue
        if not try_short_varint(&rest, 0xFFFFFFFFU, &tag) or tag & 7 != WIRE_BYTES:
            return False
        if not try_short_varint(&rest, 0xFFFFFFFFU, &size):
            return False
        if span_left(&rest) == 0 and size > 0:
            at += 1
            if at == n_segments or segments[at].size_bytes != size:
                return False
            rest = span_over(segments[at].data, size)
        if not try_take(&rest, size, &body):
            return False
        if tag >> 3 == RESPONSE_OUTPUTS:
            if reply.count == MAX_OUTPUTS:
                return False
            reply.names[reply.count] = span_over(NULL, 0)
            if not read_output(body, &reply.names[reply.count], &reply.outputs[reply.count]):
                return False
            reply.count += 1
        elif tag >> 3 == RESPONSE_RAW:
            if contents == reply.count:
                return False
            reply.outputs[contents].data = body.at
            reply.outputs[contents].size_bytes = size
            contents += 1


cdef bint read_reply(const Segment *segments, int n_segments, ReplyOutputs *reply) noexcept nogil:
    if n_segments == 0 or segments[0].size_bytes < PREFIX_BYTES:
        return False
    return read_outputs(span_over(segments[0].data + PREFIX_BYTES, segments[0].size_bytes - PREFIX_BYTES), segments,
                        n_segments, reply)


cdef bint read_tail(const uint8_t *tail, uint64_t size_bytes, ReplyOutputs *reply) noexcept nogil:
    return read_outputs(span_over(tail, size_bytes), NULL, 1, reply)


cdef const Output *output_named(const ReplyOutputs *reply, const char *name, uint64_t name_bytes) noexcept nogil:
    cdef int32_t i
    for i in range(reply.count):
        if span_left(&reply.names[i]) == name_bytes and memcmp(reply.names[i].at, name, name_bytes) == 0:
            return &reply.outputs[i]
    return NULL
