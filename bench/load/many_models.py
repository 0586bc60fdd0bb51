"""`make bench-models`: what a server of 1,000 small models costs - until it is ready, in memory, for the callers of one
of them - and whether 50 that are called at once get the same.

The server has one core and the generators another. All models are of one shape and have weights of their own, so that
a reply says whether the right one was asked. A server with only one of them is the other side of each comparison; turns
alternate.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench.bars import Bar
from bench.compare import BUILD, Case
from bench.growth import (
    MIB,
    Result,
    Sample,
    compared,
    loaded,
    pairs_of,
    print_compared,
    run_parts,
    sampled,
    turn,
)
from bench.load.generations import HIDDEN, ROW, TOLERANCE, make_small
from bench.targets import SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client
from infer.client.messages import decode_reply

MODELS = 1_000
# Of FP32: two matrices and a shift.
WEIGHTS_BYTES = 4 * (ROW[0] * HIDDEN + HIDDEN + 1)
AT_ONCE = 50
CLOSED_SHAPE, SHAPE_EACH = (4, 16), (1, 4)
PAIRS, REQUESTS, SECONDS = 15, 200_000, 5.0
QUICK_PAIRS, QUICK_REQUESTS, QUICK_SECONDS = 3, 20_000, 1.0
WARMUP_S = 0.5
SETTLE_S = 2.0

Start = Callable[[Path], Server]


def name_of(number: int) -> str:
    return f"small-{number:04d}"


def write_models(root: Path, count: int) -> list[float]:
    """What each answers to the row of the bench."""
    answers = []
    for number in range(count):
        path = root / name_of(number) / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        answers.append(make_small(path, number))
    return answers


def ensure_right(name: str, expected: float, result: load_client.LoadResult) -> None:
    """Every call was answered, and by the model that was asked."""
    if result.ok != result.sent or result.failures or result.first_reply is None:
        raise RuntimeError(f"{name}: {result.ok} of {result.sent} calls were OK: {result.statuses} {result.failures} "
                           f"{result.reason}")
    reply = decode_reply(result.first_reply)
    found = float(reply["y"].item())
    if reply.model_name != name or abs(found - expected) > TOLERANCE:
        raise RuntimeError(f"{name} was asked, which answers {expected}; {reply.model_name} answered {found}")


def ask_each(server: Server, answers: list[float]) -> None:
    for number, expected in enumerate(answers):
        name = name_of(number)
        ensure_right(name, expected, load_client.run(server.address, f"{SERVICE}/ModelInfer",
                                                     Case(name, ROW).message, requests=1))


def excess_bytes(many_bytes: int, alone_bytes: int, count: int) -> float:
    """What each model adds beyond its weights."""
    return (many_bytes - alone_bytes) / (count - 1) - WEIGHTS_BYTES


def spread(served: list[int]) -> float:
    """Most by least; infinite where one got nothing."""
    return max(served) / min(served) if min(served) else float("inf")


def size(start: Start, root: Path, alone_root: Path, answers: list[float]) -> Result:
    """Time until all are ready, and memory."""
    count = len(answers)
    with start(alone_root) as alone:
        alone_s = alone.wait_http_ready()
        time.sleep(SETTLE_S)
        alone_bytes = alone.rss_bytes()
    with start(root) as many:
        ready_s = many.wait_http_ready()
        time.sleep(SETTLE_S)
        many_bytes = many.rss_bytes()
        ask_each(many, answers)
        begin = time.monotonic()
        counts = many.counts()
        scrape_s = time.monotonic() - begin
    if counts.ok != count:
        raise RuntimeError(f"{count} models were asked once, and the server counts {counts.ok} replies")
    each_bytes = excess_bytes(many_bytes, alone_bytes, count)
    print(f"  {count} models: ready after {ready_s:.2f} s, {many_bytes / MIB:.1f} MiB; one: {alone_s:.2f} s, "
          f"{alone_bytes / MIB:.1f} MiB; /metrics read and parsed in {scrape_s:.2f} s", flush=True)
    return [
        Bar(f"start to ready with {count:,} models", ready_s, 20, True, "s"),
        Bar(f"RSS of each of {count:,} models beyond its weights", each_bytes / MIB, 1, True, "MiB"),
    ], {"models": count, "ready_s": ready_s, "alone_ready_s": alone_s, "rss_bytes": many_bytes,
        "alone_rss_bytes": alone_bytes, "each_bytes": each_bytes, "scrape_s": scrape_s}


def one_of_many(start: Start, root: Path, alone_root: Path, *, pairs: int, requests: int, count: int) -> Result:
    """CPU per request of one model, alone and among the others.

    The counts are compared once, after all turns: to tell those of 1,000 models is work for the server, of which some
    would be left for the turn that follows.
    """
    case = Case(name_of(0), ROW)

    def asked(server: Server) -> Sample:
        return sampled(*turn(case, server, CLOSED_SHAPE, requests=requests), None)

    with start(root) as many, start(alone_root) as alone:
        for server in (many, alone):
            server.wait_http_ready()
            loaded(case, server, CLOSED_SHAPE, requests=requests)
        before = many.counts(), alone.counts()
        time.sleep(SETTLE_S)
        figures = compared(pairs_of(partial(asked, many), partial(asked, alone), pairs))
        counted = many.counts() - before[0], alone.counts() - before[1]
    if {each.ok for each in counted} != {pairs * requests}:
        raise RuntimeError(f"{pairs * requests} calls were answered by each server, which count {counted}")
    print_compared(f"one of {count:,} models", "that one alone", figures)
    return [Bar(f"requests per CPU second of one of {count:,} models, by that alone", figures["cpu_ratio"] * 100, 90,
                unit="%")], figures


def at_once(start: Start, root: Path, answers: list[float], seconds: float) -> Result:
    """As many models, each with a generator of its own that has as many calls under way."""
    count = len(answers)
    begin = threading.Barrier(count)

    def served(server: Server, number: int) -> load_client.LoadResult:
        message = Case(name_of(number), ROW).message
        begin.wait()
        return load_client.run(server.address, f"{SERVICE}/ModelInfer", message, *SHAPE_EACH, duration_s=seconds,
                               warmup_s=WARMUP_S)

    with start(root) as server, ThreadPoolExecutor(count) as pool:
        server.wait_http_ready()
        before = server.counts()
        results = list(pool.map(partial(served, server), range(count)))
        counted = server.counts() - before
    for number, result in enumerate(results):
        ensure_right(name_of(number), answers[number], result)
    if counted.ok != sum(result.ok for result in results):
        raise RuntimeError(f"the generators count {sum(result.ok for result in results)} replies, the server "
                           f"{counted.ok}")
    each = [result.measured for result in results]
    p99_us = [result.p99_us for result in results]
    print(f"  {count} models at once: {sum(each) / seconds:.0f}/s in all, {min(each)} to {max(each)} replies each;"
          f" p99 {min(p99_us) / 1e3:.2f} to {max(p99_us) / 1e3:.2f} ms", flush=True)
    return [Bar(f"{count} models under equal load, most served by least", spread(each), 1.2, True)], {
        "served": each, "p99_us": p99_us, "batch_rows": counted.inferences / max(counted.batches, 1)}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=MODELS)
    parser.add_argument("--pairs", type=int, help=f"of turns, one of many and alone [{PAIRS}]")
    parser.add_argument("--requests", type=int, help=f"of each turn [{REQUESTS}]")
    parser.add_argument("--seconds", type=float, help=f"of the models under load at once [{SECONDS}]")
    parser.add_argument("--quick", action="store_true", help="few and short turns: for a look, not for a record")
    add_server_options(parser, "-models")
    arguments = parser.parse_args()
    arguments.pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    arguments.requests = arguments.requests or (QUICK_REQUESTS if arguments.quick else REQUESTS)
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    require_two_cores(parser, arguments)
    if arguments.models < AT_ONCE:
        parser.error(f"at least {AT_ONCE} models are called at once")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    root, alone_root = BUILD / f"models-{arguments.models}", BUILD / "models-1"
    answers = write_models(root, arguments.models)
    write_models(alone_root, 1)
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(models: Path) -> Server:
        return ours(arguments.server, models, arguments.server_core)

    parts: dict[str, Callable[[], Result]] = {
        "size": partial(size, start, root, alone_root, answers),
        "one_of_many": partial(one_of_many, start, root, alone_root, pairs=arguments.pairs,
                               requests=arguments.requests, count=len(answers)),
        "at_once": partial(at_once, start, root, answers[:AT_ONCE], arguments.seconds),
    }
    run_parts(parts, {"models": arguments.models, "requests": arguments.requests}, arguments.output, "-models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
