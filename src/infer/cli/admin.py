"""What verbs of the port of administration have in common: their options, and how they ask."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from infer.cli.remote import Command, connected

if TYPE_CHECKING:
    from infer.cli.client import Client

ADDRESS = "localhost:8003"
# What grpcio, and a port of other services, say of one that is not there.
UNAVAILABLE, UNIMPLEMENTED = 14, 12


def admin_options(command: Command) -> Command:
    command = click.option("--timeout", default=30.0, metavar="SECONDS", show_default=True,
                           type=click.FloatRange(min=0.001), help="Time that the call may take.")(command)
    return click.option("--address", default=ADDRESS, metavar="HOST:PORT", show_default=True,
                        help="The server's --admin-port.")(command)


def reason_option(command: Command) -> Command:
    return click.option("--reason", default="", metavar="TEXT", help="Why, for the audit log.")(command)


def ask(verb: str, method: str, *, address: str, timeout: float, **fields: Any) -> Any:
    """The reply of an RPC of infer.v1.Admin."""
    from infer.proto import message

    try:
        request = message(f"infer.v1.{method}Request")(**fields)
    # What is no UTF-8, or no such number.
    except ValueError as error:
        raise click.UsageError(f"what was given cannot be sent: {error}") from None
    with administration(verb, address=address, timeout=timeout) as client:
        content = client.call(f"/infer.v1.Admin/{method}", request.SerializeToString())
    return message(f"infer.v1.{method}Response").FromString(content)


@contextlib.contextmanager
def administration(verb: str, *, address: str, timeout: float) -> Iterator[Client]:
    """A client of the port of administration; of one that is not there it says how to have one."""
    from infer.cli.client import CallFailed

    with connected(verb, address=address, timeout=timeout, tls=False, tls_ca=None, tls_cert=None,
                   tls_key=None) as client:
        try:
            yield client
        except CallFailed as error:
            if error.code in (UNAVAILABLE, UNIMPLEMENTED):
                raise CallFailed(
                    f"no port of administration answers at {address}: a server prints where its own is, which "
                    "only its machine reaches, unless --admin-port is none; name it with --address "
                    f"({error.message})", error.code) from None
            raise
