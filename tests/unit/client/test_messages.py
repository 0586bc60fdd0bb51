"""Requests against protobuf's own encoding; replies in every form that a server may send."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infer.client.messages import Tensor, decode_reply, encode_request, split
from infer.errors import Internal, InvalidArgument
from infer.proto import message

REPLY = "inference.ModelInferResponse"


def decoded(content: bytes) -> Any:
    return message("inference.ModelInferRequest").FromString(content)


def test_request() -> None:
    x, n = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([b"a", "\u00e9"], np.object_)
    request = decoded(encode_request(
        "m", {"x": x, "n": n}, version="3", outputs=["y", "w"], request_id="7",
        parameters={"a": True, "b": -5, "c": 0.5, "d": "text"}))
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "7")
    assert [(i.name, i.datatype, list(i.shape)) for i in request.inputs] == [("x", "FP32", [2, 3]), ("n", "BYTES", [2])]
    assert list(request.raw_input_contents) == [x.tobytes(), b"\1\0\0\0a\2\0\0\0\xc3\xa9"]
    assert [output.name for output in request.outputs] == ["y", "w"]
    assert {name: (value.WhichOneof("parameter_choice"), getattr(value, value.WhichOneof("parameter_choice")))
            for name, value in request.parameters.items()} == {
        "a": ("bool_param", True), "b": ("int64_param", -5), "c": ("double_param", 0.5), "d": ("string_param", "text")}


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 3_000_000])
def test_raw_contents_are_what_protobuf_writes(size: int) -> None:
    content = encode_request("m", {"x": np.zeros(size, np.uint8)})
    assert decoded(content).SerializeToString() == content


def test_inputs_that_are_not_arrays() -> None:
    request = decoded(encode_request("m", {"a": [[1, 2]], "b": 0.5, "c": "text", "d": Tensor([1, 2], "FP32"),
                                           "e": Tensor(np.array([0x3F80], np.uint16), "BF16")}))
    assert [(i.datatype, list(i.shape)) for i in request.inputs] == [
        ("INT64", [1, 2]), ("FP64", []), ("BYTES", []), ("FP32", [2]), ("BF16", [1])]
    assert request.raw_input_contents[4] == b"\x80\x3f"


@pytest.mark.parametrize(("inputs", "text"), [
    ({"x": np.zeros(1, "c8")}, "input 'x': an array of complex64"), ({"x": [[1], [2, 3]]}, "input 'x': ")])
def test_inputs_that_cannot_be_sent(inputs: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        encode_request("m", inputs)


def test_an_input_that_is_not_what_it_is_called_names_itself() -> None:
    with pytest.raises(InvalidArgument, match=r"input 'x': an array of float64 does not become INT8"):
        encode_request("m", {"x": Tensor(np.zeros(1), "INT8")})


def test_parameters_that_cannot_be_sent() -> None:
    with pytest.raises(InvalidArgument, match="parameter 'p': expected bool, int, float or str, got list"):
        encode_request("m", {}, parameters={"p": []})  # type: ignore[dict-item]


def reply_of(outputs: dict[str, tuple[str, list[int], bytes]]) -> Any:
    reply = message(REPLY)(model_name="m", model_version="3", id="7")
    for name, (datatype, shape, content) in outputs.items():
        reply.outputs.add(name=name, datatype=datatype, shape=shape)
        reply.raw_output_contents.append(content)
    return reply


def test_reply() -> None:
    reply = reply_of({"y": ("FP32", [1, 2], b"\0\0\x80?\0\0\0@"), "label": ("BYTES", [1], b"\1\0\0\0a")})
    reply.parameters["p"].int64_param = 4
    result = decode_reply(reply.SerializeToString())
    assert {name: array.tolist() for name, array in result.items()} == {"y": [[1.0, 2.0]], "label": [b"a"]}
    assert (result.model_name, result.model_version, result.request_id) == ("m", "3", "7")
    assert result.parameters == {"p": 4}
    assert result.datatypes == {"y": "FP32", "label": "BYTES"}
    assert (len(result), list(result), "z" in result) == (2, ["y", "label"], False)
    assert repr(result) == "<Result of m version 3: y: FP32 [1, 2], label: BYTES [1]>"


def test_reply_with_typed_contents() -> None:
    reply = message(REPLY)()
    output = reply.outputs.add(name="y", datatype="FP32", shape=[2])
    output.contents.fp32_contents.extend([1, 2])
    assert decode_reply(reply.SerializeToString())["y"].tolist() == [1.0, 2.0]


def test_reply_with_nothing() -> None:
    assert dict(decode_reply(b"")) == {}


@pytest.mark.parametrize("content", [
    b"\x32\x05x", b"\x32", b"\x0b", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x01\xff", b"\x32\x00"])
def test_malformed_replies(content: bytes) -> None:
    with pytest.raises(Internal, match="the reply"):
        decode_reply(content)


@given(st.lists(st.binary(max_size=300), max_size=4), st.text(max_size=200), st.integers(0, 2**63 - 1))
def test_split_takes_one_field_and_keeps_the_rest(raw: list[bytes], text: str, number: int) -> None:
    whole = message(REPLY)(model_name=text)
    whole.parameters["i"].int64_param = number
    whole.parameters["d"].double_param = 0.5
    rest = whole.SerializeToString()
    whole.raw_output_contents.extend(raw)
    kept, values = split(whole.SerializeToString(), 6)
    assert message(REPLY).FromString(kept) == message(REPLY).FromString(rest)
    assert [bytes(value) for value in values] == raw


@given(st.binary(max_size=60))
def test_any_bytes_are_a_reply_or_internal(content: bytes) -> None:
    with suppress(Internal):
        decode_reply(content)
