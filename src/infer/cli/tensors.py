"""Tensors from a command line: files, JSON, random values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from infer.client.tensors import DTYPES, Array
from infer.errors import InvalidArgument

RANDOM_INTEGERS = 100


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
