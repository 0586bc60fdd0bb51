"""grpc.health.v1.Health: Check, for the server, its liveness, and each model and version."""

from __future__ import annotations

from infer.errors import InferError, InvalidArgument, NotFound
from infer.proto import message
from infer.services.call import Call, ServerView, Service, decoded

SERVICE = "grpc.health.v1.Health"
# Probes name "readiness", balancers the service that they route.
READINESS = frozenset({"", "readiness", "inference.GRPCInferenceService"})
LIVENESS = "liveness"
SERVING, NOT_SERVING = 1, 2


def health_service(server: ServerView) -> Service:
    """The table of the service's RPCs."""

    async def check(call: Call) -> bytes:
        request = decoded(call, message("grpc.health.v1.HealthCheckRequest"))
        status = SERVING if _is_serving(server, request.service) else NOT_SERVING
        reply: bytes = message("grpc.health.v1.HealthCheckResponse")(status=status).SerializeToString()
        return reply

    return {f"/{SERVICE}/Check": check}


def _is_serving(server: ServerView, service: str) -> bool:
    """Whether a named service serves; NOT_FOUND for a name that is neither ours nor a model's."""
    if service in READINESS:
        return server.ready
    if service == LIVENESS:
        return server.live
    name, divided, version = service.partition("/")
    try:
        if divided and not version:
            raise NotFound("no version after the slash")
        server.routes.lookup(name, version)
    except (NotFound, InvalidArgument):
        raise NotFound(
            f"unknown service {service!r}: expected readiness, liveness, inference.GRPCInferenceService, "
            "a model's name or name/version"
        ) from None
    except InferError:
        return False
    return True
