"""What a cold handler may say beside its reply: metadata, checked before anything of it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from infer._core._testing_transport import SessionDriver
from tests.support.h2_peer import Peer, SessionLink, prefixed, request_fields

COLD = "/cold/Method"


def called() -> tuple[SessionDriver, Peer, int, Any]:
    driver = SessionDriver({COLD: "handler"})
    peer = Peer(SessionLink(driver))
    stream = peer.open(request_fields(COLD))
    peer.body(stream, prefixed(b"question"))
    return driver, peer, stream, driver.cold[0][0]


@pytest.mark.parametrize(("key", "value", "text"), [
    ("", "a", "expected digits"), ("Upper", "a", "lower-case"), ("a b", "a", "expected digits"),
    (":path", "/", "expected digits"), ("ä", "a", "expected digits"), (b"a", "a", "expected digits"),
    ("grpc-status", "0", "transport's own"), ("content-type", "a", "transport's own"), ("te", "a", "transport's own"),
    ("a-bin", "text", "expected bytes"), ("a", b"bytes", "printable ASCII"), ("a", "ä", "printable ASCII"),
    ("a", "\n", "printable ASCII"), ("a", " b", "without spaces"), ("a", "x" * 20_000, "at most 16384")])
def test_metadata_that_cannot_be_sent(key: Any, value: Any, text: str):
    driver, _, _, call = called()
    for give in (call.send_initial_metadata, call.set_trailing_metadata):
        with pytest.raises(ValueError, match=text):
            give([("good", "1"), (key, value)])
    driver.close()


def test_metadata_goes_with_the_reply_and_with_its_status():
    driver, peer, stream, call = called()
    call.send_initial_metadata([("a", "1"), ("a", "2"), ("b-bin", b"\0")])
    call.set_trailing_metadata([("dropped", "")])
    call.set_trailing_metadata([("c", ""), ("grpc-status-details-bin", b"\xff\xff")])
    driver.finish_cold(call, 0, b"answer")
    reply = peer.answer(stream)
    assert reply.message == b"answer"
    head, trailers = reply.blocks
    assert head[2:] == [("a", "1"), ("a", "2"), ("b-bin", "AA")]
    assert trailers == [("grpc-status", "0"), ("c", ""), ("grpc-status-details-bin", "//8")]
    driver.close()


def test_the_head_is_said_once():
    driver, _, _, call = called()
    call.send_initial_metadata([("a", "1")])
    with pytest.raises(ValueError, match="sent before"):
        call.send_initial_metadata([("a", "2")])
    driver.close()


def test_an_error_with_trailing_metadata_alone_is_trailers_only():
    driver, peer, stream, call = called()
    call.set_trailing_metadata([("c", "d")])
    driver.finish_cold(call, 9, "grün".encode())
    reply = peer.answer(stream)
    assert (reply.trailers_only, reply.code, reply.text, reply.fields["c"]) == (True, 9, "grün", "d")
    driver.close()
