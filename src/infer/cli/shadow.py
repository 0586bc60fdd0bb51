"""`infer shadow`: have a version answer copies of what others have answered, and see how far it is from them."""

from __future__ import annotations

from typing import Any

import click

from infer.cli.admin import admin_options, ask, reason_option
from infer.cli.differences import table_of


@click.group("shadow")
def command() -> None:
    """A version that has copies of what a model's others answer. Nobody waits for it: its answers are only compared.
    Asked of the server's --admin-port, on this machine."""


@command.command("start")
@click.argument("model")
@click.option("--to", required=True, metavar="VERSION", help="The version, or a label, that has the copies.")
@click.option("--fraction", default=1.0, show_default=True, type=click.FloatRange(0, 1, min_open=True),
              help="Of the model's requests.")
@click.option("--rtol", type=click.FloatRange(0), help="Elements agree within this part of the primary's.  "
              "[default: 1e-05]")
@click.option("--atol", type=click.FloatRange(0), help="And this beside it.  [default: 1e-08]")
@reason_option
@admin_options
def start(*, model: str, to: str, fraction: float, rtol: float | None, atol: float | None, reason: str,
          **server: Any) -> None:
    """Copy requests of MODEL to a version, from now on and after restarts."""
    given: dict[str, Any] = {name: value for name, value in (("rtol", rtol), ("atol", atol)) if value is not None}
    reply = ask("shadow start", "ShadowSet", model=model, to=to, fraction=fraction, reason=reason, **given, **server)
    shadow = reply.shadow
    if shadow.problem:
        click.echo(f"kept, but not running: {shadow.problem}")
    else:
        click.echo(f"model {model} version {shadow.version} has copies of {100 * shadow.fraction:.4g}% of the requests")


@command.command("stop")
@click.argument("model")
@reason_option
@admin_options
def stop(*, model: str, reason: str, **server: Any) -> None:
    """End the shadow of MODEL; prints what it came to."""
    reply = ask("shadow stop", "ShadowClear", model=model, reason=reason, **server)
    for line in lines_of(reply.shadow):
        click.echo(line)


@command.command("report")
@click.argument("model", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a shadow, with histograms and the worst "
              "pairs.")
@admin_options
def report(*, model: str, as_json: bool, **server: Any) -> None:
    """Print how far the shadow of MODEL, or each, is from what was answered."""
    reply = ask("shadow report", "ShadowReport", model=model, **server)
    if not reply.shadows and not as_json:
        click.echo("no model has a shadow; `infer shadow start MODEL --to VERSION` gives it one")
    for shadow in reply.shadows:
        for line in [json_of(shadow)] if as_json else lines_of(shadow):
            click.echo(line)


def json_of(shadow: Any) -> str:
    from google.protobuf.json_format import MessageToJson

    text: str = MessageToJson(shadow, preserving_proto_field_name=True, always_print_fields_with_no_presence=True,
                              indent=None)
    return text


def lines_of(shadow: Any) -> list[str]:
    """A shadow and what it came to."""
    version = f"version {shadow.version}" if shadow.version else f"{shadow.to}, which is not running: {shadow.problem}"
    lines = [f"model {shadow.model}: {100 * shadow.fraction:.4g}% of requests to {version}",
             f"{shadow.picked} picked: {shadow.agreed} agreed, {shadow.differed} differed, {shadow.failed} failed, "
             f"{sum(shadow.dropped.values())} dropped, {shadow.waiting} waiting"]
    if shadow.dropped:
        lines.append("dropped: " + ", ".join(f"{count} {WHY[why]}" for why, count in sorted(shadow.dropped.items())))
    if shadow.failure:
        lines.append(f"the last failure: {shadow.failure}")
    lines += table_of({output.name: _plain(output) for output in shadow.outputs})
    for pair in shadow.worst:
        lines.append(f"apart by {pair.badness:.6g}: request {pair.id or 'without an id'}")
    return lines


WHY = {"copies": "for want of room", "bytes": "for the bytes that they held", "memory": "for memory that others need",
       "ended": "at its end"}


def _plain(output: Any) -> dict[str, Any]:
    """As `difference.described` has it, as far as it is shown."""
    names = ("compared", "differing", "incomparable", "top1", "top1_same", "max_abs", "max_rel")
    return {name: getattr(output, name) for name in names} | {
        kind: {name: getattr(getattr(output, kind), name) for name in ("count", "p50", "p99")}
        for kind in ("relative", "cosine_distance")}
