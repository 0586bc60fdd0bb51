"""Which platforms and backends are served, and how a model of another one becomes ONNX. Pure; any thread."""

from __future__ import annotations

from collections.abc import Sequence

from infer.models.problems import nearest

# As Triton names a platform, as it names a backend, and what is written for TensorFlow Serving's model_platform.
PLATFORMS = ("onnxruntime_onnx", "onnx", "onnxruntime")
BACKENDS = ("onnxruntime",)

_CONVERSIONS = {
    "tensorflow": "convert it: python -m tf2onnx.convert --saved-model DIRECTORY --output model.onnx",
    "pytorch": "export it: torch.onnx.export(model, example, 'model.onnx', dynamo=True)",
    "tensorrt": "serve the ONNX model that the plan was built from, with provider tensorrt",
    "openvino": "serve the ONNX model that it was converted from, with provider openvino",
    "fil": "convert it with onnxmltools or skl2onnx",
    "ensemble": "call its models one after the other, or join them with onnx.compose.merge_models",
    "python": "export what it computes to ONNX",
    "dali": "export what it computes to ONNX",
}
_KINDS = {"tensorflow_savedmodel": "tensorflow", "tensorflow_graphdef": "tensorflow", "tf": "tensorflow",
          "pytorch_libtorch": "pytorch", "torch": "pytorch", "libtorch": "pytorch", "tensorrt_plan": "tensorrt"}


def is_served(platform: str, names: Sequence[str]) -> bool:
    return platform in names


def platform_advice(platform: str, names: Sequence[str]) -> str:
    """What to do about a platform that is none of `names`."""
    kind = _KINDS.get(platform.lower(), platform.lower())
    if kind in _CONVERSIONS:
        return f"{_CONVERSIONS[kind]}; then write {names[0]!r}"
    near = nearest(platform, names)
    return f"did you mean {near!r}?" if near else f"export the model to ONNX and write {names[0]!r}"
