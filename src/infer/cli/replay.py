"""`infer replay`: captured requests, sent again, and how far the answers are from those that were captured."""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from infer.cli.differences import table_of
from infer.cli.remote import connected, server_options
from infer.shadow_plan import ATOL, RTOL

if TYPE_CHECKING:
    from infer.capture_file import CapturedCall
    from infer.cli.client import Client
    from infer.reply_comparison import ReplyComparison

PATH = "/inference.GRPCInferenceService/ModelInfer"
WORST = 8


class Answer(NamedTuple):
    """Of one captured call: the reply, or why there is none."""

    call: CapturedCall
    number: int
    reply: bytes = b""
    status: str = ""
    failure: str = ""


@click.command("replay")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--to", default="", metavar="MODEL[:VERSION]",
              help="What answers.  [default: the model that was captured, as requests without a version find it]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Send the first N requests alone.")
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1, 1024), metavar="N",
              help="Requests under way at a time.")
@click.option("--rtol", default=RTOL, show_default=True, type=click.FloatRange(0),
              help="Elements agree within this part of the captured ones.")
@click.option("--atol", default=ATOL, show_default=True, type=click.FloatRange(0), help="And this beside it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with histograms.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False, writable=True), metavar="FILE",
              help="Write it to a page with plots, which needs nothing beside it.")
@server_options(30.0)
def command(*, file: Path, to: str, limit: int | None, concurrency: int, rtol: float, atol: float, as_json: bool,
            page: Path | None, **server: Any) -> None:
    """Send the requests of FILE, which `infer capture` has made, and compare the answers with those that it has. The
    exit status is 1 where any differs or fails."""
    from infer.capture_file import CaptureReader
    from infer.reply_comparison import ReplyComparison

    with connected("replay", **server) as client:
        reader = CaptureReader(file)
        redacted = reader.about.get("redacted", [])
        comparison = ReplyComparison(rtol, atol, redacted)
        report = replayed(answers(client, itertools.islice(reader, limit), to, concurrency), comparison)
    report |= {"torn": reader.torn, "redacted": redacted, "file": str(reader.path),
               "model": reader.about.get("model", ""), "to": to, "rtol": rtol, "atol": atol}
    for line in [json.dumps(report)] if as_json else lines_of(report):
        click.echo(line)
    if page is not None:
        from infer.cli.replay_page import page_of

        page.write_text(page_of(report), encoding="utf-8")
        click.echo(f"written to {page}", err=True)
    if report["differed"] or report["failed"]:
        raise SystemExit(1)


def answers(client: Client, calls: Iterable[CapturedCall], to: str, concurrency: int) -> Iterator[Answer]:
    """In the order of the calls, of which so many are under way at a time."""
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(concurrency) as pool:
        for number, call in enumerate(calls, 1):
            waiting.append(pool.submit(answered, client, call, number, to))
            if len(waiting) >= 2 * concurrency:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def answered(client: Client, call: CapturedCall, number: int, to: str) -> Answer:
    from google.protobuf.message import DecodeError

    from infer.cli.client import CallFailed
    from infer.proto import message

    model, _, version = to.partition(":")
    try:
        request = message("inference.ModelInferRequest").FromString(call.request)
    except DecodeError as error:
        return Answer(call, number, status="UNREADABLE", failure=f"request {number} cannot be read: {error}")
    request.model_name = model or call.model
    request.model_version = version
    # Of one that a replica had forwarded: it is another's now.
    request.parameters.pop("infer_forwarded", None)
    # The version is to answer, not what it has answered before.
    request.parameters["infer_cache"].string_param = "no-store"
    try:
        return Answer(call, number, client.call(PATH, request.SerializeToString()))
    except CallFailed as error:
        return Answer(call, number, status=error.status, failure=error.message)


def replayed(found: Iterable[Answer], comparison: ReplyComparison) -> dict[str, Any]:
    """What it came to, plain."""
    from google.protobuf.message import DecodeError

    worst: list[tuple[float, int, str]] = []
    statuses: Counter[str] = Counter()
    failure = ""
    sent = 0
    for answer in found:
        sent += 1
        if answer.status:
            statuses[answer.status] += 1
            failure = failure or answer.failure
            continue
        try:
            badness = comparison.add(answer.call.reply, answer.reply)
        # No reply, or one whose outputs are not raw.
        except (ValueError, DecodeError) as error:
            statuses["UNREADABLE"] += 1
            failure = failure or f"request {answer.number}: the replies cannot be compared: {error}"
            continue
        if badness > 0:
            heapq.heappush(worst, (badness, -answer.number, _id_of(answer.call)))
            if len(worst) > WORST:
                heapq.heappop(worst)
    return {"sent": sent, "agreed": comparison.agreed, "differed": comparison.differed,
            "failed": statuses.total(), "statuses": dict(statuses), "failure": failure,
            "outputs": comparison.outputs(),
            "worst": [{"apart": badness, "number": -number, "id": identity}
                      for badness, number, identity in sorted(worst, reverse=True)]}


def _id_of(call: CapturedCall) -> str:
    from infer.proto import message

    identity: str = message("inference.ModelInferRequest").FromString(call.request).id
    return identity


def lines_of(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['sent']} requests of {report['file']}, captured of model {report['model']}",
             f"{report['agreed']} agreed, {report['differed']} differed, {report['failed']} failed"]
    if report["redacted"]:
        lines.append(f"not captured: the contents of {', '.join(report['redacted'])}, for which zeros were sent; what "
                     "depends on an input of these differs")
    if report["torn"]:
        lines.append("the end of the file is torn, and was left out")
    if report["failure"]:
        lines.append("failed: " + ", ".join(f"{count} {status}" for status, count in report["statuses"].items())
                     + f"; the first: {report['failure']}")
    lines += table_of(report["outputs"])
    for pair in report["worst"]:
        named = f", id {pair['id']}" if pair["id"] else ""
        lines.append(f"apart by {pair['apart']:.6g}: request {pair['number']}{named}")
    return lines
