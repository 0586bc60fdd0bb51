"""Captured calls, run by a session, and its outputs held against the captured ones. Any thread; the runs are at the
lowest priority where the session's are."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from infer.capture_file import CaptureReader
from infer.errors import InferError, InvalidArgument
from infer.gate_plan import GatePlan
from infer.models.effective import map_sizes
from infer.proto import message
from infer.reply_comparison import ReplyComparison

if TYPE_CHECKING:
    from infer._core.model_version import TensorInfo, VersionEntry
    from infer._core.ort_session import Tensor

# Calls of a file that are run: its first ones.
MOST_CALLS = 10_000
_CONTENTS = {"BOOL": ("bool_contents", "?"), "INT8": ("int_contents", "i1"), "INT16": ("int_contents", "i2"),
             "INT32": ("int_contents", "i4"), "INT64": ("int64_contents", "i8"), "UINT8": ("uint_contents", "u1"),
             "UINT16": ("uint_contents", "u2"), "UINT32": ("uint_contents", "u4"), "UINT64": ("uint64_contents", "u8"),
             "FP32": ("fp32_contents", "f4"), "FP64": ("fp64_contents", "f8")}


@dataclass(frozen=True)
class Replayed:
    """`failure`: what speaks against the version; "": nothing. `told`: what it came to."""

    failure: str = ""
    told: str = ""


def replayed(entry: VersionEntry, path: Path, plan: GatePlan, *, rtol: float, atol: float,
             stopped: Callable[[], bool]) -> Replayed:
    """Raises InferError for what cannot be replayed at all."""
    reader = CaptureReader(path)
    hidden = [each for each in reader.about.get("redacted", []) if each in {info.name for info in entry.inputs}]
    if hidden:
        return Replayed(f"{path} has no contents of {', '.join(hidden)}, which the outputs depend on; capture without "
                        "--redact for a replay")
    model = entry.name.decode()
    comparison = ReplyComparison(rtol, atol, reader.about.get("redacted", []))
    runs = failed = 0
    farthest, failure = 0.0, ""
    for call in islice(reader, MOST_CALLS):
        if stopped():
            return Replayed("the rollout has ended meanwhile")
        if call.model != model:
            return Replayed(f"{path} has calls of model {call.model!r}")
        runs += 1
        try:
            farthest = max(farthest, comparison.add_tensors(call.reply, answer(entry, call.request)))
        except InferError as error:
            failed, failure = failed + 1, failure or error.message
        except DecodeError as error:
            failed, failure = failed + 1, failure or f"call {runs} cannot be read: {error}"
    if not runs:
        return Replayed(f"{path} has no calls")
    wrong = comparison.differed + failed
    told = f"{wrong} of {runs} captured calls are answered otherwise"
    if failed:
        told += f", {failed} of them not at all: {failure}"
    if wrong > plan.differs * runs:
        return Replayed(f"{told}; at most {plan.differs:.4g} of them may be, within rtol {rtol:g} and atol {atol:g}")
    if plan.apart and farthest > plan.apart:
        return Replayed(f"{told}, by up to {farthest:.4g}; at most {plan.apart:g} is allowed")
    return Replayed(told=told)


def answer(entry: VersionEntry, request: bytes) -> dict[str, Tensor]:
    """What the version's session answers a ModelInferRequest with, by output, as it is served."""
    given = _tensors(message("inference.ModelInferRequest").FromString(request))
    for name in given:
        if all(info.name != name for info in entry.inputs):
            raise InvalidArgument(f"it has no input {name!r}")
    served = {info.name: info for info in entry.inputs}
    session = entry.session
    outputs = session.run([_as_model_has(entry, served.get(info.name), given.get(info.name))
                           for info in session.inputs])
    served = {info.name: info for info in entry.outputs}
    return {info.name: _as_served(entry, served[info.name], tensor)
            for info, tensor in zip(session.outputs, outputs, strict=True) if info.name in served}


def _as_model_has(entry: VersionEntry, info: TensorInfo | None, tensor: Tensor | None) -> Tensor | None:
    if tensor is None or info is None or info.reshape is None or info.shape is None:
        return tensor
    return tensor[0], _mapped(entry, tensor[1], info.shape, info.reshape), tensor[2]


def _as_served(entry: VersionEntry, info: TensorInfo, tensor: Tensor) -> Tensor:
    if info.reshape is None or info.shape is None:
        return tensor
    return tensor[0], _mapped(entry, tensor[1], info.reshape, info.shape), tensor[2]


def _mapped(entry: VersionEntry, shape: Sequence[int], pattern: Sequence[int], other: Sequence[int]
            ) -> tuple[int, ...]:
    if len(shape) != len(pattern):
        raise InvalidArgument(f"a tensor of the shape {list(shape)} where {list(pattern)} is expected")
    if entry.batched:
        pattern, other = (-1, *pattern[1:]), (-1, *other[1:])
    return map_sizes(shape, pattern, other)


def _tensors(request: Any) -> Mapping[str, Tensor]:
    """By input, with raw contents."""
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidArgument(f"a request of {len(request.inputs)} inputs with the contents of {len(raw)}")
    found: dict[str, Tensor] = {}
    for place, each in enumerate(request.inputs):
        data = raw[place] if raw else _raw(each)
        found[each.name] = each.datatype, tuple(each.shape), data
    return found


def _raw(tensor: Any) -> bytes:
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(each)) + each for each in tensor.contents.bytes_contents)
    if tensor.datatype not in _CONTENTS:
        raise InvalidArgument(f"input {tensor.name!r} of {tensor.datatype} has no contents")
    field, kind = _CONTENTS[tensor.datatype]
    contents: bytes = np.asarray(getattr(tensor.contents, field), "<" + kind).tobytes()
    return contents
