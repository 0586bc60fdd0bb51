"""A Request's handle on its version, and what a scrape reads of it."""

import time
from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core
from infer._core.model_version import TensorInfo, VersionEntry

FP32 = 1
BOUNDS = tuple(range(1_000, 21_000, 1_000))


def entry() -> VersionEntry:
    tensor = TensorInfo("x", FP32, (-1, 16), ("batch", ""))
    return VersionEntry("m", "1", None, [tensor], [tensor], batched=True, max_rows=64, gather_rows=64, delay_ns=0,
                        queue_limit_rows=64, max_running=1, properties={})


def scrapes(rounds: int, version: VersionEntry) -> int:
    begin = time.perf_counter_ns()
    for _ in range(rounds):
        version.stats_snapshot(BOUNDS, BOUNDS)
    return time.perf_counter_ns() - begin


def rows() -> Iterator[Row]:
    version = entry()
    yield measure("model_version", "handle taken + dropped", partial(core.handle_pairs, entry=version))
    yield measure("model_version", "statistics read for a scrape", partial(scrapes, version=version), rounds=200)
