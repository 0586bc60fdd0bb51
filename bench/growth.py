"""`make bench-growth`: what the server costs as connections, streams, requests and time grow.

Server on one core, our generator on another, the tiny model. Comparisons run ABAB and take the median of the pairs'
ratios, so that a machine that is slower for a while slows both sides. Each load's counts must agree - replies,
server, inferences, length of every reply - or the bench ends with an error.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import models as bench_models
from bench.bars import Bar, print_bars
from bench.compare import BUILD, Case, commit, disagreement, write_result
from bench.load import payload
from bench.load.held import held
from bench.targets import SERVICE, Counts, Server, Usage, add_server_options, ours, require_two_cores
from infer._core import load_client

MODEL = "tiny"
BASE_SHAPE = (4, 64)
MANY_STREAMS = (4, 250)
FEW_STREAMS = (4, 16)
CONNECTIONS = 10_000
EARLY_REQUESTS, LATE_REQUESTS = 500_000, 5_000_000
STARTS = 7
PAIRS = 5
SECONDS = 3.0
QUICK_PAIRS, QUICK_SECONDS = 3, 1.0
SETTLE_S = 1.0
KIB, MIB = 1024.0, 1024.0 * 1024.0

Result = tuple[list[Bar], dict[str, Any]]


@dataclass(frozen=True)
class Sample:
    """One load on the server."""

    requests: int
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """Server CPU per request."""
    switches: float
    """Context switches of the server per request."""
    batch_rows: float
    generator_cpu_share: float


def turn(case: Case, server: Server, shape: tuple[int, int], method: str = "ModelInfer",
         **amount: Any) -> tuple[load_client.LoadResult, Usage]:
    """Closed loop; shape is (connections, streams on each), `amount` duration_s or requests, and stream_messages."""
    usage = server.usage()
    result = load_client.run(server.address, f"{SERVICE}/{method}", case.message, *shape, **amount)
    used = server.usage() - usage
    if result.ok != result.sent or result.failures:
        raise RuntimeError(f"{result.statuses} {result.failures} {result.reason}")
    return result, used


def loaded(case: Case, server: Server, shape: tuple[int, int], method: str = "ModelInfer", **amount: Any) -> Sample:
    """A turn that the server counts as the generator does."""
    counts = server.counts()
    result, used = turn(case, server, shape, method, **amount)
    counted = server.counts() - counts
    data_bytes = result.ok * len(payload.framed(bytes(result.reply_bytes)))
    void = disagreement(result.ok, counted, data_bytes, result.reply_bytes)
    if void:
        raise RuntimeError(void)
    return sampled(result, used, counted)


def sampled(result: load_client.LoadResult, used: Usage, counted: Counts | None) -> Sample:
    """`counted`: what the server counts; without it the rows of a batch are 0."""
    return Sample(
        result.sent,
        result.rate,
        result.p50_us,
        result.p99_us,
        used.cpu_s / result.sent * 1e6,
        used.switches / result.sent,
        counted.inferences / max(counted.batches, 1) if counted else 0.0,
        result.cpu_share,
    )


def pairs_of(first: Callable[[], Sample], second: Callable[[], Sample], pairs: int) -> list[tuple[Sample, Sample]]:
    """Which of the two comes first alternates: what a turn leaves behind is not always the same one's to bear."""
    found = []
    for pair in range(pairs):
        if pair % 2:
            after = second()
            found.append((first(), after))
        else:
            found.append((first(), second()))
    return found


def compared(pairs: list[tuple[Sample, Sample]]) -> dict[str, Any]:
    """Second by first: medians of the ratios, and what was measured."""
    return {
        "rate_ratio": statistics.median(b.rate / a.rate for a, b in pairs),
        "cpu_ratio": statistics.median(b.cpu_us / a.cpu_us for a, b in pairs),
        "first": [asdict(a) for a, _ in pairs],
        "second": [asdict(b) for _, b in pairs],
    }


def print_compared(first: str, second: str, figures: dict[str, Any]) -> None:
    for name, samples in ((first, figures["first"]), (second, figures["second"])):
        rate, cpu_us, switches = (statistics.median(s[key] for s in samples) for key in ("rate", "cpu_us", "switches"))
        print(f"  {name:24} {rate:10.0f}/s  server CPU {cpu_us:6.2f} us  switches {switches:6.3f} per request")
    print(f"  server CPU per request x{figures['cpu_ratio']:.2f}", flush=True)


def idle_connections(server: Server, count: int) -> AbstractContextManager[None]:
    """`count` settled connections held by another process; it is an error when one did not live to the end."""
    return held("bench.load.idle", "127.0.0.1", server.port, count, count=count)


def idle_rss(start: Callable[[], Server]) -> Result:
    """A server that has served nothing yet."""
    with start() as server:
        server.wait_http_ready()
        time.sleep(SETTLE_S)
        rss = server.rss_bytes()
    return [Bar("RSS idle with tiny", rss / MIB, 110, True, "MiB")], {"rss_bytes": rss}


def many_connections(start: Callable[[], Server], case: Case, pairs: int, seconds: float, count: int) -> Result:
    """The same load without and with `count` idle connections beside it."""
    with start() as server:
        server.wait_ready()
        few = partial(loaded, case, server, BASE_SHAPE, duration_s=seconds)
        few()
        rss = server.rss_bytes()
        with idle_connections(server, count):
            each_bytes = (server.rss_bytes() - rss) / count

        def beside() -> Sample:
            with idle_connections(server, count):
                return few()

        figures = compared(pairs_of(few, beside, pairs))
    print_compared("4 connections", f"4 and {count} idle", figures)
    return [
        Bar(f"rate with {count:,} idle connections, by that without", figures["rate_ratio"] * 100, 90, unit="%"),
        Bar(f"RSS of each of {count:,} connections", each_bytes / KIB, 16, True, "KiB"),
    ], {"connections": count, "rss_bytes_each": each_bytes, **figures}


def many_streams(start: Callable[[], Server], case: Case, pairs: int, seconds: float) -> Result:
    """1,000 calls under way against 64."""
    with start() as server:
        server.wait_ready()
        few = partial(loaded, case, server, FEW_STREAMS, duration_s=seconds)
        many = partial(loaded, case, server, MANY_STREAMS, duration_s=seconds)
        many()
        figures = compared(pairs_of(few, many, pairs))
    print_compared("64 streams", "1,000 streams", figures)
    return [Bar("rate with 1,000 streams, by that with 64", figures["rate_ratio"] * 100, 95, unit="%")], figures


def rss_over_requests(start: Callable[[], Server], case: Case, early: int, late: int) -> Result:
    """RSS after so many requests in all."""
    with start() as server:
        server.wait_ready()
        first = loaded(case, server, BASE_SHAPE, requests=early)
        early_bytes = server.rss_bytes()
        second = loaded(case, server, BASE_SHAPE, requests=late - early)
        late_bytes = server.rss_bytes()
    growth = (late_bytes / early_bytes - 1) * 100
    return [Bar(f"RSS growth from {early:,} to {late:,} requests", growth, 3, True, "%")], {
        "rss_bytes": {early: early_bytes, late: late_bytes},
        "loads": [asdict(first), asdict(second)],
    }


def start_to_ready(start: Callable[[], Server], starts: int) -> Result:
    """From the spawn of the process to 200 from /v2/health/ready."""
    seconds = []
    for _ in range(starts):
        with start() as server:
            seconds.append(server.wait_http_ready())
    return [Bar("start to ready with tiny", statistics.median(seconds), 1.0, True, "s")], {"seconds": seconds}


def run_parts(parts: dict[str, Callable[[], Result]], amounts: dict[str, Any], output: Path | None, suffix: str
              ) -> None:
    """Measures each, prints the bars of all, and writes the result with the amounts that it was measured by."""
    result: dict[str, Any] = {"commit": commit(), **amounts, "bars": [], "parts": {}}
    judged: list[Bar] = []
    for name, measure in parts.items():
        print(name, flush=True)
        bars, result["parts"][name] = measure()
        judged += bars
        result["bars"] += [bar.record() for bar in bars]
    print()
    print_bars(judged)
    path = write_result(result, output, suffix)
    print(f"\nwritten to {os.path.relpath(path)}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, help=f"of each comparison [{PAIRS}]")
    parser.add_argument("--seconds", type=float, help=f"of each load [{SECONDS}]")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter pairs, a tenth of the requests")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    add_server_options(parser, "-growth")
    arguments = parser.parse_args()
    arguments.pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    require_two_cores(parser, arguments)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    models = bench_models.build(BUILD / "models") / MODEL
    # The generator runs in this process, the holder of idle connections inherits it.
    os.sched_setaffinity(0, {arguments.generator_core})
    case = Case(MODEL)
    start = partial(ours, arguments.server, models, arguments.server_core)
    pairs, seconds = arguments.pairs, arguments.seconds
    early, late = (count // (10 if arguments.quick else 1) for count in (EARLY_REQUESTS, LATE_REQUESTS))
    parts: dict[str, Callable[[], Result]] = {
        "idle_rss": partial(idle_rss, start),
        "start_to_ready": partial(start_to_ready, start, STARTS),
        "many_connections": partial(many_connections, start, case, pairs, seconds, arguments.connections),
        "many_streams": partial(many_streams, start, case, pairs, seconds),
        "rss_over_requests": partial(rss_over_requests, start, case, early, late),
    }
    run_parts(parts, {"seconds": seconds, "pairs": pairs}, arguments.output, "-growth")
    return 0


if __name__ == "__main__":
    sys.exit(main())
