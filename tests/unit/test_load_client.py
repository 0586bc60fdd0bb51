"""The load generator against a grpc.aio server and against a peer that misbehaves on purpose."""

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from infer._core import load_client
from tests.support.scripted_peer import goaway, headers, reply, reset, scripted_peer, settings

PATH = "/test.Echo/Call"


class Echo(grpc.GenericRpcHandler):
    """Answers PATH with `answer`; counts the calls and keeps the first one's deadline."""

    def __init__(self) -> None:
        self.calls = 0
        self.remaining_s: float | None = None

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.call) if call.method == PATH else None

    async def call(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        self.remaining_s = context.time_remaining()
        return await self.answer(request, context)

    async def answer(self, request: bytes, context: Any) -> bytes:
        return request


class Noting(Echo):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[bytes] = []

    async def answer(self, request: bytes, context: Any) -> bytes:
        self.requests.append(request)
        return request


@contextmanager
def serving(echo: Echo, address: str = "127.0.0.1:0") -> Iterator[str]:
    """A grpc.aio server on a thread of its own; yields its address."""
    started: list[Any] = []
    is_up = threading.Event()

    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([echo])
        port = server.add_insecure_port(address)
        await server.start()
        stop = asyncio.Event()
        started.extend([asyncio.get_running_loop(), stop, address.replace(":0", f":{port}")])
        is_up.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert is_up.wait(30)
    try:
        yield started[2]
    finally:
        started[0].call_soon_threadsafe(started[1].set)
        thread.join()


def test_counts_agree_with_the_server() -> None:
    echo = Echo()
    with serving(echo) as address:
        result = load_client.run(address, PATH, b"payload", 3, 8, requests=500)
    assert (result.sent, result.ok, result.measured, echo.calls) == (500, 500, 500, 500)
    assert (result.statuses, result.failures, result.reason) == ({"OK": 500}, {}, "")
    assert (result.first_reply, result.reply_bytes) == (b"payload", 7)
    assert 8 < result.peak_in_flight <= 24
    assert 0 < result.min_us <= result.p50_us <= result.p90_us <= result.p99_us <= result.p999_us <= result.max_us
    assert result.min_us <= result.mean_us <= result.max_us
    assert result.rate == pytest.approx(500 / result.duration_s)
    assert 0 <= result.cpu_share <= 1.1


def test_unix_socket(tmp_path: Path) -> None:
    with serving(Echo(), f"unix:{tmp_path}/socket") as address:
        assert load_client.run(address, PATH, b"x", 2, 2, requests=20).ok == 20


def test_empty_and_large_payloads() -> None:
    echo = Echo()
    with serving(echo) as address:
        assert load_client.run(address, PATH, b"", requests=3).first_reply == b""
        large = bytes(range(256)) * 8192
        assert load_client.run(address, PATH, large, 1, 3, requests=9).first_reply == large


def test_duration_ends_the_run() -> None:
    echo = Echo()
    with serving(echo) as address:
        result = load_client.run(address, PATH, b"x", 1, 4, duration_s=0.05, warmup_s=0.02)
    assert result.sent == result.ok == echo.calls
    assert 0 < result.measured <= result.ok


def test_warm_up_is_counted_but_not_measured() -> None:
    echo = Echo()
    with serving(echo) as address:
        result = load_client.run(address, PATH, b"x", requests=30, warmup_s=1000)
    assert (result.sent, result.ok, result.measured, result.rate, echo.calls) == (30, 30, 0, 0.0, 30)


def test_statuses_are_counted_by_code() -> None:
    class EveryThird(Echo):
        async def answer(self, request: bytes, context: Any) -> bytes:
            if self.calls % 3 == 0:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
            return request

    with serving(EveryThird()) as address:
        result = load_client.run(address, PATH, b"x", requests=30)
    assert result.statuses == {"OK": 20, "NOT_FOUND": 10}
    assert (result.ok, result.measured, result.failures) == (20, 20, {})
    assert "no such thing" in result.reason


def test_unknown_method_is_a_status() -> None:
    with serving(Echo()) as address:
        result = load_client.run(address, "/test.Echo/Other", b"x", requests=4)
    assert (result.statuses, result.ok, result.first_reply) == ({"UNIMPLEMENTED": 4}, 0, None)


@pytest.mark.parametrize(("expected", "wrong"), [(None, 1), (1, 1), (2, 9), (99, 10)])
def test_wrong_length_is_a_failure(expected: int | None, wrong: int) -> None:
    class FifthIsLonger(Echo):
        async def answer(self, request: bytes, context: Any) -> bytes:
            return request * 2 if self.calls == 5 else request

    with serving(FifthIsLonger()) as address:
        result = load_client.run(address, PATH, b"x", requests=10, expected_bytes=expected)
    assert result.failures == {"wrong_length": wrong}
    assert result.ok == 10 - wrong
    assert result.statuses == {"OK": 10}


@pytest.mark.parametrize("timeout_s", [50.0, 250.0, 200_000.0])
def test_timeout_travels_in_each_unit(timeout_s: float) -> None:
    echo = Echo()
    with serving(echo) as address:
        load_client.run(address, PATH, b"x", requests=1, timeout_s=timeout_s)
        assert echo.remaining_s is not None
        assert timeout_s / 2 < echo.remaining_s <= timeout_s
        load_client.run(address, PATH, b"x", requests=1)
        assert echo.remaining_s is None or echo.remaining_s > 1e6


def test_open_loop_sends_what_is_scheduled() -> None:
    echo = Echo()
    with serving(echo) as address:
        result = load_client.run(address, PATH, b"x", 2, 4, rate=1000, duration_s=0.1, warmup_s=0.05)
    assert (result.sent, result.ok, echo.calls) == (150, 150, 150)
    assert result.measured == 100
    assert result.peak_in_flight <= 8


def test_open_loop_latency_counts_from_the_schedule() -> None:
    """All 300 are due within 299 us and go one by one, so that the last one's latency is nearly the whole run."""
    with serving(Echo()) as address:
        result = load_client.run(address, PATH, b"x", 1, 1, rate=1e6, requests=300)
    assert (result.sent, result.ok, result.peak_in_flight) == (300, 300, 1)
    assert result.max_us >= result.duration_s * 1e6 - 300


def test_connection_refused() -> None:
    with scripted_peer(lambda number, stream: None) as address:
        pass
    with pytest.raises(ConnectionError, match="connection 0 of 1"):
        load_client.run(address, PATH, b"x", requests=1)
    with pytest.raises(ConnectionError, match="No such file"):
        load_client.run("unix:/nonexistent/socket", PATH, b"x", requests=1)


@pytest.mark.parametrize("address", ["", "host", "host:", ":8001", "host:port"])
def test_bad_address(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        load_client.run(address, PATH, b"x", requests=1)


@pytest.mark.parametrize("options", [{}, {"requests": 0}, {"requests": 1, "rate": 0}, {"requests": 1, "streams": 0}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"run needs|positive"):
        load_client.run("127.0.0.1:1", PATH, b"x", **options)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (lambda stream: reset(stream, 8), "stream_reset"),
        (lambda stream: reset(stream, 7), "stream_refused"),
        (lambda stream: headers(stream, (":status", "503"), end=True), "http_status"),
        (lambda stream: headers(stream, (":status", "200"), end=True), "no_grpc_status"),
        (lambda stream: headers(stream, (":status", "200"), ("grpc-status", "0"), end=True), "wrong_length"),
    ],
)
def test_a_stream_that_fails_is_counted(fault: Any, name: str) -> None:
    with scripted_peer(lambda number, stream: fault(stream) if number == 2 else reply(stream)) as address:
        result = load_client.run(address, PATH, b"x", requests=6)
    assert (result.sent, result.ok, result.failures) == (6, 5, {name: 1})
    assert result.reason


def test_status_that_grpc_does_not_have() -> None:
    with scripted_peer(lambda number, stream: reply(stream, status="77" if number else "0")) as address:
        result = load_client.run(address, PATH, b"x", requests=3)
    assert result.statuses == {"OK": 1, "OTHER": 2}


def test_connection_closed_in_mid_run() -> None:
    with scripted_peer(lambda number, stream: reply(stream) if number < 7 else None) as address:
        result = load_client.run(address, PATH, b"x", 1, 2, requests=1000)
    assert result.ok <= 7
    assert result.failures == {"connection_lost": result.sent - result.ok}
    assert result.sent < 1000
    assert result.reason


def test_connection_closed_before_any_reply() -> None:
    with scripted_peer(lambda number, stream: None) as address, pytest.raises(ConnectionError, match="no reply"):
        load_client.run(address, PATH, b"x", 1, 2, requests=10)


def test_goaway_ends_the_connection_after_its_last_stream() -> None:
    def script(number: int, stream: int) -> bytes:
        return goaway(stream) + reply(stream) if number == 3 else reply(stream)

    with scripted_peer(script) as address:
        result = load_client.run(address, PATH, b"x", 1, 1, requests=1000)
    assert (result.sent, result.ok, result.failures) == (4, 4, {})
    assert "GOAWAY" in result.reason


def test_goaway_refuses_the_streams_beyond() -> None:
    """Four calls are sent together; the answer names the first as the last that was looked at."""

    def script(number: int, stream: int) -> bytes:
        return b"" if number < 3 else reply(1) + goaway(1)

    with scripted_peer(script) as address:
        result = load_client.run(address, PATH, b"x", 1, 4, requests=4)
    assert (result.sent, result.ok, result.failures) == (4, 1, {"stream_refused": 3})


def test_server_that_stops_answering() -> None:
    with scripted_peer(lambda number, stream: reply(stream) if number < 3 else b"") as address:
        result = load_client.run(address, PATH, b"x", 1, 2, requests=100, stall_s=0.05)
    assert (result.sent, result.ok, result.failures) == (5, 3, {"unanswered": 2})
    assert "given up" in result.reason


def test_open_loop_counts_what_was_never_sent() -> None:
    with scripted_peer(lambda number, stream: b"" if number else reply(stream)) as address:
        result = load_client.run(address, PATH, b"x", 1, 1, rate=1e6, requests=10, stall_s=0.05)
    assert (result.sent, result.ok) == (2, 1)
    assert result.failures == {"unanswered": 1, "not_started": 8}


@pytest.mark.parametrize("limits", [{"timeout_s": 0.5}, {"patience_s": 0.5}, {"timeout_s": 60, "patience_s": 0.5}])
def test_open_loop_gives_up_in_time_what_found_no_stream(limits: dict[str, float]) -> None:
    with scripted_peer(lambda number, stream: b"" if number else reply(stream)) as address:
        result = load_client.run(address, PATH, b"x", 1, 1, rate=1e6, requests=10, stall_s=1.5, **limits)
    assert (result.sent, result.ok) == (2, 1)
    assert result.failures == {"unanswered": 1, "not_started": 8}
    assert result.reason == "not started: no stream was free in time"


def test_fewer_streams_than_asked_for() -> None:
    answers = settings(max_concurrent_streams=2)
    with scripted_peer(lambda number, stream: reply(stream), greeting=answers) as address:
        result = load_client.run(address, PATH, b"x", 1, 8, requests=50)
    assert (result.sent, result.ok, result.failures) == (50, 50, {})


def test_server_that_does_not_speak_http2() -> None:
    with scripted_peer(lambda number, stream: b"", greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        with pytest.raises(ConnectionError, match="PROTOCOL_ERROR"):
            load_client.run(address, PATH, b"x", requests=1)


def test_messages_that_vary_are_all_different_and_end_with_floats_of_one_size() -> None:
    echo = Noting()
    payload = b"head" + struct.pack("<2f", 1.5, -3.0)
    with serving(echo) as address:
        for start in (1, 41):
            load_client.run(address, PATH, payload, 2, 4, requests=40, vary_from=start)
    assert len(set(echo.requests)) == len(echo.requests) == 80
    for request in echo.requests:
        first, second = struct.unpack("<2f", request[4:])
        assert request[:4] == b"head"
        assert 1.0 <= first < 2.0
        assert -4.0 < second <= -2.0
    with pytest.raises(ValueError, match="3 to 16379 bytes can vary"):
        load_client.run("127.0.0.1:1", PATH, bytes(16384), requests=1, vary_from=1)


def test_metadata_goes_with_every_call() -> None:
    class Told(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.metadata: list[list[str]] = []

        async def answer(self, request: bytes, context: Any) -> bytes:
            self.metadata.append([value for key, value in context.invocation_metadata() if key == "x-tenant"])
            return request

    told = Told()
    with serving(told) as address:
        load_client.run(address, PATH, b"x", 2, 2, requests=10, timeout_s=5,
                        metadata=[("x-tenant", "a"), *((f"x-{number}", "b") for number in range(8))])
    assert told.metadata == [["a"]] * 10
    with pytest.raises(ValueError, match="at most 9 fields"):
        load_client.run("127.0.0.1:1", PATH, b"x", requests=1, metadata=[("x", "y")] * 10)
