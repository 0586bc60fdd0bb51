"""grpc.health.v1 Check, for probes and balancers."""

from __future__ import annotations

import pytest

from infer.errors import FailedPrecondition, Internal, InvalidArgument, NotFound, Unavailable
from infer.proto import message
from infer.services.health import health_service
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeVersion

PATH = "/grpc.health.v1.Health/Check"
SERVING, NOT_SERVING = 1, 2


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
