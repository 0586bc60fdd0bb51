"""ModelStreamInfer over any StreamCall: replies in the order of the requests, a bounded number under way.

An error travels in a message, with its request's id, and the stream goes on; a client that sends `triton_grpc_error:
true` gets it as the status that ends the stream. Sources: WIRE 4.1, 4.4. Loop thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from infer._core.unary_sink import Refusal, UnaryCall, UnarySink
from infer.proto import message
from infer.services.call import StreamCall
from infer.transport.whose import Known

DEADLINE_EXCEEDED, UNAVAILABLE, UNAUTHENTICATED = 4, 14, 16
STOPPING = "the server is stopping; send the request to another replica"
REAL_STATUS = ("triton_grpc_error", "true")
FINAL = "triton_final_response"
# Tag of ModelStreamInferResponse.infer_response.
INFER_RESPONSE = b"\x12"


class InferStreams:
    """The streams of a transport: what they share, and their end."""

    def __init__(self, sink: UnarySink, in_flight: int,
                 whose: Callable[[Any], Known]) -> None:
        """`whose` a stream is, as UnarySink.call takes it."""
        self.sink = sink
        self.in_flight = in_flight
        self.held_total = 0         # times that a stream had as many requests under way as it may
        self.stopping = False
        self.whose = whose
        self._open: set[InferStream] = set()

    async def handle(self, call: StreamCall) -> None:
        """The handler of ModelStreamInfer."""
        stream = InferStream(self, call)
        self._open.add(stream)
        try:
            await stream.run()
        finally:
            self._open.discard(stream)

    def drain(self) -> None:
        """Reads no more: each stream ends with UNAVAILABLE once what is under way has been answered."""
        self.stopping = True
        for stream in self._open:
            stream.stop()


class InferStream:
    """One stream: a task reads, `run` answers."""

    def __init__(self, streams: InferStreams, call: StreamCall) -> None:
        self._streams = streams
        self._call = call
        self._room = asyncio.Semaphore(streams.in_flight)
        self._under_way: deque[UnaryCall] = deque()
        self._came = asyncio.Event()
        self._whose = streams.whose(call)
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def run(self) -> None:
        if self._streams.stopping:
            self.stop()
        try:
            await self._reply()
            if self._reading.cancelled():
                self._call.abort(UNAVAILABLE, STOPPING)
            await self._reading
        finally:
            self.stop()
            await asyncio.gather(self._reading, return_exceptions=True)
            for call in self._under_way:
                call.cancel()

    def stop(self) -> None:
        """Reads no more."""
        self._reading.cancel()

    async def _read(self) -> None:
        try:
            while True:
                # Before the read: what is not taken holds the client back.
                self._streams.held_total += self._room.locked()
                await self._room.acquire()
                content = await self._call.read()
                if content is None:
                    return
                self._under_way.append(self._streams.sink.call(content, self._call.time_remaining(), *self._whose))
                self._came.set()
        finally:
            self._came.set()

    async def _reply(self) -> None:
        real_status = REAL_STATUS in self._call.metadata
        while True:
            await self._came.wait()
            if not self._under_way:
                # The event that ends the reading is set before its task is done.
                await asyncio.sleep(0)
                if self._reading.done():
                    return
                self._came.clear()
                continue
            call = self._under_way[0]
            outcome = await call.future
            self._under_way.popleft()
            if isinstance(outcome, bytes):
                await self._call.write(wrapped(outcome, call.final_asked))
            elif real_status or outcome.code in (DEADLINE_EXCEEDED, UNAUTHENTICATED):
                # The deadline is the stream's, and so is its tenant.
                self._call.abort(outcome.code, outcome.message)
            else:
                await self._call.write(error_of(outcome))
            self._room.release()


def wrapped(reply: bytes, final: bool) -> bytes:
    """A ModelInferResponse as a ModelStreamInferResponse, marked as the last one where that was asked for."""
    if final:
        mark = message("inference.ModelInferResponse")()
        mark.parameters[FINAL].bool_param = True
        # Fields behind a message are merged into it.
        reply += mark.SerializeToString()
    return INFER_RESPONSE + varint(len(reply)) + reply


def error_of(refusal: Refusal) -> bytes:
    """The refusal as a message, with the request's id where it could be read."""
    reply = message("inference.ModelStreamInferResponse")(error_message=refusal.message)
    if refusal.id:
        reply.infer_response.id = refusal.id
    content: bytes = reply.SerializeToString()
    return content


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
