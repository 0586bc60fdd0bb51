"""The codec against google.protobuf: what one writes the other reads, and both refuse the same bytes.

`judged` and `bound` are the rules once more, over google.protobuf's message and Python's integers. Where they and the
codec may differ is one thing: `contents` is read when its tensor is decoded, so that a request which is malformed there
and breaks a rule elsewhere is refused for the rule.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from infer._core import _testing_tensor as core
from infer._core._testing_tensor import Codec
from tests.support.protos import message_class, parse
from tests.support.requests import CONTENTS, FORMATS, add_raw, add_typed, infer_request, pack

OK, INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 0, 3, 12, 13
RANGES = {name: (-(1 << bits - 1), (1 << bits - 1) - 1) for bits, name in
          ((8, "INT8"), (16, "INT16"), (32, "INT32"), (64, "INT64"))}
RANGES |= {name: (0, (1 << bits) - 1) for bits, name in
           ((8, "UINT8"), (16, "UINT16"), (32, "UINT32"), (64, "UINT64"), (16, "FP16"), (16, "BF16"))}

MANY = settings(max_examples=400)


@dataclass
class Model:
    inputs: list[tuple[str, str, tuple[int, ...] | None, bool]]
    outputs: list[tuple[str, str, bool]]
    batched: bool
    max_rows: int

    def codec(self) -> Codec:
        return Codec("m", self.inputs, self.outputs, self.batched, self.max_rows)


def judged(request: Any) -> int:
    """The status of the rules that need no model."""
    tensors = [*request.inputs, *request.outputs]
    if len(request.id.encode()) > 1024:
        return INVALID_ARGUMENT
    if any("shared_memory_region" in tensor.parameters for tensor in tensors):
        return UNIMPLEMENTED
    if any("classification" in output.parameters for output in request.outputs):
        return UNIMPLEMENTED
    if request.raw_input_contents:
        if any(tensor.HasField("contents") for tensor in request.inputs):
            return INVALID_ARGUMENT
        if len(request.raw_input_contents) != len(request.inputs):
            return INVALID_ARGUMENT
    for key, members in (("priority", ("int64_param", "uint64_param")), ("timeout", ("int64_param",))):
        if key in request.parameters:
            member = request.parameters[key].WhichOneof("parameter_choice")
            if member not in members or getattr(request.parameters[key], member) < 0:
                return INVALID_ARGUMENT
    return OK


def elements_of_raw_bytes(data: bytes) -> int | None:
    """How many length-prefixed elements `data` is; None: it is not."""
    count = at = 0
    while at < len(data):
        if len(data) - at < 4:
            return None
        at += 4 + struct.unpack_from("<I", data, at)[0]
        count += 1
    return count if at == len(data) else None


def raw_data(data_type: str, elements: int, data: bytes) -> bytes | None:
    if data_type == "BYTES":
        return data if elements_of_raw_bytes(data) == elements else None
    if data_type == "BOOL" and max(data, default=0) > 1:
        return None
    return data if len(data) == elements * struct.calcsize(FORMATS[data_type]) else None


def typed_data(data_type: str, elements: int, tensor: Any) -> bytes | None:
    if data_type not in CONTENTS:
        return None if tensor.HasField("contents") or elements else b""
    present = [field.name for field, _ in tensor.contents.ListFields()]
    values = getattr(tensor.contents, CONTENTS[data_type])
    if any(name != CONTENTS[data_type] for name in present) or len(values) != elements:
        return None
    low, high = RANGES.get(data_type, (None, None))
    if low is not None and not all(low <= value <= high for value in values):
        return None
    return pack(data_type, values)


def bound(model: Model, request: Any) -> list[Any] | None:
    """The tensors of a request that follows every rule; None for one that does not."""
    specs = {spec[0]: (position, spec) for position, spec in enumerate(model.inputs)}
    tensors: list[Any] = [None] * len(model.inputs)
    rows = set()
    for i, tensor in enumerate(request.inputs):
        position, (_, data_type, dims, _) = specs.get(tensor.name, (None, ("", "", None, False)))
        shape = tuple(tensor.shape)
        if position is None or tensors[position] is not None or tensor.datatype != data_type:
            return None
        if len(shape) > 12 or (dims is not None and len(dims) != len(shape)) or min(shape, default=0) < 0:
            return None
        if dims is not None and any(want not in (-1, got) for want, got in zip(dims, shape, strict=True)):
            return None
        if model.batched:
            if not shape or not 1 <= shape[0] <= model.max_rows:
                return None
            rows.add(shape[0])
        size = 4 if data_type == "BYTES" else struct.calcsize(FORMATS[data_type])
        if math.prod(max(dim, 1) for dim in shape) * size >= 1 << 63:
            return None
        if request.raw_input_contents:
            data = raw_data(data_type, math.prod(shape), request.raw_input_contents[i])
        else:
            data = typed_data(data_type, math.prod(shape), tensor)
        if data is None:
            return None
        tensors[position] = (data_type, shape, data)
    if any(tensor is None and not spec[3] for tensor, spec in zip(tensors, model.inputs, strict=True)):
        return None
    served = {name for name, _, is_served in model.outputs if is_served}
    asked = [output.name for output in request.outputs]
    if len(rows) > 1 or (model.batched and not rows) or not served.issuperset(asked) or len(set(asked)) < len(asked):
        return None
    return tensors


def has_contents(data: bytes) -> bool:
    """Whether an input of the message, as far as it can be read, has typed contents."""
    def fields(message: bytes) -> list[Any]:
        return core.read_fields(message) or []
    return any(tag[:2] == (5, 2) and any(inner[:2] == (5, 2) for inner in fields(tag[2])) for tag in fields(data))


def check_decode(data: bytes) -> None:
    """Reading agrees with google.protobuf, on anything."""
    request = parse("ModelInferRequest", data)
    answer = Codec("m", [], []).decode(data)
    if request is None:
        if isinstance(answer, dict) or answer[0] != INTERNAL:
            assert has_contents(data), answer
        return
    status = judged(request)
    if status != OK:
        assert isinstance(answer, tuple)
        assert answer[0] == status
        return
    assert isinstance(answer, dict), answer
    assert answer["model_name"].decode() == request.model_name
    assert answer["model_version"].decode() == request.model_version
    assert answer["id"].decode() == request.id
    assert answer["inputs"] == [
        (tensor.name.encode(), tensor.datatype.encode(), list(tensor.shape)[:12], len(tensor.shape),
         tensor.HasField("contents")) for tensor in request.inputs]
    assert answer["outputs"] == [output.name.encode() for output in request.outputs]
    assert answer["raw"] == list(request.raw_input_contents)
    parameters = request.parameters
    timeout = parameters["timeout"].int64_param if "timeout" in parameters else 0
    assert answer["timeout_us"] == timeout
    priority = 0
    if "priority" in parameters:
        priority = max(parameters["priority"].int64_param, parameters["priority"].uint64_param)
    assert answer["priority"] == min(priority, (1 << 63) - 1)
    assert answer["sequence"] == any(f"sequence_{end}" in parameters for end in ("id", "start", "end"))


def check_bind(model: Model, data: bytes) -> bool:
    """Binding agrees with the rules over google.protobuf's message; whether the request is good."""
    request = parse("ModelInferRequest", data)
    answer = model.codec().bind(data)
    if request is None:
        assert isinstance(answer, tuple)
        assert answer[0] == INTERNAL or has_contents(data)
        return False
    status = judged(request)
    tensors = bound(model, request) if status == OK else None
    if tensors is None:
        assert isinstance(answer, tuple), answer
        assert answer[0] == (status or INVALID_ARGUMENT), answer
        assert 0 < len(answer[1].encode()) < 1024
        return False
    assert isinstance(answer, dict), answer
    assert answer["tensors"] == tensors
    assert answer["rows"] == (next(tensor[1][0] for tensor in tensors if tensor) if model.batched else 1)
    asked = [output.name for output in request.outputs]
    assert answer["outputs"] == [i for i, (name, _, served) in enumerate(model.outputs)
                                 if served and (name in asked or not asked)]
    return True


def values_of(data_type: str) -> st.SearchStrategy[Any]:
    if data_type in RANGES:
        return st.integers(*RANGES[data_type])
    if data_type == "BOOL":
        return st.booleans()
    if data_type == "BYTES":
        return st.binary(max_size=12)
    return st.floats(width=32 if data_type == "FP32" else 64, allow_nan=False)


@st.composite
def models(draw: st.DrawFn) -> Model:
    batched = draw(st.booleans())
    any_names = st.sampled_from(["x", "z", "input_ids", "größe", "a" * 130])
    names = draw(st.lists(any_names, min_size=1, max_size=3, unique=True))
    inputs = []
    for name in names:
        dims = tuple(draw(st.lists(st.sampled_from([-1, -1, 0, 1, 2, 3]), max_size=3)))
        if batched:
            dims = (-1, *dims)
        shape = None if draw(st.integers(0, 7)) == 0 else dims
        inputs.append((name, draw(st.sampled_from([*FORMATS, "BYTES"])), shape, draw(st.integers(0, 4)) == 0))
    outputs = [(name, "FP32", draw(st.integers(0, 4)) > 0) for name in ("y", "w", "v")[:draw(st.integers(1, 3))]]
    return Model(inputs, outputs, batched, draw(st.integers(1, 4)))


@st.composite
def requests(draw: st.DrawFn, model: Model) -> Any:
    """A request that the model answers, inputs in any order, raw or typed, with a few fields that mean nothing."""
    request = infer_request(model_version=draw(st.sampled_from(["", "1"])), id=draw(st.text(max_size=10)))
    typed = all(spec[1] in CONTENTS for spec in model.inputs) and draw(st.booleans())
    rows = draw(st.integers(1, model.max_rows))
    for name, data_type, dims, optional in draw(st.permutations(model.inputs)):
        if optional and not model.batched and draw(st.booleans()):
            continue
        if dims is None:
            dims = tuple(draw(st.lists(st.integers(0, 3), min_size=int(model.batched), max_size=3)))
        shape = [draw(st.integers(0, 3)) if dim < 0 else dim for dim in dims]
        if model.batched:
            shape[0] = rows
        count = math.prod(shape)
        values = draw(st.lists(values_of(data_type), min_size=count, max_size=count))
        if typed:
            tensor = add_typed(request, name, data_type, shape, values)
        else:
            tensor = add_raw(request, name, data_type, shape, pack(data_type, values))
        if draw(st.integers(0, 4)) == 0:
            tensor.parameters[draw(st.text(max_size=5))].double_param = 1.5
    for name, _, served in model.outputs:
        if served and draw(st.booleans()):
            request.outputs.add(name=name)
    if draw(st.booleans()):
        request.parameters["timeout"].int64_param = draw(st.integers(0, (1 << 63) - 1))
    if draw(st.booleans()):
        request.parameters["priority"].uint64_param = draw(st.integers(0, (1 << 64) - 1))
    if draw(st.booleans()):
        request.parameters[draw(st.sampled_from(["sequence_id", "own", ""]))].string_param = draw(st.text(max_size=5))
    return request


@st.composite
def spoilt(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a few bytes changed, taken out, put in, doubled or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 12)))
        data = draw(st.sampled_from([
            data[:at], data[:at] + data[to:], data[:to] + data[at:],
            data[:at] + draw(st.binary(max_size=4)) + data[at:],
            data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1:],
        ]))
    return data


def varint(value: int, extra: int = 0) -> bytes:
    """A varint with `extra` bytes more than it needs."""
    encoded = bytearray(core.write_varint(value))
    if extra:
        encoded[-1] |= 0x80
        encoded += b"\x80" * (extra - 1) + b"\0"
    return bytes(encoded)


NUMBERS = st.one_of(st.integers(0, 9), st.integers(0, (1 << 32) - 1))
EXTRA = st.sampled_from([0] * 12 + [1, 2, 3, 4, 5, 8])
VARINTS = st.one_of(st.integers(0, 3), st.integers(0, (1 << 64) - 1))
KEYS = st.sampled_from([b"timeout", b"priority", b"sequence_id", b"shared_memory_region", b"classification", b"\xff"])
TEXTS = st.one_of(KEYS, st.binary(max_size=6), st.text(max_size=6).map(str.encode),
                  st.lists(st.builds(varint, VARINTS, EXTRA), max_size=4).map(b"".join))


def wire_fields(bodies: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A message of any fields, most of them numbered as the protocol's are."""
    @st.composite
    def field(draw: st.DrawFn) -> bytes:
        number, wire_type = draw(NUMBERS), draw(st.sampled_from([0, 0, 1, 2, 2, 2, 2, 3, 4, 5, 6]))
        tag = varint(number << 3 & (1 << 35) - 1 | wire_type, draw(EXTRA))
        if wire_type == 0:
            return tag + varint(draw(VARINTS), draw(EXTRA))
        if wire_type in (1, 5):
            return tag + draw(st.binary(min_size=4 if wire_type == 5 else 8, max_size=4 if wire_type == 5 else 8))
        if wire_type == 3:
            return tag + draw(bodies) + varint(number << 3 | 4, draw(EXTRA))
        if wire_type == 2:
            body = draw(bodies)
            return tag + varint(len(body), draw(EXTRA)) + body
        return tag
    return st.lists(field(), max_size=5).map(b"".join)


MESSAGES = TEXTS
for _ in range(4):
    MESSAGES = wire_fields(st.one_of(TEXTS, MESSAGES))


@given(st.data())
@MANY
def test_what_protobuf_writes_is_bound_as_meant(data: st.DataObject):
    model = data.draw(models())
    request = data.draw(requests(model))
    serialized = request.SerializeToString()
    check_decode(serialized)
    assert check_bind(model, serialized) == (bound(model, request) is not None)


@given(st.data())
@MANY
def test_spoilt_bytes_are_judged_as_protobuf_and_the_rules_do(data: st.DataObject):
    model = data.draw(models())
    message = data.draw(spoilt(data.draw(requests(model)).SerializeToString()))
    check_decode(message)
    check_bind(model, message)


@given(st.data())
@MANY
def test_a_request_for_another_model_is_judged_by_the_rules(data: st.DataObject):
    check_bind(data.draw(models()), data.draw(requests(data.draw(models()))).SerializeToString())


@given(MESSAGES)
@MANY
def test_any_fields_are_read_as_protobuf_reads_them(message: bytes):
    check_decode(message)


@given(MESSAGES, st.sampled_from(list(CONTENTS)))
@MANY
def test_any_contents_are_read_as_protobuf_reads_them(contents: bytes, data_type: str):
    parsed = parse("InferTensorContents", contents)
    count = len(getattr(parsed, CONTENTS[data_type])) if parsed is not None else 1
    tensor = b"\x0a\x01x\x12" + varint(len(data_type)) + data_type.encode() + b"\x18" + varint(count)
    tensor += b"\x2a" + varint(len(contents)) + contents
    check_bind(Model([("x", data_type, (-1,), False)], [("y", "FP32", True)], False, 1),
               b"\x2a" + varint(len(tensor)) + tensor)


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(0, 300))
def test_groups_are_bounded_where_protobuf_bounds_them(numbers: list[int], depth: int):
    inner = b"".join(varint(number << 3) + b"\1" for number in numbers)
    check_decode(b"\x53" * depth + inner + b"\x54" * depth)
    for prefix in (b"\x2a", b"\x22", b"\x32"):
        body = b"\x53" * depth + inner + b"\x54" * depth
        check_decode(prefix + varint(len(body)) + body)


@given(st.text(min_size=1), st.text(min_size=1, alphabet="0123456789"), st.text(), st.data())
@MANY
def test_protobuf_reads_what_is_encoded(model: str, version: str, request_id: str, data: st.DataObject):
    names = data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True))
    batched = data.draw(st.booleans())
    rows = data.draw(st.integers(0, 1 << 40))
    codec = Codec("m", [], [(name, "FP32", True) for name in names], batched)
    shapes = st.lists(st.integers(0, (1 << 63) - 1), max_size=12).map(tuple)
    outputs = data.draw(st.dictionaries(
        st.integers(0, len(names) - 1),
        st.tuples(st.sampled_from([*FORMATS, "BYTES"]), shapes, st.binary(max_size=300))))
    encoded = codec.encode(model.encode(), version.encode(), request_id.encode(), outputs, rows)
    expected = message_class("ModelInferResponse")(model_name=model, model_version=version, id=request_id)
    for i, (data_type, shape, raw) in sorted(outputs.items()):
        shape = (rows, *shape[1:]) if batched and shape else shape
        expected.outputs.add(name=names[i], datatype=data_type, shape=shape)
        expected.raw_output_contents.append(raw)
    assert message_class("ModelInferResponse").FromString(encoded) == expected
    assert encoded == expected.SerializeToString()


@given(st.one_of(st.binary(max_size=20), st.text(max_size=8).map(str.encode),
                 st.lists(st.sampled_from(b"\xe0\xed\xf0\xf4\x80\x9f\xa0\xbfa\xc2"), max_size=10).map(bytes)))
@settings(max_examples=1000)
def test_utf8_is_what_python_decodes(text: bytes):
    try:
        text.decode()
        valid = True
    except UnicodeDecodeError:
        valid = False
    assert core.is_utf8(text) == valid


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 9), st.binary(max_size=3))
def test_varints_are_read_back(value: int, extra: int, rest: bytes):
    encoded = varint(value, extra)
    expected = (value, len(encoded)) if len(encoded) <= 10 else None
    assert core.read_varint(encoded + rest) == expected


@given(st.binary(max_size=200))
def test_percent_encoding_is_undone_by_a_url_library(text: bytes):
    from urllib.parse import unquote_to_bytes
    encoded = core.percent_encode(text)
    assert unquote_to_bytes(encoded) == text
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
