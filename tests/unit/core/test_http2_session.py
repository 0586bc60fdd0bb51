"""One connection's protocol over a puppet sink: bytes in, calls out; replies in, bytes out."""

import base64
from typing import Any

import pytest

from infer._core._testing_transport import SessionDriver
from infer._core.retry_info import retry_status
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
    INITIAL_WINDOW_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WIDEST,
    Peer,
    Reply,
    SessionLink,
    frame,
    prefixed,
    request_fields,
    window_update,
)

OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 1, 4, 8, 12, 13, 14
COLD = "/cold/Method"


def session(**limits: Any) -> tuple[SessionDriver, Peer]:
    driver = SessionDriver({COLD: "handler"}, **limits)
    return driver, Peer(SessionLink(driver))


def opened(peer: Peer, *more: tuple[str, str], path: str = INFER_PATH) -> int:
    return peer.open(request_fields(path, *more))


def ended(driver: SessionDriver, peer: Peer, stream: int) -> Reply:
    peer.expect(stream)
    return peer.answer(stream)


def left_clean(driver: SessionDriver) -> None:
    """The connection is lost: whatever was open is gone, and nothing is counted any more."""
    driver.close()
    driver.close()
    assert driver.streams == driver.early_replies == driver.buffered_bytes == driver.outbound_bytes == 0
    assert driver.sink.live == []
    counters = driver.counters()
    assert counters["streams"] == counters["buffered_bytes"] == counters["outbound_bytes"] == 0


def test_settings_say_the_limits():
    driver, peer = session(max_streams=7, header_bytes=5000, stream_window_bytes=70000)
    peer.until_closed()
    assert peer.peer_settings == {3: 7, 4: 70000, 5: 1 << 20, 6: 5000}
    assert peer.window == 16 << 20
    assert driver.greeted
    assert driver.settled
    left_clean(driver)


def test_a_call_and_its_reply():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"question"))
    assert driver.sink.events == [("open", 0, None), ("submit", 0, b"question")]
    driver.sink.answer(0, segments=(prefixed(b"answer"),))
    reply = ended(driver, peer, stream)
    assert (reply.http_status, reply.code, reply.message) == (200, OK, b"answer")
    assert [each.kind for each in reply.frames] == [HEADERS, DATA, HEADERS]
    assert reply.reset is None
    assert driver.streams == 0
    left_clean(driver)


@pytest.mark.parametrize("sizes", [
    (5, 1), (4096,), (4095,), (4101,), (5, 4096), (5, 16384, 7), (5, 20000, 3, 70000), (30, 16379, 16384, 1),
    (100_000, 1), (5, 0, 10), (1,) * 20])
@pytest.mark.parametrize("limit", [1, 20000, 1 << 20])
def test_replies_of_any_segments(sizes: tuple[int, ...], limit: int):
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    segments = tuple(bytes([number % 251]) * size for number, size in enumerate(sizes))
    peer.ping()
    driver.sink.answer(0, segments=segments)
    assert driver.outbound_bytes == sum(sizes)
    parts, more = [], True
    while more:
        pieces, more = driver.take(limit)
        parts += pieces
        assert sum(map(len, pieces)) <= limit + 2 * 16384 + 200
    peer._buffer += b"".join(parts)
    assert ended(driver, peer, stream).body == b"".join(segments)
    assert driver.outbound_bytes == 0
    left_clean(driver)


@pytest.mark.parametrize("window", [0, 1, 10, 5000, 20000])
def test_a_reply_waits_for_the_window(window: int):
    driver = SessionDriver()
    peer = Peer(SessionLink(driver), settings=[(INITIAL_WINDOW_SIZE, window)])
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    content = bytes(range(256)) * 200
    driver.sink.answer(0, segments=(content[:7], content[7:]))
    peer._buffer += driver.output()
    assert driver.outbound_bytes == len(content) - window
    while driver.outbound_bytes > 0:
        before = driver.outbound_bytes
        peer.send(window_update(stream, 3000))
        peer._buffer += driver.output()
        assert driver.outbound_bytes == max(0, before - 3000)
    assert ended(driver, peer, stream).body == content
    left_clean(driver)


@pytest.mark.parametrize("when", ["waiting", "half sent"])
def test_a_stream_reset_with_its_reply_unsent(when: str):
    driver = SessionDriver()
    peer = Peer(SessionLink(driver), settings=[(INITIAL_WINDOW_SIZE, 30000 if when == "half sent" else 0)])
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    driver.sink.answer(0, segments=(bytes(10), bytes(50000)))
    driver.output()
    assert driver.outbound_bytes > 0
    peer.reset(stream)
    assert driver.streams == driver.outbound_bytes == 0
    left_clean(driver)


def test_a_stream_reset_between_two_pieces_of_output():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    driver.sink.answer(0, segments=(bytes(10), bytes(200_000)))
    pieces, more = driver.take(1000)
    assert more
    peer.reset(stream)
    assert driver.streams == driver.outbound_bytes == 0
    driver.output()
    other = opened(peer)
    peer.body(other, prefixed(b"q"))
    driver.sink.answer(1, segments=(prefixed(b"a"),))
    peer._buffer[:0] = b"".join(pieces)
    assert ended(driver, peer, other).message == b"a"
    left_clean(driver)


def test_an_error_is_trailers_only():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    driver.sink.answer(0, code=RESOURCE_EXHAUSTED, text="voll: 100 % größer\n".encode(), pushback_ms=17)
    reply = ended(driver, peer, stream)
    assert reply.trailers_only
    assert (reply.http_status, reply.code, reply.text) == (200, RESOURCE_EXHAUSTED, "voll: 100 % größer\n")
    assert reply.raw_text == "voll: 100 %25 gr%C3%B6%C3%9Fer%0A"
    assert reply.fields["grpc-retry-pushback-ms"] == "17"
    assert details(reply) == retry_status(RESOURCE_EXHAUSTED, reply.text, 17)
    left_clean(driver)


def details(reply: Reply) -> bytes:
    text = reply.fields["grpc-status-details-bin"]
    assert "=" not in text
    return base64.b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("text", ["x" * 1024, "x" * 2000, "\U0001f600" * 100, ""])
def test_the_longest_message_has_its_retry_info_whole(text: str):
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    driver.sink.answer(0, code=RESOURCE_EXHAUSTED, text=text.encode(), pushback_ms=(1 << 63) - 1)
    reply = ended(driver, peer, stream)
    assert details(reply) == retry_status(RESOURCE_EXHAUSTED, reply.text or "", (1 << 63) - 1)
    left_clean(driver)


def test_an_error_that_no_retry_helps_has_no_details():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    driver.sink.answer(0, code=RESOURCE_EXHAUSTED, text=b"too large")
    assert not {"grpc-retry-pushback-ms", "grpc-status-details-bin"} & dict(ended(driver, peer, stream).fields).keys()
    left_clean(driver)


@pytest.mark.parametrize("text", ["x" * 1024, "ö" * 512, "%" * 1024, "\U0001f600" * 256, "a" + "ö" * 511])
@pytest.mark.parametrize("cold", [False, True])
def test_a_message_stays_within_1_KiB_once_encoded(text: str, cold: bool):
    driver, peer = session()
    stream = opened(peer, path=COLD if cold else INFER_PATH)
    peer.body(stream, prefixed(b""))
    if cold:
        driver.finish_cold(driver.cold[0][0], INTERNAL, text.encode())
    else:
        driver.sink.answer(0, code=INTERNAL, text=text.encode())
    reply = ended(driver, peer, stream)
    assert 1024 - 12 < len(reply.raw_text) <= 1024
    assert text.startswith(reply.text)
    left_clean(driver)


def test_answered_in_open_before_the_message():
    driver, peer = session()
    driver.sink.answer_open = (RESOURCE_EXHAUSTED, b"full")
    stream = opened(peer)
    reply = ended(driver, peer, stream)
    assert reply.code == RESOURCE_EXHAUSTED
    assert reply.trailers_only
    peer.send(frame(DATA, END_STREAM, stream, prefixed(b"late")))
    peer.ping()
    assert reply.reset == NO_ERROR
    assert driver.sink.events == [("open", 0, None)]
    left_clean(driver)


def test_answered_in_open_with_the_message_in_the_same_read():
    driver, peer = session()
    driver.sink.answer_open = (RESOURCE_EXHAUSTED, b"full")
    stream = peer.next_stream
    peer.send(peer.headers_frame(stream, request_fields()) + frame(DATA, END_STREAM, stream, prefixed(b"q")))
    reply = ended(driver, peer, stream)
    peer.ping()
    assert (reply.code, reply.reset) == (RESOURCE_EXHAUSTED, None)
    left_clean(driver)


def test_answered_in_submit():
    driver, peer = session()
    driver.sink.answer_submit = (OK, b"", (prefixed(b"a"),))
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    assert ended(driver, peer, stream).message == b"a"
    left_clean(driver)


def test_what_a_read_brings_about_is_not_listed_for_the_end_of_the_turn():
    driver, peer = session()
    driver.sink.answer_submit = (INTERNAL, b"no", ())
    for _ in range(100):
        peer.call()
    assert driver.flushes == []
    driver.sink.answer_submit = None
    streams = [opened(peer) for _ in range(3)]
    for stream in streams:
        peer.body(stream, prefixed(b"q"))
    for number in (100, 101, 102):
        driver.sink.answer(number, segments=(prefixed(b"a"),))
    assert driver.flushes == [driver]
    left_clean(driver)


def test_F1_connection_lost_in_every_stage():
    driver, peer = session()
    uploading, called, cold = opened(peer), opened(peer), opened(peer, path=COLD)
    peer.send(frame(DATA, 0, uploading, prefixed(b"half", announced=100)))
    peer.body(called, prefixed(b"whole"))
    peer.body(cold, prefixed(b""))
    replying = opened(peer)
    peer.body(replying, prefixed(b"q"))
    driver.sink.answer(2, segments=(prefixed(b"never sent"),))
    assert driver.streams == 4
    assert driver.buffered_bytes == 9 + 10 + 5
    left_clean(driver)
    assert driver.sink.events[-2:] == [("cancel", 1, CANCELLED), ("cancel", 0, CANCELLED)]
    assert driver.cold[0][0].cancelled
    driver.finish_cold(driver.cold[0][0], OK, b"too late")


def test_F2_reset_cancels():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    peer.reset(stream)
    assert driver.sink.events[-1] == ("cancel", 0, CANCELLED)
    assert driver.streams == 0
    left_clean(driver)


def test_a_client_that_cancels_often_is_not_cut():
    driver, peer = session()
    for _ in range(3000):
        stream = opened(peer)
        peer.body(stream, prefixed(b"q"), end=False)
        peer.reset(stream)
    assert driver.streams == driver.buffered_bytes == 0
    peer.ping()
    assert peer.goaways() == []
    left_clean(driver)


def test_bytes_are_counted_until_the_call_is_answered():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"12345"), end=False)
    assert driver.buffered_bytes == 10
    peer.body(stream, b"")
    assert driver.buffered_bytes == 10
    driver.sink.answer(0, segments=(prefixed(b"a"),))
    assert driver.buffered_bytes == 0
    left_clean(driver)


@pytest.mark.parametrize("cold", [False, True])
def test_F16_a_full_connection_refuses_at_the_prefix(cold: bool):
    driver, peer = session(connection_buffered_bytes=1000)
    first = opened(peer)
    peer.body(first, prefixed(bytes(600), announced=1200), end=False)
    second = opened(peer, path=COLD if cold else INFER_PATH)
    peer.body(second, prefixed(bytes(600), announced=700), end=False)
    assert driver.buffered_bytes > 1000
    third = opened(peer)
    peer.body(third, prefixed(b"x"), end=False)
    reply = ended(driver, peer, third)
    assert reply.code == RESOURCE_EXHAUSTED
    assert reply.trailers_only
    assert driver.refused() == {"max_buffered_bytes": 1}
    assert int(dict(reply.fields)["grpc-retry-pushback-ms"]) > 0
    peer.body(first, bytes(600))
    peer.body(second, bytes(100))
    assert ("submit", 0, bytes(1200)) in driver.sink.events
    assert bool(driver.cold) == cold
    assert (("submit", 1, bytes(700)) in driver.sink.events) == (not cold)
    left_clean(driver)


def test_replies_that_wait_for_their_reader_count_as_held():
    driver = SessionDriver(connection_buffered_bytes=1000)
    peer = Peer(SessionLink(driver), settings=[(INITIAL_WINDOW_SIZE, 0)])
    first = opened(peer)
    peer.body(first, prefixed(b"q"))
    driver.sink.answer(0, segments=(prefixed(bytes(5000)),))
    second = opened(peer)
    peer.body(second, prefixed(b"q"))
    assert ended(driver, peer, second).code == RESOURCE_EXHAUSTED
    left_clean(driver)


@pytest.mark.parametrize(("body", "code"), [
    (b"\x01\0\0\0\0", INTERNAL), (b"\0\xff\xff\xff\xff", RESOURCE_EXHAUSTED),
    (prefixed(b"a") + prefixed(b"b"), UNIMPLEMENTED), (b"\0\0\0\0\x05hell", INTERNAL), (b"", UNIMPLEMENTED)])
def test_a_call_refused_for_its_body_is_counted_by_its_code(body: bytes, code: int):
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, body)
    reply = ended(driver, peer, stream)
    assert reply.code == code
    assert reply.trailers_only
    assert driver.sink.events == [("open", 0, None), ("cancel", 0, code)]
    assert driver.buffered_bytes == 0
    left_clean(driver)


def test_an_early_refusal_is_followed_by_a_reset():
    driver, peer = session(max_message_bytes=10)
    stream = opened(peer)
    peer.body(stream, prefixed(b"", announced=11), end=False)
    reply = ended(driver, peer, stream)
    peer.ping()
    assert reply.code == RESOURCE_EXHAUSTED
    assert reply.reset == NO_ERROR
    assert driver.early_replies == driver.streams == 0
    peer.send(frame(DATA, 0, stream, bytes(1000)))
    peer.ping()
    left_clean(driver)


@pytest.mark.parametrize(("timeout", "relative"), [
    ("1S", 10**9), ("1n", 1), ("0n", 0), ("99999999S", 99_999_999 * 10**9), ("99999999M", None), ("99999999H", None)])
def test_H11_deadlines(timeout: str, relative: int | None):
    driver, peer = session()
    opened(peer, ("grpc-timeout", timeout))
    assert driver.sink.events == [("open", 0, relative)]
    left_clean(driver)


def test_a_cold_call():
    driver, peer = session()
    stream = opened(peer, ("key", "value"), ("key-bin", "YQ,YWI="), ("user-agent", "me"), ("grpc-timeout", "9S"),
                    path=COLD)
    peer.body(stream, prefixed(b"question"))
    (call, handler), = driver.cold
    assert (call.path, call.message, call.peer, handler) == (COLD, b"question", "test", "handler")
    assert call.metadata == (("key", "value"), ("key-bin", b"a"), ("key-bin", b"ab"), ("user-agent", "me"))
    assert 8.0 < call.time_remaining() <= 9.0
    assert driver.buffered_bytes == 13
    driver.finish_cold(call, OK, b"answer" * 10_000)
    assert driver.buffered_bytes == 0
    reply = ended(driver, peer, stream)
    assert (reply.code, reply.message) == (OK, b"answer" * 10_000)
    driver.finish_cold(call, OK, b"again")
    assert driver.counters()["cold_calls_total"] == 1
    assert call.cancelled
    assert driver.timers[0].cancelled
    left_clean(driver)


def test_F6_a_cold_call_whose_deadline_has_passed():
    driver, peer = session()
    stream = opened(peer, ("grpc-timeout", "0n"), path=COLD)
    reply = ended(driver, peer, stream)
    assert reply.code == DEADLINE_EXCEEDED
    assert reply.trailers_only
    assert driver.cold == driver.timers == []
    left_clean(driver)


def test_F4_a_cold_call_ends_at_its_deadline_although_its_message_has_not_come():
    driver, peer = session()
    stream = opened(peer, ("grpc-timeout", "1S"), path=COLD)
    peer.body(stream, prefixed(b"", announced=10), end=False)
    timer, = driver.timers
    driver.finish_cold(timer.call, DEADLINE_EXCEEDED, b"late")
    reply = ended(driver, peer, stream)
    peer.ping()
    assert (reply.code, reply.reset) == (DEADLINE_EXCEEDED, NO_ERROR)
    assert timer.cancelled
    assert driver.buffered_bytes == 0
    left_clean(driver)


def test_a_cold_call_that_cannot_be_run_is_answered():
    driver, peer = session()
    driver.refuse_spawn = True
    stream = opened(peer, path=COLD)
    peer.body(stream, prefixed(b""))
    assert ended(driver, peer, stream).code == UNAVAILABLE
    left_clean(driver)


def test_streams_beyond_the_limit_are_refused():
    driver = SessionDriver(max_streams=3)
    peer = Peer(SessionLink(driver), acknowledge=False)
    streams = [opened(peer) for _ in range(5)]
    for stream in streams[3:]:
        assert ended(driver, peer, stream).reset == REFUSED_STREAM
    assert driver.refused() == {"max_streams": 2}
    peer.body(streams[0], prefixed(b"q"))
    driver.sink.answer(0, segments=(prefixed(b"a"),))
    assert ended(driver, peer, streams[0]).code == OK
    left_clean(driver)


def test_a_client_that_ignores_the_limit_it_acknowledged_loses_its_connection():
    driver, peer = session(max_streams=3)
    peer.ping()
    for _ in range(4):
        opened(peer)
    peer.until_closed()
    assert peer.goaways()[0].error == PROTOCOL_ERROR
    assert driver.done
    left_clean(driver)


def test_H13_headers_over_the_limit():
    driver, peer = session(header_bytes=2000)
    stream = opened(peer, ("key", "x" * 3000), path=INFER_PATH)
    reply = ended(driver, peer, stream)
    assert reply.code == RESOURCE_EXHAUSTED
    assert reply.trailers_only
    assert driver.refused() == {"header_bytes": 1}
    assert driver.sink.events == []
    left_clean(driver)


def test_H13_headers_over_the_limit_answered_in_the_middle_of_the_block():
    driver, peer = session(header_bytes=2000)
    peer.until_closed()
    stream = peer.next_stream
    block = peer.encoder.encode([*request_fields(), ("key", "x" * 3000), ("after", "y" * 100)], huffman=False)
    peer.send(frame(HEADERS, 0, stream, block[:-90]))
    reply = ended(driver, peer, stream)
    assert reply.code == RESOURCE_EXHAUSTED
    peer.send(frame(CONTINUATION, END_HEADERS, stream, block[-90:]))
    peer.ping()
    peer.next_stream += 2
    other = opened(peer)
    peer.body(other, prefixed(b"q"))
    driver.sink.answer(0, segments=(prefixed(b"a"),))
    assert ended(driver, peer, other).code == OK
    left_clean(driver)


def test_H7_a_field_with_a_bad_value_resets_the_stream():
    driver, peer = session()
    stream = opened(peer, ("key", "a\nb"), ("other", "a\nb"))
    assert ended(driver, peer, stream).reset == PROTOCOL_ERROR
    assert driver.sink.events == []
    assert driver.streams == 0
    left_clean(driver)


def test_H7_in_trailers_too():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"), end=False)
    peer.send(peer.headers_frame(stream, [("key", "a\nb")], end=True))
    assert ended(driver, peer, stream).reset == PROTOCOL_ERROR
    assert driver.sink.events == [("open", 0, None), ("cancel", 0, CANCELLED)]
    left_clean(driver)


def test_trailers_end_a_message():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"), end=False)
    peer.send(peer.headers_frame(stream, [("key", "value")], end=True))
    assert driver.sink.events[-1] == ("submit", 0, b"q")
    left_clean(driver)


@pytest.mark.parametrize("padded", [False, True])
def test_empty_frames_in_a_row(padded: bool):
    driver, peer = session()
    stream = opened(peer)
    empty = frame(DATA, PADDED, stream, b"\x07" + bytes(7)) if padded else frame(DATA, 0, stream, b"")
    peer.send(empty * 16 + frame(DATA, 0, stream, b"\0"))
    peer.send(empty * 16)
    assert driver.refused() == {}
    peer.send(empty)
    peer.until_closed()
    assert peer.goaways()[0].error == ENHANCE_YOUR_CALM
    assert driver.refused() == {"max_empty_frames": 1}
    assert driver.done
    left_clean(driver)


def test_H15_continuations():
    driver, peer = session()
    block = peer.encoder.encode(request_fields(), huffman=False)
    parts = [block[at:at + len(block) // 8 + 1] for at in range(0, len(block), len(block) // 8 + 1)]
    assert len(parts) == 8
    stream = peer.next_stream
    peer.send(frame(HEADERS, 0, stream, b"") + b"".join(
        frame(CONTINUATION, END_HEADERS if part is parts[-1] else 0, stream, part) for part in parts))
    peer.body(peer.expect(stream).stream, prefixed(b"q"))
    assert driver.sink.events[-1] == ("submit", 0, b"q")
    link = peer.transport
    peer.send(frame(HEADERS, 0, stream + 2, b"") + frame(CONTINUATION, 0, stream + 2, b"") * 9)
    assert not link.good  # type: ignore[attr-defined]
    peer.until_closed()
    assert peer.goaways()[0].error == ENHANCE_YOUR_CALM
    left_clean(driver)


def test_H16_not_a_preface():
    driver = SessionDriver()
    assert not driver.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    left_clean(driver)


def test_unread_acknowledgements_are_bounded():
    driver, peer = session(ping_strikes=1 << 20)
    peer.ping()
    good = True
    for _ in range(2000):
        good = good and driver.feed(frame(PING, 0, 0, bytes(8)))
    assert not good
    peer.until_closed()
    assert peer.goaways()[0].error == ENHANCE_YOUR_CALM
    left_clean(driver)


def test_F35_drain():
    driver, peer = session()
    peer.acknowledge = False
    stream = opened(peer)
    driver.drain()
    assert driver.flushes == [driver]
    peer._buffer += driver.output()
    while not peer.goaways():
        peer.read()
    first, = peer.goaways()
    assert (first.last_stream, first.error) == (WIDEST, NO_ERROR)
    ping = next(each for each in peer.others if each.kind == PING and not each.flags & ACK)
    assert not driver.done
    late = opened(peer)
    peer.send(frame(PING, ACK, 0, ping.payload))
    peer._buffer += driver.output()
    second = peer.read()
    assert (second.kind, second.last_stream, second.error) == (GOAWAY, late, NO_ERROR)
    opened(peer)
    assert driver.streams == 2
    for number, each in enumerate((stream, late)):
        assert not driver.done
        peer.body(each, prefixed(b"q"))
        driver.sink.answer(number, segments=(prefixed(b"a"),))
        assert ended(driver, peer, each).code == OK
    assert driver.done
    left_clean(driver)


def test_F35_a_connection_that_has_just_come_may_still_call():
    driver = SessionDriver()
    driver.drain()
    peer = Peer(SessionLink(driver), acknowledge=False)
    peer._buffer += driver.output()
    assert not driver.done
    assert peer.read().kind == SETTINGS
    left_clean(driver)


def test_F35_idle_and_answered_is_done():
    driver, peer = session()
    peer.ping()
    driver.drain()
    peer.until_closed()
    assert [each.last_stream for each in peer.goaways()] == [WIDEST, 0]
    assert driver.done
    left_clean(driver)


def test_a_connection_that_breaks_the_protocol_while_it_drains_is_done():
    driver, peer = session()
    peer.acknowledge = False
    stream = opened(peer)
    driver.drain()
    peer.until_closed()
    peer.send(frame(PING, 0, 1, bytes(8)))
    peer.until_closed()
    assert [each.error for each in peer.goaways()] == [NO_ERROR, PROTOCOL_ERROR]
    assert not peer.replies[stream].ended
    assert driver.done
    left_clean(driver)


def test_F36_calls_are_ended():
    driver, peer = session()
    uploading, called, cold = opened(peer), opened(peer), opened(peer, path=COLD)
    peer.body(called, prefixed(b"q"))
    peer.body(cold, prefixed(b"q"))
    driver.end_calls(b"stopping")
    for stream in (uploading, called, cold):
        reply = ended(driver, peer, stream)
        assert (reply.code, reply.text) == (UNAVAILABLE, "stopping")
    assert sorted(event for event in driver.sink.events if event[0] == "cancel") == [
        ("cancel", 0, UNAVAILABLE), ("cancel", 1, UNAVAILABLE)]
    peer.until_closed()
    assert peer.goaways()[-1].last_stream == cold
    assert driver.done
    driver.drain()
    driver.finish_cold(driver.cold[0][0], OK, b"late")
    left_clean(driver)


def test_F50_a_client_that_says_goodbye():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    peer.send(frame(GOAWAY, 0, 0, bytes(8)))
    driver.output()
    assert not driver.done
    driver.sink.answer(0, segments=(prefixed(b"a"),))
    assert ended(driver, peer, stream).code == OK
    assert driver.done
    left_clean(driver)


def test_a_reset_after_the_reply_is_queued_and_before_it_is_sent():
    driver, peer = session()
    stream = opened(peer)
    peer.body(stream, prefixed(b"q"))
    driver.sink.answer(0, segments=(prefixed(bytes(50_000)),))
    peer.send(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
    assert driver.streams == driver.outbound_bytes == 0
    peer.ping()
    left_clean(driver)


def test_H5_unknown_methods_are_named_without_their_raw_bytes():
    driver, peer = session()
    reply = peer.call("/x/" + "%C3%B6" * 10 + "\xff" * 100)
    assert reply.code == UNIMPLEMENTED
    assert reply.text.isprintable()
    assert reply.text.isascii()
    assert len(reply.text) < 400
    left_clean(driver)


# Whose a call is.

TENANT = {"tenant_key": b"x-tenant"}


@pytest.mark.parametrize(("fields", "said"), [
    ([], None),
    ([("x-tenant", "acme")], b"acme"),
    ([("x-tenant-2", "acme"), ("x-tenan", "acme")], None),
    ([("x-tenant", "acme"), ("x-tenant", "acme")], b""),
    ([("x-tenant", "")], b""),
    ([("x-tenant", "x" * 255)], b"x" * 255),
    ([("x-tenant", "x" * 5000)], b"x" * 256)])
def test_the_tenant_that_the_metadata_names(fields: list[tuple[str, str]], said: bytes | None):
    driver, peer = session(**TENANT)
    for number in range(2):
        opened(peer, *fields)
        expected = [("open", number, None)] + ([] if said is None else [("identify", number, said, 0)])
        assert driver.sink.events[-len(expected):] == expected
    left_clean(driver)


def test_a_tenant_is_named_by_the_header_block_of_its_own_call():
    driver, peer = session(**TENANT)
    opened(peer, ("x-tenant", "a"))
    opened(peer, ("x-tenant", "b"), path=COLD)
    opened(peer)
    opened(peer, ("x-tenant", "c"))
    assert [event for event in driver.sink.events if event[0] == "identify"] == [
        ("identify", 0, b"a", 0), ("identify", 2, b"c", 0)]
    left_clean(driver)


def test_metadata_names_no_tenant_unless_it_is_said_which():
    driver, peer = session()
    opened(peer, ("x-tenant", "acme"), ("x-other", "acme"))
    assert driver.sink.events == [("open", 0, None)]
    left_clean(driver)


@pytest.mark.parametrize("certified", [b"spiffe://a/b", b""])
def test_over_tls_the_certificate_names_the_tenant(certified: bytes):
    driver, peer = session(**TENANT, tenant_of_certificate=True, certified=certified)
    opened(peer, ("x-tenant", "acme"))
    opened(peer)
    assert [event for event in driver.sink.events if event[0] == "identify"] == [
        ("identify", 0, certified, 1), ("identify", 1, certified, 1)]
    left_clean(driver)


def test_without_tls_the_metadata_names_the_tenant_beside_certificates():
    driver, peer = session(**TENANT, tenant_of_certificate=True)
    opened(peer, ("x-tenant", "acme"))
    assert driver.sink.events[-1] == ("identify", 0, b"acme", 0)
    left_clean(driver)


def test_a_call_that_is_refused_for_its_tenant():
    driver, peer = session(**TENANT)
    driver.sink.answer_identify = (16, b"who are you")
    stream = opened(peer, ("x-tenant", "acme"))
    peer.body(stream, prefixed(b"question"), end=False)
    reply = ended(driver, peer, stream)
    assert (reply.code, reply.text) == (16, "who are you")
    assert [event[0] for event in driver.sink.events] == ["open", "identify"]
    left_clean(driver)
