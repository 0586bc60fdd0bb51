"""`infer health`: whether a server is ready, as an exit status for container health checks. Imports next to nothing."""

from __future__ import annotations

import os
from typing import Any

import click

from infer.cli.tls import TlsOptions, tls_options

HTTP_PORT, GRPC_PORT = 8002, 8001
# What the HTTP port answers for, by the name that gRPC health has for it.
PAGES = {"": "/v2/health/ready", "readiness": "/v2/health/ready", "liveness": "/v2/health/live"}
OK = 200


@click.command("health")
@click.option("--address", metavar="HOST:PORT|unix:PATH", help="Where the server is; unix:PATH with --grpc only "
              "[localhost and INFER_HTTP_PORT or 8002; with --grpc INFER_PORT or 8001].")
@click.option("--service", default="", metavar="NAME",
              help="readiness or liveness; with --grpc a model or model/version too [readiness].")
@click.option("--grpc", "over_grpc", is_flag=True, help="Ask grpc.health.v1 on the gRPC port, not HTTP.")
@click.option("--timeout", default=3.0, metavar="SECONDS", show_default=True, type=click.FloatRange(min=0.001),
              help="Time that the server has to answer.")
@tls_options
def command(*, address: str | None, service: str, over_grpc: bool, timeout: float, **tls: Any) -> None:
    """Exit 0 when the server is ready, 1 when it is not or does not answer."""
    options = TlsOptions(**tls)
    if options.wanted and not over_grpc:
        raise click.UsageError("the HTTP port speaks plaintext: --tls needs --grpc")
    if not over_grpc and service not in PAGES:
        raise click.UsageError(f"--service {service!r} is asked for over gRPC: add --grpc")
    if address is None:
        variable, port = ("INFER_PORT", GRPC_PORT) if over_grpc else ("INFER_HTTP_PORT", HTTP_PORT)
        address = default_address(variable, port)
    problem = (_ask_grpc(address, service, timeout, options) if over_grpc
               else _ask_http(address, PAGES[service], timeout))
    if problem:
        click.echo(f"infer health: {address}: {problem}", err=True)
        raise SystemExit(1)
    click.echo("serving")


def default_address(variable: str, port: int) -> str:
    """The server of this container: on the port that the variable gives it, where it is one."""
    written = os.environ.get(variable, "")
    # Kubernetes may set a variable of that name to the address of a Service.
    return f"localhost:{written if written.isdecimal() else port}"


def _ask_http(address: str, page: str, timeout: float) -> str:
    """What is wrong, "" where nothing is."""
    from http.client import HTTPConnection, HTTPException

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise click.UsageError(f"--address {address!r}: expected HOST:PORT")
    connection = HTTPConnection(host.removeprefix("[").removesuffix("]"), int(port), timeout=timeout)
    try:
        connection.request("GET", page)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"{getattr(error, 'strerror', None) or error or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == OK else f"not serving ({page} answered {status})"


def _ask_grpc(address: str, service: str, timeout: float, tls: TlsOptions) -> str:
    """What is wrong, "" where nothing is."""
    from infer.client import InferClient, InferError, RetryPolicy

    with InferClient(address, timeout=timeout, credentials=tls.credentials(), retry=RetryPolicy(attempts=1)) as client:
        try:
            return "" if client.healthy(service) else "not serving"
        except InferError as error:
            return f"{error.status}: {error.message}"
