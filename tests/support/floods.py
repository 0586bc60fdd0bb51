"""The floods of FAULTS 1b as bytes: what a client sends that wants to wear a server out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import hpack

from tests.support.h2_peer import (
    CANCEL,
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    HEADERS,
    INFER_PATH,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WIDEST,
    Field,
    request_fields,
    window_update,
)
from tests.support.scripted_peer import END_HEADERS, END_STREAM, frame

FIRST = 1
FLOW_CONTROL_ERROR, STREAM_CLOSED = 3, 5


class Flood(NamedTuple):
    """A row of the matrix."""

    row: str
    limit: str
    """Whose count moves."""
    over: int
    """How many steps at once are one too many, with the default settings and after the greeting."""
    steps: Callable[[], Iterator[bytes]]
    """Without end. Streams are numbered from 1, the header compression starts afresh."""
    error: int = ENHANCE_YOUR_CALM
    answered: int = 0
    """How many more it may take, for calls that are answered before the reset is read that follows them."""


class Blocks:
    """Header blocks on one connection, each the same from the second on."""

    def __init__(self, *more: Field) -> None:
        encoder = hpack.Encoder()
        fields = request_fields(INFER_PATH, *more)
        self._first = encoder.encode(fields, huffman=False)
        self._next = encoder.encode(fields, huffman=False)
        self._stream = FIRST - 2

    def open(self, flags: int = END_HEADERS) -> tuple[int, bytes]:
        """The next stream and its HEADERS."""
        self._stream += 2
        return self._stream, frame(HEADERS, flags, self._stream, self._first if self._stream == FIRST else self._next)


def rapid_reset(flags: int) -> Iterator[bytes]:
    blocks = Blocks()
    while True:
        stream, head = blocks.open(flags)
        yield head + frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def window_overflow() -> Iterator[bytes]:
    """The server has to reset the stream: MadeYouReset."""
    blocks = Blocks()
    while True:
        stream, head = blocks.open()
        yield head + window_update(stream, WIDEST)


def late_data() -> Iterator[bytes]:
    blocks = Blocks()
    while True:
        stream, head = blocks.open(END_HEADERS | END_STREAM)
        yield head + frame(DATA, 0, stream, b"x")


def malformed() -> Iterator[bytes]:
    blocks = Blocks(("connection", "close"))
    while True:
        yield blocks.open(END_HEADERS | END_STREAM)[1]


def beyond_streams() -> Iterator[bytes]:
    """The first is not one too many, nor are those up to the limit: they come in one step."""
    blocks = Blocks()
    yield b"".join(blocks.open()[1] for _ in range(1024))
    while True:
        yield blocks.open()[1]


def after_headers(repeated: bytes) -> Iterator[bytes]:
    yield Blocks().open()[1]
    while True:
        yield repeated


def alone(repeated: bytes) -> Iterator[bytes]:
    while True:
        yield repeated


def continuations(part: bytes) -> Iterator[bytes]:
    yield Blocks().open(0)[1]
    while True:
        yield frame(CONTINUATION, 0, FIRST, part)


def oversize_settings() -> Iterator[bytes]:
    return alone(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100) * 33))


def header_bomb() -> Iterator[bytes]:
    """A field of 4,000 bytes, then 4,000 times one byte that stands for it: 16 MB."""
    encoder = hpack.Encoder()
    seed: list[Field] = [("seed", "x" * 4000)]
    first = encoder.encode([*request_fields(), *seed], huffman=False)
    again = encoder.encode(seed, huffman=False)
    following = encoder.encode(request_fields(), huffman=False)
    stream = FIRST
    while True:
        block = (first if stream == FIRST else following) + again * 4000
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
        stream += 2


FLOODS = [
    Flood("rapid reset", "max_early_resets", 501, lambda: rapid_reset(END_HEADERS)),
    Flood("rapid reset, END_STREAM", "max_early_resets", 501, lambda: rapid_reset(END_HEADERS | END_STREAM),
          answered=50),
    Flood("MadeYouReset, window overflow", "max_stream_errors", 101, window_overflow),
    Flood("MadeYouReset, WINDOW_UPDATE 0", "protocol", 2, lambda: after_headers(window_update(FIRST, 0)),
          PROTOCOL_ERROR),
    Flood("MadeYouReset, DATA after END_STREAM", "protocol", 1, late_data, STREAM_CLOSED),
    Flood("malformed header per stream", "max_stream_errors", 101, malformed),
    Flood("CONTINUATION, empty", "continuations", 10, lambda: continuations(b"")),
    Flood("CONTINUATION, with data", "continuations", 10, lambda: continuations(b"\x10\x01a\x01b" * 100)),
    Flood("SETTINGS of more than 32 entries", "protocol", 1, oversize_settings),
    Flood("SETTINGS", "max_settings_frames", 10, lambda: alone(frame(SETTINGS, 0, 0, b""))),
    Flood("PING", "max_ping_strikes", 111, lambda: alone(frame(PING, 0, 0, bytes(8)))),
    Flood("empty DATA", "max_empty_frames", 18, lambda: after_headers(frame(DATA, 0, FIRST, b""))),
    Flood("padded-only DATA", "max_empty_frames", 18,
          lambda: after_headers(frame(DATA, PADDED, FIRST, b"\xff" + bytes(255)))),
    Flood("PRIORITY", "max_idle_frames", 101, lambda: alone(frame(PRIORITY, 0, FIRST, struct.pack(">IB", 0, 15)))),
    Flood("WINDOW_UPDATE", "max_window_updates", 6, lambda: alone(window_update(0, 1))),
    Flood("unknown frames", "max_idle_frames", 101, lambda: alone(frame(0x42, 0, 0, bytes(100)))),
    Flood("HPACK bomb", "max_oversize_headers", 1, header_bomb),
    Flood("streams beyond MAX_CONCURRENT_STREAMS", "max_stream_errors", 102, beyond_streams),
    Flood("frame too large", "protocol", 2, lambda: after_headers(frame(DATA, 0, FIRST, bytes((1 << 20) + 1))[:9]),
          FRAME_SIZE_ERROR),
    Flood("even stream", "protocol", 1, lambda: alone(frame(HEADERS, END_HEADERS, 2, b"")), PROTOCOL_ERROR),
    Flood("DATA on an idle stream", "protocol", 1, lambda: alone(frame(DATA, 0, 9, b"x")), PROTOCOL_ERROR),
    Flood("window overflow of the connection", "protocol", 1, lambda: alone(window_update(0, WIDEST)),
          FLOW_CONTROL_ERROR),
]
