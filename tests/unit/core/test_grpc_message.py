"""The message prefix, grpc-timeout and grpc-message."""

import pytest

from infer._core import _testing_tensor as core

MALFORMED = -1


@pytest.mark.parametrize(("text", "timeout_ns"), [
    (b"1n", 1), (b"0n", 0), (b"00000001u", 1000), (b"250m", 250_000_000), (b"10S", 10_000_000_000),
    (b"2M", 120_000_000_000), (b"1H", 3_600_000_000_000), (b"99999999n", 99_999_999),
    (b"99999999S", 99_999_999_000_000_000), (b"99999999M", 99_999_999 * 60 * 10**9),
])
def test_timeout(text: bytes, timeout_ns: int):
    assert core.parse_timeout(text) == timeout_ns


def test_H11_timeout_is_clamped():
    assert core.parse_timeout(b"99999999H") == 2**63 - 1
    assert core.parse_timeout(b"2562047H") == 2_562_047 * 3600 * 10**9
    assert core.parse_timeout(b"2562048H") == 2**63 - 1


@pytest.mark.parametrize("text", [
    b"", b"S", b"10", b"10x", b"-1S", b"+1S", b"1.5S", b"123456789S", b" 1S", b"1S ", b"1 S", b"1s", b"1\x00", b"0x1S",
    b"\xb21S", b"1h",
])
def test_H9_malformed_timeout(text: bytes):
    assert core.parse_timeout(text) == MALFORMED


@pytest.mark.parametrize(("text", "encoded"), [
    ("", b""), ("input 'x': expected [-1,4]~", b"input 'x': expected [-1,4]~"), ("100%", b"100%25"),
    ("a\nb\tc", b"a%0Ab%09c"), ("größe", b"gr%C3%B6%C3%9Fe"), ("\x7f\0", b"%7F%00"), ("\U0001f600", b"%F0%9F%98%80"),
])
def test_percent_encoding(text: str, encoded: bytes):
    assert core.percent_encode(text.encode()) == encoded


def test_percent_encoding_of_every_byte():
    for byte in range(256):
        plain = 0x20 <= byte <= 0x7E and byte != ord("%")
        assert core.percent_encode(bytes([byte])) == (bytes([byte]) if plain else b"%%%02X" % byte)


@pytest.mark.parametrize("size_bytes", [0, 1, 255, 256, 65536, 2**24, 2**32 - 1])
def test_prefix_both_ways(size_bytes: int):
    prefix = core.write_prefix(size_bytes)
    assert prefix == b"\0" + size_bytes.to_bytes(4, "big")
    assert core.read_prefix(prefix) == (size_bytes, 0)
    assert core.read_prefix(b"\x02" + prefix[1:]) == (size_bytes, 2)
