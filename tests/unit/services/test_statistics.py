"""ModelStatistics: WIRE 4.5."""

from __future__ import annotations

from typing import Any

import pytest

from infer.errors import FailedPrecondition, NotFound
from infer.proto import message
from infer.services.statistics import statistics_rpcs
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeVersion

CALLS = [7, 1, 0, 2] + [0] * 13
STATS = {"calls": CALLS, "rows": 40, "batches": 5, "last_inference_ms": 1_700_000_000_000, "request_ns": 9000,
         "failed_ns": 300, "queue_ns": 1000, "gather_ns": 200, "run_ns": 6000, "scatter_ns": 100,
         "batch_sizes": [(4, 2, 20, 600, 10), (8, 3, 30, 900, 15)]}


async def ask(server: FakeServer, **fields: Any) -> list[Any]:
    request = message("inference.ModelStatisticsRequest")(**fields).SerializeToString()
    reply = await statistics_rpcs(server)["ModelStatistics"](FakeCall("/s", request))
    return list(message("inference.ModelStatisticsResponse").FromString(reply).model_stats)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(FakeRoutes(
        {"n": [FakeVersion(b"n")], "m": [FakeVersion(b"m", "2", stats=STATS), FakeVersion(b"m", "10")], "bad": []},
        {"bad": FailedPrecondition("could not be loaded")}))


async def test_counters(server: FakeServer) -> None:
    (stats,) = await ask(server, name="m", version="2")
    assert (stats.name, stats.version, stats.last_inference) == ("m", "2", 1_700_000_000_000)
    assert (stats.inference_count, stats.execution_count) == (40, 5)
    durations = {field.name: getattr(stats.inference_stats, field.name)
                 for field in stats.inference_stats.DESCRIPTOR.fields}
    assert {name: (duration.count, duration.ns) for name, duration in durations.items()} == {
        "success": (7, 9000), "fail": (3, 300), "queue": (7, 1000), "compute_input": (7, 200),
        "compute_infer": (7, 6000), "compute_output": (7, 100), "cache_hit": (0, 0), "cache_miss": (0, 0)}
    assert [(batch.batch_size, batch.compute_input.count, batch.compute_input.ns, batch.compute_infer.ns,
             batch.compute_output.ns, batch.compute_output.count) for batch in stats.batch_stats] == [
        (4, 2, 20, 600, 10, 2), (8, 3, 30, 900, 15, 3)]
    assert not stats.response_stats
    assert not stats.memory_usage


async def test_what_the_cache_answered_is_a_success_that_was_not_computed() -> None:
    cache = {"hits": 3, "hit_ns": 30, "misses": 4, "miss_ns": 44}
    (stats,) = await ask(FakeServer(FakeRoutes({"m": [FakeVersion(b"m", stats=STATS | {"cache": cache})]})), name="m")
    counts = {field.name: getattr(stats.inference_stats, field.name).count
              for field in stats.inference_stats.DESCRIPTOR.fields}
    assert counts == {"success": 7, "fail": 3, "queue": 7, "compute_input": 4, "compute_infer": 4, "compute_output": 4,
                      "cache_hit": 3, "cache_miss": 4}
    assert (stats.inference_stats.cache_hit.ns, stats.inference_stats.cache_miss.ns) == (30, 44)


async def test_of_a_version_that_has_not_run_every_duration_is_there(server: FakeServer) -> None:
    (stats,) = await ask(server, name="n")
    assert len(stats.inference_stats.ListFields()) == 8
    assert not stats.batch_stats


async def test_which_versions(server: FakeServer) -> None:
    assert [(each.name, each.version) for each in await ask(server)] == [("n", "1"), ("m", "2"), ("m", "10")]
    assert [each.version for each in await ask(server, name="m")] == ["2", "10"]


@pytest.mark.parametrize(("fields", "error"), [
    ({"name": "nothing"}, NotFound), ({"name": "m", "version": "3"}, NotFound), ({"name": "bad"}, FailedPrecondition)])
async def test_of_what_is_not_served(server: FakeServer, fields: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        await ask(server, **fields)
