"""Everything that is wrong with repositories, in one pass: names, configuration, files, and what the runtime says.

Loads each version in turn, as a server would, but runs none. `infer check` prints what comes back. One thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infer._core.ort_runtime import Runtime
from infer._core.ort_session import OrtSession
from infer.errors import InferError, ModelLoadError
from infer.models.batchability import shape_objection
from infer.models.complete import Defaults, complete, decides_batching
from infer.models.findings import left_out, not_batched, refusal
from infer.models.identity import Identity, identify
from infer.models.memory import ensure_fits
from infer.models.problems import Problem, error
from infer.models.settings import ModelSettings
from infer.models.snapshot import ModelSeen, VersionFiles
from infer.models.source import Source
from infer.models.written import Written

# TensorProto.DataType, ONNX 1.23, by number.
ELEMENT_TYPES = {1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES",
                 9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16"}


@dataclass(frozen=True)
class Limits:
    """What the server that will serve this has."""

    memory_bytes: int = 0           # 0: not known, and nothing is refused for its size
    memory_factor: float = 0.0
    require_checksums: bool = False
    defaults: Defaults = field(default_factory=Defaults)


@dataclass(frozen=True)
class Checked:
    problems: tuple[Problem, ...]
    models: int
    versions: int


@dataclass(frozen=True)
class _Declared:
    """A tensor as the file declares it, for a model that the runtime refuses."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None
    served: bool
    optional: bool = False


def check(paths: Sequence[Path], runtime: Runtime, limits: Limits | None = None,
          written: Written | None = None) -> Checked:
    """Problems in the order of paths and models, each once; those of what is `written` outside of them come first.
    Never raises for what is there."""
    written = written or Written({}, [])
    snapshot = Source(paths, settle_ns=0, written=written.models).observe(0)
    found = [*written.problems, *snapshot.problems]
    versions = 0
    for name in sorted(snapshot.models):
        seen = snapshot.models[name]
        versions += len(seen.versions)
        for number in sorted(seen.versions):
            files = seen.versions[number]
            if not files.fault:
                found += _check_version(seen, files, runtime, limits or Limits())
    return Checked(tuple(_once(found)), len(snapshot.models), versions)


def _once(problems: Sequence[Problem]) -> Iterator[Problem]:
    """The same line of a configuration is wrong for every version of its model."""
    seen = set()
    for problem in problems:
        if problem not in seen:
            seen.add(problem)
            yield problem


def _check_version(seen: ModelSeen, files: VersionFiles, runtime: Runtime, limits: Limits) -> Iterator[Problem]:
    place = str(files.path)
    try:
        identity = identify(files, seen.settings.filename, limits.require_checksums)
    except ModelLoadError as refused:
        cause, _, fix = refused.message.rpartition("; ")
        yield error(place, "SHA256SUMS", "E211", cause=cause, fix=fix)
        return
    except OSError as refused:
        yield error(place, "", "E200", cause=f"cannot be read: {refused.strerror}", fix="see that it can be read")
        return
    yield from _size(place, identity, limits)
    try:
        session = OrtSession(runtime, files.path, providers=[("cpu", {})])
    except InferError as refused:
        yield refusal(place, refused.message)
        inputs, outputs = declared(identity)
        if not seen.refusal:
            yield from complete(seen.settings, inputs, outputs, batchable=False, defaults=limits.defaults).problems
        return
    yield from left_out(place, identity.contents.facts, session.outputs)
    if not seen.refusal:
        yield from _settings(place, seen.settings, session, limits)


def _size(place: str, identity: Identity, limits: Limits) -> Iterator[Problem]:
    if limits.memory_bytes:
        try:
            ensure_fits(identity.contents.total_bytes, limits.memory_bytes, 0, limits.memory_factor)
        except ModelLoadError as refused:
            cause, _, fix = refused.message.partition("; ")
            yield error(place, "", "E308", cause=cause, fix=fix)


def _settings(place: str, settings: ModelSettings, session: OrtSession, limits: Limits) -> Iterator[Problem]:
    served = [info for info in session.outputs if info.served]
    objection = shape_objection(session.inputs, served)
    completed = complete(settings, session.inputs, session.outputs, batchable=objection is None,
                         defaults=limits.defaults)
    yield from completed.problems
    if objection and not decides_batching(settings):
        yield not_batched(place, objection)


def declared(identity: Identity) -> tuple[list[_Declared], list[_Declared]]:
    """Inputs and outputs by the file alone."""
    facts = identity.contents.facts
    sides = ([], []) if facts is None else (facts["inputs"], facts["outputs"])
    inputs, outputs = ([_Declared(name, ELEMENT_TYPES.get(element, "?"), None if dims is None else tuple(
        size if isinstance(size, int) else -1 for size in dims), kind == "tensor")
        for name, kind, element, dims in side] for side in sides)
    return inputs, outputs


PLACE = re.compile(r"(.*?):(\d+)(?::(\d+))?")


def file_and_line(problem: Problem) -> tuple[str, int | None]:
    """The place of a problem as a path and, where it has one, a line."""
    match = PLACE.fullmatch(problem.place)
    return (match[1], int(match[2])) if match else (problem.place, None)
