"""What travels to another replica and back, and which name is this server's own."""

from __future__ import annotations

import socket

import pytest

from infer.config_replicas import addresses
from infer.errors import ConfigError
from infer.proto import message
from infer.replicas import forwarded, own_name, tail_of
from tests.support.requests import add_raw, infer_request, pack

SHA256 = "0123456789abcdef" * 4
PREFIX = b"\x0a\x01m\x12\x011"


def request(**fields: object) -> bytes:
    asked = infer_request("another", **fields)
    add_raw(asked, "x", "FP32", [1, 4], pack("FP32", [1.0] * 4))
    asked.parameters["priority"].int64_param = 3
    return bytes(asked.SerializeToString())


@pytest.mark.parametrize("version", ["", "7"])
def test_a_forwarded_request_is_the_same_and_names_its_version_and_files(version: str) -> None:
    parsed = message("inference.ModelInferRequest").FromString
    expected = parsed(request(model_version=version, id="r" * 300))
    expected.model_name, expected.model_version = "m", "1"
    expected.parameters["infer_forwarded"].string_param = SHA256
    assert parsed(forwarded(request(model_version=version, id="r" * 300), PREFIX, SHA256)) == expected


@pytest.mark.parametrize("request_id", ["", "r", "r" * 200, "r" * 1024])
def test_the_tail_of_a_reply_is_what_lies_behind_its_id(request_id: str) -> None:
    reply = message("inference.ModelInferResponse")(model_name="m", model_version="1", id=request_id)
    tail = message("inference.ModelInferResponse")()
    for part in (reply, tail):
        part.outputs.add(name="y", datatype="FP32", shape=[1, 4])
        part.raw_output_contents.append(b"0123456789abcdef")
    assert tail_of(reply.SerializeToString(), PREFIX) == tail.SerializeToString()


@pytest.mark.parametrize("reply", [
    b"", PREFIX, PREFIX[:-1], PREFIX + b"\x1a", PREFIX + b"\x1a\x05ab", PREFIX + b"\x1a\x80",
    # Another version; a reply that is marked, as of a fallback.
    b"\x0a\x01m\x12\x012\x2a\x00", PREFIX + b"\x22\x04\x0a\x02ab\x2a\x00"])
def test_what_is_no_reply_of_that_version_has_no_tail(reply: bytes) -> None:
    assert tail_of(reply, PREFIX) is None


def test_its_own_name() -> None:
    names = ["10.0.0.1:8001", "10.0.0.2:8001", f"{socket.gethostname()}:9001"]
    assert own_name("given:1", names, [], None) == "given:1"
    assert own_name(None, names, ["10.0.0.2:8001", "unix:/x"], None) == "10.0.0.2:8001"
    assert own_name(None, names, ["0.0.0.0:9001"], None) == names[2]
    with pytest.raises(ConfigError, match=r"which of them is this server, which listens at 0\.0\.0\.0:8001 .*Give"):
        own_name(None, names, ["0.0.0.0:8001"], None)
    assert own_name(None, [], ["0.0.0.0:8001"], "127.0.0.1:8001") == "127.0.0.1:8001"
    with pytest.raises(ConfigError, match=r"--replicas-dns nowhere\.invalid:8001: cannot be looked up"):
        own_name(None, [], ["0.0.0.0:8001"], "nowhere.invalid:8001")


def test_addresses() -> None:
    assert addresses("a:1, [::1]:65535,b.c-d_e:2") == ("a:1", "[::1]:65535", "b.c-d_e:2")
    assert addresses(["a:1"]) == ("a:1",)
    for wrong in ("a", "a:0", "a:65536", "a:1,", "::1:5", ["a:1", 5], 5):
        with pytest.raises(ValueError, match="expected"):
            addresses(wrong)
    with pytest.raises(ValueError, match="twice"):
        addresses("a:1,a:1")
