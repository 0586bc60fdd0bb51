"""ModelInferRequest bytes for one FP32 tensor, written field by field: needs no generated classes."""

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

VARINT, BYTES = 0, 2
MODEL_NAME, MODEL_VERSION, ID, INPUTS, RAW_INPUTS = 1, 2, 3, 5, 7
INPUT_NAME, INPUT_DATATYPE, INPUT_SHAPE = 1, 2, 3


def varint(value: int) -> bytes:
    """A negative int64 takes ten bytes, as protobuf has it."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def infer_request(
    model: str,
    raw: bytes,
    shape: Sequence[int],
    *,
    input_name: str = "x",
    datatype: str = "FP32",
    version: str = "",
    request_id: str = "",
) -> bytes:
    """One raw input; an empty string is left out, as proto3 leaves defaults out."""
    tensor = field(INPUT_NAME, input_name.encode()) + field(INPUT_DATATYPE, datatype.encode())
    if shape:
        tensor += field(INPUT_SHAPE, b"".join(varint(size) for size in shape))
    head = ((MODEL_NAME, model), (MODEL_VERSION, version), (ID, request_id))
    texts = b"".join(field(number, text.encode()) for number, text in head if text)
    return texts + field(INPUTS, tensor) + field(RAW_INPUTS, raw)


def row_values(shape: Sequence[int]) -> np.ndarray:
    """Values in [-1, 1) that are the same in every run."""
    return np.random.default_rng(11).uniform(-1.0, 1.0, math.prod(shape)).astype("<f4").reshape(shape)


def row_request(model: str, row_shape: Sequence[int], *, rows: int = 1, input_name: str = "x") -> bytes:
    """`rows` rows of such values."""
    shape = (rows, *row_shape)
    return infer_request(model, row_values(shape).tobytes(), shape, input_name=input_name)


def framed(message: bytes) -> bytes:
    """The message behind gRPC's prefix: not compressed, length big-endian."""
    return struct.pack(">BI", 0, len(message)) + message


def write_body(path: Path, message: bytes) -> Path:
    """A body file for h2load and the like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(framed(message))
    return path
