"""A grpcio server over the cold services and a puppet model, for tests of the services and of the clients.

It mounts the same {path: handler} tables as the real transports do, so that a client can be tried without them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import grpc

from infer.errors import InferError, InvalidArgument, NotFound
from infer.outcome_metrics import Outcome
from infer.proto import message
from infer.services.call import Changes, Service
from infer.services.control import FixedModels, ModelControl, Repository
from infer.services.overrides import OverrideFiles

INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"
STREAM_PATH = "/inference.GRPCInferenceService/ModelStreamInfer"


@dataclass(frozen=True)
class FakeTensor:
    name: str
    datatype: str = "FP32"
    shape: tuple[int, ...] | None = (-1, 4)
    symbols: tuple[str, ...] = ()
    served: bool = True
    optional: bool = False


@dataclass(frozen=True)
class FakeSession:
    providers: tuple[tuple[str, dict[str, str]], ...] = (("CPUExecutionProvider", {}),)


@dataclass(frozen=True)
class FakeVersion:
    name: bytes
    version: str = "1"
    inputs: list[FakeTensor] = field(default_factory=lambda: [FakeTensor("x")])
    outputs: list[FakeTensor] = field(default_factory=lambda: [FakeTensor("y", shape=(-1, 2))])
    properties: dict[str, str] = field(default_factory=dict)
    session: FakeSession = FakeSession()
    settings: Any = None
    batched: bool = True
    max_rows: int = 1024
    gather_rows: int = 64
    delay_ns: int = 0
    max_running: int = 2
    stats: dict[str, Any] = field(default_factory=dict)

    def stats_snapshot(self, second_bounds_ns: tuple[int, ...], row_bounds: tuple[int, ...]) -> dict[str, Any]:
        nothing: dict[str, Any] = {"calls": [0] * 17, "batch_sizes": [], "cache": None, "queue_refused": {},
                                   "batches_left": {}, "expired": {}}
        nothing |= dict.fromkeys(("rows", "batches", "last_inference_ms", "request_ns", "failed_ns", "queue_ns",
                                  "queue_delayed", "charged_ns", "gather_ns", "run_ns", "scatter_ns"), 0)
        return nothing | self.stats


class FakeRoute(NamedTuple):
    versions: list[FakeVersion]
    labels: dict[str, FakeVersion]


@dataclass
class FakeRoutes:
    """Versions by model, highest last, and errors by model for those that are known and not servable."""

    versions: dict[str, list[FakeVersion]] = field(default_factory=dict)
    unready: dict[str, InferError] = field(default_factory=dict)
    labels: dict[str, dict[str, FakeVersion]] = field(default_factory=dict)

    def lookup(self, name: str, version: str) -> FakeVersion:
        if name in self.unready:
            raise self.unready[name]
        for entry in reversed(self.versions.get(name, [])):
            if version in ("", entry.version):
                return entry
        raise NotFound(f"unknown model {name!r} version {version!r}")

    def models(self) -> list[tuple[str, list[FakeVersion]]]:
        return list(self.versions.items())

    def route_of(self, name: str) -> FakeRoute | None:
        return FakeRoute(self.versions[name], self.labels.get(name, {})) if name in self.versions else None


@dataclass
class FakeAudit:
    rows: list[dict[str, str]] = field(default_factory=list)

    def record(self, event: str, **fields: str) -> None:
        self.rows.append({"event": event, **fields})


@dataclass
class FakeOutcomes:
    """An OutcomesView that knows model `m` alone."""

    outcomes: list[Outcome] = field(default_factory=list)
    results: dict[str, int] = field(default_factory=dict)

    def ensure_number(self, number: int) -> None:
        if number > 1000:
            raise InvalidArgument("too many")

    def record(self, outcomes: Sequence[Outcome]) -> Counter[str]:
        if any(each.model != "m" for each in outcomes):
            raise NotFound("no such model")
        self.outcomes += outcomes
        return Counter(self.results)


@dataclass
class FakeServer:
    """A ServerView."""

    routes: FakeRoutes = field(default_factory=FakeRoutes)
    live: bool = True
    ready: bool = True
    stopping: bool = False
    changes: Changes = field(default_factory=Changes)
    control: ModelControl | None = None
    outcomes: FakeOutcomes = field(default_factory=FakeOutcomes)
    audit: FakeAudit = field(default_factory=FakeAudit)
    failing: set[tuple[str, str]] = field(default_factory=set)     # models, and versions, whose breaker is open

    def answers(self, name: str, version: str) -> bool:
        self.routes.lookup(name, version)
        return (name, version) not in self.failing

    def __post_init__(self) -> None:
        self.repository = Repository(self.control or FixedModels(lambda: self.routes), max_calls=4,
                                     files=OverrideFiles(1000))


@dataclass
class FakeCall:
    """A Call without a transport."""

    path: str = "/"
    message: bytes = b""
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    peer: str = "test"
    identity: str = ""

    def time_remaining(self) -> float | None:
        return None

    def abort(self, code: int, message: str) -> NoReturn:
        raise InferError(message, code)


class FakeStreamCall:
    """A StreamCall whose peer is the test: it puts requests and takes replies, None for either end."""

    metadata: tuple[tuple[str, str | bytes], ...] = ()
    peer = "test"

    def __init__(self, path: str = "/") -> None:
        self.path = path
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.replies: asyncio.Queue[bytes] = asyncio.Queue(1)

    def time_remaining(self) -> float | None:
        return None

    def abort(self, code: int, message: str) -> NoReturn:
        raise InferError(message, code)

    async def read(self) -> bytes | None:
        return await self.requests.get()

    async def write(self, message: bytes) -> None:
        await self.replies.put(message)


STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


@contextmanager
def serving(service: Service, infer: Callable[[Any], Mapping[str, tuple[str, Any]]] | None = None) -> Iterator[str]:
    """The address of a server of `service` and of a puppet ModelInfer: request -> (datatype, array) by output. The
    puppet answers on streams too."""
    from infer.client.tensors import encode

    def answer(path: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def cold(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                return asyncio.run(service[path](FakeCall(path, request)))  # type: ignore[arg-type]
            except InferError as error:
                context.abort(STATUS_CODES[error.code], error.message)
                raise

        def warm(request: bytes, context: grpc.ServicerContext) -> bytes:
            assert infer is not None
            decoded = message("inference.ModelInferRequest").FromString(request)
            try:
                outputs = infer(decoded)
            except InferError as error:
                context.abort(STATUS_CODES[error.code], error.message)
                raise
            reply = message("inference.ModelInferResponse")(model_name=decoded.model_name, model_version="1")
            for name, (datatype, array) in outputs.items():
                reply.outputs.add(name=name, datatype=datatype, shape=array.shape)
                reply.raw_output_contents.append(bytes(encode(array, datatype)))
            content: bytes = reply.SerializeToString()
            return content

        return warm if path in (INFER_PATH, STREAM_PATH) else cold

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        decoded, wrapped = message("inference.ModelInferResponse"), message("inference.ModelStreamInferResponse")
        for request in requests:
            reply = decoded.FromString(answer(STREAM_PATH)(request, context))
            yield wrapped(infer_response=reply).SerializeToString()

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            if infer is not None and details.method == STREAM_PATH:
                return grpc.stream_stream_rpc_method_handler(stream)
            known = details.method in service or (infer is not None and details.method == INFER_PATH)
            return grpc.unary_unary_rpc_method_handler(answer(details.method)) if known else None

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
