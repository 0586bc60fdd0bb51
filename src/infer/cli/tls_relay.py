"""TLS for `infer bench`, whose compiled client speaks plaintext: a thread that passes bytes between it and the server.

The client connects to a Unix socket here; each of its connections gets one over TLS to the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import tempfile
import threading
from collections.abc import Iterator
from typing import cast

import uvloop

from infer.cli.tls import TlsOptions, usage_error

WAIT_SECONDS = 10.0


class Pipe(asyncio.Protocol):
    """One end of a relayed connection; what it reads the other end writes, at the other's pace."""

    other: Pipe | None = None
    transport: asyncio.Transport

    def __init__(self) -> None:
        self.early: list[bytes] = []        # until there is another end: a window's worth at most

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


def client_context(options: TlsOptions) -> ssl.SSLContext:
    """Raises click.UsageError."""
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_cert is not None:
            context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise usage_error(f"the certificates cannot be used: {error}") from None
    context.set_alpn_protocols(["h2"])
    return context


async def _connect(near: Pipe, host: str, port: int, context: ssl.SSLContext) -> None:
    far = Pipe()
    try:
        await asyncio.get_running_loop().create_connection(lambda: far, host, port, ssl=context)
    except OSError:
        near.transport.close()
        return
    near.other, far.other = far, near
    far.transport.writelines(near.early)
    if near.transport.is_closing():
        far.transport.close()


@contextlib.contextmanager
def relay(address: str, options: TlsOptions) -> Iterator[str]:
    """The address of a relay to the server at `address`, host:port. Raises click.UsageError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise usage_error(f"{address!r}: TLS needs host:port")
    context = client_context(options)
    loop = uvloop.new_event_loop()
    tasks: set[asyncio.Task[None]] = set()
    pipes: list[Pipe] = []

    class Near(Pipe):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            pipes.append(self)
            task = loop.create_task(_connect(self, host.strip("[]"), int(port), context))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    thread = threading.Thread(target=loop.run_forever, name="infer-tls", daemon=True)
    thread.start()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "relay.sock")

        async def start() -> asyncio.AbstractServer:
            return await loop.create_unix_server(Near, path)

        async def stop() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for near in pipes:
                for pipe in (near, near.other):
                    if pipe is not None:
                        pipe.transport.abort()
            await asyncio.sleep(0)

        server = asyncio.run_coroutine_threadsafe(start(), loop).result(WAIT_SECONDS)
        try:
            yield f"unix:{path}"
        finally:
            asyncio.run_coroutine_threadsafe(stop(), loop).result(WAIT_SECONDS)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(WAIT_SECONDS)
            loop.close()
