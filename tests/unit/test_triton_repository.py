"""A Triton repository and a TensorFlow Serving configuration as people have them: read unchanged, and completed as
Triton's auto-complete would; what differs is listed here and in README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format

from infer.models.complete import Defaults, complete
from infer.models.config_pbtxt import read_config
from infer.models.model_list import read_model_list
from infer.models.settings import ModelSettings, VersionPolicy
from infer.models.version_policy import aspired
from infer.proto import message
from infer.services.model_config import config_of
from tests.support.cold_server import FakeTensor, FakeVersion
from tests.support.model_repositories import (
    TF_SERVING_VERSIONS,
    TRITON_COMPLETED,
    TRITON_VERSIONS,
    tf_serving_models,
    triton_repository,
)
from tests.support.models import ELEMENT_TYPES

NAMES = {element: name for name, element in ELEMENT_TYPES.items()}
ASPIRED = {"scale_latest": {4, 5}, "scale_all": {1, 2, 3, 4, 5}, "scale_specific": {1, 3}, "plain": {2}}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return triton_repository(tmp_path_factory.mktemp("triton"))


def declared(values: Any) -> list[FakeTensor]:
    """As the model's file declares them, read without our own code."""
    return [FakeTensor(value.name, NAMES[value.type.tensor_type.elem_type],
                       tuple(size.dim_value if size.HasField("dim_value") else -1
                             for size in value.type.tensor_type.shape.dim)) for value in values]


def settings_in(repository: Path, name: str) -> ModelSettings:
    path = repository / name / "config.pbtxt"
    if not path.exists():
        return ModelSettings(name)
    settings, problems = read_config(path, name)
    assert problems == []
    assert settings is not None
    return settings


def ours(repository: Path, name: str) -> Any:
    settings = settings_in(repository, name)
    file = settings.filename or "model.onnx"
    graph = onnx.load(repository / name / "1" / file).graph
    inputs, outputs = declared(graph.input), declared(graph.output)
    effective, problems = complete(settings, inputs, outputs, batchable=True, defaults=Defaults())
    assert problems == ()
    return config_of(FakeVersion(name.encode(), inputs=inputs, outputs=outputs, properties={"file": file},
                                 settings=effective, max_running=effective.instances or 2))


def tritons(name: str) -> Any:
    """What Triton's auto-complete returns, less what differs here."""
    config = message("inference.ModelConfig")()
    text_format.Parse((TRITON_COMPLETED / f"{name}.pbtxt").read_text(), config)
    # Memory is not pinned by a setting.
    config.optimization.ClearField("input_pinned_memory")
    config.optimization.ClearField("output_pinned_memory")
    if not config.optimization.ByteSize():
        config.ClearField("optimization")
    if name in ("minimal", "plain"):
        # Without max_batch_size the server's own holds instead of 4, and batches gather the server's rows.
        config.max_batch_size = 1024
        config.dynamic_batching.preferred_batch_size[:] = [64]
    for tensor in (*config.input, *config.output):
        # One value a row is [batch] in requests too, not [batch, 1].
        if tensor.HasField("reshape") and not tensor.reshape.shape:
            tensor.ClearField("dims")
            tensor.ClearField("reshape")
    return config


def test_there_is_a_completed_configuration_of_each() -> None:
    assert {path.stem for path in TRITON_COMPLETED.iterdir()} == set(TRITON_VERSIONS)


@pytest.mark.parametrize("name", sorted(TRITON_VERSIONS))
def test_model_config_is_what_triton_would_complete(repository: Path, name: str) -> None:
    assert ours(repository, name) == tritons(name)


@pytest.mark.parametrize("name", sorted(TRITON_VERSIONS))
def test_a_completed_configuration_is_one_that_can_be_read_again(repository: Path, name: str, tmp_path: Path) -> None:
    config = ours(repository, name)
    for tensor in (*config.input, *config.output):
        if not tensor.dims:
            tensor.dims.append(1)
            tensor.reshape.SetInParent()
    file = tmp_path / "config.pbtxt"
    file.write_text(text_format.MessageToString(config))
    settings, problems = read_config(file, name)
    assert problems == []
    assert settings is not None
    graph = onnx.load(repository / name / "1" / (settings.filename or "")).graph
    again, problems_again = complete(settings, declared(graph.input), declared(graph.output), batchable=False,
                                     defaults=Defaults())
    assert problems_again == ()
    assert (again.max_batch_size, again.preferred_batch_sizes) == (
        config.max_batch_size, tuple(config.dynamic_batching.preferred_batch_size))


@pytest.mark.parametrize("name", sorted(TRITON_VERSIONS))
def test_version_policies_of_the_repository(repository: Path, name: str) -> None:
    settings = settings_in(repository, name)
    assert set(aspired(settings.policy, TRITON_VERSIONS[name])) == ASPIRED.get(name, {1})


def test_tensorflow_servings_configuration(tmp_path: Path) -> None:
    models, problems = read_model_list(tf_serving_models(tmp_path))
    assert problems == ()
    assert {each.name: each.base for each in models} == {name: tmp_path / name for name in TF_SERVING_VERSIONS}
    wanted = {each.name: set(aspired(each.policy, TF_SERVING_VERSIONS[each.name])) for each in models}
    assert wanted == {"my_first_model": {3}, "my_second_model": {1, 2}, "my_third_model": {1, 2}}
    assert models[1].labels == {"canary": 2, "stable": 1}
    assert models[2].policy == VersionPolicy("all")
