"""What loads cost at their height, in processes of their own, beside the estimate that refuses what would not fit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from infer.models.memory import LEAST_BYTES, estimated_bytes

# Loads a small model, then the one in question, and prints by how much that raised the most it ever had.
LOAD = """
import sys
from pathlib import Path
from infer._core.ort_runtime import Runtime
from infer.models.effective import LoadOptions
from infer.models.loading import LoadSpec
from infer.models.source import Source
from infer.models.version_load import load_version

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def spec(path):
    ((name, model),) = Source([path], settle_ns=0).observe(0).models.items()
    ((version, files),) = model.versions.items()
    return LoadSpec(name, version, files, model.settings, 0)

runtime = Runtime()
load_version(spec(Path(sys.argv[1])), runtime, LoadOptions())
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")
before = status("VmRSS")
kept = load_version(spec(Path(sys.argv[2])), runtime, LoadOptions())
print(status("VmHWM") - before)
"""


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape), name)


def convolutions() -> onnx.ModelProto:
    """The kind whose weights the runtime packs anew: the dearest of those that were looked at."""
    nodes = [helper.make_node("Conv", [source, f"w{i}"], [target], pads=[1, 1, 1, 1])
             for i, (source, target) in enumerate((("x", "h"), ("h", "y")))]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 512, 8, 8]) for name in "xy")
    return model(nodes, [x, y], [weights(f"w{i}", 512, 512, 3, 3) for i in range(2)])


def products() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", [source, f"w{i}"], [target])
             for i, (source, target) in enumerate((("x", "h"), ("h", "y")))]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1536]) for name in "xy")
    return model(nodes, [x, y], [weights(f"w{i}", 1536, 1536) for i in range(2)])


def table() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 256])
    return model([helper.make_node("Gather", ["w", "x"], ["y"])], [x, y], [weights("w", 20_000, 256)])


def model(nodes: list[onnx.NodeProto], ends: list[onnx.ValueInfoProto],
          constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer keeps what is freed")
@pytest.mark.parametrize("outside", [False, True], ids=["in the file", "beside it"])
@pytest.mark.parametrize("make", [convolutions, products, table])
def test_a_load_stays_below_the_estimate(tmp_path: Path, make: object, outside: bool) -> None:
    small = tmp_path / "small.onnx"
    onnx.save_model(model([helper.make_node("Identity", ["x"], ["y"])], [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "xy"], []), small)
    path = tmp_path / "m/model.onnx"
    path.parent.mkdir()
    onnx.save_model(make(), path, save_as_external_data=outside, location="data")  # type: ignore[operator]
    done = subprocess.run([sys.executable, "-c", LOAD, small, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    total = sum(file.stat().st_size for file in path.parent.iterdir())
    assert 2 * total > LEAST_BYTES, "too small to tell"
    assert 0 <= int(done.stdout) <= estimated_bytes(total)
