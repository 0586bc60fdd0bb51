"""How large a cold message may be."""

from __future__ import annotations

import pytest

from infer.errors import ResourceExhausted
from infer.services.bound import ColdBound, with_refusals
from infer.services.call import Call, StreamCall, Streaming
from tests.support.cold_server import FakeCall, FakeStreamCall


async def echo(call: Call) -> bytes:
    return call.message


async def echo_all(call: StreamCall) -> None:
    while (message := await call.read()) is not None:
        await call.write(message)


async def test_a_message_over_the_bound_is_refused_and_counted() -> None:
    bound = ColdBound(10)
    handler = bound.over({"/a/B": echo})["/a/B"]
    assert not isinstance(handler, Streaming)
    assert await handler(FakeCall("/a/B", bytes(10))) == bytes(10)
    with pytest.raises(ResourceExhausted, match=r"request has 11 bytes, at most 10 .*--max-cold-message-bytes"):
        await handler(FakeCall("/a/B", bytes(11)))
    assert with_refusals({"max_streams": 2}, bound) == {"max_streams": 2, "max_cold_message_bytes": 1}


async def test_each_message_of_a_stream() -> None:
    bound = ColdBound(10)
    handler = bound.over({"/a/B": Streaming(echo_all, client_streams=True)})["/a/B"]
    assert isinstance(handler, Streaming)
    assert handler.client_streams
    call = FakeStreamCall("/a/B")
    call.requests.put_nowait(bytes(10))
    call.requests.put_nowait(bytes(11))
    with pytest.raises(ResourceExhausted):
        await handler.handler(call)
    assert await call.replies.get() == bytes(10)
    assert bound.refused == 1


async def test_what_is_exempt_is_not_bounded() -> None:
    handler = ColdBound(10).over({"/a/B": echo}, exempt={"/a/B"})["/a/B"]
    assert handler is echo
