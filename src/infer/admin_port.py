"""The port of administration: a transport of its own on the loopback address, with its own handlers. Loop thread.

Nobody is asked who they are, so nobody but this machine's users reaches it.
"""

from __future__ import annotations

from collections.abc import Callable

from infer.observe import http as http_pages
from infer.services.call import Service
from infer.sockets import address_of, named
from infer.transport import Transport

HOST = "127.0.0.1"


class AdminPort:
    """Bound from the start: a conflict is an OSError that names it."""

    def __init__(self, port: int) -> None:
        with named(f"{HOST}:{port} (--admin-port)"):
            self._socket = http_pages.bind(HOST, port)
        self.address = address_of(self._socket)
        self._transport: Transport | None = None

    async def listen(self, transport: Callable[[Service], Transport], handlers: Service) -> None:
        self._transport = transport(handlers)
        await self._transport.listen([self._socket])

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()
        self._socket.close()
