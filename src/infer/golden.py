"""`golden.npz` in a version's directory: inputs, and the outputs that the version has to answer them with.

Arrays `input.NAME` and `output.NAME`, with rows first as the model itself has them; `numpy.savez` writes it. Any
thread.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infer.errors import InferError
from infer.rollouts import ATOL, RTOL

if TYPE_CHECKING:
    from infer._core.ort_session import OrtSession, Tensor

FILE = "golden.npz"
# Of its arrays, which are in memory beside all that is served.
MOST_BYTES = 256 << 20
_TYPES = {"FP32": "f4", "FP64": "f8", "FP16": "f2", "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8",
          "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "BOOL": "?"}


def failure_of(session: OrtSession, path: Path) -> str:
    """Why the version does not answer as the file says; "" where it does."""
    try:
        arrays = _arrays(path)
        answered = session.run(_inputs(session, arrays))
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, zlib.error, InferError) as error:
        return f"{path}: {error.message if isinstance(error, InferError) else error}"
    outputs = {info.name: _array(*each) for info, each in zip(session.outputs, answered, strict=True)
               if each[0] in _TYPES}
    wanted = {name.removeprefix("output."): array for name, array in arrays.items() if name.startswith("output.")}
    if not wanted:
        return f"{path}: has no array named output.NAME"
    for name, array in wanted.items():
        if name not in outputs:
            return f"{path}: the model has no output {name!r} of numbers"
        found = outputs[name]
        if found.shape != array.shape:
            return f"{path}: output {name!r}: expected the shape {list(array.shape)}, got {list(found.shape)}"
        if array.dtype.kind not in "biuf":
            return f"{path}: output {name!r}: expected numbers, got {array.dtype}"
        far = ~np.isclose(found, array, rtol=RTOL, atol=ATOL, equal_nan=True)
        if far.any():
            at = tuple(int(each[0]) for each in np.nonzero(far))
            return (f"{path}: {int(far.sum())} of {far.size} values of output {name!r} differ: at {list(at)} expected "
                    f"{array[at]:.6g}, got {found[at]:.6g}")
    return ""


def golden_inputs(session: OrtSession, path: Path) -> list[Tensor | None]:
    """Those of a file that `failure_of` has found to be good."""
    return _inputs(session, _arrays(path))


def _arrays(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        size = sum(each.file_size for each in archive.infolist())
    if size > MOST_BYTES:
        raise ValueError(f"its arrays have {size} bytes; expected at most {MOST_BYTES}, such as those of fewer rows")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _inputs(session: OrtSession, arrays: Mapping[str, Any]) -> list[Tensor | None]:
    tensors: list[Tensor | None] = []
    for info in session.inputs:
        array = arrays.get(f"input.{info.name}")
        if array is None and not info.optional:
            raise ValueError(f"has no array input.{info.name}")
        if array is None:
            tensors.append(None)
            continue
        if info.datatype not in _TYPES:
            raise ValueError(f"input {info.name!r} is of {info.datatype}, which it cannot hold")
        data = np.ascontiguousarray(array, _TYPES[info.datatype])
        tensors.append((info.datatype, data.shape, data.tobytes()))
    return tensors


def _array(datatype: str, shape: tuple[int, ...], data: bytes) -> Any:
    return np.frombuffer(data, _TYPES[datatype]).reshape(shape)
