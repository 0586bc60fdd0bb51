"""ModelStatistics: a version's counters since it was loaded, with the meaning that Triton gives them.

`success` is end to end; compute_* are per request, what its batch took. inference_count counts rows and execution_count
batches. What the cache answered, or another request's run, is a success that was queued for no time, and in none of
those. A fall of a counter is a new load of the version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infer.proto import message
from infer.services.call import Handler, unary
from infer.services.server_view import ServerView
from infer.services.views import RoutesView, VersionView

OK = 0
NOT_CACHED = {"hits": 0, "hit_ns": 0, "misses": 0, "miss_ns": 0}


def statistics_rpcs(server: ServerView) -> Mapping[str, Handler]:
    """ModelStatistics by method."""

    def model_statistics(request: Any) -> Any:
        chosen = chosen_versions(server.routes, request.name, request.version)
        return message("inference.ModelStatisticsResponse")(model_stats=[statistics_of(entry) for entry in chosen])

    return {"ModelStatistics": unary("inference.ModelStatisticsRequest", model_statistics)}


def chosen_versions(routes: RoutesView, name: str, version: str) -> Sequence[VersionView]:
    """Every servable version where no name is given, those of a model, or one. Raises as RoutesView.lookup does."""
    if name:
        entry = routes.lookup(name, version)
        route = None if version else routes.route_of(name)
        return [entry] if route is None else in_order(route.versions)
    return [entry for _, versions in routes.models() for entry in in_order(versions)]


def in_order(versions: Iterable[VersionView]) -> list[VersionView]:
    return sorted(versions, key=lambda entry: int(entry.version))


def statistics_of(entry: VersionView) -> Any:
    stats = entry.stats_snapshot((), ())
    calls = stats["calls"]
    reply = message("inference.ModelStatistics")(
        name=entry.name.decode(),
        version=entry.version,
        last_inference=stats["last_inference_ms"],
        inference_count=stats["rows"],
        execution_count=stats["batches"],
    )
    succeeded = calls[OK]
    cache = stats["cache"] or NOT_CACHED
    ran = succeeded - cache["hits"]
    for kind, count, duration_ns in (
            ("success", succeeded, stats["request_ns"]), ("fail", sum(calls) - succeeded, stats["failed_ns"]),
            ("queue", succeeded, stats["queue_ns"]), ("compute_input", ran, stats["gather_ns"]),
            ("compute_infer", ran, stats["run_ns"]), ("compute_output", ran, stats["scatter_ns"]),
            ("cache_hit", cache["hits"], cache["hit_ns"]), ("cache_miss", cache["misses"], cache["miss_ns"])):
        _set(getattr(reply.inference_stats, kind), count, duration_ns)
    for rows, count, gather_ns, run_ns, scatter_ns in stats["batch_sizes"]:
        batch = reply.batch_stats.add(batch_size=rows)
        _set(batch.compute_input, count, gather_ns)
        _set(batch.compute_infer, count, run_ns)
        _set(batch.compute_output, count, scatter_ns)
    return reply


def _set(duration: Any, count: int, duration_ns: int) -> None:
    # Present even where it is zero, as Triton has it: readers of its JSON look each of them up.
    duration.SetInParent()
    duration.count, duration.ns = count, duration_ns
