"""Trains the example models and writes them with their held-out samples.

    python examples/models/build.py            # rebuild what is committed
    python examples/models/build.py --check    # rebuild beside it and compare byte for byte

The directory is a model repository, `<name>/<version>/model.onnx`:

digits  handwritten digits, 8x8 grey (sklearn.datasets.load_digits); scaling and a perceptron 64-128-10
        image FP32 [batch, 64], raw pixels 0..16 -> label INT64 [batch], probabilities FP32 [batch, 10]
trees   breast-cancer diagnosis (sklearn.datasets.load_breast_cancer); 100 gradient-boosted trees
        features FP32 [batch, 30] -> label INT64 [batch], probabilities FP32 [batch, 2]

`<name>/sample.npz` holds every row that training did not see (30%, stratified), uncompressed and without pickles:

input.<input>      what the model is sent, FP32
truth.label        the data set's own labels, INT64 [rows]
expected.<output>  scikit-learn's predictions for exactly those inputs: label INT64, probabilities FP32
classes            the name of each label, unicode [classes]

Training runs on one thread, in FP64 and from fixed seeds. The perceptron's weights are then rounded to multiples of
2**-12, which absorbs the last-bit differences between the BLAS kernels of different processors. A tree's thresholds are
rounded down to FP32, which leaves every decision on FP32 features as it was.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent
VERSIONS_FILE = "versions.json"
PACKAGES = ("numpy", "onnx", "scikit-learn", "scipy", "skl2onnx")
HELD_OUT = 0.3
SEED = 20
WEIGHT_STEP = 2.0**-12
OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8


def build(into: Path) -> None:
    """Writes every file of the repository that this script makes under `into`."""
    files = {VERSIONS_FILE: (json.dumps(installed_versions(), indent=2) + "\n").encode()}
    with threadpool_limits(limits=1):
        files["digits/1/model.onnx"], files["digits/sample.npz"] = build_digits()
        files["trees/1/model.onnx"], files["trees/sample.npz"] = build_trees()
    for name, content in files.items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def installed_versions() -> dict[str, str]:
    """The packages that decide the bytes of the models, with the versions installed here."""
    return {package: version(package) for package in PACKAGES}


def build_digits() -> tuple[bytes, bytes]:
    """The model and the sample of `digits`."""
    data = load_digits()
    train_x, test_x, train_y, test_y = split(data.data, data.target)
    classifier = MLPClassifier((128,), alpha=0.05, batch_size=64, max_iter=60, tol=0, random_state=SEED)
    # Divides each pixel by its largest value in training; one that is never inked, by 1.
    pipeline = make_pipeline(MaxAbsScaler(), classifier)
    with warnings.catch_warnings():
        # The number of epochs is fixed, so training always ends "without converging".
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(train_x.astype(np.float64), train_y)
    for parameters in (*classifier.coefs_, *classifier.intercepts_):
        parameters[...] = np.round(parameters / WEIGHT_STEP) * WEIGHT_STEP + 0.0
    classes = [str(name) for name in data.target_names]
    model = export(pipeline, "digits", "image", train_x.shape[1], len(classes))
    return model, sample(pipeline, "image", test_x, test_y, classes)


def build_trees() -> tuple[bytes, bytes]:
    """The model and the sample of `trees`."""
    data = load_breast_cancer()
    train_x, test_x, train_y, test_y = split(data.data, data.target)
    classifier = GradientBoostingClassifier(n_estimators=100, max_depth=3, subsample=0.5, random_state=SEED)
    classifier.fit(train_x, train_y)
    for regressor in classifier.estimators_.ravel():
        threshold = regressor.tree_.threshold
        threshold[...] = round_down_to_float32(threshold)
    classes = [str(name) for name in data.target_names]
    model = export(classifier, "trees", "features", train_x.shape[1], len(classes))
    return model, sample(classifier, "features", test_x, test_y, classes)


def split(
    x: NDArray[Any], y: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Training and held-out inputs (FP32 [rows, columns]), then training and held-out labels (INT64 [rows])."""
    parts = train_test_split(
        x.astype(np.float32), y.astype(np.int64), test_size=HELD_OUT, stratify=y, random_state=SEED
    )
    return parts[0], parts[1], parts[2], parts[3]


def round_down_to_float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest FP32 value not above each value, so that `x <= value` is unchanged for every FP32 `x`."""
    nearest = values.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > values, below, nearest).astype(np.float64)


def export(estimator: Any, name: str, input_name: str, columns: int, classes: int) -> bytes:
    """The estimator as ONNX: `input_name` FP32 [batch, columns] -> label [batch], probabilities [batch, classes]."""
    model = convert_sklearn(
        estimator,
        name=name,
        initial_types=[(input_name, FloatTensorType([None, columns]))],
        options={"zipmap": False},
        target_opset=OPSETS,
    )
    model.ir_version = IR_VERSION
    model.doc_string = ""
    # skl2onnx lists them in the order of a set of strings, which changes from process to process.
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    outputs = {value.name: value for value in model.graph.output}
    if outputs["probabilities"].type.tensor_type.shape.dim[1].dim_value != classes:
        raise ValueError(f"{name}: probabilities are not [batch, {classes}]")
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def sample(
    estimator: Any, input_name: str, x: NDArray[np.float32], truth: NDArray[np.int64], classes: list[str]
) -> bytes:
    """The held-out rows as an .npz file, described in the module's docstring."""
    file = io.BytesIO()
    np.savez(
        file,
        allow_pickle=False,
        **{
            f"input.{input_name}": x,
            "truth.label": truth,
            "expected.label": estimator.predict(x).astype(np.int64),
            "expected.probabilities": estimator.predict_proba(x).astype(np.float32),
            "classes": np.array(classes),
        },
    )
    return file.getvalue()


def differences(committed: Path, rebuilt: Path) -> list[str]:
    """One line for each file under `rebuilt` whose committed bytes are not the same."""
    problems = []
    for path in sorted(path for path in rebuilt.rglob("*") if path.is_file()):
        name = path.relative_to(rebuilt)
        if not (committed / name).is_file():
            problems.append(f"{name}: missing; run this script without --check")
        elif (committed / name).read_bytes() != path.read_bytes():
            problems.append(f"{name}: the committed file differs from what this script builds")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the example models.")
    parser.add_argument("--check", action="store_true", help="compare a rebuild with what is committed")
    if not parser.parse_args().check:
        build(HERE)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        build(Path(directory))
        problems = differences(HERE, Path(directory))
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("examples/models: byte-identical")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
