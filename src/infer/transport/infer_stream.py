"""ModelStreamInfer over any StreamCall: replies in the order of the requests, a bounded number under way.

An error travels in a message, with its request's id, and the stream goes on; a client that sends `triton_grpc_error:
true` gets it as the status that ends the stream. Sources: WIRE 4.1, 4.4. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque

from infer._core.unary_sink import Refusal, UnaryCall, UnarySink
from infer.proto import message
from infer.services.call import StreamCall

REAL_STATUS = ("triton_grpc_error", "true")
ASKS_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"
# Tag of ModelStreamInferResponse.infer_response.
INFER_RESPONSE = b"\x12"


class InferStream:
    """One stream: `run` is its handler."""

    def __init__(self, sink: UnarySink, call: StreamCall, in_flight: int) -> None:
        self._sink = sink
        self._call = call
        self._room = asyncio.Semaphore(in_flight)
        # Each with its request, or None after the last.
        self._under_way: deque[tuple[bytes, UnaryCall]] = deque()
        self._came = asyncio.Event()
        self._ended = False

    async def run(self) -> None:
        reading = asyncio.get_running_loop().create_task(self._read())
        try:
            await self._reply()
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            for _, call in self._under_way:
                call.cancel()

    async def _read(self) -> None:
        try:
            while True:
                # Before the read: what is not taken holds the client back.
                await self._room.acquire()
                content = await self._call.read()
                if content is None:
                    return
                self._under_way.append((content, self._sink.call(content, self._call.time_remaining())))
                self._came.set()
        finally:
            self._ended = True
            self._came.set()

    async def _reply(self) -> None:
        real_status = REAL_STATUS in self._call.metadata
        while True:
            await self._came.wait()
            if not self._under_way:
                if self._ended:
                    return
                self._came.clear()
                continue
            content, call = self._under_way[0]
            outcome = await call.future
            self._under_way.popleft()
            if isinstance(outcome, bytes):
                await self._call.write(wrapped(outcome, content))
            elif real_status:
                self._call.abort(outcome.code, outcome.message)
            else:
                await self._call.write(error_of(outcome, content))
            self._room.release()


def wrapped(reply: bytes, request: bytes) -> bytes:
    """A ModelInferResponse as a ModelStreamInferResponse; marked as the last one where the request asks for it."""
    if ASKS_FINAL.encode() in request and (
            message("inference.ModelInferRequest").FromString(request).parameters[ASKS_FINAL].bool_param):
        final = message("inference.ModelInferResponse")()
        final.parameters[FINAL].bool_param = True
        # Fields behind a message are merged into it.
        reply += final.SerializeToString()
    return INFER_RESPONSE + varint(len(reply)) + reply


def error_of(refusal: Refusal, request: bytes) -> bytes:
    """The refusal as a message, with the request's id where it can be read."""
    from google.protobuf.message import DecodeError

    reply = message("inference.ModelStreamInferResponse")(error_message=refusal.message)
    try:
        reply.infer_response.id = message("inference.ModelInferRequest").FromString(request).id
    except DecodeError:
        # What cannot be read has no id that could be told; the text says what is wrong with it.
        reply.ClearField("infer_response")
    content: bytes = reply.SerializeToString()
    return content


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
