"""The HTTP thread over real sockets: answers, refusals, and clients that are slow, idle or many."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus

import pytest

from infer.observe.http import HEADER_BYTES, WRITE_BYTES, HttpServer, Page, Response, gathered, pages

Start = Callable[..., HttpServer]


class Health:
    live = True
    ready = True


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[HttpServer] = []

    def started(table: dict[str, Page], host: str = "127.0.0.1", **options: float) -> HttpServer:
        server = HttpServer(host, 0, table, **options)  # type: ignore[arg-type]
        servers.append(server)
        server.serve()
        return server

    yield started
    for server in servers:
        server.close()


def fetch(server: HttpServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def page(text: bytes) -> Page:
    return lambda _: Response(HTTPStatus.OK, "text/plain", [text])


def raw(server: HttpServer, content: bytes) -> bytes:
    with socket.create_connection(server.address, timeout=10) as client:
        client.sendall(content)
        reply = b""
        while part := client.recv(65536):
            reply += part
        return reply


def test_a_large_page_is_whole(start: Start) -> None:
    part = bytes(range(256)) * (WRITE_BYTES // 600)
    parts = [b"", part, part, part, part * 4, b"end", b""]
    status, headers, found = fetch(start({"/": lambda _: Response(HTTPStatus.OK, "text/plain", parts)}), "/")
    assert (status, headers["content-length"]) == (200, str(7 * len(part) + 3))
    assert found == b"".join(parts)


def test_pieces_are_few_and_small() -> None:
    part = bytes(WRITE_BYTES // 3)
    large = bytes(2 * WRITE_BYTES)
    assert [len(piece) for piece in gathered([b"head", *[part] * 4, large, b"end"])] == [
        4 + 2 * len(part), 2 * len(part), len(large), 3]
    assert b"".join(gathered([])) == b""


def test_health(start: Start) -> None:
    health = Health()
    server = start(pages(health, lambda _: ([], "text/plain")))
    assert fetch(server, "/v2/health/live")[::2] == (200, b'{"live": true}\n')
    assert fetch(server, "/v2/health/ready")[::2] == (200, b'{"ready": true}\n')
    health.ready = False
    assert fetch(server, "/v2/health/ready?x=1")[::2] == (503, b'{"ready": false}\n')
    health.live = False
    assert fetch(server, "/v2/health/live")[0] == 503


def test_metrics_by_accept(start: Start) -> None:
    server = start(pages(Health(), lambda accept: ([accept.encode()], "text/x")))
    status, headers, content = fetch(server, "/metrics", Accept="application/openmetrics-text")
    assert (status, headers["content-type"], content) == (200, "text/x", b"application/openmetrics-text")
    assert headers["connection"] == "close"


def test_nothing_there_lists_what_is(start: Start) -> None:
    status, _, content = fetch(start({"/b": page(b""), "/a": page(b"")}), "/x")
    assert status == 404
    assert json.loads(content) == {"error": "nothing at /x", "paths": ["/a", "/b"]}


def test_head_has_the_headers_only(start: Start) -> None:
    status, headers, content = fetch(start({"/": page(b"12345")}), "/", "HEAD")
    assert (status, headers["content-length"], content) == (200, "5", b"")


def test_other_methods(start: Start) -> None:
    status, headers, _ = fetch(start({"/": page(b"")}), "/", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_page_that_fails_is_logged(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def failing(_: str) -> Response:
        raise RuntimeError("secret")

    server = start({"/": failing})
    status, _, content = fetch(server, "/")
    assert status == 500
    assert b"secret" not in content
    assert "secret" in caplog.text


@pytest.mark.parametrize("request_bytes", [b"PRI * HTTP/2.0\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET /\r\n\r\n",
                                           b"\r\n\r\n"])
def test_not_http(start: Start, request_bytes: bytes) -> None:
    assert raw(start({"/": page(b"")}), request_bytes).startswith(b"HTTP/1.1 400 ")


def test_headers_too_large(start: Start) -> None:
    reply = raw(start({"/": page(b"")}), b"GET / HTTP/1.1\r\nx: " + b"y" * (HEADER_BYTES + 4))
    assert reply.startswith(b"HTTP/1.1 431 ")


def test_slow_client_is_cut_and_keeps_nobody_waiting(start: Start) -> None:
    server = start({"/": page(b"ok")}, request_seconds=0.3)
    with socket.create_connection(server.address, timeout=10) as slow:
        slow.sendall(b"GET / HT")
        assert fetch(server, "/")[2] == b"ok"
        assert slow.recv(1) == b""


def test_more_connections_than_the_bound_are_closed(start: Start) -> None:
    entered, leave = threading.Event(), threading.Event()

    def held(_: str) -> Response:
        entered.set()
        leave.wait(10)
        return Response(HTTPStatus.OK, "text/plain", b"")

    server = start({"/": held}, connections=1)
    with socket.create_connection(server.address, timeout=10) as first:
        first.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert entered.wait(10)
        with socket.create_connection(server.address, timeout=10) as second:
            leave.set()
            assert second.recv(1) == b""
        assert first.recv(12) == b"HTTP/1.1 200"


def test_conflict_is_told_when_it_is_made(start: Start) -> None:
    taken = start({}).address
    with pytest.raises(OSError, match="in use"):
        HttpServer(*taken, {})


def test_host_that_does_not_exist() -> None:
    with pytest.raises(OSError, match=r"not known|resolution"):
        HttpServer("no-such-host.invalid", 0, {})


def test_ipv6(start: Start) -> None:
    try:
        server = start({"/": page(b"six")}, host="::1")
    except OSError:
        pytest.skip("no IPv6 loopback")
    assert fetch(server, "/")[2] == b"six"


def test_close_with_an_idle_connection_open(start: Start) -> None:
    server = start({})
    address = server.address
    with socket.create_connection(address, timeout=10) as idle:
        assert fetch(server, "/")[0] == 404
        server.close()
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=10)


def test_close_without_serve() -> None:
    HttpServer("127.0.0.1", 0, {}).close()
