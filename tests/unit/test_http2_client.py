"""The client session without a socket: bytes written by hand go in, frames come out."""

import struct

import pytest

from infer._core.http2_client import ClientConnection, Reply
from tests.support import scripted_peer as peer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_UPDATE = 0x8


def connection(**options: object) -> ClientConnection:
    return ClientConnection("/a.B/C", "host:1", **options)  # type: ignore[arg-type]


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """(type, stream, payload) of each frame."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def test_a_call_is_headers_and_one_framed_message() -> None:
    client = connection()
    assert client.start(b"hello") == 0
    output = client.take_output()
    assert output.startswith(PREFACE)
    sent = frames(output[len(PREFACE) :])
    assert [kind for kind, _, _ in sent] == [peer.SETTINGS, WINDOW_UPDATE, peer.HEADERS, peer.DATA]
    assert sent[-1] == (peer.DATA, 1, b"\0" + struct.pack(">I", 5) + b"hello")
    assert client.take_output() == b""
    assert client.active == 1


def test_reply_in_pieces_of_one_byte() -> None:
    client = connection()
    call_id = client.start(b"x")
    client.take_output()
    replies = []
    for byte in peer.settings() + peer.reply(1, b"answer"):
        replies += client.feed(bytes([byte]))
    assert replies == [Reply(call_id, 200, 0, b"answer", "", None)]
    assert client.active == 0


def test_replies_in_another_order_keep_their_call() -> None:
    client = connection()
    ids = [client.start(bytes([n])) for n in range(3)]
    client.take_output()
    streams = (5, 1, 3)
    replies = client.feed(peer.settings() + b"".join(peer.reply(stream, b"s%d" % stream) for stream in streams))
    assert [(r.call_id, r.message) for r in replies] == [(ids[2], b"s5"), (ids[0], b"s1"), (ids[1], b"s3")]


def test_error_without_a_message() -> None:
    client = connection()
    client.start(b"x")
    client.take_output()
    fields = (":status", "200"), ("grpc-status", "5"), ("grpc-message", "no%20model%3A %E2%82%AC")
    [reply] = client.feed(peer.settings() + peer.headers(1, *fields, end=True))
    assert (reply.grpc_status, reply.message, reply.detail, reply.failure) == (5, None, "no model: \u20ac", None)


def test_status_that_is_not_a_number() -> None:
    client = connection()
    client.start(b"x")
    client.take_output()
    [reply] = client.feed(peer.settings() + peer.reply(1, status="many"))
    assert (reply.grpc_status, reply.message) == (-1, b"abc")


@pytest.mark.parametrize("body", [b"", b"\0\0\0", b"\0\0\0\0\5abcd", b"\0\0\0\0\2abc"])
def test_body_that_is_not_one_message(body: bytes) -> None:
    client = connection()
    client.start(b"x")
    client.take_output()
    start, data = peer.headers(1, (":status", "200")), peer.frame(peer.DATA, 0, 1, body)
    [reply] = client.feed(peer.settings() + start + data + peer.headers(1, ("grpc-status", "0"), end=True))
    assert (reply.grpc_status, reply.message) == (0, None)


def test_reset_is_a_failure_in_words() -> None:
    client = connection()
    client.start(b"x")
    client.take_output()
    [reply] = client.feed(peer.settings() + peer.reset(1, 7))
    assert (reply.http_status, reply.grpc_status, reply.failure) == (0, -1, "REFUSED_STREAM")


def test_limit_of_calls() -> None:
    client = connection(max_calls=2)
    client.start(b"x")
    client.start(b"x")
    assert not client.can_start
    with pytest.raises(ConnectionError, match="limit of calls"):
        client.start(b"x")
    client.take_output()
    client.feed(peer.settings() + peer.reply(1))
    assert client.can_start


def test_limit_of_the_peer() -> None:
    client = connection()
    client.take_output()
    client.feed(peer.settings(max_concurrent_streams=1))
    client.start(b"x")
    assert not client.can_start


def test_goaway_lets_older_streams_end() -> None:
    client = connection()
    ids = [client.start(b"x") for _ in range(2)]
    client.take_output()
    [refused] = client.feed(peer.settings() + peer.goaway(1))
    assert (refused.call_id, refused.failure) == (ids[1], "REFUSED_STREAM")
    assert (client.active, client.can_start, client.is_finished) == (1, False, False)
    [reply] = client.feed(peer.reply(1))
    client.take_output()
    assert (reply.call_id, reply.message, client.is_finished) == (ids[0], b"abc", True)


def test_call_that_a_goaway_overtook_is_refused() -> None:
    client = connection()
    client.take_output()
    client.feed(peer.settings())
    call_id = client.start(b"x")
    client.feed(peer.goaway(0))
    client.take_output()
    assert [(r.call_id, r.failure) for r in client.feed(b"")] == [(call_id, "REFUSED_STREAM")]
    assert client.active == 0


def test_peer_that_breaks_the_protocol() -> None:
    client = connection()
    call_id = client.start(b"x")
    client.take_output()
    assert client.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n") == []
    assert [kind for kind, _, _ in frames(client.take_output())] == [peer.GOAWAY]
    assert client.is_finished
    assert [(r.call_id, r.failure) for r in client.abandon()] == [(call_id, "connection lost")]


def test_abandon_ends_every_call_once() -> None:
    client = connection()
    ids = {client.start(b"x") for _ in range(3)}
    assert {r.call_id for r in client.abandon()} == ids
    assert client.abandon() == []
    assert not client.can_start
    assert client.take_output() == b""


def test_places_are_used_again() -> None:
    client = connection(max_calls=1)
    client.feed(peer.settings())
    for n in range(50):
        call_id = client.start(b"x")
        client.take_output()
        [reply] = client.feed(peer.reply(2 * n + 1, b"%d" % n))
        assert (reply.call_id, reply.message) == (call_id, b"%d" % n)


def test_message_longer_than_a_frame() -> None:
    client = connection()
    client.feed(peer.settings(initial_window_size=1 << 20))
    message = bytes(range(256)) * 250
    client.start(message)
    sent = frames(client.take_output()[len(PREFACE) :])
    body = b"".join(payload for kind, _, payload in sent if kind == peer.DATA)
    # The peer's connection window is 65,535 bytes until it says otherwise.
    assert body == (b"\0" + struct.pack(">I", len(message)) + message)[:65535]


def test_what_replies_hold_together_is_bounded() -> None:
    client = connection(max_reply_bytes=3000)
    for _ in range(3):
        client.start(b"x")
    client.take_output()

    def part(stream: int, size: int, first: bool, total: int) -> bytes:
        head = peer.headers(stream, (":status", "200"), ("content-type", "application/grpc")) if first else b""
        return head + peer.frame(peer.DATA, 0, stream, (struct.pack(">BI", 0, total) if first else b"") + b"r" * size)

    def end(stream: int) -> bytes:
        return peer.headers(stream, ("grpc-status", "0"), end=True)

    # The first two are under way together; the second would pass the bound, and is read to its end without being kept.
    client.feed(peer.settings() + part(1, 1500, True, 2000) + part(3, 1500, True, 2000) + part(3, 500, False, 2000))
    replies = client.feed(end(3) + part(1, 500, False, 2000) + end(1))
    assert [(each.call_id, each.grpc_status, each.message) for each in replies] == [(1, 0, None), (0, 0, b"r" * 2000)]
    # What they held is free again.
    [last] = client.feed(part(5, 2900, True, 2900) + end(5))
    assert last.message == b"r" * 2900
    client.start(b"x")
    client.take_output()
    [larger] = client.feed(part(7, 3000, True, 3000) + end(7))
    assert (larger.grpc_status, larger.message) == (0, None)
