"""A reply that was written down, in a file, as the protocol's REST form has it: to a request of one row.

`{"outputs": [{"name", "datatype", "shape", "data"}, ...]}`. Reading touches the file alone; any thread.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

REPLY_BYTES_MAX = 1 << 20
_FORMATS = {"INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I",
            "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d", "BOOL": "?"}


class StaticOutput(NamedTuple):
    """A tensor, `data` as raw_output_contents has it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


def read_reply(file: Path) -> tuple[StaticOutput, ...]:
    """Raises ValueError for a file that cannot be read or holds no reply."""
    try:
        with file.open("rb") as opened:
            content = opened.read(REPLY_BYTES_MAX + 1)
    except OSError as failure:
        raise ValueError(f"reply {file.name!r} cannot be read: {failure.strerror}") from None
    if len(content) > REPLY_BYTES_MAX:
        raise ValueError(f"reply {file.name!r} is larger than {REPLY_BYTES_MAX >> 20} MiB")
    try:
        return parse_reply(content)
    except ValueError as failure:
        raise ValueError(f"reply {file.name!r}: {failure}") from None


def parse_reply(content: bytes) -> tuple[StaticOutput, ...]:
    reply = json.loads(content)
    outputs = reply.get("outputs") if isinstance(reply, Mapping) else None
    if not isinstance(outputs, list) or not outputs:
        raise ValueError('expected {"outputs": [{"name": ..., "datatype": ..., "shape": ..., "data": ...}]}')
    found = tuple(_output(each) for each in outputs)
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise ValueError("an output stands there twice")
    return found


def _output(given: object) -> StaticOutput:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise ValueError("expected outputs with a name")
    name, datatype, shape = given["name"], given.get("datatype"), given.get("shape")
    if datatype not in (*_FORMATS, "BYTES"):
        raise ValueError(f"output {name!r}: expected a datatype of {', '.join((*_FORMATS, 'BYTES'))}, got {datatype!r}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"output {name!r}: expected a shape of whole numbers, got {shape!r}")
    values = list(_flat(given.get("data")))
    if len(values) != prod(shape):
        raise ValueError(f"output {name!r}: expected {prod(shape)} values for shape {shape}, got {len(values)}")
    try:
        data = _strings(values) if datatype == "BYTES" else struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values)
    except (struct.error, OverflowError, TypeError) as failure:
        raise ValueError(f"output {name!r}: its data is no {datatype}: {failure}") from None
    return StaticOutput(name, datatype, tuple(shape), data)


def _flat(data: object) -> Iterator[object]:
    if isinstance(data, list):
        for each in data:
            yield from _flat(each)
    else:
        yield data


def _strings(values: list[object]) -> bytes:
    encoded = []
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"expected text, got {value!r}")
        content = value.encode()
        encoded.append(struct.pack("<I", len(content)) + content)
    return b"".join(encoded)
