"""Between numpy arrays and the raw tensors of the protocol, for our own clients."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from infer.errors import InvalidArgument

DTYPES = {"BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
          "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
RANDOM_INTEGERS = 100

Array = Any


def encode(array: Array, datatype: str) -> bytes:
    """Little-endian, row-major; BF16 from FP32 values, BYTES from text or bytes."""
    if datatype == "BYTES":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
        return b"".join(struct.pack("<I", len(item)) + item for item in items)
    if datatype == "BF16":
        bits = np.ascontiguousarray(array, "<f4").view("<u4")
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        rest = np.where(np.isnan(array), np.uint32(0x7FC00000), rounded)
        return (rest >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(array, DTYPES[datatype]).tobytes()


def decode(content: bytes, datatype: str, shape: tuple[int, ...]) -> Array:
    """The array of an output; BF16 as FP32, BYTES as objects."""
    if datatype == "BYTES":
        items, position = [], 0
        while position < len(content):
            (size,) = struct.unpack_from("<I", content, position)
            items.append(content[position + 4:position + 4 + size])
            position += 4 + size
        array = np.empty(len(items), np.object_)
        array[:] = items
        return array.reshape(shape)
    if datatype == "BF16":
        return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    return np.frombuffer(content, DTYPES[datatype]).reshape(shape)


def random_tensor(datatype: str, shape: tuple[int, ...], generator: Any) -> Array:
    """Something of the type; a dimension that varies is 1."""
    sizes = tuple(1 if size < 0 else size for size in shape)
    if datatype == "BYTES":
        array = np.empty(sizes, np.object_)
        array[...] = b"text"
        return array
    if datatype == "BOOL":
        return generator.integers(0, 2, sizes).astype("?")
    if datatype in ("FP16", "FP32", "FP64", "BF16"):
        return generator.standard_normal(sizes).astype(DTYPES.get(datatype, "<f4"))
    return generator.integers(0, RANDOM_INTEGERS, sizes).astype(DTYPES[datatype])


def read_argument(name: str, text: str, datatype: str, shape: tuple[int, ...], generator: Any) -> Array:
    """The tensor that `name=text` gives: @file.npy, random, or JSON. Raises InvalidArgument."""
    if text == "random":
        return random_tensor(datatype, shape, generator)
    if text.startswith("@"):
        return _read_file(name, text[1:], datatype)
    try:
        value = json.loads(text)
        if datatype == "BYTES":
            return np.array(value, np.object_)
        loose = np.array(value)
        array = loose.astype(DTYPES.get(datatype, "<f4"), casting="unsafe" if loose.dtype != np.object_ else "safe")
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"input {name!r}: expected @file.npy, random or JSON of {datatype}, got {text!r}: "
                              f"{error}") from None
    if datatype in DTYPES and array.dtype.kind in "iub" and not np.array_equal(array, loose):
        raise InvalidArgument(f"input {name!r}: {text} does not fit into {datatype}")
    return array


def _read_file(name: str, path: str, datatype: str) -> Array:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InvalidArgument(f"input {name!r}: {path} cannot be read: {error.strerror}") from None
    except (ValueError, EOFError):
        raise InvalidArgument(f"input {name!r}: {path} is not an array that numpy.save wrote, or one of objects; "
                              "save the array as numbers or text") from None
    wanted = np.dtype(DTYPES.get(datatype, "<f4"))
    if datatype == "BYTES" and array.dtype.kind in "SU":
        return array.astype(np.object_)
    if not isinstance(array, np.ndarray) or datatype == "BYTES" or array.dtype != wanted:
        kind = array.dtype if isinstance(array, np.ndarray) else "an archive"
        raise InvalidArgument(f"input {name!r}: {path} holds {kind}, expected {datatype}; convert it with "
                              f".astype('{wanted.name}') before saving")
    return array
