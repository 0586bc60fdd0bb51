"""The native transport: sockets and cold handlers around the compiled Endpoint. Loop thread only."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn, cast

from infer._core.protocol import Endpoint
from infer.services.call import Streaming
from infer.transport.invoke import invoke

if TYPE_CHECKING:
    from infer._core.cold_call import ColdCall, ColdStream
    from infer._core.http2_coding import CodingJob
    from infer._core.http2_streams import StreamingSession
    from infer._core.request import RequestSink
    from infer.services.call import Handler, Pairs, Service
    from infer.transport import CertificateSource

log = logging.getLogger("infer.transport")

BACKLOG = 4096
CHECK_SECONDS = 1.0
# Checks between two looks at the certificate's files.
CERTIFICATE_CHECKS = 5
TLS_FAILURE_SECONDS = 1.0
LINGER_SECONDS = 1.0
# Threads that inflate and compress large messages: their calls wait, and so much memory may be taken unseen at once.
CODERS = 2
DEADLINE_EXCEEDED = 4
STOPPING = b"the server is stopping; send the request to another replica"


class NativeStreamCall:
    """The `StreamCall` of a handler, over the session's part of it."""

    def __init__(self, session: StreamingSession, call: ColdStream, flush: Callable[[], None]) -> None:
        self._session = session
        self._call = call
        self._flush = flush
        self.path = call.path
        self.peer = call.peer
        self.time_remaining = call.time_remaining
        self.set_trailing_metadata = call.set_trailing_metadata

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._call.metadata

    def send_initial_metadata(self, pairs: Pairs) -> None:
        self._call.send_initial_metadata(pairs)
        self._session.send_head(self._call)
        self._flush()

    def abort(self, code: int, message: str) -> NoReturn:
        self._call.abort(code, message)

    async def read(self) -> bytes | None:
        call = self._call
        while (message := self._session.read_cold(call)) is None:
            if call.ended:
                return None
            call.reader = asyncio.get_running_loop().create_future()
            try:
                await call.reader
            finally:
                call.reader = None
        # The client's window may have been opened.
        self._flush()
        return message

    async def write(self, message: bytes) -> None:
        call = self._call
        while not self._session.has_room(call):
            call.writer = asyncio.get_running_loop().create_future()
            try:
                await call.writer
            finally:
                call.writer = None
        self._session.write_cold(call, message)
        self._flush()


class NativeTransport:
    """Serves on sockets that are already bound; `limits` are the Endpoint's keyword arguments."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: RequestSink, handlers: Service, **limits: Any) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._check: asyncio.TimerHandle | None = None
        self._flushing = False
        self._checks = 0
        self._certificates: CertificateSource | None = None
        self._tls_failure = -TLS_FAILURE_SECONDS
        self._tls_failures_left_out = 0
        streaming = {path: handler.client_streams for path, handler in handlers.items()
                     if isinstance(handler, Streaming)}
        self._coders = ThreadPoolExecutor(CODERS, "infer-coder")
        self._codings: set[asyncio.Future[None]] = set()
        self.endpoint = Endpoint(sink, dict(handlers), self._spawn, self._arm, loop.call_soon, streaming=streaming,
                                 offload=self._offload, **limits)

    def _offload(self, job: CodingJob) -> None:
        coding = self._loop.run_in_executor(self._coders, job.run)
        self._codings.add(coding)
        coding.add_done_callback(lambda done: self._coded(job, done))

    def _coded(self, job: CodingJob, coding: asyncio.Future[None]) -> None:
        self._codings.discard(coding)
        coding.result()
        job.session.finish_coding(job)
        self.endpoint.flush_all()

    def _spawn(self, session: StreamingSession, call: ColdCall, handler: Handler | Streaming) -> None:
        task = self._loop.create_task(self._answer(session, call, handler))
        call.task = task
        self._keep(task)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, session: StreamingSession, call: ColdCall, handler: Handler | Streaming) -> None:
        if isinstance(handler, Streaming):
            shown = NativeStreamCall(session, cast("ColdStream", call), self._flush_soon)
            code, content = await invoke(handler.handler, shown, call.path)
        else:
            code, content = await invoke(handler, call, call.path)
        session.finish_cold(call, code, content)
        self.endpoint.flush_all()

    def _flush_soon(self) -> None:
        """One write at the end of this turn, however many messages a handler sends in it."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flushed)

    def _flushed(self) -> None:
        self._flushing = False
        self.endpoint.flush_all()

    def _arm(self, session: StreamingSession, call: ColdCall) -> asyncio.TimerHandle:
        return self._loop.call_later(call.time_remaining() or 0.0, self._expire, session, call)

    def _expire(self, session: StreamingSession, call: ColdCall) -> None:
        session.finish_cold(call, DEADLINE_EXCEEDED, f"{call.path}: the deadline passed before the call ended".encode())
        if call.task is not None:
            call.task.cancel()
        self.endpoint.flush_all()

    async def listen(self, sockets: Sequence[socket.socket], certificates: CertificateSource | None = None) -> None:
        """Accepts connections from now on; with certificates those over TCP speak TLS."""
        self._certificates = certificates
        if certificates is not None:
            self.endpoint.use_tls(certificates.context, self._on_tls_failure)
        for bound in sockets:
            create = self._loop.create_unix_server if bound.family == socket.AF_UNIX else self._loop.create_server
            plain = certificates is None or bound.family == socket.AF_UNIX
            factory = self.endpoint.connection if plain else self.endpoint.tls_connection
            self._servers.append(await create(factory, sock=bound, backlog=BACKLOG))
        self._schedule_check()

    def _on_tls_failure(self, peer: str, reason: str) -> None:
        """One line a second, with how many were left out."""
        now = self._loop.time()
        if now - self._tls_failure < TLS_FAILURE_SECONDS:
            self._tls_failures_left_out += 1
            return
        self._tls_failure = now
        log.warning("TLS with %s failed: %s", peer, reason, extra={"left_out": self._tls_failures_left_out})
        self._tls_failures_left_out = 0

    async def check_certificates(self) -> None:
        """New handshakes use the certificate as it is now, if it is good."""
        certificates = self._certificates
        if certificates is not None and await self._loop.run_in_executor(None, certificates.check):
            self.endpoint.use_tls(certificates.context, self._on_tls_failure)

    def _schedule_check(self) -> None:
        self._check = self._loop.call_later(CHECK_SECONDS, self._checked)

    def _checked(self) -> None:
        self.endpoint.check_timeouts()
        self._checks += 1
        if self._checks % CERTIFICATE_CHECKS == 0:
            self._keep(self._loop.create_task(self.check_certificates()))
        self._schedule_check()

    def snapshot(self) -> dict[str, Any]:
        """Counters and gauges of all connections."""
        return self.endpoint.snapshot()

    def end_calls(self, message: bytes) -> None:
        """Ends the calls under way with UNAVAILABLE."""
        self.endpoint.end_calls(message)

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
        # What workers hold is freed on this loop.
        while self._codings:
            await asyncio.wait(self._codings)
        self._coders.shutdown()
