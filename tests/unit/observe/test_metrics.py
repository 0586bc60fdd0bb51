"""The exposition, read back by prometheus_client's own parsers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from infer.observe.metrics import SERVER_METRICS, renderer
from infer.observe.version_metrics import CODES, ROW_BOUNDS, SECONDS, TIME_BOUNDS_NS


class Version:
    def __init__(self, name: bytes, scale: int = 1) -> None:
        self.name = name
        self.version = "3"
        self.scale = scale
        self.settings: Any = None

    def stats_snapshot(self, time_bounds_ns: tuple[int, ...], row_bounds: tuple[int, ...]) -> Mapping[str, Any]:
        calls = [0] * len(CODES)
        calls[0], calls[3] = 10 * self.scale, 2
        times = (10, 5_000_000_000, [min(index, 9) for index in range(len(time_bounds_ns))])
        return {"calls": calls, "queue_refused": {"max_queue_rows": 5, "max_queue_size": 6, "queue_timeout": 7},
                "expired": {"queue": 9, "run": 11},
                "queue_delayed": 8, "charged_ns": 2_500_000_000, "batches_left": {"full": 3, "idle": 1},
                "cache": {"hits": 9, "joined": 2, "misses": 3, "passed": 4, "evictions": 5, "expiries": 6,
                          "rejections": 7, "known_rows": 8, "new_rows": 9},
                "rows": 40, "batches": 4, "request": times, "queue": times, "compute": times,
                "batch_rows": (4, 40, [min(index, 4) for index in range(len(row_bounds))])}


class Source:
    def __init__(self, versions: Sequence[Version], gauges: Mapping[str, Any]) -> None:
        self._versions = versions
        self._gauges = gauges

    def versions(self) -> Sequence[Version]:
        return self._versions

    def gauges(self) -> Mapping[str, Any]:
        return self._gauges


GAUGES: dict[str, Any] = {
    "ready": True, "in_flight": 5, "queue_rows": {("m", "3"): 7}, "queue_bytes": {("m", "3"): 700},
    "cache_bytes": {("m", "3"): 4096}, "cache_entries": {("m", "3"): 4}, "cache_waiting": {("m", "3"): 2},
    "cache_bypassed": {("m", "3"): 0},
    "shadow_copies": {("m", "3", "agreed"): 4}, "shadow_dropped": {("m", "3", "bytes"): 1},
    "shadow_waiting": {("m", "3"): 2}, "shadow_bytes": 4096,
    "captured": {"m": 5}, "capture_dropped": {("m", "rate"): 1}, "capture_bytes": {"m": 100},
    "slo_gather_rows": {("m", "3"): 16}, "slo_delay_seconds": {("m", "3"): 0.002},
    "adaptive_rows": {("m", "3"): 96}, "executors": 2, "executors_busy": 1,
    "executors_stuck": 0, "runs_stopped": 2, "breaker_state": {("m", "3"): 2}, "breaker_opened": {("m", "3"): 1},
    "fallbacks": {("m", "3", "previous"): 4}, "cache_second": {"hit": 3}, "cache_second_failures": 1,
    "replica_up": {"a:1": 1}, "replica_forwards": {"answered": 3},
    "connections": 3,
    "connections_accepted": 9, "streams": 8, "streams_held": 1, "turns_ended": 1, "calls_without_te": 3,
    "refused": {"max_streams": 2, "max_queue_rows": 1}, "buffered_bytes": 4096,
    "outbound_bytes": 10, "coding_jobs": 1, "inflated_bytes": 5, "arena_bytes": {"used": 1, "mapped": 2},
    "tenants": 5, "tenants_shared": 6, "quota_refused": {("a", "tenant", "rows_per_second"): 7},
    "log_lines_dropped": 6, "control_calls": 1, "control_refused": 2, "override_bytes": 3,
    "models_ready": 3, "models_loading": 1, "models_draining": 0, "models_failed": 1, "models_waiting": 2,
    "load_calls_waiting": 1, "model_events": {("load", "ok"): 3}, "repository_problems": 0,
    "state_waiting": 4,
    "state_failures": 5, "audit_lost": 6, "settings_problem": 1,
    "tls_handshakes": {"done": 4, "failed": 1}, "tls_certificate_problem": 1, "tls_certificate_expiry": 1.5e9,
    "variants_unready": {("m", "4"): 1}, "rollout_weight": {("m", "4"): 0.05},
    "rollout_state": {("m", "4", "running"): 1}, "rollouts_ended": {"done": 2},
    "rollout_looks_failed": {"m": 1}, "experiment_looks_failed": {"m": 2},
    "experiment_decision": {("m", "e", "winner"): 1}, "experiments_ended": {"no difference": 1},
    "outcomes": {("m", "accepted"): 9}, "outcome_remembered": {("m", "requests"): 7},
    "outcome_forgotten": {("m", "reported"): 2},
    "unrouted": [0, 0, 0, 0, 0, 11, *[0] * 11],
}


def samples(source: Source, accept: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    content, content_type = renderer(source, {"nghttp2": "1.52.0"})(accept)
    parse = parse_openmetrics if "openmetrics" in content_type else parse_text
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in parse(b"".join(content).decode()) for sample in family.samples}


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0"])
def test_counters_of_versions(accept: str) -> None:
    found = samples(Source([Version(b"m"), Version(b"n", 2)], GAUGES), accept)
    model = (("model", "m"), ("version", "3"))
    assert found["infer_requests_total", (("code", "OK"), *model)] == 10
    assert found["infer_requests_total", (("code", "INVALID_ARGUMENT"), *model)] == 2
    assert ("infer_requests_total", (("code", "INTERNAL"), *model)) not in found
    assert found["infer_requests_total", (("code", "OK"), ("model", "n"), ("version", "3"))] == 20
    assert found["infer_requests_total", (("code", "NOT_FOUND"), ("model", ""), ("version", ""))] == 11
    assert found["infer_rows_total", model] == 40
    assert [found["infer_queue_refused_total", (("limit", limit), *model)]
            for limit in ("max_queue_rows", "max_queue_size", "queue_timeout")] == [5, 6, 7]
    assert [found["infer_expired_total", (("in", place), *model)] for place in ("queue", "run")] == [9, 11]
    assert found["infer_queue_delayed_total", model] == 8
    assert found["infer_batches_total", model] == 4
    assert found["infer_executor_seconds_total", model] == 2.5
    assert [found["infer_batches_left_total", (model[0], ("reason", reason), model[1])]
            for reason in ("full", "idle")] == [3, 1]
    assert [found["infer_cache_hits_total", (("by", by), *model)] for by in ("kept", "joined")] == [7, 2]
    assert (found["infer_cache_misses_total", model], found["infer_cache_passed_total", model]) == (3, 4)
    assert [found["infer_cache_gone_total", (model[0], ("reason", reason), model[1])]
            for reason in ("evicted", "expired", "rejected")] == [5, 6, 7]


@pytest.mark.parametrize("name", ["request", "queue", "compute"])
def test_time_histograms_are_in_seconds(name: str) -> None:
    found = samples(Source([Version(b"m")], {}))
    labels = (("model", "m"), ("version", "3"))
    assert found[f"infer_{name}_seconds_count", labels] == 10
    assert found[f"infer_{name}_seconds_sum", labels] == 5.0
    buckets = {dict(key[1])["le"]: value for key, value in found.items() if key[0] == f"infer_{name}_seconds_bucket"}
    assert [float(edge) for edge in buckets] == [*SECONDS, float("inf")]
    assert list(buckets.values()) == [*(min(index, 9) for index in range(len(SECONDS))), 10]
    assert TIME_BOUNDS_NS[0] == 50_000
    assert TIME_BOUNDS_NS[-1] == 10_000_000_000


def test_histogram_of_batch_rows() -> None:
    found = samples(Source([Version(b"m")], {}))
    buckets = {dict(key[1])["le"]: value for key, value in found.items() if key[0] == "infer_batch_rows_bucket"}
    assert [float(edge) for edge in buckets] == [*map(float, ROW_BOUNDS), float("inf")]
    assert found["infer_batch_rows_sum", (("model", "m"), ("version", "3"))] == 40


def test_buckets_of_a_version() -> None:
    own, other = Version(b"m"), Version(b"n")
    own.settings = SimpleNamespace(
        histogram_buckets={"infer_queue_seconds": (.0007, .25, 20.), "infer_batch_rows": (3.5,)})
    found = samples(Source([own, other], {}))

    def edges(family: str, model: str) -> list[float]:
        return [float(dict(key[1])["le"]) for key in found
                if key[0] == f"{family}_bucket" and ("model", model) in key[1]]

    assert edges("infer_queue_seconds", "m") == [.0007, .25, 20., float("inf")]
    assert edges("infer_batch_rows", "m") == [3.5, float("inf")]
    assert edges("infer_request_seconds", "m") == edges("infer_queue_seconds", "n") == [*SECONDS, float("inf")]
    # Version counts up to 9 by the index of a bound among all that are asked for: .0007 is the fifth.
    assert found["infer_queue_seconds_bucket", (("le", "0.0007"), ("model", "m"), ("version", "3"))] == 4
    assert found["infer_batch_rows_bucket", (("le", "3.5"), ("model", "m"), ("version", "3"))] == 2


def test_a_bucket_read_after_its_count_does_not_pass_infinity() -> None:
    class Torn(Version):
        def stats_snapshot(self, time_bounds_ns: tuple[int, ...], row_bounds: tuple[int, ...]) -> Mapping[str, Any]:
            stats = dict(super().stats_snapshot(time_bounds_ns, row_bounds))
            return stats | {"queue": (8, 1, stats["queue"][2])}

    found = samples(Source([Torn(b"m")], {}))
    assert found["infer_queue_seconds_bucket", (("le", "+Inf"), ("model", "m"), ("version", "3"))] == 9


def test_server_metrics() -> None:
    found = samples(Source([], GAUGES))
    assert found["infer_ready", ()] == 1
    assert found["infer_queue_rows", (("model", "m"), ("version", "3"))] == 7
    assert found["infer_cache_bytes", (("model", "m"), ("version", "3"))] == 4096
    assert found["infer_refused_total", (("limit", "max_streams"),)] == 2
    assert found["infer_connections_accepted_total", ()] == 9
    assert found["infer_arena_bytes", (("state", "mapped"),)] == 2
    exported = {name.removesuffix("_total") for name, _ in found}
    assert {metric.name for metric in SERVER_METRICS.values()} <= exported
    assert set(SERVER_METRICS) | {"unrouted"} == set(GAUGES)


def test_absent_gauges_are_not_exported() -> None:
    assert not any(name == "infer_connections" for name, _ in samples(Source([], {})))


def test_process_and_build() -> None:
    found = samples(Source([], {}))
    assert found["process_resident_memory_bytes", ()] > 1 << 20
    (labels,) = (labels for name, labels in found if name == "infer_build_info")
    assert set(dict(labels)) == {"version", "python", "nghttp2"}


def test_label_values_are_escaped() -> None:
    found = samples(Source([], {"refused": {'a"b\\c\n': 1}}))
    assert found["infer_refused_total", (("limit", 'a"b\\c\n'),)] == 1
