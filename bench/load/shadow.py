"""`make bench-shadow`: what a shadow costs those who are answered.

The server has one core and the generator another. Version 2 of a model answers; version 1 of another server, ten times
as slow, has a copy of every request. Both are called at half of what the first can do, in turns: their p99 is compared,
from the scheduled time of each call, and every copy is accounted for. In the second part the server is asked for all
that it can do: the rate with a shadow is compared with that without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from bench.bars import Bar
from bench.baseline import stubs
from bench.compare import BUILD
from bench.growth import Result, run_parts
from bench.models import mlp
from bench.targets import SERVICE, Server, add_server_options, metrics_of, ours, require_two_cores
from infer._core import load_client

MODEL, COLUMNS, WIDTH, OUTPUTS = "m", 64, 512, 10
# Layers of the one that answers, and of its shadow.
LAYERS, SLOW_LAYERS = 3, 45
PAIRS, SECONDS = 5, 3.0
QUICK_PAIRS, QUICK_SECONDS = 3, 1.5
WARMUP_S = 0.5
SHAPE, CLOSED = (4, 16), (2, 8)
COPIES = 64
PLAIN = f"[models.{MODEL}]\nversion_policy = {{ all = {{}} }}\n"
SHADOWED = PLAIN + f'[models.{MODEL}.shadow]\nto = "1"\nrtol = 1e9\n'

Start = Callable[[str], Server]


def write_models(root: Path) -> Path:
    for version, layers in ((1, SLOW_LAYERS), (2, LAYERS)):
        path = root / MODEL / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        mlp(path, [COLUMNS, *[WIDTH] * layers, OUTPUTS])
    return root


def request(version: str = "") -> bytes:
    pb2, _ = stubs.load()
    message = pb2.ModelInferRequest(model_name=MODEL, model_version=version)
    message.inputs.add(name="x", datatype="FP32", shape=[1, COLUMNS])
    message.raw_input_contents.append(np.linspace(-1, 1, COLUMNS, dtype=np.float32).tobytes())
    return bytes(message.SerializeToString())


def run(server: Server, shape: tuple[int, int], version: str = "", **amount: float) -> load_client.LoadResult:
    """All of its calls are answered OK, or it is an error."""
    result = load_client.run(server.address, f"{SERVICE}/ModelInfer", request(version), *shape,
                             **amount)                                                  # type: ignore[arg-type]
    if result.ok != result.sent or result.failures:
        raise RuntimeError(f"{result.statuses} {result.failures} {result.reason}")
    return result


def copies_of(metrics: str) -> dict[str, int]:
    """By what became of them; `dropped` for any reason."""
    found = dict.fromkeys(("agreed", "differed", "failed", "waiting", "dropped"), 0)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "infer_shadow_copies_total":
                found[sample.labels["outcome"]] += int(sample.value)
            elif sample.name == "infer_shadow_dropped_total":
                found["dropped"] += int(sample.value)
            elif sample.name == "infer_shadow_waiting":
                found["waiting"] += int(sample.value)
    return found


def beside(start: Start, pairs: int, seconds: float) -> Result:
    with start(PLAIN) as plain, start(SHADOWED) as shadowed:
        for server in (plain, shadowed):
            server.wait_ready()
        slower = (run(plain, (1, 1), "1", duration_s=seconds).p50_us
                  / run(plain, (1, 1), "2", duration_s=seconds).p50_us)
        rate = run(plain, CLOSED, duration_s=seconds).rate / 2
        steady = partial(run, shape=SHAPE, rate=rate, duration_s=seconds, warmup_s=WARMUP_S)
        before = copies_of(metrics_of(shadowed.http_port))
        found: dict[str, list[load_client.LoadResult]] = {"without": [], "with": []}
        for pair in range(pairs):
            order = [("without", plain), ("with", shadowed)]
            for name, server in order if pair % 2 == 0 else order[::-1]:
                found[name].append(steady(server))
        after = copies_of(metrics_of(shadowed.http_port))
    counted = {name: after[name] - before[name] for name in after}
    answered = sum(result.ok for result in found["with"])
    quantiles = {name: {quantile: statistics.median(getattr(each, quantile) for each in results) / 1e3
                        for quantile in ("p50_us", "p90_us", "p99_us", "p999_us")} for name, results in found.items()}
    for name, each in quantiles.items():
        shown = "  ".join(f"{quantile[:-3]} {ms:.3f} ms" for quantile, ms in each.items())
        print(f"  {name + ' a shadow':18} {shown}")
    print(f"  {rate:.0f}/s, a shadow {slower:.1f} times as slow; of {answered} copies {counted}", flush=True)
    alone_ms, beside_ms = (quantiles[name]["p99_us"] for name in ("without", "with"))
    # What the lane has at the time is in none of them.
    lost = answered - sum(counted.values())
    return [Bar("p99 beside a shadow that has every request", beside_ms, max(1.1 * alone_ms, alone_ms + 0.5), True,
                "ms"),
            Bar("the shadow's run by the primary's", slower, 10, unit="x"),
            Bar("copies that are not accounted for", abs(lost), COPIES, True),
            Bar("copies that were dropped, of all", 100 * counted["dropped"] / answered, 0.1, unit="%")], {
        "rate": rate, "slower": slower, "answered": answered, "copies": counted, "ms": quantiles,
        "p99_us": {name: [each.p99_us for each in results] for name, results in found.items()}}


def at_capacity(start: Start, pairs: int, seconds: float) -> Result:
    with start(PLAIN) as plain, start(SHADOWED) as shadowed:
        for server in (plain, shadowed):
            server.wait_ready()
            run(server, SHAPE, duration_s=seconds / 3)
        ratios = []
        for pair in range(pairs):
            order = [plain, shadowed] if pair % 2 == 0 else [shadowed, plain]
            rates = {server: run(server, SHAPE, duration_s=seconds).rate for server in order}
            ratios.append(rates[shadowed] / rates[plain])
    ratio = statistics.median(ratios)
    print(f"  rate with a shadow by that without: {ratio:.3f}", flush=True)
    return [Bar("rate at capacity with a shadow, by that without", 100 * ratio, 90, unit="%")], {"ratios": ratios}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, help=f"of turns [{PAIRS}]")
    parser.add_argument("--seconds", type=float, help=f"of each turn [{SECONDS:g}]")
    parser.add_argument("--quick", action="store_true", help="few and short turns: for a look, not for a record")
    add_server_options(parser, "-shadow")
    arguments = parser.parse_args()
    require_two_cores(parser, arguments)
    pairs = arguments.pairs or (QUICK_PAIRS if arguments.quick else PAIRS)
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    root = write_models(BUILD / "shadow" / "models")
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(settings: str) -> Server:
        config = BUILD / "shadow" / f"{'with' if 'shadow' in settings else 'without'}.toml"
        config.write_text(settings)
        return ours(f"{arguments.server} --config {config} --max-shadow-copies {COPIES}", root, arguments.server_core)

    parts: Mapping[str, Callable[[], Result]] = {
        "a shadow of every request": partial(beside, start, pairs, seconds),
        "at capacity": partial(at_capacity, start, pairs, seconds)}
    run_parts(dict(parts), {"pairs": pairs, "seconds": seconds}, arguments.output, "-shadow")
    return 0


if __name__ == "__main__":
    sys.exit(main())
