"""Inputs that the fuzzers start from: what good clients send, and what bad ones do on purpose.

`python -m tests.fuzz.seeds FOLDER` writes them to FOLDER/<target>/, a file each.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import hpack

from tests.fuzz import decoder, session
from tests.fuzz.message import MODELS
from tests.support.h2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INFER_PATH,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    prefixed,
    request_fields,
)
from tests.support.requests import CONTENTS, FORMATS, add_raw, add_typed, infer_request, pack

RAW, AT_ONCE = 1, 0x20               # bits of a session's first byte
VALUES = {"BYTES": [b"ab", b""], "BOOL": [True, False]}


def connections() -> Iterator[bytes]:
    """Bytes of whole connections as clients send them."""
    def fields(*more: tuple[str, str], path: str = INFER_PATH, huffman: bool = True) -> bytes:
        block: bytes = hpack.Encoder().encode(request_fields(path, *more), huffman=huffman)
        return block
    greeting = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HIHI", 2, 0, 4, 1 << 20)) + frame(SETTINGS, ACK, 0, b"")
    timed = fields(("grpc-timeout", "100m"), ("x-bin", "AAEC"), ("grpc-accept-encoding", "identity,deflate,gzip"))
    call = frame(HEADERS, END_HEADERS, 1, timed) + frame(DATA, END_STREAM, 1, prefixed(b"question"))
    yield greeting + call
    yield greeting + call + frame(HEADERS, END_HEADERS, 3, b"\x82\x87") + frame(RST_STREAM, 0, 3, struct.pack(">I", 8))
    yield greeting + frame(HEADERS, 0, 1, timed[:9]) + frame(CONTINUATION, END_HEADERS, 1, timed[9:]) + frame(
        DATA, PADDED | END_STREAM, 1, b"\3" + prefixed(b"q") + bytes(3))
    cold = fields(path=session.COLD, huffman=False)
    yield greeting + frame(HEADERS, END_HEADERS, 1, cold) + frame(DATA, 0, 1, prefixed(b"abc")[:4]) + frame(
        DATA, 0, 1, prefixed(b"abc")[4:]) + frame(HEADERS, END_HEADERS | END_STREAM, 1, session.literal(b"t", b"1"))
    yield greeting + frame(PRIORITY, 0, 3, struct.pack(">IB", 0, 7)) + frame(PING, 0, 0, bytes(8)) + frame(
        WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 20)) + call + frame(PING, ACK, 0, session.DRAIN_PING) + frame(
        GOAWAY, 0, 0, struct.pack(">II", 0, 0))
    yield greeting + frame(HEADERS, END_HEADERS, 1, fields(("grpc-encoding", "gzip"))) + frame(
        DATA, END_STREAM, 1, prefixed(b"packed", 1))
    yield b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def programs() -> Iterator[bytes]:
    """Steps of a session: a byte names the step, what follows is its arguments (see session.Program)."""
    call, message, any_frame, window, settings, control, answer, cold, expire, read, end, text, reset = (
        b"\0", b"\2", b"\4", b"\5", b"\6", b"\7", b"\x08", b"\x0a", b"\x0b", b"\x0c", b"\x0d", b"\x0e", b"\x0f")
    talk = b"\x10"
    good, last = b"\0\0", b"\0"      # a call's shape and kind; the last stream
    one = call + good + message + last + b"\0" + b"\3abc"
    yield one + answer + b"\0\x08\2\4" + read + b"\3"
    yield one * 3 + answer + b"\1\3\4full" + answer + b"\0\x04\6" + read + b"\0" + control + b"\0\0" + end + b"\0"
    yield one + settings + b"\0\0\4" + answer + b"\0\x04\x08" + read + b"\3" + window + b"\0\0\2" + read + b"\3"
    yield call + b"\x08\0" + message + last + b"\0\3abc" + cold + b"\0\0\4abcd" + read + b"\3" + end + b"\0" + control
    yield call + b"\xc8\0\1\2" + expire + b"\xff\3" + message + last + b"\x80\3abc" + reset + last + b"\x08"
    yield call + good + message + last + b"\x81\x07" + message + last + b"\1\x08" + answer + b"\0\4\7" + end + b"\x80"
    two_way = call + b"\x10\0" + (message + last + b"\x80\3abc") * 4
    yield two_way + (talk + b"\0\0") * 5 + talk + b"\0\3\2ab" + read + b"\3" + talk + b"\0\4\2cd" + (
        cold + b"\0\0\0" + read)
    yield two_way + talk + b"\0\7\2" + (talk + b"\0\x0b\x08") * 3 + talk + b"\0\6\1" + read + b"\2" + cold + (
        b"\0\x80\4text") + read + b"\3" + window + b"\0\0\2"
    yield call + b"\x18\0" + message + last + b"\0\3abc" + talk + b"\0\0" + talk + b"\0\3\2ab" + reset + last + b"\x08"
    stream = call + b"\x30\0" + (message + last + b"\x80\3abc") * 3
    yield stream + answer + b"\1\x24\1" + answer + b"\0\x08\2\4" + read + b"\3" + answer + b"\0\3\4full" + read
    yield call + b"\x70\0\x16" + message + last + b"\x80\3abc" + message + last + b"\0\3abc" + (
        answer + b"\0\3\4full" + read)
    yield stream + settings + b"\0\0\4" + answer + b"\0\4\7" + end + b"\0" + expire + b"\xff\1" + reset + last + b"\x08"
    large = call + good + message + last + b"\1\x09"
    yield large + answer + b"\0\4\x08" + read + b"\3" + large + reset + last + b"\x08" + large * 2
    yield one + any_frame + b"\x09\4\0\4abcd" + text + b"\3abc" + control + b"\4\0" + control + b"\5\0"


def sessions() -> Iterator[bytes]:
    for connection in connections():
        for choice in (RAW, RAW | AT_ONCE | 2, RAW | AT_ONCE | 4 | 8):
            yield bytes([choice]) + connection
    for program in programs():
        for choice in (0, AT_ONCE, 8, 16, 24, 4, 0x40):
            yield bytes([choice, 0]) + program
        yield b"\0\1" + program


def messages() -> Iterator[bytes]:
    for number, model in enumerate(MODELS):
        for typed in (False, True):
            request = infer_request(model_version="1", id="i")
            request.parameters["timeout"].int64_param = 1000
            request.outputs.add(name="y")
            for name, data_type, dims, _ in model.inputs:
                shape = [2 if dim < 0 else dim for dim in (dims if dims is not None else (2,))]
                count = 1
                for dim in shape:
                    count *= dim
                values = (VALUES.get(data_type, [1, 2]) * count)[:count]
                if typed and data_type in CONTENTS:
                    add_typed(request, name, data_type, shape, values)
                elif not typed and data_type in {*FORMATS, "BYTES"}:
                    add_raw(request, name, data_type, shape, pack(data_type, values))
            for flag in (0, 0x80):
                yield bytes([flag | number]) + request.SerializeToString()


def readings() -> Iterator[bytes]:
    samples = {
        decoder.timeout: [b"100m", b"99999999H", b"x", b"1S2"],
        decoder.percent: ["100 % größer\n".encode(), b"\xff\0"],
        decoder.utf8: ["aä€😀".encode(), b"\xed\xa0\x80"],
        decoder.wire: [b"\x08\x96\x01\x12\x03abc\x1b\x20\x01\x1c\x25abcd\x29abcdefgh"],
        decoder.fields: [b"\0\4POST\2\x10application/grpc\4\x03100\5\4gzip\7\4AAEC"],
        decoder.metadata: [b"AAEC,QQ==,Qg", b"A==="],
        decoder.message: [b"\4\0\3\0\0\0\0\2\0\3\0\5hello", b"\x17\0\5\0\0\1\0\0\1\xff\xff\1\x00\x01"],
    }
    for number, reader in enumerate(decoder.READERS):
        for sample in samples[reader]:
            yield bytes([number]) + sample


SEEDS = {"session": sessions, "message": messages, "decoder": readings}


def main() -> None:
    for target, inputs in SEEDS.items():
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for data in inputs():
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
