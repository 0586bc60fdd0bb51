"""A request through a queue, on one thread: put, taken, completed; or put and removed."""

from collections.abc import Iterator

from bench.micro.timing import Row, measure
from infer._core import _testing_bench_pipeline as core

CASES = {"1 version, 1 shape": (1, 1), "1 version, 64 shapes": (1, 64), "64 versions": (64, 1)}


def rows() -> Iterator[Row]:
    for gather_rows in (1, 64):
        for name, (versions, shapes) in CASES.items():
            queue = core.QueueBench(gather_rows, versions, shapes)
            yield measure("batcher", f"put + take + complete, batches of {gather_rows}, {name}", queue.cycles)
    for name, (versions, shapes) in CASES.items():
        yield measure("batcher", f"put + remove, {name}", core.QueueBench(64, versions, shapes).removals)
