"""`infer capture`: have a server write some of a model's calls to a file, for `infer replay`."""

from __future__ import annotations

import json
from typing import Any

import click

from infer.capture_plan import MAX_BYTES, MAX_MESSAGE_BYTES, PER_SECOND
from infer.cli.admin import admin_options, ask, reason_option
from infer.config_values import parse_size


def size_of(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Bytes, with or without a unit."""
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.group("capture")
def command() -> None:
    """Write some of a model's requests and replies to a file below the server's --capture-dir. The server has to run
    with --admin-port, on this machine."""


@command.command("start")
@click.argument("model")
@click.option("--name", required=True, metavar="NAME", help="Of the file: NAME.capture, which must not be there.")
@click.option("--fraction", default=1.0, show_default=True, type=click.FloatRange(0, 1, min_open=True),
              help="Of the model's calls.")
@click.option("--per-second", default=PER_SECOND, show_default=True, type=click.IntRange(0),
              help="Calls a second at most; 0 for all.")
@click.option("--max-bytes", default=str(MAX_BYTES), callback=size_of, metavar="SIZE",
              help="The file has no more: then the capture ends.  [default: 256MiB]")
@click.option("--max-message-bytes", default=str(MAX_MESSAGE_BYTES), callback=size_of, metavar="SIZE",
              help="Larger calls are left out.  [default: 1MiB]")
@click.option("--redact", multiple=True, metavar="TENSOR",
              help="An input or output whose contents are not written, or `id`. May be given several times.")
@reason_option
@admin_options
def start(*, redact: tuple[str, ...], address: str, timeout: float, **asked: Any) -> None:
    """Capture calls of MODEL from now on, until `infer capture stop`."""
    reply = ask("capture start", "CaptureStart", redact=list(redact), address=address, timeout=timeout, **asked)
    click.echo(f"calls of model {reply.capture.model} go to {reply.capture.path}")


@command.command("stop")
@click.argument("model")
@reason_option
@admin_options
def stop(*, model: str, reason: str, **server: Any) -> None:
    """End the capture of MODEL, and wait until its file is whole."""
    reply = ask("capture stop", "CaptureStop", model=model, reason=reason, **server)
    for line in lines_of(reply.capture):
        click.echo(line)


@command.command("status")
@click.argument("model", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a capture.")
@admin_options
def status(*, model: str, as_json: bool, **server: Any) -> None:
    """Print what is captured of MODEL, or of all."""
    reply = ask("capture status", "CaptureStatus", model=model, **server)
    if not reply.captures and not as_json:
        click.echo("no calls are captured")
    for capture in reply.captures:
        for line in [json_of(capture)] if as_json else lines_of(capture):
            click.echo(line)


def json_of(capture: Any) -> str:
    fields = {field.name: getattr(capture, field.name) for field in capture.DESCRIPTOR.fields}
    return json.dumps(fields | {"redact": list(capture.redact), "dropped": dict(capture.dropped)})


def lines_of(capture: Any) -> list[str]:
    lines = [f"model {capture.model}: {capture.taken} of {capture.seen} calls for {capture.path}, {capture.bytes} "
             f"bytes of at most {capture.max_bytes} written"]
    if capture.dropped:
        lines.append("left out: " + ", ".join(f"{count} {WHY[why]}" for why, count in sorted(capture.dropped.items())))
    if capture.problem:
        lines.append(f"it has ended: {capture.problem}")
    return lines


WHY = {"rate": "over the rate", "waiting": "for which the disk was too slow", "large": "that are large"}
