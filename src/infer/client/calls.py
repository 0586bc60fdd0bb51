"""What the synchronous and the asyncio client share: channel options, requests, and errors from grpcio's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import grpc

from infer.client.retry import PUSHBACK
from infer.errors import InferError, error_of
from infer.proto import message

SERVICE = "/inference.GRPCInferenceService/"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
INFER_PATH = f"{SERVICE}ModelInfer"
STREAM_PATH = f"{SERVICE}ModelStreamInfer"
DEFAULT_TIMEOUT = 60.0
SERVING = 1
# No bound on messages of our own: the server's is the one that counts. A proxy set for web traffic is not for this.
# After a connection that failed the next is tried within a call's first backoffs, not after a second.
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 5000))

# A caller's metadata: keys in lower case; bytes where the key ends in -bin.
Metadata = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]


class Outcome(NamedTuple):
    """What became of one reply by one metric of an experiment with its model. One of `request_id`, that of the request,
    and `routing_key`, that its requests are divided by, is given. `value`: 0 or 1 where the metric is a rate."""

    model: str
    metric: str
    value: float
    request_id: str = ""
    routing_key: str = ""


class Recorded(NamedTuple):
    """What outcomes came to. `duplicates`: of units that had one of that metric; `unknown`: of requests that the server
    does not remember, or that were not divided; `late`: of requests longer ago than the experiment's window."""

    accepted: int
    duplicates: int
    unknown: int
    late: int


class Query(NamedTuple):
    """A unary call of anything but ModelInfer."""

    path: str
    request: bytes
    reply: str      # full name of the message


def server_ready() -> Query:
    return Query(SERVICE + "ServerReady", b"", "inference.ServerReadyResponse")


def model_ready(model: str, version: str) -> Query:
    return _named("ModelReady", model, version)


def model_metadata(model: str, version: str) -> Query:
    return _named("ModelMetadata", model, version)


def model_statistics(model: str, version: str) -> Query:
    return _named("ModelStatistics", model, version)


def repository_index() -> Query:
    return Query(SERVICE + "RepositoryIndex", b"", "inference.RepositoryIndexResponse")


def model_load(model: str, config: str | None, files: Mapping[tuple[int, str], bytes]) -> Query:
    request = message("inference.RepositoryModelLoadRequest")(model_name=model)
    if config is not None:
        request.parameters["config"].string_param = config
    for (version, name), content in files.items():
        request.parameters[f"file:{version}/{name}"].bytes_param = content
    return _changing("Load", request)


def label_move(model: str, label: str, version: int) -> Query:
    request = message("inference.RepositoryModelLoadRequest")(model_name=model)
    request.parameters["label"].string_param = label
    request.parameters["version"].int64_param = version
    return _changing("Load", request)


def model_unload(model: str) -> Query:
    return _changing("Unload", message("inference.RepositoryModelUnloadRequest")(model_name=model))


def outcome_record(outcomes: Iterable[Outcome]) -> Query:
    request = message("inference.RecordOutcomeRequest")()
    for each in outcomes:
        added = request.outcomes.add(model=each.model, metric=each.metric, value=each.value)
        if each.request_id:
            added.request_id = each.request_id
        if each.routing_key:
            added.routing_key = each.routing_key
    return Query(SERVICE + "RecordOutcome", request.SerializeToString(), "inference.RecordOutcomeResponse")


def recorded(reply: Any) -> Recorded:
    return Recorded(reply.accepted, reply.duplicates, reply.unknown, reply.late)


def _changing(verb: str, request: Any) -> Query:
    return Query(f"{SERVICE}RepositoryModel{verb}", request.SerializeToString(),
                 f"inference.RepositoryModel{verb}Response")


def health_check(service: str) -> Query:
    request = message("grpc.health.v1.HealthCheckRequest")(service=service)
    return Query(HEALTH_CHECK, request.SerializeToString(), "grpc.health.v1.HealthCheckResponse")


def _named(method: str, model: str, version: str) -> Query:
    request = message(f"inference.{method}Request")(name=model, version=version)
    return Query(SERVICE + method, request.SerializeToString(), f"inference.{method}Response")


def pairs(metadata: Metadata | None) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata as grpcio takes it."""
    if metadata is None:
        return ()
    return tuple(metadata.items() if isinstance(metadata, Mapping) else metadata)


def failure(error: Any) -> tuple[InferError, str | None]:
    """Our error for grpcio's, and the server's pushback, None where it gave none."""
    code: grpc.StatusCode = error.code()
    trailers = dict(error.trailing_metadata() or ())
    return error_of(code.value[0], error.details() or ""), trailers.get(PUSHBACK)
