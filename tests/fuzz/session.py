"""A connection as a program of the fuzzer: frames of any kind, whole calls, answers and the connection's end.

The first byte chooses how it is read: as bytes that go to the session as they are, or as steps of which each makes a
frame with the length that it should have. The session runs over the puppet sink. Afterwards the connection is lost,
and nothing may be left of it.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

from infer import errors
from infer._core import arena, clock, debug
from infer._core._testing_slab import live_pieces
from infer._core._testing_transport import SessionDriver
from infer._core.cold_call import ColdStream
from tests.fuzz.source import Source
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
    WIDEST,
    WINDOW_UPDATE,
    frame,
    prefixed,
)

STREAM_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"
COLD, TALK, LISTING = "/cold/Method", "/talk/Both", "/talk/Replies"
START_NS = 1_000_000_000_000
DRAIN_PING = b"infer-go"
FRAME_HEAD_BYTES = 9
SMALL_FRAME_BYTES, LARGE_FRAME_BYTES = 16384, 262144
JOBS = 2
MESSAGES_PER_STREAM = 64
BYTES_PER_STREAM = 16384             # what the Blocks of a stream and its Request take where little has come
FEEDS = (1 << 20, 1, 7, 100)
LIMITS: tuple[dict[str, int], ...] = (
    {},
    {"max_streams": 2, "header_bytes": 300, "max_message_bytes": 40},
    {"connection_buffered_bytes": 500, "process_buffered_bytes": 700},
    {"stream_window_bytes": 100, "connection_window_bytes": 70000, "max_message_bytes": 1000, "stream_messages": 2,
     "stream_outbound_bytes": 100, "early_resets": 2, "stream_errors": 2, "settings_frames": 2, "ping_strikes": 1,
     "empty_frames": 2, "oversize_headers": 2, "idle_frames": 1, "queued_frames": 20},
)
FIELDS: tuple[tuple[bytes, bytes], ...] = (
    (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"99999999H"), (b"grpc-timeout", b"0n"), (b"grpc-timeout", b"1x"),
    (b"grpc-encoding", b"identity"), (b"grpc-encoding", b"gzip"), (b"grpc-encoding", b"deflate"),
    (b"grpc-encoding", b"snappy"), (b"grpc-accept-encoding", b"identity,deflate,gzip"), (b"te", b"trailers"),
    (b"x-bin", b"AAEC"), (b"x-bin", b"A"), (b"x-bin", b"QQ==,Qg"), (b"x", b"1" * 200), (b"X-Upper", b"1"),
    (b"x", b"\0\r\n"), (b"connection", b"close"), (b"content-length", b"3"), (b":method", b"GET"),
    (b":path", INFER_PATH.encode()), (b"content-type", b"text/html"), (b"user-agent", b"grpc-go/1.60"),
    (b"triton_grpc_error", b"true"), (b"", b""),
)
HEAD: tuple[tuple[bytes, bytes], ...] = (
    (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"localhost"), (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
PATHS = (INFER_PATH, COLD, TALK, LISTING, "/no/Such", "", STREAM_PATH, STREAM_PATH)
METADATA: tuple[list[tuple[str, str | bytes]], ...] = (
    [], [("x", "1")], [("x-bin", b"\0\xff"), ("y", "a" * 100)], [("grpc-status-details-bin", b"abc")])
SIZES = (0, 1, 5, 100, 4095, 4096, 16384, 20000, 70000, 300_000)
CODES = (1, 4, 8, 13, 14, 16)
FIELD_KINDS = (0x00, 0x40, 0x10)     # a literal field: not indexed, indexed, never indexed


@functools.lru_cache(4096)
def literal(name: bytes, value: bytes, kind: int = 0) -> bytes:
    """A header field that needs no compression state to be written."""
    def string(text: bytes) -> bytes:
        return bytes([len(text)]) + text if len(text) < 127 else b"\x7f" + varint(len(text) - 127) + text
    return bytes([kind]) + string(name) + string(value)


def varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


class Program:
    """One connection and what an input does with it."""

    def __init__(self, data: bytes) -> None:
        self.source = Source(data)
        choice = self.source.byte()
        self.raw = bool(choice & 1)
        self.feed_bytes = FEEDS[choice >> 1 & 3]
        self.limits = LIMITS[choice >> 3 & 3]
        handlers = dict.fromkeys((COLD, TALK, LISTING, STREAM_PATH), "handler")
        self.driver = SessionDriver(handlers, streaming={TALK: True, LISTING: False}, **self.limits)
        self.driver.refuse_spawn = choice >> 6 == 3
        if choice >> 5 & 1:
            self.driver.sink.answer_submit = (0, b"", (prefixed(b"answer"),))
        if choice >> 6 == 1:
            self.driver.sink.answer_open = (8, b"full")
        self.arena_bytes = arena.stats()["live_bytes"]
        self.fed = 0
        self.replied = 0
        self.next_stream = 1
        self.in_place = False
        self.good = True
        self.output = bytearray()

    # Input.

    def feed(self, data: bytes) -> None:
        if self.in_place:
            self.fed += len(data)
            self.good = self.good and self.driver.feed_in_place(data)
            return
        for at in range(0, len(data), self.feed_bytes):
            if not self.good:
                return
            part = data[at:at + self.feed_bytes]
            self.fed += len(part)
            self.good = self.driver.feed(part)

    def stream(self) -> int:
        """Mostly one of those that there were."""
        choice = self.source.byte()
        if choice < 200:
            return max(1, self.next_stream - 2 - 2 * (choice % 8))
        return (0, 2, 1, self.next_stream, self.next_stream + 2, (1 << 31) - 1)[choice % 6]

    def open_call(self) -> None:
        source = self.source
        shape = source.byte()
        fields = [field for at, field in enumerate(HEAD) if shape & 7 != at + 1]
        path = PATHS[shape >> 3 & 7]
        fields.insert(min(1, len(fields)), (b":path", path.encode()))
        for _ in range(shape >> 6):
            choice = source.byte()
            fields.append(FIELDS[choice % len(FIELDS)] if choice < 230 else (source.text(), source.text()))
        kind = source.byte()
        block = b"".join(literal(name, value, FIELD_KINDS[kind % 3]) for name, value in fields)
        stream = self.next_stream if kind < 250 else self.stream()
        self.next_stream = max(self.next_stream, stream + 2)
        end = END_STREAM if kind & 0x10 and kind & 0x20 else 0
        if kind & 0xC0 == 0x40:
            cut = len(block) // 2
            self.feed(frame(HEADERS, end, stream, block[:cut]) + frame(CONTINUATION, END_HEADERS, stream, block[cut:]))
        else:
            self.feed(frame(HEADERS, end | END_HEADERS, stream, block))

    def message(self) -> None:
        source = self.source
        stream = self.stream()
        shape = source.byte()
        body = bytes(source.one_of(SIZES)) if shape & 1 else source.text()
        announced = (None, len(body) + 3, max(0, len(body) - 1), (1 << 32) - 1)[shape >> 1 & 3 if shape & 8 else 0]
        whole = prefixed(body, 1 if shape & 0x30 == 0x30 else 0, announced)
        if shape & 0x40:
            whole += whole
        frame_bytes = 1 << 20 if self.in_place else SMALL_FRAME_BYTES
        parts = [whole[at:at + frame_bytes] for at in range(0, len(whole), frame_bytes)]
        for part in parts:
            self.feed(frame(DATA, END_STREAM if part is parts[-1] and not shape & 0x80 else 0, stream, part))

    def any_frame(self) -> None:
        source = self.source
        kind, flags, stream = source.byte() % 12, source.byte(), self.stream()
        self.feed(frame(kind, flags, stream, source.text()))

    def window(self) -> None:
        stream = 0 if self.source.byte() & 1 else self.stream()
        self.feed(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", self.source.one_of((1, 100, 1 << 16, WIDEST, 0)))))

    def settings(self) -> None:
        if self.source.byte() & 1:
            self.feed(frame(SETTINGS, ACK, 0, b""))
            return
        value = self.source.one_of((0, 1, 100, 4096, 16384, 65535, WIDEST, (1 << 32) - 1))
        self.feed(frame(SETTINGS, 0, 0, struct.pack(">HI", self.source.byte() % 9, value)))

    def control(self) -> None:
        choice = self.source.byte()
        stream = self.stream()
        self.feed((
            frame(PING, ACK, 0, DRAIN_PING),
            frame(PING, 0, 0, b"12345678"),
            frame(PRIORITY, 0, stream, struct.pack(">IB", self.stream(), choice)),
            frame(GOAWAY, 0, 0, struct.pack(">II", stream, choice)),
            frame(DATA, PADDED, stream, bytes([choice]) + self.source.text()),
            frame(DATA, 0, stream, b""),
            frame(HEADERS, END_HEADERS | END_STREAM, stream, literal(b"x-trailer", b"1")),
        )[choice % 7])

    # Answers.

    def answer(self) -> None:
        live = self.driver.sink.live
        if not live:
            return
        number = live[self.source.byte() % len(live)]
        shape = self.source.byte()
        if shape & 3 == 3:
            self.driver.sink.answer(number, CODES[shape % len(CODES)], self.source.text(), (),
                                    -1 if shape & 4 else shape, bytes(shape >> 5), bool(shape & 16))
            return
        sizes = [self.source.one_of(SIZES) for _ in range(shape >> 2 & 7)] or [0]
        # The first begins with the prefix, as the pipeline's does.
        segments = (prefixed(bytes(sizes[0]), announced=sum(sizes)), *map(bytes, sizes[1:]))
        self.replied += sum(map(len, segments))
        self.driver.sink.answer(number, segments=segments, id=bytes(shape >> 5), final=bool(shape & 32))

    def answer_cold(self) -> None:
        waiting = self.driver.cold
        if not waiting:
            return
        call, _ = waiting.pop(self.source.byte() % len(waiting))
        assert isinstance(call.metadata, tuple)
        shape = self.source.byte()
        content = bytes(self.source.one_of(SIZES)) if shape & 1 else self.source.text()
        self.replied += len(content)
        self.driver.finish_cold(call, CODES[shape % len(CODES)] if shape & 0x80 else 0, content)

    def talk(self) -> None:
        """What a handler of a stream of messages does."""
        talks = [call for call, _ in self.driver.cold if isinstance(call, ColdStream)]
        if not talks:
            return
        source = self.source
        call = source.one_of(talks)
        shape = source.byte()
        try:
            if shape % 8 < 3:
                message = self.driver.read_cold(call)
                assert message is None or isinstance(message, bytes)
            elif shape % 8 < 6:
                assert isinstance(self.driver.has_room(call), bool)
                content = bytes(source.one_of(SIZES)) if shape & 8 else source.text()
                self.replied += len(content)
                self.driver.write_cold(call, content)
            elif shape % 8 == 6:
                call.set_trailing_metadata(source.one_of(METADATA))
            else:
                call.send_initial_metadata(source.one_of(METADATA))
                self.driver.send_head(call)
        except errors.Cancelled:
            # The call has ended.
            pass
        except ValueError as error:
            if "head of the reply was sent before" not in str(error):
                raise

    def expire(self) -> None:
        clock.advance(self.source.byte() * 10_000_000)
        due = [timer for timer in self.driver.timers if not timer.cancelled]
        for timer in due[:self.source.byte() % 4]:
            self.driver.finish_cold(timer.call, 4, b"the deadline passed")

    def read(self) -> None:
        pieces, _ = self.driver.take(self.source.one_of((1, 1000, 20000, 1 << 20)))
        for piece in pieces:
            self.output += piece

    def end(self) -> None:
        choice = self.source.byte()
        if choice < 128:
            self.driver.drain()
        elif choice < 160:
            self.driver.end_calls(b"the server is stopping")

    def run(self) -> None:
        if self.raw:
            while self.source.left and self.good:
                self.feed(self.source.take(1 + self.source.byte() if self.feed_bytes == FEEDS[-1] else 1 << 20))
                self.read()
                self.answer()
            return
        greeting = self.source.byte()
        self.in_place = bool(greeting & 1)
        if greeting < 250:
            self.feed(PREFACE + frame(SETTINGS, 0, 0, b""))
        steps = (self.open_call, self.open_call, self.message, self.message, self.any_frame, self.window, self.settings,
                 self.control, self.answer, self.answer, self.answer_cold, self.expire, self.read, self.end,
                 lambda: self.feed(self.source.text()),
                 lambda: self.feed(frame(RST_STREAM, 0, self.stream(), struct.pack(">I", self.source.byte() % 16))),
                 self.talk, self.talk, self.talk)
        while self.source.left:
            steps[self.source.byte() % len(steps)]()
            self.check_bounds()

    # What has to hold.

    def check_bounds(self) -> None:
        driver = self.driver
        # And what messages with workers may inflate to.
        reserved_bytes = driver.counters()["coding_jobs"] * self.limits.get("max_message_bytes", 64 << 20)
        assert 0 <= driver.buffered_bytes <= self.fed + driver.counters()["inflated_bytes"] + reserved_bytes
        assert driver.outbound_bytes >= 0
        assert 0 <= driver.early_replies <= driver.streams
        assert len(driver.sink.live) <= MESSAGES_PER_STREAM * driver.streams
        # Some are with a worker while other things happen.
        while len(driver.jobs) > JOBS:
            driver.code()

    def finish(self) -> None:
        driver = self.driver
        # A Block is up to eight times what has come of a message, and its class up to twice that.
        taken_bytes = self.fed + driver.counters()["inflated_bytes"]
        bound_bytes = 16 * taken_bytes + 4 * self.replied + BYTES_PER_STREAM * (driver.streams + 1)
        assert arena.stats()["live_bytes"] - self.arena_bytes <= bound_bytes
        self.output += driver.output()
        check_frames(bytes(self.output))
        driver.close()
        while driver.jobs:
            driver.code()
        assert (driver.streams, driver.early_replies, driver.buffered_bytes, driver.outbound_bytes) == (0, 0, 0, 0)
        assert driver.sink.live == []
        counters = driver.counters()
        assert counters["streams"] == counters["buffered_bytes"] == counters["outbound_bytes"] == 0


def check_frames(output: bytes) -> None:
    """What the session sent is frames, each stream is ended once and silent thereafter."""
    at = 0
    ended = set()
    while at + FRAME_HEAD_BYTES <= len(output):
        size = int.from_bytes(output[at:at + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", output, at + 3)
        assert size <= (LARGE_FRAME_BYTES if kind == DATA else SMALL_FRAME_BYTES)
        if kind in (DATA, HEADERS):
            assert stream not in ended
            if flags & END_STREAM:
                ended.add(stream)
        at += FRAME_HEAD_BYTES + size
    assert at == len(output)


def run(data: bytes) -> None:
    before: Any = (debug.live(), arena.stats()["live_bytes"], live_pieces())
    clock.set_fake(START_NS)
    try:
        program = Program(data)
        program.run()
        program.finish()
    finally:
        clock.restore()
    after = (debug.live(), arena.stats()["live_bytes"], live_pieces())
    assert after == before, (before, after)
