"""Metrics: the core's counters, read when they are scraped, on the HTTP thread.

Nothing is counted here. The counters have one writer each and are read as they stand, one family at a time.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from infer import __version__
from infer.observe.variant_metrics import variant_families
from infer.observe.version_metrics import VersionSource, families

# Of OpenMetrics; the older format has none.
END = b"# EOF\n"


class Source(Protocol):
    """The server, read from the HTTP thread."""

    def versions(self) -> Iterable[VersionSource]: ...

    def gauges(self) -> Mapping[str, Any]:
        """A number, or for a labelled one a mapping, per key of SERVER_METRICS; what is absent is not exported.
        `unrouted`: calls by gRPC code that ended before a version was found; `variants`: VariantSource of each."""


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
    "queue_bytes": _ServerMetric(GaugeMetricFamily, "infer_queue_bytes", "Bytes of the requests that wait.",
                                 ("model", "version")),
    "cache_bytes": _ServerMetric(GaugeMetricFamily, "infer_cache_bytes", "Bytes of answers that are kept.",
                                 ("model", "version")),
    "cache_entries": _ServerMetric(GaugeMetricFamily, "infer_cache_entries", "Answers that are kept.",
                                   ("model", "version")),
    "cache_waiting": _ServerMetric(GaugeMetricFamily, "infer_cache_waiting",
                                   "Requests that wait for the run of an identical one.", ("model", "version")),
    "cache_bypassed": _ServerMetric(GaugeMetricFamily, "infer_cache_bypassed",
                                    "1 while hits are so few that only samples are looked up.", ("model", "version")),
    "slo_gather_rows": _ServerMetric(GaugeMetricFamily, "infer_slo_gather_rows",
                                     "Rows that batches gather, as chosen for slo_p99_ms.", ("model", "version")),
    "slo_delay_seconds": _ServerMetric(GaugeMetricFamily, "infer_slo_delay_seconds",
                                       "How long batches may wait, as chosen for slo_p99_ms.", ("model", "version")),
    "adaptive_rows": _ServerMetric(GaugeMetricFamily, "infer_adaptive_rows",
                                   "Rows that may wait, as found for --adaptive-limit.", ("model", "version")),
    "executors": _ServerMetric(GaugeMetricFamily, "infer_executors", "Threads that run batches."),
    "executors_busy": _ServerMetric(GaugeMetricFamily, "infer_executors_busy", "Threads that run a batch now."),
    "executors_stuck": _ServerMetric(GaugeMetricFamily, "infer_executors_stuck",
                                     "Threads whose run was stopped for taking too long and has not ended yet."),
    "runs_stopped": _ServerMetric(CounterMetricFamily, "infer_runs_terminated",
                                  "Runs that were stopped for taking longer than --run-timeout."),
    "breaker_state": _ServerMetric(GaugeMetricFamily, "infer_breaker_state",
                                   "0 closed, 1 half-open, 2 open; of versions that have a breaker.",
                                   ("model", "version")),
    "breaker_opened": _ServerMetric(CounterMetricFamily, "infer_breaker_opened", "Times that the breaker has opened.",
                                    ("model", "version")),
    "fallbacks": _ServerMetric(CounterMetricFamily, "infer_fallback_answers",
                               "Calls of a version whose breaker was open, by what answered them.",
                               ("model", "version", "fallback")),
    "cache_second": _ServerMetric(CounterMetricFamily, "infer_cache_second",
                                  "What the second level of the cache was asked for and given, by what came of it.",
                                  ("outcome",)),
    "cache_second_failures": _ServerMetric(CounterMetricFamily, "infer_cache_second_failures",
                                           "Errors of the second level of the cache, Redis or other replicas, that are "
                                           "nothing of theirs."),
    "shadow_copies": _ServerMetric(CounterMetricFamily, "infer_shadow_copies",
                                   "Copies that a shadow was given and has run, by what came of the comparison.",
                                   ("model", "version", "outcome")),
    "shadow_dropped": _ServerMetric(CounterMetricFamily, "infer_shadow_dropped",
                                    "Copies that a shadow was to have and that were not run, by why.",
                                    ("model", "version", "reason")),
    "shadow_waiting": _ServerMetric(GaugeMetricFamily, "infer_shadow_waiting", "Copies that wait for their run.",
                                    ("model", "version")),
    "shadow_bytes": _ServerMetric(GaugeMetricFamily, "infer_shadow_bytes",
                                  "Bytes of requests and replies that copies hold."),
    "replica_up": _ServerMetric(GaugeMetricFamily, "infer_replica_up",
                                "1 where requests can be forwarded to a replica now.", ("replica",)),
    "replica_forwards": _ServerMetric(CounterMetricFamily, "infer_replica_forwards",
                                      "Requests whose answer another replica may keep, by what came of asking it.",
                                      ("outcome",)),
    "captured": _ServerMetric(CounterMetricFamily, "infer_captured", "Calls taken for a file of captures.", ("model",)),
    "capture_dropped": _ServerMetric(CounterMetricFamily, "infer_capture_dropped",
                                     "Calls that were to be captured and were not, by why.", ("model", "reason")),
    "capture_bytes": _ServerMetric(GaugeMetricFamily, "infer_capture_bytes", "Bytes of a file of captures.",
                                   ("model",)),
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
    "tenants": _ServerMetric(GaugeMetricFamily, "infer_tenants",
                             "Tenants that are told apart, those with a table of their own left out."),
    "tenants_shared": _ServerMetric(CounterMetricFamily, "infer_tenants_shared",
                                    "Requests whose tenants shared one quota, for want of room."),
    "quota_refused": _ServerMetric(CounterMetricFamily, "infer_quota_refused",
                                   "Requests over a quota, by whose it was; tenants without a table are `other`.",
                                   ("tenant", "scope", "limit")),
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
    "variants_unready": _ServerMetric(GaugeMetricFamily, "infer_variant_unready",
                                      "1 for a variant whose version is not served: its share goes to the default.",
                                      ("model", "variant")),
    "rollout_weight": _ServerMetric(GaugeMetricFamily, "infer_rollout_weight",
                                    "Share of its model's calls that the last rollout gives its version.",
                                    ("model", "version")),
    "rollout_state": _ServerMetric(GaugeMetricFamily, "infer_rollout_state",
                                   "1 for the state that a model's last rollout is in.", ("model", "version", "state")),
    "rollouts_ended": _ServerMetric(CounterMetricFamily, "infer_rollouts_ended",
                                    "Rollouts that ended since the start, by how.", ("state",)),
    "rollout_looks_failed": _ServerMetric(CounterMetricFamily, "infer_rollout_looks_failed",
                                          "Looks at a model's rollout that ended with an error.", ("model",)),
    "experiment_looks_failed": _ServerMetric(CounterMetricFamily, "infer_experiment_looks_failed",
                                             "Looks at a model's experiment that ended with an error.", ("model",)),
    "experiment_decision": _ServerMetric(GaugeMetricFamily, "infer_experiment_decision",
                                         "1 for what an experiment that is under way has come to so far.",
                                         ("model", "experiment", "decision")),
    "experiments_ended": _ServerMetric(CounterMetricFamily, "infer_experiments_ended",
                                       "Experiments that ended since the start, by what they came to.", ("decision",)),
    "outcomes": _ServerMetric(CounterMetricFamily, "infer_outcomes",
                              "Outcomes that clients have reported, by what came of them; refused ones of no model.",
                              ("model", "result")),
    "outcome_remembered": _ServerMetric(GaugeMetricFamily, "infer_outcome_remembered",
                                        "Requests, and outcomes, of a model that are remembered.", ("model", "what")),
    "outcome_forgotten": _ServerMetric(CounterMetricFamily, "infer_outcome_forgotten",
                                       "Those that --max-outcomes had no room for any more.", ("model", "what")),
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


class _Families(NamedTuple):
    """What an encoder of prometheus_client asks for."""

    listed: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.listed


def _server_families(build: Mapping[str, str], gauges: Mapping[str, Any]) -> Iterator[Metric]:
    """Families of the server; those of its versions are in version_metrics."""
    info = GaugeMetricFamily("infer_build_info", "Versions that this server runs with.", labels=list(build))
    info.add_metric(list(build.values()), 1)
    yield info
    for key, metric in SERVER_METRICS.items():
        if key in gauges:
            yield _server_family(metric, gauges[key])


def _server_family(metric: _ServerMetric, value: Any) -> Metric:
    family = metric.kind(metric.name, metric.text, labels=list(metric.labels))
    for labels, number in value.items() if metric.labels else [((), value)]:
        family.add_metric([labels] if isinstance(labels, str) else labels, number)
    return family


def renderer(source: Source, build: Mapping[str, str]) -> Callable[[str], tuple[list[bytes], str]]:
    """From an Accept header to the exposition, in parts, and its content type: that of Prometheus or OpenMetrics."""
    from prometheus_client.exposition import choose_encoder

    process = ProcessCollector(registry=None)
    build = {"version": __version__, "python": platform.python_version(), **build}

    def render(accept: str) -> tuple[list[bytes], str]:
        encode, content_type = choose_encoder(accept)
        gauges = source.gauges()
        content = encode(_Families([*process.collect(), *_server_families(build, gauges),
                                    *variant_families(gauges.get("variants", ()))]))
        end = END if content.endswith(END) else b""
        versions = families(source.versions(), gauges.get("unrouted", ()), openmetrics=bool(end))
        return [content.removesuffix(end), *versions, end], content_type

    return render
