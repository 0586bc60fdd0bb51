"""Port 8002: /metrics and health over HTTP/1.1, on one thread with an event loop of its own.

One connection is one request. A client has REQUEST_SECONDS for all of it, and at most CONNECTIONS are open, so that
slow or idle clients keep neither a probe nor a scrape waiting. The socket is bound when the server is made, where a
conflict raises OSError, and listens from `serve` on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple, Protocol

REQUEST_SECONDS = 5.0
HEADER_BYTES = 16 << 10
WRITE_BYTES = 256 << 10
CONNECTIONS = 64
BACKLOG = 128

log = logging.getLogger("infer.http")


class Response(NamedTuple):
    status: HTTPStatus
    content_type: str
    content: Sequence[bytes]        # in parts


# From the request's Accept header to its answer; runs on the HTTP thread.
Page = Callable[[str], Response]


class HealthView(Protocol):
    """Read from the HTTP thread."""

    @property
    def live(self) -> bool: ...

    @property
    def ready(self) -> bool: ...


def pages(health: HealthView, render_metrics: Callable[[str], tuple[Sequence[bytes], str]]) -> dict[str, Page]:
    """What is served, by path."""

    def metrics(accept: str) -> Response:
        content, content_type = render_metrics(accept)
        return Response(HTTPStatus.OK, content_type, content)

    return {
        "/metrics": metrics,
        "/v2/health/live": lambda _: _health("live", health.live),
        "/v2/health/ready": lambda _: _health("ready", health.ready),
    }


def _health(name: str, good: bool) -> Response:
    return _json(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, {name: good})


def _json(status: HTTPStatus, body: Mapping[str, object]) -> Response:
    return Response(status, "application/json", [json.dumps(body).encode() + b"\n"])


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket, IPv4 or IPv6 as the host says."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


class HttpServer:
    """Serves `pages` from `serve` to `close`, both called by the thread that owns it."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Page], request_seconds: float = REQUEST_SECONDS,
                 connections: int = CONNECTIONS) -> None:
        self._pages = pages
        self._request_seconds = request_seconds
        self._connections = connections
        self._open = 0
        self._socket = bind(host, port)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound."""
        host, port, *_ = self._socket.getsockname()
        return host, port

    def serve(self) -> None:
        """Listens, and starts the thread."""
        self._socket.listen(BACKLOG)
        self._loop = asyncio.SelectorEventLoop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(self._loop, self._stop), name="infer-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening, cuts what is open and joins the thread."""
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._loop.close()
            self._loop = self._stop = self._thread = None
        self._socket.close()

    def _run(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        async def until_stopped() -> None:
            server = await asyncio.start_server(self._connected, sock=self._socket, limit=HEADER_BYTES,
                                                backlog=BACKLOG)
            await stop.wait()
            server.close()
            own = asyncio.current_task()
            rest = [task for task in asyncio.all_tasks() if task is not own]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.set_event_loop(loop)
        loop.run_until_complete(until_stopped())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= self._connections:
                async with asyncio.timeout(self._request_seconds):
                    head = await reader.readuntil(b"\r\n\r\n")
                    for piece in gathered(self._answer(head)):
                        writer.write(piece)
                        await writer.drain()
                    writer.write_eof()
                    # Until the client closes: closing over unread bytes would reset the connection under the reply.
                    while await reader.read(4096):
                        pass
        except asyncio.LimitOverrunError:
            refusal = _json(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"error": "headers too large"})
            writer.writelines(_encoded(refusal))
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, head: bytes) -> list[bytes]:
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _encoded(_json(HTTPStatus.BAD_REQUEST, {"error": "not an HTTP/1.1 request"}))
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _encoded(_json(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"{method}: expected GET or HEAD"}),
                            "Allow: GET, HEAD\r\n")
        path = target.partition("?")[0]
        page = self._pages.get(path)
        if page is None:
            response = _json(HTTPStatus.NOT_FOUND, {"error": f"nothing at {path}", "paths": sorted(self._pages)})
        else:
            fields = (line.partition(":") for line in lines[1:])
            accept = ",".join(value.strip() for name, _, value in fields if name.lower() == "accept")
            try:
                response = page(accept)
            except Exception:
                log.exception("GET %s failed", path)
                response = _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{path} failed, see the log"})
        return _encoded(response, with_content=method == "GET")


def _encoded(response: Response, headers: str = "", with_content: bool = True) -> list[bytes]:
    head = (f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
            f"Content-Type: {response.content_type}\r\nContent-Length: {sum(map(len, response.content))}\r\n"
            f"{headers}Connection: close\r\n\r\n")
    return [head.encode("latin-1"), *(response.content if with_content else ())]


def gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """What to write, in few pieces of which none but a large part is large: to copy all of a scrape at once would keep
    the GIL from the server's loop."""
    waiting: list[bytes] = []
    size_bytes = 0
    for part in parts:
        if waiting and size_bytes + len(part) > WRITE_BYTES:
            yield b"".join(waiting)
            waiting, size_bytes = [], 0
        waiting.append(part)
        size_bytes += len(part)
    yield b"".join(waiting)
