"""The cost of asking for the time."""

from collections.abc import Iterator

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core


def rows() -> Iterator[Row]:
    yield measure("clock", "now_ns", core.clock_reads)
