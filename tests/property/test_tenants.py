"""The table of tenants against a plain one: who is told apart, who shares, and that nobody gains by being forgotten."""

from __future__ import annotations

import resource
from fractions import Fraction
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from infer._core import clock
from infer._core._testing_quotas import EVICT_LOOKS, Holding, ask
from infer._core.tenants import Tenants
from infer.quotas import Limits, Quotas, TenantQuota

SECOND_NS = 10**9
NAMES = st.integers(0, 30).map(lambda number: f"tenant-{number}".encode())
RATES = st.sampled_from([Fraction(1), Fraction(3, 7), Fraction(1000)])
SPANS = st.one_of(st.integers(0, 10), st.integers(0, 3 * SECOND_NS), st.just(10**6 * SECOND_NS))


def tenant_quota(rate: Fraction | None, burst: int, concurrent: int, weight: int) -> TenantQuota:
    return TenantQuota(Limits(requests_per_second=rate, requests_burst=burst if rate else 0,
                              max_concurrent=concurrent), weight)


QUOTAS = st.builds(tenant_quota, st.one_of(st.none(), RATES), st.integers(1, 3), st.integers(0, 3), st.integers(1, 5))


class Known:
    """A tenant of the model."""

    def __init__(self, quota: TenantQuota, now: int) -> None:
        self.id: int | None = None
        self.quota = quota
        self.level = Fraction(quota.limits.requests_burst)
        self.seen = now
        self.holders = 0
        self.concurrent = 0

    def come(self, now: int) -> None:
        limits = self.quota.limits
        if limits.requests_per_second is not None:
            self.level = min(Fraction(limits.requests_burst),
                             self.level + limits.requests_per_second * (now - self.seen) / SECOND_NS)
        self.seen = now

    def is_full(self, now: int) -> bool:
        self.come(now)
        return self.holders == 0 and self.level == self.quota.limits.requests_burst

    def allows(self, now: int) -> bool:
        self.come(now)
        limits = self.quota.limits
        if limits.requests_per_second is not None and self.level < 1:
            return False
        return limits.max_concurrent == 0 or self.concurrent < limits.max_concurrent

    def charge(self) -> bool:
        """Whether it counts as under way: where nothing is limited nothing is counted."""
        self.concurrent += bool(self.quota.limits)
        if self.quota.limits.requests_per_second is not None:
            self.level -= 1
        return bool(self.quota.limits)

    def change(self, quota: TenantQuota, now: int) -> None:
        self.come(now)
        if self.quota.limits.requests_per_second is None:
            self.level = Fraction(quota.limits.requests_burst)
        elif quota.limits.requests_per_second is None:
            self.level = Fraction(0)
        else:
            self.level = min(self.level, Fraction(quota.limits.requests_burst))
        self.quota = quota


class TableModel(RuleBasedStateMachine):
    @initialize(most=st.integers(1, 12), others=QUOTAS, named=st.dictionaries(NAMES, QUOTAS, max_size=3))
    def start(self, most: int, others: TenantQuota, named: dict[bytes, TenantQuota]) -> None:
        self.now = 10**15
        clock.set_fake(self.now)
        self.most = most
        self.others = others
        self.named = {name: Known(quota, self.now) for name, quota in named.items()}
        self.known: dict[bytes, Known] = {}         # the one used last comes last
        self.shared = Known(others, self.now)
        self.shared.id = 0
        self.shared_requests = 0
        self.ids: dict[int, bytes] = {}
        self.held: list[tuple[Holding, Known, bool]] = []
        self.tenants = Tenants(most, self.quotas())

    def quotas(self) -> Quotas:
        return Quotas({name.decode(): known.quota for name, known in self.named.items()}, self.others, listed=True)

    def find(self, name: bytes) -> Known:
        if name in self.named:
            return self.named[name]
        if name in self.known:
            self.known[name] = self.known.pop(name)
            return self.known[name]
        if len(self.known) >= self.most and not self.evict():
            self.shared_requests += 1
            return self.shared
        self.known[name] = Known(self.others, self.now)
        return self.known[name]

    def evict(self) -> bool:
        for name in list(self.known)[:EVICT_LOOKS]:
            if self.known[name].holders:
                self.known[name] = self.known.pop(name)
            elif self.known[name].is_full(self.now):
                del self.known[name]
                return True
        return False

    @rule(name=NAMES)
    def ask(self, name: bytes) -> None:
        found = self.find(name)
        holding = ask(self.tenants, name, self.now)
        allowed = found.allows(self.now)
        assert (holding.wait_ns == 0) == allowed
        if found is self.shared:
            assert (holding.id, holding.name) == (0, b"")
        else:
            # Never given twice, and the same for as long as it is known.
            assert holding.name == name
            assert self.ids.setdefault(holding.id, name) == name
            assert found.id in (None, holding.id)
            found.id = holding.id
        assert holding.weight == found.quota.weight
        found.holders += 1
        self.held.append((holding, found, allowed and found.charge()))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        holding, found, charged = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        holding.release()
        found.holders -= 1
        found.concurrent -= charged and found.concurrent > 0

    @rule(span=SPANS)
    def wait(self, span: int) -> None:
        self.now += span
        clock.set_fake(self.now)

    def configure(self) -> None:
        self.tenants.configure(self.quotas())
        while len(self.known) > self.most and self.evict():
            pass

    @rule(others=QUOTAS)
    def other_limits_for_others(self, others: TenantQuota) -> None:
        self.others = others
        for known in [self.shared, *self.known.values()]:
            known.change(others, self.now)
        self.configure()

    @rule(name=NAMES, quota=QUOTAS)
    def a_table_of_its_own(self, name: bytes, quota: TenantQuota) -> None:
        known = self.named.get(name) or self.known.pop(name, None)
        if known is None:
            known = Known(quota, self.now)
        else:
            known.change(quota, self.now)
        self.named[name] = known
        self.configure()

    @precondition(lambda self: self.named)
    @rule(data=st.data())
    def no_table_any_more(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.named)))
        self.known[name] = self.named.pop(name)
        self.known[name].change(self.others, self.now)
        self.configure()

    @invariant()
    def the_table_is_bounded(self) -> None:
        if hasattr(self, "tenants"):
            assert self.tenants.count == len(self.known)
            assert self.tenants.shared_requests == self.shared_requests

    def teardown(self) -> None:
        clock.restore()
        for holding, _, _ in getattr(self, "held", ()):
            holding.release()


TestTable = TableModel.TestCase
TestTable.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_million_names_take_the_memory_of_those_that_are_told_apart() -> None:
    limits = Limits(requests_per_second=Fraction(1), requests_burst=1)
    tenants = Tenants(4096, Quotas(others=TenantQuota(limits)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    allowed = 0
    for number in range(1_000_000):
        holding = ask(tenants, b"made-up-%d" % number, 10**15)
        allowed += holding.wait_ns == 0
        holding.release()
    # In KiB; a table of all of them would have some hundred MiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10
    assert tenants.count == 4096
    assert tenants.shared_requests == 1_000_000 - 4096
    # All of it at one moment: a burst each of those that are told apart, and one for all others.
    assert allowed == 4096 + 1


def test_names_that_come_and_go_are_told_apart_again_once_others_are_full() -> None:
    limits = Limits(requests_per_second=Fraction(1000), requests_burst=1)
    tenants = Tenants(8, Quotas(others=TenantQuota(limits)))
    for number in range(100_000):
        holding = ask(tenants, b"%d" % number, 10**15 + number * 10**6)
        assert holding.id != 0
        assert holding.wait_ns == 0
        holding.release()
    assert (tenants.count, tenants.shared_requests) == (8, 0)
