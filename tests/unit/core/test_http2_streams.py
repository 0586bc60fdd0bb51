"""Streams of messages over a puppet sink: what is handed over, what is held, what wakes a handler."""

from __future__ import annotations

from typing import Any

import pytest

from infer._core._testing_transport import SessionDriver
from infer.errors import Cancelled
from infer.proto import message
from tests.support.h2_peer import (
    DATA,
    END_STREAM,
    INITIAL_WINDOW_SIZE,
    Peer,
    SessionLink,
    frame,
    prefixed,
    request_fields,
    split_messages,
)

TALK, INFER = "/talk/Both", "/inference.GRPCInferenceService/ModelStreamInfer"


class Future:
    """What a handler waits for."""

    def __init__(self) -> None:
        self.set = 0

    def done(self) -> bool:
        return self.set > 0

    def set_result(self, _: None) -> None:
        self.set += 1


def session(**limits: Any) -> tuple[SessionDriver, Peer]:
    driver = SessionDriver({TALK: "handler"}, streaming={TALK: True}, **limits)
    return driver, Peer(SessionLink(driver), settings=[(INITIAL_WINDOW_SIZE, limits.pop("window", 1 << 20))])


def test_a_handler_has_so_many_messages_and_the_rest_is_held():
    driver, peer = session(stream_messages=3)
    stream = peer.open(request_fields(TALK))
    call = driver.cold[0][0]
    call.reader = Future()
    peer.send(frame(DATA, END_STREAM, stream, prefixed(b"m") * 10))
    assert call.reader.set == 1
    assert driver.counters()["streams_held_total"] == 1
    assert driver.buffered_bytes == 60
    assert not call.ended
    for left in range(9, -1, -1):
        assert driver.read_cold(call) == b"m"
        assert driver.buffered_bytes == 6 * left
    assert driver.read_cold(call) is None
    assert call.ended
    driver.finish_cold(call, 0, b"")
    assert peer.answer(stream).code == 0
    driver.close()


def test_the_window_of_a_stream_is_withheld_and_given_back():
    driver, peer = session(stream_messages=1, stream_window_bytes=70_000)
    stream = peer.open(request_fields(TALK))
    call = driver.cold[0][0]
    peer.ping()
    sent = 0
    while peer.windows[stream] >= 10_005:
        peer.body(stream, prefixed(bytes(10_000)), end=False)
        sent += 1
        peer.ping()
        peer.ping()
    assert driver.buffered_bytes == sent * 10_005 <= 70_000 + 10_005
    while driver.read_cold(call) is not None:
        pass
    # The answer to a PING comes ahead of what was to be said before.
    peer.ping()
    peer.ping()
    assert peer.windows[stream] > 35_000
    assert peer.window > 16 << 19
    driver.close()


def test_a_writer_waits_at_its_bound_and_is_woken_below_it():
    driver, peer = session(stream_outbound_bytes=1000)
    stream = peer.open(request_fields(TALK))
    call = driver.cold[0][0]
    call.writer = Future()
    assert driver.has_room(call)
    driver.write_cold(call, bytes(2000))
    assert not driver.has_room(call)
    assert call.writer.set == 0
    while len(peer.expect(stream).body) < 2005:
        peer.read()
    assert call.writer.set == 1
    assert driver.has_room(call)
    driver.close()


def test_a_call_that_is_gone_takes_nothing_more():
    driver, peer = session()
    stream = peer.open(request_fields(TALK))
    call = driver.cold[0][0]
    peer.send(frame(DATA, 0, stream, prefixed(b"m")))
    peer.reset(stream)
    for use in (lambda: driver.read_cold(call), lambda: driver.write_cold(call, b""), lambda: driver.has_room(call),
                lambda: driver.send_head(call)):
        with pytest.raises(Cancelled, match="has ended"):
            use()
    assert driver.buffered_bytes == 0
    driver.close()


def test_replies_wait_for_those_before_them():
    driver, peer = session()
    stream = peer.open(request_fields(INFER))
    peer.send(frame(DATA, END_STREAM, stream, b"".join(prefixed(b"%d" % number) for number in range(3))))
    for number in (2, 1, 0):
        peer.ping()
        assert peer.replies[stream].body == b""
        driver.sink.answer(number, 5, b"text", id=b"%d" % number)
        assert driver.outbound_bytes > 0
    reply = peer.answer(stream)
    ids = [message("inference.ModelStreamInferResponse").FromString(each).infer_response.id
           for each in split_messages(reply.body)]
    assert (ids, reply.code) == (["0", "1", "2"], 0)
    assert driver.outbound_bytes == driver.streams == 0
    driver.close()


def test_messages_of_one_read_share_one_wake_of_the_executors():
    driver, peer = session(stream_messages=2)
    stream = peer.open(request_fields(INFER))
    peer.send(frame(DATA, 0, stream, prefixed(b"m") * 4))
    assert driver.sink.live == [0, 1]
    kicks = driver.sink.kicks
    for number in (0, 1):
        driver.sink.answer(number, segments=(prefixed(b""),))
    driver.output()
    assert driver.sink.live == [2, 3]
    assert driver.sink.kicks > kicks
    peer.reset(stream)
    assert driver.sink.live == []
    assert [event for event in driver.sink.events if event[0] == "cancel"] == [("cancel", 2, 1), ("cancel", 3, 1)]
    driver.close()


def test_each_message_of_a_stream_is_of_the_tenant_that_its_head_names():
    driver, peer = session(tenant_key=b"x-tenant")
    streams = [peer.open(request_fields(INFER, *fields)) for fields in ([("x-tenant", "a")], [])]
    for stream in (*streams, *streams):
        peer.send(frame(DATA, 0, stream, prefixed(b"m")))
    assert [event for event in driver.sink.events if event[0] == "identify"] == [
        ("identify", 0, b"a", 0), ("identify", 2, b"a", 0)]
    driver.close()


def test_a_stream_of_a_certificate():
    driver, peer = session(tenant_of_certificate=True, certified=b"spiffe://a")
    stream = peer.open(request_fields(INFER))
    peer.send(frame(DATA, 0, stream, prefixed(b"m") * 2))
    assert [event for event in driver.sink.events if event[0] == "identify"] == [
        ("identify", 0, b"spiffe://a", 1), ("identify", 1, b"spiffe://a", 1)]
    driver.close()


def test_a_stream_that_is_refused_for_its_tenant_ends_with_the_status():
    driver, peer = session(tenant_key=b"x-tenant")
    driver.sink.answer_identify = (16, b"who are you")
    stream = peer.open(request_fields(INFER, ("x-tenant", "a")))
    peer.send(frame(DATA, 0, stream, prefixed(b"m") * 3))
    reply = peer.answer(stream)
    assert (reply.code, reply.text) == (16, "who are you")
    assert driver.buffered_bytes == 0
    driver.close()
