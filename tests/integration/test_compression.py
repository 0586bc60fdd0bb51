"""Compressed messages with clients of the field over real sockets, and what large ones do beside the loop."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from infer.client.messages import decode_reply, encode_request
from tests.support.calls import wide_request
from tests.support.h2_peer import CANCEL, INFER_PATH, RST_STREAM, frame, prefixed, request_fields
from tests.support.server import InProcess, in_process

METADATA = "/inference.GRPCInferenceService/ModelMetadata"
COMPRESSIONS = pytest.mark.parametrize(
    "compression", [grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression])


@pytest.fixture(scope="module", params=["none", "gzip", "deflate", "auto"])
def coding(request: pytest.FixtureRequest, repository: Path) -> Iterator[InProcess]:
    with in_process(repository, reply_compression=request.param) as made:
        yield made


@COMPRESSIONS
@pytest.mark.parametrize("columns", [4, 3_000, 400_000])
def test_grpcio(coding: InProcess, compression: Any, columns: int) -> None:
    rows = (np.arange(columns, dtype=np.float32) % 100)[None]
    request = encode_request("wide", {"x": rows})
    with grpc.insecure_channel(coding.address, [("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_unary(INFER_PATH)
        for _ in range(3):
            result = decode_reply(call(request, compression=compression, timeout=20))
            assert (result["y"] == rows).all()
    coding.settle()


@COMPRESSIONS
def test_a_cold_call(coding: InProcess, compression: Any) -> None:
    with grpc.insecure_channel(coding.address) as channel:
        reply = channel.unary_unary(METADATA)(b"\n\4wide", compression=compression, timeout=20)
    assert b"wide" in reply
    coding.settle()


@pytest.mark.parametrize("setting", ["none", "gzip", "deflate", "auto"])
def test_what_the_reply_is_compressed_with(repository: Path, setting: str) -> None:
    content = bytes(100_000)
    accepts = ("grpc-accept-encoding", "identity,deflate,gzip")
    with in_process(repository, reply_compression=setting) as server, server.connect() as peer:
        reply = peer.call(INFER_PATH, None, ("grpc-encoding", "deflate"), accepts,
                          body=prefixed(zlib.compress(wide_request(content)), flag=1))
        assert reply.code == 0
        expected = {"none": None, "gzip": "gzip", "deflate": "deflate", "auto": "deflate"}[setting]
        assert reply.fields.get("grpc-encoding") == expected
        unpack = {None: bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}[expected]
        assert reply.body[0] == (expected is not None)
        assert unpack(reply.body[5:]).endswith(content)
        if expected is not None:
            assert len(reply.body) < 2000
            plain = peer.call(message=wide_request(content))
            assert plain.message.endswith(content)


def test_calls_that_are_cancelled_while_a_worker_inflates(repository: Path) -> None:
    """Whenever the cancel comes, nothing is left: `in_process` and debug builds assert it."""
    body = prefixed(gzip.compress(wide_request(bytes(8 << 20))), flag=1)
    with in_process(repository, reply_compression="gzip") as server:
        with server.connect() as peer:
            for cancelled in (True, False):
                for _ in range(5):
                    stream = peer.open(request_fields(INFER_PATH, ("grpc-encoding", "gzip"),
                                                      ("grpc-accept-encoding", "gzip")))
                    peer.body(stream, body)
                    if cancelled:
                        peer.send(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
                    else:
                        assert peer.answer(stream).code == 0
            peer.ping()
        server.until(lambda: server.server.transport.endpoint.snapshot()["coding_jobs"] == 0)


def test_a_connection_that_goes_while_a_worker_inflates(repository: Path) -> None:
    body = prefixed(gzip.compress(wide_request(bytes(8 << 20))), flag=1)
    with in_process(repository) as server:
        for _ in range(3):
            with server.connect() as peer:
                for _ in range(3):
                    peer.body(peer.open(request_fields(INFER_PATH, ("grpc-encoding", "gzip"))), body)
                peer.ping()
        server.until(lambda: server.server.transport.endpoint.snapshot()["coding_jobs"] == 0)


def test_the_loop_serves_while_workers_inflate(repository: Path) -> None:
    body = prefixed(gzip.compress(wide_request(bytes(30 << 20))), flag=1)
    coding = (("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip"))
    with in_process(repository, reply_compression="gzip") as server:
        with server.connect() as heavy, server.connect() as light:
            streams = [heavy.open(request_fields(INFER_PATH, *coding)) for _ in range(3)]
            for stream in streams:
                heavy.body(stream, body)
            for _ in range(20):
                assert light.call(message=wide_request(bytes(4))).code == 0
            for stream in streams:
                assert gzip.decompress(heavy.answer(stream).body[5:]).endswith(bytes(30 << 20))
