"""A process of slow peers: `python -m bench.load.slow HOST PORT readers|senders COUNT BODY`.

Every one is a connection of its own. Readers open all windows and ask for CALLS replies with the framed message in the
file BODY; half of them then read a byte a second, the others nothing. Senders send BODY byte by byte, a DATA frame each
SEND_S. Prints `open COUNT` when all have begun, goes on until a line comes on its input, prints `still COUNT` with how
many connections the server has not closed, and ends.
"""

import select
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.load.idle import PREFACE, SETTINGS, frame, is_open
from bench.targets import SERVICE

DATA, HEADERS, WINDOW_UPDATE = 0x0, 0x1, 0x8
END_STREAM, END_HEADERS = 0x1, 0x4
INITIAL_WINDOW_SIZE, LARGEST_WINDOW, FIRST_WINDOW = 4, (1 << 31) - 1, 65535
FRAME_BYTES = 16384
RECEIVE_BUFFER_BYTES = 4096
CALLS = 8
READ_S, SEND_S = 1.0, 0.1
CONNECT_S = 30.0


def request_headers(stream_id: int) -> bytes:
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"{SERVICE}/ModelInfer"),
        (":authority", "bench"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    # Literals that are not indexed: nothing depends on what came before.
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields
    )
    return frame(HEADERS, END_HEADERS, block, stream_id)


def call(stream_id: int, body: bytes) -> bytes:
    """A whole request."""
    pieces = [body[at : at + FRAME_BYTES] for at in range(0, len(body), FRAME_BYTES)]
    ends = [0] * (len(pieces) - 1) + [END_STREAM]
    frames = (frame(DATA, end, piece, stream_id) for piece, end in zip(pieces, ends, strict=True))
    return request_headers(stream_id) + b"".join(frames)


def connect(host: str, port: int, greeting: bytes) -> socket.socket:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    opened.settimeout(CONNECT_S)
    opened.connect((host, port))
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.sendall(PREFACE + greeting)
    # The server's SETTINGS have to be acknowledged, and that they have come is all that is read of them.
    opened.recv(9)
    opened.sendall(frame(SETTINGS, 1))
    return opened


@dataclass
class Reader:
    connection: socket.socket
    reads: bool

    def tick(self) -> None:
        if self.reads:
            self.connection.recv(1)


@dataclass
class Sender:
    connection: socket.socket
    body: bytes
    at: int = 0

    def tick(self) -> None:
        self.connection.sendall(frame(DATA, 0, self.body[self.at : self.at + 1], 1))
        self.at += 1


def open_reader(host: str, port: int, body: bytes, number: int) -> Reader:
    windows = frame(SETTINGS, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW))
    windows += frame(WINDOW_UPDATE, 0, struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW))
    connection = connect(host, port, windows)
    for index in range(CALLS):
        connection.sendall(call(2 * index + 1, body))
    return Reader(connection, number % 2 == 0)


def open_sender(host: str, port: int, body: bytes) -> Sender:
    connection = connect(host, port, frame(SETTINGS))
    connection.sendall(request_headers(1))
    return Sender(connection, body)


def keep_on(peers: list[Reader] | list[Sender], each_s: float) -> None:
    """Every peer's tick once in `each_s`, evenly spread, until there is a line to read."""
    due_s = time.monotonic()
    number = 0
    while not select.select([sys.stdin], [], [], max(0.0, due_s - time.monotonic()))[0]:
        # A connection that the server has closed is counted at the end.
        with suppress(OSError):
            peers[number % len(peers)].tick()
        number += 1
        due_s += each_s / len(peers)


def main() -> None:
    host, port, kind, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), Path(sys.argv[5])
    body = path.read_bytes()
    peers: list[Reader] | list[Sender]
    if kind == "readers":
        peers = [open_reader(host, port, body, number) for number in range(count)]
    else:
        peers = [open_sender(host, port, body) for _ in range(count)]
    for peer in peers:
        peer.connection.setblocking(False)
    print(f"open {len(peers)}", flush=True)
    keep_on(peers, READ_S if kind == "readers" else SEND_S)
    print(f"still {sum(is_open(peer.connection) for peer in peers)}", flush=True)


if __name__ == "__main__":
    main()
