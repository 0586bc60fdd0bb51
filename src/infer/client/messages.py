"""ModelInferRequest from arrays, arrays from ModelInferResponse.

Tensors do not pass through protobuf: what else is in a message does, and raw contents are laid behind it or sliced out
of it, so that an array is copied once on its way out and not at all on its way in. Messages are infer.proto's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from infer.client.tensors import Array, Raw, datatype_of, decode, decode_contents, encode
from infer.errors import Internal, InvalidArgument
from infer.proto import message

# Field numbers of raw_input_contents and raw_output_contents; both are the last of their message.
RAW_INPUTS, RAW_OUTPUTS = 7, 6
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Tensor(NamedTuple):
    """An input whose type the array alone does not say, such as the bits of BF16 as uint16."""

    values: Any
    datatype: str


class Result(Mapping[str, Array]):
    """The outputs of a call by name, in the server's order. Arrays may be read-only."""

    def __init__(self, reply: Any, arrays: Mapping[str, Array]) -> None:
        self.model_name: str = reply.model_name
        self.model_version: str = reply.model_version
        self.request_id: str = reply.id
        self.parameters: dict[str, bool | int | float | str] = {
            name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
            for name, value in reply.parameters.items()}
        self.datatypes: dict[str, str] = {output.name: output.datatype for output in reply.outputs}
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}: {self.datatypes[name]} {list(array.shape)}" for name, array in self.items())
        return f"<Result of {self.model_name} version {self.model_version}: {outputs}>"


def encode_request(model: str, inputs: Mapping[str, Any], *, version: str = "", outputs: Sequence[str] | None = None,
                   request_id: str = "", parameters: Mapping[str, bool | int | float | str] | None = None) -> bytes:
    """An encoded ModelInferRequest; `inputs` by name: arrays, what numpy.asarray takes, or a Tensor."""
    request = message("inference.ModelInferRequest")(model_name=model, model_version=version, id=request_id)
    raw: list[Raw] = []
    for name, given in inputs.items():
        shape, datatype, content = _tensor(name, given)
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        raw.append(content)
    for name in outputs or ():
        request.outputs.add(name=name)
    for name, value in (parameters or {}).items():
        _set_parameter(request.parameters[name], name, value)
    parts: list[Raw] = [request.SerializeToString()]
    for content in raw:
        parts += [_head(RAW_INPUTS, memoryview(content).nbytes), content]
    return b"".join(parts)


def _tensor(name: str, given: Any) -> tuple[tuple[int, ...], str, Raw]:
    """Shape, datatype and raw content of an input."""
    try:
        array = np.asarray(given.values if isinstance(given, Tensor) else given)
        datatype = given.datatype if isinstance(given, Tensor) else datatype_of(array)
        return array.shape, datatype, encode(array, datatype)
    except (ValueError, InvalidArgument) as error:
        raise InvalidArgument(f"input {name!r}: {error}") from None


def _set_parameter(parameter: Any, name: str, value: bool | int | float | str) -> None:
    # bool before int, which it is a kind of.
    for kind, field in ((bool, "bool_param"), (int, "int64_param"), (float, "double_param"), (str, "string_param")):
        if isinstance(value, kind):
            setattr(parameter, field, value)
            return
    raise InvalidArgument(f"parameter {name!r}: expected bool, int, float or str, got {type(value).__name__}")


def _head(field: int, size_bytes: int) -> bytes:
    """Tag and length of a length-delimited field."""
    head = bytearray([field << 3 | _BYTES])
    while size_bytes > 0x7F:
        head.append(size_bytes & 0x7F | 0x80)
        size_bytes >>= 7
    head.append(size_bytes)
    return bytes(head)


def decode_reply(content: bytes) -> Result:
    """The outputs of an encoded ModelInferResponse. Raises Internal where it is not one."""
    from google.protobuf.message import DecodeError

    try:
        rest, raw = split(content, RAW_OUTPUTS)
        reply = message("inference.ModelInferResponse").FromString(rest)
    except (DecodeError, ValueError, IndexError) as error:
        raise Internal(f"the reply is not a valid inference.ModelInferResponse: {error}") from None
    if raw and len(raw) != len(reply.outputs):
        raise Internal(f"the reply has {len(reply.outputs)} outputs and {len(raw)} raw contents")
    if raw:
        arrays = {output.name: decode(part, output.datatype, output.shape)
                  for output, part in zip(reply.outputs, raw, strict=True)}
    else:
        arrays = {output.name: decode_contents(output.contents, output.datatype, output.shape)
                  for output in reply.outputs}
    return Result(reply, arrays)


def split(content: bytes, field: int) -> tuple[bytes, list[memoryview]]:
    """A message without one length-delimited field, and that field's values, which are views of it.

    Raises ValueError or IndexError where the message is cut short.
    """
    view = memoryview(content)
    kept: list[memoryview] = []
    values: list[memoryview] = []
    position = 0
    while position < len(view):
        start = position
        tag, position = _varint(view, position)
        kind = tag & 7
        size = 0
        if kind == _VARINT:
            _, position = _varint(view, position)
        elif kind == _BYTES:
            size, position = _varint(view, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {start}")
        begin, position = position, position + size
        if position > len(view):
            raise ValueError(f"a field of {size} bytes at byte {start} runs over the end")
        if tag == (field << 3 | _BYTES):
            values.append(view[begin:position])
        else:
            kept.append(view[start:position])
    return b"".join(kept), values


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number is too long at byte {position}")
