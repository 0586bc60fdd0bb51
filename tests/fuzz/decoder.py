"""The small readers by themselves: gRPC's prefix, timeout and percent-encoding, header fields, wire format, UTF-8.

The first byte chooses the reader; each is held against a plain one where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from infer._core import _testing_tensor as core
from infer._core import arena, debug
from infer._core._testing_transport import StreamDriver, message_prefix
from infer._core.cold_call import decode_binary
from tests.fuzz.source import Source

UNITS_NS = {"n": 1, "u": 1000, "m": 10**6, "S": 10**9, "M": 60 * 10**9, "H": 3600 * 10**9}
NAMES = (b":method", b":path", b"content-type", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding",
         b"x-bin", b"-bin", b"x")
LONGEST_NS = (1 << 63) - 1
MOST_SENT_BYTES = 1 << 20


def timeout(data: bytes) -> None:
    match = re.fullmatch(rb"([0-9]{1,8})([numSMH])", data)
    expected = min(int(match[1]) * UNITS_NS[match[2].decode()], LONGEST_NS) if match else -1
    assert core.parse_timeout(data) == expected


def percent(data: bytes) -> None:
    encoded = core.percent_encode(data)
    assert unquote_to_bytes(encoded) == data
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    limit_bytes = len(data) // 2
    kept = message_prefix(data, limit_bytes)
    assert len(core.percent_encode(data[:kept])) <= limit_bytes


def utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert not core.is_utf8(data)
    else:
        assert core.is_utf8(data)


def wire(data: bytes) -> None:
    core.read_fields(data)
    read = core.read_varint(data)
    if read is not None:
        assert core.read_varint(core.write_varint(read[0])) == (read[0], len(core.write_varint(read[0])))


def fields(data: bytes) -> None:
    source = Source(data)
    driver = StreamDriver()
    while source.left:
        choice = source.byte()
        name = NAMES[choice % len(NAMES)] if choice < 200 else source.text()
        code, text = driver.field(name, source.text(), 1000)
        assert (code == 0) == (text == "")
        if code != 0:
            break
    http_status, code, text = driver.check_headers()
    assert (code == 0) == (text == "")
    assert http_status == 200 or code != 0


def metadata(data: bytes) -> None:
    """What `on_field` lets pass as base64 can be decoded."""
    driver = StreamDriver()
    for name, value in ((b":method", b"POST"), (b"content-type", b"application/grpc"), (b"x-bin", data)):
        assert driver.field(name, value, 1 << 30)[0] == 0
    if driver.check_headers()[1] == 0:
        for part in data.split(b","):
            assert isinstance(decode_binary(part), bytes)


def message(data: bytes) -> None:
    source = Source(data)
    driver = StreamDriver()
    limit_bytes = 1 << source.byte() % 24
    sent = b""
    while source.left:
        shape = source.byte()
        chunk = bytes(source.number(2)) if shape & 1 else source.text()
        code, text = driver.data(chunk, limit_bytes, shape & 0xF0 == 0xF0)
        if code != 0:
            assert text != ""
            return
        sent += chunk
        if len(sent) > MOST_SENT_BYTES:
            break
    assert (driver.body or b"") == sent
    code, text = driver.check_message()
    assert (code == 0) == (text == "")
    assert (code == 0) == (len(sent) >= 5 and sent[0] == 0 and len(sent) == 5 + int.from_bytes(sent[1:5], "big"))


READERS: tuple[Callable[[bytes], None], ...] = (timeout, percent, utf8, wire, fields, metadata, message)


def run(data: bytes) -> None:
    before = debug.live(), arena.stats()["live_bytes"]
    if data:
        READERS[data[0] % len(READERS)](data[1:])
    assert (debug.live(), arena.stats()["live_bytes"]) == before
