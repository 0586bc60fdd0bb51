"""What a peer may do on a connection, over a session without a socket and a clock that is stepped."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from infer._core import clock
from infer._core._testing_transport import SessionDriver
from tests.support.h2_peer import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    INFER_PATH,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WIDEST,
    Field,
    Frame,
    Peer,
    SessionLink,
    frame,
    prefixed,
    request_fields,
    window_update,
)

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"

pytestmark = pytest.mark.usefixtures("stepped_clock")
SECOND = 1_000_000_000
RESOURCE_EXHAUSTED = 8
RESET = struct.pack(">I", CANCEL)


def session(**limits: Any) -> tuple[SessionDriver, Peer]:
    driver = SessionDriver({}, **limits)
    peer = Peer(SessionLink(driver))
    peer.until_closed()
    return driver, peer


def goaway(peer: Peer) -> Frame | None:
    peer.until_closed()
    return next(iter(peer.goaways()), None)


def assert_cut(driver: SessionDriver, peer: Peer, limit: str) -> None:
    last = goaway(peer)
    assert last is not None
    assert last.error == ENHANCE_YOUR_CALM
    assert driver.refused()[limit] == 1
    assert driver.done
    driver.close()
    assert driver.streams == driver.buffered_bytes == driver.outbound_bytes == 0
    assert driver.sink.live == []


def assert_good(driver: SessionDriver, peer: Peer) -> None:
    assert goaway(peer) is None
    answered(driver, peer)
    assert driver.refused() == {}
    driver.close()


def answered(driver: SessionDriver, peer: Peer) -> None:
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(b"q"))
    driver.sink.answer(driver.sink.live[-1], segments=(prefixed(b"a"),))
    assert peer.answer(stream).message == b"a"


def opened_and_reset(peer: Peer, between: bytes = b"", end: bool = False) -> None:
    """A stream's frames in one read."""
    stream = peer.next_stream
    peer.next_stream += 2
    head = peer.headers_frame(stream, request_fields(), end)
    part = frame(DATA, 0, stream, between) if between else b""
    peer.send(head + part + frame(RST_STREAM, 0, stream, RESET))


@pytest.mark.parametrize("end", [False, True], ids=["open", "END_STREAM"])
@pytest.mark.parametrize("between", [b"", b"\0\0\0"], ids=["no data", "half a prefix"])
def test_rapid_reset(end: bool, between: bytes):
    if end and between:
        end = False
    driver, peer = session()
    for _ in range(500):
        opened_and_reset(peer, between, end)
    assert goaway(peer) is None
    assert driver.streams == 0
    opened_and_reset(peer, between, end)
    assert_cut(driver, peer, "max_early_resets")


@pytest.mark.parametrize("between", [b"", b"\0\0\0"], ids=["no data", "half a prefix"])
@pytest.mark.parametrize("at_once", [False, True])
def test_streams_of_messages_that_are_reset_without_one(stepped_clock: None, at_once: bool, between: bytes):
    """Good clients cancel such in any number, as soon as they are made or all together."""
    driver, peer = session()
    streams = []
    for _ in range(1000):
        streams.append(peer.open(request_fields(STREAM)))
        if between:
            peer.body(streams[-1], between, end=False)
        if at_once:
            peer.reset(streams.pop())
    for stream in streams:
        peer.reset(stream)
    assert goaway(peer) is None
    assert driver.streams == 0


def test_rapid_reset_among_good_calls():
    """Half of the streams: not more than half."""
    driver, peer = session()
    for _ in range(1500):
        opened_and_reset(peer)
        answered(driver, peer)
    assert_good(driver, peer)


@pytest.mark.parametrize("rounds", [1, 5])
def test_calls_in_flight_cancelled_at_once(rounds: int):
    """As many as may be, as soon as they are made, again and again."""
    driver, peer = session()
    for _ in range(rounds):
        streams = [peer.open(request_fields()) for _ in range(1000)]
        for stream in streams:
            peer.body(stream, prefixed(b"q"))
        assert len(driver.sink.live) == 1000
        for stream in streams:
            peer.reset(stream)
        assert driver.sink.live == []
    assert_good(driver, peer)


@pytest.mark.parametrize("ended", [True, False], ids=["END_STREAM", "message only"])
def test_two_hundred_client_timeouts_a_second(ended: bool):
    driver, peer = session()
    for _ in range(60 * 200):
        stream = peer.open(request_fields())
        peer.body(stream, prefixed(b"q"), end=ended)
        clock.advance(SECOND // 200)
        peer.reset(stream)
    assert driver.sink.live == []
    assert_good(driver, peer)


def test_uploads_cancelled_half_way():
    driver, peer = session()
    for _ in range(1200):
        stream = peer.open(request_fields())
        peer.body(stream, prefixed(bytes(20_000))[:17_000], end=False)
        peer.reset(stream)
    assert driver.buffered_bytes == 0
    assert_good(driver, peer)


def test_streams_that_were_open_for_a_second_count_for_nothing():
    driver, peer = session()
    for _ in range(2):
        streams = [peer.open(request_fields()) for _ in range(1000)]
        clock.advance(SECOND)
        for stream in streams:
            peer.reset(stream)
    assert_good(driver, peer)


def test_a_client_may_hang_up_before_its_message_now_and_then():
    driver, peer = session()
    for _ in range(2000):
        opened_and_reset(peer)
        clock.advance(SECOND // 40)
    assert_good(driver, peer)


def malformed(peer: Peer) -> None:
    peer.open(request_fields(INFER_PATH, ("connection", "close")), end=True)


def overflowed(peer: Peer) -> None:
    stream = peer.open(request_fields())
    peer.send(window_update(stream, WIDEST))


def beyond(peer: Peer) -> None:
    peer.open(request_fields())


@pytest.mark.parametrize(("cause", "code", "driver_limits"), [
    (malformed, PROTOCOL_ERROR, {}), (overflowed, 3, {}), (beyond, 7, {"max_streams": 1})],
    ids=["malformed", "window overflow", "beyond MAX_CONCURRENT_STREAMS"])
def test_stream_errors(cause: Any, code: int, driver_limits: dict[str, int]):
    driver = SessionDriver({}, **driver_limits)
    # Our SETTINGS stay unanswered: libnghttp2 refuses a stream too many before, and ends the connection after.
    peer = Peer(SessionLink(driver), acknowledge=False)
    if cause is beyond:
        peer.open(request_fields())
    before = len(peer.replies)
    for _ in range(100):
        cause(peer)
        peer.until_closed()
    assert [reply.reset for reply in list(peer.replies.values())[before:]] == [code] * 100
    assert goaway(peer) is None
    clock.advance(SECOND)
    for _ in range(10):
        cause(peer)
        peer.until_closed()
    assert goaway(peer) is None
    cause(peer)
    assert_cut(driver, peer, "max_stream_errors")


def test_stream_errors_that_are_not_read_are_bounded():
    """The peer takes nothing, so none of our resets is sent and counted."""
    driver, peer = session(queued_frames=1000)
    good = True
    for _ in range(1100):
        stream = peer.next_stream
        peer.next_stream += 2
        good = driver.feed(peer.headers_frame(stream, request_fields(INFER_PATH, ("connection", "close")), True))
        if not good:
            break
    assert not good
    assert_cut(driver, peer, "max_queued_frames")


def test_replies_to_streams_that_are_gone_are_bounded():
    driver, peer = session(queued_frames=100, early_resets=1000)
    number = 0
    while driver.feed(peer.headers_frame(peer.next_stream, request_fields("/none"), True)
                      + frame(RST_STREAM, 0, peer.next_stream, RESET)):
        peer.next_stream += 2
        number += 1
        assert number <= 100
    assert_cut(driver, peer, "max_queued_frames")


def test_continuations():
    driver, peer = session()
    peer.send(frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1, b"") * 9)
    assert_cut(driver, peer, "continuations")


def test_settings_with_too_many_entries():
    driver, peer = session()
    peer.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100) * 33))
    last = goaway(peer)
    assert last is not None
    assert last.error == ENHANCE_YOUR_CALM
    assert driver.refused() == {"protocol": 1}
    driver.close()


def test_settings_frames():
    driver, peer = session()
    for _ in range(9):
        peer.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)))
    assert goaway(peer) is None
    for _ in range(60):
        clock.advance(SECOND)
        peer.send(frame(SETTINGS, 0, 0, b""))
    assert goaway(peer) is None
    peer.send(frame(SETTINGS, 0, 0, b""))
    assert_cut(driver, peer, "max_settings_frames")


@pytest.mark.parametrize("flags", [0, ACK], ids=["PING", "answers to no PING"])
def test_pings(flags: int):
    driver, peer = session()
    for _ in range(110):
        peer.send(frame(PING, flags, 0, bytes(8)))
    assert goaway(peer) is None
    peer.send(frame(PING, flags, 0, bytes(8)))
    last = goaway(peer)
    assert last is not None
    assert last.payload[8:] == b"too_many_pings"
    assert_cut(driver, peer, "max_ping_strikes")


def test_pings_between_replies():
    """As a client measures the bandwidth: never a hundred without a reply."""
    driver, peer = session()
    for _ in range(50):
        for _ in range(90):
            peer.send(frame(PING, 0, 0, bytes(8)))
        answered(driver, peer)
    assert_good(driver, peer)


@pytest.mark.parametrize("period", [10, 30])
def test_pings_of_a_patient_client(period: int):
    driver, peer = session()
    for _ in range(1000):
        clock.advance(period * SECOND)
        peer.send(frame(PING, 0, 0, bytes(8)))
    assert_good(driver, peer)


def test_our_own_pings_are_answered_freely():
    driver, peer = session(ping_strikes=0)
    for _ in range(9):
        peer.send(frame(PING, 0, 0, bytes(8)))
    driver.drain()
    peer.until_closed()
    assert driver.refused() == {}
    driver.close()


def test_priority_frames():
    driver, peer = session()
    answered(driver, peer)
    for _ in range(200):
        peer.send(frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 15)))
    assert goaway(peer) is None
    peer.send(frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 15)))
    assert_cut(driver, peer, "max_idle_frames")


@pytest.mark.parametrize("kind", [0x0a, 0x0c, 0x10, 0x42, 0xff])
@pytest.mark.parametrize("size", [0, 10])
def test_unknown_frames(kind: int, size: int):
    driver, peer = session()
    answered(driver, peer)
    for _ in range(200):
        peer.send(frame(kind, 0, 0, bytes(size)))
    answered(driver, peer)
    for _ in range(101):
        peer.send(frame(kind, 0xff, 1, bytes(size)))
    assert_cut(driver, peer, "max_idle_frames")


@pytest.mark.parametrize("kind", ["resets", "goodbyes"])
def test_frames_that_ask_for_nothing(kind: str):
    driver, peer = session()
    answered(driver, peer)
    peer.open(request_fields())
    idle = frame(RST_STREAM, 0, 1, RESET) if kind == "resets" else frame(GOAWAY, 0, 0, bytes(8))
    for _ in range(300):
        peer.send(idle)
    assert driver.refused() == {}
    peer.send(idle)
    assert_cut(driver, peer, "max_idle_frames")


@pytest.mark.parametrize("stream", [0, 1])
def test_window_updates(stream: int):
    driver = SessionDriver({}, window_updates=3)
    peer = Peer(SessionLink(driver), wide=False)
    answered(driver, peer)
    # One stream, one DATA frame: 5 + 2 x (1 + 3).
    for _ in range(13):
        peer.send(window_update(stream, 1))
    assert goaway(peer) is None
    peer.send(window_update(stream, 1))
    assert_cut(driver, peer, "max_window_updates")


@pytest.mark.parametrize("where", ["headers", "trailers"])
def test_a_header_block_that_decodes_to_megabytes(where: str):
    """A field of 4,000 bytes, then one byte for each time that it comes again."""
    driver, peer = session()
    stream = peer.next_stream
    seed: list[Field] = [("seed", "x" * 4000)]
    if where == "trailers":
        stream = peer.open(request_fields())
        peer.body(stream, prefixed(b"q"), end=False)
        block = peer.encoder.encode(seed, huffman=False)
    else:
        block = peer.encoder.encode([*request_fields(), *seed], huffman=False)
    again = peer.encoder.encode(seed, huffman=False)
    assert len(again) == 1
    data = block + again * 12_000
    assert not driver.feed(frame(HEADERS, END_HEADERS | END_STREAM, stream, data))
    assert_cut(driver, peer, "max_oversize_headers")


@pytest.mark.parametrize(("fields", "cut"), [(35, False), (50, True)])
def test_fields_past_the_limit_count_in_quarters_of_it(fields: int, cut: bool):
    """Five of these are more than the 16 KiB of a block, and each two more are over another quarter: 20 at once."""
    driver, peer = session()
    seed: list[Field] = [("seed", "x" * 4000)]
    head = peer.encoder.encode([*request_fields(), *seed], huffman=False)
    block = head + peer.encoder.encode(seed, huffman=False) * (fields - 1)
    fed = driver.feed(frame(HEADERS, END_HEADERS | END_STREAM, peer.next_stream, block))
    assert fed is not cut
    if cut:
        assert_cut(driver, peer, "max_oversize_headers")
    else:
        assert goaway(peer) is None


def test_many_header_blocks_over_the_limit():
    driver, peer = session()
    for _ in range(20):
        reply = peer.call(fields=request_fields(INFER_PATH, ("key", "x" * 17_000)), message=None)
        assert reply.code == RESOURCE_EXHAUSTED
    clock.advance(SECOND)
    assert peer.call(fields=request_fields(INFER_PATH, ("key", "x" * 17_000)), message=None).code == RESOURCE_EXHAUSTED
    answered(driver, peer)
    assert goaway(peer) is None
    peer.open(request_fields(INFER_PATH, ("key", "x" * 17_000)))
    assert_cut(driver, peer, "max_oversize_headers")


@pytest.mark.parametrize(("sent", "code"), [
    (frame(DATA, 0, 1, bytes((1 << 20) + 1)), 6), (frame(HEADERS, END_HEADERS, 2, b""), 1),
    (frame(DATA, 0, 9, b"x"), 1)],
    ids=["too large", "even id", "idle stream"])
def test_what_the_library_ends(sent: bytes, code: int):
    driver, peer = session()
    peer.send(sent)
    last = goaway(peer)
    assert last is not None
    assert last.error == code
    assert driver.refused() == {"protocol": 1}
    driver.close()
