"""Bad input over the real wire: a test for each row of the table, its number in the name.

Whatever is refused is Trailers-Only, says what was wrong in at most 1 KiB, and leaves the connection as good as it was.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
import pytest

from infer.proto import message
from tests.bad_input.conftest import MAX_MESSAGE_BYTES, MAX_ROWS
from tests.support.h2_peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    INFER_PATH,
    NO_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    Peer,
    Reply,
    dial,
    frame,
    prefixed,
    request_fields,
)
from tests.support.requests import add_raw, add_typed, infer_request, pack
from tests.support.server import InProcess
from tests.support.transports import GRPCIO

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 0, 3, 4, 5, 8
UNIMPLEMENTED, INTERNAL = 12, 13
ROW = pack("FP32", [1, 2, 3, 4])
SERVICE = "/inference.GRPCInferenceService/"


def good(model: str = "identity", raw: bytes = ROW) -> Any:
    request = infer_request(model)
    add_raw(request, "x", "FP32", [1, 4], raw)
    return request


GOOD = good().SerializeToString()


def raw(model: str, data_type: str, shape: Sequence[int], data: bytes, name: str = "x") -> Any:
    request = infer_request(model)
    add_raw(request, name, data_type, shape, data)
    return request


def typed(model: str, data_type: str, shape: Sequence[int], values: Sequence[Any]) -> Any:
    request = infer_request(model)
    add_typed(request, "x", data_type, shape, values)
    return request


def changed(change: Callable[[Any], Any], request: Any = None) -> Any:
    request = good() if request is None else request
    change(request)
    return request


def pair(z: bool = True, z_raw: bool = True) -> Any:
    request = infer_request("pair")
    add_raw(request, "x", "INT64", [1, 4], bytes(32))
    if z:
        request.inputs.add(name="z", datatype="INT32", shape=[1, 4])
    if z_raw:
        request.raw_input_contents.append(bytes(16))
    return request


def two_fields() -> Any:
    request = typed("identity", "FP32", [1, 4], [1, 2, 3, 4])
    request.inputs[0].contents.int_contents.append(1)
    return request


def mixed() -> Any:
    request = typed("identity", "FP32", [1, 4], [1, 2, 3, 4])
    request.raw_input_contents.append(ROW)
    return request


def wrong_field() -> Any:
    request = infer_request("identity")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.int_contents.extend([1, 2, 3, 4])
    return request


def parameter(where: str = "request", key: str = "key", **value: Any) -> Any:
    request = good()
    holder = {"request": request, "input": request.inputs[0]}[where]
    for field, content in value.items():
        setattr(holder.parameters[key], field, content)
    return request


def texts(data: bytes, shape: Sequence[int] = (1, 2)) -> Any:
    return raw("texts", "BYTES", shape, data)


def length(count: int) -> bytes:
    return struct.pack("<I", count)


def groups(depth: int) -> bytes:
    """Unknown groups of field 100, one inside the other."""
    return b"\xa3\x06" * depth + b"\xa4\x06" * depth


class Row(NamedTuple):
    number: str
    what: str
    request: Any
    code: int
    parts: tuple[str, ...] = ()

    @property
    def content(self) -> bytes:
        content: bytes = self.request if isinstance(self.request, bytes) else self.request.SerializeToString()
        return content


X = ("identity", "'x'")
ROWS = [
    Row("B1", "unknown model", good("nope"), NOT_FOUND, ("nope",)),
    Row("B1", "empty name", good(""), NOT_FOUND),
    Row("B2", "traversal", good("../../etc"), INVALID_ARGUMENT, ("model name",)),
    Row("B2", "NUL", good("a\0b"), INVALID_ARGUMENT, ("a\\x00b",)),
    Row("B2", "10 KB", good("n" * 10240), INVALID_ARGUMENT, ("128",)),
    Row("B3", "version 99", changed(lambda r: setattr(r, "model_version", "99")), NOT_FOUND, ("identity", "99")),
    *(Row("B4", f"version {version[:4]}", changed(lambda r, v=version: setattr(r, "model_version", v)),
          INVALID_ARGUMENT, ("identity", "version")) for version in ("-1", "1" * 40, "01", "a b")),
    Row("B4", "label that nobody set", changed(lambda r: setattr(r, "model_version", "abc")), NOT_FOUND,
        ("identity", "label 'abc'")),
    Row("B5", "no inputs", infer_request("identity"), INVALID_ARGUMENT, X),
    Row("B5", "one missing", pair(z=False, z_raw=False), INVALID_ARGUMENT, ("pair", "'z'")),
    Row("B6", "wrong name", raw("identity", "FP32", [1, 4], ROW, "nope"), INVALID_ARGUMENT, ("identity", "nope", "x")),
    Row("B6", "one too many", changed(lambda r: add_raw(r, "more", "FP32", [1, 4], ROW)), INVALID_ARGUMENT, ("more",)),
    Row("B7", "twice", changed(lambda r: add_raw(r, "x", "FP32", [1, 4], ROW)), INVALID_ARGUMENT, X),
    *(Row("B8", f"datatype {name or 'empty'}", raw("identity", name, [1, 4], ROW), INVALID_ARGUMENT, (*X, "FP32"))
      for name in ("INT32", "FP128", "", "fp32")),
    Row("B9", "wrong dim", raw("identity", "FP32", [1, 5], bytes(20)), INVALID_ARGUMENT, (*X, "[-1,4]", "[1,5]")),
    Row("B9", "wrong rank", raw("identity", "FP32", [4], ROW), INVALID_ARGUMENT, (*X, "[-1,4]", "[4]")),
    Row("B9", "empty shape", raw("identity", "FP32", [], ROW[:4]), INVALID_ARGUMENT, (*X, "[-1,4]")),
    Row("B10", "negative rows", raw("identity", "FP32", [-1, 4], ROW), INVALID_ARGUMENT, (*X, "-1")),
    Row("B10", "negative dim", raw("identity", "FP32", [1, -4], ROW), INVALID_ARGUMENT, (*X, "-4")),
    Row("B11", "no rows", raw("identity", "FP32", [0, 4], b""), INVALID_ARGUMENT, X),
    Row("B12", "too many rows", raw("identity", "FP32", [MAX_ROWS + 1, 4], ROW * (MAX_ROWS + 1)), INVALID_ARGUMENT,
        ("identity", str(MAX_ROWS), str(MAX_ROWS + 1))),
    Row("B13", "2^62 rows", raw("identity", "FP32", [1 << 62, 4], ROW), INVALID_ARGUMENT, X),
    Row("B14", "2^64 elements", raw("identity", "FP32", [1 << 32, 1 << 32], ROW), INVALID_ARGUMENT, X),
    Row("B14", "1000 dims", raw("identity", "FP32", [1] * 1000, ROW[:4]), INVALID_ARGUMENT, ("identity",)),
    *(Row("B15", f"{len(data)} bytes", good(raw=data), INVALID_ARGUMENT, (*X, "16", str(len(data))))
      for data in (ROW[:15], ROW + b"\0", b"")),
    Row("B16", "more raw than inputs", changed(lambda r: r.raw_input_contents.append(ROW)), INVALID_ARGUMENT, ("raw",)),
    Row("B17", "fewer raw than inputs", pair(z_raw=False), INVALID_ARGUMENT, ("pair",)),
    Row("B17", "no raw", changed(lambda r: r.ClearField("raw_input_contents")), INVALID_ARGUMENT, ("identity",)),
    Row("B18", "raw and typed", mixed(), INVALID_ARGUMENT, ("raw_input_contents",)),
    Row("B19", "wrong field", wrong_field(), INVALID_ARGUMENT, (*X, "fp32_contents")),
    Row("B19", "two fields", two_fields(), INVALID_ARGUMENT, X),
    Row("B19", "wrong count", typed("identity", "FP32", [1, 4], [1, 2, 3]), INVALID_ARGUMENT, (*X, "4", "3")),
    Row("B20", "typed FP16", changed(lambda r: r.inputs[0].contents.fp32_contents.extend([1] * 4), changed(
        lambda r: r.inputs.add(name="x", datatype="FP16", shape=[1, 4]), infer_request("fp16"))), INVALID_ARGUMENT,
        ("fp16", "FP16", "raw")),
    Row("B21", "INT8 300", typed("int8", "INT8", [1, 4], [1, 2, 3, 300]), INVALID_ARGUMENT, ("int8", "300")),
    Row("B21", "UINT8 256", typed("uint8", "UINT8", [1, 4], [1, 2, 3, 256]), INVALID_ARGUMENT, ("uint8", "256")),
    Row("B21", "BOOL 2", raw("bool", "BOOL", [1, 4], b"\0\1\2\1"), INVALID_ARGUMENT, ("bool", "2")),
    Row("B22", "unknown output", changed(lambda r: r.outputs.add(name="nope")), INVALID_ARGUMENT, ("identity", "nope")),
    Row("B23", "output twice", changed(lambda r: (r.outputs.add(name="y"), r.outputs.add(name="y"))), INVALID_ARGUMENT,
        ("identity", "'y'")),
    Row("B24", "length cut short", texts(length(1) + b"a" + b"\1\0\0"), INVALID_ARGUMENT, ("texts",)),
    Row("B25", "length past the end", texts(length(1) + b"a" + length(9) + b"b"), INVALID_ARGUMENT, ("texts",)),
    Row("B25", "length 2^32 - 1", texts(length(1) + b"a" + length(0xFFFFFFFF)), INVALID_ARGUMENT, ("texts",)),
    Row("B26", "too few elements", texts(length(1) + b"a"), INVALID_ARGUMENT, ("texts",)),
    Row("B26", "too many elements", texts(pack("BYTES", [b"a", b"b", b"c"])), INVALID_ARGUMENT, ("texts",)),
    Row("B28", "timeout as text", parameter(key="timeout", string_param="5"), INVALID_ARGUMENT, ("timeout",)),
    Row("B28", "priority -1", parameter(key="priority", int64_param=-1), INVALID_ARGUMENT, ("priority",)),
    Row("B30", "shared memory", parameter("input", "shared_memory_region", string_param="region"), UNIMPLEMENTED,
        ("shared",)),
    Row("B31", "id of 100 KB", changed(lambda r: setattr(r, "id", "i" * 100_000)), INVALID_ARGUMENT, ("id", "1024")),
    Row("B33", "garbage", b"\xff" * 64, INTERNAL),
    Row("B33", "cut short", GOOD[:-3], INTERNAL),
    Row("B34", "UTF-8 of the name", b"\x0a\x02\xff\xfe", INTERNAL),
    Row("B34", "UTF-8 of the id", GOOD + b"\x1a\x02\xc3\x28", INTERNAL),
    Row("B36", "200 nested groups", GOOD + groups(200), INTERNAL),
    Row("B36", "varint of 11 bytes", GOOD + b"\xa0\x06" + b"\x80" * 10 + b"\x01", INTERNAL),
    Row("B36", "field 0", GOOD + b"\x00\x01", INTERNAL),
    Row("B36", "reserved wire type", GOOD + b"\x0e\x01", INTERNAL),
    Row("B38", "no bytes", b"", NOT_FOUND),
]

FINE = [
    Row("B27", "NUL, not UTF-8, empty", texts(pack("BYTES", [b"a\0b", b"\xff\xfe"])), OK),
    Row("B27", "empty", texts(pack("BYTES", [b"", b""])), OK),
    Row("B29", "unknown parameter", parameter(string_param="value"), OK),
    Row("B29", "sequence_id", parameter(key="sequence_id", int64_param=7), OK),
    Row("B32", "NaN and Inf", good(raw=pack("FP32", [math.nan, math.inf, -math.inf, 0])), OK),
    Row("B35", "unknown fields", GOOD + b"\xa0\x06\x01\xaa\x06\x03abc" + groups(3), OK),
    Row("B36", "wire type of an unknown field", b"\x08\x01" + GOOD, OK),
    Row("B37", "the last name counts", b"\x0a\x04nope" + GOOD, OK),
]


def name_of(row: Row) -> str:
    return f"{row.number} {row.what}".replace(" ", "_")


def assert_told(text: str, encoded: str, parts: Sequence[str] = ()) -> None:
    """A status text for a caller: short, printable, without paths or internals."""
    assert text
    assert len(encoded) <= 1024
    assert encoded.isascii()
    assert encoded.isprintable()
    assert text.isprintable()
    for part in parts:
        assert part in text
    for inner in ("/tmp", "/home", "site-packages", ".py", "0x", "Traceback", "onnxruntime", "nghttp2"):
        assert inner not in text


def assert_refused(reply: Reply, code: int, parts: Sequence[str] = (), http_status: int = 200) -> None:
    assert (reply.http_status, reply.code) == (http_status, code), reply.text
    assert reply.trailers_only
    assert reply.reset in (None, NO_ERROR)
    assert_told(reply.text, reply.raw_text, parts)


def assert_serves(peer: Peer) -> None:
    """The same connection answers a good request."""
    reply = peer.call(message=GOOD)
    assert (reply.code, reply.http_status, reply.reset) == (OK, 200, None)
    response = message("inference.ModelInferResponse").FromString(reply.message)
    assert list(response.raw_output_contents) == [ROW]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_wire(peer: Peer, row: Row):
    assert_refused(peer.call(message=row.content), row.code, row.parts)
    assert_serves(peer)


@pytest.mark.parametrize("row", FINE, ids=name_of)
def test_wire_accepts(peer: Peer, row: Row):
    reply = peer.call(message=row.content)
    assert (reply.code, reply.text) == (OK, "")
    response = message("inference.ModelInferResponse").FromString(reply.message)
    request = message("inference.ModelInferRequest").FromString(row.content)
    assert list(response.raw_output_contents) == list(request.raw_input_contents)


def test_the_whole_table_by_grpcio(channel: grpc.Channel):
    """What a real client makes of each row: the same code, and the text whole."""
    infer = channel.unary_unary(INFER_PATH)
    for row in ROWS:
        with pytest.raises(grpc.RpcError) as caught:
            infer(row.content, timeout=20)
        assert caught.value.code().value[0] == row.code, row  # type: ignore[attr-defined]
        details = caught.value.details()  # type: ignore[attr-defined]
        assert_told(details, "x", row.parts)
    for row in FINE:
        assert infer(row.content, timeout=20)


# Bodies that are not one message.


class Body(NamedTuple):
    what: str
    body: bytes
    code: int
    parts: tuple[str, ...]


BODIES = [
    Body("B39 one byte over the limit", prefixed(bytes(MAX_MESSAGE_BYTES + 1)), RESOURCE_EXHAUSTED,
         (str(MAX_MESSAGE_BYTES + 1), str(MAX_MESSAGE_BYTES), "--max-message-bytes")),
    Body("B41 no message", b"", UNIMPLEMENTED, ("exactly one message",)),
    Body("B42 two messages", prefixed(GOOD) + prefixed(GOOD), UNIMPLEMENTED, ("exactly one message",)),
    Body("B42 a message and one byte", prefixed(GOOD) + b"\0", UNIMPLEMENTED, ("exactly one message",)),
    Body("B43 prefix cut short", b"\0\0\0", INTERNAL, ("prefix",)),
    Body("B43 message cut short", prefixed(GOOD)[:-1], INTERNAL, (str(len(GOOD)), str(len(GOOD) - 1))),
    Body("B44 compressed flag of 2", prefixed(GOOD, flag=2), INTERNAL, ("flag", "2")),
    Body("C1 compressed flag without an encoding", prefixed(GOOD, flag=1), INTERNAL, ("flag", "1")),
]


@pytest.mark.parametrize("path", [INFER_PATH, SERVICE + "ServerLive"], ids=["hot", "cold"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.what.replace(" ", "_"))
def test_wire_body(peer: Peer, body: Body, path: str):
    assert_refused(peer.call(path, body=body.body), body.code, body.parts)
    assert_serves(peer)


def test_B39_the_limit_itself_is_accepted(peer: Peer):
    padding = MAX_MESSAGE_BYTES - len(GOOD) - 5
    size = bytes([padding & 127 | 128, padding >> 7 & 127 | 128, padding >> 14])
    content = GOOD + b"\xaa\x06" + size + bytes(padding)
    assert len(content) == MAX_MESSAGE_BYTES
    assert peer.call(message=content).code == OK


@pytest.mark.parametrize("announced", [(1 << 32) - 1, 5_000_000])
def test_B40_an_announcement_over_the_limit_is_refused_at_once(peer: Peer, announced: int):
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(b"stall", announced=announced), end=False)
    assert_refused(peer.answer(stream), RESOURCE_EXHAUSTED, (str(announced), "--max-message-bytes"))
    peer.ping()
    assert peer.replies[stream].reset == NO_ERROR
    assert_serves(peer)


def test_B41_no_message_and_no_data_frame(peer: Peer):
    assert_refused(peer.call(message=None), UNIMPLEMENTED)
    assert_serves(peer)


def test_C1_compressed_flag_with_identity(peer: Peer):
    reply = peer.call(INFER_PATH, None, ("grpc-encoding", "identity"), body=prefixed(GOOD, flag=1))
    assert_refused(reply, INTERNAL, ("flag",))
    assert_serves(peer)


@pytest.mark.parametrize("encoding", ["foo", "snappy", "GZIP", ""])
@pytest.mark.parametrize("path", [INFER_PATH, SERVICE + "ServerLive"], ids=["hot", "cold"])
def test_C5_unknown_encoding(peer: Peer, encoding: str, path: str):
    reply = peer.call(path, GOOD, ("grpc-encoding", encoding))
    assert_refused(reply, UNIMPLEMENTED, ("identity",))
    assert reply.fields["grpc-accept-encoding"] == "identity,deflate,gzip"
    assert_serves(peer)


# Headers.


@pytest.mark.parametrize("content_type", [
    None, "text/plain", "application/json", "application/grpcfoo", "application/grpc-web", "application/grpc+json"])
def test_H1_H2_content_type(peer: Peer, server: InProcess, content_type: str | None):
    before = sum(server.calls("identity"))
    fields = request_fields(leave=["content-type"]) + ([("content-type", content_type)] if content_type else [])
    assert_refused(peer.call(fields=fields, message=GOOD), INTERNAL, ("application/grpc",), 415)
    assert sum(server.calls("identity")) == before
    assert_serves(peer)


@pytest.mark.parametrize(
    "content_type", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"])
def test_H2_content_types_of_grpc(peer: Peer, content_type: str):
    assert peer.call(fields=request_fields(content_type=content_type), message=GOOD).code == OK


def test_H3_te_is_not_insisted_on(peer: Peer, server: InProcess):
    before = server.snapshot()["calls_without_te"]
    assert peer.call(fields=request_fields(leave=["te"]), message=GOOD).code == OK
    assert server.snapshot()["calls_without_te"] == before + 1


def test_H3_te_says_trailers_or_nothing(peer: Peer):
    assert peer.call(fields=request_fields(te="gzip"), message=GOOD).reset == PROTOCOL_ERROR
    assert_serves(peer)


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
def test_H4_method(peer: Peer, method: str):
    reply = peer.call(fields=request_fields(method=method), message=GOOD)
    assert_refused(reply, INTERNAL, ("POST",), 405)
    assert reply.fields["allow"] == "POST"
    assert_serves(peer)


@pytest.mark.parametrize("path", ["/", "/a", "/a/b", SERVICE + "Nope", "/" + "p" * 8192, "/a/b?c=d", INFER_PATH + "x"])
def test_H5_unknown_method(peer: Peer, path: str):
    assert_refused(peer.call(path, GOOD), UNIMPLEMENTED, ("unknown method",))
    assert_serves(peer)


@pytest.mark.parametrize("fields", [
    request_fields(leave=[":path"]), request_fields(leave=[":scheme"]), request_fields(leave=[":method"]),
    [*request_fields()[:4], (":path", INFER_PATH), *request_fields()[4:]],
    [*request_fields(), (":authority", "late")], [(":unknown", "x"), *request_fields()],
    request_fields(INFER_PATH, ("Upper", "x")), request_fields(""), request_fields("no/slash")],
    ids=["no_path", "no_scheme", "no_method", "path_twice", "late_pseudo", "unknown_pseudo", "upper_case", "empty_path",
         "no_slash"])
def test_H5_H6_malformed_requests_are_reset(peer: Peer, fields: list[tuple[str, str]]):
    reply = peer.call(fields=fields, message=GOOD)
    assert (reply.reset, reply.blocks) == (PROTOCOL_ERROR, [])
    assert_serves(peer)


@pytest.mark.parametrize("bad", [
    ("connection", "close"), ("upgrade", "h2c"), ("transfer-encoding", "chunked"), ("keep-alive", "1"),
    ("proxy-connection", "close"), ("key", "a\0b"), ("key", "a\nb"), ("key", "a\rb")])
def test_H7_H17_fields_that_http2_forbids(peer: Peer, bad: tuple[str, str]):
    reply = peer.call(INFER_PATH, GOOD, bad)
    assert (reply.reset, reply.blocks) == (PROTOCOL_ERROR, [])
    assert_serves(peer)


def test_H8_neither_authority_nor_host(peer: Peer):
    assert peer.call(fields=request_fields(leave=[":authority"]), message=GOOD).reset == PROTOCOL_ERROR
    assert peer.call(fields=[*request_fields(leave=[":authority"]), ("host", "x")], message=GOOD).code == OK
    assert_serves(peer)


@pytest.mark.parametrize("path", [INFER_PATH, SERVICE + "ServerLive"], ids=["hot", "cold"])
@pytest.mark.parametrize("timeouts", [("10x",), ("",), ("-1S",), ("123456789S",), ("1S", "1S"), ("S",), ("1.5S",)])
def test_H9_malformed_timeout(peer: Peer, timeouts: tuple[str, ...], path: str):
    reply = peer.call(path, GOOD, *(("grpc-timeout", each) for each in timeouts))
    assert_refused(reply, INTERNAL, ("grpc-timeout",))
    assert_serves(peer)


@pytest.mark.parametrize("timeout", ["0n", "1n", "0H"])
@pytest.mark.parametrize("path", [INFER_PATH, SERVICE + "ServerLive"], ids=["hot", "cold"])
def test_H10_no_time_left(server: InProcess, peer: Peer, timeout: str, path: str):
    if (server.transport, timeout) == (GRPCIO, "1n"):
        pytest.skip("grpcio makes a millisecond of it, in which the call may be answered")
    reply = peer.call(path, GOOD, ("grpc-timeout", timeout))
    assert_refused(reply, DEADLINE_EXCEEDED)
    assert "deadline" in reply.text.lower()
    assert_serves(peer)


@pytest.mark.parametrize("timeout", ["99999999H", "99999999M", "99999999S"])
def test_H11_all_the_time_in_the_world(peer: Peer, timeout: str):
    assert peer.call(INFER_PATH, GOOD, ("grpc-timeout", timeout)).code == OK
    assert peer.call(SERVICE + "ServerLive", b"", ("grpc-timeout", timeout)).code == OK


def test_H12_binary_metadata(peer: Peer):
    for value in ("YWI=", "YWI", "YQ==,YQ"):
        assert peer.call(INFER_PATH, GOOD, ("key-bin", value)).code == OK
    for value in ("Y", "Y*==", "YQ="):
        assert_refused(peer.call(INFER_PATH, GOOD, ("key-bin", value)), INTERNAL, ("base64",))
    assert_serves(peer)


@pytest.mark.parametrize("path", [INFER_PATH, SERVICE + "ServerLive"], ids=["hot", "cold"])
def test_H13_size_of_the_headers(peer: Peer, path: str):
    content = GOOD if path == INFER_PATH else b""
    assert peer.call(path, content, ("key", "x" * 9000)).code == OK
    assert peer.call(path, content, *((f"key-{number}", "value") for number in range(200))).code == OK
    for more in ([("key", "x" * 20_000)], [(f"key-{number}", "x" * 50) for number in range(300)]):
        assert_refused(peer.call(path, content, *more), RESOURCE_EXHAUSTED, ("16384",))
    assert_serves(peer)


@pytest.mark.parametrize("claimed", [0, len(GOOD), len(GOOD) + 4, len(GOOD) + 6, 1 << 40])
def test_H14_content_length(peer: Peer, claimed: int):
    reply = peer.call(INFER_PATH, GOOD, ("content-length", str(claimed)))
    assert reply.reset == PROTOCOL_ERROR
    assert reply.blocks == []
    assert peer.call(INFER_PATH, GOOD, ("content-length", str(len(GOOD) + 5))).code == OK
    assert_serves(peer)


def continued(peer: Peer, stream: int, count: int) -> bytes:
    block = peer.encoder.encode(request_fields(), huffman=False)
    step = -(-len(block) // count)
    parts = [block[at:at + step] for at in range(0, len(block), step)]
    parts += [b""] * (count - len(parts))
    frames = [frame(HEADERS, 0, stream, b"")]
    frames += [frame(CONTINUATION, END_HEADERS if number == count - 1 else 0, stream, part)
               for number, part in enumerate(parts)]
    return b"".join(frames)


def test_H15_continuation_frames(peer: Peer):
    peer.ping()
    stream = peer.next_stream
    peer.next_stream += 2
    peer.send(continued(peer, stream, 8))
    peer.expect(stream)
    peer.body(stream, prefixed(GOOD))
    assert peer.answer(stream).code == OK
    peer.send(continued(peer, peer.next_stream, 9))
    peer.until_closed()
    assert peer.goaways()[0].error == ENHANCE_YOUR_CALM


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /inference.GRPCInferenceService/ModelInfer HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), bytes(range(256)), b"\0" * 100,
    PREFACE + b"\xff" * 200, PREFACE[:-1] + b"x", PREFACE + frame(DATA, 0, 1, b"x"),
    PREFACE + frame(4, 0, 1, b""), PREFACE + frame(4, 0, 0, b"12345")],
    ids=["http1", "http1_post", "H17_upgrade", "H17_expect", "H17_connect", "tls", "bytes", "zeros", "preface_garbage",
         "bad_preface", "data_first", "settings_on_a_stream", "settings_of_5"])
def test_H16_what_is_not_http2_is_closed(server: InProcess, data: bytes):
    with dial(server.address) as link:
        link.settimeout(10)
        link.sendall(data)
        received = b""
        while part := link.recv(4096):
            received += part
        assert b"HTTP/1" not in received
        assert len(received) < 1000
    server.settle()


def test_H17_connect(peer: Peer):
    reply = peer.call(fields=[(":method", "CONNECT"), (":authority", "x:1")], message=GOOD)
    assert reply.http_status == 405 or reply.reset == PROTOCOL_ERROR
    assert_serves(peer)


def test_M1_metadata_of_what_is_not_there(peer: Peer):
    unknown = message("inference.ModelMetadataRequest")(name="nope").SerializeToString()
    assert_refused(peer.call(SERVICE + "ModelMetadata", unknown), NOT_FOUND, ("nope",))
    unknown = message("inference.ModelReadyRequest")(name="nope").SerializeToString()
    reply = peer.call(SERVICE + "ModelReady", unknown)
    assert reply.code == OK
    assert message("inference.ModelReadyResponse").FromString(reply.message).ready is False
    assert_serves(peer)


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"])
def test_B33_garbage_for_a_cold_call(peer: Peer, method: str):
    assert_refused(peer.call(SERVICE + method, b"\xff" * 100), INTERNAL, (method,))
    assert_serves(peer)


def test_a_name_that_is_long_and_strange_is_cut_in_the_answer(peer: Peer):
    request = message("grpc.health.v1.HealthCheckRequest")(service="ö%\n" * 5000).SerializeToString()
    assert_refused(peer.call("/grpc.health.v1.Health/Check", request), NOT_FOUND)
    request = message("inference.ModelMetadataRequest")(name="ö%\n" * 5000).SerializeToString()
    assert_refused(peer.call(SERVICE + "ModelMetadata", request), INVALID_ARGUMENT)
    assert_serves(peer)


def test_trailers_that_end_the_request(peer: Peer):
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(GOOD), end=False)
    peer.send(frame(DATA, 0, stream, b""))
    peer.send(peer.headers_frame(stream, [("key", "value")], end=True))
    assert peer.answer(stream).code == OK
    stream = peer.open(request_fields())
    peer.body(stream, prefixed(GOOD)[:-1], end=False)
    peer.send(frame(DATA, END_STREAM, stream, b""))
    assert_refused(peer.answer(stream), INTERNAL)
    assert_serves(peer)


# Compressed messages.


def squeeze(encoding: str, content: bytes) -> bytes:
    return gzip.compress(content) if encoding == "gzip" else zlib.compress(content)


ENCODINGS = pytest.mark.parametrize("encoding", ["gzip", "deflate"])


@ENCODINGS
def test_C2_a_valid_one(peer: Peer, encoding: str):
    plain = peer.call(message=GOOD)
    assert peer.call(INFER_PATH, None, ("grpc-encoding", encoding), body=prefixed(squeeze(encoding, GOOD), flag=1)
                     ).message == plain.message
    # Each message says for itself whether it is compressed.
    assert peer.call(INFER_PATH, None, ("grpc-encoding", encoding), body=prefixed(GOOD)).message == plain.message


@pytest.mark.parametrize("path", [INFER_PATH, SERVICE + "ServerLive"], ids=["hot", "cold"])
@pytest.mark.parametrize("broken", ["corrupt", "cut short", "trailing junk", "not compressed", "empty"])
@ENCODINGS
def test_C3_one_that_does_not_inflate(peer: Peer, encoding: str, broken: str, path: str):
    content = squeeze(encoding, GOOD)
    body = {"corrupt": content[:-6] + b"abcdef", "cut short": content[:-1], "trailing junk": content + b"junk",
            "not compressed": GOOD, "empty": b""}[broken]
    reply = peer.call(path, None, ("grpc-encoding", encoding), body=prefixed(body, flag=1))
    assert_refused(reply, INTERNAL, ("compressed",))
    assert_serves(peer)


@pytest.mark.parametrize("path", [INFER_PATH, SERVICE + "ServerLive"], ids=["hot", "cold"])
@ENCODINGS
def test_C4_a_bomb(peer: Peer, encoding: str, path: str):
    reply = peer.call(path, None, ("grpc-encoding", encoding), body=prefixed(squeeze(encoding, bytes(8 << 20)), flag=1))
    assert_refused(reply, RESOURCE_EXHAUSTED, ("--max-message-bytes", str(MAX_MESSAGE_BYTES)))
    assert_serves(peer)


@ENCODINGS
def test_B44_compressed_flag_of_2_with_an_encoding(peer: Peer, encoding: str):
    body = prefixed(squeeze(encoding, GOOD), flag=2)
    assert_refused(peer.call(INFER_PATH, None, ("grpc-encoding", encoding), body=body), INTERNAL, ("flag", "2"))
    assert_serves(peer)
