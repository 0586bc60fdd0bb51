"""`infer rollout`: a new version gets traffic step by step, and loses it when a guardrail does not hold."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import Any

import click

from infer.cli.admin import admin_options, administration, reason_option
from infer.cli.tables import columns

HEAD = ("MODEL", "FROM", "TO", "STATE", "WEIGHT", "STEPS", "CALLS", "VERDICT")
GUARDRAILS = ("", "GUARDRAIL", "LIMIT", "BASELINE", "CANDIDATE", "CALLS", "RESULT")
EVENTS = ("TIME", "MODEL", "TO", "EVENT", "WEIGHT", "WHO", "REASON")
UNITS = {"errors": "{:.2%}", "drift": "PSI {:.2f}", "disagreement": "{:.2%}", "top1": "{:.2%}",
         "outcome": "{:.4g}"}


# What is sent as it is given.
PLAIN = ("min_samples", "alpha", "latency_slack_ms", "rtol", "atol", "shadow_fraction", "on_restart")


@click.group("rollout")
def command() -> None:
    """Roll a new version out by steps. Asked of the server's --admin-port, on this machine."""


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a rollout.")


@command.command("start")
@click.argument("model")
@click.option("--to", type=click.IntRange(min=1), required=True, metavar="VERSION", help="The version to roll out.")
@click.option("--from", "baseline", type=click.IntRange(min=0), default=0, metavar="VERSION",
              help="What it is compared with and takes over from; what answers now unless given.")
@click.option("--steps", default="", metavar="PERCENT,...", help="Such as 1,5,25,50,100; 0 first for a shadow alone.")
@click.option("--every", default="", metavar="TIME", help="How long a step lasts at least, such as 5m.")
@click.option("--guardrail", "guardrails", multiple=True, metavar="KIND=LIMIT",
              help="errors=0.01, p50=1.5, p95=1.5, p99=1.5, drift=0.1; of a shadow disagreement=0.01 (copies answered "
                   "otherwise), top1=0.01 (another largest element); of what clients report (RecordOutcome) "
                   "outcome:bought=-0.02, outcome:spend:mean:0..500=-5 (may fall by so much; a limit above 0: may "
                   "rise). KIND=off leaves one out. May be repeated.")
@click.option("--gate", "gates", multiple=True, metavar="KIND=LIMIT",
              help="Before the first call: latency=5ms, the 95th of 100 runs, one at a time at the lowest priority, of "
                   "the golden inputs or of a made-up row; replay=FILE below the server's --capture-dir, whose calls "
                   "are answered as they were captured but for a share differs=0.01, none farther off than apart=0.1. "
                   "May be repeated.")
@click.option("--min-samples", type=click.IntRange(min=1), metavar="N", help="Calls that a step has to see.")
@click.option("--alpha", type=float, metavar="P", help="Chance that a version as good as the old one is taken back.")
@click.option("--slack", "latency_slack_ms", type=click.FloatRange(min=0), metavar="MS",
              help="Within which no latency is worse, whatever p50, p95 and p99 allow.  [default: 0.5]")
@click.option("--rtol", type=click.FloatRange(min=0), metavar="R",
              help="Outputs are the same within this part of the old version's.  [default: 0.001]")
@click.option("--atol", type=click.FloatRange(min=0), metavar="A", help="And this beside it.  [default: 1e-05]")
@click.option("--shadow-fraction", type=click.FloatRange(0, 1, min_open=True), metavar="F",
              help="Of the old version's calls that a shadow answers too, for disagreement and top1.  [default: 1]")
@click.option("--on-restart", type=click.Choice(["continue", "rollback"]), help="What a server does that is restarted.")
@reason_option
@admin_options
def start(*, steps: str, every: str, **options: Any) -> None:
    """Begin to give the calls of MODEL that name no version to version --to, step by step.

    What is not given is as [models.MODEL.rollout] says. It goes on by itself, and back to none of them when the version
    is worse than a guardrail allows.
    """
    from infer.errors import InvalidArgument
    from infer.rollouts import parse_seconds, parse_steps

    said: dict[str, Any] = {"from": options.pop("baseline"), "guardrails": list(options.pop("guardrails")),
                            "gates": list(options.pop("gates"))}
    try:
        if steps:
            said["steps"] = parse_steps(steps)
        if every:
            said["every_seconds"] = parse_seconds(every)
    except InvalidArgument as error:
        raise click.BadParameter(error.message) from None
    for name in PLAIN:
        value = options.pop(name)
        if value is not None:
            said[name] = value
    _print(ask("start", "RolloutStartRequest", "Rollout", **said, **options))


def _change(verb: str, text: str, *, with_all: bool = False) -> None:
    @click.argument("model")
    @reason_option
    @admin_options
    def change(**options: Any) -> None:
        _print(ask(verb, "RolloutChangeRequest", "Rollout", **options))

    change.__doc__ = text
    if with_all:
        change = click.option("--all", "all", is_flag=True, help="To the end, not to the next step.")(change)
    command.command(verb)(change)


_change("pause", "Keep MODEL's rollout at its step; guardrails go on holding it.")
_change("resume", "Have a paused rollout go on.")
_change("promote", "Go to the next step now, whatever the guardrails say.", with_all=True)
_change("abort", "End MODEL's rollout: the old version gets all calls again.")


@command.command("status")
@click.argument("model", default="")
@json_option
@admin_options
def status(*, as_json: bool, **options: Any) -> None:
    """Print where the last rollout of MODEL, or of each, is, and what its guardrails say."""
    reply = ask("status", "RolloutRequest", "Rollouts", **options)
    if as_json:
        _print_json(reply.rollouts)
    elif not reply.rollouts:
        click.echo("there has been no rollout; infer rollout start begins one")
    else:
        for each in reply.rollouts:
            _print(each)


@command.command("history")
@click.argument("model", default="")
@json_option
@admin_options
def history(*, as_json: bool, **options: Any) -> None:
    """Print what happened to rollouts of MODEL, or of all: when, by whom, and why."""
    reply = ask("history", "RolloutRequest", "Rollouts", **options)
    if as_json:
        _print_json(reply.rollouts)
        return
    for line in columns(EVENTS, [
            (_time(event.time), each.model, str(each.to), event.event, f"{event.weight:g}%", event.who, event.reason)
            for each in reply.rollouts for event in each.history]):
        click.echo(line)


@command.command("watch")
@click.argument("model", default="")
@json_option
@admin_options
def watch(*, as_json: bool, **options: Any) -> None:
    """Print the rollout of MODEL, or of each, whenever it changes, until it has ended."""
    ended: dict[str, bool] = {}
    for each in stream("watch", "RolloutRequest", "Rollout", **options):
        if as_json:
            _print_json([each])
        else:
            click.echo(f"{each.model} {getattr(each, 'from')} -> {each.to}: {each.state}, {each.weight:g}%, "
                       f"{each.samples} calls: {each.result}" + (f": {each.reason}" if each.reason else ""))
        ended[each.model] = each.state in ("done", "rolled back", "aborted")
        if options["model"] and all(ended.values()):
            return


def ask(verb: str, request: str, reply: str, *, address: str, timeout: float, **fields: Any) -> Any:
    """The reply of Rollout<Verb>, a message named `reply`."""
    from infer.proto import message

    with administration(f"rollout {verb}", address=address, timeout=timeout) as client:
        content = client.call(path_of(verb), message(f"infer.v1.{request}")(**fields).SerializeToString())
    return message(f"infer.v1.{reply}").FromString(content)


def stream(verb: str, request: str, reply: str, *, address: str, timeout: float, **fields: Any) -> Iterator[Any]:
    """Its replies as they come."""
    from infer.proto import message

    with administration(f"rollout {verb}", address=address, timeout=timeout) as client:
        for content in client.stream(path_of(verb), message(f"infer.v1.{request}")(**fields).SerializeToString()):
            yield message(f"infer.v1.{reply}").FromString(content)


def path_of(verb: str) -> str:
    return f"/infer.v1.Admin/Rollout{verb.capitalize()}"


def _print_json(rollouts: Any) -> None:
    from google.protobuf.json_format import MessageToDict

    for each in rollouts:
        click.echo(json.dumps(MessageToDict(each, preserving_proto_field_name=True,
                                            always_print_fields_with_no_presence=True)))


def _print(rollout: Any) -> None:
    steps = ",".join(f"{each:g}" for each in rollout.steps)
    told = rollout.reason if rollout.state in ("done", "rolled back", "aborted") else (
        f"{rollout.result}: {rollout.reason}" if rollout.reason else rollout.result)
    for line in columns(HEAD, [(rollout.model, str(getattr(rollout, "from")), str(rollout.to), rollout.state,
                                f"{rollout.weight:g}%", steps, str(rollout.samples), told)]):
        click.echo(line)
    if rollout.guardrails:
        for line in columns(GUARDRAILS, [
                ("", each.kind, f"{each.limit:g}", _measure(each.kind, each.baseline),
                 _measure(each.kind, each.candidate), str(each.samples), each.result) for each in rollout.guardrails]):
            click.echo(line)


def _measure(kind: str, value: float) -> str:
    return UNITS.get(kind.partition(":")[0], "{:.3g} ms").format(value)


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
