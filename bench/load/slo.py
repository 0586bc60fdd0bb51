"""`make bench-slo`: `--slo-p99-ms` beside every fixed setting of a grid, on load that steps up and on bursts.

Open loop, latency from the scheduled time, on parts of what the server answers at most with its default settings. Of
the settings of the grid - rows that a batch gathers, and a delay - the best is the one with the most calls a second of
those that keep 99% of calls within the time. The server that chooses for itself has to come within a tenth of it, and
to keep to the time from its first call on.
"""

from __future__ import annotations

import argparse
import array
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from bench import models as bench_models
from bench.bars import Bar
from bench.compare import BUILD, Case
from bench.growth import Result, run_parts
from bench.targets import SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client

MODEL = "mid"
SLO_MS = 50.0
ROWS, DELAYS_US = (4, 16, 64, 256), (0, 3000)
CAPACITY_SHAPE, SHAPE = (4, 64), (4, 512)
CAPACITY_S = 3.0
# Seconds, and parts of the capacity.
TRACES = {
    "steps": [(2.0, 0.2), (2.0, 0.7), (2.0, 0.4), (1.0, 0.1)],
    "bursts": [(0.9, 0.15), (0.3, 0.8)] * 5,
}


@dataclass(frozen=True)
class Outcome:
    rate: float
    p99_ms: float
    failed: int


def phases(trace: list[tuple[float, float]], capacity: float) -> Iterator[tuple[float, float, float]]:
    """When each begins, its seconds and its calls a second."""
    begin = 0.0
    for seconds, part in trace:
        yield begin, seconds, part * capacity
        begin += seconds


def times_ns(calls: bytes) -> Iterator[tuple[int, int]]:
    """Of each call that was OK, when it was scheduled and answered."""
    found = array.array("q", calls)
    for at in range(0, len(found), 4):
        if found[at + 3] >= 0:
            yield found[at], found[at + 2]


def outcome(results: list[load_client.LoadResult]) -> Outcome:
    calls = [each for result in results for each in times_ns(result.calls)]
    latencies = sorted(answered - scheduled for scheduled, answered in calls)
    span_ns = max(answered for _, answered in calls) - min(scheduled for scheduled, _ in calls)
    return Outcome(len(calls) / span_ns * 1e9, latencies[int(0.99 * len(latencies))] / 1e6,
                   sum(result.sent for result in results) - len(calls))


def play(server: Server, case: Case, trace: list[tuple[float, float]], capacity: float) -> Outcome:
    """Each phase by connections of its own, whether those before it have ended or not."""
    begin = time.monotonic() + 0.2

    def phase(at_s: float, seconds: float, rate: float) -> load_client.LoadResult:
        time.sleep(max(begin + at_s - time.monotonic(), 0.0))
        return load_client.run(server.address, f"{SERVICE}/ModelInfer", case.message, *SHAPE, rate=rate,
                               duration_s=seconds, record=True)

    with ThreadPoolExecutor(len(trace)) as pool:
        return outcome([each.result() for each in
                        [pool.submit(phase, *each) for each in phases(trace, capacity)]])


def best(grid: dict[str, Outcome], slo_ms: float) -> tuple[str, Outcome]:
    """Of those that keep to the time; where none does, the one with the shortest tail."""
    kept = {name: each for name, each in grid.items() if each.p99_ms <= slo_ms and not each.failed}
    if not kept:
        return min(grid.items(), key=lambda each: each[1].p99_ms)
    return max(kept.items(), key=lambda each: each[1].rate)


def measured_capacity(start: Callable[[str], Server], case: Case) -> float:
    with start("") as server:
        server.wait_http_ready()
        case.warm(server, *CAPACITY_SHAPE, 1.0)
        return case.warm(server, *CAPACITY_SHAPE, CAPACITY_S).rate


def compare(start: Callable[[str], Server], case: Case, name: str, capacity: float, slo_ms: float) -> Result:
    trace = TRACES[name]

    def played(setting: str) -> Outcome:
        with start(setting) as server:
            server.wait_http_ready()
            found = play(server, case, trace, capacity)
        print(f"  {setting}: {found.rate:.0f}/s, p99 {found.p99_ms:.1f} ms, {found.failed} failed", flush=True)
        return found

    grid = {setting: played(setting) for setting in
            (f"--gather-rows {rows} --max-queue-delay-us {delay}" for rows, delay in product(ROWS, DELAYS_US))}
    chosen = played(f"--slo-p99-ms {slo_ms:g}")
    setting, fixed = best(grid, slo_ms)
    print(f"  best of the grid: {setting}", flush=True)
    return [
        Bar(f"{name}: calls a second, by the best fixed setting's", 100 * chosen.rate / fixed.rate, 90, unit="%"),
        Bar(f"{name}: p99", chosen.p99_ms, slo_ms, True, "ms"),
        Bar(f"{name}: failed calls", chosen.failed, 0, True),
    ], {"capacity": capacity, "grid": {each: vars(found) for each, found in grid.items()}, "best": setting,
        "chosen": vars(chosen)}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slo-ms", type=float, default=SLO_MS)
    add_server_options(parser, "-slo")
    arguments = parser.parse_args()
    require_two_cores(parser, arguments)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    models: Path = bench_models.build(BUILD / "models") / MODEL
    case = Case(MODEL)
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(setting: str) -> Server:
        return ours(f"{arguments.server} {setting}", models, arguments.server_core)

    capacity = measured_capacity(start, case)
    print(f"{capacity:.0f} calls a second at most", flush=True)
    parts: dict[str, Callable[[], Result]] = {
        name: partial(compare, start, case, name, capacity, arguments.slo_ms) for name in TRACES}
    run_parts(parts, {"model": MODEL, "slo_ms": arguments.slo_ms}, arguments.output, "-slo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
