"""How long a connection lives: keepalive, idle, age and grace, by a clock that is stepped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from infer._core import clock
from infer._core.protocol import AGE_JITTER
from tests.support.endpoint import SECOND, Bench, Socket, called
from tests.support.h2_peer import ACK, GOAWAY, NO_ERROR, PING, WIDEST, Frame, Peer, frame, prefixed, request_fields

pytestmark = pytest.mark.usefixtures("stepped_clock")
OK, CANCELLED, NOT_FOUND, UNAVAILABLE = 0, 1, 5, 14
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
HOUR = 3600


@pytest.fixture
def made() -> Iterator[list[Bench]]:
    """What a test adds is left clean."""
    benches: list[Bench] = []
    yield benches
    for bench in benches:
        for socket in bench.sockets:
            socket.lose()
        snapshot = bench.endpoint.snapshot()
        assert not any(snapshot[gauge] for gauge in ("connections", "streams", "buffered_bytes", "outbound_bytes"))
        assert bench.sink.live == []


def start(made: list[Bench], **limits: Any) -> Bench:
    made.append(Bench(**limits))
    return made[-1]


def read(peer: Peer) -> list[Frame]:
    """What came of the connection since it was last read."""
    before = len(peer.others)
    peer.until_closed()
    return peer.others[before:]


def pings(frames: list[Frame]) -> list[Frame]:
    return [each for each in frames if each.kind == PING and not each.flags & ACK]


def answered(bench: Bench, peer: Peer) -> None:
    stream = called(peer)
    bench.sink.answer(bench.sink.live[-1], segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == OK


# Keepalive (gRPC A8).


def test_F9_a_peer_that_is_gone(made: list[Bench]):
    bench = start(made)
    socket, peer = bench.connect(acknowledge=False, greet=True)
    peer.send(frame(4, ACK, 0, b""))
    stream = called(peer)
    bench.wait(2 * HOUR)
    assert pings(read(peer)) == []
    bench.wait(1)
    assert len(pings(read(peer))) == 1
    bench.wait(20)
    assert not socket.aborted
    bench.wait(1)
    assert socket.aborted
    assert bench.sink.events[-1] == ("cancel", 0, CANCELLED)
    assert not peer.expect(stream).ended
    assert bench.refused("keepalive_timeout") == 1


def test_F9_a_peer_that_answers(made: list[Bench]):
    bench = start(made, keepalive_time=10.0, keepalive_timeout=5.0)
    socket, peer = bench.connect()
    called(peer)
    seen = 0
    for _ in range(100):
        bench.wait(1)
        seen += len(pings(read(peer)))
    assert 8 <= seen <= 9
    assert not socket.closing
    assert bench.refused("keepalive_timeout") == bench.refused("max_ping_strikes") == 0


def test_F9_a_peer_that_speaks_is_not_asked(made: list[Bench]):
    bench = start(made, keepalive_time=10.0)
    socket, peer = bench.connect()
    called(peer)
    for _ in range(20):
        bench.wait(9)
        peer.send(frame(PING, 0, 0, b"12345678"))
    assert pings(read(peer)) == []
    assert not socket.closing


def test_F48_a_loop_that_stood_still_blames_no_peer(made: list[Bench]):
    """Its answer waits in the socket until after the check."""
    bench = start(made, keepalive_time=10.0, keepalive_timeout=5.0)
    socket, peer = bench.connect()
    called(peer)
    bench.wait(11)
    clock.advance(60 * SECOND)
    bench.endpoint.check_timeouts()
    assert not socket.aborted
    assert len(pings(read(peer))) == 1
    bench.wait(2)
    assert not socket.aborted


def test_keepalive_may_be_off(made: list[Bench]):
    bench = start(made, keepalive_time=0.0, max_connection_idle=0.0)
    socket, peer = bench.connect()
    bench.wait(4 * HOUR)
    assert read(peer) == []
    assert not socket.closing


# Idle and age (gRPC A9).


def assert_drained(peer: Peer, last: int, reason: bytes) -> None:
    notice, final = peer.goaways()
    assert (notice.last_stream, notice.error) == (WIDEST, NO_ERROR)
    assert (final.last_stream, final.error, final.payload[8:]) == (last, NO_ERROR, reason)


def test_an_idle_connection_ends(made: list[Bench]):
    bench = start(made)
    socket, peer = bench.connect()
    answered(bench, peer)
    bench.wait(HOUR)
    assert not socket.closing
    bench.wait(2)
    read(peer)
    assert_drained(peer, 1, b"max_idle")
    assert socket.closing
    assert not socket.aborted
    assert bench.refused("max_connection_idle") == 1


def test_a_call_in_an_hour_keeps_a_connection(made: list[Bench]):
    bench = start(made, max_connection_idle=100.0)
    socket, peer = bench.connect()
    for _ in range(5):
        answered(bench, peer)
        bench.wait(99)
    called(peer)
    bench.wait(500)
    assert not socket.closing
    bench.sink.answer(bench.sink.live[-1])
    bench.endpoint.flush_all()
    bench.wait(102)
    read(peer)
    assert socket.closing


def test_pings_do_not_keep_an_idle_connection(made: list[Bench]):
    bench = start(made, max_connection_idle=100.0)
    socket, peer = bench.connect()
    for _ in range(11):
        bench.wait(10)
        peer.send(frame(PING, 0, 0, b"12345678"))
    read(peer)
    assert socket.closing


def test_a_call_that_overtakes_the_notice_is_answered(made: list[Bench]):
    bench = start(made, max_connection_idle=100.0)
    socket, peer = bench.connect()
    bench.wait(102)
    answered(bench, peer)
    read(peer)
    assert_drained(peer, 1, b"max_idle")
    assert socket.closing


def test_ages_are_within_a_tenth_and_not_all_the_same(made: list[Bench]):
    random.seed(7)
    bench = start(made, max_connection_age=1000.0)
    peers = [bench.connect() for _ in range(60)]
    ended: dict[Socket, int] = {}
    for second in range(1, 1110):
        bench.wait(1)
        for socket, peer in peers:
            if socket not in ended and socket.sent:
                read(peer)
                ended[socket] = second
    assert len(ended) == 60
    assert 1000 * (1 - AGE_JITTER) <= min(ended.values()) < max(ended.values()) <= 1000 * (1 + AGE_JITTER) + 1
    assert len(set(ended.values())) > 30
    assert all(socket.closing for socket, _ in peers)
    assert_drained(peers[0][1], 0, b"max_age")
    assert bench.refused("max_connection_age") == 60


def test_calls_finish_after_the_age(made: list[Bench]):
    bench = start(made, max_connection_age=100.0)
    socket, peer = bench.connect()
    stream = called(peer)
    bench.wait(HOUR)
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == OK
    read(peer)
    assert_drained(peer, 1, b"max_age")
    assert socket.closing


def talking(bench: Bench, peer: Peer) -> int:
    """A ModelStreamInfer whose one message so far is answered."""
    stream = peer.open(request_fields(STREAM))
    peer.body(stream, prefixed(b"0"), end=False)
    bench.sink.answer(bench.sink.live[-1], NOT_FOUND, b"text", id=b"0")
    bench.endpoint.flush_all()
    peer.until_closed()
    return stream


@pytest.mark.parametrize("grace", [0, 300])
def test_F51_a_stream_goes_on_until_the_grace_is_over(made: list[Bench], grace: int):
    bench = start(made, max_connection_age=100.0, max_connection_age_grace=float(grace))
    _, peer = bench.connect()
    stream = talking(bench, peer)
    bench.wait(130)
    read(peer)
    assert_drained(peer, stream, b"max_age")
    peer.body(stream, prefixed(b"1"), end=False)
    assert len(bench.sink.live) == 1
    bench.sink.answer(bench.sink.live[0], NOT_FOUND, b"text", id=b"1")
    bench.endpoint.flush_all()
    bench.wait(200)
    read(peer)
    assert not peer.replies[stream].ended
    bench.wait(HOUR)
    read(peer)
    assert peer.replies[stream].ended == (grace > 0)
    if grace:
        assert peer.replies[stream].code == UNAVAILABLE
        assert "--max-connection-age" in peer.replies[stream].text


@pytest.mark.parametrize("said", [False, True])
def test_a_stream_of_an_old_connection_ends_with_the_server(made: list[Bench], said: bool):
    """Also where the last GOAWAY was said before."""
    bench = start(made, max_connection_age=100.0)
    _, peer = bench.connect()
    stream = talking(bench, peer)
    bench.wait(130)
    if said:
        read(peer)
        assert not peer.replies[stream].ended
    bench.endpoint.drain(lambda: None)
    bench.endpoint.flush_all()
    read(peer)
    assert peer.replies[stream].code == UNAVAILABLE
    assert "the server is stopping" in peer.replies[stream].text


def test_F51_calls_end_with_the_grace(made: list[Bench]):
    bench = start(made, max_connection_age=100.0, max_connection_age_grace=50.0)
    socket, peer = bench.connect()
    stream = called(peer)
    uploading = peer.open(request_fields())
    bench.wait(140)
    assert not socket.closing
    bench.wait(25)
    reply = peer.answer(stream)
    assert reply.code == UNAVAILABLE
    assert "--max-connection-age" in reply.text
    assert peer.answer(uploading).code == UNAVAILABLE
    read(peer)
    assert_drained(peer, uploading, b"max_age")
    assert socket.closing
    assert bench.refused("max_connection_age_grace") == 1


def test_a_drained_connection_that_says_nothing(made: list[Bench]):
    """The second GOAWAY does not wait for ever."""
    bench = start(made, max_connection_age=100.0)
    socket, peer = bench.connect(acknowledge=False, greet=True)
    peer.send(frame(4, ACK, 0, b""))
    bench.wait(110)
    read(peer)
    assert len(peer.goaways()) == 1
    bench.wait(12)
    read(peer)
    assert_drained(peer, 0, b"max_age")
    assert socket.closing


@pytest.mark.parametrize("drained", [True, False])
def test_a_peer_that_leaves_closes_first(made: list[Bench], drained: bool):
    """What it still sends is dropped: it is not reset, and loses nothing of what it was sent."""
    bench = start(made)
    socket, peer = bench.connect()
    socket.closes = False
    answered(bench, peer)
    if drained:
        bench.endpoint.drain(lambda: None)
        read(peer)
    else:
        peer.send(frame(GOAWAY, 0, 0, bytes(8)))
        read(peer)
    assert socket.half_closed
    peer.send(frame(PING, 0, 0, bytes(8)))
    assert not socket.sent
    bench.wait(1)
    assert not socket.closing
    # It has time to, but not for ever.
    bench.wait(2)
    assert socket.aborted


def test_what_is_not_read_yet_is_not_cut_off(made: list[Bench]):
    bench = start(made)
    socket, peer = bench.connect()
    socket.closes = False
    stream = called(peer)
    peer.send(frame(GOAWAY, 0, 0, bytes(8)))
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert socket.half_closed
    bench.wait(10)
    assert not socket.aborted
    assert peer.answer(stream).code == OK
    bench.wait(1)
    assert socket.aborted


def test_a_drain_of_the_server_while_a_connection_ends(made: list[Bench]):
    bench = start(made, max_connection_age=100.0)
    socket, peer = bench.connect()
    stream = called(peer)
    bench.wait(111)
    read(peer)
    idle: list[int] = []
    bench.endpoint.drain(lambda: idle.append(1))
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == OK
    read(peer)
    assert_drained(peer, 1, b"max_age")
    socket.lose()
    assert idle == [1]
