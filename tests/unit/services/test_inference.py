"""Cold RPCs of inference.GRPCInferenceService: what WIRE 4.1 and 4.4 say of health and metadata."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from infer import __version__
from infer.errors import FailedPrecondition, InferError, Internal, InvalidArgument, NotFound, Unavailable
from infer.proto import message
from infer.services.inference import inference_service
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeTensor, FakeVersion, serving

PREFIX = "/inference.GRPCInferenceService/"


async def call(server: FakeServer, method: str, **fields: Any) -> Any:
    request = message(f"inference.{method}Request")(**fields).SerializeToString()
    reply = await inference_service(server)[PREFIX + method](FakeCall(PREFIX + method, request))
    return message(f"inference.{method}Response").FromString(reply)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(FakeRoutes({"m": [FakeVersion(b"m", "2"), FakeVersion(b"m", "10")]}))


def test_table_holds_these_rpcs_only(server: FakeServer) -> None:
    assert set(inference_service(server)) == {
        PREFIX + name for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")}


@pytest.mark.parametrize("state", [True, False])
async def test_live_and_ready(server: FakeServer, state: bool) -> None:
    server.live, server.ready = state, not state
    assert (await call(server, "ServerLive")).live is state
    assert (await call(server, "ServerReady")).ready is not state


async def test_server_metadata(server: FakeServer) -> None:
    reply = await call(server, "ServerMetadata")
    assert (reply.name, reply.version, list(reply.extensions)) == ("infer", __version__, [])


@pytest.mark.parametrize(("name", "version", "ready"), [
    ("m", "", True), ("m", "2", True), ("m", "3", False), ("nothing", "", False)])
async def test_wire_4_4_model_ready_of_an_unknown_model_is_ok_and_false(
        server: FakeServer, name: str, version: str, ready: bool) -> None:
    assert (await call(server, "ModelReady", name=name, version=version)).ready is ready


@pytest.mark.parametrize("error", [Unavailable("loading"), FailedPrecondition("failed to load"), NotFound("gone")])
async def test_wire_4_4_model_ready_of_a_model_that_cannot_be_served(server: FakeServer, error: InferError) -> None:
    server.routes.unready["m"] = error
    assert (await call(server, "ModelReady", name="m")).ready is False


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
async def test_wire_4_4_name_that_breaks_the_rules(server: FakeServer, method: str) -> None:
    server.routes.unready["../x"] = InvalidArgument("the model's name breaks the rules")
    with pytest.raises(InvalidArgument):
        await call(server, method, name="../x")


@pytest.mark.parametrize("error", [NotFound("n"), Unavailable("u"), FailedPrecondition("f"), InvalidArgument("i")])
async def test_wire_4_4_model_metadata_passes_the_code_on(server: FakeServer, error: InferError) -> None:
    server.routes.unready["m"] = error
    with pytest.raises(type(error)):
        await call(server, "ModelMetadata", name="m")


async def test_model_metadata(server: FakeServer) -> None:
    reply = await call(server, "ModelMetadata", name="m")
    assert (reply.name, reply.platform, list(reply.versions)) == ("m", "onnxruntime_onnx", ["2", "10"])
    assert [(t.name, t.datatype, list(t.shape)) for t in reply.inputs] == [("x", "FP32", [-1, 4])]
    assert [(t.name, t.datatype, list(t.shape)) for t in reply.outputs] == [("y", "FP32", [-1, 2])]
    assert list((await call(server, "ModelMetadata", name="m", version="2")).versions) == ["2"]


async def test_outputs_that_are_not_served_are_properties() -> None:
    outputs = [FakeTensor("label", "INT64", ()), FakeTensor("zip", "SEQUENCE", None, served=False),
               FakeTensor("free", "FP32", None)]
    version = FakeVersion(b"m", outputs=outputs, properties={"batching": "none"})
    reply = await call(FakeServer(FakeRoutes({"m": [version]})), "ModelMetadata", name="m")
    assert [(t.name, list(t.shape)) for t in reply.outputs] == [("label", []), ("free", [-1])]
    assert dict(reply.properties) == {"batching": "none", "outputs_not_served": "zip"}


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata"])
async def test_malformed_message_is_internal(server: FakeServer, method: str) -> None:
    with pytest.raises(Internal, match=f"not a valid inference.{method}Request"):
        await inference_service(server)[PREFIX + method](FakeCall(PREFIX + method, b"\x0a\xff"))


def test_table_on_a_real_transport(server: FakeServer) -> None:
    with serving(inference_service(server)) as address, grpc.insecure_channel(address) as channel:
        ready = channel.unary_unary(PREFIX + "ModelReady")
        assert ready(message("inference.ModelReadyRequest")(name="m").SerializeToString()) == b"\x08\x01"
