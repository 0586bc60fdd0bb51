"""MLmodel as MLflow writes it, and what is refused of it."""

import json
from pathlib import Path

import pytest

from infer.models.mlflow import BYTES_MOST, parse_mlmodel, read_mlmodel

INPUTS = json.dumps([{"type": "tensor", "name": "it's x", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}])

MLMODEL = """\
artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_session_options: null
    onnx_version: 1.15.0
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    data: other.onnx
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.onnx
metadata:
  note: |
    flavors: none of this
      run_id: 5
mlflow_version: 2.9.2
model_uuid: 5ad41a9d0d3b4b1d
run_id: 8f3bc1
signature:
  inputs: '[{"type": "tensor", "name": "it''s x", "tensor-spec": {"dtype": "float32",
    "shape": [-1, 4]}}]'
  outputs: "[{\\"type\\": \\"tensor\\", \\"tensor-spec\\": {\\"dtype\\":\\
    \\ \\"float32\\"}}]"
  params: null
utc_time_created: '2023-12-01 10:11:12.123456'
"""


def test_what_mlflow_writes() -> None:
    model, problem = parse_mlmodel(MLMODEL, "MLmodel")
    assert problem is None
    assert model is not None
    assert (model.data, model.run_id, model.model_uuid, model.version) == (
        "model.onnx", "8f3bc1", "5ad41a9d0d3b4b1d", "2.9.2")
    assert model.created == "2023-12-01 10:11:12.123456"
    assert json.loads(model.inputs) == json.loads(INPUTS)
    assert json.loads(model.outputs) == [{"type": "tensor", "tensor-spec": {"dtype": "float32"}}]


def test_the_least() -> None:
    model, _ = parse_mlmodel("flavors:\n  onnx:\n    data: m.onnx\n", "MLmodel")
    assert model is not None
    assert (model.data, model.run_id, model.inputs) == ("m.onnx", "", "")


@pytest.mark.parametrize(("text", "said"), [
    ("", "MLmodel:1: flavors: expected the flavor onnx, got none"),
    ("run_id: 5\n", "expected the flavor onnx, got none"),
    ("flavors:\n  sklearn:\n    data: x\n  python_function:\n    data: x\n",
     "MLmodel:1: flavors: expected the flavor onnx, got sklearn, python_function; log the model with mlflow.onnx"),
    ("flavors:\n  onnx:\n    code: null\n", "MLmodel:2: flavors.onnx.data: expected the name of the model's file"),
    ("flavors: {onnx: {data: m.onnx}}\n", "got {onnx: {data: m.onnx}}"),
    ("flavors:\n  onnx: &a\n    data: m.onnx\n", "MLmodel:2"),
    ("flavors:\n  onnx:\n    data: |\n      m.onnx\n", "MLmodel:3: data: expected as MLflow writes it, got | m.onnx"),
    ("flavors:\n  onnx:\n    data: [m.onnx]\n", "MLmodel:3: data: "),
    ("flavors:\n  onnx:\n    data: *x\n", "got *x"),
    ("flavors:\n  onnx:\n    data: 'm.onnx\n", "got 'm.onnx"),
    ("flavors:\n  onnx:\n    data:\n      a: b\n", "MLmodel:3: data: "),
    ("flavors:\n  onnx:\n    data: m.onnx\nsignature:\n  inputs: '[not json'\n", "MLmodel:5: signature.inputs: "),
    ("flavors:\n  onnx:\n    data: m.onnx\nrun_id: !!int 5\n", "MLmodel:4: run_id: "),
    ("\tflavors:\n", "MLmodel:1"),
])
def test_what_is_refused(text: str, said: str) -> None:
    model, problem = parse_mlmodel(text, "MLmodel")
    assert model is None
    assert problem is not None
    assert said in str(problem)
    assert problem.code == "E213"


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "MLmodel"
    path.write_bytes(b"x" * (BYTES_MOST + 1))
    model, problem = read_mlmodel(path)
    assert model is None
    assert f"at most {BYTES_MOST} bytes" in str(problem)
