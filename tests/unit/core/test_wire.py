"""Protobuf's wire format field by field: what is read, what is refused, what is written."""

import pytest

from infer._core import _testing_tensor as core

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)


def tag(number: int, wire_type: int) -> bytes:
    return core.write_varint(number << 3 | wire_type)


def groups(count: int) -> bytes:
    return tag(10, GROUP) * count + tag(10, GROUP_END) * count


@pytest.mark.parametrize(("value", "encoded"), [
    (0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**14 - 1, "ff7f"), (2**14, "808001"),
    (2**32, "8080808010"), (2**63 - 1, "ffffffffffffffff7f"), (2**64 - 1, "ffffffffffffffffff01"),
])
def test_varint_both_ways(value: int, encoded: str):
    assert core.write_varint(value).hex() == encoded
    assert core.read_varint(bytes.fromhex(encoded)) == (value, len(encoded) // 2)
    assert core.read_varint(bytes.fromhex(encoded) + b"\xff") == (value, len(encoded) // 2)


@pytest.mark.parametrize("encoded", ["", "80", "ffffffff", "ff" * 9, "ff" * 10, "ff" * 10 + "01", "80" * 10 + "00"])
def test_varint_cut_or_over_ten_bytes_is_refused(encoded: str):
    assert core.read_varint(bytes.fromhex(encoded)) is None


def test_varint_longer_than_needed_is_read():
    assert core.read_varint(b"\x81\x80\x80\x00") == (1, 4)
    assert core.read_varint(b"\x81" + b"\x80" * 8 + b"\x00") == (1, 10)


def test_varint_drops_bits_past_the_64th():
    assert core.read_varint(b"\xff" * 9 + b"\x7f") == (2**64 - 1, 10)
    assert core.read_varint(b"\x80" * 9 + b"\x02") == (0, 10)


def test_fields_of_every_wire_type():
    message = (tag(1, VARINT) + b"\x96\x01" + tag(2, FIXED64) + b"\x01\0\0\0\0\0\0\x80" + tag(3, BYTES) + b"\x02hi"
               + tag(4, GROUP) + tag(1, VARINT) + b"\x05" + tag(4, GROUP_END) + tag(5, FIXED32) + b"\xff\xff\xff\xff")
    assert core.read_fields(message) == [
        (1, VARINT, 150), (2, FIXED64, 1 | 1 << 63), (3, BYTES, b"hi"), (4, GROUP, None), (5, FIXED32, 0xFFFFFFFF)]
    assert core.read_fields(b"") == []


@pytest.mark.parametrize("message", [
    tag(1, VARINT), tag(1, VARINT) + b"\x80", tag(1, FIXED64) + b"1234567", tag(1, FIXED32) + b"123",
    tag(1, BYTES), tag(1, BYTES) + b"\x05abcd", tag(1, BYTES) + b"\x80", b"\x8a", tag(1, GROUP),
    tag(1, GROUP) + tag(1, VARINT) + b"\x01",
], ids=bytes.hex)
def test_a_field_that_ends_early_is_refused(message: bytes):
    assert core.read_fields(message) is None


@pytest.mark.parametrize("message", [
    b"\x00\x01", b"\x02\x01a", b"\x80\x00\x01", b"\x0e\x01", b"\x0f\x01", tag(1, GROUP_END),
    tag(1, GROUP) + tag(2, GROUP_END), tag(1, GROUP) + b"\x04", tag(1, GROUP) + b"\x0e" + tag(1, GROUP_END),
], ids=bytes.hex)
def test_field_number_0_reserved_wire_types_and_stray_group_ends_are_refused(message: bytes):
    assert core.read_fields(message) is None


def test_field_number_0_inside_an_unknown_group_is_stepped_over():
    inside = b"\x00\x01" + b"\x02\x01a" + b"\x03\x04"
    assert core.read_fields(tag(1, GROUP) + inside + tag(1, GROUP_END)) == [(1, GROUP, None)]


def test_a_tag_takes_five_bytes_and_32_bits_at_most():
    assert core.read_fields(b"\x8a\x80\x80\x80\x00\x01a") == [(1, BYTES, b"a")]
    assert core.read_fields(b"\x8a\x80\x80\x80\x0f\x01a") == [(0xF << 25 | 1, BYTES, b"a")]
    assert core.read_fields(b"\x8a\x80\x80\x80\x80\x00\x01a") is None
    assert core.read_fields(b"\x8a\x80\x80\x80\x10\x01a") is None


def test_a_length_takes_five_bytes_and_31_bits_at_most():
    assert core.read_fields(b"\x0a\x81\x80\x80\x80\x00a") == [(1, BYTES, b"a")]
    assert core.read_fields(b"\x0a\x81\x80\x80\x80\x80\x00a") is None
    assert core.read_fields(b"\x0a\x81\x80\x80\x80\x08a") is None


def test_groups_go_a_hundred_deep():
    assert core.read_fields(groups(100)) == [(10, GROUP, None)]
    assert core.read_fields(groups(101)) is None
    assert core.read_fields(groups(97), depth=97) == [(10, GROUP, None)]
    assert core.read_fields(groups(98), depth=97) is None
    assert core.read_fields(groups(1), depth=0) is None
    assert core.read_fields(groups(1) * 1000) == [(10, GROUP, None)] * 1000


def test_bytes_are_written_with_tag_and_length():
    assert core.write_bytes(1, b"") == b"\x0a\x00"
    assert core.write_bytes(6, b"x" * 200) == b"\x32\xc8\x01" + b"x" * 200
    assert core.read_fields(core.write_bytes(1000, b"far")) == [(1000, BYTES, b"far")]


@pytest.mark.parametrize("text", [
    "", "a", "abc", "model", "sixteen letters.", "größe", "模型", "\U0010ffff", "\0",
    "abcdefgh\u07ff\u0800\ud7ff\ue000",
])
def test_utf8_is_accepted(text: str):
    assert core.is_utf8(text.encode())


@pytest.mark.parametrize("text", [
    b"\x80", b"\xff", b"abcdefgh\xff", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xed\xa0\x80",
    b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x98", b"\xe4a\x80",
    b"\xe4\xb8a", b"\xf0\x9f\x98a", b"\xc3\xc3",
], ids=bytes.hex)
def test_what_is_not_utf8_is_refused(text: bytes):
    assert not core.is_utf8(text)
    assert not core.is_utf8(b"ascii before it " + text)
    assert not core.is_utf8(text + b" ascii after it")
