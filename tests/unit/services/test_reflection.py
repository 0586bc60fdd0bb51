"""Server reflection, both versions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from infer.errors import InferError, Internal, Unavailable
from infer.proto import files, message
from infer.services.reflection import VERSIONS, answer, reflection_service
from tests.support.cold_server import FakeServer, FakeStreamCall

SERVICES = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
            "inference.GRPCInferenceService"]


def ask(version: str = "v1", **fields: Any) -> Any:
    request = message(f"grpc.reflection.{version}.ServerReflectionRequest")(host="h", **fields)
    reply = message(f"grpc.reflection.{version}.ServerReflectionResponse").FromString(
        answer(request.SerializeToString(), version))
    assert reply.valid_host == "h"
    assert reply.original_request == request
    return reply


def described(reply: Any) -> list[str]:
    """File names; all of them load, in the reverse order, into an empty pool."""
    sent = [descriptor_pb2.FileDescriptorProto.FromString(content)
            for content in reply.file_descriptor_response.file_descriptor_proto]
    fresh = descriptor_pool.DescriptorPool()
    for file in reversed(sent):
        fresh.Add(file)
    for file in sent:
        assert fresh.FindFileByName(file.name) is not None
    return [file.name for file in sent]


@pytest.mark.parametrize("version", VERSIONS)
def test_services(version: str) -> None:
    reply = ask(version, list_services="*")
    assert [service.name for service in reply.list_services_response.service] == SERVICES


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("symbol", [
    "inference.GRPCInferenceService", "inference.GRPCInferenceService.ModelInfer", "inference.ModelInferRequest",
    "inference.ModelInferRequest.InferInputTensor", "inference.ModelInferRequest.raw_input_contents"])
def test_symbols(version: str, symbol: str) -> None:
    assert described(ask(version, file_containing_symbol=symbol)) == ["inference.proto", "model_config.proto"]


def test_symbols_of_other_files() -> None:
    assert described(ask(file_containing_symbol="inference.DataType")) == ["model_config.proto"]
    assert described(ask(file_containing_symbol="grpc.health.v1.Health.Watch")) == ["health.proto"]


@pytest.mark.parametrize("name", files())
def test_files(name: str) -> None:
    assert described(ask(file_by_filename=name))[0] == name


@pytest.mark.parametrize(("fields", "code", "text"), [
    ({"file_by_filename": "x.proto"}, 5, "no file is called 'x.proto'"),
    ({"file_containing_symbol": "inference.Nothing"}, 5, "nothing is called 'inference.Nothing'"),
    ({"file_containing_symbol": ""}, 5, "nothing is called ''"),
    ({"all_extension_numbers_of_type": "inference.Nothing"}, 5, "no message is called"),
    ({}, 3, "asks for nothing")])
def test_errors_are_answers(fields: dict[str, str], code: int, text: str) -> None:
    error = ask(**fields).error_response
    assert error.error_code == code
    assert text in error.error_message


def test_extensions() -> None:
    reply = ask(all_extension_numbers_of_type="inference.ModelInferRequest").all_extension_numbers_response
    assert (reply.base_type_name, list(reply.extension_number)) == ("inference.ModelInferRequest", [])
    wanted = message("grpc.reflection.v1.ExtensionRequest")(containing_type="inference.ModelInferRequest",
                                                            extension_number=9)
    assert ask(file_containing_extension=wanted).error_response.error_code == 5


@pytest.mark.parametrize("version", VERSIONS)
async def test_stream_answers_each_request_until_the_half_close(version: str) -> None:
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    call = FakeStreamCall(path)
    running = asyncio.create_task(reflection_service(FakeServer())[path].handler(call))
    kind = message(f"grpc.reflection.{version}.ServerReflectionRequest")
    for fields in ({"list_services": ""}, {"file_by_filename": "no"}, {"file_by_filename": "health.proto"}):
        request = kind(**fields).SerializeToString()
        call.requests.put_nowait(request)
        assert await call.replies.get() == answer(request, version)
    call.requests.put_nowait(None)
    await running
    assert call.replies.empty()


async def test_malformed_request_ends_the_stream() -> None:
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    call = FakeStreamCall(path)
    call.requests.put_nowait(b"\x0a\x05x")
    with pytest.raises(Internal):
        await reflection_service(FakeServer())[path].handler(call)


@pytest.mark.parametrize("version", VERSIONS)
async def test_stream_ends_when_the_server_stops(version: str) -> None:
    """A client that keeps it open does not hold the drain up; what it has asked is answered first."""
    server = FakeServer()
    call = FakeStreamCall(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
    running = asyncio.create_task(reflection_service(server)[call.path].handler(call))
    request = message(f"grpc.reflection.{version}.ServerReflectionRequest")(list_services="").SerializeToString()
    call.requests.put_nowait(request)
    assert await call.replies.get() == answer(request, version)
    server.changes.notify()
    call.requests.put_nowait(request)
    assert await call.replies.get() == answer(request, version)
    server.stopping = True
    server.changes.notify()
    with pytest.raises(InferError, match="stopping") as raised:
        await running
    assert raised.value.code == Unavailable.code


def test_long_names_are_cut() -> None:
    assert len(ask(file_containing_symbol="x" * 100_000).error_response.error_message) < 300
