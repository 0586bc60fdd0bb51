"""SIGTERM over the wire: unready, GOAWAY, the calls under way, the end."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import pytest

from infer.proto import message
from tests.support.calls import identity_request, raw_output, slow_request
from tests.support.command import Serving, run
from tests.support.h2_peer import (
    ACK,
    DATA,
    GOAWAY,
    NO_ERROR,
    PING,
    PREFACE,
    WIDEST,
    ConnectionEnded,
    Peer,
    connect,
    dial,
    frame,
    prefixed,
    request_fields,
)
from tests.support.requests import pack
from tests.support.server import fetch
from tests.support.transports import GRPCIO

OK, CANCELLED, UNAVAILABLE = 0, 1, 14
DRAINED, CUT = 0, 1
BUSY = 20_000


def served(repository: Path, transport: str, *more: str) -> Serving:
    return Serving(repository, "--transport", transport, *more)


def busy(peer: Peer, steps: int = BUSY) -> int:
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(slow_request(steps)))
    peer.ping()
    return stream


def test_F35_drain_on_the_wire(repository: Path, transport: str):
    with served(repository, transport) as serving, connect(serving.address) as peer, connect(serving.address) as idle:
        idle.ping()
        stream = busy(peer)
        serving.process.send_signal(signal.SIGTERM)
        while not peer.goaways():
            peer.read()
        assert fetch(serving.http, "/v2/health/ready")[0] == 503
        assert fetch(serving.http, "/v2/health/live")[0] == 200
        reply = peer.answer(stream)
        assert raw_output(reply.message) == pack("INT64", [BUSY])
        first, second = [each for each in peer.until_closed() if each.kind == GOAWAY]
        assert (first.last_stream, first.error) == (WIDEST, NO_ERROR)
        assert (second.last_stream, second.error) == (stream, NO_ERROR)
        pings = sum(each.kind == PING and not each.flags & ACK for each in peer.others)
        # grpcio measures the connection with others.
        assert pings == 1 or (transport == GRPCIO and pings > 1)
        assert [each.last_stream for each in idle.until_closed() if each.kind == GOAWAY] == [WIDEST, 0]
        with pytest.raises(ConnectionRefusedError):
            dial(serving.address)
        assert serving.wait() == DRAINED


def call_until_goodbye(address: str, answered: list[int], lost: list[str]) -> None:
    """Calls one after the other until the server says goodbye; what it took on it must have answered."""
    with connect(address) as peer:
        stream = 0
        try:
            while not peer.goaways():
                stream = peer.next_stream
                reply = peer.call(message=identity_request())
                answered.append(reply.code)
            peer.until_closed()
        except ConnectionEnded:
            taken = peer.goaways()[-1].last_stream if peer.goaways() else WIDEST
            if stream <= taken:
                lost.append(f"stream {stream} was taken and not answered, the last one is {taken}")


def test_F35_drain_under_load_loses_nothing(repository: Path, transport: str):
    answered: list[int] = []
    lost: list[str] = []
    with served(repository, transport) as serving:
        threads = [threading.Thread(target=call_until_goodbye, args=(serving.address, answered, lost))
                   for _ in range(8)]
        for thread in threads:
            thread.start()
        with connect(serving.address) as peer:
            for _ in range(50):
                assert peer.call(message=identity_request()).code == OK
        assert serving.stop() == DRAINED
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert lost == []
    assert len(answered) > 50
    assert set(answered) == {OK}


def test_F36_second_signal(repository: Path, transport: str):
    with served(repository, transport) as serving, connect(serving.address) as peer:
        stream = busy(peer, 60_000)
        serving.process.send_signal(signal.SIGTERM)
        while len(peer.goaways()) < 2:
            peer.read()
        assert not peer.replies[stream].ended
        serving.process.send_signal(signal.SIGTERM)
        reply = peer.answer(stream)
        assert (reply.code, reply.trailers_only) == (UNAVAILABLE, True)
        peer.until_closed()
        assert serving.wait() == CUT


def test_F36_drain_timeout(repository: Path, transport: str):
    with served(repository, transport, "--drain-timeout", "0.2") as serving, connect(serving.address) as peer:
        stream = busy(peer, 60_000)
        uploading = peer.open(request_fields())
        peer.body(uploading, b"\0\0", end=False)
        serving.process.send_signal(signal.SIGTERM)
        for each in (stream, uploading):
            reply = peer.answer(each)
            if (transport, each) == (GRPCIO, uploading):
                # What grpcio has not handed over it ends by itself.
                assert reply.code in (CANCELLED, UNAVAILABLE)
                continue
            assert (reply.code, reply.trailers_only) == (UNAVAILABLE, True)
            assert "another replica" in reply.text
        peer.until_closed()
        assert serving.wait() == CUT


def test_F35_a_silent_client_without_calls_is_no_failure(repository: Path, transport: str):
    with served(repository, transport, "--drain-timeout", "0.3") as serving, connect(serving.address) as peer:
        peer.ping()
        peer.acknowledge = False
        assert serving.stop() == DRAINED


def test_F35_a_stream_that_waits_for_its_client(repository: Path, transport: str):
    """Reflection of a client that asks no more does not hold the drain up."""
    with served(repository, transport) as serving, connect(serving.address) as peer:
        stream = peer.open(request_fields("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"))
        peer.send(frame(DATA, 0, stream, prefixed(message("grpc.reflection.v1.ServerReflectionRequest")(
            list_services="").SerializeToString())))
        while not peer.replies[stream].body:
            peer.read()
        serving.process.send_signal(signal.SIGTERM)
        assert peer.answer(stream).code == UNAVAILABLE
        peer.until_closed()
        assert serving.wait() == DRAINED


def test_F35_a_client_that_has_only_connected(repository: Path, transport: str):
    with served(repository, transport, "--drain-timeout", "0.3") as serving, dial(serving.address) as link:
        link.sendall(PREFACE)
        assert serving.stop() == DRAINED


def test_F53_a_port_that_is_taken(repository: Path, transport: str):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        ended = run("serve", repository, "--transport", transport, "--host", "127.0.0.1", "--port", port,
                    "--http-port", 0)
    assert ended.returncode == 1
    line, = ended.stderr.strip().splitlines()
    assert str(port) in line
