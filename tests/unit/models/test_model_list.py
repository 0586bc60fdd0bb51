"""TensorFlow Serving's file of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer.models.model_list import parse_model_list, read_model_list
from infer.models.settings import ModelSettings, VersionPolicy

# As TensorFlow Serving's documentation shows it, but for the platform.
SAMPLE = """model_config_list {
  config {
    name: 'my_first_model'
    base_path: '/tmp/my_first_model/'
    model_platform: 'onnx'
  }
  config {
    name: 'my_second_model'
    base_path: '/tmp/my_second_model/'
    model_platform: 'onnxruntime'
    model_version_policy {
      specific {
        versions: 1
        versions: 2
      }
    }
    version_labels {
      key: 'stable'
      value: 1
    }
    version_labels {
      key: 'canary'
      value: 2
    }
  }
}
"""
FILE = Path("/etc/models.config")


def said(text: str) -> list[str]:
    return [str(problem).removeprefix(f"{FILE}:") for problem in parse_model_list(text, FILE).problems]


def model(text: str) -> str:
    """A list of one model, with what a model needs beside `text`."""
    needed = {"name": "'m'", "base_path": "'/m'", "model_platform": "'onnx'"}
    return "model_config_list { config { " + " ".join(
        f"{key}: {value}" for key, value in needed.items() if f"{key}:" not in text) + f" {text} }} }}"


def test_the_well_known_sample() -> None:
    models, problems = parse_model_list(SAMPLE, FILE)
    assert problems == ()
    assert models == (
        ModelSettings("my_first_model", Path("/tmp/my_first_model"), f"{FILE}:2"),
        ModelSettings("my_second_model", Path("/tmp/my_second_model"), f"{FILE}:7",
                      policy=VersionPolicy("specific", versions=(1, 2)), labels={"canary": 2, "stable": 1}))
    assert models[1].place_of("policy") == f"{FILE}:11:5"
    assert models[1].place_of("labels") == f"{FILE}:17:5"
    assert models[1].place_of("max_batch_size") == f"{FILE}:7"


def test_a_relative_path_is_below_the_file() -> None:
    (only,) = parse_model_list(model("base_path: 'models/m'"), FILE).models
    assert only.base == Path("/etc/models/m")
    (only,) = parse_model_list(model("base_path: 'file:///models/m'"), FILE).models
    assert only.base == Path("/models/m")


@pytest.mark.parametrize(("text", "problem"), [
    ("model_platform: 'tensorflow'", "expected 'onnx', got 'tensorflow'; convert it: python -m tf2onnx.convert "
     "--saved-model DIRECTORY --output model.onnx; then write 'onnx' [E107]"),
    ("model_platform: ''", "model_platform: is missing, expected 'onnx'; add it [E106]"),
    ("name: ''", "name: expected a name of 1 to 128 of A-Z a-z 0-9 _ . -, got ''; add it [E106]"),
    ("name: '../m'", "got '../m'; correct the value [E103]"),
    ("base_path: ''", "base_path: is missing; write the directory that holds 1/, 2/, ... [E106]"),
    ("base_path: 's3://bucket/m'", "expected a directory of this machine, got 's3://bucket/m'; copy or mount it"),
    ("model_version_policy { specific { versions: 0 } }",
     "expected a version's number from 1, got 0; correct the value [E103]"),
    ("version_labels { key: 'stable' value: 0 }",
     "version_labels[stable]: expected a version's number from 1, got 0; correct the value [E103]"),
    ("version_labels { key: '3' value: 3 }", "expected a label of A-Z a-z 0-9 _ . - that is no number, got '3'"),
    ("base_pth: '/m'", "base_pth: is no field of ModelConfig; did you mean 'base_path'? [E102]"),
])
def test_a_model_with_an_error_is_left_out(text: str, problem: str) -> None:
    good = "model_config_list { config { name: 'good' base_path: '/g' model_platform: 'onnx' } }"
    both = good[:-1] + model(text).removeprefix("model_config_list {")
    models, problems = parse_model_list(both, FILE)
    assert [each.name for each in models] == ["good"]
    assert len(problems) == 1
    assert problem in str(problems[0])


def test_a_name_twice() -> None:
    models, problems = parse_model_list(SAMPLE.replace("second", "first"), FILE)
    assert [each.origin for each in models] == [f"{FILE}:2"]
    assert [str(each) for each in problems] == [
        f"{FILE}:7:3: model_config_list.config[1]: model 'my_first_model' is configured twice, first at {FILE}:2; "
        "rename one of them [E111]"]


def test_what_is_not_honoured_is_said_and_the_model_served() -> None:
    models, problems = parse_model_list(model("logging_config { log_collector_config { type: 'x' } }"), FILE)
    assert [each.name for each in models] == ["m"]
    assert [each.code for each in problems] == ["W101"]


@pytest.mark.parametrize(("text", "problem"), [
    ("", "model_config_list: is missing; write model_config_list { config { name: ... base_path: ... } } [E106]"),
    ("config { }", "1:1: config: is no field of ModelServerConfig; it has model_config_list [E102]"),
    ("model_config_list: {",
     "1:21: expected '}' for a message that is still open, got the end of the text; correct the text [E101]"),
])
def test_a_file_of_something_else(text: str, problem: str) -> None:
    assert problem in said(text)[0]


def test_an_empty_list_serves_nothing() -> None:
    assert parse_model_list("model_config_list { }", FILE) == ((), ())


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    assert "cannot be read: No such file" in str(read_model_list(file).problems[0])
    file.write_text(SAMPLE)
    assert len(read_model_list(file).models) == 2
