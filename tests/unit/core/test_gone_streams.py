"""Frames for streams that are gone, over a session without a socket: RFC 9113, 5.1 and 5.1.1."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from infer._core._testing_transport import SessionDriver
from tests.support.h2_peer import (
    CANCEL,
    DATA,
    END_STREAM,
    GOAWAY,
    PROTOCOL_ERROR,
    RST_STREAM,
    Peer,
    SessionLink,
    frame,
    prefixed,
    request_fields,
)

STREAM_CLOSED = 5
REPLY = prefixed(b"a")


def session(acknowledge: bool = True, **limits: Any) -> tuple[SessionDriver, Peer]:
    driver = SessionDriver({}, **limits)
    peer = Peer(SessionLink(driver), acknowledge=acknowledge)
    peer.until_closed()
    return driver, peer


def ended(driver: SessionDriver, peer: Peer) -> int:
    """A stream whose call was answered in full."""
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(b"q"))
    driver.sink.answer(driver.sink.live[-1], segments=(REPLY,))
    assert peer.answer(stream).code == 0
    return stream


def assert_ended_with(driver: SessionDriver, peer: Peer, code: int) -> None:
    peer.until_closed()
    assert [each.error for each in peer.goaways()] == [code]
    assert driver.done
    assert driver.refused() == {"protocol": 1}
    driver.close()
    assert driver.sink.live == []


def assert_goes_on(driver: SessionDriver, peer: Peer) -> None:
    ended(driver, peer)
    assert peer.goaways() == []
    assert "protocol" not in driver.refused()
    driver.close()


def reset(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


@pytest.mark.parametrize("split", range(1, 12))
def test_data_after_the_end(split: int) -> None:
    """However the frame, and one ahead of it, comes in pieces."""
    driver, peer = session()
    stream = ended(driver, peer)
    late = frame(DATA, END_STREAM, stream, b"late")
    good = peer.headers_frame(stream + 2, request_fields()) + frame(DATA, END_STREAM, stream + 2, prefixed(b"q"))
    peer.send(good + late[:split])
    peer.send(late[split:])
    # What came ahead of it was taken.
    assert len(driver.sink.events) > 2
    assert_ended_with(driver, peer, STREAM_CLOSED)


def test_headers_after_the_end() -> None:
    driver, peer = session()
    stream = ended(driver, peer)
    peer.send(peer.headers_frame(stream, request_fields(), end=True))
    assert_ended_with(driver, peer, STREAM_CLOSED)


def test_data_after_a_cancel_of_the_client() -> None:
    driver, peer = session()
    opened = peer.headers_frame(1, request_fields())
    peer.send(opened + reset(1) + frame(DATA, END_STREAM, 1, b"late"))
    assert_ended_with(driver, peer, STREAM_CLOSED)


def test_a_stream_that_was_passed_over() -> None:
    driver, peer = session()
    opened = peer.headers_frame(5, request_fields(), end=True)
    peer.send(opened + peer.headers_frame(3, request_fields(), end=True))
    assert_ended_with(driver, peer, PROTOCOL_ERROR)


def test_what_was_on_its_way_when_the_server_reset_the_stream() -> None:
    """The client may not have known: its message is longer than what is taken, in as many frames as it likes."""
    driver, peer = session(max_message_bytes=100)
    stream = peer.open(request_fields())
    peer.send(frame(DATA, 0, stream, prefixed(b"x" * 200)))
    assert peer.answer(stream).code == 8
    peer.until_closed()
    assert peer.replies[stream].frames[-1].kind == RST_STREAM
    for _ in range(3):
        peer.send(frame(DATA, 0, stream, b"more"))
    peer.send(frame(DATA, END_STREAM, stream, b"last"))
    assert driver.refused() == {"max_message_bytes": 1}
    assert_goes_on(driver, peer)


def test_what_came_with_a_stream_that_was_refused() -> None:
    """By a client that has not seen our SETTINGS: the library refuses, in the same read as the messages come."""
    driver, peer = session(acknowledge=False, max_streams=2)
    sent = b""
    for stream in range(1, 2 * 40, 2):
        sent += peer.headers_frame(stream, request_fields())
        sent += frame(DATA, END_STREAM, stream, prefixed(b"q"))
    peer.send(sent)
    peer.until_closed()
    assert peer.goaways() == []
    assert len(driver.sink.live) == 2
    assert driver.refused() == {"max_streams": 38}
    driver.close()


def test_after_the_last_goaway() -> None:
    driver, peer = session()
    stream = ended(driver, peer)
    driver.drain()
    peer.until_closed()
    peer.send(frame(DATA, END_STREAM, stream, b"late"))
    peer.until_closed()
    assert all(each.error == 0 for each in peer.others if each.kind == GOAWAY)
    driver.close()
