"""ModelInferRequests made by google.protobuf, for tests of the codec and of the server."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from tests.support.protos import message_class

# struct's letters of the fixed-size types; FP16 and BF16 count as their bits.
FORMATS = {"BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H",
           "UINT32": "I", "UINT64": "Q", "FP16": "H", "BF16": "H", "FP32": "f", "FP64": "d"}
CONTENTS = {"BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
            "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
            "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}


def pack(data_type: str, values: Iterable[Any]) -> bytes:
    """Raw elements as the protocol wants them."""
    if data_type == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    values = list(values)
    return struct.pack(f"<{len(values)}{FORMATS[data_type]}", *values)


def infer_request(model: str = "m", **fields: Any) -> Any:
    return message_class("ModelInferRequest")(model_name=model, **fields)


def add_raw(request: Any, name: str, data_type: str, shape: Sequence[int], raw: bytes) -> Any:
    """Adds an input with its bytes; returns the input."""
    added = request.inputs.add(name=name, datatype=data_type, shape=shape)
    request.raw_input_contents.append(raw)
    return added


def add_typed(request: Any, name: str, data_type: str, shape: Sequence[int], values: Iterable[Any]) -> Any:
    """Adds an input with its values in the field that its type travels in; returns the input."""
    added = request.inputs.add(name=name, datatype=data_type, shape=shape)
    added.contents.SetInParent()
    getattr(added.contents, CONTENTS[data_type]).extend(values)
    return added
