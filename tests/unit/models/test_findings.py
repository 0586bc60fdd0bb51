"""What is said of a model that the runtime refuses, serves in part or does not batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from infer._core.onnx_facts import onnx_facts
from infer._core.ort_session import OrtSession
from infer.errors import ModelLoadError
from infer.models.findings import left_out, not_batched, refusal, refusal_fix
from tests.support import models
from tests.support.engine import runtime
from tests.support.models import write_version

NO_TENSOR = "none of the model's outputs is a tensor: y (SEQUENCE); export it with tensor outputs"
UPGRADE = "upgrade onnxruntime, or export the model again with operators and an opset that it has"


@pytest.mark.parametrize(("message", "fix"), [
    ("ONNX Runtime 1.2.3 cannot load it: Error No Op registered for A with domain_version of 17", UPGRADE),
    ("ONNX Runtime 1.2.3 cannot load it: Unsupported model IR version: 99", UPGRADE),
    ("ONNX Runtime 1.2.3 cannot load it: Type Error", "export the model again"),
    (NO_TENSOR, ""), ("there is no CUDA device", "")])
def test_what_to_do_about_an_error(message: str, fix: str) -> None:
    assert refusal_fix(message) == fix


@pytest.mark.parametrize(("message", "text"), [
    ("ONNX Runtime 1.2.3 cannot load it: No Op registered",
     f"m: ONNX Runtime 1.2.3 cannot load it: No Op registered; {UPGRADE} [E306]"),
    ("ONNX Runtime 1.2.3 cannot load it: x; y",
     "m: ONNX Runtime 1.2.3 cannot load it: x; y; export the model again [E307]"),
    (NO_TENSOR, f"m: output: {NO_TENSOR} [E309]"),
    ("the model has 200 outputs", "m: the model has 200 outputs; export the model again [E307]")])
def test_an_error_as_a_problem(message: str, text: str) -> None:
    assert str(refusal("m", message)) == text


def test_an_error_is_cut() -> None:
    cause = refusal("m", "ONNX Runtime 1.2.3 cannot load it: " + "x" * 5000).cause
    assert cause.endswith("x...")
    assert len(cause) < 1000


def test_every_refusal_of_the_runtime_is_known(tmp_path: Path) -> None:
    """The words are the runtime's and our own session's: a version of either that words them anew fails here."""
    for number, model in enumerate((models.unknown_operator(), models.sequence_only(), b"\x08\x08"), 1):
        with pytest.raises(ModelLoadError) as caught:
            OrtSession(runtime(), write_version(tmp_path, "m", number, model))
        assert refusal("m", caught.value.message).code == ("E306", "E309", "E307")[number - 1]


@pytest.mark.parametrize(("model", "fix"), [
    (models.zipmap(), "convert the model with options={'zipmap': False}"),
    (models.sequence(), "export it with tensors alone")])
def test_outputs_that_are_left_out(tmp_path: Path, model: bytes, fix: str) -> None:
    session = OrtSession(runtime(), write_version(tmp_path, "m", 1, model))
    (problem,) = left_out("m", onnx_facts(model), session.outputs)
    assert (problem.code, problem.fix, problem.is_error) == ("W301", fix, False)
    assert not list(left_out("m", None, session.outputs))
    assert not list(left_out("m", onnx_facts(models.dense()), ()))


def test_not_batched() -> None:
    text = str(not_batched("m", "input 'x' has no dimensions"))
    assert text.startswith("m: is not batched: input 'x' has no dimensions; export the model with one name")
