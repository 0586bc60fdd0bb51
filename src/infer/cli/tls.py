"""The TLS options that `infer call`, `bench` and `health` share. Imports nothing heavy until they are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    import grpc

Command = TypeVar("Command", bound=Callable[..., Any])


class TlsOptions(NamedTuple):
    """Given on the command line; any of the files asks for TLS."""

    tls: bool
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None

    @property
    def wanted(self) -> bool:
        return self.tls or any((self.tls_ca, self.tls_cert, self.tls_key))

    def credentials(self) -> grpc.ChannelCredentials | None:
        """For a channel; None for plaintext. Raises click.UsageError."""
        if not self.wanted:
            return None
        from infer.client import InferError, tls_credentials

        try:
            return tls_credentials(self.tls_ca, self.tls_cert, self.tls_key)
        except InferError as error:
            raise usage_error(error.message) from None


def usage_error(text: str) -> click.UsageError:
    return click.UsageError(f"--tls: {text}")


def tls_options(command: Command) -> Command:
    """Adds the options; the command takes them as `tls`, `tls_ca`, `tls_cert` and `tls_key`."""
    file = click.Path(path_type=Path)
    for option in reversed([
        click.option("--tls", is_flag=True, help="Talk TLS; the files below imply it."),
        click.option("--tls-ca", type=file, metavar="FILE",
                     help="CA that the server's certificate has to be signed by, PEM [well-known ones]."),
        click.option("--tls-cert", type=file, metavar="FILE", help="This client's certificate, PEM, for mTLS."),
        click.option("--tls-key", type=file, metavar="FILE", help="Its key, PEM."),
    ]):
        command = option(command)
    return command
