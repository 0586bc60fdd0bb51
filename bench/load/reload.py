"""`make bench-reload`: whether models that come and go while calls are answered cost a call, time, memory or CPU.

The server has both cores, and the generator shares one of them: it makes 2,000 calls a second for as long as versions
come and go. Three parts, each with a server of its own: a small model whose versions are renamed into place, replaced
and removed while the directory is watched; the same by RepositoryModelLoad; and a model of 100 MB, watched. In turn
there is a while without changes and a while with them, and the p99 of the two is compared.

Each generation of a model answers otherwise (`bench/load/generations.py`), and the generator records every call's times
and reply: each is held against the time at which the server's audit log has its generation loaded and draining.

CPU per request is measured in a closed loop before and after, in turns with a twin: a server whose models stay. What
the machine has done to both in between cancels out in the ratio of the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from bench.bars import Bar
from bench.compare import BUILD, Case
from bench.growth import MIB, Result, Sample, loaded, pairs_of, run_parts
from bench.load import payload
from bench.load.attribution import CALL, Answer, AuditRow, p99_ms, ready_times, strays
from bench.load.floods import failed_calls, take_precedence
from bench.load.generations import ROW, Lineage, Make, copy_first, make_large, make_small
from bench.targets import OURS, SERVICE, Server, ours
from infer._core import load_client
from infer.client import InferClient
from infer.client.messages import decode_reply
from infer.security.audit import read
from infer.state.database import reading

MODEL = "swapped"
RATE = 2_000
STREAMS = 64
RELOADS = {"watched": 150, "explicit": 50, "large": 20}
QUICK_RELOADS = {"watched": 12, "explicit": 6, "large": 3}
PAIRS, REQUESTS = 7, 100_000
QUICK_PAIRS, QUICK_REQUESTS = 3, 20_000
# Of changes in a row, and between two such rows.
BLOCKS, STEADY_S, QUICK_STEADY_S = 5, 4.0, 1.0
CLOSED_SHAPE = (4, 16)
POLL_S = 0.1
PROBE_S = 0.02
RELOAD_S = 30.0
SETTLE_S = 2.0
# Of the wall clock against the monotonic one, over the load.
DRIFT_NS = 1_000_000
FLAGS = f" --repository-poll-interval {POLL_S} --state-dir "
MODES = {"watched": " --model-control-mode watch", "explicit": " --model-control-mode explicit --load-model *",
         "large": " --model-control-mode watch"}
MAKERS: dict[str, Make] = {"watched": make_small, "explicit": make_small, "large": make_large}


class Amount(NamedTuple):
    """Of what is measured beside the changes."""

    pairs: int
    requests: int
    steady_s: float


class Load(threading.Thread):
    """The generator, until `end`: it runs without the GIL and before what else wants its core."""

    def __init__(self, server: Server, message: bytes) -> None:
        super().__init__()
        self._server, self._message = server, message
        self._ended = threading.Event()
        self._result: load_client.LoadResult | Exception | None = None

    def run(self) -> None:
        try:
            take_precedence()
            self._result = load_client.run(
                self._server.address, f"{SERVICE}/ModelInfer", self._message, 1, STREAMS, rate=RATE, record=True,
                until=self._ended.is_set)
        except Exception as error:
            self._result = error

    def end(self) -> None:
        self._ended.set()
        self.join()

    def result(self) -> load_client.LoadResult:
        self.end()
        if not isinstance(self._result, load_client.LoadResult):
            raise self._result or RuntimeError("the load has no result")
        return self._result


@contextmanager
def loading(server: Server, message: bytes) -> Iterator[Load]:
    load = Load(server, message)
    load.start()
    try:
        yield load
    finally:
        load.end()


def answer_of(lineage: Lineage, reply: bytes) -> Answer:
    result = decode_reply(reply)
    return Answer(result.model_version, lineage.generation_of(float(result["y"].item())))


class Changes:
    """What changes the models of a server that runs, one generation after another, each waited for."""

    def __init__(self, lineage: Lineage, client: InferClient, message: bytes, explicit: bool) -> None:
        self._lineage, self._client, self._message, self._explicit = lineage, client, message, explicit
        self._next = 1
        lineage.stage(1)

    def run(self, count: int) -> None:
        for _ in range(count):
            number = self._next
            self._lineage.place(number)
            self._next += 1
            if self._next < len(self._lineage.generations):
                self._lineage.stage(self._next)
            if self._explicit:
                self._client.call(f"{SERVICE}/RepositoryModelLoad", payload.field(2, MODEL.encode()))
            self._wait(number)

    def _wait(self, number: int) -> None:
        """Until that generation answers; at once after a load that was asked for."""
        until = time.monotonic() + RELOAD_S
        while (found := answer_of(self._lineage, self._client.call(f"{SERVICE}/ModelInfer", self._message))
               ).generation != number:
            if self._explicit or time.monotonic() > until:
                raise RuntimeError(f"generation {number} was put in place, and {found} answers")
            time.sleep(PROBE_S)


def wall_minus_monotonic_ns() -> int:
    """The middle of several readings."""
    readings = []
    for _ in range(9):
        before = time.monotonic_ns()
        wall = time.time_ns()
        readings.append(wall - (before + time.monotonic_ns()) // 2)
    return round(statistics.median(readings))


def audit_rows(state: Path) -> list[AuditRow]:
    connection = reading(state)
    try:
        return [AuditRow(entry.time, entry.event, entry.version, entry.outcome) for entry, _ in read(connection)
                if entry.model == MODEL]
    finally:
        connection.close()


def in_blocks(count: int, blocks: int) -> list[int]:
    """As even as can be, none of them empty."""
    blocks = min(count, blocks)
    return [count * (block + 1) // blocks - count * block // blocks for block in range(blocks)]


def cpu_ratio(pairs: list[tuple[Sample, Sample]]) -> float:
    """Of the server whose models change, by its twin's."""
    return statistics.median(subject.cpu_us / twin.cpu_us for subject, twin in pairs)


@dataclass(frozen=True)
class Figures:
    changes: int
    sent: int
    failed: int
    strays: dict[str, int]
    steady_p99_ms: float
    changing_p99_ms: float
    max_ms: float
    rss_bytes: tuple[int, int]
    """At the start and at the end, as are the next."""
    cpu_ratios: tuple[float, float]


def judged(name: str, figures: Figures) -> list[Bar]:
    what = f"{name}, {figures.changes} changes"
    rss_before, rss_after = figures.rss_bytes
    cpu_before, cpu_after = figures.cpu_ratios
    return [
        Bar(f"{what}: failed calls", figures.failed, 0, True),
        Bar(f"{what}: replies from a version that was not ready", sum(figures.strays.values()), 0, True),
        Bar(f"{what}: p99 while models change", figures.changing_p99_ms, figures.steady_p99_ms + 2, True, "ms"),
        Bar(f"{what}: RSS at the end, by that at the start", rss_after / rss_before * 100, 110, True, "%"),
        Bar(f"{what}: CPU per request at the end, by that at the start", cpu_after / cpu_before * 100, 103, True, "%"),
    ]


def print_figures(figures: Figures, before: list[tuple[Sample, Sample]], after: list[tuple[Sample, Sample]]) -> None:
    subject, twin = ([statistics.median(pair[side].cpu_us for pair in pairs) for pairs in (before, after)]
                     for side in (0, 1))
    print(f"  {figures.sent} calls, {figures.failed} failed; {figures.strays}\n"
          f"  p99 {figures.steady_p99_ms:.3f} ms steady, {figures.changing_p99_ms:.3f} ms while models change, longest"
          f" {figures.max_ms:.1f} ms\n"
          f"  RSS {figures.rss_bytes[0] / MIB:.1f} to {figures.rss_bytes[1] / MIB:.1f} MiB; CPU per request"
          f" {subject[0]:.2f} to {subject[1]:.2f} us, the twin's {twin[0]:.2f} to {twin[1]:.2f} us", flush=True)


@dataclass(frozen=True)
class Watched:
    """What the load saw while models changed, and the audit log's times put into its clock."""

    result: load_client.LoadResult
    calls: np.ndarray
    steady: list[tuple[int, int]]
    changing: list[tuple[int, int]]
    """Spans, in ns of the monotonic clock."""
    wall_minus_monotonic_ns: int


def change_under_load(server: Server, message: bytes, changes: Changes, count: int, steady_s: float) -> Watched:
    offset_ns = wall_minus_monotonic_ns()
    steady: list[tuple[int, int]] = []
    changing: list[tuple[int, int]] = []
    with loading(server, message) as load:
        time.sleep(steady_s)
        for block in in_blocks(count, BLOCKS):
            begin = time.monotonic_ns()
            time.sleep(steady_s)
            middle = time.monotonic_ns()
            changes.run(block)
            # What the last change leaves to be done is not the steady time's.
            time.sleep(SETTLE_S)
            steady.append((begin, middle))
            changing.append((middle, time.monotonic_ns()))
        result = load.result()
    drift_ns = abs(wall_minus_monotonic_ns() - offset_ns)
    if drift_ns > DRIFT_NS:
        raise RuntimeError(f"the wall clock was set by {drift_ns / 1e6:.1f} ms: the audit log's times do not hold")
    calls = np.frombuffer(result.calls, CALL)
    if len(calls) != result.sent:
        raise RuntimeError(f"{result.sent} calls were sent and {len(calls)} recorded")
    return Watched(result, calls, steady, changing, offset_ns)


def part(name: str, start: Callable[[Path, str], Server], count: int, amount: Amount) -> Result:
    with TemporaryDirectory(dir=BUILD) as folder, ExitStack() as stack:
        at = Path(folder)
        lineage = Lineage(at / "models", at / "staging", MODEL, MAKERS[name], count)
        copy_first(at / "models", at / "twin-models")
        flags = MODES[name] + FLAGS
        subject = stack.enter_context(start(at / "models", flags + str(at / "state")))
        twin = stack.enter_context(start(at / "twin-models", flags + str(at / "twin-state")))
        case = Case(MODEL, ROW)
        first, second = (partial(loaded, case, server, CLOSED_SHAPE, requests=amount.requests)
                         for server in (subject, twin))
        for server in (subject, twin):
            server.wait_ready()
            loaded(case, server, CLOSED_SHAPE, requests=amount.requests)
        before = pairs_of(first, second, amount.pairs)
        time.sleep(SETTLE_S)
        rss_before = subject.rss_bytes()
        client = stack.enter_context(InferClient(subject.address, timeout=RELOAD_S))
        changes = Changes(lineage, client, case.message, name == "explicit")
        seen = change_under_load(subject, case.message, changes, count, amount.steady_s)
        time.sleep(SETTLE_S)
        rss_after = subject.rss_bytes()
        after = pairs_of(first, second, amount.pairs)
        ready = ready_times(audit_rows(at / "state"), lineage.generations, seen.wall_minus_monotonic_ns)
        answers = [answer_of(lineage, each) for each in seen.result.replies]
        strayed = strays(seen.calls, answers, lineage.generations, ready)
    figures = Figures(
        changes=count, sent=seen.result.sent, failed=failed_calls(seen.result, seen.result.sent), strays=strayed,
        steady_p99_ms=p99_ms(seen.calls, seen.steady), changing_p99_ms=p99_ms(seen.calls, seen.changing),
        max_ms=seen.result.max_us / 1e3, rss_bytes=(rss_before, rss_after),
        cpu_ratios=(cpu_ratio(before), cpu_ratio(after)))
    print_figures(figures, before, after)
    if figures.failed:
        print(f"  {seen.result.statuses} {seen.result.failures} {seen.result.reason}", flush=True)
    return judged(name, figures), {
        **asdict(figures), "statuses": seen.result.statuses, "failures": seen.result.failures,
        "reason": seen.result.reason, "different_replies": len(answers),
        "cpu_before": [[asdict(each) for each in pair] for pair in before],
        "cpu_after": [[asdict(each) for each in pair] for pair in after]}


def parse_arguments() -> argparse.Namespace:
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(RELOADS), choices=list(RELOADS))
    parser.add_argument("--changes", type=int, help=f"of each part [{RELOADS}]")
    parser.add_argument("--pairs", type=int, help=f"of turns with the twin [{PAIRS}]")
    parser.add_argument("--requests", type=int, help=f"of each turn [{REQUESTS}]")
    parser.add_argument("--steady", type=float, metavar="SECONDS", help=f"without changes, each time [{STEADY_S}]")
    parser.add_argument("--quick", action="store_true", help="few changes, short turns: for a look, not for a record")
    parser.add_argument("--server", default=OURS, help="command of our server; {python} {models} {port} {http_port}")
    parser.add_argument("--server-cores", default=f"{cores[0]},{cores[-1]}", metavar="LIST", help="as taskset has it")
    parser.add_argument("--generator-core", type=int, default=cores[-1])
    parser.add_argument("--output", type=Path, help="default: bench/results/<commit>-reload.json")
    arguments = parser.parse_args()
    arguments.pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    arguments.requests = arguments.requests or (QUICK_REQUESTS if arguments.quick else REQUESTS)
    arguments.steady = arguments.steady or (QUICK_STEADY_S if arguments.quick else STEADY_S)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "reload.log").write_bytes(b"")
    os.sched_setaffinity(0, {arguments.generator_core})
    # The load's thread takes the GIL a few times a second and must not wait for it.
    sys.setswitchinterval(0.0005)

    def start(models: Path, flags: str) -> Server:
        # Each change is a line of the audit log, which is written at every level.
        return ours(arguments.server + flags, models, arguments.server_cores, BUILD / "reload.log")

    amount = Amount(arguments.pairs, arguments.requests, arguments.steady)
    counts = QUICK_RELOADS if arguments.quick else RELOADS
    parts: dict[str, Callable[[], Result]] = {
        name: partial(part, name, start, arguments.changes or counts[name], amount) for name in arguments.parts}
    run_parts(parts, amount._asdict(), arguments.output, "-reload")
    return 0


if __name__ == "__main__":
    sys.exit(main())
