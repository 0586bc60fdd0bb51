"""Bad requests that the codec answers, a test for each row of the table of bad input that it decides."""

import math
import struct
from typing import Any

import pytest

from infer._core._testing_tensor import Codec
from tests.support.requests import add_raw, add_typed, infer_request, pack

INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL = 3, 12, 13

# m: batched, x FP32 [-1,4] -> y; one output is a map.
M = Codec("m", [("x", "FP32", (-1, 4), False)], [("y", "FP32", True), ("probabilities", "FP32", False)], True, 8)
PAIR = Codec("pair", [("x", "FP32", (-1, 4), False), ("z", "INT64", (-1,), False)], [("y", "FP32", True)], True, 8)
# Not batched, any shape.
OPEN = Codec("open", [("x", "FP32", (-1, -1), False)], [("y", "FP32", True)])
ROW = pack("FP32", [1, 2, 3, 4])


def one(data_type: str, shape: tuple[int, ...] = (-1,)) -> Codec:
    return Codec("m", [("x", data_type, shape, False)], [("y", data_type, True)])


def good() -> Any:
    request = infer_request()
    add_raw(request, "x", "FP32", [1, 4], ROW)
    return request


def refused(codec: Codec, request: Any, *parts: str, code: int = INVALID_ARGUMENT) -> str:
    """Asserts that the request is refused with `code` and a text that has all `parts`; returns the text."""
    answer = codec.bind(request if isinstance(request, bytes) else request.SerializeToString())
    assert isinstance(answer, tuple), answer
    assert answer[0] == code, answer
    for part in parts:
        assert part in answer[1]
    assert len(answer[1].encode()) < 1024
    assert answer[1].isprintable()
    return answer[1]


def accepted(codec: Codec, request: Any) -> dict[str, Any]:
    answer = codec.bind(request if isinstance(request, bytes) else request.SerializeToString())
    assert isinstance(answer, dict), answer
    return answer


def raw(data_type: str, shape: list[int], data: bytes, name: str = "x") -> Any:
    request = infer_request()
    add_raw(request, name, data_type, shape, data)
    return request


def typed(data_type: str, shape: list[int], values: list[Any]) -> Any:
    request = infer_request()
    add_typed(request, "x", data_type, shape, values)
    return request


def test_the_good_request_these_tests_spoil():
    answer = accepted(M, good())
    assert answer["tensors"] == [("FP32", (1, 4), ROW)]
    assert answer["rows"] == 1
    assert answer["outputs"] == [0]


def test_B5_no_inputs():
    refused(M, infer_request(), "model 'm'", "expected input 'x'", "got none")


def test_B5_missing_input():
    request = good()
    refused(PAIR, request, "model 'pair'", "expected input 'z'", "'x', 'z'")


def test_B5_many_missing_inputs_are_listed_up_to_a_bound():
    codec = Codec("wide", [(f"input_{i}", "FP32", (1,), False) for i in range(100)], [])
    refused(codec, infer_request(), "'input_0'", "'input_7', ...")


def test_B5_optional_input_may_be_left_out():
    codec = Codec("m", [("x", "FP32", (-1, 4), False), ("bias", "FP32", (-1, 1), True)], [("y", "FP32", True)], True)
    assert accepted(codec, good())["tensors"][1] is None


def test_B5_all_inputs_optional_and_none_sent_to_a_batched_model():
    refused(Codec("m", [("x", "FP32", (-1, 4), True)], [("y", "FP32", True)], True), infer_request(), "got none")


def test_B6_wrong_input_name():
    refused(M, raw("FP32", [1, 4], ROW, name="X"), "model 'm'", "input 'X' is unknown", "'x'")


def test_B6_empty_input_name():
    refused(M, raw("FP32", [1, 4], ROW, name=""), "input '' is unknown")


def test_B6_extra_input():
    request = good()
    add_raw(request, "w", "FP32", [1, 4], ROW)
    refused(M, request, "input 'w' is unknown", "'x'")


def test_B6_a_long_or_unprintable_name_is_cut_and_escaped():
    text = refused(M, raw("FP32", [1, 4], ROW, name="evil\r\n\0" + "n" * 10_000), r"'evil\x0d\x0a\x00nnn", "...'")
    assert len(text) < 200


def test_B7_duplicate_input():
    request = good()
    add_raw(request, "x", "FP32", [1, 4], ROW)
    refused(M, request, "model 'm'", "input 'x' came twice")


def test_B8_wrong_datatype():
    refused(M, raw("FP64", [1, 4], pack("FP64", [1] * 4)),
            "input 'x' of model 'm': expected FP32 [-1,4], got FP64 [1,4]; cast the data to FP32")


@pytest.mark.parametrize("name", ["", "fp32", "FLOAT", "FP3", "FP322", "?", "FP32\0", "STRING"])
def test_B8_unknown_empty_or_lower_case_datatype(name: str):
    shown = name.replace("\0", "\\x00")
    refused(M, raw(name, [1, 4], ROW), "input 'x' of model 'm'", "expected FP32 [-1,4]", f"got datatype '{shown}'",
            "send FP32")


def test_B9_wrong_dimension():
    refused(M, raw("FP32", [1, 5], pack("FP32", [1] * 5)), "input 'x' of model 'm'", "expected FP32 [-1,4]",
            "got FP32 [1,5]", "reshape")


@pytest.mark.parametrize("shape", [[4], [1, 4, 1], [1, 1, 4]])
def test_B9_wrong_rank(shape: list[int]):
    refused(M, raw("FP32", shape, ROW), "expected FP32 [-1,4]", f"got FP32 [{','.join(map(str, shape))}]")


def test_B9_empty_shape():
    refused(M, raw("FP32", [], pack("FP32", [1])), "expected FP32 [-1,4], got FP32 []")
    unranked = Codec("m", [("x", "FP32", None, False)], [], True)
    refused(unranked, raw("FP32", [], pack("FP32", [1])), "dimension 0 is the row")


def test_B9_empty_shape_is_right_for_a_scalar():
    assert accepted(one("FP32", ()), raw("FP32", [], pack("FP32", [1])))["tensors"] == [("FP32", (), pack("FP32", [1]))]
    refused(one("FP32", ()), raw("FP32", [1], pack("FP32", [1])), "expected FP32 [], got FP32 [1]")


@pytest.mark.parametrize("shape", [[-1, 4], [1, -4], [-1, -4], [-(2**63), 4]])
@pytest.mark.parametrize("codec", [M, OPEN], ids=["batched", "open"])
def test_B10_negative_dimension(codec: Codec, shape: list[int]):
    refused(codec, raw("FP32", shape, ROW), "input 'x' of model", f"got FP32 [{shape[0]},{shape[1]}]")


def test_B11_zero_rows():
    refused(M, raw("FP32", [0, 4], b""), "got FP32 [0,4]", "at least 1 row")


def test_B11_zero_rows_typed():
    refused(M, typed("FP32", [0, 4], []), "got FP32 [0,4]", "at least 1 row")


def test_B11_a_zero_dimension_past_the_row_is_legal():
    codec = Codec("m", [("x", "FP32", (-1, -1), False)], [("y", "FP32", True)], True)
    assert accepted(codec, raw("FP32", [2, 0], b""))["tensors"] == [("FP32", (2, 0), b"")]
    assert accepted(codec, typed("FP32", [2, 0], []))["tensors"] == [("FP32", (2, 0), b"")]
    assert accepted(one("FP32", (0,)), raw("FP32", [0], b""))["tensors"] == [("FP32", (0,), b"")]
    refused(codec, typed("FP32", [2, 0], [1.0]), "expected 0 values in fp32_contents, got 1")
    refused(codec, raw("FP32", [2, 0], b"\0"), "expected 0 bytes", "got 1")


def test_B12_more_rows_than_a_request_may_carry():
    accepted(M, raw("FP32", [8, 4], ROW * 8))
    refused(M, raw("FP32", [9, 4], ROW * 9), "expected FP32 [-1,4], got FP32 [9,4]", "at most 8 rows",
            "--max-batch-size")


def test_B12_inputs_with_unequal_rows():
    request = infer_request()
    add_raw(request, "x", "FP32", [2, 4], ROW * 2)
    add_raw(request, "z", "INT64", [3], pack("INT64", [1, 2, 3]))
    refused(PAIR, request, "input 'z' of model 'pair'", "got INT64 [3]", "have 2 rows", "same number of rows")


def test_B13_overflowing_shape():
    refused(OPEN, raw("FP32", [2**62, 4], ROW), "input 'x' of model 'open'", "got FP32 [4611686018427387904,4]",
            "overflows")
    refused(M, raw("FP32", [2**62, 4], ROW), "at most 8 rows")
    refused(OPEN, typed("FP32", [2**62, 4], [1.0] * 4), "overflows")


def test_B13_bytes_that_overflow_where_elements_do_not():
    refused(OPEN, raw("FP32", [2**61, 1], b""), "overflows")
    refused(one("INT8"), raw("INT8", [2**63 - 1], b""), "expected 9223372036854775807 bytes", "got 0")
    refused(one("BYTES"), raw("BYTES", [2**62], b""), "overflows")


def test_B13_overflow_hidden_by_a_zero():
    refused(OPEN, raw("FP32", [2**62, 0], b"x"), "overflows")
    codec = Codec("open", [("x", "FP32", (-1, -1, -1), False)], [])
    for shape in ([0, 2**62, 2**62], [2**62, 2**62, 0], [2**62, 0, 2**62]):
        refused(codec, raw("FP32", shape, b""), "overflows")


def test_B14_overflowing_square():
    refused(OPEN, raw("FP32", [2**32, 2**32], b""), "overflows")


def test_B14_a_thousand_dimensions():
    refused(M, raw("FP32", [1] * 1000, ROW), "got FP32 [1,1,1,1,1,1,1,1,1,1,1,1,...]")
    refused(Codec("m", [("x", "FP32", None, False)], []), raw("FP32", [1] * 13, b"1234"), "of any shape", "1,...]")
    accepted(Codec("m", [("x", "FP32", None, False)], []), raw("FP32", [1] * 12, b"1234"))


@pytest.mark.parametrize("size_bytes", [0, 12, 15, 17, 20, 32])
def test_B15_raw_short_long_or_empty(size_bytes: int):
    refused(M, raw("FP32", [1, 4], bytes(size_bytes)),
            f"input 'x' of model 'm': expected 16 bytes of raw data for FP32 [1,4], got {size_bytes}")


def test_B16_more_raw_buffers_than_inputs():
    request = good()
    request.raw_input_contents.append(ROW)
    refused(M, request, "model 'm'", "expected 1 entries in raw_input_contents", "got 2")


def test_B17_fewer_raw_buffers_than_inputs():
    request = good()
    request.inputs.add(name="z", datatype="INT64", shape=[1])
    refused(PAIR, request, "model 'm'", "expected 2 entries in raw_input_contents", "got 1")


def test_B17_no_data_at_all():
    request = infer_request()
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    refused(M, request, "input 'x' of model 'm'", "no data came for FP32 [1,4]", "raw_input_contents", "fp32_contents")


def test_B18_raw_and_typed_mixed():
    request = good()
    add_typed(request, "z", "INT64", [1], [1])
    refused(PAIR, request, "input 'z' of model 'm'", "`contents` came beside raw_input_contents")


def test_B18_empty_contents_beside_raw():
    request = good()
    request.inputs[0].contents.SetInParent()
    refused(M, request, "input 'x' of model 'm'", "`contents` came beside raw_input_contents")


@pytest.mark.parametrize("field", ["fp64_contents", "int_contents", "int64_contents", "uint_contents",
                                   "uint64_contents", "bool_contents"])
def test_B19_typed_in_the_wrong_field(field: str):
    request = typed("FP32", [1, 4], [])
    getattr(request.inputs[0].contents, field).extend([1] * 4)
    refused(M, request, "input 'x' of model 'm'", f"values came in {field}", "FP32", "fp32_contents")


def test_B19_typed_as_bytes():
    request = typed("FP32", [1, 4], [])
    request.inputs[0].contents.bytes_contents.append(ROW)
    refused(M, request, "values came in bytes_contents")


def test_B19_typed_in_two_fields():
    request = typed("FP32", [1, 4], [1.0] * 4)
    request.inputs[0].contents.int_contents.append(1)
    refused(M, request, "values came in int_contents", "fp32_contents alone")


@pytest.mark.parametrize("count", [0, 3, 5])
def test_B19_typed_wrong_count(count: int):
    refused(M, typed("FP32", [1, 4], [1.0] * count), "input 'x' of model 'm'",
            f"expected 4 values in fp32_contents, got {count}")


def test_B19_typed_wrong_count_of_varints():
    refused(one("INT64"), typed("INT64", [2], [1, 2, 3]), "expected 2 values in int64_contents, got 3")


@pytest.mark.parametrize("data_type", ["FP16", "BF16"])
def test_B20_16_bit_floats_via_typed_contents(data_type: str):
    request = infer_request()
    request.inputs.add(name="x", datatype=data_type, shape=[1]).contents.fp32_contents.append(1.0)
    refused(one(data_type), request, "input 'x' of model 'm'", f"{data_type} has no field in `contents`",
            "raw_input_contents")
    request.inputs[0].ClearField("contents")
    refused(one(data_type), request, f"{data_type} has no field in `contents`")


@pytest.mark.parametrize(("data_type", "value"), [
    ("INT8", 300), ("INT8", 128), ("INT8", -129), ("INT16", 32768), ("INT16", -32769), ("UINT8", 256),
    ("UINT16", 65536), ("UINT8", 2**32 - 1), ("INT8", -(2**31)), ("INT16", 2**31 - 1),
])
def test_B21_typed_value_out_of_range(data_type: str, value: int):
    refused(one(data_type), typed(data_type, [3], [0, 1, value]), "input 'x' of model 'm'",
            f"value {value} of element 2 does not fit {data_type}")


@pytest.mark.parametrize(("data_type", "values"), [
    ("INT8", [-128, 127]), ("INT16", [-32768, 32767]), ("UINT8", [0, 255]), ("UINT16", [0, 65535]),
])
def test_B21_typed_values_at_the_edge_of_the_range(data_type: str, values: list[int]):
    tensors = accepted(one(data_type), typed(data_type, [2], values))["tensors"]
    assert tensors == [(data_type, (2,), pack(data_type, values))]


@pytest.mark.parametrize("position", [0, 6, 7, 8, 16, 18])
def test_B21_raw_bool_that_is_neither_0_nor_1(position: int):
    data = bytearray(b"\x01\x00" * 10)
    data[position] = 2
    refused(one("BOOL"), raw("BOOL", [20], bytes(data)), "input 'x' of model 'm'", f"byte {position} is 2", "BOOL")


def test_B22_unknown_output():
    request = good()
    request.outputs.add(name="Y")
    refused(M, request, "model 'm'", "output 'Y' is unknown", "the model's outputs are 'y'")


def test_B23_duplicate_output():
    request = good()
    request.outputs.add(name="y")
    request.outputs.add(name="y")
    refused(M, request, "model 'm'", "output 'y' came twice")


def test_a_sequence_or_map_output_says_how_to_export_without_it():
    request = good()
    request.outputs.add(name="probabilities")
    refused(M, request, "output 'probabilities' of model 'm'", "zipmap=False", "skl2onnx", "request 'y'")


@pytest.mark.parametrize("tail", [b"\x01", b"\x01\0", b"\x01\0\0"])
def test_B24_bytes_truncated_length(tail: bytes):
    refused(one("BYTES"), raw("BYTES", [2], pack("BYTES", [b"a"]) + tail), "input 'x' of model 'm'", "element 1 of 2",
            "4 little-endian bytes")


@pytest.mark.parametrize("length", [2, 0xFFFFFFFF, 0x80000000])
def test_B25_bytes_length_past_the_end(length: int):
    refused(one("BYTES"), raw("BYTES", [1], struct.pack("<I", length) + b"a"), "goes past the end", "element 0 of 1")


def test_B26_too_few_bytes_elements():
    refused(one("BYTES"), raw("BYTES", [3], pack("BYTES", [b"a", b"b"])), "the data ends at element 2 of 3")
    refused(one("BYTES"), raw("BYTES", [1], b""), "the data ends at element 0 of 1")
    refused(one("BYTES"), typed("BYTES", [3], [b"a", b"b"]), "expected 3 values in bytes_contents, got 2")


def test_B26_too_many_bytes_elements():
    refused(one("BYTES"), raw("BYTES", [1], pack("BYTES", [b"a", b"b"])), "the data goes on at element 1 of 1")
    refused(one("BYTES"), raw("BYTES", [0], pack("BYTES", [b""])), "the data goes on at element 0 of 0")
    refused(one("BYTES"), typed("BYTES", [1], [b"a", b"b"]), "expected 1 values in bytes_contents, got 2")


def test_B27_bytes_with_nul_invalid_utf8_and_empty_are_bit_exact():
    values = [b"\0", b"\xff\xfe", b"", b"a\0b", bytes(range(256)) * 5]
    packed = pack("BYTES", values)
    for request in (raw("BYTES", [5], packed), typed("BYTES", [5], values)):
        assert accepted(one("BYTES"), request)["tensors"] == [("BYTES", (5,), packed)]


@pytest.mark.parametrize(("key", "member", "value"), [
    ("timeout", "string_param", "100"), ("timeout", "int64_param", -1), ("timeout", "uint64_param", 1),
    ("timeout", "double_param", 1.0), ("timeout", "bool_param", True), ("timeout", None, None),
    ("priority", "int64_param", -1), ("priority", "string_param", "1"), ("priority", "double_param", 1.0),
    ("priority", "bool_param", True), ("priority", None, None),
])
def test_B28_timeout_and_priority_of_another_type_or_negative(key: str, member: str | None, value: Any):
    request = good()
    request.parameters[key].SetInParent()
    if member:
        setattr(request.parameters[key], member, value)
    refused(M, request, f"parameter `{key}`", "expected", "int64_param")


def test_B28_timeout_and_priority_as_clients_send_them():
    request = good()
    request.parameters["timeout"].int64_param = 250_000
    request.parameters["priority"].uint64_param = 2
    decoded = M.decode(request.SerializeToString())
    assert isinstance(decoded, dict)
    assert (decoded["timeout_us"], decoded["priority"]) == (250_000, 2)
    request.parameters["priority"].int64_param = 0
    accepted(M, request)
    request.parameters["priority"].uint64_param = 2**64 - 1
    assert M.decode(request.SerializeToString())["priority"] == 2**63 - 1


def test_B29_unknown_parameters_and_sequences_are_ignored():
    request = good()
    request.parameters["my_own"].string_param = "anything"
    request.parameters["sequence_id"].int64_param = 7
    request.parameters["sequence_start"].bool_param = True
    request.parameters["sequence_end"].bool_param = True
    request.inputs[0].parameters["binary_data_size"].int64_param = 16
    request.outputs.add(name="y").parameters["binary_data"].bool_param = True
    accepted(M, request)
    assert M.decode(request.SerializeToString())["sequence"]
    assert not M.decode(good().SerializeToString())["sequence"]


def test_B30_shared_memory_input():
    request = infer_request()
    parameters = request.inputs.add(name="x", datatype="FP32", shape=[1, 4]).parameters
    parameters["shared_memory_region"].string_param = "region_0"
    parameters["shared_memory_byte_size"].int64_param = 16
    refused(M, request, "input 'x' of model 'm'", "shared memory region 'region_0'", "raw_input_contents",
            code=UNIMPLEMENTED)


def test_B30_shared_memory_output():
    request = good()
    request.outputs.add(name="y").parameters["shared_memory_region"].string_param = "region_1"
    refused(M, request, "output 'y' of model 'm'", "shared memory region 'region_1'", "raw_output_contents",
            code=UNIMPLEMENTED)


def test_classification_is_the_clients_to_compute():
    request = good()
    request.outputs.add(name="y").parameters["classification"].int64_param = 3
    refused(M, request, "output 'y' of model 'm'", "classification", "client-side", "raw scores", code=UNIMPLEMENTED)


def test_B31_long_request_id():
    request = good()
    request.id = "i" * 1024
    accepted(M, request)
    request.id = "i" * 1025
    refused(M, request, "request id", "at most 1024 bytes", "got 1025")
    request.id = "i" * 100_000
    refused(M, request, "got 100000")


def test_B32_nan_and_infinity_pass_bit_for_bit():
    data = struct.pack("<4I", 0x7FC00001, 0x7F800000, 0xFF800000, 0xFFC12345)
    assert accepted(M, raw("FP32", [1, 4], data))["tensors"][0][2] == data
    floats = [math.nan, math.inf, -math.inf, -0.0]
    assert accepted(M, typed("FP32", [1, 4], floats))["tensors"][0][2] == pack("FP32", floats)


@pytest.mark.parametrize("garbage", [b"garbage", b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x07", b"\x0a\x05abc"],
                         ids=bytes.hex)
def test_B33_garbage(garbage: bytes):
    refused(M, garbage, "not a valid inference.ModelInferRequest", "malformed protobuf", code=INTERNAL)


def test_B33_truncated_anywhere_is_never_accepted():
    whole = good().SerializeToString()
    for size_bytes in range(len(whole)):
        answer = M.bind(whole[:size_bytes])
        assert isinstance(answer, tuple)
        assert answer[0] in (INVALID_ARGUMENT, INTERNAL)
    refused(M, whole[:-1], "malformed protobuf", code=INTERNAL)


def test_B33_malformed_contents():
    request = infer_request()
    request.inputs.add(name="x", datatype="INT64", shape=[2]).contents.int64_contents.extend([1, 2])
    spoilt = request.SerializeToString().replace(b"\x1a\x02\x01\x02", b"\x1a\x02\x01\x82")
    refused(one("INT64"), spoilt, "input 'x' of model 'm'", "`contents`", code=INTERNAL)


BAD_UTF8 = b"\xffoo"


@pytest.mark.parametrize(("field", "what"), [(1, "model_name"), (2, "model_version"), (3, "id")])
def test_B34_invalid_utf8_in_model_name_version_or_id(field: int, what: str):
    spoilt = good().SerializeToString() + bytes([field << 3 | 2, len(BAD_UTF8)]) + BAD_UTF8
    text = refused(M, spoilt, what, "not UTF-8", code=INTERNAL)
    assert "oo" not in text


@pytest.mark.parametrize(("spoil", "what"), [
    (lambda request: request.inputs[0].__setattr__("name", "ZZZ"), "an input's name"),
    (lambda request: request.inputs[0].__setattr__("datatype", "ZZZ"), "an input's datatype"),
    (lambda request: request.outputs.add(name="ZZZ"), "an output's name"),
    (lambda request: request.parameters["ZZZ"].SetInParent(), "a parameter's key"),
    (lambda request: request.parameters["k"].__setattr__("string_param", "ZZZ"), "a parameter's string_param"),
    (lambda request: request.inputs[0].parameters["ZZZ"].SetInParent(), "a parameter's key"),
    (lambda request: request.outputs.add(name="y").parameters["ZZZ"].SetInParent(), "a parameter's key"),
])
def test_B34_invalid_utf8_elsewhere(spoil: Any, what: str):
    request = good()
    spoil(request)
    refused(M, request.SerializeToString().replace(b"ZZZ", BAD_UTF8), what, "not UTF-8", code=INTERNAL)


def test_B35_unknown_fields_are_skipped():
    unknown = b"\xa0\x06\x01" + b"\xa1\x0612345678" + b"\xa2\x06\x03abc" + b"\xa3\x06\x08\x01\xa4\x06" + b"\xa5\x061234"
    request = good()
    serialized = request.inputs[0].SerializeToString()
    whole = request.SerializeToString()
    inner = serialized + unknown
    spoilt = whole.replace(bytes([0x2A, len(serialized)]) + serialized, bytes([0x2A, len(inner)]) + inner)
    assert len(spoilt) == len(whole) + len(unknown)
    for message in (whole + unknown, unknown + whole, spoilt):
        assert accepted(M, message)["tensors"] == [("FP32", (1, 4), ROW)]


def test_B36_nested_unknown_groups():
    def nested(depth: int) -> bytes:
        return good().SerializeToString() + b"\x53" * depth + b"\x54" * depth

    accepted(M, nested(100))
    refused(M, nested(101), "malformed protobuf", code=INTERNAL)
    refused(M, nested(200), "malformed protobuf", code=INTERNAL)


@pytest.mark.parametrize("field", [b"\x50" + b"\xff" * 10 + b"\x01", b"\x00\x01", b"\x02\x01a", b"\x0e\x01",
                                   b"\x0f\x01", b"\x54", b"\x53\x5c"], ids=bytes.hex)
def test_B36_overlong_varint_field_0_and_reserved_wire_types(field: bytes):
    refused(M, good().SerializeToString() + field, "malformed protobuf", code=INTERNAL)


@pytest.mark.parametrize("field", [b"\x08\x05", b"\x0d1234", b"\x09" + b"12345678", b"\x0b\x0c", b"\x28\x05",
                                   b"\x38\x05"], ids=bytes.hex)
def test_B36_a_known_field_of_another_wire_type_is_an_unknown_field_to_protobuf(field: bytes):
    decoded = M.decode(good().SerializeToString() + field)
    assert isinstance(decoded, dict)
    assert decoded == M.decode(good().SerializeToString())


def test_B37_of_repeated_scalars_the_last_wins():
    whole = b"\x0a\x05other" + good().SerializeToString() + b"\x0a\x04last" + b"\x1a\x01a" + b"\x1a\x01b"
    decoded = M.decode(whole)
    assert isinstance(decoded, dict)
    assert (decoded["model_name"], decoded["id"]) == (b"last", b"b")
    accepted(M, whole)


def test_B38_zero_byte_message_names_no_model():
    decoded = M.decode(b"")
    assert isinstance(decoded, dict)
    assert (decoded["model_name"], decoded["inputs"], decoded["raw"]) == (b"", [], [])


@pytest.mark.parametrize("field", ["inputs", "outputs", "raw_input_contents"])
def test_more_tensors_than_a_message_may_have(field: str):
    request = infer_request()
    if field == "raw_input_contents":
        request.raw_input_contents.extend([b""] * 4097)
    else:
        for _ in range(4097):
            getattr(request, field).add(name="x")
    refused(M, request, f"too many {field}", "at most 4096")
