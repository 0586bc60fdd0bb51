"""The client for asyncio. It belongs to the event loop that it is made on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from infer.client import calls
from infer.client.messages import Result, decode_reply, encode_request
from infer.client.retry import DEFAULT_RETRY, Attempts, RetryPolicy
from infer.proto import message


class AsyncInferClient:
    """InferClient's methods as coroutines. Close it, or use it in an `async with`."""

    def __init__(self, address: str, *, timeout: float | None = calls.DEFAULT_TIMEOUT,
                 credentials: grpc.ChannelCredentials | None = None, retry: RetryPolicy = DEFAULT_RETRY) -> None:
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address, calls.CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address, credentials, calls.CHANNEL_OPTIONS)
        self._timeout = timeout
        self._retry = retry
        self._sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def __aenter__(self) -> AsyncInferClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def infer(self, model: str, inputs: Mapping[str, Any], *, version: str = "",
                    outputs: Sequence[str] | None = None, timeout: float | None = None, request_id: str = "",
                    parameters: Mapping[str, bool | int | float | str] | None = None,
                    metadata: calls.Metadata | None = None) -> Result:
        """As InferClient.infer."""
        request = encode_request(model, inputs, version=version, outputs=outputs, request_id=request_id,
                                 parameters=parameters)
        return decode_reply(await self.call(calls.INFER_PATH, request, timeout=timeout, metadata=metadata))

    async def metadata(self, model: str, version: str = "", *, timeout: float | None = None) -> Any:
        """As InferClient.metadata."""
        return await self._ask(calls.model_metadata(model, version), timeout)

    async def ready(self, model: str = "", version: str = "", *, timeout: float | None = None) -> bool:
        """As InferClient.ready."""
        query = calls.model_ready(model, version) if model else calls.server_ready()
        return bool((await self._ask(query, timeout)).ready)

    async def healthy(self, service: str = "", *, timeout: float | None = None) -> bool:
        """As InferClient.healthy."""
        return bool((await self._ask(calls.health_check(service), timeout)).status == calls.SERVING)

    async def statistics(self, model: str = "", version: str = "", *, timeout: float | None = None) -> Sequence[Any]:
        """As InferClient.statistics."""
        return tuple((await self._ask(calls.model_statistics(model, version), timeout)).model_stats)

    async def models(self, *, timeout: float | None = None) -> Sequence[Any]:
        """As InferClient.models."""
        return tuple((await self._ask(calls.repository_index(), timeout)).models)

    async def load(self, model: str, *, config: str | None = None,
                   files: Mapping[tuple[int, str], bytes] | None = None, timeout: float | None = None) -> None:
        """As InferClient.load."""
        await self._ask(calls.model_load(model, config, files or {}), timeout)

    async def unload(self, model: str, *, timeout: float | None = None) -> None:
        """As InferClient.unload."""
        await self._ask(calls.model_unload(model), timeout)

    async def move_label(self, model: str, label: str, version: int, *, timeout: float | None = None) -> None:
        """As InferClient.move_label."""
        await self._ask(calls.label_move(model, label, version), timeout)

    async def record_outcome(self, model: str, metric: str, value: float, *, request_id: str = "",
                             routing_key: str = "", timeout: float | None = None) -> calls.Recorded:
        """As InferClient.record_outcome."""
        return await self.record_outcomes([calls.Outcome(model, metric, value, request_id, routing_key)],
                                          timeout=timeout)

    async def record_outcomes(self, outcomes: Iterable[calls.Outcome], *, timeout: float | None = None
                              ) -> calls.Recorded:
        """As InferClient.record_outcomes."""
        return calls.recorded(await self._ask(calls.outcome_record(outcomes), timeout))

    async def _ask(self, query: calls.Query, timeout: float | None) -> Any:
        return message(query.reply).FromString(await self.call(query.path, query.request, timeout=timeout))

    async def call(self, path: str, request: bytes, *, timeout: float | None = None,
                   metadata: calls.Metadata | None = None) -> bytes:
        """As InferClient.call."""
        attempts = Attempts(self._retry, self._timeout if timeout is None else timeout)
        stub = self._channel.unary_unary(path)
        sent = calls.pairs(metadata)
        while True:
            try:
                reply: bytes = await stub(request, timeout=attempts.time_left(), metadata=sent)
                return reply
            except grpc.aio.AioRpcError as raised:
                error, pushback = calls.failure(raised)
            wait = attempts.wait_after(error.code, pushback)
            if wait is None:
                raise error
            await self._sleep(wait)
