"""A grpcio server over the cold services and a puppet model, for tests of the services and of the clients.

It mounts the same {path: handler} tables as the real transports do, so that a client can be tried without them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc

from infer.errors import InferError, NotFound
from infer.proto import message
from infer.services.call import Service

INFER_PATH = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class FakeTensor:
    name: str
    datatype: str = "FP32"
    shape: tuple[int, ...] | None = (-1, 4)
    symbols: tuple[str, ...] = ()
    served: bool = True
    optional: bool = False


@dataclass(frozen=True)
class FakeVersion:
    name: bytes
    version: str = "1"
    inputs: list[FakeTensor] = field(default_factory=lambda: [FakeTensor("x")])
    outputs: list[FakeTensor] = field(default_factory=lambda: [FakeTensor("y", shape=(-1, 2))])
    properties: dict[str, str] = field(default_factory=dict)


@dataclass
class FakeRoutes:
    """Versions by model, highest last, and errors by model for those that are known and not servable."""

    versions: dict[str, list[FakeVersion]] = field(default_factory=dict)
    unready: dict[str, InferError] = field(default_factory=dict)

    def lookup(self, name: str, version: str) -> FakeVersion:
        if name in self.unready:
            raise self.unready[name]
        for entry in reversed(self.versions.get(name, [])):
            if version in ("", entry.version):
                return entry
        raise NotFound(f"unknown model {name!r} version {version!r}")

    def models(self) -> list[tuple[str, list[FakeVersion]]]:
        return list(self.versions.items())


@dataclass
class FakeServer:
    """A ServerView."""

    routes: FakeRoutes = field(default_factory=FakeRoutes)
    live: bool = True
    ready: bool = True


@dataclass
class FakeCall:
    """A Call without a transport."""

    path: str = "/"
    message: bytes = b""
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    peer: str = "test"

    def time_remaining(self) -> float | None:
        return None

    def abort(self, code: int, message: str) -> NoReturn:
        raise InferError(message, code)


STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


@contextmanager
def serving(service: Service, infer: Callable[[Any], Mapping[str, tuple[str, Any]]] | None = None) -> Iterator[str]:
    """The address of a server of `service` and of a puppet ModelInfer: request -> (datatype, array) by output."""
    from infer.cli.tensors import encode

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
                reply.raw_output_contents.append(encode(array, datatype))
            content: bytes = reply.SerializeToString()
            return content

        return warm if path == INFER_PATH else cold

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            known = details.method in service or (infer is not None and details.method == INFER_PATH)
            return grpc.unary_unary_rpc_method_handler(answer(details.method)) if known else None

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
