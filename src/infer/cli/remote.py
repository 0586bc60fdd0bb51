"""What the verbs that ask a server share: where it is, and how its refusals end the command."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from infer.cli.tls import TlsOptions, tls_options

if TYPE_CHECKING:
    from infer.cli.client import Client

Command = TypeVar("Command", bound=Callable[..., Any])


def server_options(timeout: float) -> Callable[[Command], Command]:
    """Adds --address, --timeout and those of TLS; the command hands them to `connected` as they come."""
    def add(command: Command) -> Command:
        command = tls_options(command)
        command = click.option("--timeout", default=timeout, metavar="SECONDS", show_default=True,
                               type=click.FloatRange(min=0.001), help="Time that the call may take.")(command)
        return click.option("--address", default="localhost:8001", metavar="HOST:PORT|unix:PATH", show_default=True,
                            help="Where the server is.")(command)

    return add


@contextlib.contextmanager
def connected(verb: str, *, address: str, timeout: float, **tls: Any) -> Iterator[Client]:
    """A client; its errors end the command with status 1, those in the request with 2."""
    from infer.cli.client import Client
    from infer.errors import InferError, InvalidArgument

    try:
        with contextlib.closing(Client(address, timeout, TlsOptions(**tls).credentials())) as client:
            yield client
    except InferError as error:
        click.echo(f"infer {verb}: {error.message}", err=True)
        raise SystemExit(2 if error.code == InvalidArgument.code else 1) from None
