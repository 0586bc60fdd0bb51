"""grpc-timeout read, grpc-message written."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core import _testing_tensor as core


def rows() -> Iterator[Row]:
    yield measure("grpc_message", "parse_timeout, 1000m", partial(core.time_timeout, b"1000m"))
    yield measure("grpc_message", "percent_encode, 100 bytes", partial(core.time_percent_encode, b"input 'x' " * 10))
