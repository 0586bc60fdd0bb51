"""Sizes are computed by the same walk that writes, so that the writes need no bounds."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, strlen

from infer._core.span cimport Span, span_left
from infer._core.tensor_text cimport data_type_name
from infer._core.tensor_view cimport OutputMask, Signature, TensorSpec, TensorView, mask_has
from infer._core.wire cimport WIRE_BYTES, bytes_field_size, varint_size, write_bytes, write_tag, write_varint


cdef inline uint64_t shape_bytes(const TensorView *tensor, bint batched, int64_t rows) noexcept nogil:
    cdef uint64_t size_bytes = 0
    cdef int i
    for i in range(tensor.rank):
        size_bytes += varint_size(<uint64_t> (rows if batched and i == 0 else tensor.shape[i]))
    return size_bytes


cdef inline uint64_t output_bytes(const TensorSpec *spec, const char *data_type, uint64_t shape_size) noexcept nogil:
    return (bytes_field_size(spec.name_bytes) + bytes_field_size(strlen(data_type))
            + (bytes_field_size(shape_size) if shape_size else 0))


cdef uint64_t response_head_bytes(const Signature *signature, const OutputMask *mask, const OutputSlice *slices,
                                  int64_t rows, uint64_t prefix_bytes, const Span *id) noexcept nogil:
    cdef uint64_t size_bytes = prefix_bytes
    cdef const TensorView *tensor
    cdef int i
    if id.at != id.end:
        size_bytes += bytes_field_size(span_left(id))
    for i in range(signature.n_outputs):
        if mask_has(mask, i):
            tensor = slices[i].tensor
            size_bytes += bytes_field_size(output_bytes(&signature.outputs[i], data_type_name(tensor.data_type),
                                                        shape_bytes(tensor, signature.batched, rows)))
    return size_bytes


cdef uint8_t *encode_identity(uint8_t *to, const uint8_t *prefix, uint64_t prefix_bytes,
                              const Span *id) noexcept nogil:
    if prefix_bytes:
        memcpy(to, prefix, prefix_bytes)
    to += prefix_bytes
    if id.at != id.end:
        to = write_bytes(to, RESPONSE_ID, id.at, span_left(id))
    return to


cdef uint8_t *encode_response_head(uint8_t *to, const Signature *signature, const OutputMask *mask,
                                   const OutputSlice *slices, int64_t rows, const uint8_t *prefix,
                                   uint64_t prefix_bytes, const Span *id) noexcept nogil:
    cdef const TensorSpec *spec
    cdef const TensorView *tensor
    cdef const char *data_type
    cdef uint64_t shape_size
    cdef int i, d
    to = encode_identity(to, prefix, prefix_bytes, id)
    for i in range(signature.n_outputs):
        if not mask_has(mask, i):
            continue
        spec = &signature.outputs[i]
        tensor = slices[i].tensor
        data_type = data_type_name(tensor.data_type)
        shape_size = shape_bytes(tensor, signature.batched, rows)
        to = write_varint(write_tag(to, RESPONSE_OUTPUTS, WIRE_BYTES), output_bytes(spec, data_type, shape_size))
        to = write_bytes(to, OUTPUT_NAME, spec.name, spec.name_bytes)
        to = write_bytes(to, OUTPUT_DATA_TYPE, data_type, strlen(data_type))
        if shape_size:
            to = write_varint(write_tag(to, OUTPUT_SHAPE, WIRE_BYTES), shape_size)
            for d in range(tensor.rank):
                to = write_varint(to, <uint64_t> (rows if signature.batched and d == 0 else tensor.shape[d]))
    return to


cdef uint64_t raw_tag_bytes(uint64_t size_bytes) noexcept nogil:
    return 1 + varint_size(size_bytes)


cdef uint8_t *encode_raw_tag(uint8_t *to, uint64_t size_bytes) noexcept nogil:
    return write_varint(write_tag(to, RESPONSE_RAW, WIRE_BYTES), size_bytes)


cdef bytes encode_prefix(bytes model_name, bytes model_version):
    cdef uint64_t size_bytes = bytes_field_size(len(model_name)) + bytes_field_size(len(model_version))
    cdef bytearray prefix = bytearray(size_bytes)
    cdef uint8_t *to = prefix
    to = write_bytes(to, RESPONSE_MODEL_NAME, <const char *> model_name, len(model_name))
    write_bytes(to, RESPONSE_MODEL_VERSION, <const char *> model_version, len(model_version))
    return bytes(prefix)


cdef bytes encode_text_parameter(bytes name, bytes text):
    cdef uint64_t value_bytes = bytes_field_size(len(text))
    cdef uint64_t entry_bytes = bytes_field_size(len(name)) + bytes_field_size(value_bytes)
    cdef bytearray field = bytearray(bytes_field_size(entry_bytes))
    cdef uint8_t *to = field
    to = write_varint(write_tag(to, RESPONSE_PARAMETERS, WIRE_BYTES), entry_bytes)
    to = write_bytes(to, ENTRY_KEY, <const uint8_t *> <const char *> name, len(name))
    to = write_varint(write_tag(to, ENTRY_VALUE, WIRE_BYTES), value_bytes)
    write_bytes(to, PARAMETER_STRING, <const uint8_t *> <const char *> text, len(text))
    return bytes(field)
