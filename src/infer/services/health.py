"""grpc.health.v1.Health: the server, its liveness, and each model and version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infer.errors import InferError, InvalidArgument, NotFound, ResourceExhausted
from infer.proto import message
from infer.services.call import Handler, StreamCall, Streaming, parsed, shown, unary
from infer.services.server_view import ServerView

SERVICE = "grpc.health.v1.Health"
# Probes name "readiness", balancers the service that they route.
READINESS = frozenset({"", "readiness", "inference.GRPCInferenceService"})
LIVENESS = "liveness"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
# What List may answer with at most (gRFC A90).
LIST_ENTRIES = 100
INTERNAL, UNAVAILABLE = 13, 14


def health_service(server: ServerView) -> Mapping[str, Handler]:
    """Check and List by path."""

    def check(request: Any) -> Any:
        return message("grpc.health.v1.HealthCheckResponse")(status=_status(server, request.service))

    def list_all(_: Any) -> Any:
        names = [*READINESS, LIVENESS]
        for model, versions in server.routes.models():
            names += [model, *(f"{model}/{entry.version}" for entry in versions)]
        if len(names) > LIST_ENTRIES:
            raise ResourceExhausted(f"List would have {len(names)} entries, at most {LIST_ENTRIES} are allowed; Check "
                                    "or Watch the services that matter")
        reply = message("grpc.health.v1.HealthListResponse")()
        for name in names:
            try:
                reply.statuses[name].status = _status(server, name)
            except NotFound:
                # A model that is known and not loaded.
                reply.statuses[name].status = NOT_SERVING
        return reply

    return {
        f"/{SERVICE}/Check": unary("grpc.health.v1.HealthCheckRequest", check),
        f"/{SERVICE}/List": unary("grpc.health.v1.HealthListRequest", list_all),
    }


def health_streams(server: ServerView) -> Mapping[str, Streaming]:
    """Watch by path."""

    async def watch(call: StreamCall) -> None:
        content = await call.read()
        if content is None:
            call.abort(INTERNAL, f"{call.path}: the call ended without its request")
        service = parsed(call.path, content, message("grpc.health.v1.HealthCheckRequest")).service
        reply = message("grpc.health.v1.HealthCheckResponse")
        last = None
        while True:
            seen = server.changes.count
            try:
                status = _status(server, service)
            except NotFound:
                # It may come to be: a watcher stays.
                status = SERVICE_UNKNOWN
            if status != last:
                await call.write(reply(status=status).SerializeToString())
                last = status
            if server.stopping:
                call.abort(UNAVAILABLE, "the server is stopping; watch another replica")
            await server.changes.wait(seen)

    return {f"/{SERVICE}/Watch": Streaming(watch, client_streams=False)}


def _status(server: ServerView, service: str) -> int:
    """Whether a named service serves; NOT_FOUND for a name that is neither ours nor a model's."""
    if service in READINESS:
        return SERVING if server.ready else NOT_SERVING
    if service == LIVENESS:
        return SERVING if server.live else NOT_SERVING
    name, divided, version = service.partition("/")
    try:
        if divided and not version:
            raise NotFound("no version after the slash")
        answered = server.answers(name, version)
    except InferError as error:
        if error.code in (NotFound.code, InvalidArgument.code):
            raise NotFound(
                f"unknown service {shown(service)}: expected readiness, liveness, inference.GRPCInferenceService, "
                "a model's name or name/version"
            ) from None
        return NOT_SERVING
    return SERVING if answered else NOT_SERVING
