"""An Endpoint over puppets of sockets: what is written when, and who is cut, by a clock that is stepped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from infer._core import clock
from infer._core._testing_transport import PuppetSink
from infer._core.protocol import Endpoint
from tests.support.h2_peer import Peer, prefixed, request_fields

SECOND = 1_000_000_000


class Socket:
    """An asyncio transport for a Connection, and a socket for a Peer: what one writes the other reads."""

    def __init__(self, bench: Bench, room: int = 1 << 40, tls: bool = False) -> None:
        self.bench = bench
        self.room = room                    # bytes that the peer's side takes before writing is paused
        self.connection: Any = bench.endpoint.tls_connection() if tls else bench.endpoint.connection()
        self.sent = bytearray()
        self.unread = b""                   # by the Connection, which does not want to
        self.paused = False
        self.writes = 0
        self.closing = False
        self.aborted = False
        self.half_closed = False
        self.closes = True
        self.lost = False
        self.fails = False
        self.read_in_place = 0
        self.connection.connection_made(self)
        self.shared_room = memoryview(self.connection.get_buffer(-1)).obj

    # For the Connection.

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", 50000

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert 0 < low < high

    def write(self, data: Any) -> None:
        self.writelines([data])

    def writelines(self, pieces: list[Any]) -> None:
        if self.fails:
            raise MemoryError
        self.writes += 1
        for piece in pieces:
            self.sent += piece
        if len(self.sent) > self.room:
            self.connection.pause_writing()

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def close(self) -> None:
        self.closing = True

    def write_eof(self) -> None:
        """The peer closes when it has read all, unless it is one that does not."""
        assert not self.half_closed
        self.half_closed = True
        if self.closes and not self.connection.eof_received():
            self.closing = True

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def abort(self) -> None:
        self.closing = self.aborted = True

    # For the Peer.

    def sendall(self, data: bytes) -> None:
        self.unread += data
        self.deliver()
        while self.bench.turns and not self.bench.steps:
            self.bench.turn()

    def deliver(self) -> None:
        while self.unread and not self.paused:
            room = memoryview(self.connection.get_buffer(-1))
            size = min(len(room), len(self.unread))
            room[:size] = self.unread[:size]
            self.unread = self.unread[size:]
            if room.obj is not self.shared_room:
                self.read_in_place += size
            room.release()
            self.connection.buffer_updated(size)

    def recv(self, size: int) -> bytes:
        data = bytes(self.sent)
        self.sent.clear()
        return data

    def settimeout(self, seconds: float | None) -> None:
        pass

    def lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.connection.connection_lost(None)


class Bench:
    """An Endpoint with a puppet behind it."""

    def __init__(self, **limits: Any) -> None:
        self.sink = PuppetSink()
        self.turns: list[Callable[[], None]] = []
        self.steps = False                  # turns of the loop are taken by `turn`, and not as soon as one is asked for
        self.endpoint = Endpoint(self.sink, {}, self.never, self.never, self.turns.append, **limits)
        self.sockets: list[Socket] = []

    def never(self, *_: Any) -> Any:
        raise AssertionError("no cold call is made here")

    def connect(self, room: int = 1 << 40, greet: bool = True, **options: Any) -> tuple[Socket, Peer]:
        socket = Socket(self, room)
        self.sockets.append(socket)
        peer = Peer(socket, greet=greet, **options)
        if greet and options.get("acknowledge", True):
            peer.until_closed()
        return socket, peer

    def turn(self) -> None:
        asked = self.turns[:]
        self.turns.clear()
        for each in asked:
            each()
        for socket in self.sockets:
            socket.deliver()

    def wait(self, seconds: float) -> None:
        """Time passes, looked at every second."""
        left = round(seconds * SECOND)
        while left > 0:
            clock.advance(min(left, SECOND))
            left -= SECOND
            self.endpoint.check_timeouts()
            for socket in self.sockets:
                if socket.aborted:
                    socket.lose()

    def refused(self, limit: str) -> int:
        return int(self.endpoint.snapshot()["refused"][limit])


def called(peer: Peer) -> int:
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(b"q"))
    return stream
