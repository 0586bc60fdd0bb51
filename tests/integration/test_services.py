"""The cold RPCs of a real server, asked by infer.client and by grpcio."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from infer import errors
from infer.cli import main
from infer.client import AsyncInferClient, InferClient
from infer.proto import message
from tests.support import models
from tests.support.server import InProcess, in_process, write_repository

SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture
def client(server: InProcess) -> Iterator[InferClient]:
    with InferClient(server.address) as connected:
        yield connected
    server.settle()


def ask(client: InferClient, method: str, **fields: Any) -> Any:
    request = message(f"inference.{method}Request")(**fields).SerializeToString()
    return message(f"inference.{method}Response").FromString(client.call(SERVICE + method, request))


def rows(count: int, first: float = 0.0) -> Any:
    return (np.arange(4 * count, dtype=np.float32) + first).reshape(count, 4)


def test_infer(client: InferClient) -> None:
    result = client.infer("identity", {"x": rows(3)}, request_id="7", outputs=["y"])
    np.testing.assert_array_equal(result["y"], rows(3))
    assert (result.model_name, result.model_version, result.request_id) == ("identity", "1", "7")
    with pytest.raises(errors.InvalidArgument, match="identity"):
        client.infer("identity", {"x": rows(3).astype(np.float64)})
    with pytest.raises(errors.NotFound):
        client.infer("nothing", {"x": rows(1)})


async def test_infer_with_asyncio(server: InProcess) -> None:
    async with AsyncInferClient(server.address) as client:
        result = await client.infer("identity", {"x": rows(2)})
        np.testing.assert_array_equal(result["y"], rows(2))
        assert await client.ready("identity")


def test_a_cold_message_over_its_bound(client: InferClient, server: InProcess) -> None:
    """Those are parsed on the loop, so they are bounded far below what a tensor may have."""
    before = server.server.gauges()["refused"]["max_cold_message_bytes"]
    with pytest.raises(errors.ResourceExhausted, match="--max-cold-message-bytes"):
        ask(client, "ModelMetadata", name="x" * (1 << 20))
    assert server.server.gauges()["refused"]["max_cold_message_bytes"] == before + 1
    with pytest.raises(errors.InferError) as raised:
        ask(client, "ModelMetadata", name="x" * 100_000)
    assert len(raised.value.message) < 300


def test_a_large_tensor(client: InferClient) -> None:
    x = np.arange(4 * 1024, dtype=np.float32).reshape(4, 1024).repeat(256, 1)
    np.testing.assert_array_equal(client.infer("wide", {"x": x})["y"], x)


def test_model_config(client: InferClient, server: InProcess) -> None:
    config = ask(client, "ModelConfig", name="identity").config
    assert (config.name, config.max_batch_size, config.backend) == ("identity", 1024, "onnxruntime")
    assert config.default_model_filename == "model.onnx"
    assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.input] == [("x", 11, [4])]
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("y", [4])]
    assert list(config.dynamic_batching.preferred_batch_size) == [64]
    assert config.instance_group[0].count == server.server.versions()[0].max_running


def test_model_statistics(client: InferClient) -> None:
    (before,) = client.statistics("identity")
    client.infer("identity", {"x": rows(3)})
    client.infer("identity", {"x": rows(5)})
    with pytest.raises(errors.InvalidArgument):
        client.infer("identity", {"x": np.zeros((1, 5), np.float32)})
    (after,) = client.statistics("identity")
    assert after.inference_count - before.inference_count == 8
    assert after.execution_count - before.execution_count == 2
    assert after.last_inference >= before.last_inference

    def grown(kind: str) -> tuple[int, int]:
        now, then = getattr(after.inference_stats, kind), getattr(before.inference_stats, kind)
        return now.count - then.count, now.ns - then.ns

    assert grown("fail")[0] == 1
    for kind in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert grown(kind)[0] == 2
    parts = sum(grown(kind)[1] for kind in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < grown("compute_infer")[1] < parts <= grown("success")[1]
    sizes = {batch.batch_size: batch.compute_infer.count for batch in after.batch_stats}
    assert {3, 5} <= set(sizes)
    assert sum(sizes.values()) == after.execution_count
    assert sum(size * count for size, count in sizes.items()) == after.inference_count


def test_repository_and_what_is_refused(client: InferClient) -> None:
    index = ask(client, "RepositoryIndex").models
    assert [(model.name, model.version, model.state) for model in index] == [
        ("identity", "1", "READY"), ("slow", "1", "READY"), ("wide", "1", "READY")]
    with pytest.raises(errors.FailedPrecondition, match="model control is not enabled"):
        ask(client, "RepositoryModelLoad", model_name="identity")
    with pytest.raises(errors.Unimplemented, match="shared memory"):
        ask(client, "SystemSharedMemoryStatus")


def test_the_extensions_that_are_named_are_served(client: InferClient) -> None:
    assert list(ask(client, "ServerMetadata").extensions) == ["model_configuration", "statistics", "logging"]


def test_log_settings(client: InferClient) -> None:
    root = logging.getLogger()
    before = root.level
    try:
        request = message("inference.LogSettingsRequest")()
        request.settings["log_info"].bool_param = False
        client.call(SERVICE + "LogSettings", request.SerializeToString())
        assert root.level == logging.WARNING
        assert not ask(client, "LogSettings").settings["log_info"].bool_param
    finally:
        root.setLevel(before)


def test_health(client: InferClient, server: InProcess) -> None:
    reply = client.call("/grpc.health.v1.Health/List", b"")
    statuses = message("grpc.health.v1.HealthListResponse").FromString(reply).statuses
    assert {name: status.status for name, status in statuses.items()} == dict.fromkeys(
        ["", "readiness", "liveness", "inference.GRPCInferenceService", "identity", "identity/1", "slow", "slow/1",
         "wide", "wide/1"], 1)
    over_grpc = ["--grpc", "--address", server.address, "--service", "slow/1"]
    for arguments in (["--address", server.http_address], over_grpc):
        assert CliRunner().invoke(main, ["health", *arguments]).exit_code == 0


def test_a_model_that_could_not_be_loaded(tmp_path: Path) -> None:
    repository = write_repository(tmp_path, {"bad": models.unknown_operator(), "good": models.dense()})
    with in_process(repository) as server, InferClient(server.address) as client:
        index = {model.name: model for model in ask(client, "RepositoryIndex").models}
        assert (index["bad"].state, index["bad"].version) == ("UNAVAILABLE", "1")
        assert "NoSuchOperator" in index["bad"].reason
        assert [model.name for model in ask(client, "RepositoryIndex", ready=True).models] == ["good"]
        assert not client.ready()
        assert not client.ready("bad")
        assert client.ready("good")
        assert not client.healthy("bad")
        with pytest.raises(errors.FailedPrecondition, match="NoSuchOperator"):
            ask(client, "ModelConfig", name="bad")
        assert [stats.name for stats in client.statistics()] == ["good"]
        with pytest.raises(errors.InvalidArgument):
            client.ready("../good")
