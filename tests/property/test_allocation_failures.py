"""Every allocation of a connection fails once, alone and with all that follow: a clean status or a closed connection,
nothing left behind, and what comes next is served.

Debug builds only: release builds do not ask. A scenario is run with the first, second, third ... allocation failing,
until a run ends without one having failed.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from infer._core._testing_transport import ENCODINGS, SessionDriver, StreamDriver
from infer.errors import Cancelled, ResourceExhausted
from tests.support.failing import both_ways, fail_each, in_debug_builds
from tests.support.h2_peer import (
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    INFER_PATH,
    INITIAL_WINDOW_SIZE,
    ConnectionEnded,
    Peer,
    Reply,
    frame,
    prefixed,
    request_fields,
    window_update,
)

pytestmark = in_debug_builds

OK, RESOURCE_EXHAUSTED = 0, 8
STREAM_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"
COLD, TALK = "/cold/Method", "/talk/Both"


# A connection.

class Connection:
    """A session over a puppet sink and its peer: what the one says goes to the other until the connection is lost.

    `failed`: whether an allocation was made to fail. A call then ends with RESOURCE_EXHAUSTED, is reset, or goes down
    with its connection; it never stays without an answer.
    """

    def __init__(self, window: int = 1 << 20, **limits: int) -> None:
        self.driver: SessionDriver | None = None
        self.lost = False
        try:
            self.driver = SessionDriver(dict.fromkeys((COLD, TALK), "handler"), streaming={TALK: True},
                                        stream_messages=2, **limits)
        except MemoryError:
            self.lost = True
        self.peer = Peer(self, settings=[(INITIAL_WINDOW_SIZE, window)], wide=window > 65535)

    # What Peer needs of a transport.

    def sendall(self, data: bytes) -> None:
        if not self.lost and not self.driver.feed(data):
            self.lose()

    def recv(self, size: int) -> bytes:
        if self.lost:
            return b""
        try:
            output = self.driver.output()
        except MemoryError:
            output = b""
            self.lose()
        if not output and self.driver.done:
            self.lose()
        return output

    def settimeout(self, seconds: float | None) -> None:
        pass

    def lose(self) -> None:
        self.lost = True
        self.driver.close()

    # Calls.

    def open(self, message: bytes | None = b"question", *more: tuple[str, str], path: str = INFER_PATH,
             **changed: Any) -> int:
        stream = self.peer.open(request_fields(path, *more, **changed))
        if message is not None:
            self.peer.body(stream, message)
        return stream

    def answer(self, *segments: bytes, code: int = OK) -> None:
        """Ends all calls that wait."""
        if not self.lost:
            for number in self.driver.sink.live:
                self.driver.sink.answer(number, code, b"text", segments)
            for call, _ in self.driver.cold:
                self.driver.finish_cold(call, code, b"".join(segments)[5:])
            self.driver.cold.clear()

    def outcome(self, stream: int) -> Reply | None:
        """How the call ended; None: with its connection."""
        try:
            return self.peer.answer(stream)
        except ConnectionEnded:
            assert self.lost, "a call is left without an answer"
            return None

    def ends(self, stream: int, code: int) -> None:
        reply = self.outcome(stream)
        if reply is not None and not (reply.code == -1 and reply.reset == ENHANCE_YOUR_CALM):
            assert reply.code in (code, RESOURCE_EXHAUSTED), reply

    def close(self) -> None:
        if self.driver is not None:
            self.driver.close()
            assert self.driver.sink.live == []
            assert (self.driver.streams, self.driver.buffered_bytes, self.driver.outbound_bytes) == (0, 0, 0)


ANSWER = prefixed(b"answer")


def two_calls(connection: Connection) -> None:
    streams = [connection.open(prefixed(b"one")), connection.open(prefixed(b"two"), ("x-bin", "AAEC"))]
    connection.answer(ANSWER)
    for stream in streams:
        connection.ends(stream, OK)


def large_message(connection: Connection) -> None:
    stream = connection.open(prefixed(bytes(300_000)))
    connection.answer(ANSWER)
    connection.ends(stream, OK)


def large_frame(connection: Connection) -> None:
    """A message in one frame, read where it belongs."""
    stream = connection.open(None)
    whole = frame(DATA, END_STREAM, stream, prefixed(bytes(300_000)))
    if not connection.lost and not connection.driver.feed_in_place(whole):
        connection.lose()
    connection.answer(ANSWER)
    connection.ends(stream, OK)


def many_segments(connection: Connection) -> None:
    stream = connection.open(prefixed(b"q"))
    connection.answer(bytes(10), bytes(5000), bytes(100), bytes(70_000), bytes(1))
    connection.ends(stream, OK)


def refusals(connection: Connection) -> None:
    streams = {
        connection.open(None, content_type="text/html"): 13,
        connection.open(None, ("x", "y" * 20_000)): RESOURCE_EXHAUSTED,
        connection.open(None, path="/no/Such"): 12,
        connection.open(prefixed(b"one") + prefixed(b"two")): 12,
        connection.open(b"\1\0\0\0\1x"): 13,
        connection.open(b""): 12,
    }
    for stream, code in streams.items():
        connection.ends(stream, code)


def cold_call(connection: Connection) -> None:
    stream = connection.open(prefixed(b"abc"), ("grpc-timeout", "1S"), ("x", "y"), path=COLD)
    connection.answer(ANSWER)
    connection.ends(stream, OK)


def talk(connection: Connection) -> None:
    """More messages than may wait, replies in between, metadata both ends, an error at the end."""
    stream = connection.open(None, path=TALK)
    for size in (3, 3000, 0, 20_000, 5, 5):
        connection.peer.body(stream, prefixed(bytes(size)), end=False)
    if connection.lost or not connection.driver.cold:
        connection.ends(stream, RESOURCE_EXHAUSTED)
        return
    driver, [(call, _)] = connection.driver, connection.driver.cold
    try:
        call.send_initial_metadata([("x", "1")])
        driver.send_head(call)
        call.set_trailing_metadata([("y-bin", b"2")])
        for size in (3, 5000, 100, 7):
            driver.write_cold(call, bytes(size))
        while driver.read_cold(call) is not None:
            driver.write_cold(call, b"again")
        driver.finish_cold(call, 14, b"at its end")
    except ResourceExhausted as error:
        driver.finish_cold(call, error.code, error.message.encode())
    except Cancelled:
        # The session has refused what came.
        pass
    driver.cold.clear()
    connection.ends(stream, 14)


def compressed(connection: Connection) -> None:
    """Messages that workers inflate and replies that they compress, one behind the other."""
    message = prefixed(gzip.compress(bytes(300_000)), flag=1)
    stream = connection.open(message, ("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip"), path=TALK)
    if connection.lost or not connection.driver.cold:
        connection.ends(stream, RESOURCE_EXHAUSTED)
        return
    driver, [(call, _)] = connection.driver, connection.driver.cold
    try:
        while driver.jobs:
            driver.code()
        while driver.read_cold(call) is not None:
            pass
        for size in (50_000, 60_000, 3, 70_000):
            driver.write_cold(call, bytes(size))
        driver.finish_cold(call, OK, b"")
    except ResourceExhausted as error:
        driver.finish_cold(call, error.code, error.message.encode())
    except Cancelled:
        # The session has refused what came.
        pass
    driver.cold.clear()
    while driver.jobs:
        driver.code()
    connection.ends(stream, OK)


def infer_stream(connection: Connection) -> None:
    """More requests than may be under way, answered one after the other; one fails in its message."""
    stream = connection.open(None, path=STREAM_PATH)
    for size in (3, 3000, 5, 5):
        connection.peer.body(stream, prefixed(bytes(size)), end=False)
    connection.answer(bytes(10), bytes(5000), bytes(100))
    connection.answer(code=14)
    connection.peer.body(stream, ANSWER)
    # Each reply that goes out lets one more request in.
    for _ in range(5):
        connection.peer._buffer += connection.recv(0)
        connection.answer(ANSWER)
    connection.ends(stream, OK)


def errors(connection: Connection) -> None:
    stream = connection.open(prefixed(b"abc"))
    connection.answer(code=14)
    connection.ends(stream, 14)


def answered_early(connection: Connection) -> None:
    stream = connection.open(None)
    connection.answer(code=14)
    connection.ends(stream, 14)
    connection.peer.send(frame(DATA, END_STREAM, stream, ANSWER))


def cancelled(connection: Connection) -> None:
    stream = connection.open(prefixed(b"abc"))
    connection.peer.reset(stream)
    stream = connection.open(prefixed(b"abc"))
    connection.answer(bytes(100_000))
    connection.peer.reset(stream)


def drained(connection: Connection) -> None:
    stream = connection.open(prefixed(b"abc"))
    if not connection.lost:
        connection.driver.drain()
    connection.answer(ANSWER)
    connection.ends(stream, OK)
    connection.peer.until_closed()
    assert connection.lost


def stopped(connection: Connection) -> None:
    stream = connection.open(prefixed(b"abc"))
    if not connection.lost:
        connection.driver.end_calls(b"the server is stopping")
    connection.ends(stream, 14)


def flooded(connection: Connection) -> None:
    stream = connection.open(None)
    for _ in range(20):
        connection.peer.send(frame(DATA, 0, stream, b""))
    connection.peer.until_closed()
    assert connection.lost or connection.peer.replies[stream].reset == ENHANCE_YOUR_CALM


def narrow(connection: Connection) -> None:
    """A reply that waits for the peer's windows."""
    stream = connection.open(prefixed(b"q"))
    connection.answer(bytes(30_000), bytes(100))
    for _ in range(8):
        connection.peer.send(window_update(stream, 5000))
        while not connection.lost and connection.driver.wants_output:
            connection.peer.read()
    connection.ends(stream, OK)


def served(connection: Connection) -> None:
    stream = connection.open(prefixed(b"after"))
    connection.answer(ANSWER)
    reply = connection.outcome(stream)
    assert reply is not None
    assert reply.message == b"answer"


@both_ways
@pytest.mark.parametrize("scenario", [
    two_calls, large_message, large_frame, many_segments, refusals, cold_call, talk, compressed, infer_stream,
    errors, answered_early, cancelled, drained, stopped, flooded, narrow])
def test_a_connection(scenario: Callable[[Connection], None], and_on: bool):
    ends_it = scenario in (drained, stopped, flooded)

    def play() -> Iterator[None]:
        yield
        connection = Connection(window=100 if scenario is narrow else 1 << 20,
                                reply_encodings=ENCODINGS["gzip"] if scenario is compressed else 0)
        try:
            scenario(connection)
        except ConnectionEnded:
            assert connection.lost, "the session has gone silent"
        yield
        if not connection.lost and not ends_it:
            served(connection)
        connection.close()
        another = Connection()
        served(another)
        another.close()

    assert fail_each(play, and_on) > 20


# A stream by itself.

@both_ways
def test_a_message_that_grows(and_on: bool):
    message = prefixed(bytes(200_000))

    def play() -> Iterator[None]:
        yield
        try:
            driver = StreamDriver()
        except MemoryError:
            yield
            return
        code, text = OK, ""
        for at in range(0, len(message), 16384):
            if code == OK:
                code, text = driver.data(message[at:at + 16384])
        yield
        if code == OK:
            assert driver.body == message
        else:
            assert code == RESOURCE_EXHAUSTED
            assert "memory" in text
            assert StreamDriver().data(message) == (OK, "")

    assert fail_each(play, and_on) > 3
