"""Replicas that share one cache: a request whose answer is not kept here goes to the replica that has its key. Loop
thread.

Each replica builds the same ring of the names of all. A request is forwarded once, over one connection per replica, and
never again: what comes forwarded is answered where it comes to. Where that replica cannot be reached, does not answer
in time, or refuses, the request runs here: a replica that goes costs a run, never a call.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from infer._core.hash_ring import HashRing
from infer._core.http2_client import Reply
from infer.config import Settings
from infer.config_replicas import MAX_REPLICAS
from infer.errors import ConfigError
from infer.replica_peer import Peer

log = logging.getLogger("infer.replicas")

RESOLVE_S = 5.0
# As protobuf writes the length of an id, more than any has.
ID_LENGTH_BITS = 28
OUTCOMES = ("answered", "refused", "late", "lost", "here")

# Of a request, and what was answered; False: that is no answer to it, and it is run here.
Answered = Callable[[int, int, bytes | None], bool]


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
        while at < len(reply) and shift < ID_LENGTH_BITS:
            size |= (reply[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not reply[at - 1] & 0x80:
                break
        at += size
    return reply[at:] if at < len(reply) and reply[at] in (0x2A, 0x32) else None


class Replicas:
    """What the core forwards by (`second_level.Forwarder`). `answered` is the pipeline's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, own: str, names: Sequence[str], *, timeout_s: float,
                 answered: Answered, tls: Callable[[], ssl.SSLContext] | None = None,
                 tls_name: str | None = None) -> None:
        self.own = own
        self._loop, self._timeout_s, self._answered = loop, timeout_s, answered
        self._tls, self._tls_name = tls, tls_name
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
        """All replicas; this one is, whether it is among them or not. Of too many the same on each are left out."""
        known = sorted(set(names))
        wanted = {*known[:MAX_REPLICAS], self.own}
        if wanted == set(self._ring.names):
            return
        for name in set(self._peers) - wanted:
            task = self._loop.create_task(self._peers.pop(name).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for name in wanted - set(self._peers) - {self.own}:
            self._peers[name] = Peer(name, self._loop, self._timeout_s, self._tls, self._tls_name)
        self._ring = HashRing(wanted)
        if len(known) > MAX_REPLICAS:
            log.warning("replicas: %d of %d are left out, from %s on: at most %d share a cache; form several groups",
                        len(known) - MAX_REPLICAS, len(known), known[MAX_REPLICAS], MAX_REPLICAS)

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
        peer = self._peers.get(name)
        if peer is None or not peer.has_room(len(message)):
            return self.stays()
        told = False

        def tell(outcome: str, tail: bytes | None) -> None:
            nonlocal told
            if told:
                return
            told = True
            timer.cancel()
            peer.answered(outcome != "late")
            if not self._answered(address, ticket, tail) and tail is not None:
                outcome = "refused"
            self.outcomes[outcome] += 1

        def done(reply: Reply | None) -> None:
            if reply is None or reply.grpc_status != 0 or reply.message is None:
                tell("lost" if reply is None else "refused", None)
                return
            tail = tail_of(reply.message, prefix)
            tell("refused" if tail is None else "answered", tail)

        try:
            peer.call(forwarded(message, prefix, sha256), done)
        except ConnectionError:
            return self.stays()
        timer = self._loop.call_later(self._timeout_s, lambda: tell("late", None))
        return True

    def stays(self) -> bool:
        """Counts one that runs here; False."""
        self.outcomes["here"] += 1
        return False

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
        # A server with an address of either kind is one replica.
        family = socket.AF_INET6 if self._replicas.own.startswith("[") else socket.AF_INET
        failed = False
        while True:
            try:
                found = await self._loop.getaddrinfo(host.strip("[]"), int(port), family=family,
                                                     type=socket.SOCK_STREAM)
            # A name that cannot be one is a ValueError.
            except (OSError, ValueError) as failure:
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
            except (OSError, ValueError) as failure:
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
    tls = tls_name = None
    if settings.tls_cert is not None:
        tls = partial(tls_context, settings.replicas_ca, settings.tls_cert, settings.tls_key)
        try:
            tls()
        except OSError as failure:
            raise ConfigError(f"--replicas-ca, --tls-cert, --tls-key: connections to replicas cannot be made with "
                              f"them: {failure}") from None
    if settings.replicas_dns is not None:
        # Addresses come and go; the name is what its certificates have.
        tls_name = settings.replicas_dns.rpartition(":")[0].strip("[]")
    replicas = Replicas(loop, own, settings.replicas, timeout_s=settings.replicas_timeout, answered=answered, tls=tls,
                        tls_name=tls_name)
    if settings.replicas_dns is not None:
        replicas.discovery = Discovery(loop, settings.replicas_dns, replicas)
    return replicas


def tls_context(ca: Path | None, certificate: Path, key: Path | None) -> ssl.SSLContext:
    """For connections to replicas that serve over TLS, from the files as they are now."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, key)
    return context
