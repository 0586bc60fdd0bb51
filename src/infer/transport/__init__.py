"""Transports: each mounts the same table of cold handlers and submits inference calls to the same pipeline."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from infer.errors import InferError
from infer.versions import NOT_BUILT, TO_BUILD, native_is_built

log = logging.getLogger("infer.transport")

NATIVE, GRPCIO = "native", "grpcio"


class CertificateSource(Protocol):
    """A TLS context that may be replaced while connections are accepted."""

    @property
    def context(self) -> ssl.SSLContext: ...

    @property
    def pem(self) -> tuple[bytes, bytes, bytes | None]:
        """What the context was made of: key, certificate with what it is chained by, CAs of clients."""

    def check(self) -> bool:
        """Whether there is a new context. May wait for a disk: any thread."""


class Transport(Protocol):
    """What the server asks of a transport. Loop thread only, but for `snapshot`."""

    async def listen(self, sockets: Sequence[socket.socket], certificates: CertificateSource | None = None) -> None:
        """Accepts connections from now on, at the addresses of bound sockets, which it takes over; over TLS where there
        are certificates, but for Unix sockets."""

    async def check_certificates(self) -> None:
        """New handshakes use the certificate as it is now, if it is good."""

    def flush(self) -> None:
        """Sends what this turn of the loop produced."""

    def snapshot(self) -> Mapping[str, Any]:
        """Counters and gauges by name; one that the transport cannot know is absent. Any thread."""

    def end_calls(self, message: bytes) -> None:
        """Ends the calls under way with UNAVAILABLE."""

    async def drain(self, timeout: float) -> bool:
        """Accepts no more, sends GOAWAY and waits for the calls under way, `timeout` seconds at most.

        Returns whether all of them ended by themselves; those that did not are ended with UNAVAILABLE.
        """

    async def close(self) -> None:
        """Ends what is left."""


def chosen_transport(asked: str | None) -> str:
    """The transport that is to be used: the one asked for, else native where it was built. InferError: it was not."""
    if asked == GRPCIO:
        return GRPCIO
    if native_is_built():
        return NATIVE
    if asked == NATIVE:
        raise InferError(f"--transport native: {NOT_BUILT}; {TO_BUILD}, or choose --transport grpcio")
    log.warning("%s: serving by grpcio, which is much slower; for the native transport %s", NOT_BUILT, TO_BUILD)
    return GRPCIO
