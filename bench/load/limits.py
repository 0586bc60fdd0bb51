"""What a server's limits have ended, as its /metrics say."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from bench.targets import Server


def families(server: Server) -> dict[str, Metric]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=10) as reply:
        return {family.name: family for family in text_string_to_metric_families(reply.read().decode())}


def refused(server: Server) -> dict[str, float]:
    """Calls and connections, by limit."""
    return {sample.labels["limit"]: sample.value for sample in families(server)["infer_refused"].samples
            if sample.name == "infer_refused_total"}


def connections_accepted(server: Server) -> float:
    return float(families(server)["infer_connections_accepted"].samples[0].value)


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The limits whose count has moved, and by how much."""
    moved = {limit: count - before.get(limit, 0.0) for limit, count in after.items()}
    return {limit: count for limit, count in moved.items() if count}
