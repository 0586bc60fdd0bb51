"""Arrays to the wire and back."""

from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from infer.client import tensors
from infer.client.tensors import DTYPES, bf16_to_fp32, datatype_of, decode, decode_contents, encode
from infer.errors import Internal, InvalidArgument
from infer.proto import message


@pytest.fixture
def without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    tensors.bfloat16.cache_clear()
    yield
    tensors.bfloat16.cache_clear()


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 4)])
def test_round_trip(datatype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(6).astype(DTYPES[datatype])[:int(np.prod(shape))].reshape(shape)
    assert datatype_of(array) == datatype
    back = decode(encode(array, datatype), datatype, shape)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_what_the_wire_holds() -> None:
    assert bytes(encode(np.array([1, -2], ">i2"), "INT16")) == b"\1\0\xfe\xff"
    assert datatype_of(np.array([1], ">i2")) == "INT16"
    assert bytes(encode(np.arange(6, dtype=np.uint8).reshape(2, 3).T, "UINT8")) == b"\0\3\1\4\2\5"
    assert bytes(encode(np.array([True, False]), "BOOL")) == b"\1\0"


def test_no_copy_of_what_has_its_form_already() -> None:
    array = np.arange(8, dtype=np.float32)
    content = encode(array, "FP32")
    array[0] = 9
    assert bytes(content) == array.tobytes()
    raw = memoryview(array.tobytes())
    back = decode(raw, "FP32", [2, 4])
    assert np.shares_memory(back, np.frombuffer(raw, np.uint8))
    assert not back.flags.writeable


def test_what_is_not_aligned_is_copied() -> None:
    raw = np.arange(9, dtype=np.uint8).tobytes()
    back = decode(memoryview(raw)[1:], "FP32", [2])
    assert back.flags.aligned
    assert back.tobytes() == raw[1:]


@pytest.mark.parametrize("array", [
    np.array([[b"a\0", "\u00e9"], [b"", b"xyz"]], np.object_), np.array([["a\0", "\u00e9"], ["", "xyz"]], np.object_)])
def test_bytes(array: Any) -> None:
    assert datatype_of(array) == "BYTES"
    content = encode(array, "BYTES")
    assert content == b"\2\0\0\0a\0\2\0\0\0\xc3\xa9\0\0\0\0\3\0\0\0xyz"
    back = decode(content, "BYTES", (2, 2))
    assert back.dtype == np.object_
    assert back.tolist() == [[b"a\0", b"\xc3\xa9"], [b"", b"xyz"]]


def test_arrays_of_text_are_bytes() -> None:
    for array in (np.array(["a", "bc"]), np.array([b"a", b"bc"])):
        assert datatype_of(array) == "BYTES"
        assert encode(array, "BYTES") == b"\1\0\0\0a\2\0\0\0bc"
    assert decode(b"", "BYTES", (0, 2)).shape == (0, 2)


@pytest.mark.parametrize(("value", "bits", "back"), [
    (1.0, 0x3F80, 1.0), (-2.5, 0xC020, -2.5), (1 + 2**-9, 0x3F80, 1.0), (1 + 3 * 2**-8, 0x3F82, 1 + 2**-6),
    (float("inf"), 0x7F80, float("inf")), (float("nan"), 0x7FC0, float("nan"))])
def test_bf16_from_fp32_rounds_to_the_nearest(value: float, bits: int, back: float) -> None:
    content = bytes(encode(np.array([value], np.float32), "BF16"))
    assert int.from_bytes(content, "little") == bits
    np.testing.assert_array_equal(bf16_to_fp32(decode(content, "BF16", (1,))), np.array([back], np.float32))


def test_bf16_with_ml_dtypes() -> None:
    array = np.array([[1.0, -2.5]], ml_dtypes.bfloat16)
    assert datatype_of(array) == "BF16"
    content = encode(array, "BF16")
    assert bytes(content) == b"\x80\x3f\x20\xc0"
    back = decode(content, "BF16", (1, 2))
    assert back.dtype == ml_dtypes.bfloat16
    assert back.tolist() == [[1.0, -2.5]]
    assert bf16_to_fp32(back).tolist() == [[1.0, -2.5]]


@pytest.mark.usefixtures("without_ml_dtypes")
def test_bf16_without_it_is_its_bits() -> None:
    bits = np.array([0x3F80, 0xC020], np.uint16)
    back = decode(encode(bits, "BF16"), "BF16", (2,))
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, bits)
    assert bf16_to_fp32(back).tolist() == [1.0, -2.5]


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "V3", np.longdouble])
def test_arrays_that_have_no_type_there(dtype: str) -> None:
    with pytest.raises(InvalidArgument, match="has no type in the protocol"):
        datatype_of(np.zeros(1, dtype))


@pytest.mark.parametrize(("array", "datatype", "text"), [
    (np.zeros(1), "INT32", "an array of float64 does not become INT32"), (np.zeros(1), "FP8", "unknown datatype 'FP8'"),
    (np.array(["a"]), "FP32", "does not become FP32")])
def test_arrays_that_do_not_become_what_is_asked_for(array: Any, datatype: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        encode(array, datatype)


@pytest.mark.parametrize(("content", "datatype", "shape"), [
    (b"\0" * 7, "FP32", [2]), (b"\0" * 12, "FP32", [2]), (b"\0", "FP9", [1]), (b"\2\0\0\0a", "BYTES", [1]),
    (b"\2\0", "BYTES", [1]), (b"\1\0\0\0a", "BYTES", [2])])
def test_replies_that_do_not_add_up(content: bytes, datatype: str, shape: list[int]) -> None:
    with pytest.raises(Internal, match="the reply has a"):
        decode(content, datatype, shape)


@pytest.mark.parametrize(("datatype", "field", "values"), [
    ("BOOL", "bool_contents", [True, False]), ("INT8", "int_contents", [-1, 2]), ("INT64", "int64_contents", [-1, 2]),
    ("UINT16", "uint_contents", [1, 2]), ("UINT64", "uint64_contents", [1, 2]), ("FP32", "fp32_contents", [1.5, 2]),
    ("FP64", "fp64_contents", [1.5, 2]), ("BYTES", "bytes_contents", [b"a", b""])])
def test_typed_contents(datatype: str, field: str, values: list[Any]) -> None:
    contents = message("inference.InferTensorContents")(**{field: values})
    array = decode_contents(contents, datatype, [2, 1])
    assert array.tolist() == [[values[0]], [values[1]]]
    assert datatype_of(array) == datatype
    with pytest.raises(Internal, match="with 2 elements"):
        decode_contents(contents, datatype, [3])


def test_typed_contents_of_a_type_that_has_none() -> None:
    with pytest.raises(Internal, match="FP16 tensor without raw content"):
        decode_contents(message("inference.InferTensorContents")(), "FP16", [0])
