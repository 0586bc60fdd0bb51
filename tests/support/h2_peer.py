"""An HTTP/2 client that says exactly what a test wrote down, and on it a small gRPC client that shows every frame.

`Peer` works over anything that has sendall, recv and settimeout: a socket, or a session without one. It answers
SETTINGS and PING, keeps to the flow-control windows when it sends a body, and opens its own windows wide unless told
not to.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import hpack

from tests.support.scripted_peer import END_HEADERS, END_STREAM, frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PADDED = 0x8
ACK, PADDED = 0x1, 0x8
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
NO_ERROR, PROTOCOL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0, 1, 6, 7, 8, 11

INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
WIDEST = (1 << 31) - 1
FIRST_WINDOW = 65535
FRAME_BYTES = 16384

Text = str | bytes
Field = tuple[Text, Text]


class Transport(Protocol):
    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, seconds: float | None, /) -> None: ...


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends(self) -> bool:
        return self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM)

    @property
    def error(self) -> int:
        """Error code of a RST_STREAM or GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return int(struct.unpack_from(">I", self.payload, at)[0])

    @property
    def last_stream(self) -> int:
        return int(struct.unpack_from(">I", self.payload)[0])


class ConnectionEnded(Exception):
    """The peer closed, or reset, the connection."""


@dataclass
class Reply:
    """One stream's answer."""

    stream: int
    frames: list[Frame] = field(default_factory=list)
    blocks: list[list[tuple[str, str]]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def fields(self) -> dict[str, str]:
        return {name: value for block in self.blocks for name, value in block}

    @property
    def http_status(self) -> int:
        return int(self.blocks[0][0][1]) if self.blocks and self.blocks[0][0][0] == ":status" else 0

    @property
    def code(self) -> int:
        """grpc-status, -1 where none came."""
        return int(self.fields.get("grpc-status", "-1"))

    @property
    def raw_text(self) -> str:
        return self.fields.get("grpc-message", "")

    @property
    def text(self) -> str:
        return unquote_to_bytes(self.raw_text).decode()

    @property
    def trailers_only(self) -> bool:
        """One HEADERS frame with END_STREAM, and no DATA."""
        return [each.kind for each in self.frames if each.kind != RST_STREAM] == [HEADERS] and self.frames[0].ends

    @property
    def message(self) -> bytes:
        """The one message; its prefix is checked."""
        flag, size = struct.unpack_from(">BI", self.body)
        assert (flag, size) == (0, len(self.body) - 5)
        return self.body[5:]


def prefixed(message: bytes, flag: int = 0, announced: int | None = None) -> bytes:
    return struct.pack(">BI", flag, len(message) if announced is None else announced) + message


def split_messages(body: bytes) -> list[bytes]:
    """The whole messages at the start of a body; their flags are checked."""
    found, at = [], 0
    while len(body) >= at + 5 and len(body) >= (end := at + 5 + int.from_bytes(body[at + 1:at + 5], "big")):
        assert body[at] == 0
        found.append(body[at + 5:end])
        at = end
    return found


def request_fields(path: str = INFER_PATH, *more: Field, leave: Sequence[str] = (), **changed: Text) -> list[Field]:
    """Header fields of a gRPC call; `leave` takes some out, keywords such as `method` or `content_type` change one."""
    fields: list[Field] = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
                           ("te", "trailers"), ("content-type", "application/grpc")]
    names = {name.replace("-", "_").strip(":"): name for name, _ in fields if isinstance(name, str)}
    values = {names[name]: value for name, value in changed.items()}
    return [(name, values.get(str(name), value)) for name, value in fields if name not in leave] + list(more)


class Peer:
    """One connection. `wide`: our windows are as large as can be; `greet`: preface and SETTINGS are sent at once."""

    def __init__(self, transport: Transport, *, settings: Sequence[tuple[int, int]] = (), wide: bool = True,
                 greet: bool = True, acknowledge: bool = True, seconds: float = 20.0) -> None:
        self.transport = transport
        self.acknowledge = acknowledge
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self.next_stream = 1
        self.replies: dict[int, Reply] = {}
        self.others: list[Frame] = []       # of stream 0: SETTINGS, PING, GOAWAY
        self.peer_settings: dict[int, int] = {}
        self.window = FIRST_WINDOW
        self.stream_window = FIRST_WINDOW
        self.windows: dict[int, int] = {}
        self._buffer = bytearray()
        transport.settimeout(seconds)
        if greet:
            chosen = dict(settings)
            if wide:
                chosen.setdefault(INITIAL_WINDOW_SIZE, WIDEST)
            self.send(PREFACE + self.settings_frame(chosen))
            if wide:
                self.send(window_update(0, WIDEST - FIRST_WINDOW))

    @staticmethod
    def settings_frame(values: dict[int, int]) -> bytes:
        return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.items()))

    # Out.

    def send(self, data: bytes) -> None:
        try:
            self.transport.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ConnectionEnded from error

    def headers_frame(self, stream: int, fields: Iterable[Field], end: bool = False, huffman: bool = False) -> bytes:
        block = self.encoder.encode(list(fields), huffman=huffman)
        flags = END_STREAM if end else 0
        parts = [block[at:at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)] or [b""]
        frames = [frame(HEADERS if number == 0 else CONTINUATION,
                        (flags if number == 0 else 0) | (END_HEADERS if number == len(parts) - 1 else 0), stream, part)
                  for number, part in enumerate(parts)]
        return b"".join(frames)

    def open(self, fields: Iterable[Field], end: bool = False) -> int:
        """Sends a header block on the next stream."""
        stream = self.next_stream
        self.next_stream += 2
        self.send(self.headers_frame(stream, fields, end))
        self.expect(stream)
        return stream

    def expect(self, stream: int) -> Reply:
        self.windows.setdefault(stream, self.stream_window)
        return self.replies.setdefault(stream, Reply(stream))

    def body(self, stream: int, data: bytes, end: bool = True, *, frame_bytes: int = FRAME_BYTES,
             padding: int | None = None) -> None:
        """DATA frames as the windows allow, each with `padding` bytes and the one that says so where it is given."""
        extra = 0 if padding is None else padding + 1
        view = memoryview(data)
        while True:
            room = min(self.window, self.windows[stream], frame_bytes) - extra
            part = view[:max(room, 0)]
            if len(part) == 0 and len(view) > 0:
                if self.replies[stream].ended:
                    return
                self.read()
                continue
            view = view[len(part):]
            self.window -= len(part) + extra
            self.windows[stream] -= len(part) + extra
            flags = (END_STREAM if end and len(view) == 0 else 0) | (0 if padding is None else PADDED)
            filled = bytes(part) if padding is None else bytes([padding]) + bytes(part) + bytes(padding)
            self.send(frame(DATA, flags, stream, filled))
            if len(view) == 0:
                return

    def reset(self, stream: int, code: int = CANCEL) -> None:
        self.send(frame(RST_STREAM, 0, stream, struct.pack(">I", code)))

    def ping(self, opaque: bytes = b"8 octets") -> None:
        """Returns once it is answered: everything sent before has been read."""
        self.send(frame(PING, 0, 0, opaque))
        while not any(each.kind == PING and each.flags & ACK and each.payload == opaque for each in self.others):
            self.read()
        self.others = [each for each in self.others if each.payload != opaque]

    # In.

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                part = self.transport.recv(1 << 18)
            except ConnectionError as error:
                raise ConnectionEnded from error
            if not part:
                raise ConnectionEnded
            self._buffer += part
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read(self) -> Frame:
        """The next frame, filed where it belongs; SETTINGS and PING are answered."""
        head = self._exactly(9)
        size = int.from_bytes(head[:3], "big")
        got = Frame(head[3], head[4], int.from_bytes(head[5:], "big") & WIDEST, self._exactly(size))
        if got.kind == WINDOW_UPDATE:
            step = struct.unpack(">I", got.payload)[0]
            if got.stream == 0:
                self.window += step
            else:
                self.windows[got.stream] = self.windows.get(got.stream, self.stream_window) + step
        elif got.stream == 0:
            self._connection_frame(got)
        else:
            self._stream_frame(got)
        return got

    def _connection_frame(self, got: Frame) -> None:
        self.others.append(got)
        if got.kind == SETTINGS and not got.flags & ACK:
            for at in range(0, len(got.payload), 6):
                key, value = struct.unpack_from(">HI", got.payload, at)
                self.peer_settings[key] = value
                if key == INITIAL_WINDOW_SIZE:
                    for stream in self.windows:
                        self.windows[stream] += value - self.stream_window
                    self.stream_window = value
            if self.acknowledge:
                self.send(frame(SETTINGS, ACK, 0, b""))
        elif got.kind == PING and not got.flags & ACK and self.acknowledge:
            self.send(frame(PING, ACK, 0, got.payload))

    def _stream_frame(self, got: Frame) -> None:
        reply = self.expect(got.stream)
        reply.frames.append(got)
        if got.kind == HEADERS:
            assert got.flags & END_HEADERS
            reply.blocks.append([(str(name), str(value)) for name, value in self.decoder.decode(got.payload)])
        elif got.kind == DATA:
            reply.body += got.payload
        elif got.kind == RST_STREAM:
            reply.reset = got.error
            reply.ended = True
        if got.ends:
            reply.ended = True

    def answer(self, stream: int) -> Reply:
        """The stream's answer, once it has ended."""
        reply = self.expect(stream)
        while not reply.ended:
            self.read()
        return reply

    def call(self, path: str = INFER_PATH, message: bytes | None = b"", *more: Field, body: bytes | None = None,
             fields: Iterable[Field] | None = None) -> Reply:
        """A unary call. `body` is sent as it is; a message of None with no body is END_STREAM on the header block."""
        chosen = request_fields(path, *more) if fields is None else fields
        if body is None and message is not None:
            body = prefixed(message)
        stream = self.open(chosen, end=body is None)
        if body is not None:
            self.body(stream, body)
        return self.answer(stream)

    def until_closed(self) -> list[Frame]:
        """Reads to the end of the connection; what came on stream 0."""
        try:
            while True:
                self.read()
        except ConnectionEnded:
            return self.others

    def goaways(self) -> list[Frame]:
        return [each for each in self.others if each.kind == GOAWAY]

    def close(self) -> None:
        close: Any = getattr(self.transport, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def window_update(stream: int, step: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", step))


def connect(address: str, **options: Any) -> Peer:
    """A Peer at host:port, [v6]:port or unix:path."""
    return Peer(dial(address), **options)


def dial(address: str) -> socket.socket:
    if address.startswith("unix:"):
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.connect(address.removeprefix("unix:"))
        return link
    host, _, port = address.rpartition(":")
    link = socket.create_connection((host.strip("[]"), int(port)), 20)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


class SessionLink:
    """What `Peer` needs of a transport, over a SessionDriver: reading ends where the session has nothing to say."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.good = True

    def sendall(self, data: bytes) -> None:
        self.good = self.driver.feed(data)

    def recv(self, size: int) -> bytes:
        output: bytes = self.driver.output()
        return output

    def settimeout(self, seconds: float | None) -> None:
        pass
