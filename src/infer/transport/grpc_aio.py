"""The portable transport: grpc.aio around the same handlers and pipeline. Loop thread only.

Messages stay bytes on the way: no protobuf objects. grpcio binds its own sockets, so those that were bound at the start
are closed and their addresses handed over when it is time to listen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

# What its library logs goes to standard error past our log, and says less than the exceptions do.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

from infer._core.arm import VARIANT_TRAILER
from infer._core.cold_call import STATUS_DETAILS, encode_metadata
from infer._core.retry_info import retry_status
from infer._core.unary_sink import UnarySink
from infer.errors import InferError, Unimplemented
from infer.services.call import Streaming
from infer.transport.grpc_options import channel_options, server_credentials, unheeded
from infer.transport.infer_stream import STOPPING, InferStreams
from infer.transport.invoke import invoke
from infer.transport.whose import NOBODYS, Whose

if TYPE_CHECKING:
    from infer._core.request import RequestSink
    from infer.config import Settings
    from infer.services.call import Handler, Pairs, Service
    from infer.transport import CertificateSource

log = logging.getLogger("infer.transport")

INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
STREAM_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"
CODES = {code.value[0]: code for code in grpc.StatusCode}
DEADLINE_EXCEEDED, UNAVAILABLE = 4, 14
PUSHBACK = "grpc-retry-pushback-ms"
# What a status text may take on the wire, and what is shown of a name in it.
TEXT_BYTES = 1024
NAME_SHOWN = 64
LINGER_SECONDS = 1.0
CERTIFICATE_SECONDS = 5.0
# Until the calls have ended: who waits for that has a bound of its own.
FOREVER_SECONDS = 1e6


def checked(pairs: Pairs) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata of a handler; ValueError for what no transport sends."""
    kept = tuple(pairs)
    encode_metadata(kept)
    return kept


# Whom a client's certificate names, as grpcio calls it, in the order in which one is taken.
IDENTITIES = ("peer_uri", "peer_dns", "x509_subject")


class GrpcioCall:
    """The `Call` or the `StreamCall` of a handler; `message` is all that the client sends, None: it streams."""

    def __init__(self, path: str, context: Any, message: bytes | None = None) -> None:
        self.context = context
        self._unread = message
        self.path = path
        self.message = message
        self.head: Pairs | None = None
        self.time_remaining = context.time_remaining

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return tuple((key, value) for key, value in self.context.invocation_metadata())

    @property
    def peer(self) -> str:
        return unquote(self.context.peer())

    @property
    def identity(self) -> str:
        shown = self.context.auth_context()
        return next((",".join(value.decode("utf-8", "replace") for value in shown[key])
                     for key in IDENTITIES if shown.get(key)), "")

    def send_initial_metadata(self, pairs: Pairs) -> None:
        if self.head is not None:
            raise ValueError(f"{self.path}: the head of the reply was sent before, or its metadata set")
        self.head = checked(pairs)

    def set_trailing_metadata(self, pairs: Pairs) -> None:
        self.context.set_trailing_metadata(checked(pairs))

    def abort(self, code: int, message: str) -> NoReturn:
        raise InferError(message, code)

    async def send_head(self) -> None:
        """Sends what `send_initial_metadata` was given."""
        head, self.head = self.head, ()
        if head:
            await self.context.send_initial_metadata(head)

    async def read(self) -> bytes | None:
        await self.send_head()
        if self.message is not None:
            message, self._unread = self._unread, None
            return message
        message = await self.context.read()
        return None if message is grpc.aio.EOF else message

    async def write(self, message: bytes) -> None:
        await self.send_head()
        await self.context.write(message)


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The table of paths as grpcio asks for it."""

    def __init__(self, sink: UnarySink, handlers: Service, stream_messages: int, whose: Whose) -> None:
        self._sink = sink
        self._whose = whose if any(whose) else None
        self.streams = InferStreams(sink, stream_messages, lambda call: whose.of(call.context))
        self._work: set[asyncio.Task[tuple[int, bytes]]] = set()
        self._table = {path: self._stream(path, handler) if isinstance(handler, Streaming)
                       else self._unary(path, handler) for path, handler in handlers.items()}
        self._table[STREAM_PATH] = self._stream(STREAM_PATH, Streaming(self.streams.handle))
        self._table[INFER_PATH] = grpc.unary_unary_rpc_method_handler(self._infer)

    def service(self, details: Any) -> Any:
        return self._table.get(details.method) or self._unknown(details.method)

    async def _infer(self, message: bytes, context: Any) -> bytes:
        whose = NOBODYS if self._whose is None else self._whose.of(context)
        call = self._sink.call(message, context.time_remaining(), *whose)
        try:
            outcome = await call.future
        except asyncio.CancelledError:
            call.cancel()
            raise
        named = () if call.variant is None else ((VARIANT_TRAILER, call.variant.decode()),)
        if isinstance(outcome, bytes):
            if named:
                context.set_trailing_metadata(named)
            return outcome
        return await refuse(context, outcome.code, outcome.message, outcome.pushback_ms, named)

    async def _run(self, handler: Any, call: GrpcioCall, path: str) -> tuple[int, bytes]:
        """`invoke` in a task of its own, which `end_calls` cancels."""
        if call.time_remaining() == 0:
            return DEADLINE_EXCEEDED, f"{path}: the deadline passed before the call ended".encode()
        work = asyncio.get_running_loop().create_task(invoke(handler, call, path))
        self._work.add(work)
        try:
            return await work
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if work.cancelled() and caller is not None and not caller.cancelling():
                return UNAVAILABLE, STOPPING.encode()
            raise
        finally:
            self._work.discard(work)

    @property
    def in_flight(self) -> int:
        """Calls of cold handlers under way."""
        return len(self._work)

    def end_calls(self) -> None:
        """Ends the calls of cold handlers with UNAVAILABLE."""
        for work in self._work:
            work.cancel()

    def _unary(self, path: str, handler: Handler) -> Any:
        async def answer(message: bytes, context: Any) -> bytes:
            call = GrpcioCall(path, context, message)
            code, content = await self._run(handler, call, path)
            await call.send_head()
            if code:
                await refuse(context, code, content.decode())
            return content

        return grpc.unary_unary_rpc_method_handler(answer)

    def _stream(self, path: str, streaming: Streaming) -> Any:
        async def answer(message: Any, context: Any) -> None:
            call = GrpcioCall(path, context, None if streaming.client_streams else message)
            code, content = await self._run(streaming.handler, call, path)
            await call.send_head()
            if code:
                await refuse(context, code, content.decode())

        if streaming.client_streams:
            return grpc.stream_stream_rpc_method_handler(answer)
        return grpc.unary_stream_rpc_method_handler(answer)

    def _unknown(self, path: str) -> Any:
        async def handle(_: Any) -> NoReturn:
            shown = path if len(path) <= NAME_SHOWN else f"{path[:NAME_SHOWN]}..."
            raise Unimplemented(f"unknown method {shown!r}: this server does not offer it")

        return self._stream(path, Streaming(handle))


async def refuse(context: Any, code: int, text: str, pushback_ms: int = -1, trailers: Pairs = ()) -> NoReturn:
    """Ends the call with a status other than OK."""
    said = cut(text)
    if pushback_ms >= 0:
        trailers = (*trailers, (PUSHBACK, str(pushback_ms)), (STATUS_DETAILS, retry_status(code, said, pushback_ms)))
    if trailers:
        await context.abort(CODES[code], said, trailers)
    await context.abort(CODES[code], said)
    raise AssertionError("abort raises")


def cut(text: str) -> str:
    """As much of it as stays within TEXT_BYTES once it is percent-encoded."""
    encoded_bytes = 0
    for at, character in enumerate(text):
        encoded_bytes += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if encoded_bytes > TEXT_BYTES:
            return text[:at]
    return text


class GrpcioTransport:
    """Serves at the addresses of sockets that are already bound."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: RequestSink, handlers: Service, settings: Settings,
                 process_buffered_bytes: int) -> None:
        self._loop = loop
        self._sink = UnarySink(loop, sink, process_buffered_bytes)
        self._handlers = Handlers(self._sink, handlers, settings.max_stream_messages,
                                  Whose(settings.tenant_metadata_key or "", settings.tls_client_ca is not None,
                                        settings.routing_metadata_key))
        self._options = channel_options(settings)
        if ignored := unheeded(settings):
            log.warning("--transport grpcio has no such limits and does not heed %s; the native transport does",
                        ", ".join(ignored))
        self._server: grpc.aio.Server | None = None
        self._stop: asyncio.Task[None] | None = None
        self._certificates: CertificateSource | None = None
        self._checks: asyncio.Task[None] | None = None

    async def listen(self, sockets: Sequence[socket.socket], certificates: CertificateSource | None = None) -> None:
        """Accepts connections from now on; with certificates those over TCP speak TLS."""
        credentials = None
        if certificates is not None:
            credentials = server_credentials(certificates)
            self._certificates = certificates
            self._checks = self._loop.create_task(self._check_forever())
        self._server = grpc.aio.server(handlers=[self._handlers], options=self._options)
        for bound in sockets:
            name = bound.getsockname()
            unix = bound.family == socket.AF_UNIX
            bound.close()
            address = f"unix:{name}" if unix else f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
            try:
                if unix or credentials is None:
                    self._server.add_insecure_port(address)
                else:
                    self._server.add_secure_port(address, credentials)
            except RuntimeError as error:
                raise OSError(0, f"cannot listen at {address}: {error}") from error
        await self._server.start()

    async def check_certificates(self) -> None:
        """New handshakes use the certificate as it is now, if it is good."""
        if self._certificates is not None:
            await self._loop.run_in_executor(None, self._certificates.check)

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_SECONDS)
            await self.check_certificates()

    def flush(self) -> None:
        """Nothing: grpcio sends by itself."""

    def snapshot(self) -> dict[str, Any]:
        """What grpcio lets us know; it does not count connections, streams and what they hold."""
        return {"buffered_bytes": self._sink.buffered_bytes, "streams_held_total": self._handlers.streams.held_total,
                "refused": {"max_buffered_bytes_total": self._sink.refused_buffered}}

    def end_calls(self, message: bytes) -> None:
        """Ends the calls under way with UNAVAILABLE; those whose message is still coming are grpcio's to end."""
        self._sink.end_calls(UNAVAILABLE, message.decode())
        self._handlers.end_calls()

    async def drain(self, timeout: float) -> bool:
        """Accepts no more, sends GOAWAY and waits for the calls under way, `timeout` seconds at most.

        A client that is silent does not count; nor does a call whose message is still coming, which grpcio hides.
        """
        self._handlers.streams.drain()
        ended = await self._stopped(timeout) or (self._sink.in_flight == 0 and self._handlers.in_flight == 0)
        if not ended:
            self.end_calls(STOPPING.encode())
        return ended

    async def close(self) -> None:
        """Ends what is left."""
        if self._checks is not None:
            self._checks.cancel()
            await asyncio.gather(self._checks, return_exceptions=True)
        if self._server is None:
            return
        self.end_calls(STOPPING.encode())
        if not await self._stopped(LINGER_SECONDS):
            await self._server.stop(None)

    async def _stopped(self, timeout: float) -> bool:
        """Stops; whether all calls have ended within `timeout` seconds. May be called again to wait on."""
        if self._server is None:
            return True
        if self._stop is None:
            self._stop = self._loop.create_task(self._server.stop(FOREVER_SECONDS))
        done, _ = await asyncio.wait([self._stop], timeout=timeout)
        return bool(done)
