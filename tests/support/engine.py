"""Sessions and versions made from a model's bytes, for tests of the engine."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infer._core._testing_engine import Call, set_budget
from infer._core.model_version import VersionEntry
from infer._core.ort_runtime import Runtime
from infer._core.ort_session import OrtSession, attach
from tests.support.requests import add_typed, infer_request, pack

NUMPY = {"BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8,
         "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "FP16": np.float16, "FP32": np.float32,
         "FP64": np.float64}

ELEMENT_BYTES = {name: np.dtype(kind).itemsize for name, kind in NUMPY.items()} | {"BF16": 2}

Tensor = tuple[str, tuple[int, ...], bytes]


@cache
def runtime() -> Runtime:
    return Runtime()


def session(model: bytes, **options: Any) -> OrtSession:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "model.onnx")
        path.write_bytes(model)
        return OrtSession(runtime(), path, **options)


# Executor time after which a tenth of it is more than any test spends.
AGES_NS = 1 << 60


def version(model: bytes, *, batched: bool = True, name: str = "m", max_running: int = 2, gather_rows: int = 64,
            delay_ns: int = 0, ran_ns: int = 0) -> VersionEntry:
    """A version on a session of its own, batched or not as the test says. `ran_ns`: executor time that it is said to
    have had; with AGES_NS its failed batches are bisected to the end, however slow the build."""
    loaded = session(model)
    entry = VersionEntry(name, "1", loaded, loaded.inputs, loaded.outputs, batched=batched, max_rows=1024,
                         gather_rows=gather_rows, delay_ns=delay_ns, queue_limit_rows=4096, max_running=max_running,
                         properties={})
    attach(entry, loaded)
    set_budget(entry, ran_ns, 0)
    return entry


def tensor(array: NDArray[Any]) -> Tensor:
    """A NumPy array as the protocol's raw tensor."""
    datatype = next(name for name, kind in NUMPY.items() if np.dtype(kind) == array.dtype)
    return datatype, array.shape, array.tobytes()


def array(raw: Tensor) -> NDArray[Any]:
    datatype, shape, data = raw
    return np.frombuffer(data, NUMPY[datatype]).reshape(shape)


def strings(*elements: bytes) -> bytes:
    """BYTES elements as the protocol writes them."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def call(entry: VersionEntry, *arrays: NDArray[Any], **options: Any) -> Call:
    """A call of the arrays, of as many rows as the first has."""
    rows = arrays[0].shape[0] if entry.batched else 1
    return Call(entry, [tensor(each) for each in arrays], rows=rows, **options)


def typed(name: str, datatype: str, shape: tuple[int, ...], values: list[Any]) -> tuple[bytes, int]:
    """An InferInputTensor with its length before it, as the codec leaves typed contents, and its decoded size. Small
    numbers outside an integer type's range can be sent, larger ones cannot."""
    encoded = add_typed(infer_request(), name, datatype, shape, values).SerializeToString()
    length, prefix = len(encoded), b""
    while length > 0x7F:
        prefix += bytes([length & 0x7F | 0x80])
        length >>= 7
    size = sum(4 + len(value) for value in values) if datatype == "BYTES" else len(values) * len(pack(datatype, [0]))
    return prefix + bytes([length]) + encoded, size
