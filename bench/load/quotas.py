"""`make bench-quotas`: what a tenant that asks for ten times its quota costs another, and what quotas cost everyone.

The server has one core and the generators another. Tenant B calls at a steady rate, in turns alone and beside tenant A,
whose calls over its quota are refused: B's p99 is compared, from the scheduled time of each call. Then server CPU per
request, in turns on two servers: with limits of every kind on tenant, model and tenant at model, of which none is
reached, beside none. Both get the same metadata.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench import models as bench_models
from bench.bars import Bar
from bench.compare import BUILD, Case
from bench.growth import Result, Sample, compared, pairs_of, print_compared, run_parts, sampled
from bench.targets import SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client

KEY = "x-tenant"
QUOTA, BESIDE_RATE = 1_000, 1_000
OVER = 10
CASE = "tiny"
SHAPE, OWN_SHAPE = (4, 16), (2, 32)
PAIRS, REQUESTS, SECONDS = 11, 100_000, 3.0
QUICK_PAIRS, QUICK_REQUESTS, QUICK_SECONDS = 3, 20_000, 1.0
WARMUP_S = 0.5

OVER_QUOTA = f"""
tenant_metadata_key = "{KEY}"

[tenants.a]
requests_per_second = {QUOTA}
"""
NEVER_REACHED = """
requests_per_second = 1000000000
rows_per_second = 1000000000
max_concurrent = 1000000
max_in_flight_bytes = "1GiB"
"""
ALL_KINDS = f"""
tenant_metadata_key = "{KEY}"

[tenants.a]{NEVER_REACHED}
[tenants.a.models.{CASE}]{NEVER_REACHED}
[models.{CASE}.limits]{NEVER_REACHED}
"""

Start = Callable[[str], Server]


def steady(server: Server, seconds: float) -> load_client.LoadResult:
    """Tenant B's calls."""
    result = load_client.run(server.address, f"{SERVICE}/ModelInfer", Case(CASE).message, *OWN_SHAPE, rate=BESIDE_RATE,
                             duration_s=seconds, warmup_s=WARMUP_S, metadata=[(KEY, "b")])
    if result.ok != result.sent or result.failures:
        raise RuntimeError(f"of tenant B {result.ok} of {result.sent} calls were OK: {result.statuses} "
                           f"{result.failures}")
    return result


def over_quota(server: Server, seconds: float) -> load_client.LoadResult:
    """Tenant A's: as many as it may, and nine times as many that are refused."""
    result = load_client.run(server.address, f"{SERVICE}/ModelInfer", Case(CASE).message, *SHAPE, rate=OVER * QUOTA,
                             duration_s=seconds + WARMUP_S, metadata=[(KEY, "a")])
    allowed = QUOTA * (seconds + 2 * WARMUP_S + 1)
    if set(result.statuses) != {"OK", "RESOURCE_EXHAUSTED"} or result.failures or result.ok > allowed:
        raise RuntimeError(f"of tenant A's calls {result.ok} were OK, at most {allowed:.0f} may be: {result.statuses} "
                           f"{result.failures}")
    return result


def beside(start: Start, pairs: int, seconds: float) -> Result:
    alone_us, beside_us, offered = [], [], []
    with start(OVER_QUOTA) as server, ThreadPoolExecutor(1) as pool:
        server.wait_ready()
        steady(server, seconds)
        for _ in range(pairs):
            alone_us.append(steady(server, seconds).p99_us)
            other = pool.submit(over_quota, server, seconds)
            beside_us.append(steady(server, seconds).p99_us)
            result = other.result()
            offered.append(result.sent / (seconds + WARMUP_S) / QUOTA)
    alone_ms, beside_ms = (statistics.median(each) / 1e3 for each in (alone_us, beside_us))
    print(f"  tenant B at {BESIDE_RATE}/s: p99 {alone_ms:.3f} ms alone, {beside_ms:.3f} ms beside tenant A at "
          f"{statistics.median(offered):.1f} times its quota", flush=True)
    limit_ms = max(1.2 * alone_ms, alone_ms + 0.5)
    return [Bar(f"p99 of a tenant beside one at {OVER} times its quota", beside_ms, limit_ms, True, "ms")], {
        "alone_p99_us": alone_us, "beside_p99_us": beside_us, "offered_by_quota": offered}


class Turns:
    """Loads of the same case and metadata on one server."""

    def __init__(self, server: Server, requests: int) -> None:
        self.server, self.requests = server, requests

    def __call__(self) -> Sample:
        counts, usage = self.server.counts(), self.server.usage()
        result = load_client.run(self.server.address, f"{SERVICE}/ModelInfer", Case(CASE).message, *SHAPE,
                                 requests=self.requests, metadata=[(KEY, "a")])
        used, counted = self.server.usage() - usage, self.server.counts() - counts
        if result.ok != result.sent or result.failures or counted.ok != result.ok:
            raise RuntimeError(f"{result.statuses} {result.failures} {result.reason}; the server counts {counted.ok}")
        return sampled(result, used, counted)


def cost(start: Start, pairs: int, requests: int) -> Result:
    with start("") as plain, start(ALL_KINDS) as limited:
        turns = []
        for server in (plain, limited):
            server.wait_ready()
            turns.append(Turns(server, requests))
            turns[-1]()
        figures = compared(pairs_of(turns[0], turns[1], pairs))
        print_compared("no quotas", "quotas", figures)
    return [Bar("server CPU per request of tiny, quotas by none", figures["cpu_ratio"], 1.03, True)], figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=["beside", "cost"], type=lambda text: text.split(","), help="beside,cost")
    parser.add_argument("--pairs", type=int, help=f"of turns [{PAIRS}]")
    parser.add_argument("--requests", type=int, help=f"of each turn of `cost` [{REQUESTS}]")
    parser.add_argument("--seconds", type=float, help=f"of each turn of `beside` [{SECONDS}]")
    parser.add_argument("--quick", action="store_true", help="few and short turns: for a look, not for a record")
    add_server_options(parser, "-quotas")
    arguments = parser.parse_args()
    require_two_cores(parser, arguments)
    pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    requests = arguments.requests or (QUICK_REQUESTS if arguments.quick else REQUESTS)
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    root = bench_models.build(BUILD / "models")
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(settings: str) -> Server:
        file = Path(BUILD / f"quotas-{len(settings)}.toml")
        file.write_text(settings)
        return ours(f"{arguments.server} --config {file}", root, arguments.server_core)

    parts = {"beside": partial(beside, start, pairs, seconds), "cost": partial(cost, start, pairs, requests)}
    if unknown := {*arguments.parts} - {*parts}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    run_parts({name: parts[name] for name in arguments.parts}, {"pairs": pairs, "requests": requests},
              arguments.output, "-quotas")
    return 0


if __name__ == "__main__":
    sys.exit(main())
