"""The example models are what their script builds, and predict what scikit-learn predicts."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "models"
INPUTS = {"digits": ("image", 64, 10), "trees": ("features", 30, 2)}
"""Model -> its input, the input's columns, the classes."""


def other_versions() -> list[str]:
    """One line for each package that is not installed here in the version that built the committed files."""
    lines = []
    for package, recorded in json.loads((EXAMPLES / "versions.json").read_text()).items():
        try:
            installed = version(package)
        except PackageNotFoundError:
            installed = "not installed"
        if installed != recorded:
            lines.append(f"{package}: {installed} here, {recorded} in versions.json")
    return lines


def load(name: str) -> tuple[onnxruntime.InferenceSession, dict[str, NDArray[Any]]]:
    """The session of a model, and its held-out sample."""
    session = onnxruntime.InferenceSession(
        str(EXAMPLES / name / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    with np.load(EXAMPLES / name / "sample.npz", allow_pickle=False) as sample:
        return session, dict(sample)


def test_rebuild_is_byte_identical() -> None:
    if differing := other_versions():
        pytest.skip("byte identity holds for the recorded versions only; " + "; ".join(differing))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "build.py", "--check"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", INPUTS)
def test_names_datatypes_and_shapes(name: str) -> None:
    session, sample = load(name)
    input_name, columns, classes = INPUTS[name]
    assert [(value.name, value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())] == [
        (input_name, "tensor(float)", ["batch", columns]),
        ("label", "tensor(int64)", ["batch"]),
        ("probabilities", "tensor(float)", ["batch", classes]),
    ]
    rows = len(sample["truth.label"])
    assert {key: (value.dtype.kind, value.itemsize, value.shape) for key, value in sample.items() if "." in key} == {
        f"input.{input_name}": ("f", 4, (rows, columns)),
        "truth.label": ("i", 8, (rows,)),
        "expected.label": ("i", 8, (rows,)),
        "expected.probabilities": ("f", 4, (rows, classes)),
    }
    assert sample["classes"].shape == (classes,)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("rows_at_once", [1, 7, None])
def test_predictions_equal_scikit_learns(name: str, rows_at_once: int | None) -> None:
    session, sample = load(name)
    x = sample[f"input.{INPUTS[name][0]}"]
    step = rows_at_once or len(x)
    parts = [session.run(None, {INPUTS[name][0]: x[start : start + step]}) for start in range(0, len(x), step)]
    label, probabilities = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    np.testing.assert_array_equal(label, sample["expected.label"])
    # `trees` computes 1 - p in FP32, which is off by up to half a unit in the last place of 1.
    np.testing.assert_allclose(probabilities, sample["expected.probabilities"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "least"), [("digits", 0.96), ("trees", 0.94)])
def test_accuracy_on_the_held_out_sample(name: str, least: float) -> None:
    _, sample = load(name)
    assert np.mean(sample["expected.label"] == sample["truth.label"]) >= least
