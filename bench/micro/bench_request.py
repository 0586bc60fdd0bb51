"""A request's memory, and one step along its transition table."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_bench_pipeline as core


def rows() -> Iterator[Row]:
    yield measure("request", "new + free, inline views", partial(core.request_pairs, views=2))
    yield measure("request", "new + free, 16 views", partial(core.request_pairs, views=16))
    yield measure("request", "transition", core.transitions)
