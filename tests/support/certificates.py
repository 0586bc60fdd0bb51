"""Certificates for tests: a CA, servers and clients of it, as files."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

import trustme

EXPIRED = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


class Pair(NamedTuple):
    cert: Path
    key: Path


class Authority:
    """A CA whose certificate is `file`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *identities: str, expired: bool = False) -> Pair:
        """A certificate and key in files called `name`, written over what is there."""
        issued = self._ca.issue_cert(*identities or ("localhost", "127.0.0.1"), not_after=EXPIRED if expired else None)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}-key.pem")
        pair.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        pair.key.write_bytes(issued.private_key_pem.bytes())
        return pair

    def client_context(self, pair: Pair | None = None, alpn: tuple[str, ...] = ("h2",)) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.file)
        if pair is not None:
            context.load_cert_chain(*pair)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context
