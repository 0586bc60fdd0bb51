"""Inputs, outputs and warm-up requests of a ModelConfig. Pure; any thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from infer.models.settings import FillKind, TensorSetting, Warmup, WarmupInput
from infer.models.typed import Typed

DIMS_RULE = "a size from 1, or -1 for any"
_FILLS: dict[str, FillKind] = {"zero_data": "zero", "random_data": "random", "input_data_file": "file"}


def datatype_of(content: Any) -> str:
    """The protocol's name of a message's data_type: FP32, BYTES."""
    name = content.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[content.data_type].name
    return "BYTES" if name == "TYPE_STRING" else str(name.removeprefix("TYPE_"))


def tensors_of(config: Typed, kind: str) -> tuple[TensorSetting, ...]:
    """The tensors under `input` or `output`; those with a problem are left out."""
    found: dict[str, TensorSetting] = {}
    for index, content in enumerate(getattr(config.content, kind)):
        path = f"{kind}[{index}]"
        before = len(config.problems)
        _check_tensor(config, content, path)
        if content.name in found:
            config.refuse(path, "E105", cause=f"{kind} {content.name!r} is given twice", fix="leave one of them")
        if len(config.problems) == before:
            reshape = tuple(content.reshape.shape) if content.HasField("reshape") else None
            found[content.name] = TensorSetting(content.name, datatype_of(content), tuple(content.dims), reshape,
                                                kind == "input" and content.optional)
    return tuple(found.values())


def _check_tensor(config: Typed, content: Any, path: str) -> None:
    if not content.name:
        config.refuse(f"{path}.name", "E106", cause="is missing", fix="name the model's tensor")
    if not content.data_type and not _is_refused(config, f"{path}.data_type"):
        config.refuse(f"{path}.data_type", "E106", cause="is missing", fix="write data_type: TYPE_FP32, or the "
                      "model's own")
    if not content.dims and not _is_refused(config, f"{path}.dims"):
        config.refuse(f"{path}.dims", "E106", cause="is missing",
                      fix="write the shape without the batch dimension; of one value a row: dims: [1] with "
                          "reshape { shape: [] }")
    _check_dims(config, content.dims, f"{path}.dims")
    if content.HasField("reshape"):
        shape = f"{path}.reshape.shape"
        _check_dims(config, content.reshape.shape, shape)
        if not content.reshape.shape and config.is_given("max_batch_size") and config.content.max_batch_size == 0:
            config.refuse(shape, "E109", cause="is empty in a model that does not batch", fix="leave reshape out")
        elif not same_elements(content.dims, content.reshape.shape):
            config.refuse(shape, "E109", expected=f"as many elements as dims {list(content.dims)} has, dims of any "
                          "size at the same places", got=str(list(content.reshape.shape)),
                          fix="write another order of sizes with the same product")


def _is_refused(config: Typed, path: str) -> bool:
    """Whether something else is said about the field: it was written, and wrongly."""
    return any(problem.field == path for problem in config.problems)


def _check_dims(config: Typed, dims: Sequence[int], path: str) -> None:
    for index, size in enumerate(dims):
        if size < 1 and size != -1:
            config.refuse(f"{path}[{index}]", "E103", expected=DIMS_RULE, got=str(size))


def same_elements(dims: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether every tensor of shape `dims` is one of `shape` too: sizes between those that are free multiply to the
    same."""
    return _products(dims) == _products(shape)


def _products(dims: Sequence[int]) -> list[int]:
    parts: list[list[int]] = [[]]
    for size in dims:
        if size == -1:
            parts.append([])
        else:
            parts[-1].append(size)
    return [math.prod(part) for part in parts]


def warmups_of(config: Typed) -> tuple[Warmup, ...]:
    """The requests that are run before a version is published."""
    found = []
    for index, content in enumerate(config.content.model_warmup):
        path = f"model_warmup[{index}]"
        for name in ("batch_size", "count"):
            if config.is_given(f"{path}.{name}") and getattr(content, name) < 1:
                config.refuse(f"{path}.{name}", "E103", expected="a whole number from 1", got="0")
        inputs = [_warmup_input(config, name, content.inputs[name], f"{path}.inputs[{name}]")
                  for name in sorted(content.inputs)]
        found.append(Warmup(content.name, content.batch_size or 1, content.count or 1,
                            tuple(each for each in inputs if each is not None)))
    return tuple(found)


def _warmup_input(config: Typed, name: str, content: Any, path: str) -> WarmupInput | None:
    before = len(config.problems)
    if not content.data_type and not _is_refused(config, f"{path}.data_type"):
        config.refuse(f"{path}.data_type", "E106", cause="is missing", fix="write the input's own")
    for index, size in enumerate(content.dims):
        if size < 1:
            config.refuse(f"{path}.dims[{index}]", "E103", expected="a size from 1", got=str(size),
                          fix="write the size that warms up what callers will send")
    choice = content.WhichOneof("input_data_type")
    kind = _FILLS.get(choice or "")
    if kind is None or (kind != "file" and not getattr(content, choice)):
        config.refuse(path, "E106", cause="says no data", fix="write zero_data: true, random_data: true or "
                      "input_data_file: FILE")
    elif kind == "file":
        file = PurePosixPath(content.input_data_file)
        if file.is_absolute() or ".." in file.parts or not file.parts:
            config.refuse(f"{path}.input_data_file", "E103", expected="a file in the model's `warmup` directory",
                          got=repr(content.input_data_file), fix="copy the file there and write its name")
    if len(config.problems) > before or kind is None:
        return None
    return WarmupInput(name, datatype_of(content), tuple(content.dims), kind,
                       content.input_data_file if kind == "file" else None)
