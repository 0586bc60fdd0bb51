"""`infer models`: what a server knows of its models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from infer.cli.remote import connected, server_options
from infer.cli.tables import columns

if TYPE_CHECKING:
    from infer.cli.client import Client

READY = "READY"
HEAD = ("MODEL", "VERSION", "STATE", "LABELS", "SHA256", "REASON")
HASH_CHARACTERS = 12


@click.command("models")
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a version, with all that is known of it.")
@server_options(timeout=30.0)
def command(*, names: tuple[str, ...], as_json: bool, **server: Any) -> None:
    """List a server's models: every version with its state, its labels and, where it is not served, why."""
    with connected("models", **server) as client:
        found = [known(client, each) for each in client.models() if not names or each.name in names]
    missing = [name for name in names if name not in {version["name"] for version in found}]
    if as_json:
        for version in found:
            click.echo(json.dumps(version))
    elif found:
        for line in columns(HEAD, map(_row, found)):
            click.echo(line)
    elif not names:
        click.echo("no models")
    if missing:
        click.echo(f"infer models: the server knows no model {', '.join(map(repr, missing))}", err=True)
        raise SystemExit(1)


def known(client: Client, index: Any) -> dict[str, Any]:
    """A version as the index has it, with its metadata's properties where it is served."""
    from infer.errors import InferError, NotFound, Unavailable

    properties: dict[str, str] = {}
    if index.state == READY:
        try:
            properties = dict(client.metadata(index.name, index.version).properties)
        except InferError as error:
            # It may have been unloaded since.
            if error.code not in (NotFound.code, Unavailable.code):
                raise
    labels = [label for label in properties.pop("labels", "").split(", ") if label]
    return {"name": index.name, "version": index.version, "state": index.state, "labels": labels,
            "reason": index.reason, "properties": properties}


def _row(version: dict[str, Any]) -> tuple[str, ...]:
    return (version["name"], version["version"] or "-", version["state"], ",".join(version["labels"]) or "-",
            version["properties"].get("sha256", "")[:HASH_CHARACTERS] or "-", version["reason"])
