"""`infer cache`: what a server keeps of its answers, and how to have it forget them."""

from __future__ import annotations

import json
from typing import Any

import click

from infer.cli.admin import admin_options, ask
from infer.cli.tables import columns

HEAD = ("MODEL", "VERSION", "ENTRIES", "BYTES", "OF", "HITS", "JOINED", "MISSES", "HIT RATIO", "GONE", "WAITING", "")
GONE = ("evictions", "expiries", "rejections")


@click.group("cache")
def command() -> None:
    """What a server keeps of its answers. Asked of the server's --admin-port, on this machine."""


@command.command("stats")
@click.argument("model", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a version, with all its counts.")
@admin_options
def stats(*, model: str, as_json: bool, **server: Any) -> None:
    """Print what is kept of MODEL, or of all, and what came of it."""
    reply = ask("cache stats", "CacheStats", model=model, **server)
    if as_json:
        for version in reply.versions:
            click.echo(json.dumps({field.name: getattr(version, field.name) for field in version.DESCRIPTOR.fields}))
        return
    if not reply.versions:
        click.echo("no model's answers are kept; --cache or response_cache of a model turns that on")
        return
    for line in columns(HEAD, map(_row, reply.versions)):
        click.echo(line)
    click.echo(f"{reply.entries} answers, {reply.bytes} of {reply.limit_bytes} bytes")


@command.command("purge")
@click.argument("model", default="")
@click.option("--version", default="", metavar="N", help="This version alone.")
@admin_options
def purge(*, model: str, version: str, **server: Any) -> None:
    """Forget what is kept of MODEL, or of all; what runs now is not kept either. The audit log has it."""
    reply = ask("cache purge", "CachePurge", model=model, version=version, **server)
    click.echo(f"{reply.entries} answers forgotten, {reply.bytes} bytes")


def _row(version: Any) -> tuple[str, ...]:
    asked = version.hits + version.misses
    ratio = f"{version.hits / asked:.1%}" if asked else "-"
    return (version.model, version.version, str(version.entries), str(version.bytes), str(version.limit_bytes),
            str(version.hits), str(version.joined), str(version.misses), ratio,
            str(sum(getattr(version, name) for name in GONE)), str(version.waiting),
            "bypassed: hits are too few" if version.bypassed else "")
