"""`make bench-split`: what it costs a call that its model's traffic is divided over three versions.

Server CPU per request of tiny, in turns on two servers that have the same three versions and get the same metadata. One
divides by weight and routing key, with a rule and metrics by variant, the other does not. Three generators call at
once, each with the key of another version, and in turn with that version's name, so that batches are alike; then one
calls, whose key goes to the default version.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import models as bench_models
from bench.bars import Bar
from bench.compare import BUILD, Case
from bench.growth import Result, Sample, compared, pairs_of, print_compared, run_parts, sampled
from bench.targets import SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client
from infer._core.variants import Split
from infer.split_plan import SplitPlan, parse_arms

MODEL = "tiny"
KEY = "infer-routing-key"
VERSIONS = ("1", "2", "3")
NAME = "bench"
PLAIN = f"[models.{MODEL}]\nversion_policy = {{ all = {{}} }}\n"
DIVIDED = PLAIN + f"""
[models.{MODEL}.split]
name = "{NAME}"
to = {{ "1" = 1, "2" = 1, "3" = 1 }}
rules = {{ alice = "3" }}
"""
# Each of three generators.
SHAPE, ONE_SHAPE = (2, 16), (4, 24)
PAIRS, REQUESTS = 11, 150_000
QUICK_PAIRS, QUICK_REQUESTS = 3, 30_000


def key_of(version: str) -> str:
    """One that goes to the version."""
    plan = SplitPlan(parse_arms("1=1,2=1,3=1"), NAME)
    split = Split(f"{MODEL}/{NAME}", [(arm.name, arm.weight, None, None) for arm in plan.arms], [], plan.key)
    return next(key for i in range(1000) if split.choose((key := f"user-{i}").encode()) == VERSIONS.index(version))


def named(message: bytes, version: str) -> bytes:
    """The request, with a version: a field that comes last counts."""
    return message + b"\x12" + bytes([len(version)]) + version.encode()


class Turns:
    """Loads of one server, of one generator for each message and key."""

    def __init__(self, server: Server, calls: Sequence[tuple[bytes, str]], shape: tuple[int, int],
                 requests: int) -> None:
        self.server, self.calls, self.shape, self.requests = server, calls, shape, requests // len(calls)
        self.pool = ThreadPoolExecutor(len(calls))

    def _run(self, call: tuple[bytes, str]) -> load_client.LoadResult:
        message, key = call
        return load_client.run(self.server.address, f"{SERVICE}/ModelInfer", message, *self.shape,
                               requests=self.requests, metadata=[(KEY, key)])

    def __call__(self) -> Sample:
        counts, usage = self.server.counts(), self.server.usage()
        results = list(self.pool.map(self._run, self.calls))
        used, counted = self.server.usage() - usage, self.server.counts() - counts
        for result in results:
            if result.ok != result.sent or result.failures:
                raise RuntimeError(f"{result.statuses} {result.failures} {result.reason}")
        sent = sum(result.sent for result in results)
        if counted.ok != sent:
            raise RuntimeError(f"{sent} calls were OK, the server counts {counted.ok}")
        sample = sampled(results[0], used, counted)
        return replace(sample, requests=sent, rate=sum(result.rate for result in results),
                       cpu_us=used.cpu_s / sent * 1e6, switches=used.switches / sent)


def cost(plain: Server, divided: Server, pairs: int, requests: int) -> Result:
    message, keys = Case(MODEL).message, {version: key_of(version) for version in VERSIONS}
    turns = [Turns(plain, [(named(message, version), keys[version]) for version in VERSIONS], SHAPE, requests),
             Turns(divided, [(message, keys[version]) for version in VERSIONS], SHAPE, requests)]
    for each in turns:
        each()
    figures = compared(pairs_of(turns[0], turns[1], pairs))
    print_compared("versions by name", "a split in three", figures)
    return [Bar("server CPU per request of tiny, a split in three by the same by name", figures["cpu_ratio"], 1.03,
                True)], figures


def one(plain: Server, divided: Server, pairs: int, requests: int) -> Result:
    """All calls with the key of the default version."""
    call = Case(MODEL).message, key_of(VERSIONS[-1])
    turns = [Turns(server, [call], ONE_SHAPE, requests) for server in (plain, divided)]
    for each in turns:
        each()
    figures = compared(pairs_of(turns[0], turns[1], pairs))
    print_compared("no split", "one key of a split", figures)
    return [Bar("server CPU per request of tiny, one key of a split by none", figures["cpu_ratio"], 1.03,
                True)], figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=["cost", "one"], type=lambda text: text.split(","), help="cost,one")
    parser.add_argument("--pairs", type=int, help=f"of turns [{PAIRS}]")
    parser.add_argument("--requests", type=int, help=f"of each turn [{REQUESTS}]")
    parser.add_argument("--quick", action="store_true", help="few and short turns: for a look, not for a record")
    add_server_options(parser, "-split")
    arguments = parser.parse_args()
    require_two_cores(parser, arguments)
    pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    requests = arguments.requests or (QUICK_REQUESTS if arguments.quick else REQUESTS)
    root = bench_models.build(BUILD / "models")
    own = BUILD / "split-models"
    for version in VERSIONS:
        (own / MODEL / version).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / MODEL / "1" / "model.onnx", own / MODEL / version / "model.onnx")
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(name: str, settings: str) -> Server:
        file = Path(BUILD / f"split-{name}.toml")
        file.write_text(settings)
        return ours(f"{arguments.server} --config {file}", own, arguments.server_core)

    if unknown := {*arguments.parts} - {"cost", "one"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    with start("none", PLAIN) as plain, start("three", DIVIDED) as divided:
        for server in (plain, divided):
            server.wait_ready()
        parts = {name: partial(part, plain, divided, pairs, requests) for name, part in (("cost", cost), ("one", one))}
        run_parts({name: parts[name] for name in arguments.parts}, {"pairs": pairs, "requests": requests},
                  arguments.output, "-split")
    return 0


if __name__ == "__main__":
    sys.exit(main())
