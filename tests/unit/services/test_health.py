"""grpc.health.v1, for probes and balancers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from infer._core.model_version import VersionEntry
from infer._core.router import ModelRoute, RouteTable, route_to_highest
from infer.errors import (
    FailedPrecondition,
    InferError,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from infer.proto import message
from infer.services.health import health_service, health_streams
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeStreamCall, FakeVersion
from tests.support.turns import turn

PATH = "/grpc.health.v1.Health/Check"
LIST, WATCH = "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


async def check(server: FakeServer, service: str) -> int:
    request = message("grpc.health.v1.HealthCheckRequest")(service=service).SerializeToString()
    reply = await health_service(server)[PATH](FakeCall(PATH, request))
    status: int = message("grpc.health.v1.HealthCheckResponse").FromString(reply).status
    return status


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(FakeRoutes(
        {"m": [FakeVersion(b"m", "1"), FakeVersion(b"m", "2")]},
        {"loading": Unavailable("loading"), "broken": FailedPrecondition("failed"), "../x": InvalidArgument("name")}))


@pytest.mark.parametrize("service", ["", "readiness", "inference.GRPCInferenceService"])
async def test_readiness(server: FakeServer, service: str) -> None:
    assert await check(server, service) == SERVING
    server.ready = False
    assert await check(server, service) == NOT_SERVING
    assert await check(server, "liveness") == SERVING


async def test_liveness(server: FakeServer) -> None:
    server.live = False
    assert await check(server, "liveness") == NOT_SERVING
    assert await check(server, "") == SERVING


@pytest.mark.parametrize(("service", "status"), [
    ("m", SERVING), ("m/1", SERVING), ("m/2", SERVING), ("loading", NOT_SERVING), ("broken", NOT_SERVING)])
async def test_models(server: FakeServer, service: str, status: int) -> None:
    assert await check(server, service) == status


@pytest.mark.parametrize("service", ["n", "m/3", "m/", "/", "../x", "grpc.health.v1.Unknown"])
async def test_unknown_service_is_not_found(server: FakeServer, service: str) -> None:
    with pytest.raises(NotFound, match="unknown service"):
        await check(server, service)


async def test_malformed_message_is_internal(server: FakeServer) -> None:
    with pytest.raises(Internal):
        await health_service(server)[PATH](FakeCall(PATH, b"\x0a\x05x"))


async def test_unknown_service_is_not_found_over_the_real_routes() -> None:
    server = FakeServer(RouteTable([("late", ModelRoute(reason=(14, "loading")))]))  # type: ignore[arg-type]
    assert await check(server, "late") == await check(server, "late/1") == NOT_SERVING
    for service in ("n", "../x", "late/01"):
        with pytest.raises(NotFound, match="unknown service"):
            await check(server, service)


async def listed(server: FakeServer) -> dict[str, int]:
    reply = await health_service(server)[LIST](FakeCall(LIST))
    statuses = message("grpc.health.v1.HealthListResponse").FromString(reply).statuses
    return {name: status.status for name, status in statuses.items()}


async def test_list() -> None:
    routes = FakeRoutes({"m": [FakeVersion(b"m", "2")], "broken": [], "unloaded": []},
                        {"broken": FailedPrecondition("failed"), "unloaded": NotFound("not loaded")})
    assert await listed(FakeServer(routes, ready=False)) == {
        "": NOT_SERVING, "readiness": NOT_SERVING, "inference.GRPCInferenceService": NOT_SERVING, "liveness": SERVING,
        "m": SERVING, "m/2": SERVING, "broken": NOT_SERVING, "unloaded": NOT_SERVING}


async def test_a_label_is_checked_as_a_version_is() -> None:
    entry = VersionEntry("m", "2", None, [], [], batched=True, max_rows=1, gather_rows=1, delay_ns=0,
                         queue_limit_rows=1, max_running=1, properties={})
    late = (14, "version 3 is loading")
    route = route_to_highest([entry])._replace(labels={"stable": entry}, unready={"3": late, "canary": late})
    server = FakeServer(RouteTable([("m", route)]))  # type: ignore[arg-type]
    for service, status in (("m", SERVING), ("m/2", SERVING), ("m/stable", SERVING), ("m/3", NOT_SERVING),
                            ("m/canary", NOT_SERVING)):
        assert await check(server, service) == status
    with pytest.raises(NotFound, match="unknown service 'm/beta'"):
        await check(server, "m/beta")


async def test_list_is_bounded() -> None:
    routes = FakeRoutes({f"m{number}": [FakeVersion(b"m")] for number in range(48)})
    assert len(await listed(FakeServer(routes))) == 100
    routes.versions["more"] = []
    with pytest.raises(ResourceExhausted, match="List would have 101 entries, at most 100"):
        await listed(FakeServer(routes))


class Watcher:
    """A Watch call under way."""

    def __init__(self, server: FakeServer, service: str) -> None:
        self.call = FakeStreamCall(WATCH)
        self.call.requests.put_nowait(message("grpc.health.v1.HealthCheckRequest")(service=service).SerializeToString())
        self.call.requests.put_nowait(None)
        self.task = asyncio.ensure_future(health_streams(server)[WATCH].handler(self.call))

    async def status(self) -> int:
        """The next one that is sent."""
        taken = asyncio.ensure_future(self.call.replies.get())
        await asyncio.wait({taken, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not taken.done():
            taken.cancel()
            self.task.result()
        status: int = message("grpc.health.v1.HealthCheckResponse").FromString(taken.result()).status
        return status


@asynccontextmanager
async def watching(server: FakeServer, service: str) -> AsyncIterator[Watcher]:
    watcher = Watcher(server, service)
    yield watcher
    watcher.task.cancel()
    with suppress(asyncio.CancelledError, InferError):
        await watcher.task
    assert not server.changes._waiters


async def test_watch_sends_the_status_and_its_changes(server: FakeServer) -> None:
    async with watching(server, "") as watcher:
        assert await watcher.status() == SERVING
        server.changes.notify()
        server.ready = False
        server.changes.notify()
        assert await watcher.status() == NOT_SERVING
        server.ready = True
        server.changes.notify()
        assert await watcher.status() == SERVING
        assert watcher.call.replies.empty()


async def test_watch_misses_no_change_while_a_client_does_not_read(server: FakeServer) -> None:
    """Two replies fit: one on its way and one that waits for the client's window."""
    async with watching(server, "") as watcher:
        for ready in (True, False, True, False):
            server.ready = ready
            server.changes.notify()
            for _ in range(3):
                await turn()
        assert [await watcher.status() for _ in range(2)] == [SERVING, NOT_SERVING]


async def test_watch_of_a_service_that_comes_to_be(server: FakeServer) -> None:
    async with watching(server, "new") as watcher:
        assert await watcher.status() == SERVICE_UNKNOWN
        server.routes.versions["new"] = [FakeVersion(b"new")]
        server.changes.notify()
        assert await watcher.status() == SERVING


async def test_watch_ends_when_the_server_stops(server: FakeServer) -> None:
    async with watching(server, "m") as watcher:
        assert await watcher.status() == SERVING
        server.stopping = True
        server.changes.notify()
        with pytest.raises(InferError, match="stopping") as raised:
            await watcher.status()
        assert raised.value.code == Unavailable.code


async def test_watch_without_a_request(server: FakeServer) -> None:
    call = FakeStreamCall(WATCH)
    call.requests.put_nowait(None)
    with pytest.raises(InferError, match="without its request") as raised:
        await health_streams(server)[WATCH].handler(call)
    assert raised.value.code == Internal.code


async def test_f20_what_a_breaker_keeps_from_answering_does_not_serve(server: FakeServer) -> None:
    server.failing = {("m", "2")}
    assert (await check(server, "m/2"), await check(server, "m"), await check(server, "")) == (
        NOT_SERVING, SERVING, SERVING)
