"""Whether rows of different callers may share a run of a model, decided once at load.

Two things have to hold: the declared shapes say so (every first dimension is the same symbol, or none has a name), and
three samples run singly and together agree. Either alone would be a guess: exporters name dimensions freely, and a
model that normalises over its batch looks like any other. On the loader's thread; the runtime works without the GIL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from infer._core.model_version import TensorInfo
from infer._core.ort_session import OrtSession
from infer._core.self_check import all_close, made_up
from infer.errors import InferError

if TYPE_CHECKING:
    from infer._core.ort_session import Tensor

# Rows of the three samples; different, so that a dependence on the row count shows.
SAMPLE_ROWS = (1, 2, 3)
RTOL = {"FP16": 1e-2, "BF16": 5e-2}
DEFAULT_RTOL = 1e-4
# Of an output's largest magnitude: what cancellation leaves near zero is not a disagreement.
ATOL_SHARE = 0.1
# Elements of one made-up tensor; dimensions that would make it larger are not tried.
MOST_ELEMENTS = 1 << 24


class Fill(NamedTuple):
    """How to make up a tensor: the size of its free dimensions and the range of its values."""

    size: int
    low: float
    high: float
    below: int


# Tried in turn until a model runs. Small integers are valid indices of nearly every table; the larger sizes are those
# of images and of what is cut out of them.
FILLS = [Fill(size, low, high, below)
         for size in (4, 8, 1, 2, 3, 16, 32, 64, 128, 224, 256, 299, 384, 512)
         for low, high, below in ((-1.0, 1.0, 2), (0.0, 1.0, 1))]


@dataclass(frozen=True)
class Batchability:
    """The decision, the reason for it in one line, and a fill that the model runs with (None: none was found)."""

    batchable: bool
    reason: str
    fill: Fill | None
    detail: str = ""                    # the runtime's own words, for the log


def decide(session: OrtSession) -> Batchability:
    """Checks shapes, then samples. Never raises for what the model does."""
    objection = shape_objection(session.inputs, [info for info in session.outputs if info.served])
    if objection:
        return Batchability(False, objection, find_fill(session))
    failure = ""
    for fill in FILLS:
        try:
            singly = [session.run(sample(session.inputs, fill, rows, seed)) for seed, rows in enumerate(SAMPLE_ROWS)]
        except InferError as error:
            failure = failure or error.message
            continue
        try:
            difference = compare_together(session, fill, singly)
        except InferError as error:
            return Batchability(False, "three samples run alone but not together", fill, error.message)
        if difference:
            return Batchability(False, difference, fill)
        return Batchability(True, "rows run alone and together agree", fill)
    return Batchability(False, "the self-check found no input that the model runs with", None, failure)


def shape_objection(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> str | None:
    """What in the declared shapes speaks against batching, or None."""
    if not inputs:
        return "the model has no inputs"
    names: dict[str, str] = {}
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            if tensor.shape is None:
                return f"{kind} {tensor.name!r} has no declared shape"
            if not tensor.shape:
                return f"{kind} {tensor.name!r} has no dimensions"
            if tensor.shape[0] >= 0:
                return f"the first dimension of {kind} {tensor.name!r} is fixed at {tensor.shape[0]}"
            if tensor.optional:
                return f"{kind} {tensor.name!r} is optional"
            names.setdefault(tensor.symbols[0], f"{kind} {tensor.name!r}")
    if len(names) > 1:
        said = " and ".join(f"{name or 'without a name'} in {tensor}" for name, tensor in names.items())
        return f"the first dimensions differ: {said}"
    return None


def sample(inputs: Sequence[TensorInfo], fill: Fill, rows: int | None, seed: int) -> list[Tensor | None]:
    """One made-up request of `rows` rows (None: shapes as declared, a free first dimension like the others)."""
    tensors: list[Tensor | None] = []
    for index, info in enumerate(inputs):
        shape = [size if size >= 0 else fill.size for size in info.shape or ()]
        if rows is not None:
            shape[0] = rows
        elements = math.prod(shape)
        if elements > MOST_ELEMENTS:
            raise InferError(f"input {info.name!r} would have {elements} elements")
        data = made_up(info.datatype, elements, 1 + seed * len(inputs) + index, fill.low, fill.high, fill.below)
        tensors.append((info.datatype, tuple(shape), data))
    return tensors


def find_fill(session: OrtSession, inputs: Sequence[TensorInfo] | None = None, rows: int | None = None) -> Fill | None:
    """The first fill that a model runs with, as it is declared or as `inputs` say, in as many rows (None: no rows)."""
    for fill in FILLS:
        try:
            session.run(sample(session.inputs if inputs is None else inputs, fill, rows, 0))
        except InferError:
            continue
        return fill
    return None


def compare_together(session: OrtSession, fill: Fill, singly: Sequence[Sequence[Tensor]]) -> str | None:
    """How the samples together differ from the samples alone, or None."""
    samples = [sample(session.inputs, fill, rows, seed) for seed, rows in enumerate(SAMPLE_ROWS)]
    together: list[Tensor | None] = []
    for parts in zip(*samples, strict=True):
        tensors = [part for part in parts if part is not None]
        datatype, shape, _ = tensors[0]
        together.append((datatype, (sum(SAMPLE_ROWS), *shape[1:]), b"".join(data for _, _, data in tensors)))
    results = session.run(together)
    names = [info.name for info in session.outputs if info.served]
    for index, (datatype, shape, data) in enumerate(results):
        alone = [outputs[index] for outputs in singly]
        for rows, (_, one_shape, _) in zip(SAMPLE_ROWS, alone, strict=True):
            if one_shape[:1] != (rows,) or one_shape[1:] != shape[1:]:
                return f"output {names[index]!r} of {rows} rows has shape {list(one_shape)}"
        if shape[:1] != (sum(SAMPLE_ROWS),):
            return f"output {names[index]!r} of {sum(SAMPLE_ROWS)} rows has shape {list(shape)}"
        rtol = RTOL.get(datatype, DEFAULT_RTOL)
        if not all_close(data, b"".join(one for _, _, one in alone), datatype, rtol, rtol * ATOL_SHARE):
            return f"output {names[index]!r} of a row changes with the rows beside it"
    return None
