"""ModelStreamInfer of a real server: order, errors in the stream and at its end, deadlines, bounds, the drain."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from infer.proto import message
from tests.support.calls import SERVICE, identity_request, raw_output, slow_request, wide_request
from tests.support.h2_peer import (
    GOAWAY,
    INITIAL_WINDOW_SIZE,
    Peer,
    Reply,
    prefixed,
    request_fields,
    split_messages,
    window_update,
)
from tests.support.requests import pack
from tests.support.server import InProcess, in_process, scrape
from tests.support.transports import GRPCIO

STREAM_PATH = SERVICE + "ModelStreamInfer"
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 0, 3, 4, 5, 8, 13, 14
BUSY = 20_000
SECONDS = 20


def messages(body: bytes) -> list[Any]:
    """The ModelStreamInferResponses that have come whole."""
    return [message("inference.ModelStreamInferResponse").FromString(each) for each in split_messages(body)]


def with_fields(request: bytes, **fields: Any) -> bytes:
    changed = message("inference.ModelInferRequest").FromString(request)
    changed.MergeFrom(message("inference.ModelInferRequest")(**fields))
    content: bytes = changed.SerializeToString()
    return content


def until(peer: Peer, stream: int, count: int) -> list[Any]:
    """The stream's messages once there are as many."""
    reply = peer.expect(stream)
    while len(got := messages(reply.body)) < count:
        peer.read()
    return got


def occupy(server: InProcess, peer: Peer, stream: int, steps: int = BUSY) -> None:
    """Keeps the only executor busy with a message of the stream."""
    peer.body(stream, prefixed(slow_request(steps)), end=False)
    server.until(lambda: (server.server.pipeline.in_flight, server.server.pipeline.queued_requests) == (1, 0))


def talk(peer: Peer, requests: Sequence[bytes], *more: tuple[str, str]) -> Reply:
    stream = peer.open(request_fields(STREAM_PATH, *more))
    peer.body(stream, b"".join(map(prefixed, requests)))
    return peer.answer(stream)


@pytest.fixture
def stream_infer(server: InProcess) -> Iterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as channel:
        yield channel.stream_stream(STREAM_PATH, response_deserializer=message(
            "inference.ModelStreamInferResponse").FromString)
    server.settle()


def test_replies_in_order_whatever_their_size(stream_infer: Any):
    chance = random.Random(5)
    contents = [chance.randbytes(4 * chance.choice([1, 10, 1000, 1100, 5000, 100_000])) for _ in range(200)]
    call = stream_infer(iter([wide_request(content) for content in contents]), timeout=SECONDS)
    replies = list(call)
    assert [each.error_message for each in replies] == [""] * 200
    assert [each.infer_response.raw_output_contents[0] for each in replies] == contents
    assert call.code() is grpc.StatusCode.OK


def test_a_large_message_in_either_direction(stream_infer: Any):
    content = random.Random(6).randbytes(20 << 20)
    replies = list(stream_infer(iter([wide_request(content), wide_request(b"1234")]), timeout=SECONDS))
    assert [each.infer_response.raw_output_contents[0] for each in replies] == [content, b"1234"]


def test_a_stream_without_messages(peer: Peer):
    reply = peer.call(STREAM_PATH, None)
    assert (reply.code, reply.body) == (OK, b"")


def test_errors_travel_in_the_stream_with_the_id_of_their_request(server: InProcess, peer: Peer):
    before = server.snapshot().get("streams_total", 0)
    reply = talk(peer, [
        with_fields(identity_request(), id="a"), with_fields(identity_request(model="nope"), id="b"),
        with_fields(identity_request(), id="c", raw_input_contents=[b"1"]), b"\xff",
        with_fields(identity_request(), id="d" * 2000),
        with_fields(identity_request([5, 6, 7, 8]), id="e")])
    assert reply.code == OK
    got = messages(reply.body)
    assert [each.infer_response.id for each in got] == ["a", "b", "c", "", "", "e"]
    assert [bool(each.error_message) for each in got] == [False, True, True, True, True, False]
    assert "nope" in got[1].error_message
    assert not got[1].infer_response.raw_output_contents
    assert got[5].infer_response.raw_output_contents[0] == pack("FP32", [5, 6, 7, 8])
    # grpcio does not count them.
    assert server.snapshot().get("streams_total", before + 1) == before + 1


def test_a_real_status_where_the_caller_asks_for_one(peer: Peer):
    reply = talk(peer, [identity_request(), identity_request(model="nope"), identity_request()],
                 ("triton_grpc_error", "true"))
    assert reply.code == NOT_FOUND
    assert "nope" in reply.text
    assert len(messages(reply.body)) == 1
    assert talk(peer, [identity_request(model="nope")], ("triton_grpc_error", "false")).code == OK
    alone = talk(peer, [identity_request(model="nope")], ("triton_grpc_error", "true"))
    assert (alone.code, alone.trailers_only) == (NOT_FOUND, True)


@pytest.mark.parametrize("content", [identity_request(), wide_request(bytes(100_000))])
def test_the_last_response_is_marked_where_the_caller_asks_for_it(peer: Peer, content: bytes):
    asked = message("inference.ModelInferRequest")()
    asked.parameters["triton_enable_empty_final_response"].bool_param = True
    plain, marked = messages(talk(peer, [content, content + asked.SerializeToString()]).body)
    assert "triton_final_response" not in plain.infer_response.parameters
    assert marked.infer_response.parameters["triton_final_response"].bool_param is True
    del marked.infer_response.parameters["triton_final_response"]
    assert plain == marked


def test_each_message_is_a_request_in_the_metrics(server: InProcess, peer: Peer):
    label = frozenset({"model": "identity", "version": "1", "code": "OK"}.items())
    before = scrape(server.http_address).get(("infer_requests_total", label), 0)
    assert talk(peer, [identity_request()] * 30).code == OK
    assert scrape(server.http_address)["infer_requests_total", label] == before + 30


def test_the_deadline_is_that_of_the_stream(server: InProcess, peer: Peer):
    begin = time.monotonic()
    stream = peer.open(request_fields(STREAM_PATH, ("grpc-timeout", "300m")))
    peer.body(stream, prefixed(identity_request()), end=False)
    assert len(until(peer, stream, 1)) == 1
    peer.body(stream, prefixed(slow_request(BUSY * 4)) + prefixed(identity_request()), end=False)
    reply = peer.answer(stream)
    assert time.monotonic() - begin >= 0.299
    assert (reply.code, len(messages(reply.body))) == (DEADLINE_EXCEEDED, 1)
    server.until(lambda: server.server.pipeline.in_flight == 0)


def test_an_idle_stream_ends_at_its_deadline(peer: Peer):
    stream = peer.open(request_fields(STREAM_PATH, ("grpc-timeout", "50m")))
    reply = peer.answer(stream)
    assert (reply.code, reply.trailers_only) == (DEADLINE_EXCEEDED, True)
    reply = peer.answer(peer.open(request_fields(STREAM_PATH, ("grpc-timeout", "1n"))))
    assert reply.code == DEADLINE_EXCEEDED


def test_cancelling_the_stream_cancels_what_is_queued(server: InProcess, peer: Peer):
    stream = peer.open(request_fields(STREAM_PATH))
    occupy(server, peer, stream)
    peer.body(stream, prefixed(slow_request(0)) * 20, end=False)
    server.until(lambda: server.server.pipeline.queued_requests == 20)
    peer.reset(stream)
    server.until(lambda: server.server.pipeline.queued_requests == 0)
    assert server.snapshot()["in_flight"] <= 1
    assert server.snapshot()["buffered_bytes"] == 0
    assert raw_output(peer.call(message=identity_request()).message) == pack("FP32", [1, 2, 3, 4])
    server.until(lambda: server.server.pipeline.in_flight == 0)


def test_losing_the_connection_cancels_what_is_queued(server: InProcess):
    with server.connect() as peer:
        stream = peer.open(request_fields(STREAM_PATH))
        occupy(server, peer, stream)
        peer.body(stream, prefixed(slow_request(0)) * 20, end=False)
        server.until(lambda: server.server.pipeline.queued_requests == 20)
    server.settle()


def test_at_most_so_many_requests_of_a_stream_are_under_way(server: InProcess, peer: Peer):
    content = slow_request(0)
    held = server.snapshot()["streams_held_total"]
    stream = peer.open(request_fields(STREAM_PATH))
    occupy(server, peer, stream)
    peer.body(stream, prefixed(content) * 199)
    peer.ping()
    snapshot = server.snapshot()
    assert snapshot["in_flight"] <= 64
    assert snapshot["streams_held_total"] > held
    assert snapshot["buffered_bytes"] > 130 * len(prefixed(content))
    reply = peer.answer(stream)
    assert (reply.code, len(messages(reply.body))) == (OK, 200)
    assert scrape(server.http_address)["infer_streams_held_total", frozenset()] > held


def test_the_window_is_withheld_from_a_stream_that_has_enough(server: InProcess, peer: Peer):
    """Of the stream alone: another call on the connection goes on."""
    if server.transport == GRPCIO:
        pytest.skip("grpcio opens its windows at a pace of its own; what is under way is bounded all the same")
    stream = peer.open(request_fields(STREAM_PATH))
    occupy(server, peer, stream, 5 * BUSY)
    padded = prefixed(with_fields(slow_request(0), parameters={"x": {"string_param": "p" * 10_000}}))
    while peer.windows[stream] > len(padded):
        while peer.windows[stream] > len(padded):
            peer.body(stream, padded, end=False)
        peer.ping()
    left = peer.windows[stream]
    assert server.snapshot()["buffered_bytes"] <= 65 * len(padded) + (1 << 20)
    server.until(lambda: server.server.pipeline.in_flight == 64)
    assert peer.call(SERVICE + "ServerLive").code == OK
    assert peer.windows[stream] == left
    until(peer, stream, 64)
    peer.body(stream, padded * 3)
    assert peer.answer(stream).code == OK


def test_a_reader_that_does_not_read_holds_up_its_own_stream_alone(server: InProcess):
    content = wide_request(bytes(200_000))
    with server.connect(settings=[(INITIAL_WINDOW_SIZE, 0)]) as peer:
        stream = peer.open(request_fields(STREAM_PATH))
        for _ in range(4):
            peer.body(stream, prefixed(content), end=False)
        peer.ping()
        server.until(lambda: server.server.pipeline.in_flight == 0)
        snapshot = server.snapshot()
        assert snapshot["outbound_bytes"] <= (256 << 10) + 64 * 200_100
        with server.connect() as other:
            assert other.call(message=identity_request()).code == OK
        peer.send(window_update(stream, 1 << 30))
        peer.body(stream, prefixed(content))
        reply = peer.answer(stream)
        assert (reply.code, len(messages(reply.body))) == (OK, 5)
    server.settle()


@pytest.mark.parametrize(("after", "code", "count"), [
    (b"\0\0", INTERNAL, 1), (prefixed(b"abc")[:-1], INTERNAL, 1), (prefixed(b"", flag=1), INTERNAL, 1),
    (prefixed(b"", flag=7), INTERNAL, 1), (prefixed(b"", announced=(64 << 20) + 1), RESOURCE_EXHAUSTED, 1),
    (prefixed(b"", announced=(1 << 32) - 1), RESOURCE_EXHAUSTED, 1), (prefixed(b""), OK, 2)])
def test_B39_B44_C1_later_messages_of_a_stream(peer: Peer, after: bytes, code: int, count: int):
    stream = peer.open(request_fields(STREAM_PATH))
    peer.body(stream, prefixed(identity_request()), end=False)
    assert len(until(peer, stream, 1)) == 1
    peer.body(stream, after)
    reply = peer.answer(stream)
    assert reply.code == code, reply.text
    assert len(messages(reply.body)) == count
    assert peer.call(message=identity_request()).code == OK


def test_a_drain_lets_replies_out_and_ends_the_stream(repository: Path, transport: str):
    with (in_process(repository, transport=transport, executors=1) as server, server.connect() as busy,
          server.connect() as idle):
        waiting = idle.open(request_fields(STREAM_PATH))
        idle.ping()
        stream = busy.open(request_fields(STREAM_PATH))
        busy.body(stream, prefixed(slow_request(BUSY)) * 2, end=False)
        busy.ping()
        server.until(lambda: server.server.pipeline.in_flight == 2)
        draining = server.loop.call_soon_threadsafe
        done: list[Any] = []

        async def drain() -> None:
            done.append(await server.server.drain(0.0, SECONDS))

        draining(lambda: server.loop.create_task(drain()))
        reply = idle.answer(waiting)
        assert (reply.code, reply.trailers_only) == (UNAVAILABLE, True)
        reply = busy.answer(stream)
        assert (reply.code, len(messages(reply.body))) == (UNAVAILABLE, 2)
        assert any(each.kind == GOAWAY for each in busy.others)
        busy.until_closed()
        idle.until_closed()
        server.until(lambda: done == [True])


def test_streams_at_once_share_batches(server: InProcess, peer: Peer):
    before = server.stats("identity")
    streams = [peer.open(request_fields(STREAM_PATH)) for _ in range(8)]
    for number in range(40):
        for stream in streams:
            peer.body(stream, prefixed(identity_request([stream, number, 0, 0])), end=number == 39)
    for stream in streams:
        reply = peer.answer(stream)
        assert reply.code == OK
        assert [each.infer_response.raw_output_contents[0] for each in messages(reply.body)] == [
            pack("FP32", [stream, number, 0, 0]) for number in range(40)]
    after = server.stats("identity")
    assert after["rows"] - before["rows"] == 320
