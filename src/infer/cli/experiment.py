"""`infer experiment`: arms of a model, compared by what clients report of the replies."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import click

from infer.cli.admin import admin_options, ask, reason_option
from infer.cli.tables import columns

HEAD = ("MODEL", "EXPERIMENT", "STATE", "ARMS", "UNITS", "SINCE", "DECISION")
PAST = ("STARTED", "ENDED", "MODEL", "EXPERIMENT", "WHO", "DECISION", "REASON")
ARMS = ("ARM", "TO", "SHARE", "CALLS", "FAILED", "P50 MS", "P95 MS", "P99 MS")
METRIC = ("", "ARM", "N", "MEAN", "EFFECT", "INTERVAL", "P(BEST)", "WOULD HAVE FOUND", "NEEDS")
GUARDRAILS = ("GUARDRAIL", "ARM", "LIMIT", "CONTROL", "VALUE", "CALLS", "RESULT")


@click.group("experiment")
def command() -> None:
    """Compare versions, or models, by outcomes that clients report with RecordOutcome. Asked of the server's
    --admin-port, on this machine."""


@command.command("start")
@click.argument("model")
@click.option("--arms", required=True, metavar="NAME=VERSION,...",
              help="The control first: control=1,new=2; OTHER:1 is another model's.")
@click.option("--weights", default="", metavar="N,...", help="Of the arms, in their order.  [default: equal]")
@click.option("--metric", "metrics", required=True, multiple=True, metavar="NAME:rate|mean[:lower][:MIN..MAX]",
              help="What clients report: clicked:rate, churned:rate:lower, spend:mean:0..500. May be repeated; the "
                   "first decides.")
@click.option("--name", default="", help="What it is called, and deals routing keys by.  [default: experiment-N]")
@click.option("--key-parameter", "key", default="", metavar="PARAMETER",
              help="The request's parameter with the routing key.  [default: routing_key]")
@click.option("--guardrail", "guardrails", multiple=True, metavar="KIND=LIMIT",
              help="errors=0.01, p50=1.5, p95=1.5, p99=1.5 against the control; KIND=off leaves one out. One that "
                   "fails ends the experiment.")
@click.option("--min-samples", type=click.IntRange(min=1), metavar="N", help="Calls before a guardrail is passed.")
@click.option("--alpha", type=float, metavar="P", help="Chance that any interval is ever wrong.  [default: 0.05]")
@click.option("--window", default="", metavar="TIME", help="How late an outcome may be.  [default: 1h]")
@click.option("--min-effect", type=float, metavar="X", help="Less of the first metric is no difference to you.")
@reason_option
@admin_options
def start(*, arms: str, weights: str, window: str, metrics: tuple[str, ...], guardrails: tuple[str, ...],
          **options: Any) -> None:
    """Divide the calls of MODEL that name no version over --arms, and count what clients report of each."""
    from infer.errors import InvalidArgument
    from infer.experiments import parse_experiment_arms
    from infer.proto import message
    from infer.rollouts import parse_seconds

    try:
        chosen = parse_experiment_arms(arms, weights)
        if window:
            options["window_seconds"] = parse_seconds(window)
    except InvalidArgument as error:
        raise click.UsageError(error.message) from None
    variant = message("infer.v1.Variant")
    for name in ("min_samples", "alpha", "min_effect"):
        if options[name] is None:
            del options[name]
    reply = ask("experiment start", "ExperimentStart", metrics=metrics, guardrails=guardrails,
                arms=[variant(name=arm.name, to=arm.place, weight=arm.weight) for arm in chosen], **options)
    for line in columns(HEAD, [_row(reply.experiment)]):
        click.echo(line)


@command.command("stop")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@reason_option
@admin_options
def stop(*, as_json: bool, **options: Any) -> None:
    """End MODEL's experiment: its default version has all calls again. Prints the last report, which is kept."""
    _print(json.loads(ask("experiment stop", "ExperimentStop", **options).report), as_json)


@command.command("status")
@click.argument("model", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an experiment.")
@admin_options
def status(*, as_json: bool, **options: Any) -> None:
    """Print the experiment with MODEL, or each, that is under way."""
    found = ask("experiment status", "ExperimentStatus", **options).experiments
    if as_json:
        _print_json(found)
    elif not found:
        click.echo("no experiment is under way; infer experiment start begins one")
    else:
        for line in columns(HEAD, map(_row, found)):
            click.echo(line)


@command.command("report")
@click.argument("model")
@click.option("--name", default="", help="Of that one.  [default: the one under way, or the last one]")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE",
              help="Write it to a page with plots, which needs nothing beside it.")
@admin_options
def report(*, as_json: bool, page: Path | None, **options: Any) -> None:
    """Print what MODEL's experiment has come to: of each arm its outcomes, the effect with an interval that holds
    whenever it is looked at, and the decision."""
    found = json.loads(ask("experiment report", "ExperimentReport", **options).report)
    if page is None or as_json:
        _print(found, as_json)
    if page is not None:
        from infer.cli.experiment_page import page_of

        page.write_text(page_of(found), encoding="utf-8")
        click.echo(f"written to {page}", err=True)


@command.command("history")
@click.argument("model", default="")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an experiment.")
@admin_options
def history(*, as_json: bool, **options: Any) -> None:
    """Print the experiments with MODEL, or with all, that have ended."""
    found = ask("experiment history", "ExperimentHistory", **options).experiments
    if as_json:
        _print_json(found)
        return
    for line in columns(PAST, [(time_of(each.started), time_of(each.ended), each.model, each.name, each.who,
                                _decided(each.decision, each.winner), each.reason) for each in found]):
        click.echo(line)


def _print_json(experiments: Any) -> None:
    from google.protobuf.json_format import MessageToDict

    for each in experiments:
        click.echo(json.dumps(MessageToDict(each, preserving_proto_field_name=True,
                                            always_print_fields_with_no_presence=True)))


def _row(experiment: Any) -> tuple[str, ...]:
    return (experiment.model, experiment.name, experiment.state,
            ",".join(f"{arm.name}={arm.to}" for arm in experiment.arms),
            ",".join(str(arm.units) for arm in experiment.arms), time_of(experiment.started),
            _decided(experiment.decision, experiment.winner))


def _decided(result: str, winner: str) -> str:
    return f"{result}: {winner}" if winner else result


def _print(found: dict[str, Any], as_json: bool) -> None:
    for line in [json.dumps(found)] if as_json else lines_of(found):
        click.echo(line)


def lines_of(report: dict[str, Any]) -> list[str]:
    """A report as text."""
    decision, ratio, outcomes = report["decision"], report["sample_ratio"], report["outcomes"]
    until = f", {time_of(report['ended'])} by {report['ended_by']}" if report["ended"] else ""
    lines = [f"experiment {report['experiment']} of model {report['model']}: {report['state']} since "
             f"{time_of(report['started'])}{until}",
             f"decision: {_decided(decision['result'], decision['winner'] or '')}",
             f"  {decision['reason']}", *(f"attention: {each}" for each in report["problems"]), ""]
    lines += columns(ARMS, [
        (arm["name"], arm["to"], f"{arm['share']:.4g}", str(arm["calls"]), str(arm["failed"]),
         *(shown(arm[key]) for key in ("p50_ms", "p95_ms", "p99_ms"))) for arm in report["arms"]])
    for metric in report["metrics"]:
        lines += ["", told_metric(metric)]
        lines += columns(METRIC, [metric_row(each) for each in metric["arms"]])
    lines += ["", f"sample ratio: {'as dealt' if ratio['ok'] else 'MISMATCH'}, "
                  f"{', '.join(f'{units:g}' for units in ratio['units'])} units, log evidence against it "
                  f"{ratio['log_e']:.3g}, limit {ratio['limit']:.3g}"]
    if report["guardrails"]:
        lines += ["", *columns(GUARDRAILS, [
            (each["kind"], each["arm"], f"{each['limit']:g}", measured(each["kind"], each["control"]),
             measured(each["kind"], each["value"]), str(each["samples"]), each["result"])
            for each in report["guardrails"]])]
    lines.append("outcomes: " + (", ".join(f"{count} {result}" for result, count in outcomes.items()) or "none"))
    return lines


def told_metric(metric: dict[str, Any]) -> str:
    bounds = f" from {metric['low']:g} to {metric['high']:g}" if metric["kind"] == "mean" else ""
    return (f"{metric['kind']} {metric['name']}{bounds}, {metric['better']} is better"
            f"{', the one that decides' if metric['primary'] else ''}; intervals at {1 - metric['alpha']:.4g}")


def metric_row(arm: dict[str, Any]) -> tuple[str, ...]:
    interval = "" if arm.get("low") is None else f"{arm['low']:+.4g} to {arm['high']:+.4g}"
    best = "" if arm["probability_best"] is None else f"{arm['probability_best']:.3f}"
    finding = arm.get("finding", "control") or "open"
    return (finding, arm["name"], str(arm["n"]), shown(arm["mean"]),
            "" if arm.get("effect") is None else f"{arm['effect']:+.4g}", interval, best,
            shown(arm.get("would_have_found")), "" if arm.get("needed") is None else f"{arm['needed']:.0f}")


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def measured(kind: str, value: float) -> str:
    return f"{value:.2%}" if kind == "errors" else f"{value:.3g} ms"


def time_of(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
