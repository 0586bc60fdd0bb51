"""Variants as /metrics shows them."""

from __future__ import annotations

from prometheus_client.core import Metric

from infer._core.arm import Arm
from infer.observe.variant_metrics import variant_families
from infer.observe.version_metrics import SECONDS


class Counted:
    model, name, rows = "m", 'a"b', 7
    calls = (5, 0, 0, 2, *[0] * 13)

    def snapshot(self, bounds_ns: tuple[int, ...]) -> tuple[int, int, tuple[int, ...]]:
        return 7, 3_000_000_000, tuple(min(index, 7) for index in range(len(bounds_ns)))


def samples(families: list[Metric]) -> dict[tuple[str, str], float]:
    """By name and what distinguishes it beside the variant."""
    return {(sample.name, sample.labels.get("code", sample.labels.get("le", ""))): sample.value
            for family in families for sample in family.samples}


def test_calls_rows_and_times() -> None:
    families = list(variant_families([Counted()]))
    found = samples(families)
    assert {key: value for key, value in found.items() if "bucket" not in key[0]} == {
        ("infer_variant_requests_total", "OK"): 5, ("infer_variant_requests_total", "INVALID_ARGUMENT"): 2,
        ("infer_variant_rows_total", ""): 7, ("infer_variant_request_seconds_count", ""): 7,
        ("infer_variant_request_seconds_sum", ""): 3.0}
    buckets = [value for key, value in found.items() if key[0] == "infer_variant_request_seconds_bucket"]
    assert buckets == [*(min(index, 7) for index in range(len(SECONDS))), 7]
    assert all(sample.labels["variant"] == 'a"b' and sample.labels["model"] == "m"
               for family in families for sample in family.samples)


def test_one_without_calls_is_there_and_none_is_nothing() -> None:
    found = samples(list(variant_families([Arm("m", "split", "4")])))
    assert found["infer_variant_requests_total", "OK"] == 0
    assert found["infer_variant_request_seconds_bucket", "+Inf"] == 0
    assert list(variant_families([])) == []
