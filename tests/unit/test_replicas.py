"""What travels to another replica and back, and which name is this server's own."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infer import replica_peer, replicas
from infer.config_replicas import MAX_REPLICAS, address, addresses
from infer.errors import ConfigError
from infer.proto import message
from infer.replica_peer import FIRST_PAUSE_S, Peer
from infer.replicas import Discovery, Replicas, forwarded, own_name, tail_of, tls_context
from tests.support.certificates import Authority
from tests.support.requests import add_raw, infer_request, pack
from tests.support.scripted_peer import goaway, settings
from tests.support.turns import turn

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
    # An id whose length has no end.
    PREFIX + b"\x1a" + b"\x80" * 6 + b"\x00\x2a\x00",
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
    assert address("[0:0::1]:5") == "[::1]:5"
    assert addresses("a:1, [::1]:65535,b.c-d_e:2") == ("a:1", "[::1]:65535", "b.c-d_e:2")
    assert addresses(["a:1"]) == ("a:1",)
    for wrong in ("[12:1]:5", "a", "a:0", "a:65536", "a:1,", "::1:5", ["a:1", 5], 5):
        with pytest.raises(ValueError, match=r"expected|does not appear"):
            addresses(wrong)
    with pytest.raises(ValueError, match="twice"):
        addresses("a:1,a:1")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await turn()


@asynccontextmanager
async def listening(greet: Callable[[asyncio.StreamWriter], object], context: ssl.SSLContext | None = None
                    ) -> AsyncIterator[tuple[str, list[float]]]:
    """A name, and when each connection came, which `greet` answers."""
    came: list[float] = []

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(asyncio.get_running_loop().time())
        greet(writer)

    server = await asyncio.start_server(met, "127.0.0.1", 0, ssl=context)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", came
    server.close()


def peer_of(name: str, tls: Callable[[], ssl.SSLContext] | None = None, tls_name: str | None = None) -> Peer:
    return Peer(name, asyncio.get_running_loop(), 0.25, tls, tls_name)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", settings(), settings() + goaway(0)])
async def test_one_that_ends_each_connection_is_tried_at_longer_and_longer_intervals(
        greeting: bytes, caplog: pytest.LogCaptureFixture) -> None:
    def greet(writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writer.close()

    with caplog.at_level(logging.INFO, "infer.replicas"):
        async with listening(greet) as (name, came):
            peer = peer_of(name)
            await until(lambda: len(came) >= 5)
            await peer.close()
    # The pauses are at least half of what they are named.
    assert came[4] - came[0] >= 0.5 * FIRST_PAUSE_S * (1 + 2 + 4 + 8)
    # Not one for each attempt; a busy machine may make another of one.
    assert sum("cannot be reached" in line for line in caplog.messages) <= 2
    assert len(caplog.messages) <= 7


async def test_one_that_says_nothing_is_not_up(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(replica_peer, "CONNECT_S", 0.05)
    ups = []
    with caplog.at_level(logging.INFO, "infer.replicas"):
        async with listening(lambda writer: ups.append(peer.up)) as (name, came):
            peer = peer_of(name)
            await until(lambda: len(came) >= 3)
            await peer.close()
    assert ups[:3] == [False] * 3
    assert f"replica {name} cannot be reached: it takes too long" in caplog.messages


async def test_names_that_cannot_be_looked_up_are_tried_again(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(replicas, "RESOLVE_S", 0.01)
    loop = asyncio.get_running_loop()
    tries = 0

    async def getaddrinfo(host: str, port: int, **kind: Any) -> list[Any]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise UnicodeError("label empty or too long")
        assert kind == {"family": socket.AF_INET, "type": socket.SOCK_STREAM}
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    those = Replicas(loop, "127.0.0.9:1", [], timeout_s=1, answered=lambda *told: True)
    lookups: Any = SimpleNamespace(create_task=loop.create_task, getaddrinfo=getaddrinfo)
    those.discovery = Discovery(lookups, "a..b:1", those)
    await until(lambda: those.names == ("127.0.0.1:1", "127.0.0.9:1"))
    await those.close()
    assert sum("cannot be looked up" in line for line in caplog.messages) == 1


async def test_of_too_many_the_same_are_left_out_on_each(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"infer-{number:03}:1" for number in range(MAX_REPLICAS + 3)]
    loop = asyncio.get_running_loop()
    rings = []
    for own in (names[0], names[5]):
        those = Replicas(loop, own, [], timeout_s=1, answered=lambda *told: True)
        those.set_names(reversed(names))
        those.set_names(names)
        rings.append(those.names)
        await those.close()
    assert rings[0] == rings[1] == tuple(names[:MAX_REPLICAS])
    assert caplog.messages.count(
        "replicas: 3 of 67 are left out, from infer-064:1 on: at most 64 share a cache; form several groups") == 2
    with pytest.raises(ValueError, match="65 addresses: at most 64 replicas share a cache"):
        addresses(names[:MAX_REPLICAS + 1])


async def test_certificates_are_read_again_and_name_what_they_have_to(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(*authority.issue("server", "infer.example"))
    pair = authority.issue("own", "infer.example")
    made = []

    def context() -> ssl.SSLContext:
        made.append(tls_context(authority.file, *pair))
        return made[-1]

    async with listening(lambda writer: writer.write(settings()), serving) as (name, _):
        by_name = peer_of(name, context, "infer.example")
        await until(lambda: by_name.up)
        before = len(made)
        by_address = peer_of(name, context)
        # Each attempt has the files as they are then.
        await until(lambda: len(made) >= before + 2)
        assert not by_address.up
        for peer in (by_name, by_address):
            await peer.close()


def test_a_ca_that_is_not_there(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("own")
    given: Any = SimpleNamespace(replicas_self="a:1", replicas=("a:1",), replicas_dns=None, tls_cert=pair.cert,
                                 tls_key=pair.key, replicas_ca=tmp_path / "gone.pem", replicas_timeout=1)
    with pytest.raises(ConfigError, match=r"--replicas-ca, --tls-cert, --tls-key: .*No such file"):
        replicas.start_replicas(asyncio.new_event_loop(), given, [], partial(bool))


async def test_what_is_forwarded_at_once_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_peer, "BYTES_MOST", 100)
    answered: list[object] = []
    async with listening(lambda writer: writer.write(settings())) as (name, _):
        those = Replicas(asyncio.get_running_loop(), "127.0.0.1:1", [name], timeout_s=100,
                            answered=lambda *told: answered.append(told) or True)  # type: ignore[func-returns-value]
        await until(lambda: those.gauges()["replica_up"] == {name: 1})
        monkeypatch.setattr(those, "owner", lambda key: name)
        sent = [those.forward(b"k" * 8, bytes(10), sha256="", prefix=PREFIX, address=1, ticket=at)
                for at in range(5)]
        assert sent.count(True) == len(sent) - those.outcomes["here"]
        assert 0 < sent.count(True) < 5
        await those.close()
    assert len(answered) == sent.count(True) == those.outcomes["lost"]
