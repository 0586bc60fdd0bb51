"""Servers that independent clients are tried with: over plaintext, over TLS, over TLS with certificates of clients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Authority, Pair
from tests.support.command import REPOSITORY, Process, Serving

PLAINTEXT, TLS, MTLS = KINDS = ("plaintext", "tls", "mtls")


@dataclass(frozen=True)
class Security:
    """What a server and its clients are told."""

    kind: str
    ca: Path | None = None
    server: Pair | None = None
    client: Pair | None = None

    def of_server(self, certificate: str, key: str, client_ca: str) -> list[object]:
        """The server's flags, by their names."""
        if self.server is None:
            return []
        flags: list[object] = [certificate, self.server.cert, key, self.server.key]
        return flags + [client_ca, self.ca] if self.client is not None else flags

    @property
    def of_client(self) -> tuple[Path, ...]:
        """The CA, and where it needs one the client's certificate and key."""
        return (() if self.ca is None else (self.ca,)) + (() if self.client is None else tuple(self.client))


def security(kind: str, folder: Path) -> Security:
    """Its certificates go to `folder`. The client's is of the server's CA."""
    if kind == PLAINTEXT:
        return Security(kind)
    authority = Authority(folder)
    return Security(kind, authority.file, authority.issue("server"),
                    authority.issue("client", "client.example") if kind == MTLS else None)


def on_localhost(address: str) -> str:
    """The address by name: some clients know no certificates for bare addresses."""
    return f"localhost:{address.rsplit(':', 1)[1]}"


@contextmanager
def models(secured: Security, repository: Path, *arguments: object) -> Iterator[Serving]:
    """`infer serve`. Its end is asserted to be clean."""
    flags = secured.of_server("--tls-cert", "--tls-key", "--tls-client-ca")
    with Serving(repository, *arguments, *flags) as serving:
        yield serving
        assert serving.stop() == 0, serving.output


@contextmanager
def services(secured: Security, *arguments: str) -> Iterator[str]:
    """The address of a process of `tests.conformance.services`. Its end is asserted to be clean."""
    flags = secured.of_server("--certificate", "--key", "--client-ca")
    command = [sys.executable, "-m", "tests.conformance.services", *arguments, *map(str, flags)]
    with Process(command, cwd=REPOSITORY) as process:
        yield process.wait_for(r"^serving (\S+)$")[1]
        assert process.stop() == 0, process.output
