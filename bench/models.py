"""The models of the bench, made from fixed seeds. One FP32 input `x`, one output `y`.

tiny, trees, mid and image are what servers are compared with. The others are for the wire: copy and peak have rows of
16 MiB, spread answers a small row with 1 MiB.
"""

import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROW_SHAPES: dict[str, tuple[int, ...]] = {"tiny": (16,), "trees": (30,), "mid": (256,), "image": (3, 224, 224)}
LARGE_ROW = (4 * 1024 * 1024,)
SPREAD_ROW, SPREAD_TIMES = (16,), 16 * 1024
OPSET = 17
# Understood by every ONNX Runtime that the server accepts.
IR_VERSION = 8


def save(path: Path, nodes: list[Any], shape: tuple[int, ...], outputs: int, weights: list[Any]) -> None:
    graph = helper.make_graph(
        nodes,
        path.parts[-3],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", outputs])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def mlp(path: Path, widths: list[int]) -> None:
    """Layers of these widths, with weights that are the same each time."""
    random = np.random.default_rng(7)
    nodes, weights, last = [], [], "x"
    for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
        matrix = random.standard_normal((fan_in, fan_out), dtype=np.float32) / np.float32(np.sqrt(fan_in))
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(fan_out, np.float32), f"b{layer}"))
        final = layer == len(widths) - 2
        out = "y" if final else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [out]))
        if not final:
            nodes.append(helper.make_node("Relu", [out], [f"r{layer}"]))
        last = f"r{layer}"
    save(path, nodes, (widths[0],), widths[-1], weights)


def _trees(path: Path) -> None:
    """100 boosted trees of depth 6 on noisy data, so that the trees grow to their full depth."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import make_regression
    from sklearn.ensemble import GradientBoostingRegressor

    features = ROW_SHAPES["trees"][0]
    rows, target = make_regression(2000, features, noise=20.0, random_state=7)
    trees = GradientBoostingRegressor(n_estimators=100, max_depth=6, subsample=0.5, random_state=7)
    trees.fit(rows.astype(np.float32), target)
    model = to_onnx(trees, initial_types=[("x", FloatTensorType([None, features]))], target_opset=OPSET)
    source = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["y" if name == source else name for name in node.output]
    model.graph.output[0].name = "y"
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.ir_version = IR_VERSION
    onnx.save(model, path)


def _image(path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    save(path, nodes, ROW_SHAPES["image"], 3, [])


def _copy(path: Path) -> None:
    save(path, [helper.make_node("Identity", ["x"], ["y"])], LARGE_ROW, LARGE_ROW[0], [])


def _peak(path: Path) -> None:
    save(path, [helper.make_node("ReduceMax", ["x"], ["y"], axes=[1])], LARGE_ROW, 1, [])


def build(root: Path) -> Path:
    """Write the models that are missing to `<root>/<name>/1/model.onnx` and return root."""
    makers: dict[str, Callable[[Path], None]] = {
        "tiny": partial(mlp, widths=[16, 32, 1]),
        "trees": _trees,
        "mid": partial(mlp, widths=[256, 2048, 2048, 256]),
        "image": _image,
    }
    return _build(root, makers)


def _spread(path: Path) -> None:
    times = numpy_helper.from_array(np.array([1, SPREAD_TIMES], np.int64), "times")
    save(path, [helper.make_node("Tile", ["x", "times"], ["y"])], SPREAD_ROW, SPREAD_ROW[0] * SPREAD_TIMES, [times])


def build_wire(root: Path) -> Path:
    """As `build`: tiny; copy, whose reply is its request; peak, whose reply is one number; spread."""
    makers: dict[str, Callable[[Path], None]] = {
        "tiny": partial(mlp, widths=[16, 32, 1]),
        "copy": _copy,
        "peak": _peak,
        "spread": _spread,
    }
    return _build(root, makers)


def _build(root: Path, makers: dict[str, Callable[[Path], None]]) -> Path:
    for name, make in makers.items():
        path = root / name / "1" / "model.onnx"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)
    return root


if __name__ == "__main__":
    build(Path(sys.argv[1]))
