"""A tenant found by its name, its quotas asked and charged, and released: what a request of a tenant pays."""

from collections.abc import Iterator
from fractions import Fraction
from functools import partial

from bench.micro.timing import Row, measure
from infer._core._testing_quotas import ask_in_turn
from infer._core.tenants import Tenants
from infer.quotas import NONE, Limits, Quotas, TenantQuota

ALL_KINDS = Limits(Fraction(10**9), 10**6, Fraction(10**9), 10**6, 10**6, 1 << 30)
START_NS = 10**15


def rows() -> Iterator[Row]:
    every = Quotas(others=TenantQuota(ALL_KINDS))
    names = [b"tenant-%d" % number for number in range(8192)]
    for said, quotas, most, count in (
            ("one tenant, no limits", NONE, 4096, 1), ("one tenant, limits of all kinds", every, 4096, 1),
            ("4096 in turn, limits of all kinds", every, 4096, 4096),
            ("8192 in turn, room for 4096: each is new", every, 4096, 8192)):
        yield measure("tenants", said, partial(ask_in_turn, Tenants(most, quotas), names[:count], now=START_NS))
