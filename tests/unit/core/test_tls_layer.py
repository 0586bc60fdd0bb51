"""TLS over a puppet of a socket and a stepped clock: handshakes in pieces, bounds, ends."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infer.security.tls import TlsFiles, server_context
from tests.support.certificates import Authority
from tests.support.endpoint import Bench, Socket
from tests.support.h2_peer import DATA, END_STREAM, PRIORITY, Peer, frame, prefixed, request_fields

pytestmark = pytest.mark.usefixtures("stepped_clock")

OK = 0


class TlsClient:
    """The client's end of a Socket: bytes for a Peer on one side, records on the other."""

    def __init__(self, socket: Socket, context: ssl.SSLContext) -> None:
        self.socket = socket
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def step(self) -> bytes:
        """One flight of the handshake; what it has to say next, b"" once it is done."""
        self.incoming.write(self.socket.recv(0))
        with contextlib.suppress(ssl.SSLWantReadError):
            self.ssl.do_handshake()
        return self.outgoing.read()

    def shake_hands(self, piece: int = 1 << 20) -> None:
        while said := self.step():
            for at in range(0, len(said), piece):
                self.socket.sendall(said[at:at + piece])

    def sendall(self, data: bytes) -> None:
        self.ssl.write(data)
        self.socket.sendall(self.outgoing.read())

    def recv(self, size: int) -> bytes:
        self.incoming.write(self.socket.recv(0))
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while got := self.ssl.read(1 << 20):
                data += got
        return data

    def settimeout(self, seconds: float | None) -> None:
        pass


class TlsBench(Bench):
    """An Endpoint that speaks TLS."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        super().__init__(**limits)
        self.authority = Authority(folder)
        self.server = server_context(TlsFiles(*self.authority.issue("server")))
        self.failures: list[str] = []
        self.endpoint.use_tls(self.server, lambda peer, reason: self.failures.append(reason))

    def accept(self, room: int = 1 << 40) -> Socket:
        self.sockets.append(Socket(self, room, tls=True))
        return self.sockets[-1]

    def client(self, socket: Socket, alpn: tuple[str, ...] = ("h2",)) -> TlsClient:
        return TlsClient(socket, self.authority.client_context(alpn=alpn))

    def handshakes(self, outcome: str) -> int:
        return int(self.endpoint.snapshot()["tls_handshakes"][outcome])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[TlsBench]:
    made = TlsBench(tmp_path)
    yield made
    for socket in made.sockets:
        socket.lose()
    snapshot = made.endpoint.snapshot()
    for gauge in ("connections", "streams", "buffered_bytes", "outbound_bytes"):
        assert snapshot[gauge] == 0
    assert made.sink.live == []


def connected(bench: TlsBench, piece: int = 1 << 20, room: int = 1 << 40) -> tuple[Socket, TlsClient, Peer]:
    socket = bench.accept(room)
    client = bench.client(socket)
    client.shake_hands(piece)
    peer = Peer(client)
    peer.until_closed()
    return socket, client, peer


def called(peer: Peer, content: bytes = b"q") -> int:
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(content))
    return stream


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_handshake_in_pieces_and_a_call(bench: TlsBench, piece: int) -> None:
    socket, client, peer = connected(bench, piece)
    assert client.ssl.selected_alpn_protocol() == "h2"
    assert client.ssl.version() == "TLSv1.3"
    bench.sink.answer_submit = (OK, b"", (prefixed(b"a" * 100_000),))
    assert peer.answer(called(peer, b"q" * 300_000)).message == b"a" * 100_000
    assert bench.handshakes("done") == 1
    assert socket.connection.peer_certificate() is None


def test_records_that_come_byte_by_byte(bench: TlsBench) -> None:
    socket, client, peer = connected(bench)
    stream = peer.open(request_fields())
    client.ssl.write(peer_data(stream))
    for byte in client.outgoing.read():
        socket.sendall(bytes([byte]))
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).message == b"a"


def peer_data(stream: int) -> bytes:
    return frame(DATA, END_STREAM, stream, prefixed(b"q"))


@pytest.mark.parametrize("flights", [0, 1])
def test_half_a_handshake_is_cut_with_the_preface(bench: TlsBench, flights: int) -> None:
    socket = bench.accept()
    client = bench.client(socket)
    for _ in range(flights):
        said = client.step()
        socket.sendall(said[:-1] if flights == 0 else said)
    bench.wait(10)
    assert not socket.aborted
    bench.wait(1)
    assert socket.aborted
    assert bench.refused("preface_timeout") == 1


def test_nothing_is_said_before_the_handshake(bench: TlsBench) -> None:
    socket = bench.accept()
    assert not socket.sent
    bench.endpoint.flush_all()
    assert not socket.sent


def test_half_handshakes_count_as_connections(tmp_path: Path) -> None:
    bench = TlsBench(tmp_path, max_connections=10)
    sockets = [bench.accept() for _ in range(30)]
    assert [socket.aborted for socket in sockets] == [False] * 10 + [True] * 20
    for socket in sockets[10:]:
        socket.lose()
    bench.wait(11)
    assert bench.endpoint.snapshot()["connections"] == 0
    assert bench.refused("max_connections") == 20


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
def test_without_h2_the_connection_is_aborted(bench: TlsBench, alpn: tuple[str, ...]) -> None:
    socket = bench.accept()
    client = bench.client(socket, alpn)
    client.shake_hands()
    assert socket.aborted
    assert (bench.handshakes("not_h2"), bench.handshakes("done")) == (1, 0)
    assert bench.failures == ["the client does not offer h2 (ALPN)"]


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                  b"\x16\x03\x01\xff\xff", bytes(range(256)) * 1000])
def test_H16_what_is_no_tls(bench: TlsBench, said: bytes) -> None:
    socket = bench.accept()
    socket.sendall(said)
    assert socket.closing
    assert not socket.aborted
    assert bench.handshakes("failed") == 1
    assert len(bench.failures) == 1


def test_a_hello_that_is_malformed_is_told_with_an_alert(bench: TlsBench) -> None:
    socket = bench.accept()
    socket.sendall(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
    assert socket.sent[0] == 0x15       # an alert record


def test_a_record_that_was_changed_ends_the_connection(bench: TlsBench) -> None:
    socket, client, _ = connected(bench)
    client.ssl.write(b"x" * 50)
    record = bytearray(client.outgoing.read())
    record[-1] ^= 1
    socket.sendall(bytes(record))
    assert socket.closing
    assert bench.handshakes("failed") == 1
    assert len(bench.failures) == 1
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
        client.recv(0)


def test_F8_a_slow_reader_is_bounded(bench: TlsBench) -> None:
    socket, _, peer = connected(bench, room=100_000)
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


def test_a_reader_that_comes_back(bench: TlsBench) -> None:
    socket, client, peer = connected(bench, room=100_000)
    stream = called(peer)
    bench.sink.answer(0, segments=(bytes(5), bytes(20 << 20)))
    bench.endpoint.flush_all()
    while not peer.replies[stream].ended:
        bench.wait(25)
        peer._buffer += client.recv(0)
        socket.connection.resume_writing()
        while peer._buffer:
            peer.read()
    assert len(peer.replies[stream].body) == 5 + (20 << 20)
    assert not socket.closing


def test_our_end_says_close_notify_and_waits_for_none(bench: TlsBench) -> None:
    socket, client, _ = connected(bench)
    bench.endpoint.end_calls(b"stopping")
    assert socket.closing
    assert not socket.aborted
    # What was said is read, then a regular end: an end that was cut off would raise SSLWantReadError.
    client.incoming.write(socket.recv(0))
    assert client.ssl.read(1 << 20)
    while client.ssl.read(1 << 20):
        pass


def test_the_client_says_close_notify(bench: TlsBench) -> None:
    socket, client, _ = connected(bench)
    with pytest.raises(ssl.SSLWantReadError):
        client.ssl.unwrap()
    socket.sendall(client.outgoing.read())
    assert socket.closing
    assert not socket.aborted
    assert bench.failures == []


def test_new_connections_get_the_new_certificate(bench: TlsBench) -> None:
    _, old, peer = connected(bench)
    before = old.ssl.getpeercert(True)
    bench.endpoint.use_tls(server_context(TlsFiles(*bench.authority.issue("server"))), print)
    _, new, _ = connected(bench)
    assert new.ssl.getpeercert(True) != before
    stream = called(peer)
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).message == b"a"


def test_F35_a_drain_waits_for_no_handshake_that_stands_still(bench: TlsBench) -> None:
    socket = bench.accept()
    ended: list[bool] = []
    bench.endpoint.drain(lambda: ended.append(True))
    bench.wait(11)
    assert socket.aborted
    assert ended == [True]


def test_F35_a_handshake_that_ends_while_draining(bench: TlsBench) -> None:
    socket = bench.accept()
    bench.endpoint.drain(lambda: None)
    client = bench.client(socket)
    client.shake_hands()
    peer = Peer(client, acknowledge=False)
    peer.until_closed()
    assert peer.goaways()


def test_much_at_once_is_read_in_turns(tmp_path: Path) -> None:
    bench = TlsBench(tmp_path, max_turn_events=100, max_idle_frames=1 << 20)
    socket, client, peer = connected(bench)
    bench.steps = True
    client.sendall(frame(PRIORITY, 0, 1, bytes(5)) * 20_000)
    turns = 0
    while socket.paused:
        bench.turn()
        turns += 1
    assert turns > 1
    bench.steps = False
    stream = called(peer)
    bench.sink.answer(0, segments=(prefixed(b"a"),))
    bench.endpoint.flush_all()
    assert peer.answer(stream).code == OK
    socket.lose()
