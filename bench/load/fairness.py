"""`make bench-fairness`: what two models get of one core when one is asked for a hundred times as much as the other.

Both are the same model under two names, so that rows say what each had of the core, whatever the server counts. Its
weights are few and used again and again: with many, rows of the model that runs more often are cheaper, since the cache
holds them. Where batches differ, rows differ, too: there the server's count of executor time is judged. The server has
one core and, by default, two executors on it; the generators have another core. Each model has more calls under way
than it can have answered at once, the first a hundred times as many. Shares are those of a window within which both
loads are under way.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families

from bench import models as bench_models
from bench.bars import Bar
from bench.compare import BUILD
from bench.growth import Result, run_parts
from bench.load import payload
from bench.targets import SERVICE, Server, add_server_options, ours, require_two_cores
from infer._core import load_client

WIDTH, LAYERS = 128, 300
MANY, FEW = "many", "few"
DEMAND = 100
# Connections and calls on each; those of the second fill some of its batches, for while replies are on their way.
SHAPES = {MANY: (96, DEMAND), FEW: (1, 96)}
QUEUE_ROWS = 10_000
SECONDS, QUICK_SECONDS = 10.0, 3.0
SETTLE_S = 1.0
WITHIN = 10.0
ROWS, BATCHES, EXECUTOR_S = METRICS = (
    "infer_rows_total", "infer_batches_total", "infer_executor_seconds_total")


@dataclass(frozen=True)
class Part:
    """Weights of both models, and the rows that a batch of each gathers."""

    weights: tuple[int, int] = (1, 1)
    gather_rows: tuple[int, int] = (8, 8)

    def settings(self) -> str:
        return "\n".join(
            f"[models.{name}]\nmax_batch_size = 64\nweight = {weight}\n"
            f"dynamic_batching.preferred_batch_size = [{rows}]\n"
            for name, weight, rows in zip((MANY, FEW), self.weights, self.gather_rows, strict=True))

    @property
    def expected(self) -> float:
        """The part of the second model."""
        return self.weights[1] / sum(self.weights)


PARTS = {
    "equal weights": Part(),
    "equal weights, the first in batches of 64": Part(gather_rows=(64, 8)),
    "weights 3:1": Part((3, 1)),
    "weights 1:3": Part((1, 3)),
}


def write_models(root: Path) -> Path:
    """One matrix, of which a row is multiplied by LAYERS times."""
    random = np.random.default_rng(7)
    matrix = random.standard_normal((WIDTH, WIDTH), dtype=np.float32) / np.float32(np.sqrt(WIDTH))
    names = ["x", *(f"h{layer}" for layer in range(1, LAYERS)), "y"]
    nodes = [helper.make_node("MatMul", [before, "w"], [after]) for before, after in pairwise(names)]
    for name in (MANY, FEW):
        path = root / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        bench_models.save(path, nodes, (WIDTH,), WIDTH, [numpy_helper.from_array(matrix, "w")])
    return root


def had(server: Server) -> dict[tuple[str, str], float]:
    """By metric and model."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=10) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {(sample.name, sample.labels["model"]): sample.value for family in families for sample in family.samples
                if sample.name in METRICS}


def gained(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float], metric: str) -> list[float]:
    """Of both models."""
    return [after[metric, name] - before[metric, name] for name in (MANY, FEW)]


def share(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float], metric: str) -> float:
    """The second model's part."""
    both = gained(before, after, metric)
    return both[1] / sum(both)


def off_by(found: float, expected: float) -> float:
    """Of what it should have, in per cent; that of the two models which is further off."""
    return 100 * max(abs(found / expected - 1), abs((1 - found) / (1 - expected) - 1))


def shared(start: Callable[[Path, Path], Server], root: Path, name: str, part: Part, seconds: float) -> Result:
    config = BUILD / "fairness.toml"
    config.write_text(part.settings())
    stop = False

    def load(model: str) -> load_client.LoadResult:
        return load_client.run(server.address, f"{SERVICE}/ModelInfer",
                               payload.row_request(model, (WIDTH,)), *SHAPES[model],
                               duration_s=10 * seconds, until=lambda: stop)

    with start(root, config) as server, ThreadPoolExecutor(2) as pool:
        server.wait_http_ready()
        loads = [pool.submit(load, model) for model in (MANY, FEW)]
        time.sleep(SETTLE_S)
        before = had(server)
        time.sleep(seconds)
        after = had(server)
        stop = True
        results = [each.result() for each in loads]
    for result in results:
        if result.ok != result.sent:
            raise RuntimeError(f"{name}: {result.ok} of {result.sent} calls were OK: {result.statuses} "
                               f"{result.failures} {result.reason}")
    alike = len(set(part.gather_rows)) == 1
    rows = share(before, after, ROWS)
    told = share(before, after, EXECUTOR_S)
    p99_ms = {model: result.p99_us / 1e3 for model, result in zip((MANY, FEW), results, strict=True)}
    batch_rows = [all_rows / batches for all_rows, batches in
                  zip(gained(before, after, ROWS), gained(before, after, BATCHES), strict=True)]
    print(f"  {name}: the second has {100 * rows:.1f}% of the rows, {100 * told:.1f}% of the executors by the server's "
          f"count, {100 * part.expected:.1f}% by weight; rows in a batch {batch_rows[0]:.2f} and {batch_rows[1]:.2f}; "
          f"p99 {p99_ms[MANY]:.1f} and {p99_ms[FEW]:.1f} ms", flush=True)
    off = off_by(rows if alike else told, part.expected)
    return [Bar(f"two models at {DEMAND}:1, {name}: off by", off, WITHIN, True, "%")], {
        "weights": part.weights, "gather_rows": part.gather_rows, "rows": rows, "executor_seconds": told,
        "batch_rows": batch_rows, "rows_per_s": sum(gained(before, after, ROWS)) / seconds, "p99_ms": p99_ms}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help=f"of each window [{SECONDS}]")
    parser.add_argument("--quick", action="store_true", help="short windows: for a look, not for a record")
    add_server_options(parser, "-fairness")
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    require_two_cores(parser, arguments)
    return arguments


def main() -> int:
    arguments = parse_arguments()
    root = write_models(BUILD / "fairness")
    os.sched_setaffinity(0, {arguments.generator_core})

    def start(models: Path, config: Path) -> Server:
        command = f"{arguments.server} --config {config} --max-queue-rows {QUEUE_ROWS}"
        return ours(command, models, arguments.server_core)

    parts: dict[str, Callable[[], Result]] = {
        name: partial(shared, start, root, name, part, arguments.seconds) for name, part in PARTS.items()}
    run_parts(parts, {"demand": DEMAND, "seconds": arguments.seconds}, arguments.output, "-fairness")
    return 0


if __name__ == "__main__":
    sys.exit(main())
