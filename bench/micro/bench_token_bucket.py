"""A token taken, and one refused."""

from collections.abc import Iterator
from functools import partial

from bench.micro.timing import Row, measure
from infer._core._testing_quotas import Bucket


def rows() -> Iterator[Row]:
    taken = Bucket(10**9, 1, 10**6, 0)
    yield measure("token_bucket", "take, given", partial(taken.takes, tokens=1, step_ns=1))
    fraction = Bucket(3 * 10**8, 7, 10**6, 0)
    yield measure("token_bucket", "take, given, 3/7 of a rate", partial(fraction.takes, tokens=1, step_ns=30))
    refused = Bucket(1, 7, 1, 0)
    refused.try_take(1, 0)
    yield measure("token_bucket", "take, refused", partial(refused.takes, tokens=1, step_ns=1))
