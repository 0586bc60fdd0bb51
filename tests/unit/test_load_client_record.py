"""The load generator's record of every call: its times, and which reply it got."""

import struct
import time
from itertools import pairwise
from typing import Any, NamedTuple

import grpc
import pytest

from infer._core import load_client
from tests.support.scripted_peer import reply, reset, scripted_peer
from tests.unit.test_load_client import PATH, Echo, serving


class Call(NamedTuple):
    scheduled_ns: int
    started_ns: int
    received_ns: int
    reply: int


def calls_of(result: load_client.LoadResult) -> list[Call]:
    return [Call(*fields) for fields in struct.iter_unpack("=4q", result.calls)]


class Counting(Echo):
    """Answers each call with the hundred that it belongs to."""

    async def answer(self, request: bytes, context: Any) -> bytes:
        return b"%04d" % (self.calls // 100)


def test_each_call_has_its_reply_and_its_times() -> None:
    before = time.monotonic_ns()
    with serving(Counting()) as address:
        # More calls than a record has room for at first, one at a time: in the order in which they were counted.
        result = load_client.run(address, PATH, b"x", requests=4200, record=True)
    after = time.monotonic_ns()
    calls = calls_of(result)
    assert result.ok == len(calls) == 4200
    assert [int(result.replies[call.reply]) for call in calls] == [number // 100 for number in range(1, 4201)]
    assert all(call.scheduled_ns <= call.started_ns < call.received_ns for call in calls)
    assert all(one.received_ns <= other.started_ns for one, other in pairwise(calls))
    assert before <= calls[0].scheduled_ns <= calls[-1].received_ns <= after


def test_replies_may_be_of_any_length() -> None:
    class Growing(Echo):
        async def answer(self, request: bytes, context: Any) -> bytes:
            return b"x" * self.calls

    with serving(Growing()) as address:
        strict = load_client.run(address, PATH, b"x", requests=3, record=True)
    with serving(Growing()) as address:
        free = load_client.run(address, PATH, b"x", requests=3, record=True, any_length=True)
    assert (strict.ok, strict.failures, free.ok, free.failures) == (1, {"wrong_length": 2}, 3, {})
    assert free.replies == (b"x", b"xx", b"xxx")


def test_of_a_rate_each_call_has_its_schedule() -> None:
    with serving(Echo()) as address:
        result = load_client.run(address, PATH, b"x", 2, 4, rate=1000, requests=50, warmup_s=0.02, record=True)
    calls = sorted(calls_of(result))
    assert [call.scheduled_ns - calls[0].scheduled_ns for call in calls] == [k * 1_000_000 for k in range(50)]
    assert (result.replies, {call.reply for call in calls}, result.first_reply) == ((b"x",), {0}, b"x")


def test_a_call_that_is_not_ok_has_no_reply() -> None:
    class Third(Echo):
        async def answer(self, request: bytes, context: Any) -> bytes:
            if self.calls == 3:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
            return request * 2 if self.calls == 5 else request

    with serving(Third()) as address:
        result = load_client.run(address, PATH, b"x", requests=6, record=True)
    assert [call.reply for call in calls_of(result)] == [0, 0, -1, 0, -1, 0]
    assert all(call.started_ns < call.received_ns for call in calls_of(result))

    with scripted_peer(lambda number, stream: reset(stream, 8) if number == 2 else reply(stream)) as address:
        result = load_client.run(address, PATH, b"x", requests=4, record=True)
    assert [call.reply for call in calls_of(result)] == [0, 0, -1, 0]


def test_empty_replies_are_replies() -> None:
    with serving(Echo()) as address:
        result = load_client.run(address, PATH, b"", requests=3, record=True)
    assert (result.replies, [call.reply for call in calls_of(result)]) == ((b"",), [0, 0, 0])


def test_more_different_replies_than_a_record_holds() -> None:
    class Different(Echo):
        async def answer(self, request: bytes, context: Any) -> bytes:
            return b"%08d" % self.calls

    with serving(Different()) as address:
        assert len(load_client.run(address, PATH, b"x", requests=4096, record=True).replies) == 4096
    with serving(Different()) as address, pytest.raises(ValueError, match="more than 4096 different replies"):
        load_client.run(address, PATH, b"x", requests=4097, record=True)


def test_a_run_goes_on_until_it_is_told_to_end() -> None:
    echo = Echo()
    asked: list[int] = []

    def until() -> bool:
        asked.append(echo.calls)
        return len(asked) == 2

    with serving(echo) as address:
        result = load_client.run(address, PATH, b"x", 1, 1, rate=200, until=until)
    assert 0 < asked[0] < asked[1] <= result.sent == result.ok == echo.calls
    assert len(asked) == 2


def test_nothing_is_kept_unless_asked_for() -> None:
    with serving(Echo()) as address:
        result = load_client.run(address, PATH, b"x", requests=3)
    assert (result.calls, result.replies) == (b"", ())


def test_messages_of_streams_have_no_record() -> None:
    with pytest.raises(ValueError, match="not of a stream's messages"):
        load_client.run("127.0.0.1:1", PATH, b"x", requests=1, stream_messages=4, record=True)
