"""What a closed breaker costs a call: admitted, then recorded as good."""

from collections.abc import Iterator

from bench.micro.timing import Row, measure
from infer._core import _testing_breaker as core


def rows() -> Iterator[Row]:
    yield measure("breaker", "admit + record, closed", core.good_calls)
