"""The table of inference.GRPCInferenceService: what is in it, what is refused, and that a transport can mount it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from infer.errors import Internal, Unimplemented
from infer.proto import message, pool
from infer.services.inference import inference_service
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeVersion, serving

PREFIX = "/inference.GRPCInferenceService/"


async def call(server: FakeServer, method: str, **fields: Any) -> Any:
    request = message(f"inference.{method}Request")(**fields).SerializeToString()
    reply = await inference_service(server)[PREFIX + method](FakeCall(PREFIX + method, request))
    return message(f"inference.{method}Response").FromString(reply)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(FakeRoutes({"m": [FakeVersion(b"m", "2"), FakeVersion(b"m", "10")]}))


SHARED_MEMORY = [f"{kind}SharedMemory{verb}"
                 for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")]
METHODS = ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig",
           "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "LogSettings",
           "TraceSetting", "RecordOutcome"]


def test_table_holds_every_rpc_but_inference(server: FakeServer) -> None:
    described = pool().FindServiceByName("inference.GRPCInferenceService")
    assert set(inference_service(server)) == {PREFIX + method.name for method in described.methods} - {
        PREFIX + "ModelInfer", PREFIX + "ModelStreamInfer"}


@pytest.mark.parametrize("method", SHARED_MEMORY)
async def test_shared_memory_is_unimplemented_with_a_text(server: FakeServer, method: str) -> None:
    with pytest.raises(Unimplemented, match=f"{method}: .*send them in the request"):
        await call(server, method)


@pytest.mark.parametrize("method", METHODS)
async def test_malformed_message_is_internal(server: FakeServer, method: str) -> None:
    server.repository.control.mode = "explicit"  # type: ignore[misc]
    with pytest.raises(Internal, match=f"not a valid inference.{method}Request"):
        await inference_service(server)[PREFIX + method](FakeCall(PREFIX + method, b"\x0a\xff"))


def test_table_on_a_real_transport(server: FakeServer) -> None:
    with serving(inference_service(server)) as address, grpc.insecure_channel(address) as channel:
        ready = channel.unary_unary(PREFIX + "ModelReady")
        assert ready(message("inference.ModelReadyRequest")(name="m").SerializeToString()) == b"\x08\x01"
