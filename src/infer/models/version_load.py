"""Loads one model version: names its files, opens a session, decides on batching, completes its settings, warms up.

On a loader's thread; what takes long runs without the GIL and, where the runtime allows it, in time that nobody else
wants. What it returns is complete; to be served it is attached to the pipeline on the loop thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from infer._core.model_version import VersionEntry
from infer._core.ort_provider import cuda_devices
from infer._core.ort_runtime import Runtime
from infer._core.ort_session import OrtSession, attach
from infer.errors import InferError, ModelLoadError
from infer.models.batchability import Batchability, decide, find_fill, shape_objection
from infer.models.complete import complete, decides_batching
from infer.models.effective import (
    LoadOptions,
    as_model_has,
    limits_of,
    not_honoured,
    served_tensors,
    session_options,
    shape_limits,
)
from infer.models.findings import left_out, not_batched, refusal_fix
from infer.models.identity import Identity, identify
from infer.models.loading import LoadSpec
from infer.models.memory import Reservations
from infer.models.problems import described, errors_of
from infer.models.settings import ModelSettings
from infer.models.warm_up import sizes, warm_sizes, warm_written

log = logging.getLogger("infer.models")


def load_version(spec: LoadSpec, runtime: Runtime, options: LoadOptions,
                 reservations: Reservations | None = None) -> VersionEntry:
    """The version, warm and ready to be attached. Raises ModelLoadError naming it."""
    named = f"model {spec.name!r} version {spec.version} is not served"
    try:
        return _load(spec, runtime, options, reservations or Reservations(0))
    except InferError as error:
        said = "; ".join(part for part in (error.message, refusal_fix(error.message)) if part)
        raise ModelLoadError(f"{named}: {_without_paths(said, spec)}") from error
    except OSError as error:
        file = Path(error.filename or spec.files.path).name
        raise ModelLoadError(f"{named}: its file {file} cannot be read: {error.strerror}") from error


def _without_paths(message: str, spec: LoadSpec) -> str:
    """Callers are told this: they know the model, not where the server has it."""
    for directory in (spec.files.directory, spec.files.path.parent, spec.settings.base, spec.files.root):
        if directory is not None:
            message = message.replace(f"{directory}/", "")
    return message


def _load(spec: LoadSpec, runtime: Runtime, options: LoadOptions, reservations: Reservations) -> VersionEntry:
    steps: dict[str, float] = {}
    settings = spec.settings
    if spec.files.fault:
        raise ModelLoadError(spec.files.fault)
    with _timed(steps, "read"):
        identity = identify(spec.files, settings.filename, options.require_checksums)
        file = identity.contents.file or spec.files.path
    with reservations.reserved(identity.contents.total_bytes):
        with _timed(steps, "session"):
            session = OrtSession(runtime, file, **session_options(settings, options))
        for message in (*session.messages, *(f"{name} is not honoured" for name in not_honoured(settings))):
            log.warning("model %r: %s", spec.name, message)
        for problem in left_out(str(file), identity.contents.facts, session.outputs):
            log.warning("%s", problem)
        with _timed(steps, "self-check"):
            batching = _batching(spec, session, file)
            effective = _completed(spec, session, batching, options)
            rows = effective.max_batch_size or 0
            inputs = served_tensors(session.inputs, effective.inputs, rows > 0, optional=True)
            outputs = served_tensors(session.outputs, effective.outputs, rows > 0, optional=False)
            if batching is None:
                batching = Batchability(rows > 0, "as configured",
                                        find_fill(session, as_model_has(inputs), 1 if rows else None))
        entry = VersionEntry(
            spec.name, str(spec.version), session, inputs, outputs, **limits_of(effective, options),
            **shape_limits(effective, options, session.providers),
            properties=_properties(file, session, batching, identity))
        with _timed(steps, "warm-up"):
            _warm_up(spec, session, entry, effective, batching)
    entry.settings = effective
    if entry.batched:
        entry.properties["batching"] = f"up to {entry.gather_rows} rows"
    entry.properties["load_ms"] = ", ".join(f"{step} {value:.1f}" for step, value in steps.items())
    attach(entry, session)
    log.info("model %r version %s loaded, %s: %s", spec.name, spec.version,
             "batched" if entry.batched else "not batched", batching.reason,
             extra={"model": spec.name, "version": spec.version, "sha256": identity.sha256,
                    "size_bytes": identity.total_bytes,
                    "milliseconds": {step: round(value, 1) for step, value in steps.items()}})
    return entry


def _batching(spec: LoadSpec, session: OrtSession, file: Path) -> Batchability | None:
    """What the self-check says; None where the settings decide."""
    if decides_batching(spec.settings):
        return None
    objection = shape_objection(session.inputs, [info for info in session.outputs if info.served])
    if objection:
        log.warning("%s", not_batched(str(file), objection))
    batching = decide(session)
    if batching.detail:
        log.warning("model %r is not batched: %s: %s", spec.name, batching.reason, batching.detail)
    return batching


def _completed(spec: LoadSpec, session: OrtSession, batching: Batchability | None,
               options: LoadOptions) -> ModelSettings:
    completed = complete(spec.settings, session.inputs, session.outputs,
                         batchable=batching is not None and batching.batchable,
                         defaults=options.defaults(_devices(session.runtime)))
    refused = errors_of(completed.problems)
    if refused:
        raise ModelLoadError(described(refused, "its configuration"))
    for problem in completed.problems:
        log.warning("%s", problem)
    return completed.settings


def _devices(runtime: Runtime) -> int:
    return cuda_devices() if "CUDAExecutionProvider" in runtime.providers else 0


def _warm_up(spec: LoadSpec, session: OrtSession, entry: VersionEntry, settings: ModelSettings,
             batching: Batchability) -> None:
    """What the operator wrote; then every size of batch that is to be expected, of which those that fail are left."""
    if settings.warmups:
        files = spec.files
        warm_written(session, entry.inputs, settings.warmups, entry.batched, settings.base or files.directory.parent,
                     root=files.root)
    if entry.batched and batching.fill is not None:
        expected = sizes(entry.gather_rows, settings.preferred_batch_sizes)
        try:
            warm_sizes(session, as_model_has(entry.inputs), batching.fill, expected)
        except InferError as error:
            log.warning("model %r: a warm-up of up to %d made-up rows failed: %s", spec.name, entry.gather_rows,
                        error.message)


def _properties(file: Path, session: OrtSession, batching: Batchability, identity: Identity) -> dict[str, str]:
    """What model metadata and the start-up table say beside the tensors."""
    named = {key: str(session.metadata[key]) for key in ("producer", "domain", "description") if session.metadata[key]}
    return {
        "file": file.name,
        "batching": f"no: {batching.reason}",
        "providers": ", ".join(name.removesuffix("ExecutionProvider") for name, _ in session.providers),
        **named, **identity.properties(),
    }


@contextlib.contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    steps[name] = (time.perf_counter() - begin) * 1e3
