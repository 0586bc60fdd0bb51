"""An HTTP/2 server that says exactly what a test wrote down: for replies that no well-behaved server gives."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PREFACE_BYTES = 24
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x7
END_STREAM, END_HEADERS = 0x1, 0x4

Script = Callable[[int, int], bytes | None]
"""(number of the request from 0, its stream) -> bytes to send; None closes the connection.

Of a peer for streams: (number of the DATA frame from 0, its stream), whether or not the request ends with it.
"""


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id) + payload


def header_block(*headers: tuple[str, str]) -> bytes:
    """Literal header fields, never indexed: no compression state."""
    return b"".join(b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
                    for name, value in headers)


def headers(stream_id: int, *fields: tuple[str, str], end: bool = False) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, header_block(*fields))


def settings(**values: int) -> bytes:
    numbers = {"max_concurrent_streams": 3, "initial_window_size": 4}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items()))


def reply(stream_id: int, message: bytes = b"abc", status: str = "0") -> bytes:
    """A whole unary reply."""
    body = struct.pack(">BI", 0, len(message)) + message
    start = headers(stream_id, (":status", "200"), ("content-type", "application/grpc"))
    return start + frame(DATA, 0, stream_id, body) + headers(stream_id, ("grpc-status", status), end=True)


def reset(stream_id: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


def goaway(last_stream_id: int, code: int = 0) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream_id, code))


def _read_exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def _serve(listener: socket.socket, greeting: bytes, script: Script, each_frame: bool) -> None:
    with suppress(OSError), listener.accept()[0] as peer:
        _read_exactly(peer, PREFACE_BYTES)
        peer.sendall(greeting)
        number = 0
        while True:
            head = _read_exactly(peer, 9)
            _read_exactly(peer, int.from_bytes(head[:3], "big"))
            if head[3] == DATA if each_frame else head[3] in (DATA, HEADERS) and head[4] & END_STREAM:
                answer = script(number, int.from_bytes(head[5:], "big"))
                number += 1
                if answer is None:
                    return
                peer.sendall(answer)


@contextmanager
def scripted_peer(script: Script, greeting: bytes | None = None, *, each_frame: bool = False) -> Iterator[str]:
    """Address of a server for one connection. The greeting is its SETTINGS, unless the test has another."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(
            target=_serve, args=(listener, settings() if greeting is None else greeting, script, each_frame),
            daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)
        assert not thread.is_alive()
