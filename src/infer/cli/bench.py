"""`infer bench`: load on one served model from the compiled client."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from typing import Any

import click

from infer.cli.tls import TlsOptions, tls_options
from infer.errors import InferError

# What the generator has room for.
METADATA_MOST = 9


def _metadata(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    found = []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not re.fullmatch("[0-9a-z_.-]+", key) or not text.isascii() or not text.isprintable():
            raise click.BadParameter(f"{value!r}: expected KEY=VALUE, the key in lower case, the value printable ASCII")
        found.append((key, text))
    if len(found) > METADATA_MOST:
        raise click.BadParameter(f"at most {METADATA_MOST} can be sent")
    return found


@click.command("bench")
@click.argument("model")
@click.option("--address", default="localhost:8001", metavar="HOST:PORT|unix:PATH", show_default=True,
              help="Where the server is.")
@click.option("--version", "model_version", default="", metavar="N", help="Version of the model [the server's choice].")
@click.option("--connections", default=4, show_default=True, type=click.IntRange(min=1), help="Open connections.")
@click.option("--streams", default=64, show_default=True, type=click.IntRange(min=1),
              help="Calls under way on each connection.")
@click.option("--stream", is_flag=True,
              help="Send the calls as messages on one ModelStreamInfer stream for each connection.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="PER_SECOND",
              help="Open loop: calls scheduled at this rate, whatever the server does [closed loop].")
@click.option("--duration", default=10.0, show_default=True, metavar="SECONDS",
              type=click.FloatRange(min=0, min_open=True), help="Measured time.")
@click.option("--warmup", default=1.0, show_default=True, metavar="SECONDS", type=click.FloatRange(min=0),
              help="Time before it that does not count.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", callback=_metadata,
              help="Sent with every call, such as x-tenant=a; may be given more than once.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@tls_options
def command(*, model: str, address: str, model_version: str, connections: int, streams: int, stream: bool,
            rate: float | None, duration: float, warmup: float, metadata: list[tuple[str, str]], as_json: bool,
            **tls: Any) -> None:
    """Load MODEL with one-row calls and report rate and latency.

    Over TLS a thread of this process encrypts: its time is part of the latency, and it may be what limits the rate.
    The bundled examples get a row of their held-out data, any other model random data.
    Exit status 1 when a call failed.
    """
    from infer.versions import NOT_BUILT, TO_BUILD, native_is_built

    if not native_is_built():
        click.echo(f"infer bench: {NOT_BUILT}, and with it without the load generator; {TO_BUILD}, or measure with ghz",
                   err=True)
        raise SystemExit(1)

    from infer._core import load_client
    from infer.cli.client import Client, first_rows, random_inputs, sample_of, typed_inputs
    from infer.client.calls import INFER_PATH, STREAM_PATH
    from infer.client.messages import encode_request

    options = TlsOptions(**tls)
    try:
        with Client(address, 10.0, options.credentials()) as client:
            declared = client.metadata(model, model_version)
            sample = sample_of(declared)
            arrays = first_rows(sample, 1) if sample else random_inputs(declared)
            request = encode_request(model, typed_inputs(declared, arrays), version=model_version)
            # Once through the other client: an error in words comes before a count of failures.
            client.call(INFER_PATH, request, metadata=metadata)
        path, calls, messages = (STREAM_PATH, 1, streams) if stream else (INFER_PATH, streams, None)
        with _way_to(address, options) as way:
            result = load_client.run(way, path, request, connections, calls, stream_messages=messages,
                                     duration_s=duration, warmup_s=warmup, rate=rate, metadata=metadata)
    except (InferError, ConnectionError) as error:
        click.echo(f"infer bench: {error}", err=True)
        raise SystemExit(1) from None
    if as_json:
        raw = {"first_reply", "calls", "replies"}
        fields = {name: value for name, value in dataclasses.asdict(result).items() if name not in raw}
        click.echo(json.dumps({"model": model, "connections": connections, "streams": streams,
                               "stream": stream, "scheduled_rate": rate, **fields}))
    else:
        click.echo(report(result, model, connections, streams, rate, stream=stream))
    raise SystemExit(0 if result.ok == result.sent and not result.failures else 1)


def _way_to(address: str, options: TlsOptions) -> contextlib.AbstractContextManager[str]:
    if not options.wanted:
        return contextlib.nullcontext(address)
    from infer.cli.tls_relay import relay

    return relay(address, options)


def report(result: Any, model: str, connections: int, streams: int, rate: float | None, *,
           stream: bool = False) -> str:
    """The result in words, the warning first."""
    loop = f"open loop at {rate:,.0f}/s" if rate else "closed loop"
    unit = "messages on one stream" if stream else "calls"
    lines = []
    if result.bottleneck:
        lines.append(f"warning: the generator used {result.cpu_share:.0%} of its core and is the bottleneck; the "
                     "server may be faster than this")
    lines += [
        f"{model}: {connections} connections x {streams} {unit}, {loop}, {result.duration_s:.1f} s",
        f"  rate       {result.rate:>12,.0f} calls/s",
        f"  latency    {result.p50_us / 1e3:>12,.3f} ms p50",
        *(f"             {value / 1e3:>12,.3f} ms {name}" for name, value in (
            ("p90", result.p90_us), ("p99", result.p99_us), ("p99.9", result.p999_us), ("max", result.max_us))),
        f"  replies    {result.ok:>12,} OK of {result.sent:,} sent",
        f"  generator  {result.cpu_share:>12.0%} of its core",
    ]
    lines += [f"  {name:<10} {count:>12,}" for name, count in result.statuses.items() if name != "OK" and count]
    lines += [f"  {name:<10} {count:>12,}" for name, count in result.failures.items() if count]
    if result.reason:
        lines.append(f"  first failure: {result.reason}")
    return "\n".join(lines)
