"""`connectrpc.conformance.v1.ConformanceService`: answers as a request defines them, with what came in the answer.

Source: the comments of connectrpc/conformance's `service.proto`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable
from typing import Any, NoReturn

from infer.services.call import Call, Service, StreamCall, Streaming
from tests.conformance.services.messages import message

PACKAGE = "connectrpc.conformance.v1."
ANY = "type.googleapis.com/"
DETAILS_KEY = "grpc-status-details-bin"


def pairs_of(headers: Iterable[Any]) -> list[tuple[str, str | bytes]]:
    """Metadata from Headers, which hold base64 for a key that ends in -bin."""
    return [(header.name.lower(), decode(value) if header.name.lower().endswith("-bin") else value)
            for header in headers for value in header.value]


def decode(value: str) -> bytes:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return value.encode()


def headers_of(metadata: Iterable[tuple[str, str | bytes]]) -> list[Any]:
    values: dict[str, list[str]] = {}
    for key, value in metadata:
        text = value if isinstance(value, str) else base64.b64encode(value).decode().rstrip("=")
        values.setdefault(key, []).append(text)
    kind = message(PACKAGE + "Header")
    return [kind(name=name, value=texts) for name, texts in values.items()]


def request_info(call: Call | StreamCall, kind: str, requests: Iterable[bytes]) -> Any:
    """What came: metadata, time left and the requests as they are."""
    info = message(PACKAGE + "ConformancePayload.RequestInfo")(request_headers=headers_of(call.metadata))
    left = call.time_remaining()
    if left is not None:
        info.timeout_ms = int(left * 1000)
    add_requests(info, kind, requests)
    return info


def add_requests(info: Any, kind: str, requests: Iterable[bytes]) -> None:
    for content in requests:
        info.requests.add(type_url=ANY + PACKAGE + kind, value=content)


def send_metadata(call: Call | StreamCall, definition: Any) -> None:
    call.send_initial_metadata(pairs_of(definition.response_headers))
    call.set_trailing_metadata(pairs_of(definition.response_trailers))


def fail(call: Call | StreamCall, definition: Any, info: Any | None) -> NoReturn:
    """Ends the call with the defined error and its details; among them what came, where no answer has told it."""
    error = definition.error
    status = message("google.rpc.Status")(code=error.code, message=error.message, details=error.details)
    if info is not None:
        status.details.add(type_url=ANY + info.DESCRIPTOR.full_name, value=info.SerializeToString())
    details = (DETAILS_KEY, status.SerializeToString())
    call.set_trailing_metadata([*pairs_of(definition.response_trailers), details])
    call.abort(error.code, error.message)


async def answer_once(call: Call | StreamCall, kind: str, requests: list[bytes]) -> bytes:
    """The one answer that the first request defines."""
    first = message(PACKAGE + "UnaryRequest").FromString(requests[0] if requests else b"")
    definition = first.response_definition
    if first.HasField("response_definition"):
        send_metadata(call, definition)
        await asyncio.sleep(definition.response_delay_ms / 1000)
    info = request_info(call, kind, requests)
    if definition.HasField("error"):
        fail(call, definition, info)
    reply = message(PACKAGE + "UnaryResponse")(payload={"data": definition.response_data, "request_info": info})
    content: bytes = reply.SerializeToString()
    return content


async def unary(call: Call) -> bytes:
    return await answer_once(call, "UnaryRequest", [call.message])


async def idempotent_unary(call: Call) -> bytes:
    return await answer_once(call, "IdempotentUnaryRequest", [call.message])


async def client_stream(call: StreamCall) -> None:
    requests = []
    while (content := await call.read()) is not None:
        requests.append(content)
    await call.write(await answer_once(call, "ClientStreamRequest", requests))


class Answers:
    """The answers of a stream, in order; the first tells what came."""

    def __init__(self, call: StreamCall, kind: str, definition: Any) -> None:
        self._call = call
        self._kind = kind
        self._definition = definition
        self.left = list(definition.response_data)
        self._written = 0

    async def write(self, requests: list[bytes], tell: bool = False) -> None:
        """The next answer. Later ones than the first tell the requests where `tell` says so."""
        payload = message(PACKAGE + "ConformancePayload")(data=self.left.pop(0))
        if self._written == 0:
            payload.request_info.CopyFrom(request_info(self._call, self._kind, requests))
        elif tell:
            add_requests(payload.request_info, self._kind, requests)
        await asyncio.sleep(self._definition.response_delay_ms / 1000)
        self._written += 1
        await self._call.write(message(PACKAGE + "StreamResponse")(payload=payload).SerializeToString())

    async def write_rest(self, requests: list[bytes]) -> None:
        """What is left of them, then the error if there is to be one."""
        while self.left:
            await self.write(requests)
        if self._definition.HasField("error"):
            info = None if self._written else request_info(self._call, self._kind, requests)
            fail(self._call, self._definition, info)


async def server_stream(call: StreamCall) -> None:
    content = await call.read() or b""
    definition = message(PACKAGE + "ServerStreamRequest").FromString(content).response_definition
    send_metadata(call, definition)
    await Answers(call, "ServerStreamRequest", definition).write_rest([content])


async def bidi_stream(call: StreamCall) -> None:
    kind = message(PACKAGE + "BidiStreamRequest")
    requests: list[bytes] = []
    answers = None
    while (content := await call.read()) is not None:
        requests.append(content)
        if answers is None:
            first = kind.FromString(content)
            send_metadata(call, first.response_definition)
            answers = Answers(call, "BidiStreamRequest", first.response_definition)
        if first.full_duplex:
            if not answers.left:
                break
            await answers.write(requests, tell=True)
            requests = []
    if answers is not None:
        await answers.write_rest(requests)


def conformance_service() -> Service:
    """Its handlers by path. `Unimplemented` is left out: the server is to say so by itself."""
    base = f"/{PACKAGE}ConformanceService/"
    return {
        base + "Unary": unary,
        base + "IdempotentUnary": idempotent_unary,
        base + "ClientStream": Streaming(client_stream),
        base + "ServerStream": Streaming(server_stream, client_streams=False),
        base + "BidiStream": Streaming(bidi_stream),
    }
