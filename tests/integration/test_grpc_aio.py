"""What the portable transport does with settings, sockets and streams; calls are in the tests of both transports."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from infer.proto import message
from tests.support.calls import HEALTH_CHECK, SERVICE, identity_request, slow_request, wide_request
from tests.support.command import Serving
from tests.support.h2_peer import INFER_PATH, connect, request_fields
from tests.support.server import InProcess, in_process, scrape
from tests.support.transports import GRPCIO

STREAM_PATH = SERVICE + "ModelStreamInfer"
OK, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = 0, 3, 5, 8, 12, 14
BUSY = 20_000


@pytest.fixture(scope="module")
def portable(repository: Path) -> Iterator[InProcess]:
    with in_process(repository, executors=1, transport=GRPCIO) as served:
        yield served


@pytest.fixture
def channel(portable: InProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(portable.address) as connected:
        yield connected
    portable.settle()


def padded(content: bytes, size: int) -> bytes:
    """The request with an unknown field behind it, `size` bytes together."""
    rest = size - len(content) - 4
    return content + b"\xaa\x06" + bytes([rest & 127 | 128, rest >> 7]) + bytes(rest)


# Settings.


def test_message_bytes(repository: Path) -> None:
    with in_process(repository, transport=GRPCIO, max_message_bytes=2048) as server, server.connect() as peer:
        assert peer.call(message=padded(identity_request(), 2048)).code == OK
        assert peer.call(message=padded(identity_request(), 2049)).code == RESOURCE_EXHAUSTED
        assert peer.call(message=identity_request()).code == OK


def test_header_bytes(repository: Path) -> None:
    with in_process(repository, transport=GRPCIO, header_bytes=1024) as server, server.connect() as peer:
        # It holds to the limit once the client has acknowledged it.
        assert peer.call(message=identity_request()).code == OK
        refused = peer.call(message=identity_request(), fields=request_fields(INFER_PATH, ("key", "v" * 1024)))
        assert refused.code == RESOURCE_EXHAUSTED
        assert peer.call(message=identity_request()).code == OK


def test_streams(repository: Path) -> None:
    max_concurrent_streams = 3
    with in_process(repository, transport=GRPCIO, max_streams=5) as server, server.connect() as peer:
        assert peer.call(message=identity_request()).code == OK
        assert peer.peer_settings[max_concurrent_streams] == 5


def test_buffered_bytes_of_all_calls(repository: Path) -> None:
    size = 1 << 16
    limits = {"max_message_bytes": size, "max_buffered_bytes": size, "max_buffered_bytes_total": size, "executors": 1}
    with in_process(repository, transport=GRPCIO, **limits) as server:
        with grpc.insecure_channel(server.address) as channel:
            infer = channel.unary_unary(INFER_PATH)
            running = infer.future(slow_request(BUSY), timeout=60)
            server.until(lambda: server.server.pipeline.in_flight == 1)
            assert server.snapshot()["buffered_bytes"] == len(slow_request(BUSY))
            with pytest.raises(grpc.RpcError) as caught:
                infer(wide_request(bytes(size - 48)), timeout=60)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
            assert "buffered" in caught.value.details()  # type: ignore[attr-defined]
            assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "100"  # type: ignore[attr-defined]
            assert server.snapshot()["refused"]["max_buffered_bytes_total"] == 1
            assert running.result()
            assert infer(wide_request(bytes(size - 48)), timeout=60)


def test_flags_that_it_does_not_heed_are_named(repository: Path) -> None:
    flags = ("--transport", GRPCIO, "--max-connections", "5", "--outbound-bytes", "1MiB", "--log-format", "text")
    with Serving(repository, *flags) as serving:
        warning = serving.wait_for(r"does not heed (.*)")[1]
        assert "--outbound-bytes, --max-connections" in warning
        assert "transport  grpcio" in serving.start
        assert serving.stop() == 0


def test_unix_socket(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "infer.sock"
    with in_process(repository, transport=GRPCIO, uds=path) as server:
        tcp, unix = server.server.addresses
        assert unix == f"unix:{path}"
        with connect(tcp) as first, connect(unix) as second:
            assert first.call(message=identity_request()).code == OK
            assert second.call(message=identity_request()).code == OK
    assert not path.exists()


def test_ipv6(repository: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error.strerror}")
    with in_process(repository, transport=GRPCIO, host="::1") as server, server.connect() as peer:
        assert server.address.startswith("[::1]:")
        assert peer.call(message=identity_request()).code == OK


def test_its_port_is_its_own(portable: InProcess) -> None:
    port = int(portable.address.rpartition(":")[2])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_metrics_that_it_cannot_fill_are_absent(portable: InProcess) -> None:
    names = {name for name, _ in scrape(portable.http_address)}
    assert not {"infer_connections", "infer_streams", "infer_outbound_bytes"} & names
    assert {"infer_requests_in_flight", "infer_buffered_bytes", "infer_requests_total"} <= names


# Streams.


def replies(channel: grpc.Channel, requests: list[bytes], **options: Any) -> Any:
    reply = message("inference.ModelStreamInferResponse")
    call = channel.stream_stream(STREAM_PATH, response_deserializer=reply.FromString)
    return call(iter(requests), timeout=60, **options)


def named(content: bytes, identity: str) -> bytes:
    return content + b"\x1a" + bytes([len(identity)]) + identity.encode()


def test_a_stream_answers_in_order(channel: grpc.Channel) -> None:
    # More than may be under way at once.
    requests = [named(identity_request([number, 0, 0, 0]), str(number)) for number in range(200)]
    got = list(replies(channel, requests))
    assert [reply.infer_response.id for reply in got] == [str(number) for number in range(200)]
    assert {reply.error_message for reply in got} == {""}


def test_so_many_of_a_stream_are_under_way(portable: InProcess, channel: grpc.Channel) -> None:
    held = portable.snapshot()["streams_held_total"]
    running = channel.unary_unary(INFER_PATH).future(slow_request(BUSY), timeout=60)
    portable.until(lambda: (portable.server.pipeline.in_flight, portable.server.pipeline.queued_requests) == (1, 0))
    got = replies(channel, [slow_request(0)] * 100)
    portable.until(lambda: portable.server.pipeline.queued_requests == 64)
    assert running.result()
    assert len(list(got)) == 100
    assert portable.snapshot()["streams_held_total"] > held


def test_errors_of_a_stream_travel_in_messages(channel: grpc.Channel) -> None:
    good = named(identity_request(), "good")
    bad = named(identity_request(model="nope"), "bad")
    first, second, third, last = replies(channel, [good, bad, b"\xff", good])
    assert (first.infer_response.id, first.error_message) == ("good", "")
    assert second.infer_response.id == "bad"
    assert "nope" in second.error_message
    assert (third.infer_response.id, bool(third.error_message)) == ("", True)
    assert last.infer_response.id == "good"


def test_a_stream_that_wants_real_statuses(channel: grpc.Channel) -> None:
    got = replies(channel, [identity_request(), identity_request(model="nope"), identity_request()],
                  metadata=[("triton_grpc_error", "true")])
    assert next(got).infer_response.model_name == "identity"
    with pytest.raises(grpc.RpcError) as caught:
        next(got)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]


def test_a_stream_that_is_cancelled_takes_its_requests_with_it(portable: InProcess, channel: grpc.Channel) -> None:
    running = channel.unary_unary(INFER_PATH).future(slow_request(BUSY), timeout=60)
    portable.until(lambda: (portable.server.pipeline.in_flight, portable.server.pipeline.queued_requests) == (1, 0))
    got = replies(channel, [slow_request(0)] * 5)
    portable.until(lambda: portable.server.pipeline.queued_requests == 5)
    got.cancel()
    portable.until(lambda: portable.server.pipeline.queued_requests == 0)
    assert running.result()


def test_the_final_reply_is_marked_where_that_is_asked_for(channel: grpc.Channel) -> None:
    request = message("inference.ModelInferRequest").FromString(identity_request())
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    marked, plain = replies(channel, [request.SerializeToString(), identity_request()])
    assert marked.infer_response.parameters["triton_final_response"].bool_param
    assert not plain.infer_response.parameters


def test_health_watch_and_reflection(channel: grpc.Channel) -> None:
    request = message("grpc.health.v1.HealthCheckRequest")(service="identity").SerializeToString()
    watch = channel.unary_stream(HEALTH_CHECK.replace("Check", "Watch"))(request, timeout=60)
    assert message("grpc.health.v1.HealthCheckResponse").FromString(next(watch)).status == 1
    watch.cancel()
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    asked = message("grpc.reflection.v1.ServerReflectionRequest")(list_services="").SerializeToString()
    (reply,) = channel.stream_stream(path)(iter([asked]), timeout=60)
    listed = message("grpc.reflection.v1.ServerReflectionResponse").FromString(reply).list_services_response.service
    assert "inference.GRPCInferenceService" in [each.name for each in listed]
