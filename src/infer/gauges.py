"""The numbers of a server by key of SERVER_METRICS, gathered from its parts. Any thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from infer._core import arena
from infer._core.model_version import VersionEntry
from infer.observe.failures import failure_gauges
from infer.services.bound import with_refusals

# From the gauge to its name in a transport's snapshot; a transport leaves out what it cannot know.
TRANSPORT_GAUGES = {name: name for name in ("connections", "streams", "refused", "calls_without_te", "buffered_bytes",
                                            "outbound_bytes", "coding_jobs")} | {
    "connections_accepted": "connections_total", "streams_held": "streams_held_total",
    "turns_ended": "turns_ended_total",
    "inflated_bytes": "inflated_bytes_total"}
CACHE_GAUGES = {"cache_bytes": "bytes", "cache_entries": "entries", "cache_waiting": "waiting",
                "cache_bypassed": "bypassing"}


def server_gauges(server: Any) -> Mapping[str, Any]:
    """`server`: a server.Server."""
    snapshot = server.transport.snapshot()
    stats = arena.stats()
    slo = server.slo.choices()
    tls = {} if server.certificates is None else {
        **({"tls_handshakes": snapshot["tls_handshakes"]} if "tls_handshakes" in snapshot else {}),
        "tls_certificate_problem": int(server.certificates.problem != ""),
        "tls_certificate_expiry": server.certificates.expiry.timestamp(),
    }
    return tls | {
        "ready": int(server.ready),
        "in_flight": server.pipeline.in_flight,
        "queue_rows": {(entry.name.decode(), entry.version): server.pipeline.queued_rows_of(entry)
                       for entry in server.models.served},
        "queue_bytes": {(entry.name.decode(), entry.version): server.pipeline.queued_bytes_of(entry)
                        for entry in server.models.served},
        **cache_gauges(server.models.served),
        "slo_gather_rows": {key: choice.gather_rows for key, choice in slo.items()},
        "slo_delay_seconds": {key: choice.delay_s for key, choice in slo.items()},
        "adaptive_rows": server.adaptive.rows(),
        "executors": server.threads.executors,
        "executors_busy": server.pool.busy,
        "executors_stuck": server.pool.stuck,
        "runs_stopped": server.pipeline.runs_stopped,
        **failure_gauges(server.models.served),
        **({} if server.second is None else {
            **server.second.gauges(), "cache_second_failures": server.pipeline.second.failures}),
        **server.shadows.gauges(),
        **server.captures.gauges(),
        "tenants": server.tenants.count,
        "tenants_shared": server.tenants.shared_requests,
        "quota_refused": server.tenants.refused(),
        "control_calls": server.repository.under_way,
        "control_refused": server.repository.refused,
        "override_bytes": server.repository.files.held_bytes,
        **server.models.gauges,
        **server.models.traffic.gauges,
        **server.rollouts.controller.gauges,
        **server.outcomes.gauges,
        **server.experiments.experiments.gauges,
        "state_waiting": server.store.waiting,
        "state_failures": server.store.failures,
        "audit_lost": server.store.dropped,
        "settings_problem": int(server.settings_problem() != ""),
        "log_lines_dropped": server.dropped_lines(),
        **{gauge: snapshot[name] for gauge, name in TRANSPORT_GAUGES.items() if name in snapshot},
        "refused": with_refusals(snapshot.get("refused", {}), server.cold),
        "arena_bytes": {"live": stats["live_bytes"], "high_water": stats["high_water_bytes"],
                        "limit": stats["limit_bytes"]},
        "unrouted": server.pipeline.unrouted_calls(),
    }


def cache_gauges(versions: Iterable[VersionEntry]) -> dict[str, dict[tuple[str, str], int]]:
    """By gauge and version, of those whose answers are kept."""
    cached = {(entry.name.decode(), entry.version): stats for entry in versions if (stats := entry.cache_stats)}
    return {gauge: {key: stats[name] for key, stats in cached.items()} for gauge, name in CACHE_GAUGES.items()}
