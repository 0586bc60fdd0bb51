from asyncio import AbstractEventLoop, Future
from typing import final

from infer._core.request import RequestSink

@final
class Refusal:
    code: int
    message: str
    pushback_ms: int
    id: str

@final
class UnaryCall:
    future: Future[bytes | Refusal]
    final_asked: bool
    variant: bytes | None
    def cancel(self) -> None: ...
    def refuse(self, code: int, message: str) -> None: ...

@final
class UnarySink:
    buffered_bytes: int
    refused_buffered: int
    def __init__(self, loop: AbstractEventLoop, requests: RequestSink, limit_bytes: int = 0) -> None: ...
    def call(
        self, message: bytes, time_remaining: float | None = None, tenant: bytes | None = None, source: int = 0,
        routing_key: bytes | None = None,
    ) -> UnaryCall: ...
    def kick(self) -> None: ...
    def end_calls(self, code: int, message: str) -> None: ...
    @property
    def in_flight(self) -> int: ...
