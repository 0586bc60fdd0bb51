"""`infer split`: divide a model's traffic over its versions, or other models, and see what each is given."""

from __future__ import annotations

from typing import Any

import click

from infer.cli.admin import admin_options, ask, reason_option
from infer.cli.tables import columns

HEAD = ("VARIANT", "SHARE", "WEIGHT", "VERSION", "CALLS", "FAILED", "P50 MS", "P99 MS", "")


@click.group("split")
def command() -> None:
    """A model's requests that name no version, divided by weight and sticky to a key: the metadata of
    --routing-metadata-key, a parameter of the request, the tenant. Asked of the server's --admin-port, on this
    machine."""


@command.command("set")
@click.argument("model")
@click.option("--to", required=True, metavar="3=90,4=10",
              help="Weight by version or label; NAME@4=10 gives the variant a name, OTHER:1=5 is another model's.")
@click.option("--key", default="", metavar="PARAMETER",
              help="The request's parameter with the routing key.  [default: as it is, or routing_key]")
@click.option("--rule", "rules", multiple=True, metavar="KEY=VARIANT",
              help="This key goes there whatever the weights are; may be given more than once.  [default: as they are]")
@click.option("--no-rules", is_flag=True, help="The rules that there are go.")
@click.option("--name", default="", help="Divides the same keys anew.  [default: as it is, or split]")
@reason_option
@admin_options
def set_(*, model: str, to: str, key: str, rules: tuple[str, ...], no_rules: bool, name: str, reason: str,
         **server: Any) -> None:
    """Divide the requests of MODEL, from now on and after restarts. Where weights change, only what one grows by
    moves."""
    from infer.errors import InvalidArgument
    from infer.proto import message
    from infer.split_plan import parse_arms, parse_rules

    try:
        arms, given = parse_arms(to), parse_rules(rules)
    except InvalidArgument as error:
        raise click.UsageError(error.message) from None
    variant = message("infer.v1.Variant")
    reply = ask("split set", "SplitSet", model=model, name=name, key=key, rules=given, drop_rules=no_rules,
                variants=[variant(name=arm.name, to=arm.place, weight=arm.weight) for arm in arms], reason=reason,
                **server)
    for line in lines_of(reply.split):
        click.echo(line)


@command.command("show")
@click.argument("model", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a model.")
@admin_options
def show(*, model: str, as_json: bool, **server: Any) -> None:
    """Print how the requests of MODEL, or of each, are divided, and what became of them."""
    reply = ask("split show", "SplitGet", model=model, **server)
    if not reply.splits and not as_json:
        click.echo("no model's traffic is divided; `infer split set MODEL --to 3=90,4=10` does that")
    for split in reply.splits:
        for line in [json_of(split)] if as_json else lines_of(split):
            click.echo(line)


@command.command("clear")
@click.argument("model")
@reason_option
@admin_options
def clear(*, model: str, reason: str, **server: Any) -> None:
    """Divide the requests of MODEL no more, whatever the settings say: its default version has them all."""
    ask("split clear", "SplitClear", model=model, reason=reason, **server)
    click.echo(f"model {model}: its default version has all requests that name none")


def json_of(split: Any) -> str:
    from google.protobuf.json_format import MessageToJson

    text: str = MessageToJson(split, preserving_proto_field_name=True, always_print_fields_with_no_presence=True,
                              indent=None)
    return text


def lines_of(split: Any) -> list[str]:
    """A split and what it came to."""
    rules = f", {len(split.rules)} rules" if split.rules else ""
    by = "infer split" if split.by_rpc else "the settings"
    return [f"model {split.model}: split {split.name!r} by parameter {split.key!r}{rules}, from {by}",
            *columns(HEAD, map(_row, split.variants))]


def _row(variant: Any) -> tuple[str, ...]:
    led = f"{variant.model}:{variant.version}" if variant.version else "-"
    return (variant.name, f"{variant.share:.2%}", f"{variant.weight:g}", led, str(variant.calls),
            str(variant.calls - variant.succeeded), f"{variant.p50_seconds * 1e3:.3g}",
            f"{variant.p99_seconds * 1e3:.3g}",
            f"gets none of its share: {variant.problem}" if variant.problem else "")
