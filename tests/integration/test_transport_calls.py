"""Calls over real sockets: what clients do to them, and what the counters say afterwards."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator

import grpc
import pytest

from infer._core import _testing_memory as memory
from infer._core import arena
from infer.proto import message
from tests.support.calls import HEALTH_CHECK, SERVICE, identity_request, raw_output, slow_request, wide_request
from tests.support.h2_peer import DATA, INFER_PATH, NO_ERROR, REFUSED_STREAM, Peer, frame, prefixed, request_fields
from tests.support.requests import pack
from tests.support.server import InProcess, scrape
from tests.support.transports import GRPCIO

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 0, 1, 3, 4, 5, 8
# About half a second of one executor.
BUSY = 20_000


def start(peer: Peer, content: bytes, *more: tuple[str, str]) -> int:
    stream = peer.open(request_fields(INFER_PATH, *more))
    peer.body(stream, prefixed(content))
    return stream


def occupy(server: InProcess, peer: Peer, steps: int = BUSY, *more: tuple[str, str]) -> int:
    """Starts a call that the only executor is busy with from then on."""
    stream = start(peer, slow_request(steps), *more)
    server.until(lambda: (server.server.pipeline.in_flight, server.server.pipeline.queued_requests) == (1, 0))
    return stream


def until_queued(server: InProcess, count: int) -> None:
    server.until(lambda: server.server.pipeline.queued_requests == count)


def counted(server: InProcess) -> tuple[list[int], int, int]:
    """Of `slow`: calls by code, rows and batches that were run."""
    stats = server.stats("slow")
    return list(stats["calls"]), stats["rows"], stats["batches"]


def test_F1_connection_reset_in_the_middle_of_a_message(server: InProcess):
    before, unrouted = counted(server), server.unrouted()
    peer = server.connect()
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(slow_request(1), announced=1000), end=False)
    peer.ping()
    assert server.snapshot()["buffered_bytes"] > 0
    link = peer.transport
    assert isinstance(link, socket.socket)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    server.settle()
    assert server.snapshot()["buffered_bytes"] == server.snapshot()["streams"] == 0
    assert counted(server) == before
    unrouted[CANCELLED] += 1
    assert server.unrouted() == unrouted


def test_F2_reset_while_queued(server: InProcess, peer: Peer):
    calls, rows, batches = counted(server)
    running = occupy(server, peer)
    queued = start(peer, slow_request(0))
    until_queued(server, 1)
    peer.reset(queued)
    until_queued(server, 0)
    assert not peer.replies[running].ended
    assert peer.answer(running).code == OK
    calls[OK] += 1
    calls[CANCELLED] += 1
    assert counted(server) == (calls, rows + 1, batches + 1)


def test_F3_reset_while_running(server: InProcess, peer: Peer):
    calls, rows, batches = counted(server)
    running = occupy(server, peer)
    peer.reset(running)
    peer.ping()
    other = start(peer, slow_request(0))
    assert peer.answer(other).code == OK
    assert peer.replies[running].frames == []
    calls[OK] += 1
    calls[CANCELLED] += 1
    assert counted(server) == (calls, rows + 2, batches + 2)


def test_F3_reset_of_one_in_a_batch_leaves_the_others(server: InProcess, peer: Peer):
    calls, rows, batches = counted(server)
    occupied = occupy(server, peer)
    gathered = [start(peer, slow_request(BUSY // 4 + number)) for number in range(3)]
    until_queued(server, 3)
    assert peer.answer(occupied).code == OK
    until_queued(server, 0)
    peer.reset(gathered[1])
    for number in (0, 2):
        reply = peer.answer(gathered[number])
        assert raw_output(reply.message) == pack("INT64", [BUSY // 4 + number])
    calls[OK] += 3
    calls[CANCELLED] += 1
    server.until(lambda: server.server.pipeline.in_flight == 0)
    assert counted(server) == (calls, rows + 4, batches + 2)


def test_F4_deadline_while_queued(server: InProcess, peer: Peer):
    calls, rows, batches = counted(server)
    running = occupy(server, peer)
    begin = time.monotonic()
    queued = start(peer, slow_request(0), ("grpc-timeout", "50m"))
    reply = peer.answer(queued)
    assert 0.049 <= time.monotonic() - begin < 0.3
    assert not peer.replies[running].ended
    assert (reply.code, reply.trailers_only) == (DEADLINE_EXCEEDED, True)
    # grpcio's own timer may be the first.
    assert "not run" in reply.text or (server.transport, reply.text) == (GRPCIO, "Deadline Exceeded")
    assert peer.answer(running).code == OK
    calls[OK] += 1
    calls[DEADLINE_EXCEEDED] += 1
    assert counted(server) == (calls, rows + 1, batches + 1)


def test_F5_deadline_while_running(server: InProcess, peer: Peer):
    calls, rows, batches = counted(server)
    running = occupy(server, peer, BUSY, ("grpc-timeout", "60m"))
    reply = peer.answer(running)
    assert (reply.code, reply.trailers_only) == (DEADLINE_EXCEEDED, True)
    assert server.snapshot()["in_flight"] == 1
    server.until(lambda: server.server.pipeline.in_flight == 0)
    calls[DEADLINE_EXCEEDED] += 1
    assert counted(server) == (calls, rows + 1, batches + 1)


def test_F6_deadline_that_has_passed(server: InProcess, peer: Peer):
    before, unrouted = counted(server), server.unrouted()
    for timeout in ("0n", "1n", "0S"):
        assert peer.answer(start(peer, slow_request(0), ("grpc-timeout", timeout))).code == DEADLINE_EXCEEDED
    unrouted[DEADLINE_EXCEEDED] += 3
    assert server.unrouted() == unrouted
    assert counted(server) == before


def test_F4_deadline_while_the_message_comes(server: InProcess, peer: Peer):
    unrouted = server.unrouted()
    stream = peer.open(request_fields(INFER_PATH, ("grpc-timeout", "50m")))
    peer.body(stream, prefixed(b"half", announced=100), end=False)
    assert peer.answer(stream).code == DEADLINE_EXCEEDED
    peer.ping()
    assert peer.replies[stream].reset == NO_ERROR
    unrouted[DEADLINE_EXCEEDED] += 1
    assert server.unrouted() == unrouted


def test_F4_deadline_of_a_cold_call(server: InProcess, peer: Peer):
    stream = peer.open(request_fields(SERVICE + "ServerLive", ("grpc-timeout", "50m")))
    peer.body(stream, prefixed(b"half", announced=100), end=False)
    reply = peer.answer(stream)
    assert (reply.code, reply.trailers_only) == (DEADLINE_EXCEEDED, True)
    assert peer.call(SERVICE + "ServerLive", b"", ("grpc-timeout", "20S")).code == OK


def test_a_thousand_cancelled_at_once(server: InProcess, peer: Peer):
    calls, rows, batches = counted(server)
    # Longer than it takes to send and queue them, on the slowest of machines.
    running = occupy(server, peer, 8 * BUSY)
    queued = [start(peer, slow_request(0)) for _ in range(1000)]
    until_queued(server, 1000)
    for stream in random.Random(0).sample(queued, len(queued)):
        peer.reset(stream)
    until_queued(server, 0)
    peer.ping()
    snapshot = server.snapshot()
    assert (snapshot["in_flight"], snapshot.get("streams", 1)) == (1, 1)
    # With the 5-byte prefix, or without where the transport does not see it.
    assert snapshot["buffered_bytes"] in (len(slow_request(8 * BUSY)), len(prefixed(slow_request(8 * BUSY))))
    assert peer.answer(running).code == OK
    calls[OK] += 1
    calls[CANCELLED] += 1000
    assert counted(server) == (calls, rows + 1, batches + 1)


def test_the_1025th_stream_is_refused(server: InProcess):
    before = server.snapshot()["refused"]["max_streams"]
    with server.connect(acknowledge=False) as peer:
        streams = [peer.open(request_fields()) for _ in range(1025)]
        assert peer.answer(streams[-1]).reset == REFUSED_STREAM
        peer.body(streams[0], prefixed(identity_request()))
        assert peer.answer(streams[0]).code == OK
        peer.body(peer.open(request_fields()), prefixed(identity_request()))
        assert peer.answer(streams[-1] + 2).code == OK
        assert server.snapshot()["refused"]["max_streams"] == before + 1
    server.settle()


def test_interleaved_streams(peer: Peer):
    chance = random.Random(1)
    bodies = {}
    for number in range(60):
        stream = peer.open(request_fields())
        bodies[stream] = prefixed(identity_request([number, number + 1, number + 2, number + 3]))
    left = dict(bodies)
    while left:
        stream = chance.choice(list(left))
        size = chance.randrange(1, 30)
        part, left[stream] = left[stream][:size], left[stream][size:]
        peer.send(frame(DATA, 0 if left[stream] else 1, stream, part))
        if not left[stream]:
            del left[stream]
    for number, stream in enumerate(bodies):
        reply = peer.answer(stream)
        assert raw_output(reply.message) == pack("FP32", [number, number + 1, number + 2, number + 3])


@pytest.mark.parametrize("size", [4, 4096, 16384, 65536, 1 << 20, 20 << 20])
def test_messages_of_any_size_come_back_whole(peer: Peer, size: int):
    content = random.Random(size).randbytes(size)
    reply = peer.call(message=wide_request(content))
    assert reply.code == OK
    assert raw_output(reply.message) == content


def test_a_narrow_window_carries_a_large_reply(server: InProcess):
    content = random.Random(2).randbytes(1 << 20)
    with server.connect(wide=False) as peer:
        stream = start(peer, wide_request(content))
        while not peer.replies[stream].ended:
            got = peer.read()
            if got.kind == DATA and got.payload:
                step = struct.pack(">I", len(got.payload))
                peer.send(frame(8, 0, 0, step) + frame(8, 0, stream, step))
        assert raw_output(peer.replies[stream].message) == content
    server.settle()


# By grpcio.


@pytest.fixture
def channel(server: InProcess) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.address, options) as connected:
        yield connected
    server.settle()


def cold(channel: grpc.Channel, path: str, kind: str, **fields: object) -> object:
    request, response = message(f"{kind}Request"), message(f"{kind}Response")
    method = channel.unary_unary(path, request_serializer=request.SerializeToString,
                                 response_deserializer=response.FromString)
    return method(request(**fields), timeout=20)


def test_cold_calls_by_grpcio(channel: grpc.Channel):
    assert cold(channel, SERVICE + "ServerLive", "inference.ServerLive").live is True  # type: ignore[attr-defined]
    assert cold(channel, SERVICE + "ServerReady", "inference.ServerReady").ready is True  # type: ignore[attr-defined]
    for name, ready in (("identity", True), ("nope", False)):
        reply = cold(channel, SERVICE + "ModelReady", "inference.ModelReady", name=name)
        assert reply.ready is ready  # type: ignore[attr-defined]
    assert cold(channel, SERVICE + "ServerMetadata",
                "inference.ServerMetadata").name == "infer"  # type: ignore[attr-defined]
    metadata = cold(channel, SERVICE + "ModelMetadata", "inference.ModelMetadata", name="identity")
    (tensor,) = metadata.inputs  # type: ignore[attr-defined]
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [-1, 4])
    for service in ("", "inference.GRPCInferenceService", "identity"):
        health = cold(channel, HEALTH_CHECK, "grpc.health.v1.HealthCheck", service=service)
        assert health.status == 1  # type: ignore[attr-defined]
    with pytest.raises(grpc.RpcError) as caught:
        cold(channel, HEALTH_CHECK, "grpc.health.v1.HealthCheck", service="nope")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_calls_deadlines_and_cancellation_by_grpcio(server: InProcess, channel: grpc.Channel):
    infer = channel.unary_unary(INFER_PATH)
    calls, rows, batches = counted(server)
    content = random.Random(3).randbytes(20 << 20)
    assert raw_output(infer(wide_request(content), timeout=20)) == content
    busy = infer.future(slow_request(BUSY), timeout=20)
    server.until(lambda: server.server.pipeline.in_flight == 1 and server.server.pipeline.queued_requests == 0)
    with pytest.raises(grpc.RpcError) as caught:
        infer(slow_request(0), timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    queued = infer.future(slow_request(0), timeout=20)
    server.until(lambda: server.server.pipeline.queued_requests == 1)
    queued.cancel()
    server.until(lambda: server.server.pipeline.queued_requests == 0)
    assert raw_output(busy.result()) == pack("INT64", [BUSY])

    def given_up() -> int:
        now, _, _ = counted(server)
        # The client gives up at its deadline by itself; which of the two the server counts is a race.
        return sum(now[code] - calls[code] for code in (CANCELLED, DEADLINE_EXCEEDED))

    # One that an executor found cancelled is counted once the executor has given it back.
    server.until_here(lambda: given_up() == 2)
    after, more_rows, more_batches = counted(server)
    assert (more_rows, more_batches) == (rows + 1, batches + 1)
    assert after[OK] == calls[OK] + 1


def test_metrics_agree_with_what_clients_saw(server: InProcess, peer: Peer):
    def value(name: str, **labels: str) -> float:
        return after.get((name, frozenset(labels.items())), 0) - before.get((name, frozenset(labels.items())), 0)

    before = scrape(server.http_address)
    for _ in range(7):
        assert peer.call(message=identity_request(range(8))).code == OK
    for _ in range(3):
        assert peer.call(message=identity_request([1, 2, 3, 4], "nope")).code == NOT_FOUND
    bad = identity_request()[:-16] + bytes(16)
    assert peer.call(message=bad).code == OK
    assert peer.call(message=identity_request()[:-17]).code != OK
    for body, code in ((b"\1\0\0\0\0", 13), (prefixed(b"", announced=1 << 31), RESOURCE_EXHAUSTED), (b"", 12)):
        assert peer.call(body=body).code == code
    assert peer.call(SERVICE + "ServerLive").code == OK
    after = scrape(server.http_address)
    model = {"model": "identity", "version": "1"}
    assert value("infer_requests_total", code="OK", **model) == 8
    assert value("infer_rows_total", **model) == 15
    assert value("infer_batches_total", **model) == 8
    assert value("infer_request_seconds_count", **model) == value("infer_queue_seconds_count", **model) == 8
    assert value("infer_batch_rows_sum", **model) == 15
    nowhere = {"model": "", "version": ""}
    assert value("infer_requests_total", code="NOT_FOUND", **nowhere) == 3
    assert value("infer_requests_total", code="INTERNAL", **nowhere) == 2
    assert value("infer_requests_total", code="RESOURCE_EXHAUSTED", **nowhere) == 1
    assert value("infer_requests_total", code="UNIMPLEMENTED", **nowhere) == 1
    assert value("infer_requests_total", code="CANCELLED", **nowhere) == 0
    assert value("infer_refused_total", limit="max_message_bytes") == 1
    assert after["infer_connections", frozenset()] == 1
    for gauge in ("infer_requests_in_flight", "infer_streams", "infer_buffered_bytes", "infer_outbound_bytes"):
        assert after[gauge, frozenset()] == 0


def test_pages_over_the_bound_are_given_back_while_the_server_runs(server: InProcess):
    bound = arena.stats()["cached_bound_bytes"]
    size = 32 << 20
    # Nothing is written to them: they take address space, and count as if they had their pages.
    offsets = [memory.allocate(size) for _ in range(bound // size + 2)]
    assert all(offsets)
    for offset in offsets:
        memory.release(offset, size)
    server.until(lambda: arena.stats()["cached_bytes"] <= bound)
