"""Health, metadata and configuration: what WIRE 4.1, 4.4 and 4.6 say of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infer import __version__
from infer._core.router import RouteTable
from infer.errors import FailedPrecondition, InferError, InvalidArgument, NotFound, Unavailable
from infer.proto import message
from infer.services.inference import inference_service
from infer.services.model_config import config_of
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeSession, FakeTensor, FakeVersion

PREFIX = "/inference.GRPCInferenceService/"


async def call(server: FakeServer, method: str, **fields: Any) -> Any:
    request = message(f"inference.{method}Request")(**fields).SerializeToString()
    reply = await inference_service(server)[PREFIX + method](FakeCall(PREFIX + method, request))
    return message(f"inference.{method}Response").FromString(reply)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(FakeRoutes({"m": [FakeVersion(b"m", "2"), FakeVersion(b"m", "10")]}))


@pytest.mark.parametrize("state", [True, False])
async def test_live_and_ready(server: FakeServer, state: bool) -> None:
    server.live, server.ready = state, not state
    assert (await call(server, "ServerLive")).live is state
    assert (await call(server, "ServerReady")).ready is not state


async def test_server_metadata(server: FakeServer) -> None:
    reply = await call(server, "ServerMetadata")
    assert (reply.name, reply.version, list(reply.extensions)) == (
        "infer", __version__, ["model_configuration", "statistics", "logging"])


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


@pytest.mark.parametrize(("name", "code"), [("../x", 3), ("nothing", 0)])
async def test_model_ready_over_the_real_routes(name: str, code: int) -> None:
    server = FakeServer(RouteTable([]))  # type: ignore[arg-type]
    if code == 0:
        assert (await call(server, "ModelReady", name=name)).ready is False
        return
    with pytest.raises(InferError) as raised:
        await call(server, "ModelReady", name=name)
    assert raised.value.code == code


VERSION = FakeVersion(
    b"m", "3",
    inputs=[FakeTensor("x", "FP32", (-1, 3, 8)), FakeTensor("n", "BYTES", (-1,), optional=True)],
    outputs=[FakeTensor("y", "BF16", (-1, 2)), FakeTensor("map", "MAP", None, served=False)],
    properties={"file": "model.onnx"}, max_rows=32, gather_rows=8, delay_ns=250_000, max_running=3)


async def test_model_config_of_a_batched_model() -> None:
    config = (await call(FakeServer(FakeRoutes({"m": [VERSION]})), "ModelConfig", name="m")).config
    assert (config.name, config.platform, config.backend) == ("m", "onnxruntime_onnx", "onnxruntime")
    assert (config.max_batch_size, config.default_model_filename) == (32, "model.onnx")
    assert config.version_policy.latest.num_versions == 1
    assert [(t.name, t.data_type, list(t.dims), t.optional) for t in config.input] == [
        ("x", 11, [3, 8], False), ("n", 13, [], True)]
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [("y", 14, [2])]
    (group,) = config.instance_group
    assert (group.name, group.count, group.kind, list(group.gpus)) == ("m", 3, group.KIND_CPU, [])
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 250


def test_model_config_without_batching_has_whole_shapes() -> None:
    config = config_of(replace(VERSION, batched=False, max_rows=1))
    assert config.max_batch_size == 0
    assert [list(tensor.dims) for tensor in config.input] == [[-1, 3, 8], [-1]]
    assert config.WhichOneof("scheduling_choice") is None
    unknown = config_of(replace(VERSION, batched=False, inputs=[FakeTensor("x", "FP32", None)]))
    assert [list(tensor.dims) for tensor in unknown.input] == [[-1]]


def test_model_config_on_a_gpu() -> None:
    session = FakeSession((("CUDAExecutionProvider", {"device_id": "2"}), ("CPUExecutionProvider", {})))
    (group,) = config_of(replace(VERSION, session=session)).instance_group
    assert (group.kind, list(group.gpus)) == (group.KIND_GPU, [2])


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
                                      "FP16", "BF16", "FP32", "FP64"])
def test_every_datatype_has_its_name_in_a_configuration(datatype: str) -> None:
    config = config_of(replace(VERSION, inputs=[FakeTensor("x", datatype)]))
    names = config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
    assert names[config.input[0].data_type].name == f"TYPE_{datatype}"


async def test_model_config_of_an_unknown_model(server: FakeServer) -> None:
    with pytest.raises(NotFound):
        await call(server, "ModelConfig", name="nothing")


async def test_f20_a_version_that_a_breaker_keeps_from_answering_is_not_ready(server: FakeServer) -> None:
    server.failing = {("m", "2")}
    assert (await call(server, "ModelReady", name="m", version="2")).ready is False
    assert (await call(server, "ModelReady", name="m")).ready is True
