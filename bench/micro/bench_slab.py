"""The pieces that libnghttp2 takes and gives back for a read of many calls."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core


def rows() -> Iterator[Row]:
    for size in (64, 300, 1024, 20_000):
        what = f"malloc + free in bursts of 1024, {size} bytes"
        yield measure("slab", what, partial(core.slab_bursts, size_bytes=size))
