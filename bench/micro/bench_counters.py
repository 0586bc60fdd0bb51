"""Observation, and what a scrape does."""

from collections.abc import Iterator

from bench.micro.timing import Row, measure
from infer._core import _testing_bench as core


def rows() -> Iterator[Row]:
    yield measure("counters", "observe", core.histogram_observations)
    yield measure("counters", "quantile", core.histogram_quantiles, rounds=10_000)
    yield measure("counters", "merge", core.histogram_merges, rounds=10_000)
