"""What a model file says of itself, read without the `onnx` package and without a runtime.

One walk over the fields of ModelProto and its main graph without the GIL notes where the few that matter lie; only
those become Python objects. Weights are stepped over. Any thread. Source: onnx.proto, ONNX 1.23 (field numbers never
change).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from infer._core.span cimport Span, span_left, span_over
from infer._core.wire cimport WIRE_BYTES, WIRE_DEPTH, WIRE_END, WIRE_FIELD, WIRE_VARINT, Field, try_field

cdef enum Kind:
    PRODUCER
    PRODUCER_VERSION
    DOMAIN
    OPSET                        # OperatorSetIdProto
    METADATA                     # StringStringEntryProto
    INITIALIZER                  # its name
    INPUT                        # ValueInfoProto
    OUTPUT

cdef struct Note:
    Kind kind
    Span body

cdef struct Notes:
    Note *notes
    size_t count
    size_t room
    int64_t ir_version
    int64_t model_version
    int64_t weight_bytes         # raw_data of the main graph's initializers
    bint has_graph
    bint has_zipmap
    bint no_memory


cdef bint add(Notes *found, Kind kind, Span body) noexcept nogil:
    cdef Note *grown
    if found.count == found.room:
        grown = <Note *> realloc(found.notes, (found.room * 2 + 16) * sizeof(Note))
        if grown == NULL:
            found.no_memory = True
            return False
        found.notes = grown
        found.room = found.room * 2 + 16
    found.notes[found.count].kind = kind
    found.notes[found.count].body = body
    found.count += 1
    return True


cdef bint walk_node(Notes *found, Span body) noexcept nogil:
    cdef Field field
    cdef int step = try_field(&body, &field, WIRE_DEPTH)
    while step == WIRE_FIELD:
        if field.tag == (4 << 3 | WIRE_BYTES) and span_left(&field.body) == 6 \
                and memcmp(field.body.at, b"ZipMap", 6) == 0:
            found.has_zipmap = True
        step = try_field(&body, &field, WIRE_DEPTH)
    return step == WIRE_END


cdef bint walk_initializer(Notes *found, Span body) noexcept nogil:
    cdef Field field
    cdef int step = try_field(&body, &field, WIRE_DEPTH)
    while step == WIRE_FIELD:
        if field.tag == (8 << 3 | WIRE_BYTES) and not add(found, INITIALIZER, field.body):
            return False
        if field.tag & 7 == WIRE_BYTES and field.tag >> 3 != 8:
            found.weight_bytes += <int64_t> span_left(&field.body)
        step = try_field(&body, &field, WIRE_DEPTH)
    return step == WIRE_END


cdef bint walk_graph(Notes *found, Span body) noexcept nogil:
    cdef Field field
    cdef bint fine = True
    cdef int step = try_field(&body, &field, WIRE_DEPTH)
    found.has_graph = True
    while step == WIRE_FIELD and fine:
        if field.tag == (1 << 3 | WIRE_BYTES):
            fine = walk_node(found, field.body)
        elif field.tag == (5 << 3 | WIRE_BYTES):
            fine = walk_initializer(found, field.body)
        elif field.tag == (11 << 3 | WIRE_BYTES):
            fine = add(found, INPUT, field.body)
        elif field.tag == (12 << 3 | WIRE_BYTES):
            fine = add(found, OUTPUT, field.body)
        if fine:
            step = try_field(&body, &field, WIRE_DEPTH)
    return fine and step == WIRE_END


cdef bint walk_model(Notes *found, Span body) noexcept nogil:
    """False: malformed or no memory."""
    cdef Field field
    cdef bint fine = True
    cdef int step = try_field(&body, &field, WIRE_DEPTH)
    while step == WIRE_FIELD and fine:
        if field.tag == (1 << 3 | WIRE_VARINT):
            found.ir_version = <int64_t> field.value
        elif field.tag == (5 << 3 | WIRE_VARINT):
            found.model_version = <int64_t> field.value
        elif field.tag == (2 << 3 | WIRE_BYTES):
            fine = add(found, PRODUCER, field.body)
        elif field.tag == (3 << 3 | WIRE_BYTES):
            fine = add(found, PRODUCER_VERSION, field.body)
        elif field.tag == (4 << 3 | WIRE_BYTES):
            fine = add(found, DOMAIN, field.body)
        elif field.tag == (7 << 3 | WIRE_BYTES):
            fine = walk_graph(found, field.body)
        elif field.tag == (8 << 3 | WIRE_BYTES):
            fine = add(found, OPSET, field.body)
        elif field.tag == (14 << 3 | WIRE_BYTES):
            fine = add(found, METADATA, field.body)
        if fine:
            step = try_field(&body, &field, WIRE_DEPTH)
    return fine and step == WIRE_END


cdef bytes bytes_of(Span span):
    return PyBytes_FromStringAndSize(<const char *> span.at, <Py_ssize_t> span_left(&span))


cdef str text_of(Span span):
    return bytes_of(span).decode("utf-8", "replace")


cdef object fields_of(Span body):
    """(number, value) of every field that is a varint or bytes, in order; None if malformed."""
    cdef Field field
    cdef int step = try_field(&body, &field, WIRE_DEPTH)
    found = []
    while step == WIRE_FIELD:
        if field.tag & 7 == WIRE_VARINT:
            found.append((field.tag >> 3, <int64_t> field.value))
        elif field.tag & 7 == WIRE_BYTES:
            found.append((field.tag >> 3, bytes_of(field.body)))
        step = try_field(&body, &field, WIRE_DEPTH)
    return found if step == WIRE_END else None


cdef object inner(bytes body):
    return fields_of(span_over(<const uint8_t *> PyBytes_AS_STRING(body), <size_t> PyBytes_GET_SIZE(body)))


cdef str name_in(object fields, int number):
    for key, value in fields:
        if key == number and isinstance(value, bytes):
            return value.decode("utf-8", "replace")
    return ""


cdef object dims_of(bytes shape):
    """A size, a symbol or None for each dimension; None if malformed."""
    dims = []
    for number, dim in inner(shape) or ():
        if number != 1 or not isinstance(dim, bytes):
            continue
        parts = dict(inner(dim) or ())
        if isinstance(parts.get(1), int):
            dims.append(parts[1])
        else:
            dims.append(name_in(parts.items(), 2) or None)
    return tuple(dims)


cdef object value_info(Span body):
    """(name, kind of type, element type, dims or None); None if malformed."""
    kinds = {1: "tensor", 4: "sequence", 5: "map", 8: "sparse tensor", 9: "optional"}
    fields = fields_of(body)
    if fields is None:
        return None
    kind, element, dims = "", 0, None
    for number, value in fields:
        if number != 2 or not isinstance(value, bytes):
            continue
        for choice, described in inner(value) or ():
            if choice not in kinds or not isinstance(described, bytes):
                continue
            kind = kinds[choice]
            if choice == 1:
                for key, part in inner(described) or ():
                    if key == 1 and isinstance(part, int):
                        element = part
                    elif key == 2 and isinstance(part, bytes):
                        dims = dims_of(part)
    return name_in(fields, 1), kind, element, dims


cdef object pair_of(Span body, int key, int value):
    fields = fields_of(body) or ()
    number = next((part for at, part in fields if at == value and isinstance(part, int)), 0)
    return name_in(fields, key), name_in(fields, value) or number


def onnx_facts(const uint8_t[::1] model not None):
    """The facts by name; None for a file that is not a whole ModelProto.

    Whole means: well-formed to its last byte, with a graph and, after it, the operator sets. A copy that was cut short
    ends inside the graph or before the operator sets.
    """
    cdef Notes found
    cdef Span body = span_over(&model[0] if len(model) else NULL, <size_t> len(model))
    cdef bint whole
    cdef size_t i
    cdef Note note
    found.notes = NULL
    found.count = found.room = 0
    found.ir_version = found.model_version = found.weight_bytes = 0
    found.has_graph = found.has_zipmap = found.no_memory = False
    facts = {"producer": "", "producer_version": "", "domain": ""}
    opsets, metadata, initializers, inputs, outputs = {}, {}, set(), [], []
    names = {PRODUCER: "producer", PRODUCER_VERSION: "producer_version", DOMAIN: "domain"}
    try:
        with nogil:
            whole = walk_model(&found, body)
        if found.no_memory:
            raise MemoryError("no memory to read what the model says of itself")
        if not whole or not found.has_graph:
            return None
        for i in range(found.count):
            note = found.notes[i]
            if note.kind in names:
                facts[names[note.kind]] = text_of(note.body)
            elif note.kind == OPSET:
                domain, version = pair_of(note.body, 1, 2)
                opsets[domain] = version
            elif note.kind == METADATA:
                key, text = pair_of(note.body, 1, 2)
                metadata[key] = text or ""
            elif note.kind == INITIALIZER:
                initializers.add(text_of(note.body))
            else:
                info = value_info(note.body)
                if info is None:
                    return None
                (inputs if note.kind == INPUT else outputs).append(info)
        if not opsets:
            return None
        # Up to IR version 3 every initializer is listed as an input too.
        return facts | {"ir_version": found.ir_version, "model_version": found.model_version, "opsets": opsets,
                        "metadata": metadata, "inputs": [each for each in inputs if each[0] not in initializers],
                        "outputs": outputs, "zipmap": found.has_zipmap, "weight_bytes": found.weight_bytes}
    finally:
        free(found.notes)
