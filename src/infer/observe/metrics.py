"""Metrics: a prometheus_client collector that reads the core's counters when it is scraped, on the HTTP thread.

Nothing is counted here. The counters have one writer each and are read as they stand, one family at a time.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from infer import __version__

CODES = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
         "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
         "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")
SECONDS = (.00005, .0001, .00025, .0005, .001, .002, .003, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1., 2.5, 5.,
           10.)
TIME_BOUNDS_NS = tuple(round(second * 1e9) for second in SECONDS)
ROW_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# (count, sum, cumulative counts at the bounds); times in nanoseconds.
HistogramSnapshot = tuple[int, int, Sequence[int]]


class VersionSource(Protocol):
    """A version's counters."""

    @property
    def name(self) -> bytes: ...

    @property
    def version(self) -> str: ...

    @property
    def settings(self) -> Any:
        """The ModelSettings that it serves under, or None."""

    def stats_snapshot(self, time_bounds_ns: tuple[int, ...], row_bounds: tuple[int, ...]) -> Mapping[str, Any]:
        """`calls` by gRPC code, `rows`, `batches`, `queue_refused` by limit, `queue_delayed`, and of `request`,
        `queue`, `compute` (ns) and `batch_rows` a HistogramSnapshot each."""


class Source(Protocol):
    """The server, read from the HTTP thread."""

    def versions(self) -> Iterable[VersionSource]: ...

    def gauges(self) -> Mapping[str, Any]:
        """A number, or for a labelled one a mapping, per key of SERVER_METRICS; what is absent is not exported.
        `unrouted`: calls by gRPC code that ended before a version was found."""


class _ServerMetric(NamedTuple):
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    text: str
    labels: tuple[str, ...] = ()


# By key of Source.gauges; a labelled one maps its label, or the tuple of them, to a number.
SERVER_METRICS = {
    "ready": _ServerMetric(GaugeMetricFamily, "infer_ready", "1 while the server is ready."),
    "in_flight": _ServerMetric(GaugeMetricFamily, "infer_requests_in_flight", "Inference calls not yet answered."),
    "queue_rows": _ServerMetric(GaugeMetricFamily, "infer_queue_rows", "Rows that wait.", ("model", "version")),
    "executors": _ServerMetric(GaugeMetricFamily, "infer_executors", "Threads that run batches."),
    "executors_busy": _ServerMetric(GaugeMetricFamily, "infer_executors_busy", "Threads that run a batch now."),
    "connections": _ServerMetric(GaugeMetricFamily, "infer_connections", "Open connections."),
    "connections_accepted": _ServerMetric(CounterMetricFamily, "infer_connections_accepted", "Connections accepted."),
    "streams": _ServerMetric(GaugeMetricFamily, "infer_streams", "Open HTTP/2 streams."),
    "streams_held": _ServerMetric(CounterMetricFamily, "infer_streams_held",
                                  "Times that a stream brought more messages than may wait, and was read no further."),
    "turns_ended": _ServerMetric(CounterMetricFamily, "infer_turns_ended",
                                 "Times that a connection sent so much at once that others were served in between."),
    "calls_without_te": _ServerMetric(CounterMetricFamily, "infer_calls_without_te",
                                      "Calls without `te: trailers`: their client or proxy may lose trailers."),
    "refused": _ServerMetric(CounterMetricFamily, "infer_refused", "Calls or connections ended by a limit.",
                             ("limit",)),
    "buffered_bytes": _ServerMetric(GaugeMetricFamily, "infer_buffered_bytes", "Request bytes held."),
    "outbound_bytes": _ServerMetric(GaugeMetricFamily, "infer_outbound_bytes", "Reply bytes held."),
    "inflated_bytes": _ServerMetric(CounterMetricFamily, "infer_inflated_bytes",
                                    "Bytes of compressed requests, once inflated."),
    "coding_jobs": _ServerMetric(GaugeMetricFamily, "infer_coding_jobs",
                                 "Messages that threads beside the loop inflate or compress."),
    "arena_bytes": _ServerMetric(GaugeMetricFamily, "infer_arena_bytes", "Bytes of the arena.", ("state",)),
    "tls_handshakes": _ServerMetric(CounterMetricFamily, "infer_tls_handshakes",
                                    "TLS handshakes: done, failed, or not_h2: done without HTTP/2 by ALPN, so cut.",
                                    ("outcome",)),
    "tls_certificate_problem": _ServerMetric(GaugeMetricFamily, "infer_tls_certificate_problem",
                                             "1 while the certificate's files cannot be used and older ones are."),
    "tls_certificate_expiry": _ServerMetric(GaugeMetricFamily, "infer_tls_certificate_expiry_timestamp_seconds",
                                            "Until when the certificate that is served is valid."),
    "control_calls": _ServerMetric(GaugeMetricFamily, "infer_control_calls",
                                   "Loads, unloads and label moves by RPC that run or wait."),
    "control_refused": _ServerMetric(CounterMetricFamily, "infer_control_refused",
                                     "Loads, unloads and label moves refused because too many ran or waited."),
    "override_bytes": _ServerMetric(GaugeMetricFamily, "infer_override_bytes",
                                    "Bytes of the files that models were loaded with by RPC."),
    "models_ready": _ServerMetric(GaugeMetricFamily, "infer_model_versions_ready", "Versions that are served."),
    "models_loading": _ServerMetric(GaugeMetricFamily, "infer_model_versions_loading", "Versions that are loaded now."),
    "models_draining": _ServerMetric(GaugeMetricFamily, "infer_model_versions_draining",
                                     "Versions that are unloaded once their calls have ended."),
    "models_failed": _ServerMetric(GaugeMetricFamily, "infer_model_versions_failed",
                                   "Versions whose last load has failed; it is tried again."),
    "models_waiting": _ServerMetric(GaugeMetricFamily, "infer_models_waiting",
                                    "Models that wait for another load to end, for as many as may be are under way."),
    "load_calls_waiting": _ServerMetric(GaugeMetricFamily, "infer_load_calls_waiting",
                                        "Calls of RepositoryModelLoad whose load is under way."),
    "model_events": _ServerMetric(CounterMetricFamily, "infer_model_events",
                                  "Loads, unloads, moves of labels, edits and removals, by what came of them.",
                                  ("event", "outcome")),
    "repository_problems": _ServerMetric(GaugeMetricFamily, "infer_repository_problems",
                                         "Errors that the last look at the model repositories found."),
    "state_waiting": _ServerMetric(GaugeMetricFamily, "infer_state_waiting",
                                   "Changes of the state that are not written yet."),
    "state_failures": _ServerMetric(CounterMetricFamily, "infer_state_failures",
                                    "Attempts to write the state that failed; each is made again."),
    "audit_lost": _ServerMetric(CounterMetricFamily, "infer_audit_lost",
                                "Rows of the audit log that found too many waiting, and are not kept."),
    "settings_problem": _ServerMetric(GaugeMetricFamily, "infer_settings_problem",
                                      "1 while the settings, read again, cannot be used and older ones are."),
    "log_lines_dropped": _ServerMetric(CounterMetricFamily, "infer_log_lines_dropped", "Log lines that were lost."),
}


class _Histogram(NamedTuple):
    key: str                        # of stats_snapshot
    name: str
    text: str
    bounds: Sequence[float]         # where a version has none of its own
    scale: float                    # from the family's unit to what is counted

    def counted(self, bound: float) -> int:
        """The largest whole count below or at a bound; what multiplying adds to it is no count."""
        return math.floor(bound * self.scale + 1e-6)


_HISTOGRAMS = (
    _Histogram("request", "infer_request_seconds", "From a call's first byte to its reply.", SECONDS, 1e9),
    _Histogram("queue", "infer_queue_seconds", "From a request's queueing to its batch.", SECONDS, 1e9),
    _Histogram("compute", "infer_compute_seconds", "Gathering, running and scattering a batch.", SECONDS, 1e9),
    _Histogram("batch_rows", "infer_batch_rows", "Rows per executed batch.", ROW_BOUNDS, 1),
)


class Collector:
    """Families of everything that the core counts."""

    def __init__(self, source: Source, build: Mapping[str, str]) -> None:
        self._source = source
        self._build = {"version": __version__, "python": platform.python_version(), **build}

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("infer_build_info", "Versions that this server runs with.", labels=list(self._build))
        info.add_metric(list(self._build.values()), 1)
        yield info
        gauges = self._source.gauges()
        for key, metric in SERVER_METRICS.items():
            if key in gauges:
                yield _server_family(metric, gauges[key])
        snapshots = [((version.name.decode(), version.version), _snapshot(version))
                     for version in self._source.versions()]
        yield from _request_families(snapshots, gauges.get("unrouted", ()))
        for each in _HISTOGRAMS:
            histogram = HistogramMetricFamily(each.name, each.text, labels=["model", "version"])
            for labels, stats in snapshots:
                count, total, by_bound = stats[each.key]
                edges = stats["bounds"].get(each.name, each.bounds)
                cumulative = [by_bound[each.counted(edge)] for edge in edges]
                # An observation may fall between the reads of its counter and of its bucket.
                count = max(count, cumulative[-1])
                buckets = [*zip(map(str, map(float, edges)), cumulative, strict=True), ("+Inf", count)]
                histogram.add_metric(labels, buckets, total / each.scale)
            yield histogram


def _snapshot(version: VersionSource) -> Mapping[str, Any]:
    """A version's counters, its histograms by bound, and under `bounds` the buckets that are its own, by family."""
    own: Mapping[str, Sequence[float]] = version.settings.histogram_buckets if version.settings is not None else {}
    times, rows = set(TIME_BOUNDS_NS), set(ROW_BOUNDS)
    for each in _HISTOGRAMS:
        (rows if each.scale == 1 else times).update(map(each.counted, own.get(each.name, ())))
    stats = dict(version.stats_snapshot(tuple(sorted(times)), tuple(sorted(rows))))
    for each in _HISTOGRAMS:
        count, total, cumulative = cast(HistogramSnapshot, stats[each.key])
        stats[each.key] = count, total, dict(zip(sorted(rows if each.scale == 1 else times), cumulative, strict=True))
    return stats | {"bounds": own}


def _server_family(metric: _ServerMetric, value: Any) -> Metric:
    family = metric.kind(metric.name, metric.text, labels=list(metric.labels))
    for labels, number in value.items() if metric.labels else [((), value)]:
        family.add_metric([labels] if isinstance(labels, str) else labels, number)
    return family


def _request_families(snapshots: list[tuple[tuple[str, str], Mapping[str, Any]]], unrouted: Sequence[int]
                      ) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "infer_requests", "Finished inference calls; without a model where none was found.",
        labels=["model", "version", "code"])
    rows = CounterMetricFamily("infer_rows", "Rows executed.", labels=["model", "version"])
    batches = CounterMetricFamily("infer_batches", "Batches executed.", labels=["model", "version"])
    refused = CounterMetricFamily(
        "infer_queue_refused", "Requests that a model's queue did not take, or gave up, for a limit.",
        labels=["model", "version", "limit"])
    delayed = CounterMetricFamily(
        "infer_queue_delayed", "Requests that went behind all others for waiting too long.",
        labels=["model", "version"])
    for labels, stats in snapshots:
        for limit, count in stats["queue_refused"].items():
            refused.add_metric([*labels, limit], count)
        delayed.add_metric(labels, stats["queue_delayed"])
        for code, count in zip(CODES, stats["calls"], strict=True):
            if count or code == "OK":
                requests.add_metric([*labels, code], count)
        rows.add_metric(labels, stats["rows"])
        batches.add_metric(labels, stats["batches"])
    for code, count in zip(CODES, unrouted, strict=False):
        if count:
            requests.add_metric(["", "", code], count)
    yield from (requests, rows, batches, refused, delayed)


def renderer(source: Source, build: Mapping[str, str]) -> Callable[[str], tuple[bytes, str]]:
    """From an Accept header to the exposition and its content type: Prometheus' text format or OpenMetrics."""
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(Collector(source, build))

    def render(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return render
