"""Replicas that share one cache: a request whose answer is not kept here goes to the replica that has its key. Loop
thread.

Each replica builds the same ring of the names of all. A request is forwarded once, over one connection per replica, and
never again: what comes forwarded is answered where it comes to. Where that replica cannot be reached, does not answer
in time, or refuses, the request runs here: a replica that goes costs a run, never a call.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from infer._core.hash_ring import HashRing
from infer._core.http2_client import ClientConnection, Reply
from infer.config import Settings
from infer.errors import ConfigError

log = logging.getLogger("infer.replicas")

PATH = "/inference.GRPCInferenceService/ModelInfer"
# Forwarded at once to one replica; more are run here.
CALLS_MOST = 512
# Of what is forwarded: a larger message is rather run than copied.
MESSAGE_BYTES_MOST = 1 << 20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
CONNECT_S = 2.0
# In a row, after which a replica is left alone for a while.
LATE_MOST, REST_S = 8, 1.0
RESOLVE_S = 5.0
OUTCOMES = ("answered", "refused", "late", "lost", "here")

Answered = Callable[[int, int, bytes | None], None]
Done = Callable[[Reply | None], None]


def forwarded(message: bytes, prefix: bytes, sha256: str) -> bytes:
    """A ModelInferRequest of the model and version that `prefix` names, as in a reply, which says that it has been
    forwarded: fields that come last count."""
    value = _field(3, sha256.encode())
    entry = _field(1, b"infer_forwarded") + _field(2, value)
    return message + prefix + _field(4, entry)


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    length, size = b"", len(content)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def tail_of(reply: bytes, prefix: bytes) -> bytes | None:
    """What of a ModelInferResponse is the same for all who ask; None where it is of another version, or marked."""
    if not reply.startswith(prefix):
        return None
    at = len(prefix)
    if reply[at:at + 1] == b"\x1a":
        size = shift = 0
        at += 1
        while at < len(reply):
            size |= (reply[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not reply[at - 1] & 0x80:
                break
        at += size
    return reply[at:] if at < len(reply) and reply[at] in (0x2A, 0x32) else None


class _Link(asyncio.Protocol):
    """One connection to a replica."""

    def __init__(self, authority: str, timeout_s: float, loop: asyncio.AbstractEventLoop,
                 lost: Callable[[_Link], None]) -> None:
        self._session = ClientConnection(PATH, authority, timeout_s=timeout_s, max_calls=CALLS_MOST)
        self._loop, self._lost = loop, lost
        self._calls: dict[int, Done] = {}
        self._transport: asyncio.Transport | None = None
        self._flushing = False

    @property
    def active(self) -> int:
        return len(self._calls)

    @property
    def can_start(self) -> bool:
        return self._transport is not None and self._session.can_start

    @property
    def is_ending(self) -> bool:
        """It takes no more calls, though it has fewer than it may."""
        return len(self._calls) < CALLS_MOST and not self._session.can_start

    def call(self, message: bytes, done: Done) -> None:
        self._calls[self._session.start(message)] = done
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            replies = self._session.feed(data)
        except ConnectionError as failure:
            log.warning("a replica's connection ends: %s", failure)
            self.close()
            return
        self._end(replies)
        self._flush()
        if self._session.is_finished:
            self.close()

    def connection_lost(self, failure: Exception | None) -> None:
        self._transport = None
        self._end(self._session.abandon())
        self._lost(self)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is not None and (output := self._session.take_output()):
            self._transport.write(output)

    def _end(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            self._calls.pop(reply.call_id)(reply if reply.failure is None else None)


class Peer:
    """Another replica: a connection that is made again when it is lost."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, timeout_s: float,
                 tls: ssl.SSLContext | None) -> None:
        self.name = name
        self._host, _, port = name.rpartition(":")
        self._host, self._port = self._host.strip("[]"), int(port)
        self._loop, self._timeout_s, self._tls = loop, timeout_s, tls
        self._link: _Link | None = None
        self._links: set[_Link] = set()
        self._late = 0
        self._rests_until = 0.0
        self._wanted = asyncio.Event()
        self._task = loop.create_task(self._keep_connected())

    @property
    def up(self) -> bool:
        return self._link is not None and self._link.can_start and self._loop.time() >= self._rests_until

    @property
    def active(self) -> int:
        return 0 if self._link is None else self._link.active

    def call(self, message: bytes, done: Done) -> None:
        assert self._link is not None
        self._link.call(message, done)

    def answered(self, in_time: bool) -> None:
        self._late = 0 if in_time else self._late + 1
        if self._late >= LATE_MOST:
            self._late = 0
            self._rests_until = self._loop.time() + REST_S
            log.warning("replica %s does not answer in time: nothing is forwarded to it for %g s", self.name, REST_S)

    def look(self) -> None:
        """A connection that ends by itself makes room for the next."""
        if self._link is not None and self._link.is_ending:
            self._link = None
            self._wanted.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for link in list(self._links):
            link.close()

    async def _keep_connected(self) -> None:
        pause_s = FIRST_PAUSE_S
        was_up = True
        while True:
            self._wanted.clear()
            try:
                await self._connect()
            except (OSError, ssl.SSLError, TimeoutError) as failure:
                if was_up:
                    log.warning("replica %s cannot be reached: %s", self.name, failure or "it takes too long")
                was_up = False
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            log.info("replica %s is reached", self.name)
            pause_s, was_up = FIRST_PAUSE_S, True
            await self._wanted.wait()

    async def _connect(self) -> None:
        def make() -> _Link:
            return _Link(self.name, self._timeout_s, self._loop, self._lost)

        async with asyncio.timeout(CONNECT_S):
            _, link = await self._loop.create_connection(
                make, self._host, self._port, ssl=self._tls, server_hostname=self._host if self._tls else None)
        self._links.add(link)
        self._link = link

    def _lost(self, link: _Link) -> None:
        self._links.discard(link)
        if self._link is link:
            self._link = None
            self._wanted.set()


class Replicas:
    """What the core forwards by (`second_level.Forwarder`). `answered` is the pipeline's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, own: str, names: Sequence[str], *, timeout_s: float,
                 answered: Answered, tls: ssl.SSLContext | None = None) -> None:
        self.own = own
        self._loop, self._timeout_s, self._answered, self._tls = loop, timeout_s, answered, tls
        self._peers: dict[str, Peer] = {}
        self._ring = HashRing([own])
        self._closing: set[asyncio.Task[None]] = set()
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.discovery: Discovery | None = None
        self.set_names(names)

    @property
    def names(self) -> tuple[str, ...]:
        return self._ring.names

    def set_names(self, names: Iterable[str]) -> None:
        """All replicas, this one included whether it is among them or not."""
        wanted = {*names, self.own}
        if wanted == set(self._ring.names):
            return
        for name in set(self._peers) - wanted:
            task = self._loop.create_task(self._peers.pop(name).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for name in wanted - set(self._peers) - {self.own}:
            self._peers[name] = Peer(name, self._loop, self._timeout_s, self._tls)
        self._ring = HashRing(wanted)

    def gauges(self) -> dict[str, dict[str, int]]:
        """Any thread."""
        return {"replica_up": {name: int(peer.up) for name, peer in list(self._peers.items())},
                "replica_forwards": dict(self.outcomes)}

    def owner(self, key: bytes) -> str:
        names = self._ring.names
        up, loads = [], []
        for name in names:
            peer = self._peers.get(name)
            if peer is not None:
                peer.look()
            up.append(peer is None or peer.up)
            loads.append(0 if peer is None else peer.active)
        return names[self._ring.owner(int.from_bytes(key[:8], "big"), up, loads)]

    def forward(self, key: bytes, message: bytes, *, sha256: str, prefix: bytes, address: int, ticket: int) -> bool:
        """Whether it goes to another replica; `answered` then hears of it within the time."""
        name = self.owner(key)
        if name == self.own or len(message) > MESSAGE_BYTES_MOST:
            self.outcomes["here"] += 1
            return False
        peer = self._peers[name]
        told = False

        def tell(outcome: str, tail: bytes | None) -> None:
            nonlocal told
            if told:
                return
            told = True
            timer.cancel()
            peer.answered(outcome != "late")
            self.outcomes[outcome] += 1
            self._answered(address, ticket, tail)

        def done(reply: Reply | None) -> None:
            if reply is None or reply.grpc_status != 0 or reply.message is None:
                tell("lost" if reply is None else "refused", None)
                return
            tail = tail_of(reply.message, prefix)
            tell("refused" if tail is None else "answered", tail)

        timer = self._loop.call_later(self._timeout_s, lambda: tell("late", None))
        peer.call(forwarded(message, prefix, sha256), done)
        return True

    async def close(self) -> None:
        if self.discovery is not None:
            await self.discovery.close()
        await asyncio.gather(*(peer.close() for peer in self._peers.values()), *self._closing)


class Discovery:
    """Has a DNS name looked up again and again: its addresses are the replicas."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, replicas: Replicas) -> None:
        self._loop, self._name, self._replicas = loop, name, replicas
        self._task = loop.create_task(self._run())

    async def _run(self) -> None:
        host, _, port = self._name.rpartition(":")
        failed = False
        while True:
            try:
                found = await self._loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
            except OSError as failure:
                if not failed:
                    log.warning("replicas: %s cannot be looked up: %s; those that are known stay", self._name, failure)
                failed = True
            else:
                failed = False
                self._replicas.set_names(_named(*each[4][:2]) for each in found)
            await asyncio.sleep(RESOLVE_S)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _named(host: Any, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def own_name(given: str | None, names: Sequence[str], addresses: Sequence[str], dns: str | None) -> str:
    """Under which of the names the others reach this one. Raises ConfigError where that cannot be told."""
    if given is not None:
        return given
    if dns is not None:
        host, _, port = dns.rpartition(":")
        # No packet is sent: it says which address of this machine is used towards the others.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((host, int(port)))
            except OSError as failure:
                raise ConfigError(f"--replicas-dns {dns}: cannot be looked up: {failure}; give --replicas-self "
                                  "ADDRESS:PORT, this server's own as the others reach it") from None
            return _named(probe.getsockname()[0], port)
    ports = {address.rpartition(":")[2] for address in addresses}
    hosts = {socket.gethostname(), socket.getfqdn()}
    own = [name for name in names if name in addresses
           or (name.rpartition(":")[0] in hosts and name.rpartition(":")[2] in ports)]
    if len(own) != 1:
        raise ConfigError(f"--replicas {','.join(names)}: which of them is this server, which listens at "
                          f"{', '.join(addresses)} of {socket.gethostname()}? Give --replicas-self NAME, as it is in "
                          "the list")
    return own[0]


def start_replicas(loop: asyncio.AbstractEventLoop, settings: Settings, addresses: Sequence[str],
                   answered: Answered) -> Replicas:
    """As the settings have them; `addresses`: those that this server listens at. Raises ConfigError."""
    own = own_name(settings.replicas_self, settings.replicas, addresses, settings.replicas_dns)
    tls = None
    if settings.tls_cert is not None:
        tls = tls_context(settings.replicas_ca, settings.tls_cert, settings.tls_key)
    replicas = Replicas(loop, own, settings.replicas, timeout_s=settings.replicas_timeout, answered=answered, tls=tls)
    if settings.replicas_dns is not None:
        replicas.discovery = Discovery(loop, settings.replicas_dns, replicas)
    return replicas


def tls_context(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """For connections to replicas that serve over TLS."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
