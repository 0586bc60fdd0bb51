"""Where a model file says that its weights lie outside it, read without the `onnx` package.

Walks the ModelProto down to every TensorProto there is, subgraphs and functions included. Any thread; the walk runs
without the GIL over bytes that the caller holds. Source: onnx.proto, ONNX 1.23 (field numbers never change).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc

from infer._core.span cimport Span, span_left, span_over
from infer._core.wire cimport WIRE_BYTES, WIRE_DEPTH, WIRE_END, WIRE_FIELD, Field, try_field

cdef enum Message:
    OTHER = 0                    # not looked into
    MODEL
    TRAINING
    FUNCTION
    GRAPH
    NODE
    ATTRIBUTE
    SPARSE_TENSOR
    TENSOR
    ENTRY                        # StringStringEntryProto of TensorProto.external_data

# Key and value of one entry; `tensor` numbers the TensorProtos that have any.
cdef struct Entry:
    int32_t tensor
    Span key
    Span value

cdef struct Found:
    Entry *entries
    size_t count
    size_t room
    int32_t tensors
    bint no_memory


cdef Message inside(Message outer, uint32_t number) noexcept nogil:
    """What field `number` of `outer` holds."""
    if outer == GRAPH:
        return NODE if number == 1 else TENSOR if number == 5 else SPARSE_TENSOR if number == 15 else OTHER
    if outer == NODE:
        return ATTRIBUTE if number == 5 else OTHER
    if outer == ATTRIBUTE:
        if number == 5 or number == 10:
            return TENSOR
        if number == 6 or number == 11:
            return GRAPH
        return SPARSE_TENSOR if number == 22 or number == 23 else OTHER
    if outer == TENSOR:
        return ENTRY if number == 13 else OTHER
    if outer == SPARSE_TENSOR:
        return TENSOR if number == 1 or number == 2 else OTHER
    if outer == FUNCTION:
        return NODE if number == 7 else ATTRIBUTE if number == 11 else OTHER
    if outer == MODEL:
        return GRAPH if number == 7 else TRAINING if number == 20 else FUNCTION if number == 25 else OTHER
    if outer == TRAINING:
        return GRAPH if number == 1 or number == 2 else OTHER
    return OTHER


cdef bint add_entry(Found *found, Span body, int depth) noexcept nogil:
    cdef Entry *grown
    cdef Entry entry
    cdef Field field
    cdef int step = try_field(&body, &field, depth)
    entry.tensor = found.tensors
    entry.key = span_over(body.at, 0)
    entry.value = entry.key
    while step == WIRE_FIELD:
        if field.tag == (1 << 3 | WIRE_BYTES):
            entry.key = field.body
        elif field.tag == (2 << 3 | WIRE_BYTES):
            entry.value = field.body
        step = try_field(&body, &field, depth)
    if step != WIRE_END:
        return False
    if found.count == found.room:
        grown = <Entry *> realloc(found.entries, (found.room * 2 + 16) * sizeof(Entry))
        if grown == NULL:
            found.no_memory = True
            return False
        found.entries = grown
        found.room = found.room * 2 + 16
    found.entries[found.count] = entry
    found.count += 1
    return True


cdef bint walk(Message message, Span body, Found *found, int depth) noexcept nogil:
    """False: malformed, nested too deep, or no memory."""
    cdef Field field
    cdef Message part
    cdef int step
    if depth <= 0:
        return False
    step = try_field(&body, &field, depth)
    while step == WIRE_FIELD:
        part = inside(message, field.tag >> 3) if field.tag & 7 == WIRE_BYTES else OTHER
        if part == ENTRY:
            if not add_entry(found, field.body, depth - 1):
                return False
        elif part != OTHER and not walk(part, field.body, found, depth - 1):
            return False
        step = try_field(&body, &field, depth)
    if message == TENSOR and found.count and found.entries[found.count - 1].tensor == found.tensors:
        found.tensors += 1
    return step == WIRE_END


cdef str text_of(Span span):
    return PyBytes_FromStringAndSize(<const char *> span.at, <Py_ssize_t> span_left(&span)).decode("utf-8", "replace")


def external_entries(const uint8_t[::1] model not None):
    """For each tensor that lies outside the file the (key, value) pairs that say where; None for a malformed model."""
    cdef Found found
    cdef Span body = span_over(&model[0] if len(model) else NULL, <size_t> len(model))
    cdef bint whole
    cdef size_t i
    found.entries = NULL
    found.count = found.room = 0
    found.tensors = 0
    found.no_memory = False
    try:
        with nogil:
            whole = walk(MODEL, body, &found, WIRE_DEPTH)
        if found.no_memory:
            raise MemoryError("no memory to read the model's external data")
        if not whole:
            return None
        tensors = [[] for _ in range(found.tensors)]
        for i in range(found.count):
            tensors[found.entries[i].tensor].append((text_of(found.entries[i].key), text_of(found.entries[i].value)))
        return tensors
    finally:
        free(found.entries)
