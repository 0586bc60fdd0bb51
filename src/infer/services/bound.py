"""How large a message of a cold call may be: such messages are parsed on the loop, where all others wait meanwhile."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from infer.errors import ResourceExhausted
from infer.services.call import Call, Handler, Service, StreamCall, Streaming


class ColdBound:
    """`--max-cold-message-bytes`, and how many messages were refused for it. Loop thread only."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.refused = 0

    def over(self, service: Service, exempt: Collection[str] = ()) -> Service:
        """The handlers of `service` behind the bound, but for those whose paths are in `exempt`."""
        return {path: handler if path in exempt else self._behind(handler) for path, handler in service.items()}

    def check(self, path: str, message: bytes) -> None:
        """Raises ResourceExhausted for a message that is too long."""
        if len(message) > self.limit_bytes:
            self.refused += 1
            raise ResourceExhausted(
                f"{path}: the request has {len(message)} bytes, at most {self.limit_bytes} are taken here "
                "(--max-cold-message-bytes of the server); send a smaller one")

    def _behind(self, handler: Handler | Streaming) -> Handler | Streaming:
        if isinstance(handler, Streaming):
            inner = handler.handler

            async def stream(call: StreamCall) -> None:
                await inner(_Bounded(call, self))

            return Streaming(stream, handler.client_streams)
        answer = handler

        async def unary(call: Call) -> bytes:
            self.check(call.path, call.message)
            return await answer(call)

        return unary


class _Bounded:
    """A StreamCall whose messages are held to the bound as they are read."""

    def __init__(self, call: StreamCall, bound: ColdBound) -> None:
        self._call = call
        self._bound = bound

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def read(self) -> bytes | None:
        message = await self._call.read()
        if message is not None:
            self._bound.check(self._call.path, message)
        return message


def with_refusals(refused: Mapping[str, int], bound: ColdBound) -> dict[str, int]:
    """Refusals by limit, those of the bound among them."""
    return {**refused, "max_cold_message_bytes": bound.refused}
