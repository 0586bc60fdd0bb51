"""The native transport alone, with a test's own handlers, on a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvloop

from infer._core.request import RequestSink
from infer.services.call import Service
from infer.transport.native import NativeTransport

SECONDS = 90.0


class Served:
    """Where a transport listens. Made by `serve_handlers`."""

    def __init__(self, transport: NativeTransport, loop: asyncio.AbstractEventLoop, address: str) -> None:
        self.transport = transport
        self.loop = loop
        self.address = address

    def run(self, work: Any) -> Any:
        """What a coroutine returns on the transport's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS)

    def look(self, read: Callable[[], Any]) -> Any:
        """What a function returns on the transport's loop."""

        async def work() -> Any:
            return read()

        return self.run(work())

    def snapshot(self) -> dict[str, Any]:
        found: dict[str, Any] = self.look(self.transport.endpoint.snapshot)
        return found

    def until(self, condition: Callable[[], bool]) -> None:
        """Turns the loop until a condition, read there, holds."""
        deadline = time.monotonic() + SECONDS
        while not self.look(condition):
            assert time.monotonic() < deadline, self.snapshot()


@contextlib.contextmanager
def serve_handlers(handlers: Service, **limits: Any) -> Iterator[Served]:
    """Serves until left; then nothing may be held for anyone."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="transport-loop", daemon=True)
    thread.start()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))

    async def make() -> NativeTransport:
        transport = NativeTransport(loop, RequestSink(), handlers, **limits)
        await transport.listen([listening])
        return transport

    try:
        transport = asyncio.run_coroutine_threadsafe(make(), loop).result(SECONDS)
        served = Served(transport, loop, f"127.0.0.1:{listening.getsockname()[1]}")
        try:
            yield served
        finally:
            served.run(transport.close())
        snapshot = served.snapshot()
        assert [snapshot[name] for name in ("connections", "streams", "buffered_bytes", "outbound_bytes")] == [0] * 4
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECONDS)
        assert not thread.is_alive()
        loop.close()
