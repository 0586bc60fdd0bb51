"""What of a captured call is not written: contents of named inputs and outputs, and ids. Pure; any thread.

A tensor keeps its name, type and shape, so that the call can still be sent; its elements are zeros, or empty.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from infer.capture_file import CapturedCall
from infer.proto import message

# What stands for the requests' ids; no tensor that is served has such a name.
ID = "id"
# By the field of typed contents; 0 in all others.
EMPTY: dict[str, Any] = {"bytes_contents": b"", "bool_contents": False}


def redacted(call: CapturedCall, names: Collection[str]) -> CapturedCall:
    """Without the contents of these inputs and outputs; `id`: without its id."""
    if not names:
        return call
    request = message("inference.ModelInferRequest").FromString(call.request)
    reply = message("inference.ModelInferResponse").FromString(call.reply)
    if ID in names:
        request.ClearField("id")
        reply.ClearField("id")
    _empty(request.inputs, request.raw_input_contents, names)
    _empty(reply.outputs, reply.raw_output_contents, names)
    return replace(call, request=request.SerializeToString(), reply=reply.SerializeToString())


def _empty(tensors: Any, raw: Any, names: Collection[str]) -> None:
    for at, tensor in enumerate(tensors):
        if tensor.name not in names:
            continue
        if at < len(raw):
            raw[at] = _texts(raw[at]) if tensor.datatype == "BYTES" else bytes(len(raw[at]))
            continue
        for field, values in tensor.contents.ListFields():
            count = len(values)
            del values[:]
            values.extend([EMPTY.get(field.name, 0)] * count)


def _texts(raw: bytes) -> bytes:
    """As many elements, all of them empty."""
    at = count = 0
    while at + 4 <= len(raw):
        at += 4 + int.from_bytes(raw[at:at + 4], "little")
        count += 1
    return bytes(4 * count)
