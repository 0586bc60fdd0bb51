"""Streams of messages over real sockets, with grpcio as the client: what a handler sees, and what its caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest

from infer.errors import FailedPrecondition
from infer.services.call import Call, StreamCall, Streaming
from tests.support.h2_peer import INITIAL_WINDOW_SIZE, Peer, connect, prefixed, request_fields, window_update
from tests.support.native import Served, serve_handlers

ECHO, COUNT, SUM, UNARY, FAIL, FOREVER = (f"/test.Streams/{name}" for name in (
    "Echo", "Count", "Sum", "Unary", "Fail", "Forever"))
UNIMPLEMENTED, INTERNAL = 12, 13
SECONDS = 20


class Handlers:
    """What each test may look at afterwards: events as the handlers saw them."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.running = 0

    async def echo(self, call: StreamCall) -> None:
        self.running += 1
        try:
            while (content := await call.read()) is not None:
                await call.write(content)
            self.events.append("half-closed")
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        finally:
            self.running -= 1

    async def count(self, call: StreamCall) -> None:
        """As many messages as the request says, of as many bytes; then one more read."""
        content = await call.read()
        assert content is not None
        number, size = map(int, content.split())
        for index in range(number):
            await call.write(index.to_bytes(4, "big") + bytes(size))
            self.events.append(index)
        assert await call.read() is None

    async def sum(self, call: StreamCall) -> None:
        total = 0
        while (content := await call.read()) is not None:
            total += int(content)
        await call.write(str(total).encode())

    async def unary(self, call: Call) -> bytes:
        call.send_initial_metadata([("first", "1"), ("first-bin", b"\0\1")])
        call.set_trailing_metadata([("last", "2"), ("grpc-status-details-bin", b"\xff")])
        if call.message == b"fail":
            call.abort(FailedPrecondition.code, "grün")
        return bytes(reversed(call.message))

    async def fail(self, call: StreamCall) -> None:
        """After as many messages as the request says."""
        content = await call.read()
        call.set_trailing_metadata([("last-bin", b"\2")])
        if content == b"head":
            call.send_initial_metadata([("first", "1")])
        else:
            for _ in range(int(content or b"0")):
                await call.write(b"m")
        raise FailedPrecondition("nöt so")

    async def forever(self, call: StreamCall) -> None:
        self.running += 1
        try:
            await call.write(b"here")
            await asyncio.get_running_loop().create_future()
        finally:
            self.running -= 1

    def table(self) -> dict[str, Any]:
        return {ECHO: Streaming(self.echo), COUNT: Streaming(self.count, client_streams=False),
                SUM: Streaming(self.sum), UNARY: self.unary, FAIL: Streaming(self.fail),
                FOREVER: Streaming(self.forever)}


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def served(handlers: Handlers) -> Iterator[Served]:
    with serve_handlers(handlers.table()) as serving:
        yield serving


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(served.address, options) as connected:
        yield connected


def pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(each.key, each.value) for each in metadata]


def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError):
        list(call)
    return call.code(), call.details()


class Feed:
    """A request iterator that a test fills."""

    def __init__(self) -> None:
        self._items: list[bytes | None] = []
        self._changed = threading.Condition()

    def put(self, *items: bytes | None) -> None:
        with self._changed:
            self._items += items
            self._changed.notify()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                assert self._changed.wait_for(lambda: self._items, SECONDS)
                item = self._items.pop(0)
            if item is None:
                return
            yield item


@pytest.mark.parametrize("sizes", [(), (0,), (5,), (0, 1, 0), (70_000, 3, 200_000), (5 << 20,), (10,) * 3000])
def test_messages_come_back_in_order(channel: grpc.Channel, handlers: Handlers, sizes: Sequence[int]):
    sent = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    call = channel.stream_stream(ECHO)(iter(sent), timeout=SECONDS)
    assert list(call) == sent
    assert call.code() is grpc.StatusCode.OK
    assert handlers.events == ["half-closed"]


def test_one_message_at_a_time_either_way(channel: grpc.Channel):
    feed = Feed()
    call = channel.stream_stream(ECHO)(iter(feed), timeout=SECONDS)
    for number in range(200):
        feed.put(b"%d" % number)
        assert next(call) == b"%d" % number
    feed.put(None)
    with pytest.raises(StopIteration):
        next(call)
    assert call.code() is grpc.StatusCode.OK


def test_server_streaming(channel: grpc.Channel):
    got = list(channel.unary_stream(COUNT)(b"500 1000", timeout=SECONDS))
    assert got == [number.to_bytes(4, "big") + bytes(1000) for number in range(500)]


def test_client_streaming(channel: grpc.Channel):
    assert channel.stream_unary(SUM)(iter([b"1", b"20", b"300"]), timeout=SECONDS) == b"321"


def test_metadata_of_a_unary_call(channel: grpc.Channel):
    reply, call = channel.unary_unary(UNARY).with_call(b"abc", timeout=SECONDS)
    assert reply == b"cba"
    assert pairs(call.initial_metadata()) == [("first", "1"), ("first-bin", b"\0\1")]
    assert pairs(call.trailing_metadata()) == [("last", "2"), ("grpc-status-details-bin", b"\xff")]
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(UNARY)(b"fail", timeout=SECONDS)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "grün")
    assert pairs(error.initial_metadata()) == [("first", "1"), ("first-bin", b"\0\1")]
    assert pairs(error.trailing_metadata()) == [("last", "2"), ("grpc-status-details-bin", b"\xff")]


@pytest.mark.parametrize("sent", [b"0", b"3", b"head"])
def test_a_stream_that_fails(channel: grpc.Channel, sent: bytes):
    call = channel.stream_stream(FAIL)(iter([sent]), timeout=SECONDS)
    if sent == b"3":
        assert [next(call) for _ in range(3)] == [b"m"] * 3
    assert status_of(call) == (grpc.StatusCode.FAILED_PRECONDITION, "nöt so")
    assert pairs(call.initial_metadata()) == ([("first", "1")] if sent == b"head" else [])
    assert pairs(call.trailing_metadata()) == [("last-bin", b"\2")]


@pytest.mark.parametrize(("sent", "kinds"), [(b"0", 1), (b"3", 2), (b"head", 2)])
def test_an_error_is_trailers_only_until_something_was_sent(served: Served, sent: bytes, kinds: int):
    with connect(served.address) as peer:
        reply = peer.call(FAIL, sent)
        assert (len(reply.blocks), reply.trailers_only, reply.code) == (kinds, kinds == 1, 9)


def test_initial_metadata_goes_out_at_once(served: Served, channel: grpc.Channel, handlers: Handlers):
    del channel
    with connect(served.address) as peer:
        stream = peer.open(request_fields(FOREVER))
        while not peer.expect(stream).body:
            peer.read()
        assert peer.replies[stream].body == prefixed(b"here")
        assert not peer.replies[stream].ended
        peer.reset(stream)
        peer.ping()
        served.until(lambda: handlers.running == 0)


@pytest.mark.parametrize(("path", "body", "code"), [
    (COUNT, b"", UNIMPLEMENTED), (COUNT, prefixed(b"1 1") * 2, UNIMPLEMENTED), (UNARY, b"", UNIMPLEMENTED),
    (UNARY, prefixed(b"a") * 2, UNIMPLEMENTED), (COUNT, prefixed(b"1 1")[:-1], INTERNAL), (ECHO, b"", 0),
    (ECHO, prefixed(b"a") + b"\0\0", INTERNAL), (ECHO, prefixed(b"a") + prefixed(b"bc")[:-1], INTERNAL),
    (ECHO, prefixed(b"a") + prefixed(b"b", flag=1), INTERNAL), (ECHO, prefixed(b"a") + b"\7\0\0\0\0", INTERNAL),
    (ECHO, prefixed(b"a") + prefixed(b"", announced=1 << 31), 8)])
def test_B39_B44_how_many_messages_and_whole_ones(served: Served, path: str, body: bytes, code: int):
    with connect(served.address) as peer:
        reply = peer.call(path, None, body=body) if body else peer.call(path, None)
        assert reply.code == code, reply.text
        assert peer.call(SUM, b"4").code == 0


def test_cancellation_reaches_the_handler(served: Served, channel: grpc.Channel, handlers: Handlers):
    feed = Feed()
    call = channel.stream_stream(ECHO)(iter(feed), timeout=SECONDS)
    feed.put(b"a")
    assert next(call) == b"a"
    call.cancel()
    served.until(lambda: handlers.events == ["cancelled"])
    feed.put(None)


def test_the_deadline_ends_the_stream(served: Served, handlers: Handlers):
    with connect(served.address) as peer:
        stream = peer.open(request_fields(FOREVER, ("grpc-timeout", "50m")))
        reply = peer.answer(stream)
        assert (reply.code, reply.body) == (4, prefixed(b"here"))
        served.until(lambda: handlers.running == 0)


def test_a_thousand_calls_cancelled_at_once_leave_the_connection(served: Served, channel: grpc.Channel,
                                                                 handlers: Handlers):
    calls = [channel.stream_stream(FOREVER)(iter(()), timeout=SECONDS) for _ in range(1000)]
    for call in calls:
        assert next(call) == b"here"
    assert served.snapshot()["streams"] == 1000
    for call in calls:
        call.cancel()
    served.until(lambda: handlers.running == 0)
    assert channel.stream_unary(SUM)(iter([b"1", b"2"]), timeout=SECONDS) == b"3"
    snapshot = served.snapshot()
    assert (snapshot["connections"], snapshot["connections_total"]) == (1, 1)


def test_a_reader_that_does_not_read_makes_the_handler_wait(served: Served, handlers: Handlers):
    with narrow_peer(served, window=0) as peer:
        stream = peer.open(request_fields(COUNT))
        peer.body(stream, prefixed(b"1000 10000"))
        peer.ping()
        served.until(lambda: len(handlers.events) >= 27)
        peer.ping()
        written = len(handlers.events)
        assert written == (256 << 10) // 10_009 + 1
        assert served.snapshot()["outbound_bytes"] <= (256 << 10) + 10_009
        peer.send(window_update(stream, 1 << 30))
        reply = peer.answer(stream)
        assert reply.code == 0
        assert len(reply.body) == 1000 * 10_009


def narrow_peer(served: Served, window: int) -> Peer:
    return connect(served.address, settings=[(INITIAL_WINDOW_SIZE, window)])
