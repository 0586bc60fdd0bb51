"""`infer unload`: RepositoryModelUnload."""

from __future__ import annotations

from typing import Any

import click

from infer.cli.remote import connected, server_options


@click.command("unload")
@click.argument("model")
@server_options(timeout=600.0)
def command(*, model: str, **server: Any) -> None:
    """Unload every version of MODEL; done when they are gone.

    The server has to run with --model-control-mode explicit.
    """
    with connected("unload", **server) as client:
        client.unload(model)
    click.echo(f"{model}: unloaded")
