"""The native transport: sockets and cold handlers around the compiled Endpoint. Loop thread only."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infer._core.protocol import Endpoint
from infer.errors import InferError

if TYPE_CHECKING:
    from infer._core.grpc_stream import ColdCall
    from infer._core.http2_session import Http2Session
    from infer._core.request import RequestSink
    from infer.services.call import Call, Handler

log = logging.getLogger("infer.transport")

BACKLOG = 4096
CHECK_SECONDS = 1.0
LINGER_SECONDS = 1.0
DEADLINE_EXCEEDED = 4
INTERNAL = 13
STOPPING = b"the server is stopping; send the request to another replica"


async def invoke(handler: Handler, call: Call) -> tuple[int, bytes]:
    """Runs a cold handler: (gRPC status, reply or, where it is not 0, message as UTF-8)."""
    try:
        return 0, await handler(call)
    except InferError as error:
        return error.code, error.message.encode()
    except Exception:
        log.exception("%s failed", call.path)
        return INTERNAL, f"{call.path} failed; the server's log has the reason".encode()


class NativeTransport:
    """Serves on sockets that are already bound; `limits` are the Endpoint's keyword arguments."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: RequestSink, handlers: Mapping[str, Handler],
                 **limits: Any) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._check: asyncio.TimerHandle | None = None
        self.endpoint = Endpoint(sink, dict(handlers), self._spawn, self._arm, **limits)

    def _spawn(self, session: Http2Session, call: ColdCall, handler: Handler) -> None:
        task = self._loop.create_task(self._answer(session, call, handler))
        call.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, session: Http2Session, call: ColdCall, handler: Handler) -> None:
        code, content = await invoke(handler, call)
        session.finish_cold(call, code, content)
        self.endpoint.flush_all()

    def _arm(self, session: Http2Session, call: ColdCall) -> asyncio.TimerHandle:
        return self._loop.call_later(call.time_remaining() or 0.0, self._expire, session, call)

    def _expire(self, session: Http2Session, call: ColdCall) -> None:
        session.finish_cold(call, DEADLINE_EXCEEDED, f"{call.path}: the deadline passed before the call ended".encode())
        if call.task is not None:
            call.task.cancel()
        self.endpoint.flush_all()

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts connections from now on."""
        for bound in sockets:
            create = self._loop.create_unix_server if bound.family == socket.AF_UNIX else self._loop.create_server
            self._servers.append(await create(self.endpoint.connection, sock=bound, backlog=BACKLOG))
        self._schedule_check()

    def _schedule_check(self) -> None:
        self._check = self._loop.call_later(CHECK_SECONDS, self._checked)

    def _checked(self) -> None:
        self.endpoint.check_timeouts()
        self._schedule_check()

    def flush(self) -> None:
        """Sends what this turn of the loop produced."""
        self.endpoint.flush_all()

    async def drain(self, timeout: float) -> bool:
        """Accepts no more, sends GOAWAY and waits for the calls under way, `timeout` seconds at most.

        Returns whether all of them ended by themselves; those that did not are ended with UNAVAILABLE. A connection
        without calls whose client is silent does not count.
        """
        for server in self._servers:
            server.close()
        idle = asyncio.Event()
        self.endpoint.drain(idle.set)
        try:
            async with asyncio.timeout(timeout):
                await idle.wait()
        except TimeoutError:
            ended = not self.endpoint.snapshot()["streams"]
            self.endpoint.end_calls(STOPPING)
            return ended
        return True

    async def close(self) -> None:
        """Ends what is left with UNAVAILABLE; a client that does not read its status in time is cut off."""
        if self._check is not None:
            self._check.cancel()
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        idle = asyncio.Event()
        self.endpoint.end_calls(STOPPING)
        self.endpoint.drain(idle.set)
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await idle.wait()
        except TimeoutError:
            self.endpoint.abort()
            await idle.wait()
