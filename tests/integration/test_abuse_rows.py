"""Every row of FAULTS 1b over a real socket, with a client beside it that must not notice."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.calls import identity_request, slow_request
from tests.support.floods import FLOODS, Flood
from tests.support.h2_peer import (
    ACK,
    INFER_PATH,
    SETTINGS,
    ConnectionEnded,
    Peer,
    frame,
    prefixed,
    request_fields,
)
from tests.support.server import InProcess, in_process

OK, UNAVAILABLE = 0, 14
STREAM_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"
FRAMES = 20_000
# Of a server that keeps something for each of a flood's frames.
GROWTH_BYTES = 64 << 20


def serves(peer: Peer) -> bool:
    return peer.call(message=identity_request()).code == OK


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def cut_within(steps: int, rude: Peer, flood: Flood, good: Peer) -> bool:
    """Whether the server ends the flood's connection; the good peer is served all the while."""
    coming = flood.steps()
    try:
        for _ in range(steps // 100):
            rude.send(b"".join(itertools.islice(coming, 100)))
            assert serves(good)
    except ConnectionEnded:
        return True
    return False


@pytest.mark.parametrize("flood", FLOODS, ids=[flood.row.replace(" ", "_") for flood in FLOODS])
def test_1b(repository: Path, flood: Flood):
    with in_process(repository) as server:
        with server.connect() as good:
            assert serves(good)
            with server.connect(wide=False, acknowledge="beyond" not in flood.row) as rude:
                coming = flood.steps()
                steps = list(itertools.islice(coming, flood.over - 1))
                last = b"".join(itertools.islice(coming, 1 + flood.answered))
                rude.send(b"".join(steps))
                # A PING between them would count itself, or would not belong there.
                if steps and flood.limit not in ("continuations", "max_ping_strikes"):
                    rude.ping()
                    assert server.snapshot()["refused"][flood.limit] == 0
                rude.send(last)
                rude.until_closed()
                assert rude.goaways()[0].error == flood.error
                assert server.snapshot()["refused"][flood.limit] == 1
            assert serves(good)


@pytest.mark.parametrize("flood", FLOODS, ids=[flood.row.replace(" ", "_") for flood in FLOODS])
def test_1b_of_20_000_frames(repository: Path, flood: Flood):
    with in_process(repository) as server:
        with server.connect() as good:
            assert serves(good)
            before = resident_bytes()
            with server.connect(wide=False, acknowledge="beyond" not in flood.row) as rude:
                assert cut_within(FRAMES, rude, flood, good)
            assert server.snapshot()["refused"][flood.limit] == 1
            assert resident_bytes() - before < GROWTH_BYTES
            assert serves(good)


@pytest.mark.parametrize("flood", [flood for flood in FLOODS if "stream" in flood.limit or "reset" in flood.limit],
                         ids=lambda flood: flood.row.replace(" ", "_"))
def test_1b_by_a_client_that_reads_nothing(repository: Path, flood: Flood):
    """What the server would say is bounded too."""
    with in_process(repository, max_queued_frames=200, write_stall_timeout=0.5) as server:
        with server.connect() as good, server.connect(wide=False, acknowledge=False) as rude:
            assert cut_within(FRAMES, rude, flood, good)
            refused = server.snapshot()["refused"]
            assert refused[flood.limit] + refused["max_queued_frames"] == 1


# A good client, in any number.


@pytest.fixture
def channel_of() -> Any:
    channels = []

    def connect(server: InProcess) -> grpc.Channel:
        channels.append(grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]))
        return channels[-1]

    yield connect
    for channel in channels:
        channel.close()


def test_F10_a_thousand_calls_in_flight_cancelled_at_once(repository: Path, channel_of: Any):
    with in_process(repository, executors=1) as server:
        channel = channel_of(server)
        call = channel.unary_unary(INFER_PATH)
        assert call(identity_request(), timeout=30)
        for _ in range(3):
            running = [call.future(slow_request(10_000), timeout=30) for _ in range(1000)]
            server.until(lambda: server.server.transport.endpoint.snapshot()["streams"] > 500)
            for each in running:
                each.cancel()
            server.until(lambda: server.server.transport.endpoint.snapshot()["streams"] == 0)
        assert call(identity_request(), timeout=30)
        snapshot = server.snapshot()
        assert (snapshot["connections_total"], sum(snapshot["refused"].values())) == (1, 0)
        channel.close()


def test_F10_thousands_of_client_timeouts(repository: Path, channel_of: Any):
    """Faster than 200 a second, each long before a second is over, and none refused at the door."""
    with in_process(repository, executors=1, judge_deadlines=False) as server:
        channel = channel_of(server)
        call = channel.unary_unary(INFER_PATH)
        assert call(identity_request(), timeout=30)
        codes = set()
        for _ in range(10):
            running = [call.future(slow_request(5_000), timeout=0.02) for _ in range(300)]
            codes |= {each.code() for each in running}
        assert grpc.StatusCode.DEADLINE_EXCEEDED in codes
        assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}
        server.until(lambda: server.server.transport.endpoint.snapshot()["streams"] == 0)
        assert call(identity_request(), timeout=30)
        snapshot = server.snapshot()
        assert (snapshot["connections_total"], sum(snapshot["refused"].values())) == (1, 0)
        channel.close()


@pytest.mark.parametrize("at_once", [False, True])
def test_F10_a_thousand_streams_of_messages_cancelled_without_one(repository: Path, channel_of: Any, at_once: bool):
    """Each as soon as it is made, or all of them once the server has them."""
    with in_process(repository, executors=1) as server:
        channel = channel_of(server)
        assert channel.unary_unary(INFER_PATH)(identity_request(), timeout=30)
        call = channel.stream_stream(STREAM_PATH)
        over = threading.Event()

        def nothing() -> Iterator[bytes]:
            over.wait()
            yield from ()

        for _ in range(10):
            talks = []
            for _ in range(200):
                talks.append(call(nothing()))
                if at_once:
                    talks[-1].cancel()
            if not at_once:
                server.until(lambda: server.server.transport.endpoint.snapshot()["streams"] == 200)
            for each in talks:
                each.cancel()
            server.until(lambda: server.server.transport.endpoint.snapshot()["streams"] == 0)
        over.set()
        assert channel.unary_unary(INFER_PATH)(identity_request(), timeout=30)
        snapshot = server.snapshot()
        assert (snapshot["connections_total"], sum(snapshot["refused"].values())) == (1, 0)
        channel.close()


# The life of a connection.


def test_1_22_what_our_settings_say(repository: Path):
    with in_process(repository) as server, server.connect() as peer:
        peer.ping()
        assert peer.peer_settings == {3: 1024, 4: 1 << 20, 5: 1 << 20, 6: 16 << 10}
        assert peer.window == 16 << 20


def test_F9_a_peer_that_does_not_answer_frees_its_calls(repository: Path):
    with in_process(repository, keepalive_time=0.2, keepalive_timeout=0.2) as server:
        with server.connect(acknowledge=False) as gone:
            gone.send(frame(SETTINGS, ACK, 0, b""))
            stream = gone.open(request_fields())
            gone.until_closed()
            assert not gone.replies[stream].ended
            snapshot = server.snapshot()
            assert (snapshot["refused"]["keepalive_timeout"], snapshot["streams"]) == (1, 0)
            with server.connect() as good:
                assert serves(good)


def test_1_17_old_connections_end_and_no_call_fails(repository: Path, channel_of: Any):
    with in_process(repository, max_connection_age=1.0) as server:
        channel = channel_of(server)
        call = channel.unary_unary(INFER_PATH)
        until = time.monotonic() + 3.5
        while time.monotonic() < until:
            call(identity_request(), timeout=30)
        snapshot = server.snapshot()
        assert snapshot["connections_total"] >= 2
        assert snapshot["refused"]["max_connection_age"] >= 1
        channel.close()


def test_F51_a_call_that_outlives_the_grace(repository: Path):
    with in_process(repository, max_connection_age=0.1, max_connection_age_grace=0.1) as server:
        with server.connect() as peer:
            stream = peer.open(request_fields())
            peer.body(stream, prefixed(identity_request())[:-1], end=False)
            reply = peer.answer(stream)
            assert (reply.code, reply.trailers_only) == (UNAVAILABLE, True)
            peer.until_closed()
            assert [each.payload[8:] for each in peer.goaways()] == [b"", b"max_age"]


def test_an_idle_connection_ends(repository: Path):
    with in_process(repository, max_connection_idle=0.1) as server:
        with server.connect() as peer:
            assert serves(peer)
            peer.until_closed()
            assert [each.payload[8:] for each in peer.goaways()] == [b"", b"max_idle"]
        assert server.snapshot()["refused"]["max_connection_idle"] == 1
