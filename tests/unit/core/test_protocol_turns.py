"""A connection that sends much at once is read in turns of the loop, and others are served between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from infer._core import clock
from infer.config import Settings
from tests.support.endpoint import SECOND, Bench, called
from tests.support.floods import FLOODS
from tests.support.h2_peer import DATA, END_STREAM, GOAWAY, PRIORITY, Peer, frame, prefixed, request_fields

EVENTS = 40
FRAME = frame(PRIORITY, 0, 1, bytes(5))
# Pieces of what is read hold more events than EVENTS, so that every piece is a turn.
PIECE_BYTES = 1024
OK = 0


@pytest.fixture(autouse=True)
def stopped_clock() -> Iterator[None]:
    clock.set_fake(1000 * SECOND)
    yield
    clock.restore()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(max_turn_events=EVENTS, max_idle_frames=1 << 20)
    yield made
    for socket in made.sockets:
        socket.lose()
    assert made.endpoint.snapshot()["streams"] == 0
    assert made.sink.live == []


def turns_ended(bench: Bench) -> int:
    return int(bench.endpoint.snapshot()["turns_ended_total"])


def calls(peer: Peer, count: int) -> bytes:
    """As bytes that are still to be sent."""
    parts = []
    for _ in range(count):
        stream = peer.next_stream
        peer.next_stream += 2
        peer.expect(stream)
        parts += [peer.headers_frame(stream, request_fields()), frame(DATA, END_STREAM, stream, prefixed(b"q"))]
    return b"".join(parts)


def test_what_fits_a_turn_is_read_at_once(bench: Bench):
    socket, _ = bench.connect()
    bench.steps = True
    socket.sendall(FRAME * EVENTS)
    assert (bench.turns, socket.paused, turns_ended(bench)) == ([], False, 0)


def test_others_are_served_between_turns(bench: Bench):
    rude, _ = bench.connect()
    _, good = bench.connect()
    bench.steps = True
    rude.sendall(FRAME * 3000)
    assert rude.paused
    assert turns_ended(bench) == 1
    stream = called(good)
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert good.answer(stream).code == OK
    turns = 1
    while rude.paused:
        assert len(bench.turns) == 1
        bench.turn()
        turns += 1
    assert turns == -(-3000 * len(FRAME) // PIECE_BYTES)
    assert turns_ended(bench) == turns - 1
    assert (bench.turns, rude.unread) == ([], b"")


def test_what_is_read_in_turns_is_whole_and_in_order(bench: Bench):
    socket, peer = bench.connect()
    bench.steps = True
    socket.sendall(calls(peer, 300))
    turns = 0
    while socket.paused:
        bench.turn()
        turns += 1
    assert turns > 1
    for number in range(300):
        bench.sink.answer(number, segments=(prefixed(b"%d" % number),))
    bench.endpoint.flush_all()
    assert [peer.answer(2 * number + 1).message for number in range(300)] == [b"%d" % number for number in range(300)]


def test_reads_that_fill_the_buffer_are_one_turn():
    """The loop reads on at once after such a read: two of them are too much, though each is not."""
    bench = Bench(max_turn_events=15_000, max_idle_frames=1 << 20)
    socket, _ = bench.connect()
    bench.steps = True
    one = len(memoryview(socket.connection.get_buffer(-1))) // len(FRAME)
    assert one < 15_000 < 2 * one
    socket.sendall(FRAME * one)
    assert not socket.paused
    socket.sendall(FRAME * (3 * one))
    assert socket.paused
    assert turns_ended(bench) == 1
    socket.lose()


def test_a_connection_that_is_lost_between_turns(bench: Bench):
    socket, _ = bench.connect()
    bench.steps = True
    socket.sendall(FRAME * 3000)
    socket.lose()
    bench.turn()
    assert bench.turns == []


def test_a_connection_that_is_closed_between_turns(bench: Bench):
    socket, _ = bench.connect()
    bench.steps = True
    socket.sendall(FRAME * 3000)
    socket.abort()
    bench.turn()
    assert bench.turns == []
    assert socket.paused


def test_a_flood_is_cut_after_a_turn(bench: Bench):
    """The resets that the server says are counted between turns, and not only once all that came has been read."""
    flood = next(each for each in FLOODS if each.row == "malformed header per stream")
    socket, peer = bench.connect(wide=False)
    steps = flood.steps()
    socket.sendall(b"".join(next(steps) for _ in range(4 * flood.over)))
    peer.until_closed()
    assert socket.closing
    assert [each.error for each in peer.others if each.kind == GOAWAY] == [flood.error]
    assert bench.refused(flood.limit) == 1
    assert bench.endpoint.snapshot()["streams_total"] < 4 * flood.over


def test_a_stream_that_is_reset_counts_for_many_events():
    """It costs what a call costs, and a client sends it in a few bytes."""
    bench = Bench(max_turn_events=1000)
    flood = next(each for each in FLOODS if each.row == "rapid reset")
    socket, _ = bench.connect(wide=False)
    bench.steps = True
    steps = flood.steps()
    socket.sendall(b"".join(next(steps) for _ in range(100)))
    turns = 1
    while bench.turns:
        bench.turn()
        turns += 1
    assert bench.endpoint.snapshot()["streams_total"] == 100
    assert turns >= 100 * 32 // 1000
    socket.lose()


def opened(peer: Peer, count: int) -> bytes:
    """Calls without their messages, as bytes that are still to be sent."""
    heads = []
    for _ in range(count):
        heads.append(peer.headers_frame(peer.next_stream, request_fields()))
        peer.next_stream += 2
    return b"".join(heads)


@pytest.mark.parametrize(("make", "count", "turns"), [
    pytest.param(opened, 128, False, id="a burst of streams"),
    pytest.param(opened, 300, True, id="more streams than a burst"),
    pytest.param(calls, 300, False, id="calls with their messages")])
def test_streams_without_their_messages_count_for_many_events(
        make: Callable[[Peer, int], bytes], count: int, turns: bool):
    """Each costs what a call costs and comes in a few bytes; clients open some at once before they send the rest."""
    bench = Bench(max_turn_events=3500)
    socket, peer = bench.connect()
    bench.steps = True
    socket.sendall(make(peer, count))
    assert bool(bench.turns) is turns
    assert (bench.endpoint.snapshot()["streams"] < count) is turns
    while bench.turns:
        bench.turn()
    assert bench.endpoint.snapshot()["streams"] == count
    # Those that are whole, or gone, make room for others.
    socket.sendall(b"".join(frame(DATA, END_STREAM, 2 * number + 1, prefixed(b"q")) for number in range(count))
                   if make is opened else b"")
    while bench.turns:
        bench.turn()
    socket.sendall(opened(peer, 100))
    assert not bench.turns
    assert bench.endpoint.snapshot()["streams"] == count + 100
    socket.lose()
    while bench.turns:
        bench.turn()


def test_a_peer_that_opens_many_streams_is_read_in_small_pieces():
    bench = Bench(max_turn_events=1)
    socket, peer = bench.connect()
    bench.steps = True
    socket.sendall(opened(peer, 300))
    counts = [int(bench.endpoint.snapshot()["streams"])]
    while bench.turns:
        bench.turn()
        counts.append(int(bench.endpoint.snapshot()["streams"]))
    of_turns = [(before, after - before) for before, after in pairwise(counts)]
    assert counts[-1] == 300
    # Beyond a burst, as many heads as 128 bytes hold.
    assert max(count for before, count in of_turns if before > 128) < min(
        count for before, count in of_turns if before <= 128)
    socket.lose()
    while bench.turns:
        bench.turn()


def test_the_streams_of_a_connection_that_is_lost_go_in_turns():
    bench = Bench()
    socket, peer = bench.connect()
    other, good = bench.connect()
    socket.sendall(opened(peer, 300))
    idle: list[bool] = []
    bench.steps = True
    socket.lose()
    stream = called(good)
    bench.endpoint.drain(lambda: idle.append(True))
    left = [bench.endpoint.snapshot()["streams"]]
    bench.sink.answer(300, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert good.answer(stream).code == OK
    # What is left of it is there for nobody but the loop.
    bench.endpoint.end_calls(b"the server is stopping")
    bench.endpoint.check_timeouts()
    other.lose()
    while bench.turns:
        assert not idle
        assert bench.endpoint.snapshot()["connections"] == 1
        bench.turn()
        left.append(bench.endpoint.snapshot()["streams"])
    assert left == [300 - 128 + 1, 300 - 256, 0]
    assert idle == [True]
    assert bench.endpoint.snapshot()["connections"] == 0
    assert bench.sink.live == []


def test_replies_for_a_connection_that_is_lost_are_dropped():
    bench = Bench()
    socket, peer = bench.connect()
    socket.sendall(calls(peer, 300))
    bench.steps = True
    socket.lose()
    live = bench.sink.live
    assert len(live) == 300 - 128
    for number in live:
        bench.sink.answer(number, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert socket.sent == b""
    while bench.turns:
        bench.turn()
    assert bench.endpoint.snapshot()["outbound_bytes"] == 0


def test_nothing_is_read_after_the_cut(bench: Bench):
    flood = next(each for each in FLOODS if each.row == "rapid reset")
    socket, _ = bench.connect(wide=False)
    steps = flood.steps()
    socket.sendall(b"".join(next(steps) for _ in range(4 * flood.over)))
    assert bench.refused(flood.limit) == 1
    assert bench.endpoint.snapshot()["streams_total"] == flood.over


def test_the_bound_is_a_setting():
    assert Settings(max_turn_events=7).max_turn_events == 7
    with pytest.raises(ValueError, match="max_turn_events must be positive, got 0"):
        Bench(max_turn_events=0)
