"""The load generator's messages on long-lived streams, against a grpc.aio server and a peer that misbehaves."""

import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from infer._core import load_client
from tests.support.scripted_peer import DATA, frame, headers, scripted_peer
from tests.unit.test_load_client import PATH, Echo, serving


class StreamEcho(Echo):
    """Answers each message of a stream with `answers`; counts messages and streams."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = self.ended = 0

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(self.stream) if call.method == PATH else None

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.streams += 1
        async for request in requests:
            self.calls += 1
            for reply in await self.answers(request, context):
                yield reply
        self.ended += 1
        await self.end(context)

    async def answers(self, request: bytes, context: Any) -> list[bytes]:
        return [request]

    async def end(self, context: Any) -> None:
        pass


def opening(stream: int) -> bytes:
    return headers(stream, (":status", "200"), ("content-type", "application/grpc"))


def message(content: bytes) -> bytes:
    return struct.pack(">BI", 0, len(content)) + content


@pytest.mark.parametrize(("connections", "streams", "messages"), [(1, 1, 1), (1, 1, 16), (3, 4, 8)])
def test_counts_agree_with_the_server(connections: int, streams: int, messages: int) -> None:
    echo = StreamEcho()
    with serving(echo) as address:
        result = load_client.run(
            address, PATH, b"payload", connections, streams, stream_messages=messages, requests=500)
    assert (result.sent, result.ok, result.measured, echo.calls) == (500, 500, 500, 500)
    assert (result.statuses, result.failures, result.reason) == ({"OK": 500}, {}, "")
    assert (result.first_reply, result.reply_bytes) == (b"payload", 7)
    assert (echo.streams, echo.ended) == (connections * streams, connections * streams)
    assert result.peak_in_flight == connections * streams * messages
    assert 0 < result.min_us <= result.p50_us <= result.max_us


def test_empty_and_large_messages() -> None:
    with serving(StreamEcho()) as address:
        assert load_client.run(address, PATH, b"", stream_messages=4, requests=9).first_reply == b""
        large = bytes(range(256)) * 8192
        assert load_client.run(address, PATH, large, 1, 2, stream_messages=3, requests=9).first_reply == large


def test_duration_ends_the_run() -> None:
    echo = StreamEcho()
    with serving(echo) as address:
        result = load_client.run(address, PATH, b"x", 1, 2, stream_messages=2, duration_s=0.05, warmup_s=0.02)
    assert result.sent == result.ok == echo.calls
    assert 0 < result.measured <= result.ok


def test_open_loop() -> None:
    with serving(StreamEcho()) as address:
        result = load_client.run(address, PATH, b"x", 2, 1, stream_messages=4, rate=1000, requests=50)
    assert (result.sent, result.ok, result.failures) == (50, 50, {})


def test_replies_that_are_errors() -> None:
    class EveryThird(StreamEcho):
        async def answers(self, request: bytes, context: Any) -> list[bytes]:
            return [b"\x0a\x0dno such model"] if self.calls % 3 == 0 else [request]

    with serving(EveryThird()) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=2, requests=30)
    assert (result.ok, result.measured, result.failures) == (20, 20, {"error_message": 10})
    assert result.reason == "error message: no such model"


def test_only_errors_are_a_result_too() -> None:
    class Errors(StreamEcho):
        async def answers(self, request: bytes, context: Any) -> list[bytes]:
            return [b"\x0a\xc8\x01" + b"e" * 200]

    with serving(Errors()) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=2, requests=4)
    assert (result.ok, result.failures) == (0, {"error_message": 4})
    assert result.reason.startswith("error message: eee")


def test_stream_that_ends_with_a_status_is_opened_again() -> None:
    class Fifth(StreamEcho):
        async def answers(self, request: bytes, context: Any) -> list[bytes]:
            if self.calls % 5 == 0:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
            return [request]

    echo = Fifth()
    with serving(echo) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=1, requests=20)
    assert (result.sent, result.statuses, result.failures) == (20, {"OK": 16, "NOT_FOUND": 4}, {})
    assert "no such thing" in result.reason
    assert echo.streams >= 4


def test_messages_of_a_stream_that_ends_in_order_are_unanswered() -> None:
    class Once(StreamEcho):
        async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield request
                break

    with serving(Once()) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=3, requests=30)
    assert result.ok >= 1
    assert result.failures == {"unanswered": 30 - result.ok}


def test_status_after_the_last_reply() -> None:
    class Late(StreamEcho):
        async def end(self, context: Any) -> None:
            await context.abort(grpc.StatusCode.DATA_LOSS, "too late")

    with serving(Late()) as address:
        result = load_client.run(address, PATH, b"x", 2, 1, stream_messages=4, requests=10)
    assert (result.ok, result.failures) == (10, {"stream_end": 2})
    assert "too late" in result.reason


def test_more_replies_than_messages() -> None:
    class Twice(StreamEcho):
        async def answers(self, request: bytes, context: Any) -> list[bytes]:
            return [request, request] if self.calls == 3 else [request]

    with serving(Twice()) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=1, requests=3)
    assert (result.ok, result.failures) == (3, {"stream_end": 1})
    assert "more replies than messages" in result.reason


def test_reply_of_another_length() -> None:
    class Growing(StreamEcho):
        async def answers(self, request: bytes, context: Any) -> list[bytes]:
            return [request * 2 if self.calls == 4 else request]

    with serving(Growing()) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=2, requests=10)
    assert (result.ok, result.failures) == (9, {"wrong_length": 1})


def test_replies_in_frames_of_one_byte() -> None:
    def script(number: int, stream: int) -> bytes:
        body = b"".join(frame(DATA, 0, stream, bytes([byte])) for byte in message(b"\x12abc"))
        end = headers(stream, ("grpc-status", "0"), end=True)
        return (opening(stream) if number == 0 else b"") + (body if number < 3 else end)

    with scripted_peer(script, each_frame=True) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=1, requests=3)
    assert (result.ok, result.failures, result.first_reply) == (3, {}, b"\x12abc")


def test_server_that_stops_answering() -> None:
    def script(number: int, stream: int) -> bytes:
        return (opening(stream) if number == 0 else b"") + frame(DATA, 0, stream, message(b"x")) if number < 3 else b""

    with scripted_peer(script, each_frame=True) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=1, requests=100, stall_s=0.05)
    assert (result.sent, result.ok, result.failures) == (4, 3, {"unanswered": 1})
    assert "given up" in result.reason


def test_stream_that_the_server_does_not_end() -> None:
    def script(number: int, stream: int) -> bytes:
        return opening(stream) + frame(DATA, 0, stream, message(b"x")) if number == 0 else b""

    with scripted_peer(script, each_frame=True) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=1, requests=1, stall_s=0.05)
    assert (result.ok, result.failures) == (1, {"stream_end": 1})


def test_connection_closed_in_mid_run() -> None:
    def script(number: int, stream: int) -> bytes | None:
        return opening(stream) + frame(DATA, 0, stream, message(b"x")) if number == 0 else None

    with scripted_peer(script, each_frame=True) as address:
        result = load_client.run(address, PATH, b"x", stream_messages=1, requests=100)
    assert (result.sent, result.ok, result.failures) == (2, 1, {"connection_lost": 1})
