"""A Block's life, its references, its growth."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core


def rows() -> Iterator[Row]:
    for capacity in (100, 4000, 100_000):
        yield measure("block", f"new + unref, {capacity} bytes", partial(core.block_pairs, capacity_bytes=capacity))
    yield measure("block", "ref + unref", core.block_references)
    for to_bytes in (4096, 1 << 20):
        yield measure(
            "block",
            f"grown by doubling to {to_bytes} bytes",
            partial(core.block_growths, to_bytes=to_bytes),
            rounds=2_000,
        )
