"""Every bound of the transport, reached over a real socket by a server that has it set low."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from infer.proto import message
from tests.support.calls import SERVICE, identity_request, raw_output, slow_request, wide_request
from tests.support.command import Serving
from tests.support.h2_peer import (
    DATA,
    ENHANCE_YOUR_CALM,
    INFER_PATH,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    PRIORITY,
    WIDEST,
    ConnectionEnded,
    Peer,
    connect,
    dial,
    frame,
    prefixed,
    request_fields,
    window_update,
)
from tests.support.server import InProcess, in_process, scrape

OK, RESOURCE_EXHAUSTED = 0, 8
SHORT = 0.2


def padded(content: bytes, size: int) -> bytes:
    """The request with an unknown field that brings it to `size` bytes."""
    filling = size - len(content) - 5
    assert filling >= 0
    size_bytes = bytes([filling & 127 | 128, filling >> 7 & 127 | 128, filling >> 14])
    return content + b"\xaa\x06" + size_bytes + bytes(filling)


def serves(peer: Peer) -> bool:
    return peer.call(message=identity_request()).code == OK


@pytest.mark.parametrize("said", [b"", b"PRI", PREFACE, PREFACE[:-1]], ids=["nothing", "part", "preface", "half"])
def test_H16_no_preface_in_time(repository: Path, said: bytes):
    with in_process(repository, preface_timeout=SHORT) as server:
        with dial(server.address) as link:
            link.settimeout(10)
            link.sendall(said)
            received = b""
            with contextlib.suppress(ConnectionError):
                while part := link.recv(4096):
                    received += part
            assert len(received) < 200
        assert server.snapshot()["refused"]["preface_timeout"] == 1


def test_settings_that_are_never_acknowledged(repository: Path):
    with in_process(repository, settings_timeout=SHORT) as server:
        with server.connect(acknowledge=False) as silent, server.connect() as good:
            assert serves(good)
            silent.until_closed()
            assert serves(good)
        assert server.snapshot()["refused"]["preface_timeout"] == 1


def turned_away(server: InProcess) -> bool:
    try:
        with server.connect() as peer:
            return not serves(peer)
    except ConnectionEnded:
        return True


def test_F12_one_connection_too_many(repository: Path):
    with in_process(repository, max_connections=2) as server:
        with server.connect() as first, server.connect() as second:
            assert serves(first)
            assert serves(second)
            assert turned_away(server)
            assert serves(first)
            assert serves(second)
            assert server.snapshot()["refused"]["max_connections"] == 1
        server.settle()
        with server.connect() as again:
            assert serves(again)


def test_F13_no_file_descriptor_left(repository: Path):
    with Serving(repository) as serving, connect(serving.address) as first:
        assert serves(first)
        number = serving.process.pid
        limits = resource.prlimit(number, resource.RLIMIT_NOFILE)
        taken = len(list(Path(f"/proc/{number}/fd").iterdir()))
        resource.prlimit(number, resource.RLIMIT_NOFILE, (taken + 3, limits[1]))
        peers = []
        ended = 0
        for _ in range(10):
            try:
                peers.append(connect(serving.address))
                ended += not serves(peers[-1])
            except ConnectionEnded:
                ended += 1
        assert ended >= 7
        assert serves(first)
        for peer in peers:
            peer.close()
        resource.prlimit(number, resource.RLIMIT_NOFILE, limits)
        with connect(serving.address) as again:
            assert serves(again)
        first.close()
        assert serving.stop() == 0


def test_F8_a_window_that_is_never_opened(repository: Path):
    with in_process(repository, write_stall_timeout=SHORT) as server:
        with server.connect(wide=False, settings=[(INITIAL_WINDOW_SIZE, 0)]) as stalled, server.connect() as good:
            stream = stalled.open(request_fields())
            stalled.body(stream, prefixed(identity_request()))
            stalled.ping()
            server.until(lambda: server.server.transport.endpoint.snapshot()["outbound_bytes"] > 0)
            assert serves(good)
            stalled.until_closed()
            assert stalled.goaways()[-1].error == ENHANCE_YOUR_CALM
            assert stalled.replies[stream].body == b""
            assert serves(good)
        assert server.snapshot()["refused"]["write_stall_timeout"] == 1


def test_F8_a_window_that_is_opened_slowly_is_not_a_stall(repository: Path):
    with in_process(repository, write_stall_timeout=1.5) as server:
        with server.connect(wide=False, settings=[(INITIAL_WINDOW_SIZE, 0)]) as slow:
            stream = slow.open(request_fields())
            slow.body(stream, prefixed(identity_request()))
            size = len(prefixed(slow_reply(server)))
            for sent in range(size):
                slow.send(window_update(stream, 1))
                while len(slow.expect(stream).body) <= sent:
                    slow.read()
            assert slow.answer(stream).code == OK
        assert server.snapshot()["refused"]["write_stall_timeout"] == 0


def slow_reply(server: InProcess) -> bytes:
    with server.connect() as other:
        return other.call(message=identity_request()).message


def test_F8_a_socket_that_is_never_read(repository: Path, tmp_path: Path):
    with in_process(repository, write_stall_timeout=SHORT, outbound_bytes="64KiB", uds=tmp_path / "s") as server:
        with connect(f"unix:{tmp_path / 's'}") as stalled, server.connect() as good:
            for _ in range(4):
                stalled.body(stalled.open(request_fields()), prefixed(wide_request(bytes(1 << 20))))
            server.until(lambda: server.server.transport.endpoint.snapshot()["connections"] == 1)
            assert serves(good)
            stalled.until_closed()
            assert not all(reply.ended for reply in stalled.replies.values())
        assert server.snapshot()["refused"]["write_stall_timeout"] == 1


def test_outbound_bytes_of_a_slow_reader(repository: Path, tmp_path: Path):
    """What is handed to its socket stays at the bound, whatever waits; once it reads, all of it comes."""
    count, size = 24, 512 << 10
    with in_process(repository, outbound_bytes="64KiB", uds=tmp_path / "s") as server:
        with connect(f"unix:{tmp_path / 's'}") as peer:
            peer.ping()
            before = server.snapshot()["sent_bytes_total"]
            content = random.Random(0).randbytes(size)
            streams = []
            for _ in range(count):
                streams.append(peer.open(request_fields()))
                peer.body(streams[-1], prefixed(wide_request(content)))
            server.until(lambda: server.server.pipeline.in_flight == 0)
            snapshot = server.snapshot()
            handed = snapshot["sent_bytes_total"] - before
            assert handed < 1 << 20
            assert snapshot["outbound_bytes"] > count * size - handed - (64 << 10)
            for stream in streams:
                assert raw_output(peer.answer(stream).message) == content


def test_F16_buffered_bytes_of_a_connection(repository: Path):
    limit = 64 << 10
    content = padded(identity_request(), limit)
    with in_process(repository, max_message_bytes=limit, max_buffered_bytes=limit) as server:
        with server.connect() as peer, server.connect() as other:
            streams = [peer.open(request_fields()) for _ in range(3)]
            body = prefixed(content)
            for stream in streams[:2]:
                peer.body(stream, body[:60_000], end=False)
            peer.body(streams[2], body[:10], end=False)
            refused = peer.answer(streams[2])
            assert (refused.code, refused.trailers_only) == (RESOURCE_EXHAUSTED, True)
            assert server.snapshot()["buffered_bytes"] == 120_000
            assert serves(other)
            for stream in streams[:2]:
                peer.body(stream, body[60_000:])
                assert peer.answer(stream).code == OK
            assert serves(peer)
            assert server.snapshot()["refused"]["max_buffered_bytes"] == 1
            assert server.snapshot()["buffered_bytes"] == 0


def test_F16_buffered_bytes_of_all_connections(repository: Path):
    limit = 64 << 10
    body = prefixed(padded(identity_request(), limit))
    with in_process(repository, max_message_bytes=limit, max_buffered_bytes_total=limit) as server:
        with server.connect() as first, server.connect() as second, server.connect() as third:
            streams = {peer: peer.open(request_fields()) for peer in (first, second)}
            for peer, stream in streams.items():
                peer.body(stream, body[:60_000], end=False)
                peer.ping()
            # Those who hold the bytes are refused; who holds none is served.
            assert first.call(message=identity_request()).code == RESOURCE_EXHAUSTED
            assert second.call(message=identity_request()).code == RESOURCE_EXHAUSTED
            assert serves(third)
            for peer, stream in streams.items():
                peer.body(stream, body[60_000:])
                assert peer.answer(stream).code == OK
            assert serves(first)
            assert server.snapshot()["refused"]["max_buffered_bytes"] == 2


def test_F16_queued_messages_count(repository: Path):
    limit = 64 << 10
    with in_process(repository, max_message_bytes=limit, max_buffered_bytes=limit, executors=1) as server:
        with server.connect() as peer:
            streams = []
            for number in range(3):
                streams.append(peer.open(request_fields()))
                peer.body(streams[-1], prefixed(padded(slow_request(20_000 if number == 0 else 0), 40_000)))
            assert peer.answer(streams[2]).code == RESOURCE_EXHAUSTED
            assert not peer.replies[streams[0]].ended
            assert [peer.answer(stream).code for stream in streams[:2]] == [OK, OK]


def test_F14_a_full_queue_says_when_to_try_again(repository: Path, transport: str):
    """As a header, and as google.rpc.RetryInfo for clients that read details."""
    with in_process(repository, transport=transport, executors=1, max_queue_rows=1) as server:
        with grpc.insecure_channel(server.address) as channel:
            infer = channel.unary_unary(INFER_PATH)
            running = infer.future(slow_request(20_000), timeout=60)
            server.until(lambda: (server.server.pipeline.in_flight, server.server.pipeline.queued_requests) == (1, 0))
            queued = infer.future(slow_request(0), timeout=60)
            server.until(lambda: server.server.pipeline.queued_requests == 1)
            with pytest.raises(grpc.RpcError) as caught:
                infer(slow_request(0), timeout=60)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            pushback_ms = int(dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"])
            assert pushback_ms >= 1
            # Raises where code or message are not those of the call.
            (detail,) = rpc_status.from_call(caught.value).details
            info = RetryInfo()
            assert detail.Unpack(info)
            assert info.retry_delay.ToMilliseconds() == pushback_ms
            assert running.result()
            assert queued.result()


def test_header_bytes(repository: Path):
    with in_process(repository, header_bytes=1024) as server:
        with server.connect() as peer:
            refused = peer.call(message=identity_request(), body=None, fields=request_fields(
                "/inference.GRPCInferenceService/ModelInfer", ("key", "x" * 1000)))
            assert (refused.code, refused.trailers_only) == (RESOURCE_EXHAUSTED, True)
            assert "1024" in refused.text
            assert serves(peer)
        assert server.snapshot()["refused"]["header_bytes"] == 1


def test_max_streams_is_said_and_held(repository: Path):
    with in_process(repository, max_streams=5) as server:
        with server.connect() as peer:
            assert serves(peer)
            assert peer.peer_settings[3] == 5
            streams = [peer.open(request_fields()) for _ in range(5)]
            for stream in streams:
                peer.body(stream, prefixed(identity_request()))
            assert [peer.answer(stream).code for stream in streams] == [OK] * 5


def test_empty_frames(repository: Path):
    with in_process(repository) as server:
        with server.connect() as rude, server.connect() as good:
            stream = rude.open(request_fields())
            rude.send(frame(DATA, 0, stream, b"") * 17)
            rude.until_closed()
            assert rude.goaways()[-1].error == ENHANCE_YOUR_CALM
            assert serves(good)
        assert server.snapshot()["refused"]["max_empty_frames"] == 1


def test_message_bytes(repository: Path):
    with in_process(repository, max_message_bytes=2048) as server:
        with server.connect() as peer:
            assert peer.call(message=padded(identity_request(), 2048)).code == OK
            refused = peer.call(message=padded(identity_request(), 2049))
            assert refused.code == RESOURCE_EXHAUSTED
            assert "--max-message-bytes" in refused.text
            assert serves(peer)
        assert server.snapshot()["refused"]["max_message_bytes"] == 1


# Addresses.


def test_a_client_that_leaves_without_reading_its_reply(repository: Path, tmp_path: Path):
    """What is left to send to it is less than would pause the writing; it is cut all the same."""
    with in_process(repository, write_stall_timeout=SHORT, outbound_bytes="16MiB", uds=tmp_path / "s") as server:
        with connect(f"unix:{tmp_path / 's'}") as peer:
            stream = peer.open(request_fields())
            peer.body(stream, prefixed(wide_request(bytes(4 << 20))))
            server.until(lambda: server.server.transport.endpoint.snapshot()["outbound_bytes"] == 0
                         and server.server.pipeline.in_flight == 0)
            assert isinstance(peer.transport, socket.socket)
            peer.transport.shutdown(socket.SHUT_WR)
            server.until(lambda: server.server.transport.endpoint.snapshot()["connections"] == 0)
        assert server.snapshot()["refused"]["write_stall_timeout"] == 1


def test_unix_socket(repository: Path, tmp_path: Path):
    path = tmp_path / "infer.sock"
    with in_process(repository, uds=path) as server:
        tcp, unix = server.server.addresses
        assert unix == f"unix:{path}"
        with connect(tcp) as first, connect(unix) as second:
            assert serves(first)
            assert serves(second)
            assert second.call(SERVICE + "ServerLive").code == OK
    assert not path.exists()


def test_ipv6(repository: Path):
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error.strerror}")
    with in_process(repository, host="::1") as server:
        assert server.address.startswith("[::1]:")
        with server.connect() as peer:
            assert serves(peer)
            reply = peer.call(SERVICE + "ServerMetadata")
            assert message("inference.ServerMetadataResponse").FromString(reply.message).name == "infer"


def test_many_connections_at_once(repository: Path):
    with in_process(repository) as server:
        peers = [server.connect() for _ in range(100)]
        streams = [peer.open(request_fields()) for peer in peers]
        for peer, stream in zip(peers, streams, strict=True):
            peer.body(stream, prefixed(identity_request()))
        for peer, stream in zip(peers, streams, strict=True):
            assert peer.answer(stream).code == OK
            peer.close()


def test_connection_window(repository: Path):
    """A client that fills the connection's window is not locked up: what is buffered is consumed."""
    with in_process(repository) as server:
        with server.connect() as peer:
            streams = [peer.open(request_fields()) for _ in range(20)]
            content = bytes(1 << 20)
            for stream in streams:
                peer.body(stream, prefixed(wide_request(content))[:-4], end=False)
            peer.ping()
            assert server.snapshot()["buffered_bytes"] > 20 << 20
            for stream in streams:
                peer.body(stream, bytes(4))
            for stream in streams:
                assert peer.answer(stream).code == OK
            assert peer.window <= WIDEST


def test_max_turn_events(repository: Path):
    with in_process(repository, max_turn_events=20, max_idle_frames=10_000) as server:
        with server.connect() as busy, server.connect() as good:
            assert serves(busy)
            busy.send(frame(PRIORITY, 0, 1, bytes(5)) * 3000)
            assert serves(good)
            assert serves(busy)
            assert server.snapshot()["turns_ended_total"] > 0
            assert sum(server.snapshot()["refused"].values()) == 0
        assert scrape(server.http_address)["infer_turns_ended_total", frozenset()] > 0
