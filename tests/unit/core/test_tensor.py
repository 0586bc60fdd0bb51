"""The codec on good requests and replies; what it refuses is in tests/bad_input."""

import math
import struct
from typing import Any

import pytest

from infer._core import _testing_tensor as core
from infer._core._testing_tensor import Codec
from tests.support.protos import message_class
from tests.support.requests import CONTENTS, FORMATS, add_raw, add_typed, infer_request, pack

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True], "INT8": [-128, 0, 127], "INT16": [-32768, -1, 32767],
    "INT32": [-(2**31), 0, 2**31 - 1], "INT64": [-(2**63), -1, 2**63 - 1], "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65535], "UINT32": [0, 1, 2**32 - 1], "UINT64": [0, 1, 2**64 - 1], "FP32": [1.5, -0.0, math.inf],
    "FP64": [1e300, -0.0, math.nan],
    "BYTES": [b"", b"abc", b"\0\xff" * 300],
}


def one(data_type: str, shape: tuple[int, ...] | None = (-1,), batched: bool = False) -> Codec:
    return Codec("m", [("x", data_type, shape, False)], [("y", data_type, True)], batched)


def bound(codec: Codec, request: Any) -> dict[str, Any]:
    answer = codec.bind(request if isinstance(request, bytes) else request.SerializeToString())
    assert isinstance(answer, dict), answer
    return answer


@pytest.mark.parametrize("data_type", [*FORMATS, "BYTES"])
def test_raw_of_every_type(data_type: str):
    data = pack(data_type, VALUES.get(data_type, [1, 2, 3]))
    request = infer_request()
    add_raw(request, "x", data_type, [3], data)
    answer = bound(one(data_type), request)
    assert answer["tensors"] == [(data_type, (3,), data)]
    assert answer["typed_bytes"] == 0
    assert not answer["deferred"]


@pytest.mark.parametrize("data_type", CONTENTS)
def test_typed_of_every_type(data_type: str):
    data = pack(data_type, VALUES[data_type])
    request = infer_request()
    add_typed(request, "x", data_type, [3], VALUES[data_type])
    answer = bound(one(data_type), request)
    assert answer["tensors"] == [(data_type, (3,), data)]
    assert answer["typed_bytes"] == len(data)


@pytest.mark.parametrize("data_type", [*CONTENTS, "FP16", "BF16"])
@pytest.mark.parametrize("typed", [False, True])
def test_empty_tensor(data_type: str, typed: bool):
    request = infer_request()
    if typed:
        request.inputs.add(name="x", datatype=data_type, shape=[0])
        if data_type in CONTENTS:
            request.inputs[0].contents.SetInParent()
    else:
        add_raw(request, "x", data_type, [0], b"")
    answer = bound(one(data_type), request)
    assert answer["tensors"] == [(data_type, (0,), b"")]
    assert answer["typed_bytes"] == 0


def test_scalar_shape():
    request = infer_request()
    add_typed(request, "x", "INT64", [], [42])
    assert bound(one("INT64", ()), request)["tensors"] == [("INT64", (), pack("INT64", [42]))]


def test_unpacked_split_and_repeated_contents_merge():
    fp32 = struct.pack("<f", 1.0), struct.pack("<f", 2.0), struct.pack("<ff", 3.0, 4.0)
    first = b"\x35" + fp32[0]
    second = b"\x35" + fp32[1] + b"\x32\x08" + fp32[2]
    shape = b"\x18\x02" + b"\x1a\x00" + b"\x1a\x01\x02"
    tensor = b"\x2a" + bytes([len(first)]) + first + b"\x0a\x01x" + shape + b"\x2a" + bytes([len(second)]) + second
    tensor += b"\x12\x04FP32"
    message = b"\x2a" + bytes([len(tensor)]) + tensor
    answer = bound(one("FP32", (2, 2)), message)
    assert answer["tensors"] == [("FP32", (2, 2), b"".join(fp32))]


def test_varints_longer_than_needed_in_typed_contents():
    values = b"\x81\x80\x00" + b"\xff" * 9 + b"\x01"
    contents = b"\x1a" + bytes([len(values)]) + values
    tensor = b"\x0a\x01x\x12\x05INT64\x1a\x01\x02\x2a" + bytes([len(contents)]) + contents
    assert bound(one("INT64"), b"\x2a" + bytes([len(tensor)]) + tensor)["tensors"][0][2] == pack("INT64", [1, -1])


def test_a_length_prefix_of_several_bytes_before_typed_contents():
    request = infer_request()
    add_typed(request, "x", "FP64", [5000], range(5000))
    assert bound(one("FP64"), request)["tensors"][0][2] == pack("FP64", range(5000))


def test_inputs_in_any_order_are_bound_in_the_models():
    codec = Codec("m", [(name, "INT32", (-1,), False) for name in "abc"], [("y", "INT32", True)])
    for order in ("abc", "cba", "bca"):
        request = infer_request()
        for name in order:
            add_raw(request, name, "INT32", [1], pack("INT32", [ord(name)]))
        assert [tensor[2] for tensor in bound(codec, request)["tensors"]] == [pack("INT32", [ord(c)]) for c in "abc"]


def test_rows_are_the_first_dimension_of_a_batched_model():
    request = infer_request()
    add_raw(request, "x", "FP32", [3, 2], pack("FP32", range(6)))
    assert bound(one("FP32", (-1, 2), batched=True), request)["rows"] == 3
    assert bound(one("FP32", (-1, 2)), request)["rows"] == 1


def test_any_rank_where_the_model_does_not_say():
    for shape in ([], [2], [1, 2, 1]):
        request = infer_request()
        add_raw(request, "x", "INT8", shape, bytes(math.prod(shape)))
        assert bound(one("INT8", None), request)["tensors"][0][1] == tuple(shape)


def shape_hash(codec: Codec, *tensors: tuple[str, list[int]]) -> int:
    request = infer_request()
    for name, shape in tensors:
        add_raw(request, name, "INT8", shape, bytes(math.prod(shape)))
    return int(bound(codec, request)["shape_hash"])


def test_shape_hash_is_of_the_open_dimensions_past_the_row():
    codec = one("INT8", (-1, -1, -1), batched=True)
    assert shape_hash(codec, ("x", [1, 2, 3])) == shape_hash(codec, ("x", [5, 2, 3]))
    hashes = {shape_hash(codec, ("x", [1, *shape])) for shape in ([2, 3], [3, 2], [6, 1], [1, 6], [0, 6], [6, 0])}
    assert len(hashes) == 6
    fixed = one("INT8", (-1, 4), batched=True)
    assert shape_hash(fixed, ("x", [1, 4])) == shape_hash(fixed, ("x", [2, 4]))
    anything = one("INT8", None)
    assert shape_hash(anything, ("x", [2])) != shape_hash(anything, ("x", [2, 1]))


def test_shape_hash_tells_inputs_apart_but_not_their_order():
    codec = Codec("m", [("a", "INT8", (-1,), False), ("b", "INT8", (-1,), False), ("c", "INT8", (1,), True)], [])
    assert shape_hash(codec, ("a", [1]), ("b", [2])) == shape_hash(codec, ("b", [2]), ("a", [1]))
    assert shape_hash(codec, ("a", [1]), ("b", [2])) != shape_hash(codec, ("a", [2]), ("b", [1]))
    assert shape_hash(codec, ("a", [1]), ("b", [2])) != shape_hash(codec, ("a", [1]), ("b", [2]), ("c", [1]))


def test_requested_outputs():
    codec = Codec("m", [("x", "INT8", (1,), False)], [("y", "INT8", True), ("map", "INT8", False), ("w", "INT8", True)])
    request = infer_request()
    add_raw(request, "x", "INT8", [1], b"\0")
    assert bound(codec, request)["outputs"] == [0, 2]
    request.outputs.add(name="w")
    assert bound(codec, request)["outputs"] == [2]
    request.outputs.add(name="y")
    assert bound(codec, request)["outputs"] == [0, 2]


def test_many_outputs():
    codec = Codec("m", [], [(f"y{i}", "INT8", True) for i in range(256)])
    request = infer_request()
    assert bound(codec, request)["outputs"] == list(range(256))
    for i in (255, 64, 0, 63, 128):
        request.outputs.add(name=f"y{i}")
    assert bound(codec, request)["outputs"] == [0, 63, 64, 128, 255]


def test_much_typed_data_is_left_to_an_executor():
    for data_type, count, deferred in (("FP32", 65_000, False), ("FP32", 66_000, True), ("INT8", 30_000, True)):
        request = infer_request()
        add_typed(request, "x", data_type, [count], [-1] * count)
        assert bound(one(data_type), request)["deferred"] is deferred
    request = infer_request()
    add_raw(request, "x", "FP32", [66_000], bytes(66_000 * 4))
    assert not bound(one("FP32"), request)["deferred"]


def test_one_message_after_another_leaves_nothing_behind():
    codec = one("FP32", (-1, 4), batched=True)
    full = infer_request(model_version="7", id="id")
    for _ in range(20):
        add_raw(full, "x", "FP32", [1, 4], bytes(16))
    full.outputs.add(name="y")
    full.parameters["timeout"].int64_param = 5
    full.parameters["priority"].int64_param = 1
    full.parameters["sequence_id"].int64_param = 1
    before = codec.decode(b"")
    assert codec.decode(full.SerializeToString()) != before
    assert codec.decode(b"\xff") == (13, "request is not a valid inference.ModelInferRequest: malformed protobuf")
    assert codec.decode(b"") == before


def test_reply_as_protobuf_reads_it():
    codec = Codec("m", [], [("y", "FP32", True), ("labels", "BYTES", True), ("größe", "INT64", True)], batched=True)
    reply = message_class("ModelInferResponse").FromString(codec.encode(b"m", b"3", b"id-1", {
        2: ("INT64", (64, 2**40), b"12345678"), 0: ("FP32", (64, 0), b"")}, rows=2))
    assert (reply.model_name, reply.model_version, reply.id) == ("m", "3", "id-1")
    assert [(o.name, o.datatype, list(o.shape)) for o in reply.outputs] == [
        ("y", "FP32", [2, 0]), ("größe", "INT64", [2, 2**40])]
    assert list(reply.raw_output_contents) == [b"", b"12345678"]
    assert not reply.parameters


def test_reply_without_id_of_a_scalar():
    codec = Codec("m", [], [("y", "FP64", True)])
    encoded = codec.encode(b"m", b"1", b"", {0: ("FP64", (), b"12345678")}, rows=5)
    assert encoded == message_class("ModelInferResponse")(
        model_name="m", model_version="1", outputs=[{"name": "y", "datatype": "FP64"}],
        raw_output_contents=[b"12345678"]).SerializeToString()


def test_reply_with_a_large_output():
    codec = Codec("m", [], [("y" * 300, "UINT8", True)])
    reply = message_class("ModelInferResponse").FromString(
        codec.encode(b"m", b"1", b"i" * 1024, {0: ("UINT8", (3_000_000,), bytes(3_000_000))}))
    assert reply.raw_output_contents[0] == bytes(3_000_000)
    assert reply.outputs[0].name == "y" * 300


def test_type_names_both_ways():
    names = {number: core.data_type_name(number) for number in range(-1, 19)}
    known = {number: name for number, name in names.items() if name != "?"}
    assert set(known.values()) == {*FORMATS, "BYTES"}
    for number, name in known.items():
        assert core.data_type_of(name.encode()) == number
    for name in (b"", b"?", b"fp32", b"FP3", b"FP32 ", b"STRING"):
        assert core.data_type_of(name) == 0


def test_error_text_is_cut_at_1023_bytes_and_at_a_characters_edge():
    assert core.say(["a" * 5000]) == "a" * 1023
    assert core.say(["a" * 1022, "ö"]) == "a" * 1022
    assert core.say(["a" * 1000, 12345, "b" * 100]) == "a" * 1000 + "12345" + "b" * 18


def test_error_text_escapes_names():
    assert core.say([b"it's \\ \x7f\xc3"]) == r"'it's \x5c \x7f\xc3'"
    assert core.say([b"n" * 64]) == "'" + "n" * 64 + "'"
    assert core.say([b"n" * 65]) == "'" + "n" * 64 + "...'"
    assert core.say([-(2**63)]) == str(-(2**63))
