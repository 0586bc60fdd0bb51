"""Quotas on a request's way: what is refused and with which words, what it costs, and what changes at run time."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest

from infer._core import clock
from infer._core.cache import Cache
from infer._core.model_version import VersionEntry
from infer._core.tenants import Tenants
from infer.quotas import NONE, Limits, Quotas, TenantQuota
from tests.support.models import identity
from tests.support.puppets import MILLISECOND_NS, SECOND_NS, Bench, fp32_request, make_entry, rows_of

OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAUTHENTICATED = 0, 3, 8, 16
METADATA, CERTIFICATE = 0, 1
BUSY_PUSHBACK_MS = 100


def rate(per_second: float | str, burst: int) -> dict[str, Any]:
    return {"requests_per_second": Fraction(per_second), "requests_burst": burst}


def rows(per_second: float | str, burst: int) -> dict[str, Any]:
    return {"rows_per_second": Fraction(per_second), "rows_burst": burst}


def request(n_rows: int = 1, model: str = "m") -> bytes:
    return fp32_request([[1.0] * 4] * n_rows, model)


def bench_of(quotas: Quotas = NONE, *entries: VersionEntry, **fields: Any) -> Bench:
    return Bench(*(entries or (make_entry(identity()),)), quotas=quotas, **fields)


def of_tenant(name: str = "a", **limits: Any) -> Quotas:
    return Quotas({name: TenantQuota(Limits(**limits))}, listed=True)


def codes(bench: Bench, calls: Sequence[int]) -> list[int]:
    bench.run_all()
    return [bench.outcome(call).code for call in calls]


def refused(bench: Bench, call: int) -> tuple[int, int, str]:
    outcome = bench.outcome(call)
    return outcome.code, outcome.pushback_ms, outcome.message


# What is refused, and with which words.


def test_requests_over_a_tenants_rate_are_refused_until_there_is_a_token(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rate(10, 2)))
    calls = [bench.call(request(), tenant=b"a") for _ in range(3)]
    assert codes(bench, calls) == [OK, OK, RESOURCE_EXHAUSTED]
    assert refused(bench, calls[2]) == (
        RESOURCE_EXHAUSTED, 100,
        "tenant 'a': the limit is 10 requests/s, 2 at once ([tenants.a] requests_per_second); retry in 100 ms")
    bench.advance(100 * MILLISECOND_NS - 1)
    early = bench.call(request(), tenant=b"a")
    bench.advance(1)
    assert codes(bench, [early, bench.call(request(), tenant=b"a")]) == [RESOURCE_EXHAUSTED, OK]
    # To the whole millisecond in which the token comes.
    assert bench.outcome(early).pushback_ms == 1
    bench.close()


def test_rows_over_a_tenants_rate_are_refused(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rows("3/7", 8)))
    calls = [bench.call(request(number), tenant=b"a") for number in (6, 3, 2)]
    assert codes(bench, calls) == [OK, RESOURCE_EXHAUSTED, OK]
    assert refused(bench, calls[1]) == (
        RESOURCE_EXHAUSTED, 2334,
        "tenant 'a': the limit is 3/7 rows/s, 8 at once ([tenants.a] rows_per_second); retry in 2334 ms")
    bench.close()


def test_more_rows_than_there_can_ever_be_at_once_are_an_invalid_request(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rows(100, 8), **rate(1, 1)))
    call = bench.call(request(9), tenant=b"a")
    assert refused(bench, call) == (
        INVALID_ARGUMENT, -1,
        "tenant 'a': the limit is 100 rows/s, 8 at once ([tenants.a] rows_per_second), the request has 9 rows; send "
        "fewer in one request")
    # Whatever else stands against it as well; and it has cost no request.
    assert codes(bench, [bench.call(request(), tenant=b"a")]) == [OK]
    assert bench.outcome(bench.call(request(9), tenant=b"a")).code == INVALID_ARGUMENT
    bench.close()


def test_requests_under_way_are_limited_until_others_have_ended(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(max_concurrent=2))
    calls = [bench.call(request(), tenant=b"a") for _ in range(3)]
    assert refused(bench, calls[2]) == (
        RESOURCE_EXHAUSTED, BUSY_PUSHBACK_MS,
        "tenant 'a': the limit is 2 requests under way ([tenants.a] max_concurrent); retry when others have ended")
    bench.transport.cancel(calls[0])
    calls.append(bench.call(request(), tenant=b"a"))
    calls.append(bench.call(request(), tenant=b"a"))
    assert codes(bench, calls[1:]) == [OK, RESOURCE_EXHAUSTED, OK, RESOURCE_EXHAUSTED]
    assert codes(bench, [bench.call(request(), tenant=b"a")]) == [OK]
    bench.close()


def test_bytes_under_way_are_limited(stepped_clock: None) -> None:
    one = len(request()) + 5
    bench = bench_of(of_tenant(max_in_flight_bytes=2 * one))
    calls = [bench.call(request(), tenant=b"a") for _ in range(3)]
    assert refused(bench, calls[2]) == (
        RESOURCE_EXHAUSTED, BUSY_PUSHBACK_MS,
        f"tenant 'a': the limit is {2 * one} bytes of requests under way ([tenants.a] max_in_flight_bytes); retry when "
        "others have ended")
    large = bench.call(request(9), tenant=b"a")
    assert refused(bench, large) == (
        INVALID_ARGUMENT, -1,
        f"tenant 'a': the limit is {2 * one} bytes of requests under way ([tenants.a] max_in_flight_bytes), the "
        f"request has {len(request(9)) + 5} bytes; send less in one")
    assert codes(bench, calls[:2]) == [OK, OK]
    assert codes(bench, [bench.call(request(), tenant=b"a") for _ in range(2)]) == [OK, OK]
    bench.close()


def test_what_has_to_be_waited_for_longest_is_said(stepped_clock: None) -> None:
    quotas = Quotas({"a": TenantQuota(Limits(**rate(10, 1)), models={"m": Limits(**rate(1, 1))})},
                    models={"m": Limits(**rate("1/10", 1))}, listed=True)
    bench = bench_of(quotas)
    bench.call(request(), tenant=b"a")
    assert refused(bench, bench.call(request(), tenant=b"a")) == (
        RESOURCE_EXHAUSTED, 10_000,
        "model 'm': the limit is 1/10 requests/s, 1 at once ([models.m.limits] requests_per_second); retry in 10000 ms")
    bench.pipeline.tenants.configure(Quotas(quotas.tenants, listed=True))
    assert refused(bench, bench.call(request(), tenant=b"a")) == (
        RESOURCE_EXHAUSTED, 1000,
        "tenant 'a' at model 'm': the limit is 1 requests/s, 1 at once ([tenants.a.models.m] requests_per_second); "
        "retry in 1000 ms")
    bench.run_all()
    bench.close()


@pytest.mark.parametrize(("name", "whose"), [
    (b"unknown", "tenant 'unknown': the limit is 1 requests/s, 1 at once ([tenants.\"*\"] requests_per_second)"),
    (None, "requests without a tenant: the limit is 1 requests/s, 1 at once ([tenants.\"*\"] requests_per_second)")])
def test_tenants_without_a_table_have_the_limits_of_all_others(stepped_clock: None, name: bytes | None,
                                                               whose: str) -> None:
    bench = bench_of(Quotas(others=TenantQuota(Limits(**rate(1, 1))), listed=True))
    calls = [bench.call(request(), tenant=name), bench.call(request(), tenant=name),
             bench.call(request(), tenant=b"another")]
    assert codes(bench, calls) == [OK, RESOURCE_EXHAUSTED, OK]
    assert bench.outcome(calls[1]).message.startswith(whose)
    bench.close()


def test_tenants_for_which_there_is_no_room_share_a_quota(stepped_clock: None) -> None:
    bench = bench_of(Quotas(others=TenantQuota(Limits(**rate(1, 1))), listed=True), max_tenants=1)
    calls = [bench.call(request(), tenant=name) for name in (b"a", b"b", b"c")]
    assert codes(bench, calls) == [OK, OK, RESOURCE_EXHAUSTED]
    assert bench.outcome(calls[2]).message.startswith("tenants for which there is no room (--max-tenants) together: ")
    bench.close()


def test_quotas_are_apart_by_tenant_and_by_model(stepped_clock: None) -> None:
    quotas = Quotas({"a": TenantQuota(models={"m": Limits(**rate(1, 1))})}, models={"n": Limits(max_concurrent=1)},
                    listed=True)
    bench = bench_of(quotas, make_entry(identity()), make_entry(identity(), "n"))
    calls = [bench.call(request(model=model), tenant=tenant) for model, tenant in (
        ("m", b"a"), ("m", b"a"), ("m", b"b"), ("n", b"a"), ("n", b"b"))]
    assert codes(bench, calls) == [OK, RESOURCE_EXHAUSTED, OK, OK, RESOURCE_EXHAUSTED]
    assert bench.pipeline.tenants.refused() == {("a", "tenant_model", "requests_per_second"): 1,
                                                ("other", "model", "max_concurrent"): 1}
    bench.close()


def test_versions_of_a_model_have_one_quota(stepped_clock: None) -> None:
    bench = bench_of(Quotas(models={"m": Limits(**rate(1, 1))}), make_entry(identity()),
                     make_entry(identity(), version="2"))
    calls = [bench.call(fp32_request([[1.0] * 4], version=version)) for version in ("1", "2")]
    assert codes(bench, calls) == [OK, RESOURCE_EXHAUSTED]
    bench.close()


# What a refusal costs.


def test_a_request_that_the_queue_refuses_costs_nothing(stepped_clock: None) -> None:
    entry = make_entry(identity(), queue_limit_rows=1)
    bench = bench_of(of_tenant(**rate("1/1000", 2), **rows("1/1000", 2), max_concurrent=2), entry)
    first = bench.call(request(), tenant=b"a")
    for _ in range(5):
        assert "queue of model" in bench.outcome(bench.call(request(), tenant=b"a")).message
    assert codes(bench, [first]) == [OK]
    second = bench.call(request(), tenant=b"a")
    assert codes(bench, [second]) == [OK]
    assert bench.outcome(bench.call(request(), tenant=b"a")).message.startswith("tenant 'a': the limit is 1/1000")
    bench.close()


def test_what_is_over_one_quota_costs_none_of_the_others(stepped_clock: None) -> None:
    quotas = Quotas({"a": TenantQuota(Limits(**rate("1/1000", 2)), models={"m": Limits(**rows("1/1000", 1))})},
                    models={"m": Limits(**rate("1/1000", 2))}, listed=True)
    bench = bench_of(quotas)
    calls = [bench.call(request(), tenant=b"a") for _ in range(5)]
    assert codes(bench, calls) == [OK] + 4 * [RESOURCE_EXHAUSTED]
    # The request that is left of the tenant's, and of the model's.
    bench.pipeline.tenants.configure(Quotas({"a": TenantQuota(Limits(**rate("1/1000", 2)))}, models=quotas.models,
                                            listed=True))
    assert codes(bench, [bench.call(request(), tenant=b"a") for _ in range(2)]) == [OK, RESOURCE_EXHAUSTED]
    bench.close()


def test_a_refused_request_reaches_no_queue(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rate(1, 1)))
    bench.call(request(), tenant=b"a")
    for _ in range(10):
        bench.call(request(), tenant=b"a")
    assert (bench.pipeline.queued_requests, bench.pipeline.in_flight) == (1, 1)
    assert bench.run_all() == 1
    bench.close()


def test_a_token_that_was_taken_stays_spent_when_the_call_is_cancelled(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rate(1, 1), max_concurrent=1))
    bench.transport.cancel(bench.call(request(), tenant=b"a"))
    assert "requests_per_second" in bench.outcome(bench.call(request(), tenant=b"a")).message
    bench.advance(SECOND_NS)
    assert codes(bench, [bench.call(request(), tenant=b"a")]) == [OK]
    bench.close()


# Whose a request is.


@pytest.mark.parametrize("name", [b"", b"x" * 256, b"tab\t", b"\x80", b"nul\x00"])
def test_what_cannot_be_a_tenants_name_is_refused_before_the_message_comes(stepped_clock: None, name: bytes) -> None:
    bench = bench_of()
    call = bench.open()
    assert not bench.transport.identify(call, name, METADATA)
    assert refused(bench, call) == (
        UNAUTHENTICATED, -1, "malformed tenant in the metadata (--tenant-metadata-key): expected it once, with 1 to "
                             "255 printable ASCII characters")
    bench.close()


def test_a_certificate_that_names_no_tenant_is_refused_where_there_are_tables_of_tenants(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rate(1, 1)))
    call = bench.open()
    assert not bench.transport.identify(call, b"", CERTIFICATE)
    assert refused(bench, call) == (
        UNAUTHENTICATED, -1, "the client's certificate names no tenant: expected exactly one URI among its subject "
                             "alternative names, of at most 255 printable ASCII characters; use one that was issued "
                             "with it")
    bench.pipeline.tenants.configure(NONE)
    call = bench.open()
    assert bench.transport.identify(call, b"", CERTIFICATE)
    assert bench.transport.tenant(call) is None
    bench.transport.cancel(call)
    bench.close()


def test_a_tenant_has_an_id_and_a_weight_for_as_long_as_a_request_is_its_own(stepped_clock: None) -> None:
    bench = bench_of(Quotas({"a": TenantQuota(weight=3)}, TenantQuota(weight=2), listed=True), max_tenants=1)
    calls = [bench.open() for _ in range(3)]
    for call, name in zip(calls, (b"a", b"b", b"x" * 255), strict=True):
        assert bench.transport.identify(call, name)
    named, other, shared = (bench.transport.tenant(call) for call in calls)
    assert named is not None
    assert other is not None
    assert shared == (0, 2, b"")
    assert (named[1:], other[1:]) == ((3, b"a"), (2, b"b"))
    assert len({0, named[0], other[0]}) == 3
    bench.transport.cancel(calls[1])
    # Its place is free, and who takes it is another.
    last = bench.open()
    bench.transport.identify(last, b"c")
    another = bench.transport.tenant(last)
    assert another is not None
    assert another[2] == b"c"
    assert another[0] not in (0, named[0], other[0])
    for call in (calls[0], calls[2], last):
        bench.transport.cancel(call)
    bench.close()


# Other limits at run time.


def test_other_limits_leave_the_tokens_of_those_that_stay(stepped_clock: None) -> None:
    quotas = Quotas({"a": TenantQuota(Limits(**rate("1/1000", 2), **rows("1/1000", 4)))}, listed=True)
    bench = bench_of(quotas)
    bench.call(request(3), tenant=b"a")
    changed = Limits(**rate("1/1000", 2), **rows("1/1000", 100), max_concurrent=9)
    bench.pipeline.tenants.configure(Quotas({"a": TenantQuota(changed)}, listed=True))
    assert "rows_per_second" in bench.outcome(bench.call(request(2), tenant=b"a")).message
    calls = [bench.call(request(1), tenant=b"a"), bench.call(request(1), tenant=b"a")]
    assert codes(bench, calls) == [OK, RESOURCE_EXHAUSTED]
    bench.close()


def test_requests_under_way_count_on_under_other_limits(stepped_clock: None) -> None:
    def quotas(concurrent: int) -> Quotas:
        limits = Limits(max_concurrent=concurrent)
        return Quotas({"a": TenantQuota(limits, models={"m": limits})}, models={"m": limits}, listed=True)

    bench = bench_of(quotas(2))
    calls = [bench.call(request(), tenant=b"a") for _ in range(2)]
    bench.pipeline.tenants.configure(quotas(3))
    calls += [bench.call(request(), tenant=b"a") for _ in range(2)]
    assert codes(bench, calls) == [OK, OK, OK, RESOURCE_EXHAUSTED]
    # None is left, and none too few.
    calls = [bench.call(request(), tenant=b"a") for _ in range(4)]
    assert codes(bench, calls) == [OK, OK, OK, RESOURCE_EXHAUSTED]
    bench.close()


def test_limits_that_go_and_come_while_requests_are_under_way(stepped_clock: None) -> None:
    limits = Limits(max_concurrent=1)
    quotas = Quotas({"a": TenantQuota(limits, models={"m": limits})}, models={"m": limits}, listed=True)
    bench = bench_of()
    calls = [bench.call(request(), tenant=b"a") for _ in range(3)]
    bench.pipeline.tenants.configure(quotas)
    calls.append(bench.call(request(), tenant=b"a"))
    bench.pipeline.tenants.configure(NONE)
    calls.append(bench.call(request(), tenant=b"a"))
    bench.pipeline.tenants.configure(quotas)
    assert codes(bench, calls) == [OK] * 5
    calls = [bench.call(request(), tenant=b"a") for _ in range(2)]
    assert codes(bench, calls) == [OK, RESOURCE_EXHAUSTED]
    bench.close()


def test_a_model_that_goes_and_comes_keeps_its_quota(stepped_clock: None) -> None:
    entry = make_entry(identity())
    bench = bench_of(Quotas(models={"m": Limits(**rate("1/1000", 1))}), entry)
    assert codes(bench, [bench.call(request())]) == [OK]
    bench.unload(entry)
    bench.publish(make_entry(identity(), version="2"))
    assert codes(bench, [bench.call(request())]) == [RESOURCE_EXHAUSTED]
    bench.close()


def test_refusals_are_counted_on_when_a_tenants_table_goes(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rate("1/1000", 1)))
    for _ in range(3):
        bench.call(request(), tenant=b"a")
    assert bench.pipeline.tenants.refused() == {("a", "tenant", "requests_per_second"): 2}
    bench.pipeline.tenants.configure(NONE)
    assert bench.pipeline.tenants.refused() == {("other", "tenant", "requests_per_second"): 2}
    bench.run_all()
    bench.close()


def test_limits_that_cannot_be_counted_change_nothing(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rate(1, 1)))
    with pytest.raises(ValueError, match="cannot be counted"):
        bench.pipeline.tenants.configure(of_tenant(**rate("1/3000000000", 1)))
    assert codes(bench, [bench.call(request(), tenant=b"a") for _ in range(2)]) == [OK, RESOURCE_EXHAUSTED]
    bench.close()


def test_a_table_without_room_cannot_be() -> None:
    with pytest.raises(ValueError, match="max_tenants is 0"):
        Tenants(0, NONE)


def test_the_clock_of_a_bucket_is_that_of_the_request(stepped_clock: None) -> None:
    bench = bench_of(of_tenant(**rate(1, 1)))
    bench.call(request(), tenant=b"a")
    clock.advance(10**18)
    assert codes(bench, [bench.call(request(), tenant=b"a") for _ in range(2)]) == [OK, RESOURCE_EXHAUSTED]
    bench.close()


# Beside the cache.


def cached_bench(quotas: Quotas, **fields: Any) -> tuple[Bench, VersionEntry]:
    entry = make_entry(identity())
    bench = Bench(cache=Cache(1 << 20), quotas=quotas, **fields)
    bench.publish(entry, ttl_ns=0)
    return bench, entry


def test_an_answer_from_the_cache_costs_a_request_and_no_rows(stepped_clock: None) -> None:
    bench, entry = cached_bench(of_tenant(**rate("1/1000", 4), **rows("1/1000", 2)))
    for _ in range(3):
        assert codes(bench, [bench.call(request(2), tenant=b"a")]) == [OK]
    assert rows_of(entry) == 2
    # Of other rows there are none left.
    assert "rows_per_second" in bench.outcome(bench.call(request(1), tenant=b"a")).message
    assert codes(bench, [bench.call(request(2), tenant=b"a")]) == [OK]
    assert "requests_per_second" in bench.outcome(bench.call(request(2), tenant=b"a")).message
    bench.close()


def test_requests_that_wait_for_an_identical_one_are_under_way(stepped_clock: None) -> None:
    bench, entry = cached_bench(of_tenant(max_concurrent=2, **rows("1/1000", 2)))
    calls = [bench.call(request(2), tenant=b"a") for _ in range(3)]
    assert codes(bench, calls) == [OK, OK, RESOURCE_EXHAUSTED]
    assert "max_concurrent" in bench.outcome(calls[2]).message
    assert rows_of(entry) == 2
    assert codes(bench, [bench.call(request(2), tenant=b"a")]) == [OK]
    bench.close()


def test_one_that_runs_in_anothers_stead_pays_its_rows_and_no_second_request(stepped_clock: None) -> None:
    bench, entry = cached_bench(of_tenant(**rate("1/1000", 2), **rows("1/1000", 4), max_concurrent=2))
    calls = [bench.call(request(2), tenant=b"a") for _ in range(2)]
    bench.transport.cancel(calls[0])
    bench.loop.fire_due()
    assert codes(bench, calls[1:]) == [OK]
    assert rows_of(entry) == 2
    # Two of each are spent, and none is under way.
    assert "requests_per_second" in bench.outcome(bench.call(request(2), tenant=b"a")).message
    bench.pipeline.tenants.configure(of_tenant(**rows("1/1000", 4)))
    assert "rows_per_second" in bench.outcome(bench.call(request(1), tenant=b"a")).message
    bench.close()


def test_tenants_for_which_there_is_no_room_get_no_answer_of_each_other(stepped_clock: None) -> None:
    bench, entry = cached_bench(NONE, max_tenants=1)
    held = bench.open()
    assert bench.transport.identify(held, b"a")
    for number, name in enumerate((b"b", b"c", b"b"), 1):
        assert codes(bench, [bench.call(request(), tenant=name)]) == [OK]
        assert rows_of(entry) == number
    bench.transport.cancel(held)
    bench.close()


def test_a_tenant_that_takes_anothers_place_gets_none_of_its_answers(stepped_clock: None) -> None:
    bench, entry = cached_bench(NONE, max_tenants=1)
    for number, name in enumerate((b"a", b"b", b"a"), 1):
        assert codes(bench, [bench.call(request(), tenant=name)]) == [OK]
        assert rows_of(entry) == number
    bench.close()
