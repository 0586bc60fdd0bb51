"""`make bench-cache`: what a hit costs, and what a cache costs that is of no use.

In turns, server CPU per request: mid answered from the cache beside tiny that runs; mid with inputs of which no two are
the same, with the cache on beside without, once it has found out that it is of no use; and mid with 15 rows of which 1
is new, row by row beside without a cache. The counts of server and generator have to agree.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial

from bench import models as bench_models
from bench.bars import Bar
from bench.compare import BUILD, Case
from bench.growth import Result, Sample, compared, pairs_of, print_compared, run_parts, sampled
from bench.targets import SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client

SHAPE = (4, 16)
PAIRS, REQUESTS = 11, 40_000
QUICK_PAIRS, QUICK_REQUESTS = 3, 20_000
CACHE = " --cache 256MiB"
# As many as the generator varies.
ROWS, ROWS_REQUESTS = 15, 4000


class Turns:
    """Loads of one case on one server; with `varied` no two requests are the same."""

    def __init__(self, case: Case, server: Server, requests: int, *, varied: bool = False, rows_run: int = 1) -> None:
        self.case, self.server, self.requests, self.varied, self.rows_run = case, server, requests, varied, rows_run
        self._next = itertools.count(1, requests)

    def __call__(self) -> Sample:
        counts, usage = self.server.counts(), self.server.usage()
        result = load_client.run(self.server.address, f"{SERVICE}/ModelInfer", self.case.message, *SHAPE,
                                 requests=self.requests, vary_from=next(self._next) if self.varied else 0)
        used, counted = self.server.usage() - usage, self.server.counts() - counts
        if result.ok != result.sent or result.failures or counted.ok != result.ok:
            raise RuntimeError(f"{result.statuses} {result.failures} {result.reason}; the server counts {counted.ok}")
        if counted.inferences != result.ok * self.rows_run:
            raise RuntimeError(f"{result.ok} replies, for which the model ran {counted.inferences} rows")
        return sampled(result, used, counted)


def judged(name: str, limit: float, first: tuple[str, Turns], second: tuple[str, Turns], pairs: int) -> Result:
    figures = compared(pairs_of(first[1], second[1], pairs))
    print_compared(first[0], second[0], figures)
    for side in ("first", "second"):
        print(f"  {side}: p99 {statistics.median(sample['p99_us'] for sample in figures[side]):.0f} us")
    return [Bar(name, figures["cpu_ratio"], limit, True)], figures


def hit(start: Callable[[str], Server], pairs: int, requests: int) -> Result:
    tiny, mid = Case("tiny"), Case("mid")
    with start("") as plain, start(CACHE) as caching:
        plain.wait_ready()
        caching.wait_ready()
        tiny.warm(plain, *SHAPE, 0.5)
        mid.warm(caching, *SHAPE, 0.5)
        return judged("server CPU, a hit on mid by a run of tiny", 1.1, ("tiny", Turns(tiny, plain, requests)),
                      ("mid, hits", Turns(mid, caching, requests, rows_run=0)), pairs)


def useless(start: Callable[[str], Server], pairs: int, requests: int) -> Result:
    mid = Case("mid")
    with start("") as plain, start(CACHE) as caching:
        plain.wait_ready()
        caching.wait_ready()
        turns = [Turns(mid, server, requests, varied=True) for server in (plain, caching)]
        for each in turns:
            each()
        return judged("server CPU, cache on by off, new inputs", 1.03, ("off", turns[0]), ("on", turns[1]), pairs)


def rows(start: Callable[[str], Server], pairs: int, requests: int) -> Result:
    # The last row is another in each request.
    mid = Case("mid", rows=ROWS)
    requests = min(requests, ROWS_REQUESTS)
    with start("") as plain, start(f"{CACHE} --cache-rows") as caching:
        plain.wait_ready()
        caching.wait_ready()
        for server in (plain, caching):
            mid.warm(server, *SHAPE, 0.5)
        turns = [Turns(mid, plain, requests, varied=True, rows_run=ROWS), Turns(mid, caching, requests, varied=True)]
        return judged("server CPU, 15 rows of mid with 14 known, row by row by off", 0.5, ("off", turns[0]),
                      ("rows", turns[1]), pairs)


PARTS = {"hit": hit, "useless": useless, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=list(PARTS), type=lambda text: text.split(","), help=",".join(PARTS))
    parser.add_argument("--pairs", type=int, help=f"of each comparison [{PAIRS}]")
    parser.add_argument("--requests", type=int, help=f"of each load [{REQUESTS}]")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter pairs")
    add_server_options(parser, "-cache")
    arguments = parser.parse_args()
    if unknown := {*arguments.parts} - {*PARTS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    require_two_cores(parser, arguments)
    pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    requests = arguments.requests or (QUICK_REQUESTS if arguments.quick else REQUESTS)
    root = bench_models.build(BUILD / "models")
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(flags: str) -> Server:
        return ours(arguments.server + flags, root, arguments.server_core)

    run_parts({name: partial(PARTS[name], start, pairs, requests) for name in arguments.parts},
              {"pairs": pairs, "requests": requests}, arguments.output, "-cache")
    return 0


if __name__ == "__main__":
    sys.exit(main())
