"""TLS of the gRPC port: a context from PEM files, and the files looked at again for as long as the server runs.

A pair that does not fit, has expired or cannot be read never replaces one that works. Any thread, one at a time.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import ssl
from pathlib import Path
from typing import NamedTuple

from infer.errors import ConfigError

log = logging.getLogger("infer.security")

ALPN = "h2"
# TLS 1.2 suites; those of 1.3 have forward secrecy and authenticated encryption all of them.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class TlsFiles(NamedTuple):
    """PEM files: the server's certificate with what it is chained by, its key, and who signs clients' certificates."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def contents(self) -> tuple[bytes, bytes, bytes | None]:
        """Key, certificate, CAs of clients. Raises OSError."""
        authority = None if self.client_ca is None else self.client_ca.read_bytes()
        return self.key.read_bytes(), self.certificate.read_bytes(), authority

    def signature(self) -> tuple[tuple[int, ...], ...]:
        """Changes when a file does, replaced or rewritten; a file that is missing has one too."""
        return tuple(_signature(path) for path in self if path is not None)


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_mtime_ns, found.st_size, found.st_ino


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for HTTP/2 servers: TLS 1.2 or newer, ECDHE with AEAD, ALPN h2, no renegotiation, no compression.

    Raises ConfigError that says which file is wrong and what to do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols([ALPN])
    for path in files:
        if path is not None:
            _ensure_readable(path)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{files.key} is not the key of the certificate in {files.certificate}; give the pair "
                              "that was issued together") from None
        raise ConfigError(f"{files.certificate}, {files.key}: no usable certificate and key: "
                          f"{_words(error)}; both have to be PEM, the server's own certificate first") from None
    expiry = not_after(files.certificate)
    if expiry <= datetime.datetime.now(datetime.UTC):
        raise ConfigError(f"{files.certificate}: the certificate expired on {expiry:%Y-%m-%d %H:%M} UTC; renew it")
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            raise ConfigError(f"{files.client_ca}: no CA certificates: {_words(error)}; it has to be PEM") from None
    return context


def _ensure_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _no_password() -> str:
    raise ConfigError("the key is encrypted with a passphrase; give it decrypted, readable by the server alone")


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def not_after(certificate: Path) -> datetime.datetime:
    """Until when the first certificate of a PEM file is valid (RFC 5280, 4.1)."""
    found = _CERTIFICATE.search(certificate.read_text("ascii", "replace"))
    try:
        if found is None:
            raise ValueError
        content = ssl.PEM_cert_to_DER_cert(found[0])
        body = _field(_field(content, 0, _SEQUENCE)[0], 0, _SEQUENCE)[0]
        # version, where there is one; serial number, signature, issuer, validity.
        at = _field(body, 0, _VERSION)[1] if body[0] == _VERSION else 0
        for _ in range(3):
            at = _field(body, at)[1]
        validity = _field(body, at, _SEQUENCE)[0]
        at = _field(validity, 0)[1]
        kind, text = validity[at], _field(validity, at)[0].decode("ascii")
        if kind not in (_UTC_TIME, _GENERALIZED_TIME):
            raise ValueError
        # Two digits of a year: 1950 to 2049.
        century = ("19" if text[:2] >= "50" else "20") if kind == _UTC_TIME else ""
        return datetime.datetime.strptime(f"{century}{text}", "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)
    except (ValueError, IndexError):
        raise ConfigError(f"{certificate}: is not an X.509 certificate as PEM") from None


def _field(content: bytes, at: int, kind: int | None = None) -> tuple[bytes, int]:
    """Content of the DER field that starts at `at`, and where the next one starts."""
    if kind is not None and content[at] != kind:
        raise ValueError
    size, start = content[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(content[at + 2:start], "big")
    if start + size > len(content):
        raise ValueError
    return content[start:start + size], start + size


class Certificates:
    """The context of the files as they are, or as they were when they last were good."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises ConfigError."""
        self._files = files
        self._seen = files.signature()
        self.context = server_context(files)
        self.pem = files.contents()
        self.expiry = not_after(files.certificate)
        self.problem = ""           # of the files as they are; "" where the context is theirs

    def check(self) -> bool:
        """Whether the files have changed and there is a new context. May wait for a disk."""
        seen = self._files.signature()
        if seen == self._seen and not self.problem:
            return False
        try:
            context = server_context(self._files)
            expiry = not_after(self._files.certificate)
            pem = self._files.contents()
        except (ConfigError, OSError) as error:
            if seen != self._seen or not self.problem:
                log.error("the certificate changed and cannot be used; the old one stays in use: %s", error)
            self._seen, self.problem = seen, str(error)
            return False
        self._seen, self.problem = seen, ""
        self.context, self.pem, self.expiry = context, pem, expiry
        log.info("new certificate", extra={"path": str(self._files.certificate), "expires": expiry.isoformat()})
        return True
