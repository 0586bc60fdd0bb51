"""Runs of a session before its version is published, so that no caller waits for what the runtime prepares.

Made-up rows in every size of batch that is to be expected: one row, the powers of two and the preferred sizes below
what a batch gathers, and that itself. Sizes between them take no kernel and no memory that these did not. Larger sizes
are left to the callers once the time for all is used up. Before them come the requests that the operator wrote, whole
and without a bound of time; one that fails fails the load. On the loader's thread.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infer._core.model_version import TensorInfo
from infer._core.ort_session import OrtSession
from infer._core.self_check import made_up
from infer.errors import InferError, ModelLoadError
from infer.models.batchability import Fill, sample
from infer.models.effective import map_sizes
from infer.models.inside import resolve_inside
from infer.models.settings import Warmup, WarmupInput

if TYPE_CHECKING:
    from infer._core.ort_session import Tensor

WARM_UP_SECONDS = 5.0
# Below a model's directory: where `input_data_file` lies.
DIRECTORY = "warmup"
_BYTES_PREFIX = 4


def sizes(gather_rows: int, preferred: Sequence[int] = ()) -> tuple[int, ...]:
    """Rows of the batches to run, smallest first."""
    powers = {1 << power for power in range(gather_rows.bit_length())}
    return tuple(sorted({rows for rows in (*powers, *preferred, gather_rows) if 1 <= rows <= gather_rows}))


def warm_sizes(session: OrtSession, inputs: Sequence[TensorInfo], fill: Fill, rows: Sequence[int], *,
               seconds: float = WARM_UP_SECONDS, now: Callable[[], float] = time.perf_counter) -> list[int]:
    """Runs the sizes in their order; those that were run.

    A size is left out, and so are those behind it, where the one before has taken so long that the time would not do.
    """
    end = now() + seconds
    took, before = 0.0, 1
    ran: list[int] = []
    for each in rows:
        begin = now()
        if begin + took * each / before > end:
            break
        session.run(sample(inputs, fill, each, 0))
        took, before = now() - begin, each
        ran.append(each)
    return ran


def warm_written(session: OrtSession, inputs: Sequence[TensorInfo], warmups: Sequence[Warmup], batched: bool,
                 base: Path, *, root: Path | None) -> None:
    """The requests that were written for the model, whose shapes are those of `inputs`, as it serves them. `base`: its
    directory; links may lead as far as `root`."""
    for warmup in warmups:
        tensors = _tensors(inputs, warmup, batched, base, root)
        for _ in range(warmup.count):
            try:
                session.run(tensors)
            except InferError as error:
                raise ModelLoadError(f"warm-up {warmup.name!r} failed: {error.message}; correct model_warmup, or leave "
                                     "it out") from error


def _tensors(inputs: Sequence[TensorInfo], warmup: Warmup, batched: bool, base: Path,
             root: Path | None) -> list[Tensor | None]:
    by_name = {each.name: each for each in warmup.inputs}
    rows = warmup.batch_size if batched else 1
    tensors: list[Tensor | None] = []
    for seed, info in enumerate(inputs):
        written = by_name.get(info.name)
        if written is None:
            tensors.append(None)
            continue
        shape: tuple[int, ...] = (rows, *written.dims) if batched else written.dims
        if info.reshape is not None and info.shape is not None and len(info.shape) == len(shape):
            shape = map_sizes(shape, (-1, *info.shape[1:]) if batched else info.shape,
                              (-1, *info.reshape[1:]) if batched else info.reshape)
        data = _one_row(warmup.name, written, seed, base, root)
        tensors.append((written.datatype, shape, data * rows))
    return tensors


def _one_row(warmup: str, written: WarmupInput, seed: int, base: Path, root: Path | None) -> bytes:
    elements = math.prod(written.dims)
    if written.kind == "random":
        return made_up(written.datatype, elements, 1 + seed, 0.0, 1.0, 2)
    zero = bytes(_BYTES_PREFIX) * elements if written.datatype == "BYTES" else bytes(
        len(made_up(written.datatype, elements, 1, 0.0, 1.0, 1)))
    if written.kind == "zero":
        return zero
    said = f"warm-up {warmup!r}, input {written.name!r}: {DIRECTORY}/{written.path}"
    path = base / DIRECTORY / (written.path or "")
    try:
        data = resolve_inside(root or base, path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it leads out of the model's directory"
        raise ModelLoadError(f"{said} cannot be read: {reason}; put it there, or use zero_data") from error
    if written.datatype != "BYTES" and len(data) != len(zero):
        raise ModelLoadError(f"{said}: expected {len(zero)} bytes, one {written.datatype} {list(written.dims)}, got "
                             f"{len(data)}; the data of one row is repeated for batch_size")
    return data
