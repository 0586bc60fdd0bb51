"""What a model's settings leave open, taken from the model itself as Triton's auto-complete would; and what disagrees.

Triton's rules: nothing is completed where inputs and outputs are both given; a model batches only if the first
dimension of every input and output is free; max_batch_size > 0 with one that is fixed is refused. Ours beside them: an
unset max_batch_size becomes the server's only if rows may share a run (`batchability`), and a max_batch_size of 0 is
taken at its word. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from infer.models.problems import Problem, error, nearest, warning
from infer.models.settings import ModelSettings, TensorSetting

Side = Literal["input", "output"]


class Declared(Protocol):
    """An input or output as the model declares it."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...] | None:
        """-1 for any size; None where the model does not say the rank."""

    @property
    def served(self) -> bool: ...

    @property
    def optional(self) -> bool: ...


@dataclass(frozen=True)
class Defaults:
    """What the server does where neither the settings nor the model say."""

    max_batch_size: int = 1024
    gather_rows: int = 64
    gpus: tuple[int, ...] = ()              # devices that a provider of this server runs on
    cache: bool = False                     # answers are kept


class Completed(NamedTuple):
    """Effective settings, not to be used with an error among the problems.

    max_batch_size is a number, dynamic_batching is decided, every served input and output stands there, kind is cpu or
    gpu, response_cache is true where answers are kept; preferred_batch_sizes holds, last, the rows that a batch
    gathers.
    """

    settings: ModelSettings
    problems: tuple[Problem, ...]


@dataclass
class _Work:
    settings: ModelSettings
    rows: int
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, name: str, code: str, **said: str) -> None:
        self.problems.append(error(self.settings.place_of(name), _shown(name), code, **said))

    def warn(self, name: str, code: str, **said: str) -> None:
        self.problems.append(warning(self.settings.place_of(name), _shown(name), code, **said))


# Names of settings as the operator wrote them.
_WRITTEN = {"inputs": "input", "outputs": "output", "warmups": "model_warmup", "gpus": "instance_group.gpus",
            "kind": "instance_group.kind", "preferred_batch_sizes": "dynamic_batching.preferred_batch_size"}


def _shown(name: str) -> str:
    first, dot, rest = name.partition(".")
    return f"{_WRITTEN.get(first, first)}{dot}{rest}"


def decides_batching(settings: ModelSettings) -> bool:
    """Whether the settings say by themselves whether the model batches, so that no self-check has to."""
    return settings.max_batch_size is not None or bool(settings.inputs and settings.outputs)


def complete(settings: ModelSettings, inputs: Sequence[Declared], outputs: Sequence[Declared], *, batchable: bool,
             defaults: Defaults) -> Completed:
    """The effective settings of a model with these tensors. `batchable`: rows of different requests may share a run;
    counts where the settings leave it open."""
    outputs = [each for each in outputs if each.served]
    automatic = not (settings.inputs and settings.outputs)
    rows = settings.max_batch_size
    if rows is None:
        free = all(_is_free(each) for each in (*inputs, *outputs))
        rows = defaults.max_batch_size if automatic and free and batchable else 0
    work = _Work(settings, rows)
    _check_batching(work, inputs, outputs, automatic)
    _check_tensors(work, "input", settings.inputs, inputs)
    _check_tensors(work, "output", settings.outputs, outputs)
    _check_warmups(work, inputs)
    dynamic = settings.dynamic_batching
    if dynamic is None:
        dynamic = automatic and rows > 1
    dynamic = dynamic and rows > 0
    kind, gpus = _devices(work, defaults.gpus)
    full = replace(
        settings, max_batch_size=rows, inputs=settings.inputs or tuple(_setting(each, rows) for each in inputs),
        outputs=settings.outputs or tuple(_setting(each, rows) for each in outputs), dynamic_batching=dynamic,
        preferred_batch_sizes=_preferred(work, defaults.gather_rows) if dynamic else (), kind=kind, gpus=gpus,
        response_cache=(defaults.cache or None) if settings.response_cache is None else settings.response_cache)
    return Completed(full, tuple(work.problems))


def request_shape(tensor: TensorSetting, settings: ModelSettings) -> tuple[int, ...]:
    """The whole shape of a tensor in requests and replies, under effective settings."""
    return (-1, *tensor.dims) if settings.max_batch_size else tensor.dims


def _is_free(tensor: Declared) -> bool:
    return bool(tensor.shape) and tensor.shape is not None and tensor.shape[0] == -1


def _setting(tensor: Declared, rows: int) -> TensorSetting:
    # A shape of unknown rank has no way to be written; one -1 stands for it, as in the model's metadata.
    shape = (-1,) if tensor.shape is None else tensor.shape[1:] if rows else tensor.shape
    return TensorSetting(tensor.name, tensor.datatype, shape, optional=tensor.optional)


def _preferred(work: _Work, gather_rows: int) -> tuple[int, ...]:
    settings = work.settings
    for rows in settings.preferred_batch_sizes:
        if rows > work.rows:
            work.refuse("preferred_batch_sizes", "E103", expected=f"rows from 1 to max_batch_size, {work.rows}",
                        got=str(rows))
    if settings.preferred_batch_sizes:
        return settings.preferred_batch_sizes
    return (work.rows if settings.max_batch_size is not None else min(gather_rows, work.rows),)


def _check_batching(work: _Work, inputs: Sequence[Declared], outputs: Sequence[Declared], automatic: bool) -> None:
    """max_batch_size > 0 needs a free first dimension of every tensor that is served."""
    if not work.settings.max_batch_size:
        return
    named = {tensor.name for tensor in work.settings.outputs}
    for side, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            if _is_free(tensor) or (side == "output" and not automatic and tensor.name not in named):
                continue
            shape = "none declared" if tensor.shape is None else str(list(tensor.shape))
            work.refuse("max_batch_size", "E304", cause=f"batching is asked for, and {side} {tensor.name!r} of the "
                        "model has no free first dimension", expected="[-1, ...]", got=shape,
                        fix="write max_batch_size: 0, or export the model with a dynamic batch dimension")


def _check_tensors(work: _Work, side: Side, written: Sequence[TensorSetting], declared: Sequence[Declared]) -> None:
    by_name = {tensor.name: tensor for tensor in declared}
    meant = {setting.name for setting in written}
    for setting in written:
        path = f"{side}s.{setting.name}"
        tensor = by_name.get(setting.name)
        if tensor is None:
            near = nearest(setting.name, by_name)
            meant.add(near)
            work.refuse(path, "E301", cause=f"the model has no {side} {setting.name!r}",
                        fix=f"did you mean {near!r}?" if near else f"it has {', '.join(by_name) or 'none'}")
            continue
        if tensor.datatype != setting.datatype:
            work.refuse(f"{path}.data_type", "E302", expected=_type_name(tensor.datatype),
                        got=_type_name(setting.datatype), fix="write the model's own")
        if setting.optional and not tensor.optional:
            work.warn(f"{path}.optional", "W102", cause="the model has no default for it, so requests must carry it")
        _check_dims(work, path, setting, tensor)
    if side == "input" and written:
        for tensor in declared:
            if tensor.name not in meant and not tensor.optional:
                work.refuse("inputs", "E301", cause=f"the model's input {tensor.name!r} is missing",
                            fix=f"add name: \"{tensor.name}\" data_type: {_type_name(tensor.datatype)} "
                                f"{_dims_text(_setting(tensor, work.rows).dims)}")


def _check_dims(work: _Work, path: str, setting: TensorSetting, tensor: Declared) -> None:
    if tensor.shape is None or (work.rows and not _is_free(tensor)):
        return                  # nothing to hold them against, or refused above
    reshaped = setting.reshape is not None
    dims = setting.dims if setting.reshape is None else setting.reshape
    model = tensor.shape[1:] if work.rows else tensor.shape
    field = f"{path}.reshape" if reshaped else f"{path}.dims"
    if _agree(dims, model):
        return
    if not model and not reshaped and setting.dims == (1,) and not work.rows:
        return                  # how a tensor without dimensions has to be written
    said = {"expected": str(list(model)), "got": str(list(dims))}
    if work.rows and not model and dims == (1,):
        work.refuse(field, "E303", cause="the model has one value a row", **said, fix="add reshape { shape: [] }")
    elif work.rows and _agree(dims, tensor.shape):
        work.refuse(field, "E305", cause="dims hold the batch dimension, which max_batch_size > 0 adds", **said,
                    fix=f"write {_dims_text(model)}, or max_batch_size: 0")
    elif not work.rows and _is_free(tensor) and _agree(dims, model[1:]):
        work.refuse(field, "E303", cause="without max_batch_size dims are the whole shape", **said,
                    fix=f"write {_dims_text(model)}, or a max_batch_size from 1")
    else:
        work.refuse(field, "E303", **said, fix=f"write {_dims_text(model)}")


def _dims_text(dims: Sequence[int]) -> str:
    """Dims as a configuration has them, which knows no empty ones."""
    return f"dims: {list(dims)}" if dims else "dims: [1] reshape { shape: [] }"


def _agree(dims: Sequence[int], model: Sequence[int]) -> bool:
    return len(dims) == len(model) and all(
        -1 in (wanted, size) or wanted == size for wanted, size in zip(dims, model, strict=True))


def _check_warmups(work: _Work, inputs: Sequence[Declared]) -> None:
    by_name = {tensor.name: tensor for tensor in inputs}
    for warmup in work.settings.warmups:
        if warmup.batch_size > max(1, work.rows):
            work.refuse("warmups", "E109", expected=f"a batch_size up to {max(1, work.rows)}",
                        got=str(warmup.batch_size), fix=f"lower the batch_size of {warmup.name!r}")
        given = {each.name for each in warmup.inputs}
        missing = [tensor.name for tensor in inputs if tensor.name not in given and not tensor.optional]
        if missing:
            work.refuse("warmups", "E106", cause=f"{warmup.name!r} has no data for {', '.join(missing)}",
                        fix="add an entry of inputs for each")
        for each in warmup.inputs:
            tensor = by_name.get(each.name)
            if tensor is None:
                work.refuse("warmups", "E301", cause=f"the model has no input {each.name!r}",
                            fix=f"it has {', '.join(by_name) or 'none'}")
                continue
            if tensor.datatype != each.datatype:
                work.refuse("warmups", "E302", cause=f"input {each.name!r}", expected=_type_name(tensor.datatype),
                            got=_type_name(each.datatype))
            written = next((one for one in work.settings.inputs if one.name == each.name), None)
            shape = written.dims if written else _setting(tensor, work.rows).dims
            if tensor.shape is not None and not _agree(each.dims, shape):
                work.refuse("warmups", "E303", cause=f"input {each.name!r}", expected=str(list(shape)),
                            got=str(list(each.dims)))


def _devices(work: _Work, available: tuple[int, ...]) -> tuple[Literal["cpu", "gpu"], tuple[int, ...]]:
    settings = work.settings
    absent = [gpu for gpu in settings.gpus if gpu not in available]
    if settings.kind == "gpu" and not available:
        work.refuse("kind", "E109", expected="a GPU that a provider of this server runs on", got="none",
                    fix="write KIND_CPU or KIND_AUTO, or install onnxruntime-gpu")
    elif settings.kind == "gpu" and absent:
        work.refuse("gpus", "E109", expected=f"some of {', '.join(map(str, available))}",
                    got=", ".join(map(str, absent)))
    if settings.kind == "cpu" or not available or absent:
        return "cpu", ()
    return "gpu", settings.gpus or available


def _type_name(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
