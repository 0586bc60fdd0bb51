"""Between numpy arrays and the raw tensors of the protocol: little-endian, row-major. Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from infer.errors import Internal, InvalidArgument

Array = Any
Raw = bytes | memoryview

# Element types but for BF16, which numpy has not, and BYTES, whose elements vary in size.
DTYPES = {"BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
          "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
_DATATYPES = {np.dtype(dtype): datatype for datatype, dtype in DTYPES.items()}
_BYTES_KINDS = "OSU"


@cache
def bfloat16() -> Any:
    """The dtype of BF16 arrays: ml_dtypes' where that package is installed, else uint16 for their bits."""
    try:
        from ml_dtypes import bfloat16 as dtype
    except ImportError:
        dtype = np.uint16
    return np.dtype(dtype)


def datatype_of(array: Array) -> str:
    """The protocol's type of an array's elements. Raises InvalidArgument where there is none."""
    datatype = _DATATYPES.get(array.dtype.newbyteorder("<"))
    if datatype is not None:
        return datatype
    if array.dtype.kind in _BYTES_KINDS:
        return "BYTES"
    if array.dtype.name == "bfloat16":
        return "BF16"
    raise InvalidArgument(f"an array of {array.dtype} has no type in the protocol; expected one of bool, int8 to "
                          "uint64, float16 to float64, ml_dtypes.bfloat16, or objects, bytes or text for BYTES")


def encode(array: Array, datatype: str) -> Raw:
    """The raw content of a tensor; the array's own memory where that is it already.

    BYTES from bytes and text; BF16 from bfloat16, from its bits as uint16, and from float32, rounded to the nearest.
    """
    if datatype == "BYTES":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        return b"".join(part for item in items for part in (struct.pack("<I", len(item)), item))
    if datatype == "BF16":
        return _view(np.ascontiguousarray(_bf16_bits(array), "<u2"))
    if datatype not in DTYPES:
        raise InvalidArgument(f"unknown datatype {datatype!r}; expected {', '.join([*DTYPES, 'BF16', 'BYTES'])}")
    try:
        return _view(np.ascontiguousarray(array.astype(DTYPES[datatype], casting="same_kind", copy=False)))
    except TypeError:
        raise InvalidArgument(f"an array of {array.dtype} does not become {datatype} without loss") from None


def _view(array: Array) -> Raw:
    return memoryview(array.reshape(-1).view(np.uint8))


def _bf16_bits(array: Array) -> Array:
    if array.dtype.itemsize == 2 and (array.dtype.kind == "u" or array.dtype.name == "bfloat16"):
        return array.view(np.uint16)
    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    # Rounding may carry a NaN over into infinity.
    return (np.where(np.isnan(array), np.uint32(0x7FC00000), rounded) >> 16).astype("<u2")


def bf16_to_fp32(array: Array) -> Array:
    """The values of a BF16 array, whichever dtype it has."""
    return (_bf16_bits(array).astype("<u4") << 16).view("<f4")


def decode(content: Raw, datatype: str, shape: Sequence[int]) -> Array:
    """The array of a raw tensor: read-only, over `content` itself, where that is aligned. BYTES as objects of bytes."""
    try:
        if datatype == "BYTES":
            return _objects(list(_elements(memoryview(content)))).reshape(shape)
        dtype = bfloat16() if datatype == "BF16" else np.dtype(DTYPES[datatype])
        array = np.frombuffer(content, dtype).reshape(shape)
    except KeyError:
        raise Internal(f"the reply has a tensor of the unknown datatype {datatype!r}") from None
    except (ValueError, struct.error) as error:
        raise Internal(f"the reply has a {datatype} tensor {list(shape)} that its bytes do not fill: {error}") from None
    # Not every consumer of an array can read one that is not aligned for its type.
    return array if array.flags.aligned else array.copy()


def _elements(content: memoryview) -> Any:
    position = 0
    while position < len(content):
        (size,) = struct.unpack_from("<I", content, position)
        position += 4 + size
        if position > len(content):
            raise ValueError(f"an element of {size} bytes runs over the end")
        yield bytes(content[position - size:position])


def _objects(items: list[bytes]) -> Array:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


# Where typed contents stand, by datatype.
_CONTENTS = {"BOOL": "bool", "INT8": "int", "INT16": "int", "INT32": "int", "INT64": "int64", "UINT8": "uint",
             "UINT16": "uint", "UINT32": "uint", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64", "BYTES": "bytes"}


def decode_contents(contents: Any, datatype: str, shape: Sequence[int]) -> Array:
    """The array of an InferTensorContents: what servers that do not answer raw send."""
    if datatype not in _CONTENTS:
        raise Internal(f"the reply has a {datatype} tensor without raw content")
    values = getattr(contents, f"{_CONTENTS[datatype]}_contents")
    array = _objects(list(values)) if datatype == "BYTES" else np.array(values, DTYPES[datatype])
    if array.size != np.prod(shape, dtype=np.int64):
        raise Internal(f"the reply has a {datatype} tensor {list(shape)} with {array.size} elements")
    return array.reshape(shape)
