"""Small ONNX models for the tests, each made by one function that returns the file's bytes.

The first input is `x`, the second `z`; the first output is `y`, further ones `w` and `v`. A model that stands for
something that people export keeps the names they would see, and says so. In a shape an int is a fixed dim, a name a
symbolic one (`batch` where it counts rows), None a dynamic one without a name. Nothing here is random.

`write_model` and `write_version` put the bytes where a server finds them; `write_external_data_model` writes its two
files itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8

Dims = Sequence[int | str | None]

ELEMENT_TYPES: dict[str, int] = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
"""Every datatype of the protocol, by its name there, with ONNX's element type."""

EMBEDDING_TABLE: NDArray[np.float32] = np.arange(40, dtype=np.float32).reshape(10, 4)
"""The table of `gather` and `embedding`: 10 rows of 4; row i holds 4i, 4i+1, 4i+2, 4i+3."""


def write_model(path: Path, model: bytes) -> Path:
    """Writes a bare model file, making the directories above it, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model)
    return path


def write_version(repository: Path, name: str, version: int, model: bytes) -> Path:
    """Writes `repository/<name>/<version>/model.onnx` and returns its path."""
    return write_model(repository / name / str(version) / "model.onnx", model)


# ---- rows that do not depend on one another -------------------------------------------------------------------------


def identity(datatype: str = "FP32", dims: Dims | None = ("batch", 4)) -> bytes:
    """y = x, both of one datatype and shape.

    `dims` as in the module's docstring: `()` is 0-d, `("batch", 0)` holds no elements, `("batch", "length")` has a
    dynamic second dim, `(2, 4)` a fixed first one, `(None, 4)` an unnamed one, and `None` leaves the rank unknown.
    """
    element = ELEMENT_TYPES[datatype]
    return _model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [_tensor("x", element, dims)],
        [_tensor("y", element, dims)],
        checked=dims is not None,
    )


def every_identity() -> bytes:
    """One identity per datatype in one model: input `in_<datatype>` [batch, length] -> output `out_<datatype>`.

    The names are lower case: in_bool, in_int8, ..., in_bytes, in the order of ELEMENT_TYPES.
    """
    nodes, inputs, outputs = [], [], []
    for datatype, element in ELEMENT_TYPES.items():
        x, y = f"in_{datatype.lower()}", f"out_{datatype.lower()}"
        nodes.append(helper.make_node("Identity", [x], [y]))
        inputs.append(_tensor(x, element, ("batch", "length")))
        outputs.append(_tensor(y, element, ("batch", "length")))
    return _model(nodes, inputs, outputs)


def scale(factor: float = 2.0, dims: Dims = ("batch", 4)) -> bytes:
    """y = factor * x; FP32. Two factors make two versions that can be told apart by what they answer."""
    return _model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, dims)],
        [_tensor("y", TensorProto.FLOAT, dims)],
        [_constant("factor", np.array(factor, np.float32))],
    )


def dense() -> bytes:
    """y = x @ W + b with W[i, j] = (i - j) / 8 and b[j] = j; x FP32 [batch, 4] -> y FP32 [batch, 3]."""
    rows, columns = np.indices((4, 3))
    return _model(
        [helper.make_node("Gemm", ["x", "weight", "bias"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 3))],
        [
            _constant("weight", ((rows - columns) / 8).astype(np.float32)),
            _constant("bias", np.arange(3, dtype=np.float32)),
        ],
    )


def add_sub() -> bytes:
    """y = x + z, w = x - z; x INT64 [batch, 4], z INT32 [batch, 4], y and w INT64 [batch, 4]."""
    dims = ("batch", 4)
    return _model(
        [
            helper.make_node("Cast", ["z"], ["z64"], to=TensorProto.INT64),
            helper.make_node("Add", ["x", "z64"], ["y"]),
            helper.make_node("Sub", ["x", "z64"], ["w"]),
        ],
        [_tensor("x", TensorProto.INT64, dims), _tensor("z", TensorProto.INT32, dims)],
        [_tensor("y", TensorProto.INT64, dims), _tensor("w", TensorProto.INT64, dims)],
    )


def add_sub_int32(dims: Dims = ("batch", 16)) -> bytes:
    """Triton's "simple": INPUT0, INPUT1 INT32 [batch, 16] -> OUTPUT0 = their sum, OUTPUT1 = their difference."""
    return _model(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [_tensor(name, TensorProto.INT32, dims) for name in ("INPUT0", "INPUT1")],
        [_tensor(name, TensorProto.INT32, dims) for name in ("OUTPUT0", "OUTPUT1")],
    )


def two_in_three_out() -> bytes:
    """y = [x, z] by columns, w = the sum of x over its columns, v = z > 0.

    x FP32 [batch, 4], z FP32 [batch, 2] -> y FP32 [batch, 6], w FP32 [batch], v BOOL [batch, 2].
    """
    return _model(
        [
            helper.make_node("Concat", ["x", "z"], ["y"], axis=1),
            helper.make_node("ReduceSum", ["x", "columns"], ["w"], keepdims=0),
            helper.make_node("Greater", ["z", "zero"], ["v"]),
        ],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4)), _tensor("z", TensorProto.FLOAT, ("batch", 2))],
        [
            _tensor("y", TensorProto.FLOAT, ("batch", 6)),
            _tensor("w", TensorProto.FLOAT, ("batch",)),
            _tensor("v", TensorProto.BOOL, ("batch", 2)),
        ],
        [_constant("columns", np.array([1], np.int64)), _constant("zero", np.array(0, np.float32))],
    )


def string_join() -> bytes:
    """y = [x, x] by columns, byte for byte; x BYTES [batch, 2] -> y BYTES [batch, 4]."""
    return _model(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=1)],
        [_tensor("x", TensorProto.STRING, ("batch", 2))],
        [_tensor("y", TensorProto.STRING, ("batch", 4))],
    )


def embedding() -> bytes:
    """Mean of the table's rows that a row's ids name; x INT64 [batch, length] -> y FP32 [batch, 4].

    The table is EMBEDDING_TABLE; an id outside -10..9 fails the whole run. Requests of different lengths
    do not share a batch.
    """
    return _model(
        [
            helper.make_node("Gather", ["table", "x"], ["rows"], axis=0),
            helper.make_node("ReduceMean", ["rows"], ["y"], axes=[1], keepdims=0),
        ],
        [_tensor("x", TensorProto.INT64, ("batch", "length"))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 4))],
        [_constant("table", EMBEDDING_TABLE)],
    )


def gather() -> bytes:
    """One row of EMBEDDING_TABLE per row; x INT64 [batch, 1] -> y FP32 [batch, 4].

    An id outside -10..9 in any row fails the whole run, although the other rows are good.
    """
    return _model(
        [
            helper.make_node("Squeeze", ["x", "columns"], ["ids"]),
            helper.make_node("Gather", ["table", "ids"], ["y"], axis=0),
        ],
        [_tensor("x", TensorProto.INT64, ("batch", 1))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 4))],
        [_constant("columns", np.array([1], np.int64)), _constant("table", EMBEDDING_TABLE)],
    )


def slow(most: int = 20_000) -> bytes:
    """y = x after busy work of max(x) steps; x INT64 [batch, 1] -> y INT64 [batch, 1].

    A step is a product of two 128x128 FP32 matrices: 10 to 25 us on one core, so 1,000 steps hold an executor for 10 to
    25 ms. The batch takes as long as its largest row; rows below 1 take no time. More than `most` steps are not taken,
    whatever a row says.
    """
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "unit"], ["next_state"]),
            helper.make_node("Identity", ["going"], ["still_going"]),
        ],
        "step",
        [
            _tensor("step", TensorProto.INT64, ()),
            _tensor("going", TensorProto.BOOL, ()),
            _tensor("state", TensorProto.FLOAT, (128, 128)),
        ],
        [_tensor("still_going", TensorProto.BOOL, ()), _tensor("next_state", TensorProto.FLOAT, (128, 128))],
    )
    # The state stays all ones, so that what is added to x is 0; ONNX Runtime cannot know, and keeps the loop.
    return _model(
        [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Min", ["largest", "most"], ["at_most"]),
            helper.make_node("Max", ["at_most", "none"], ["steps"]),
            helper.make_node("Loop", ["steps", "", "ones"], ["end_state"], body=body),
            helper.make_node("ReduceMax", ["end_state"], ["one"], keepdims=0),
            helper.make_node("Cast", ["one"], ["one64"], to=TensorProto.INT64),
            helper.make_node("Mul", ["x", "one64"], ["y"]),
        ],
        [_tensor("x", TensorProto.INT64, ("batch", 1))],
        [_tensor("y", TensorProto.INT64, ("batch", 1))],
        [
            _constant("most", np.array(most, np.int64)),
            _constant("none", np.array(0, np.int64)),
            _constant("ones", np.ones((128, 128), np.float32)),
            _constant("unit", np.eye(128, dtype=np.float32)),
        ],
    )


FRAGILE = 666.0
"""What breaks a run of `fragile` where it stands in a row's first column."""


def fragile(factor: float = 2.0) -> bytes:
    """y = factor * x; FP32 [batch, 4]. A run with FRAGILE in a first column fails inside the model: INTERNAL."""
    dims = ("batch", 4)
    return _model(
        [
            helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
            helper.make_node("ReduceMax", ["column"], ["largest"], keepdims=0),
            helper.make_node("Equal", ["largest", "fragile"], ["broken"]),
            helper.make_node("Where", ["broken", "impossible", "rows"], ["shape"]),
            helper.make_node("Mul", ["x", "factor"], ["product"]),
            helper.make_node("Reshape", ["product", "shape"], ["y"]),
        ],
        [_tensor("x", TensorProto.FLOAT, dims)],
        [_tensor("y", TensorProto.FLOAT, dims)],
        [
            _constant("first", np.array(0, np.int64)),
            _constant("fragile", np.array(FRAGILE, np.float32)),
            _constant("impossible", np.array([1_000_003, 1_000_003], np.int64)),
            _constant("rows", np.array([-1, 4], np.int64)),
            _constant("factor", np.array(factor, np.float32)),
        ],
    )


# ---- models that must not be batched --------------------------------------------------------------------------------


def batch_mean_subtracted() -> bytes:
    """y = x - the mean of x over its rows; FP32 [batch, 4]. Its dims look batchable, but rows change one another."""
    dims = ("batch", 4)
    return _model(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        [_tensor("x", TensorProto.FLOAT, dims)],
        [_tensor("y", TensorProto.FLOAT, dims)],
    )


def row_numbers() -> bytes:
    """y = x + the row's place in the batch; INT64 [batch, 1]. A row alone and a row at place 0 agree."""
    return _model(
        [
            helper.make_node("Shape", ["x"], ["count"], start=0, end=1),
            helper.make_node("Squeeze", ["count"], ["rows"]),
            helper.make_node("Range", ["zero", "rows", "one"], ["places"]),
            helper.make_node("Unsqueeze", ["places", "columns"], ["column"]),
            helper.make_node("Add", ["x", "column"], ["y"]),
        ],
        [_tensor("x", TensorProto.INT64, ("batch", 1))],
        [_tensor("y", TensorProto.INT64, ("batch", 1))],
        [
            _constant("zero", np.array(0, np.int64)),
            _constant("one", np.array(1, np.int64)),
            _constant("columns", np.array([1], np.int64)),
        ],
    )


def two_first_dims() -> bytes:
    """y = x, w = z; x, y FP32 [batch, 4], z, w FP32 [rows, 4]: the first dims carry different names."""
    return _model(
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["z"], ["w"])],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4)), _tensor("z", TensorProto.FLOAT, ("rows", 4))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 4)), _tensor("w", TensorProto.FLOAT, ("rows", 4))],
    )


def mixed_first_dims() -> bytes:
    """y = x * z; x, y FP32 [batch, 4], z FP32 [1, 4]: one input is batched and the other is not."""
    return _model(
        [helper.make_node("Mul", ["x", "z"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4)), _tensor("z", TensorProto.FLOAT, (1, 4))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 4))],
    )


def fixed_rows() -> bytes:
    """y = 2 * x; FP32 [2, 4], no dynamic dim at all."""
    return scale(2.0, (2, 4))


def doubled_rows() -> bytes:
    """y = the rows of x twice over; x FP32 [batch, 4], y claims FP32 [batch, 4] and has twice as many rows."""
    return _model(
        [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 4))],
    )


def summed_rows() -> bytes:
    """y = the sum of x over its rows; x FP32 [batch, 4], y claims FP32 [batch, 4] and always has one row.

    ONNX Runtime sees through the claim and reports y as [1, 4]. With one row in, y = x.
    """
    return _model(
        [helper.make_node("ReduceSum", ["x", "rows"], ["y"], keepdims=1)],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 4))],
        [_constant("rows", np.array([0], np.int64))],
    )


def positive_rows() -> bytes:
    """y = the rows of x whose first column is positive; x FP32 [batch, 4], y claims FP32 [batch, 4]: 0..batch rows."""
    return _model(
        [
            helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
            helper.make_node("Greater", ["column", "zero"], ["positive"]),
            helper.make_node("Compress", ["x", "positive"], ["y"], axis=0),
        ],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 4))],
        [_constant("first", np.array(0, np.int64)), _constant("zero", np.array(0, np.float32))],
    )


def cut_to_largest() -> bytes:
    """y = the first columns of x, as many as x's largest value; INT64 [batch, 4] -> [batch, "count"]. Rows change the
    size of one another's."""
    return _model(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Unsqueeze", ["most", "zero"], ["ends"]),
            helper.make_node("Slice", ["x", "zero", "ends", "one"], ["y"]),
        ],
        [_tensor("x", TensorProto.INT64, ("batch", 4))],
        [_tensor("y", TensorProto.INT64, ("batch", "count"))],
        [_constant("zero", np.array([0], np.int64)), _constant("one", np.array([1], np.int64))],
    )


def nonzero() -> bytes:
    """y = the indices of x's non-zero elements; x FP32 [batch, 4] -> y INT64 [2, count], known only after the run."""
    return _model(
        [helper.make_node("NonZero", ["x"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4))],
        [_tensor("y", TensorProto.INT64, (2, "count"))],
    )


def reshape() -> bytes:
    """y = x in the shape that z says; x FP32 [count], z INT64 [rank], y FP32 of unknown rank."""
    return _model(
        [helper.make_node("Reshape", ["x", "z"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, ("count",)), _tensor("z", TensorProto.INT64, ("rank",))],
        [_tensor("y", TensorProto.FLOAT, None)],
        checked=False,
    )


def scalar() -> bytes:
    """y = x + 1; FP32, both 0-d."""
    return _model(
        [helper.make_node("Add", ["x", "one"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, ())],
        [_tensor("y", TensorProto.FLOAT, ())],
        [_constant("one", np.array(1, np.float32))],
    )


def empty_columns() -> bytes:
    """y = [x, z] by columns; x FP32 [batch, 0] holds no elements, z and y FP32 [batch, 3]."""
    return _model(
        [helper.make_node("Concat", ["x", "z"], ["y"], axis=1)],
        [_tensor("x", TensorProto.FLOAT, ("batch", 0)), _tensor("z", TensorProto.FLOAT, ("batch", 3))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 3))],
    )


# ---- outputs and files of other kinds -------------------------------------------------------------------------------


def zipmap() -> bytes:
    """A classifier as scikit-learn exports it with ZipMap: x FP32 [batch, 3] -> label, probabilities, scores.

    label INT64 [batch] is the largest column; probabilities FP32 [batch, 3] = softmax(x); scores is a sequence of maps
    from INT64 class to FP32, which is not a tensor and so cannot be served.
    """
    scores = helper.make_value_info(
        "scores",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, ()))
        ),
    )
    return _model(
        [
            helper.make_node("Softmax", ["x"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
            helper.make_node(
                "ZipMap", ["probabilities"], ["scores"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]
            ),
        ],
        [_tensor("x", TensorProto.FLOAT, ("batch", 3))],
        [
            _tensor("label", TensorProto.INT64, ("batch",)),
            _tensor("probabilities", TensorProto.FLOAT, ("batch", 3)),
            scores,
        ],
    )


def sequence() -> bytes:
    """y = 2 * x beside w = the sequence (x, y); x, y FP32 [batch, 4]; w is not a tensor."""
    dims = ("batch", 4)
    return _model(
        [
            helper.make_node("Add", ["x", "x"], ["y"]),
            helper.make_node("SequenceConstruct", ["x", "y"], ["w"]),
        ],
        [_tensor("x", TensorProto.FLOAT, dims)],
        [
            _tensor("y", TensorProto.FLOAT, dims),
            helper.make_tensor_sequence_value_info("w", TensorProto.FLOAT, dims),
        ],
    )


def sequence_only() -> bytes:
    """y = the sequence (x, x); x FP32 [batch, 4]. No output is a tensor: nothing of it can be served."""
    dims = ("batch", 4)
    return _model(
        [helper.make_node("SequenceConstruct", ["x", "x"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, dims)],
    )


def unknown_operator() -> bytes:
    """A well-formed file that ONNX Runtime refuses to load: its only operator exists nowhere."""
    return _model(
        [helper.make_node("NoSuchOperator", ["x"], ["y"])],
        [_tensor("x", TensorProto.FLOAT, ("batch", 4))],
        [_tensor("y", TensorProto.FLOAT, ("batch", 4))],
        checked=False,
    )


def write_external_data_model(path: Path) -> Path:
    """Writes `dense` with its weights beside it, in `<file name>.data`; without that file it does not load."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        onnx.load_model_from_string(dense()),
        path,
        save_as_external_data=True,
        location=f"{path.name}.data",
        size_threshold=0,
    )
    return path


# ---- parts ----------------------------------------------------------------------------------------------------------


def _tensor(name: str, element: int, dims: Dims | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, dims)


def _constant(name: str, value: NDArray[np.generic]) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    checked: bool = True,  # by onnx's own checker, which insists on shapes and on operators that exist
) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    opsets = [helper.make_opsetid(domain, number) for domain, number in OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tests")
    if checked:
        onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
