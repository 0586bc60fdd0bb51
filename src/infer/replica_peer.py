"""Another replica: one connection, kept up, over which calls go. Loop thread."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Iterable
from typing import cast

from infer._core.http2_client import ClientConnection, Reply

log = logging.getLogger("infer.replicas")

PATH = "/inference.GRPCInferenceService/ModelInfer"
# Forwarded at once to one replica; more are run here.
CALLS_MOST = 512
# Of messages, and of replies, that are under way.
BYTES_MOST = 16 << 20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
# Until its first bytes are here. One that ends sooner after that than STEADY_S is not made again at once.
CONNECT_S, STEADY_S = 2.0, 1.0
# In a row, after which a replica is left alone for a while.
LATE_MOST, REST_S = 8, 1.0

Done = Callable[[Reply | None], None]


class _Link(asyncio.Protocol):
    """One connection to a replica."""

    def __init__(self, authority: str, timeout_s: float, loop: asyncio.AbstractEventLoop,
                 lost: Callable[[_Link], None]) -> None:
        self._session = ClientConnection(PATH, authority, timeout_s=timeout_s, max_calls=CALLS_MOST,
                                         max_reply_bytes=BYTES_MOST)
        self._loop, self._lost = loop, lost
        self._calls: dict[int, tuple[Done, int]] = {}
        self._transport: asyncio.Transport | None = None
        self._flushing = False
        self.bytes = 0              # of the messages under way
        self.greeted = loop.create_future()         # its first bytes are here, or it has ended before

    @property
    def active(self) -> int:
        return len(self._calls)

    @property
    def can_start(self) -> bool:
        return self._transport is not None and self._session.can_start

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    @property
    def is_ending(self) -> bool:
        """It takes no more calls, though it has fewer than it may."""
        return len(self._calls) < CALLS_MOST and not self._session.can_start

    def call(self, message: bytes, done: Done) -> None:
        self._calls[self._session.start(message)] = done, len(message)
        self.bytes += len(message)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._greet(True)
        try:
            replies = self._session.feed(data)
        except ConnectionError as failure:
            log.warning("a replica's connection ends: %s", failure)
            self.close()
            return
        self._end(replies)
        self._flush()
        if self._session.is_finished:
            self.close()

    def connection_lost(self, failure: Exception | None) -> None:
        self._transport = None
        self._greet(False)
        self._end(self._session.abandon())
        self._lost(self)

    def _greet(self, heard: bool) -> None:
        if not self.greeted.done():
            self.greeted.set_result(heard)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is not None and (output := self._session.take_output()):
            self._transport.write(output)

    def _end(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            done, size = self._calls.pop(reply.call_id)
            self.bytes -= size
            done(reply if reply.failure is None else None)


class Peer:
    """Another replica: a connection that is made again when it is lost."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, timeout_s: float,
                 tls: Callable[[], ssl.SSLContext] | None, tls_name: str | None) -> None:
        """`tls` is asked for each connection: certificates change. `tls_name`: whom the other's is to name, if not the
        host of `name`."""
        self.name = name
        self._host, _, port = name.rpartition(":")
        self._host, self._port = self._host.strip("[]"), int(port)
        self._loop, self._timeout_s, self._tls, self._tls_name = loop, timeout_s, tls, tls_name or self._host
        self._link: _Link | None = None
        self._links: set[_Link] = set()
        self._late = 0
        self._rests_until = 0.0
        self._wanted = asyncio.Event()
        self._task = loop.create_task(self._keep_connected())

    @property
    def up(self) -> bool:
        # Also read by the thread of metrics.
        link = self._link
        return link is not None and link.can_start and self._loop.time() >= self._rests_until

    @property
    def active(self) -> int:
        return 0 if self._link is None else self._link.active

    def has_room(self, size: int) -> bool:
        return self._link is not None and self._link.bytes + size <= BYTES_MOST

    def call(self, message: bytes, done: Done) -> None:
        """ConnectionError where it takes none now."""
        if self._link is None:
            raise ConnectionError(f"there is no connection to {self.name}")
        self._link.call(message, done)

    def answered(self, in_time: bool) -> None:
        self._late = 0 if in_time else self._late + 1
        if self._late >= LATE_MOST:
            self._late = 0
            self._rests_until = self._loop.time() + REST_S
            log.warning("replica %s does not answer in time: nothing is forwarded to it for %g s", self.name, REST_S)

    def look(self) -> None:
        """A connection that ends by itself makes room for the next."""
        if self._link is not None and self._link.is_ending:
            self._link = None
            self._wanted.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for link in list(self._links):
            link.close()

    async def _keep_connected(self) -> None:
        pause_s = FIRST_PAUSE_S
        was_up = True
        while True:
            self._wanted.clear()
            try:
                await self._connect()
                since = self._loop.time()
                log.log(logging.INFO if pause_s == FIRST_PAUSE_S or not was_up else logging.DEBUG,
                        "replica %s is reached", self.name)
                was_up = True
                await self._wanted.wait()
                if self._loop.time() - since >= STEADY_S:
                    pause_s = FIRST_PAUSE_S
                    continue
            # A name that cannot be one is a ValueError.
            except (OSError, ValueError) as failure:
                if was_up:
                    log.warning("replica %s cannot be reached: %s", self.name, str(failure) or "it takes too long")
                was_up = False
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connect(self) -> None:
        def make() -> _Link:
            return _Link(self.name, self._timeout_s, self._loop, self._lost)

        tls = None if self._tls is None else await self._loop.run_in_executor(None, self._tls)
        async with asyncio.timeout(CONNECT_S):
            _, link = await self._loop.create_connection(
                make, self._host, self._port, ssl=tls, server_hostname=self._tls_name if tls else None)
            self._links.add(link)
            try:
                heard = await link.greeted
            except asyncio.CancelledError:
                link.close()
                raise
        if not heard:
            raise ConnectionError("it ends the connection at once: does it serve gRPC, with TLS as this one does?")
        self._link = link
        if not link.is_open:
            self._lost(link)

    def _lost(self, link: _Link) -> None:
        self._links.discard(link)
        if self._link is link:
            self._link = None
            self._wanted.set()
