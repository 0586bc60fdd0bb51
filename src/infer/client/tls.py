"""Channel credentials from PEM files."""

from __future__ import annotations

import os
from pathlib import Path

import grpc

from infer.errors import InvalidArgument

File = str | os.PathLike[str]


def tls_credentials(ca: File | None = None, cert: File | None = None, key: File | None = None
                    ) -> grpc.ChannelCredentials:
    """For the clients' `credentials`: TLS, the server's certificate signed by `ca`, or by a well-known CA without one.

    `cert` and `key` are the client's own, for servers that ask for one (mTLS). Files are PEM. Raises InvalidArgument.
    """
    if (cert is None) != (key is None):
        raise InvalidArgument("a client's certificate and its key go together; give both, or neither")
    return grpc.ssl_channel_credentials(_read(ca), _read(key), _read(cert))


def _read(file: File | None) -> bytes | None:
    if file is None:
        return None
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{os.fspath(file)}: cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in content:
        raise InvalidArgument(f"{os.fspath(file)}: is not PEM")
    return content
