"""The text of versions' metrics against what prometheus_client writes of the same counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from infer.observe.version_metrics import CODES, ROW_BOUNDS, SECONDS, families

# Their sums are exact as floats, as which prometheus_client writes them.
COUNTS = st.integers(0, 2**48)
LEFT = ("full", "shape", "idle", "delay", "deadline")
LIMITS = ("max_queue_rows", "max_queue_size", "queue_timeout")
CACHE = ("hits", "joined", "misses", "passed", "evictions", "expiries", "rejections",
         "known_rows", "new_rows")
PLACES = ("queue", "run")
HISTOGRAMS = {"infer_request_seconds": ("request", SECONDS), "infer_queue_seconds": ("queue", SECONDS),
              "infer_compute_seconds": ("compute", SECONDS), "infer_batch_rows": ("batch_rows", ROW_BOUNDS)}
OWN = {"infer_queue_seconds": (.0007, .25, 20.), "infer_batch_rows": (3.5, 7.)}


def cache_stats(calls: Sequence[int]) -> dict[str, int]:
    stats = dict(zip(CACHE, calls, strict=False))
    return stats | {"hits": stats["hits"] + stats["joined"]}


class Version:
    """Observations in plain lists: nanoseconds, and rows."""

    def __init__(self, name: str, version: int, calls: Sequence[int], observed: Mapping[str, Sequence[int]],
                 own: Mapping[str, Sequence[float]]) -> None:
        self.name, self.version, self.calls, self.observed = name.encode(), str(version), calls, observed
        self.settings: Any = SimpleNamespace(histogram_buckets=own) if own else None
        self.rows, self.batches = sum(calls), len(calls)

    def stats_snapshot(self, time_bounds_ns: tuple[int, ...], row_bounds: tuple[int, ...]) -> Mapping[str, Any]:
        assert list(time_bounds_ns) == sorted(set(time_bounds_ns))
        return {"calls": self.calls, "queue_refused": dict(zip(LIMITS, self.calls, strict=False)),
                "expired": dict(zip(PLACES, self.calls, strict=False)),
                "batches_left": dict(zip(LEFT, self.calls, strict=False)), "queue_delayed": self.calls[0],
                "charged_ns": sum(self.observed["compute"]),
                "cache": cache_stats(self.calls) if self.settings else None,
                "rows": self.rows, "batches": self.batches, **{
            key: (len(self.observed[key]), sum(self.observed[key]),
                  [sum(each <= bound for each in self.observed[key])
                   for bound in (row_bounds if key == "batch_rows" else time_bounds_ns)])
            for key, _ in HISTOGRAMS.values()}}


class Reference:
    """The same by prometheus_client."""

    def __init__(self, versions: Sequence[Version], unrouted: Sequence[int]) -> None:
        self.versions, self.unrouted = versions, unrouted

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "infer_requests", "Finished inference calls; without a model where none was found.",
            labels=["model", "version", "code"])
        rows = CounterMetricFamily("infer_rows", "Rows executed.", labels=["model", "version"])
        batches = CounterMetricFamily("infer_batches", "Batches executed.", labels=["model", "version"])
        charged = CounterMetricFamily(
            "infer_executor_seconds", "Executor time by which models share: of batches, without what others took.",
            labels=["model", "version"])
        left = CounterMetricFamily("infer_batches_left", "Batches that left their queue, by why they did then.",
                                   labels=["model", "version", "reason"])
        refused = CounterMetricFamily(
            "infer_queue_refused", "Requests that a model's queue did not take, or gave up, for a limit.",
            labels=["model", "version", "limit"])
        expired = CounterMetricFamily(
            "infer_expired", "Requests whose deadline passed in the queue, where they were not run, or while they ran.",
            labels=["model", "version", "in"])
        delayed = CounterMetricFamily(
            "infer_queue_delayed", "Requests that went behind all others for waiting too long.",
            labels=["model", "version"])
        hits = CounterMetricFamily(
            "infer_cache_hits", "Requests answered without a run: by what was kept, or joined: by another's run.",
            labels=["model", "version", "by"])
        misses = CounterMetricFamily("infer_cache_misses", "Requests that were looked up and had to run.",
                                     labels=["model", "version"])
        passed = CounterMetricFamily(
            "infer_cache_passed", "Requests that were not looked up: they asked for that, or hits are too few for it.",
            labels=["model", "version"])
        found = CounterMetricFamily(
            "infer_cache_rows", "Rows that were looked up one by one (--cache-rows), by whether they were known.",
            labels=["model", "version", "found"])
        gone = CounterMetricFamily(
            "infer_cache_gone", "Answers that were not kept any longer, or not at all, by why.",
            labels=["model", "version", "reason"])
        for version in self.versions:
            labels = [version.name.decode(), version.version]
            for code, count in zip(CODES, version.calls, strict=True):
                if count or code == "OK":
                    requests.add_metric([*labels, code], count)
            rows.add_metric(labels, version.rows)
            batches.add_metric(labels, version.batches)
            charged.add_metric(labels, sum(version.observed["compute"]) / 1e9)
            for reason, count in zip(LEFT, version.calls, strict=False):
                left.add_metric([*labels, reason], count)
            for limit, count in zip(LIMITS, version.calls, strict=False):
                refused.add_metric([*labels, limit], count)
            for place, count in zip(PLACES, version.calls, strict=False):
                expired.add_metric([*labels, place], count)
            delayed.add_metric(labels, version.calls[0])
            if version.settings:
                stats = cache_stats(version.calls)
                hits.add_metric([*labels, "kept"], stats["hits"] - stats["joined"])
                hits.add_metric([*labels, "joined"], stats["joined"])
                misses.add_metric(labels, stats["misses"])
                passed.add_metric(labels, stats["passed"])
                found.add_metric([*labels, "known"], stats["known_rows"])
                found.add_metric([*labels, "new"], stats["new_rows"])
                for reason, name in (("evicted", "evictions"), ("expired", "expiries"), ("rejected", "rejections")):
                    gone.add_metric([*labels, reason], stats[name])
        for code, count in zip(CODES, self.unrouted, strict=True):
            if count:
                requests.add_metric(["", "", code], count)
        yield from (requests, rows, batches, charged, left, refused, expired, delayed, hits, misses, passed, found,
                    gone)
        for name, (key, bounds) in HISTOGRAMS.items():
            scale = 1 if key == "batch_rows" else 1e9
            family = HistogramMetricFamily(name, TEXTS[name], labels=["model", "version"])
            for version in self.versions:
                own = version.settings.histogram_buckets if version.settings else {}
                seen = version.observed[key]
                buckets = [(str(float(edge)), sum(each <= round(edge * scale, 3) for each in seen))
                           for edge in own.get(name, bounds)]
                family.add_metric([version.name.decode(), version.version], [*buckets, ("+Inf", len(seen))],
                                  sum(seen) / scale)
            yield family


TEXTS = {"infer_request_seconds": "From a call's first byte to its reply.",
         "infer_queue_seconds": "From a request's queueing to its batch.",
         "infer_compute_seconds": "Gathering, running and scattering a batch.",
         "infer_batch_rows": "Rows per executed batch."}


@st.composite
def versions(draw: st.DrawFn) -> list[Version]:
    names = draw(st.lists(st.sampled_from(["m", "n.1", "a-b_c", 'q"\\@%d\n']), unique=True, max_size=2))
    edges_ns = [round(each * 1e9) + off for each in (*SECONDS, .0007, .25, 20.) for off in (-1, 0, 1)]
    times = st.lists(st.sampled_from(edges_ns), max_size=6)
    return [Version(name, draw(st.integers(1, 99)), draw(st.lists(COUNTS, min_size=len(CODES), max_size=len(CODES))), {
        "request": draw(times), "queue": draw(times), "compute": draw(times),
        "batch_rows": draw(st.lists(st.integers(1, 2000), max_size=6))}, draw(st.sampled_from([{}, OWN])))
        for name in names]


@pytest.mark.parametrize("openmetrics", [False, True])
@settings(max_examples=20)
@given(versions(), st.lists(COUNTS, min_size=len(CODES), max_size=len(CODES)))
def test_it_reads_as_what_prometheus_client_writes(
        openmetrics: bool, listed: list[Version], unrouted: list[int]) -> None:
    text = b"".join(families(listed, unrouted, openmetrics))
    reference: Any = Reference(listed, unrouted)
    if openmetrics:
        expected = list(parse_openmetrics(openmetrics_exposition.generate_latest(reference).decode()))
        assert list(parse_openmetrics((text + b"# EOF\n").decode())) == expected
    else:
        expected = list(parse_text(exposition.generate_latest(reference).decode()))
        assert list(parse_text(text.decode())) == expected
