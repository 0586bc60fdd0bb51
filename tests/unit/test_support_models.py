"""The models of tests.support.models load in ONNX Runtime and do what their docstrings say."""

from __future__ import annotations

import ctypes
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.support import models

NUMPY_TYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
BUILDERS: list[Callable[..., bytes]] = [
    function
    for name, function in inspect.getmembers(models, inspect.isfunction)
    if function.__module__ == models.__name__ and not name.startswith(("_", "write_"))
]
LOADABLE = [build for build in BUILDERS if build is not models.unknown_operator]
X = np.arange(12, dtype=np.float32).reshape(3, 4)
OUT_OF_RANGE = "indices element out of data bounds"


def load(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes | str, **inputs: NDArray[Any]) -> dict[str, Any]:
    """Output name -> array (or sequence) of one run."""
    session = load(model)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def shapes(model: bytes) -> list[list[int | str | None]]:
    """The dims of each input, then of each output, as ONNX Runtime reports them."""
    session = load(model)
    return [value.shape for value in (*session.get_inputs(), *session.get_outputs())]


def values(datatype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Elements of one datatype, all different but for BOOL; BYTES hold a NUL and a character of two bytes."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        return np.array([f"r{i}\0é" for i in range(count)], np.object_).reshape(shape)
    kind = np.dtype(NUMPY_TYPES[datatype])
    if datatype == "BOOL":
        return np.array([i % 2 == 0 for i in range(count)], np.bool_).reshape(shape)
    return np.array([i * 7 + 1 for i in range(count)]).astype(kind).reshape(shape)


@pytest.mark.parametrize("build", LOADABLE, ids=lambda build: build.__name__)
def test_loads_and_is_the_same_every_time(build: Callable[[], bytes]) -> None:
    assert build() == build()
    assert load(build()).get_inputs()
    assert build.__doc__


def identity_of(datatype: str, model: bytes, x: NDArray[Any]) -> NDArray[Any]:
    """y of an identity model. BF16, which Python's feed dict cannot carry, goes through OrtValue as its bits."""
    session = load(model)
    if datatype != "BF16":
        result: NDArray[Any] = session.run(None, {"x": x})[0]
        return result
    value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(x.view(np.uint16), models.ELEMENT_TYPES["BF16"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", value)
    binding.bind_output("y", "cpu")
    session.run_with_iobinding(binding)
    (answer,) = binding.get_outputs()
    assert answer.data_type() == "tensor(bfloat16)"
    return bfloat16_array(answer)


def bfloat16_array(value: onnxruntime.OrtValue) -> NDArray[Any]:
    """The BF16 elements of a CPU tensor, copied."""
    count = int(np.prod(value.shape()))
    raw = ctypes.string_at(value.data_ptr(), count * 2) if count else b""
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(value.shape())


@pytest.mark.parametrize("datatype", models.ELEMENT_TYPES)
@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("batch", 4), (3, 4)),
        (("batch", "length"), (2, 5)),
        (("batch", 0), (2, 0)),
        (("batch", 2, 3), (2, 2, 3)),
        (("batch",), (3,)),
        ((2, 4), (2, 4)),
        ((None, 4), (3, 4)),
        ((), ()),
        (None, (2, 3)),
    ],
    ids=str,
)
def test_identity(datatype: str, dims: models.Dims | None, shape: tuple[int, ...]) -> None:
    x = values(datatype, shape)
    y = identity_of(datatype, models.identity(datatype, dims), x)
    assert y.shape == shape
    assert y.dtype == np.dtype(NUMPY_TYPES[datatype])
    assert y.tolist() == x.tolist()
    if dims is not None:
        assert shapes(models.identity(datatype, dims)) == [list(dims), list(dims)]


def test_every_identity() -> None:
    session = load(models.every_identity())
    assert [value.name for value in session.get_inputs()] == [f"in_{name.lower()}" for name in models.ELEMENT_TYPES]
    assert [value.name for value in session.get_outputs()] == [f"out_{name.lower()}" for name in models.ELEMENT_TYPES]
    assert [value.type for value in session.get_inputs()] == [value.type for value in session.get_outputs()]
    assert all(value.shape == ["batch", "length"] for value in session.get_inputs())


def test_scale_and_fixed_rows() -> None:
    assert run(models.scale(3), x=X)["y"].tolist() == (3 * X).tolist()
    assert shapes(models.fixed_rows()) == [[2, 4], [2, 4]]
    assert run(models.fixed_rows(), x=X[:2])["y"].tolist() == (2 * X[:2]).tolist()
    with pytest.raises(Exception, match="Got: 3 Expected: 2"):
        run(models.fixed_rows(), x=X)


def test_dense() -> None:
    weight = np.array([[(i - j) / 8 for j in range(3)] for i in range(4)], np.float32)
    assert run(models.dense(), x=X)["y"].tolist() == (X @ weight + np.arange(3)).tolist()


def test_add_sub() -> None:
    x = np.array([[2**40, 1, -1, 0]], np.int64)
    z = np.array([[1, 2, 2**31 - 1, -(2**31)]], np.int32)
    outputs = run(models.add_sub(), x=x, z=z)
    assert outputs["y"].tolist() == (x + z).tolist()
    assert outputs["w"].tolist() == (x - z).tolist()


def test_add_sub_int32() -> None:
    first = np.arange(16, dtype=np.int32).reshape(1, 16)
    second = np.ones((1, 16), np.int32)
    outputs = run(models.add_sub_int32(), INPUT0=first, INPUT1=second)
    assert outputs["OUTPUT0"].tolist() == (first + 1).tolist()
    assert outputs["OUTPUT1"].tolist() == (first - 1).tolist()


def test_two_in_three_out() -> None:
    z = np.array([[-1, 1], [0, 2], [3, -3]], np.float32)
    outputs = run(models.two_in_three_out(), x=X, z=z)
    assert outputs["y"].tolist() == np.concatenate([X, z], axis=1).tolist()
    assert outputs["w"].tolist() == X.sum(axis=1).tolist()
    assert outputs["v"].tolist() == (z > 0).tolist()


def test_string_join() -> None:
    x = np.array([["a\0b", ""], ["é", "c"]], np.object_)
    assert run(models.string_join(), x=x)["y"].tolist() == np.concatenate([x, x], axis=1).tolist()


def test_embedding() -> None:
    ids = np.array([[0, 9, 3], [1, 1, 1]], np.int64)
    expected = models.EMBEDDING_TABLE[ids].mean(axis=1)
    np.testing.assert_allclose(run(models.embedding(), x=ids)["y"], expected, rtol=1e-6)
    with pytest.raises(Exception, match=OUT_OF_RANGE):
        run(models.embedding(), x=np.array([[0, 10]], np.int64))


def test_gather_fails_for_the_batch_that_holds_a_bad_row() -> None:
    session = load(models.gather())
    good = np.array([[0], [9], [-1]], np.int64)
    assert session.run(None, {"x": good})[0].tolist() == models.EMBEDDING_TABLE[[0, 9, 9]].tolist()
    with pytest.raises(Exception, match=OUT_OF_RANGE):
        session.run(None, {"x": np.array([[0], [10], [1]], np.int64)})
    assert session.run(None, {"x": good})[0].shape == (3, 4)


def test_slow_takes_time_in_proportion_to_its_largest_row() -> None:
    session = load(models.slow())

    def seconds(*rows: int) -> float:
        x = np.array(rows, np.int64).reshape(-1, 1)
        started = time.perf_counter()
        assert session.run(None, {"x": x})[0].tolist() == x.tolist()
        return time.perf_counter() - started

    seconds(1, 0, -5)
    short = min(seconds(10, 3) for _ in range(5))
    long = min(seconds(3, 2000) for _ in range(3))
    assert long > 20 * short
    assert 0.005 < long < 2.0


def test_slow_is_bounded() -> None:
    x = np.array([[2**62]], np.int64)
    assert run(models.slow(most=3), x=x)["y"].tolist() == x.tolist()


def test_batch_mean_subtracted_mixes_rows() -> None:
    model = models.batch_mean_subtracted()
    assert shapes(model) == [["batch", 4], ["batch", 4]]
    assert run(model, x=X)["y"].tolist() == (X - X.mean(axis=0)).tolist()
    assert run(model, x=X[1:2])["y"].tolist() == [[0.0] * 4]


def test_row_numbers_depend_on_the_place() -> None:
    x = np.full((3, 1), 5, np.int64)
    assert shapes(models.row_numbers()) == [["batch", 1], ["batch", 1]]
    assert run(models.row_numbers(), x=x)["y"].tolist() == [[5], [6], [7]]
    assert run(models.row_numbers(), x=x[:1])["y"].tolist() == [[5]]


def test_two_first_dims() -> None:
    outputs = run(models.two_first_dims(), x=X, z=X[:2])
    assert outputs["y"].tolist() == X.tolist()
    assert outputs["w"].tolist() == X[:2].tolist()
    assert [dims[0] for dims in shapes(models.two_first_dims())] == ["batch", "rows", "batch", "rows"]


def test_mixed_first_dims() -> None:
    assert run(models.mixed_first_dims(), x=X, z=X[1:2])["y"].tolist() == (X * X[1]).tolist()
    assert [dims[0] for dims in shapes(models.mixed_first_dims())] == ["batch", 1, "batch"]


def test_outputs_with_another_number_of_rows() -> None:
    assert shapes(models.doubled_rows()) == [["batch", 4], ["batch", 4]]
    assert run(models.doubled_rows(), x=X)["y"].tolist() == [*X.tolist(), *X.tolist()]
    assert shapes(models.summed_rows()) == [["batch", 4], [1, 4]]
    assert run(models.summed_rows(), x=X)["y"].tolist() == [X.sum(axis=0).tolist()]
    assert shapes(models.positive_rows()) == [["batch", 4], ["batch", 4]]
    assert run(models.positive_rows(), x=X)["y"].tolist() == X[1:].tolist()
    assert run(models.positive_rows(), x=-X)["y"].shape == (0, 4)


def test_nonzero() -> None:
    x = np.array([[0, 1, 0, 2]], np.float32)
    assert shapes(models.nonzero()) == [["batch", 4], [2, "count"]]
    assert run(models.nonzero(), x=x)["y"].tolist() == [[0, 0], [1, 3]]
    assert run(models.nonzero(), x=0 * x)["y"].shape == (2, 0)


@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2)], ids=str)
def test_reshape_answers_in_any_rank(shape: tuple[int, ...]) -> None:
    outputs = run(models.reshape(), x=X.ravel(), z=np.array(shape, np.int64))
    assert outputs["y"].tolist() == X.reshape(shape).tolist()


def test_scalar() -> None:
    assert shapes(models.scalar()) == [[], []]
    y = run(models.scalar(), x=np.array(2, np.float32))["y"]
    assert y.shape == ()
    assert y == 3


def test_empty_columns() -> None:
    outputs = run(models.empty_columns(), x=np.zeros((2, 0), np.float32), z=X[:2, :3])
    assert outputs["y"].tolist() == X[:2, :3].tolist()


def test_zipmap_has_an_output_that_is_no_tensor() -> None:
    model = models.zipmap()
    assert [output.type for output in load(model).get_outputs()] == [
        "tensor(int64)",
        "tensor(float)",
        "seq(map(int64,tensor(float)))",
    ]
    outputs = run(model, x=np.array([[0, 5, 1], [3, 2, 1]], np.float32))
    assert outputs["label"].tolist() == [1, 0]
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, rtol=1e-6)
    assert [[row[label] for label in range(3)] for row in outputs["scores"]] == outputs["probabilities"].tolist()


def test_sequences() -> None:
    outputs = run(models.sequence(), x=X)
    assert outputs["y"].tolist() == (2 * X).tolist()
    assert [item.tolist() for item in outputs["w"]] == [X.tolist(), (2 * X).tolist()]
    assert [output.type for output in load(models.sequence()).get_outputs()] == ["tensor(float)", "seq(tensor(float))"]
    assert [output.type for output in load(models.sequence_only()).get_outputs()] == ["seq(tensor(float))"]
    assert len(run(models.sequence_only(), x=X)["y"]) == 2


def test_unknown_operator_does_not_load() -> None:
    with pytest.raises(Exception, match="NoSuchOperator"):
        load(models.unknown_operator())


def test_external_data(tmp_path: Path) -> None:
    path = models.write_external_data_model(tmp_path / "m" / "1" / "model.onnx")
    data = path.with_name("model.onnx.data")
    assert data.stat().st_size >= 60
    assert run(str(path), x=X)["y"].tolist() == run(models.dense(), x=X)["y"].tolist()
    data.unlink()
    with pytest.raises(Exception, match=r"model\.onnx\.data"):
        load(str(path))


def test_write_version(tmp_path: Path) -> None:
    path = models.write_version(tmp_path, "m", 3, models.dense())
    assert path == tmp_path / "m" / "3" / "model.onnx"
    assert path.read_bytes() == models.dense()
