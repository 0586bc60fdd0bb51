"""Connections over a puppet of a socket and a clock that is stepped: what is written when, and who is cut."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from infer._core import clock, debug
from tests.support.endpoint import SECOND, Bench, Socket, called
from tests.support.h2_peer import (
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    WIDEST,
    frame,
    prefixed,
    request_fields,
    window_update,
)

OK, UNAVAILABLE = 0, 14
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


@pytest.fixture(autouse=True)
def stopped_clock() -> Iterator[None]:
    clock.set_fake(1000 * SECOND)
    yield
    clock.restore()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for socket in made.sockets:
        socket.lose()
    snapshot = made.endpoint.snapshot()
    for gauge in ("connections", "streams", "buffered_bytes", "outbound_bytes"):
        assert snapshot[gauge] == 0
    assert made.sink.live == []


def test_one_write_for_a_turn(bench: Bench):
    socket, peer = bench.connect()
    streams = [called(peer) for _ in range(20)]
    peer.until_closed()
    before = socket.writes
    for number in range(20):
        bench.sink.answer(number, segments=(prefixed(b"a"),))
    assert socket.writes == before
    bench.endpoint.flush_all()
    assert socket.writes == before + 1
    assert [peer.answer(stream).code for stream in streams] == [OK] * 20
    bench.endpoint.flush_all()
    assert socket.writes == before + 1


def test_executors_are_woken_once_for_a_read(bench: Bench):
    socket, peer = bench.connect()
    frames = b""
    for number in range(10):
        stream = 2 * number + 1
        frames += peer.headers_frame(stream, request_fields()) + frame(DATA, END_STREAM, stream, prefixed(b"q"))
    before = bench.sink.kicks
    socket.sendall(frames)
    assert len(bench.sink.live) == 10
    assert bench.sink.kicks == before + 1


@pytest.mark.parametrize("said", [b"", b"PRI * HTTP/2.0\r\n"])
def test_H16_no_preface_in_10_seconds(bench: Bench, said: bytes):
    socket, peer = bench.connect(greet=False)
    peer.send(said)
    bench.wait(10)
    assert not socket.aborted
    bench.wait(1)
    assert socket.aborted
    assert bench.refused("preface_timeout") == 1


def test_no_acknowledgement_in_10_seconds(bench: Bench):
    socket, _ = bench.connect(acknowledge=False)
    good, _ = bench.connect()
    bench.wait(11)
    assert (socket.aborted, good.aborted) == (True, False)


def test_an_idle_connection_stays(bench: Bench):
    socket, _ = bench.connect()
    bench.wait(3000)
    assert not socket.closing


def test_F8_a_socket_that_takes_no_more(bench: Bench):
    socket, peer = bench.connect(room=100_000)
    called(peer)
    bench.sink.answer(0, segments=(bytes(5), bytes(20 << 20)))
    bench.endpoint.flush_all()
    assert len(socket.sent) < 100_000 + (2 << 20)
    assert bench.endpoint.snapshot()["outbound_bytes"] > 18 << 20
    bench.wait(29)
    assert not socket.aborted
    bench.wait(3)
    assert socket.aborted
    assert bench.refused("write_stall_timeout") == 1


def test_F8_a_socket_that_takes_more_in_time(bench: Bench):
    socket, peer = bench.connect(room=100_000)
    stream = called(peer)
    bench.sink.answer(0, segments=(bytes(5), bytes(20 << 20)))
    bench.endpoint.flush_all()
    while not peer.replies[stream].ended:
        bench.wait(25)
        peer._buffer += socket.recv(0)
        socket.connection.resume_writing()
        while peer._buffer:
            peer.read()
    assert len(peer.replies[stream].body) == 5 + (20 << 20)
    assert not socket.closing


def test_F8_a_window_that_stays_shut(bench: Bench):
    socket, peer = bench.connect(wide=False, settings=[(INITIAL_WINDOW_SIZE, 0)])
    called(peer)
    bench.wait(100)
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    bench.wait(30)
    peer.ping(b"12345678")
    assert not socket.closing
    bench.wait(2)
    assert socket.closing
    assert not socket.aborted
    peer.until_closed()
    assert peer.goaways()[-1].error == ENHANCE_YOUR_CALM
    bench.wait(32)
    assert socket.aborted


def test_a_reply_that_waits_for_one_that_runs_long(bench: Bench):
    """It waits for us, not for the peer; once it is due, a peer that takes none of it has stalled."""
    _, peer = bench.connect(wide=False, settings=[(INITIAL_WINDOW_SIZE, 0)])
    stream = peer.open(request_fields(STREAM))
    peer.send(frame(DATA, 0, stream, prefixed(b"0") + prefixed(b"1")))
    bench.sink.answer(1, 5, b"text", id=b"1")
    bench.endpoint.flush_all()
    bench.wait(1000)
    peer.until_closed()
    assert (peer.goaways(), bench.refused("write_stall_timeout")) == ([], 0)
    bench.sink.answer(0, 5, b"text", id=b"0")
    bench.endpoint.flush_all()
    bench.wait(30)
    assert bench.refused("write_stall_timeout") == 0
    bench.wait(2)
    assert bench.refused("write_stall_timeout") == 1


@pytest.mark.parametrize("end", ["answered", "reset"])
def test_a_reply_that_waits_for_a_worker(end: str):
    jobs: list[Any] = []
    bench = Bench(offload=jobs.append, reply_compression="gzip")
    socket, peer = bench.connect(wide=False, settings=[(INITIAL_WINDOW_SIZE, 0)])
    stream = peer.open(request_fields(STREAM, ("grpc-accept-encoding", "gzip")))
    peer.send(frame(DATA, 0, stream, prefixed(b"0") * 4))
    for number in (0, 1, 3):
        bench.sink.answer(number, segments=(prefixed(bytes(100_000)),))
        bench.endpoint.flush_all()
    bench.wait(100)
    assert bench.refused("write_stall_timeout") == 0
    if end == "reset":
        peer.reset(stream)
    while jobs:
        job = jobs.pop(0)
        job.run()
        job.session.finish_coding(job)
        bench.endpoint.flush_all()
    bench.wait(40)
    assert bench.refused("write_stall_timeout") == (end == "answered")
    socket.lose()
    assert bench.endpoint.snapshot()["outbound_bytes"] == 0


def test_F8_a_reader_that_is_slow_and_goes_on(bench: Bench):
    """Never below the mark at which writing would go on."""
    socket, peer = bench.connect(room=100_000)
    called(peer)
    bench.sink.answer(0, segments=(bytes(5), bytes(20 << 20)))
    bench.endpoint.flush_all()
    for _ in range(20):
        bench.wait(29)
        del socket.sent[:1000]
    assert not socket.closing
    bench.wait(32)
    assert socket.aborted
    assert bench.refused("write_stall_timeout") == 1


def test_a_window_that_opens_byte_by_byte(bench: Bench):
    socket, peer = bench.connect(wide=False, settings=[(INITIAL_WINDOW_SIZE, 0)])
    stream = called(peer)
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    for _ in range(6):
        bench.wait(29)
        peer.send(window_update(stream, 1))
    assert peer.answer(stream).message == b"a"
    assert not socket.closing


def test_a_closing_connection_whose_peer_does_not_read(bench: Bench):
    socket, _ = bench.connect()
    socket.connection.eof_received()
    socket.close()
    bench.wait(30)
    assert not socket.aborted
    bench.wait(3)
    assert socket.aborted


def test_F12_max_connections():
    bench = Bench(max_connections=2)
    first, second = bench.connect()[0], bench.connect()[0]
    third = Socket(bench)
    assert (first.aborted, second.aborted, third.aborted) == (False, False, True)
    assert third.sent == b""
    assert bench.refused("max_connections") == 1
    watch = weakref.ref(third)
    third.lose()
    gc.disable()
    del third
    assert watch() is None
    gc.enable()
    assert bench.endpoint.snapshot()["connections"] == 2
    first.lose()
    again = bench.connect()[0]
    assert not again.aborted
    second.lose()
    again.lose()


def test_a_connection_is_freed_when_it_is_lost(bench: Bench):
    socket, peer = bench.connect()
    called(peer)
    watch = weakref.ref(socket)
    socket.lose()
    bench.sockets.clear()
    gc.disable()
    del socket, peer
    assert watch() is None
    gc.enable()


def test_refusals_leave_nothing_behind(bench: Bench):
    socket, peer = bench.connect()
    bench.sink.answer_submit = (5, b"no", ())
    for _ in range(50):
        assert peer.call().code == 5
    watch = weakref.ref(socket)
    socket.lose()
    bench.sockets.clear()
    gc.disable()
    del socket, peer
    assert watch() is None
    gc.enable()


def test_no_memory_for_output_ends_the_connection_and_no_other(bench: Bench):
    broken, peer = bench.connect()
    good, other = bench.connect()
    called(peer)
    stream = called(other)
    for number in (0, 1):
        bench.sink.answer(number, segments=(prefixed(b"a"),))
    broken.fails = True
    bench.endpoint.flush_all()
    assert broken.aborted
    assert not good.closing
    assert other.answer(stream).code == OK


def test_F35_drain(bench: Bench):
    busy, peer = bench.connect()
    idle, other = bench.connect()
    stream = called(peer)
    ended: list[bool] = []
    bench.endpoint.drain(lambda: ended.append(True))
    peer.until_closed()
    other.until_closed()
    assert (busy.closing, idle.closing) == (False, True)
    assert [each.last_stream for each in peer.goaways()] == [WIDEST, stream]
    idle.lose()
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == OK
    assert busy.closing
    assert ended == []
    busy.lose()
    assert ended == [True]


def test_F35_a_client_that_does_not_answer_the_ping(bench: Bench):
    socket, peer = bench.connect()
    peer.acknowledge = False
    bench.endpoint.drain(lambda: None)
    bench.wait(10)
    assert not socket.closing
    bench.wait(2)
    assert socket.closing
    peer.until_closed()
    assert [(each.last_stream, each.error) for each in peer.others if each.kind == GOAWAY] == [
        (WIDEST, NO_ERROR), (0, NO_ERROR)]


def test_F35_a_connection_that_comes_while_draining(bench: Bench):
    bench.endpoint.drain(lambda: None)
    socket, peer = bench.connect(acknowledge=False)
    peer.until_closed()
    assert peer.goaways()[0].last_stream == WIDEST
    assert not socket.closing
    stream = called(peer)
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == OK


def test_F36_end_calls(bench: Bench):
    socket, peer = bench.connect()
    stream = called(peer)
    bench.endpoint.end_calls(b"stopping")
    reply = peer.answer(stream)
    assert (reply.code, reply.text) == (UNAVAILABLE, "stopping")
    assert socket.closing
    assert not socket.aborted
    assert bench.sink.events[-1] == ("cancel", 0, UNAVAILABLE)


def test_drain_of_nothing_is_over_at_once(bench: Bench):
    ended: list[bool] = []
    bench.endpoint.drain(lambda: ended.append(True))
    assert ended == [True]


@pytest.mark.parametrize("limit", ["header_bytes", "max_streams", "max_message_bytes", "outbound_bytes"])
def test_bounds_are_positive(limit: str):
    with pytest.raises(ValueError, match=limit):
        Bench(**{limit: 0})


@pytest.mark.skipif(not debug.ENABLED, reason="release builds have no allocations that fail on demand")
def test_a_connection_for_which_there_is_no_memory_is_cut(bench: Bench):
    cut = 0
    while True:
        debug.fail_allocation(cut + 1)
        try:
            socket, peer = bench.connect()
            stream = called(peer)
            for number in bench.sink.live:
                bench.sink.answer(number, segments=(prefixed(b"a"),))
            bench.endpoint.flush_all()
            peer.until_closed()
        finally:
            failed = debug.fail_allocation(0)
        if failed == 0:
            break
        cut += 1
        assert socket.closing or peer.replies[stream].ended
        socket.lose()
    assert cut > 10
    assert peer.answer(stream).code == OK


CONTENT = bytes(range(251)) * 13_000


@pytest.mark.parametrize(("frame_bytes", "in_place"), [(16_384, 0), (65_536, 0), (200_000, 1), (1 << 20, 2)])
def test_a_large_message_in_large_frames_is_read_where_it_belongs(bench: Bench, frame_bytes: int, in_place: int):
    socket, peer = bench.connect()
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(CONTENT), frame_bytes=frame_bytes)
    assert bench.sink.events[-1] == ("submit", 0, CONTENT)
    assert socket.read_in_place >= in_place * len(CONTENT) // 4
    assert (socket.read_in_place > 0) == (in_place > 0)
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == OK


def test_a_stream_that_is_reset_within_a_large_frame(bench: Bench):
    _, peer = bench.connect()
    stream = peer.open(request_fields())
    whole = frame(DATA, 0, stream, prefixed(CONTENT)[:1 << 20])
    peer.send(whole[:-100])
    bench.sink.answer(0, code=UNAVAILABLE, text=b"early")
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == UNAVAILABLE
    peer.send(whole[-100:])
    other = peer.open(request_fields())
    peer.body(other, prefixed(b"q"))
    assert bench.sink.events[-1] == ("submit", 1, b"q")
    bench.sink.answer(1, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(other).code == OK


def test_one_update_opens_the_window_for_all_of_a_large_message(bench: Bench):
    _, peer = bench.connect()
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(CONTENT))
    peer.ping()
    # What is over lies within the alignment of the message.
    assert 0 <= peer.windows[stream] < 64
    bench.sink.answer(0, segments=(prefixed(b"a"),))


@pytest.mark.parametrize("size", [700_000, 1_000_000, 3_000_000])
@pytest.mark.parametrize("padding", [0, 255])
def test_padding_does_not_use_up_a_window(bench: Bench, size: int, padding: int):
    _, peer = bench.connect()
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(bytes(size)), frame_bytes=600, padding=padding)
    assert bench.sink.events[-1] == ("submit", 0, bytes(size))
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == OK
