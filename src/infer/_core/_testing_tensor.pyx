"""The codec as tests and the micro-benchmark call it. A Codec owns one signature and one InferMessage, used again and
again as the server does; requests lie in Python's memory, which arena offsets reach as well as the arena's own.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from infer._core cimport grpc_message, tensor_text, utf8, wire
from infer._core.arena cimport at
from infer._core.span cimport Span, span_left, span_over
from infer._core.tensor cimport Binding, ErrorText, InferMessage, OutputSlice, bind_inputs
from infer._core.tensor cimport data_type_name as name_of_type
from infer._core.tensor cimport decode_contents, decode_request, encode_prefix, encode_raw_tag, encode_response_head
from infer._core.tensor cimport message_free, message_init, raw_tag_bytes, response_head_bytes
from infer._core.tensor_view cimport FORM_TYPED, MAX_OUTPUTS, MAX_RANK, TYPE_COUNT, TYPE_NONE, OutputMask, Signature
from infer._core.tensor_view cimport TensorSpec, TensorView, mask_add, mask_has
from infer._core.wire cimport Field


cdef int64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


cdef bytes taken(const Span *span):
    return (<const char *> span.at)[:span_left(span)] if span.at != span.end else b""


cdef tuple refusal(int status, const ErrorText *error):
    assert error.text[error.size_bytes] == 0
    return status, error.text[:error.size_bytes].decode()


cdef int type_named(str name) except -1:
    cdef int data_type
    for data_type in range(1, <int> TYPE_COUNT):
        if name_of_type(data_type) == <bytes> name.encode():
            return data_type
    raise ValueError(name)


cdef class Codec:
    cdef Signature signature
    cdef InferMessage message
    cdef ErrorText error
    cdef TensorView *views
    cdef list names

    def __cinit__(self):
        memset(&self.signature, 0, sizeof(Signature))
        message_init(&self.message)
        self.views = NULL

    def __init__(self, str model, inputs, outputs, bint batched=False, int64_t max_rows=1024):
        self.names = [model.encode()]
        self.signature.model = <bytes> self.names[0]
        self.signature.batched = batched
        self.signature.max_rows = max_rows
        self.signature.n_inputs = len(inputs)
        self.signature.n_outputs = len(outputs)
        self.signature.inputs = <TensorSpec *> calloc(len(inputs) + 1, sizeof(TensorSpec))
        self.signature.outputs = <TensorSpec *> calloc(len(outputs) + 1, sizeof(TensorSpec))
        self.views = <TensorView *> calloc(len(inputs) + 1, sizeof(TensorView))
        if self.signature.inputs == NULL or self.signature.outputs == NULL or self.views == NULL:
            raise MemoryError
        for i, (name, data_type, shape, optional) in enumerate(inputs):
            self.fill_spec(&self.signature.inputs[i], name, data_type, shape)
            self.signature.inputs[i].optional = optional
            self.signature.inputs[i].served = 1
        for i, (name, data_type, served) in enumerate(outputs):
            self.fill_spec(&self.signature.outputs[i], name, data_type, None)
            self.signature.outputs[i].served = served

    def __dealloc__(self):
        free(self.signature.inputs)
        free(self.signature.outputs)
        free(self.views)
        message_free(&self.message)

    cdef int fill_spec(self, TensorSpec *spec, str name, str data_type, shape) except -1:
        cdef bytes encoded = name.encode()
        self.names.append(encoded)
        spec.name = encoded
        spec.name_bytes = len(encoded)
        spec.data_type = type_named(data_type)
        spec.rank = -1 if shape is None else len(shape)
        for i, dimension in enumerate(shape or ()):
            spec.shape[i] = dimension
        return 0

    def decode(self, bytes request):
        cdef const uint8_t *data = <const uint8_t *> <const char *> request
        cdef int status = decode_request(data, len(request), &self.message, &self.error)
        cdef InferMessage *message = &self.message
        if status:
            return refusal(status, &self.error)
        return {
            "model_name": taken(&message.model_name),
            "model_version": taken(&message.model_version),
            "id": taken(&message.id),
            "inputs": [
                (taken(&message.inputs[i].name), taken(&message.inputs[i].data_type),
                 [message.inputs[i].shape[d] for d in range(min(message.inputs[i].rank, <int> MAX_RANK))],
                 message.inputs[i].rank, bool(message.inputs[i].has_contents))
                for i in range(message.n_inputs)
            ],
            "outputs": [taken(&message.outputs[i]) for i in range(message.n_outputs)],
            "raw": [taken(&message.raw[i]) for i in range(message.n_raw)],
            "priority": message.priority,
            "timeout_us": message.timeout_us,
            "sequence": bool(message.sequence),
            "cache": ("", "no-cache", "no-store")[message.cache_use],
            "max_age_ns": message.max_age_ns,
        }

    def bind(self, bytes request):
        """The request as the model would get it: a (type, shape, raw bytes) for each of its inputs."""
        cdef Binding binding
        cdef TensorView *view
        cdef bytearray room
        cdef int i
        cdef const uint8_t *data = <const uint8_t *> <const char *> request
        cdef int status = decode_request(data, len(request), &self.message, &self.error)
        status = status or bind_inputs(&self.message, &self.signature, self.views, &binding, &self.error)
        if status:
            return refusal(status, &self.error)
        tensors = []
        typed_bytes = 0
        for i in range(self.signature.n_inputs):
            view = &self.views[i]
            if view.data_type == TYPE_NONE:
                tensors.append(None)
                continue
            raw = bytearray(view.size_bytes)
            if view.form == FORM_TYPED:
                # One byte more on either side shows a write outside the room.
                room = bytearray(b"\x5a" * (view.size_bytes + 2))
                status = decode_contents(view, &self.signature, i, <uint8_t *> <char *> room + 1, &self.error)
                assert room[0] == room[view.size_bytes + 1] == 0x5A
                if status:
                    return refusal(status, &self.error)
                raw = room[1:view.size_bytes + 1]
                typed_bytes += view.size_bytes
            elif view.size_bytes:
                memcpy(<char *> raw, at(view.data), view.size_bytes)
            tensors.append((name_of_type(view.data_type).decode(), tuple(view.shape[d] for d in range(view.rank)),
                            bytes(raw)))
        assert typed_bytes == binding.typed_bytes
        return {
            "tensors": tensors,
            "rows": binding.rows,
            "outputs": [i for i in range(self.signature.n_outputs) if mask_has(&binding.outputs, i)],
            "shape_hash": binding.shape_hash,
            "typed_bytes": binding.typed_bytes,
            "deferred": bool(binding.deferred),
        }

    cdef int fill_slices(self, dict outputs, OutputSlice *slices, TensorView *tensors, OutputMask *mask) except -1:
        memset(mask, 0, sizeof(OutputMask))
        for i, (data_type, shape, data) in outputs.items():
            tensors[<int> i].data_type = type_named(data_type)
            tensors[<int> i].rank = len(shape)
            for d, dimension in enumerate(shape):
                tensors[<int> i].shape[<int> d] = dimension
            slices[<int> i].tensor = &tensors[<int> i]
            slices[<int> i].data = <const uint8_t *> <const char *> <bytes> data
            slices[<int> i].size_bytes = len(data)
            mask_add(mask, i)
        return 0

    def encode(self, bytes model_name, bytes model_version, bytes request_id, dict outputs, int64_t rows=1):
        cdef OutputSlice[MAX_OUTPUTS] slices
        cdef TensorView[MAX_OUTPUTS] tensors
        cdef OutputMask mask
        cdef bytes prefix = encode_prefix(model_name, model_version)
        cdef Span id = span_over(<const uint8_t *> <const char *> request_id, len(request_id))
        cdef uint64_t head_bytes, size_bytes
        cdef bytearray response
        cdef uint8_t *start
        cdef uint8_t *to
        cdef int i
        self.fill_slices(outputs, slices, tensors, &mask)
        head_bytes = size_bytes = response_head_bytes(&self.signature, &mask, slices, rows, len(prefix), &id)
        for i in outputs:
            size_bytes += raw_tag_bytes(slices[i].size_bytes) + slices[i].size_bytes
        response = bytearray(size_bytes)
        start = <uint8_t *> <char *> response
        to = encode_response_head(start, &self.signature, &mask, slices, rows, <const uint8_t *> <const char *> prefix,
                                  len(prefix), &id)
        assert <uint64_t> (to - start) == head_bytes
        for i in sorted(outputs):
            to = encode_raw_tag(to, slices[i].size_bytes)
            memcpy(to, slices[i].data, slices[i].size_bytes)
            to += slices[i].size_bytes
        assert <uint64_t> (to - start) == size_bytes
        return bytes(response)

    def time_bind(self, bytes request, int64_t rounds):
        """Nanoseconds of `rounds` readings and bindings of `request`."""
        cdef Binding binding
        cdef const uint8_t *data = <const uint8_t *> <const char *> request
        cdef uint64_t size_bytes = len(request)
        cdef int64_t _round
        cdef int status = 0
        cdef int64_t start = now_ns()
        with nogil:
            for _round in range(rounds):
                status |= decode_request(data, size_bytes, &self.message, &self.error)
                status |= bind_inputs(&self.message, &self.signature, self.views, &binding, &self.error)
        assert status == 0
        return now_ns() - start

    def time_contents(self, bytes request, int64_t rounds):
        """Nanoseconds of `rounds` decodings of the first input's typed contents."""
        cdef bytearray room
        cdef uint8_t *to
        cdef int64_t _round
        cdef int status = 0
        cdef int64_t start
        self.time_bind(request, 1)
        assert self.views[0].form == FORM_TYPED
        room = bytearray(self.views[0].size_bytes)
        to = <uint8_t *> <char *> room
        start = now_ns()
        with nogil:
            for _round in range(rounds):
                status |= decode_contents(&self.views[0], &self.signature, 0, to, &self.error)
        assert status == 0
        return now_ns() - start

    def time_encode(self, bytes request_id, dict outputs, int64_t rounds):
        """Nanoseconds of `rounds` sizings and writings of a reply's head and the outputs' tags."""
        cdef OutputSlice[MAX_OUTPUTS] slices
        cdef TensorView[MAX_OUTPUTS] tensors
        cdef OutputMask mask
        cdef bytes prefix = encode_prefix(self.names[0], b"1")
        cdef const uint8_t *prefix_data = <const uint8_t *> <const char *> prefix
        cdef uint64_t prefix_bytes = len(prefix)
        cdef Span id = span_over(<const uint8_t *> <const char *> request_id, len(request_id))
        cdef int64_t _round
        cdef int i
        cdef uint64_t head_bytes = 0
        cdef uint64_t written = 0
        cdef bytearray room
        cdef uint8_t *start
        cdef uint8_t *to
        cdef int64_t started
        self.fill_slices(outputs, slices, tensors, &mask)
        room = bytearray(response_head_bytes(&self.signature, &mask, slices, 1, prefix_bytes, &id) + 16 * len(outputs))
        start = <uint8_t *> <char *> room
        started = now_ns()
        with nogil:
            for _round in range(rounds):
                head_bytes += response_head_bytes(&self.signature, &mask, slices, 1, prefix_bytes, &id)
                to = encode_response_head(start, &self.signature, &mask, slices, 1, prefix_data, prefix_bytes, &id)
                written += <uint64_t> (to - start)
                for i in range(self.signature.n_outputs):
                    if mask_has(&mask, i):
                        to = encode_raw_tag(to, slices[i].size_bytes)
        assert head_bytes == written
        return now_ns() - started


def read_fields(bytes message, int depth=wire.WIRE_DEPTH):
    """(number, wire type, value) of every field; a group's value is None. None: malformed."""
    cdef Span span = span_over(<const uint8_t *> <const char *> message, len(message))
    cdef Field field
    cdef int step = wire.try_field(&span, &field, depth)
    fields = []
    while step == wire.WIRE_FIELD:
        value = field.value
        if field.tag & 7 == wire.WIRE_BYTES:
            value = taken(&field.body)
        elif field.tag & 7 == wire.WIRE_GROUP:
            value = None
        fields.append((field.tag >> 3, field.tag & 7, value))
        step = wire.try_field(&span, &field, depth)
    return fields if step == wire.WIRE_END else None


def read_varint(bytes message):
    """(value, bytes read), or None: malformed."""
    cdef Span span = span_over(<const uint8_t *> <const char *> message, len(message))
    cdef uint64_t value
    if not wire.try_varint(&span, &value):
        return None
    return value, len(message) - span_left(&span)


def write_varint(uint64_t value):
    cdef uint8_t[10] room
    cdef uint64_t size_bytes = <uint64_t> (wire.write_varint(room, value) - room)
    assert size_bytes == wire.varint_size(value)
    return (<const char *> room)[:size_bytes]


def write_bytes(uint32_t number, bytes data):
    cdef bytearray room = bytearray(len(data) + 20)
    cdef uint8_t *start = <uint8_t *> <char *> room
    cdef uint64_t size_bytes = <uint64_t> (wire.write_bytes(start, number, <const char *> data, len(data)) - start)
    assert number > 15 or size_bytes == wire.bytes_field_size(len(data))
    return bytes(room[:size_bytes])


def is_utf8(bytes text):
    cdef Span span = span_over(<const uint8_t *> <const char *> text, len(text))
    return bool(utf8.is_utf8(&span))


def data_type_of(bytes name):
    cdef Span span = span_over(<const uint8_t *> <const char *> name, len(name))
    return tensor_text.data_type_of(&span)


def data_type_name(int data_type):
    return name_of_type(data_type).decode()


def say(list pieces):
    """An error text of pieces: str as text, int as a number, bytes as a foreign name."""
    cdef ErrorText error
    tensor_text.clear_error(&error)
    for piece in pieces:
        if isinstance(piece, int):
            tensor_text.say_int(&error, piece)
        elif isinstance(piece, bytes):
            tensor_text.say_name(&error, <const uint8_t *> <const char *> <bytes> piece, len(piece))
        else:
            encoded = piece.encode()
            tensor_text.say(&error, <bytes> encoded)
    return refusal(0, &error)[1]


def parse_timeout(bytes text):
    return grpc_message.parse_timeout(<const uint8_t *> <const char *> text, len(text))


def percent_encode(bytes text):
    cdef bytearray room = bytearray(3 * len(text) + 1)
    cdef uint8_t *to = <uint8_t *> <char *> room
    cdef uint64_t size_bytes = grpc_message.percent_encode(<const uint8_t *> <const char *> text, len(text), to)
    return bytes(room[:size_bytes])


def read_prefix(bytes prefix):
    """(length, compressed flag)"""
    cdef uint8_t compressed
    assert len(prefix) == grpc_message.PREFIX_BYTES
    length = grpc_message.prefix_length(<const uint8_t *> <const char *> prefix, &compressed)
    return length, compressed


def time_fields(bytes message, int64_t rounds):
    """Nanoseconds of `rounds` walks over the fields of `message`."""
    cdef const uint8_t *data = <const uint8_t *> <const char *> message
    cdef uint64_t size_bytes = len(message)
    cdef uint64_t fields = 0
    cdef Span span
    cdef Field field
    cdef int64_t _round
    cdef int64_t start = now_ns()
    with nogil:
        for _round in range(rounds):
            span = span_over(data, size_bytes)
            while wire.try_field(&span, &field, wire.WIRE_DEPTH) == wire.WIRE_FIELD:
                fields += field.tag
    assert rounds == 0 or fields
    return now_ns() - start


def time_utf8(bytes text, int64_t rounds):
    """Nanoseconds of `rounds` validations of `text`."""
    cdef const uint8_t *data = <const uint8_t *> <const char *> text
    cdef uint64_t size_bytes = len(text)
    cdef int64_t valid = 0
    cdef Span span
    cdef int64_t _round
    cdef int64_t start = now_ns()
    with nogil:
        for _round in range(rounds):
            span = span_over(data, size_bytes)
            valid += utf8.is_utf8(&span)
    assert valid == rounds
    return now_ns() - start


def time_timeout(bytes text, int64_t rounds):
    """Nanoseconds of `rounds` readings of a grpc-timeout."""
    cdef const uint8_t *data = <const uint8_t *> <const char *> text
    cdef uint64_t size_bytes = len(text)
    cdef uint64_t total = 0
    cdef int64_t _round
    cdef int64_t start = now_ns()
    with nogil:
        for _round in range(rounds):
            total += <uint64_t> grpc_message.parse_timeout(data, size_bytes)
    assert total % 2 == 0
    return now_ns() - start


def time_percent_encode(bytes text, int64_t rounds):
    """Nanoseconds of `rounds` encodings of a grpc-message."""
    cdef const uint8_t *data = <const uint8_t *> <const char *> text
    cdef uint64_t size_bytes = len(text)
    cdef bytearray room = bytearray(3 * len(text) + 1)
    cdef uint8_t *to = <uint8_t *> <char *> room
    cdef uint64_t total = 0
    cdef int64_t _round
    cdef int64_t start = now_ns()
    with nogil:
        for _round in range(rounds):
            total += grpc_message.percent_encode(data, size_bytes, to)
    assert total >= rounds * size_bytes
    return now_ns() - start


def write_prefix(uint32_t size_bytes):
    cdef uint8_t[5] prefix
    grpc_message.write_prefix(prefix, size_bytes)
    return (<const char *> prefix)[:grpc_message.PREFIX_BYTES]
