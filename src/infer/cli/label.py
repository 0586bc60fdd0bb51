"""`infer label`: moves a label of a model."""

from __future__ import annotations

import re
from typing import Any

import click

from infer.cli.remote import connected, server_options

NONE = "none"
MODEL_VERSION = re.compile("[1-9][0-9]{0,17}")


def _version(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    """A version's number; 0 for none."""
    if value == NONE:
        return 0
    if not MODEL_VERSION.fullmatch(value):
        raise click.BadParameter(f"{value!r}: expected a version's number, or {NONE}")
    return int(value)


@click.command("label")
@click.argument("model")
@click.argument("label")
@click.argument("version", callback=_version, metavar="VERSION|none")
@server_options(timeout=30.0)
def command(*, model: str, label: str, version: int, **server: Any) -> None:
    """Move LABEL of MODEL to VERSION, or forget the move, so that it is as the model's settings say (none).

    It moves at once where that version is ready, else when it is: until then requests go where it was. The server has
    to run with --model-control-mode explicit.
    """
    with connected("label", **server) as client:
        client.move_label(model, label, version)
        there = [each for each in client.models() if (each.name, each.version) == (model, str(version))]
    if not version:
        click.echo(f"{model}: {label} is as the model's settings say")
    elif there and there[0].state == "READY":
        click.echo(f"{model}: {label} is version {version}")
    else:
        click.echo(f"{model}: {label} will be version {version} once that is ready")
