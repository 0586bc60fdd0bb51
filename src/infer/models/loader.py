"""Loads one model version: checks the file, opens a session, decides on batching, warms up.

Called on a loader's thread, never on the loop's; what takes long runs without the GIL. What it returns is complete and
is published by handing it to the loop thread.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from infer._core.model_version import VersionEntry
from infer._core.ort_runtime import Runtime, give_back_memory
from infer._core.ort_session import OrtSession, attach
from infer.errors import InferError, ModelLoadError
from infer.models.batchability import Batchability, decide, sample
from infer.models.complete import Defaults, complete
from infer.models.external_data import check_external_data
from infer.models.identity import Identity, identify
from infer.models.memory import PEAK_FACTOR, ensure_fits, used_bytes
from infer.models.problems import described, errors_of
from infer.models.repository import ModelSource

log = logging.getLogger("infer.models")

# Providers of one device, on which a second batch at once would only queue inside the driver.
_DEVICE_PROVIDERS = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
_WARM_UP_SECONDS = 5.0
# How the runtime says that a model asks for more than it has.
TOO_NEW = re.compile("No Op registered|not a registered function/op|Could not find an implementation|"
                      "Unsupported model IR version|ONNX Runtime only .?guarantees.? support")
_TOO_NEW_ADVICE = "; upgrade onnxruntime, or export the model again with operators and an opset that it has"


@dataclass(frozen=True)
class LoadOptions:
    """How versions without a configuration of their own are served."""

    providers: Sequence[tuple[str, dict[str, str]]] = ()    # in order of preference; empty: a working GPU, else CPU
    intra_op: int | None = None                             # threads per operator, of its own; None: the runtime's
    max_rows: int = 1024
    gather_rows: int = 64
    delay_ns: int = 0
    queue_limit_rows: int = 4096
    max_running: int = 1
    require_checksums: bool = False
    memory_bytes: int = 0                                   # that there are in all; 0: nothing is refused for its size
    memory_factor: float = PEAK_FACTOR


def load_version(source: ModelSource, runtime: Runtime, options: LoadOptions) -> VersionEntry:
    """The version, warm and ready to be published. Raises ModelLoadError naming it."""
    for warning in source.warnings:
        log.warning("%s", warning)
    named = f"model {source.name!r} version {source.version} is not served"
    try:
        return _load(source, runtime, options)
    except InferError as error:
        advice = _TOO_NEW_ADVICE if TOO_NEW.search(error.message) else ""
        raise ModelLoadError(f"{named}: {error.message}{advice}") from error
    except OSError as error:
        raise ModelLoadError(f"{named}: its file {source.path.name} cannot be read: {error.strerror}") from error


def _load(source: ModelSource, runtime: Runtime, options: LoadOptions) -> VersionEntry:
    steps: dict[str, float] = {}
    with _timed(steps, "read"):
        identity = _identity(source, options)
        external_bytes = check_external_data(source.path, source.files.root if source.files else None)
    with _timed(steps, "session"):
        session = OrtSession(runtime, source.path, providers=options.providers, intra_op=options.intra_op)
    for message in session.messages:
        log.warning("model %r: %s", source.name, message)
    with _timed(steps, "self-check"):
        batching = decide(session)
    _check_settings(source, session, batching, options)
    if batching.detail:
        log.warning("model %r is not batched: %s: %s", source.name, batching.reason, batching.detail)
    with _timed(steps, "warm-up"):
        _warm_up(session, batching, options.gather_rows)
    entry = VersionEntry(
        source.name, source.version, session, session.inputs, session.outputs, batched=batching.batchable,
        max_rows=options.max_rows if batching.batchable else 1, gather_rows=options.gather_rows,
        delay_ns=options.delay_ns, queue_limit_rows=options.queue_limit_rows,
        max_running=_max_running(session, options),
        properties=_properties(source, session, batching, options, steps)
        | (identity.properties() if identity else {}))
    attach(entry, session)
    give_back_memory()
    log.info("model %r version %s loaded, %s: %s", source.name, source.version,
             "batched" if batching.batchable else "not batched", batching.reason,
             extra={"model": source.name, "version": source.version, "external_bytes": external_bytes,
                    "milliseconds": {step: round(value, 1) for step, value in steps.items()}})
    return entry


def _identity(source: ModelSource, options: LoadOptions) -> Identity | None:
    """Of a version that was found in a repository: its files are those that it lists, and there is memory for it."""
    if source.files is None:
        return None
    identity = identify(source.files, source.settings.filename if source.settings else None, options.require_checksums)
    if options.memory_bytes:
        ensure_fits(identity.contents.total_bytes, options.memory_bytes, used_bytes(), options.memory_factor)
    return identity


def _check_settings(source: ModelSource, session: OrtSession, batching: Batchability, options: LoadOptions) -> None:
    """Raises ModelLoadError where what is configured is not what the model is."""
    if source.settings is None:
        return
    completed = complete(source.settings, session.inputs, session.outputs, batchable=batching.batchable,
                         defaults=Defaults(options.max_rows, options.gather_rows))
    refused = errors_of(completed.problems)
    if refused:
        raise ModelLoadError(described(refused, "its configuration"))


def _warm_up(session: OrtSession, batching: Batchability, gather_rows: int) -> None:
    """Runs of one row and of a full batch, so that the first callers do not wait for what the runtime prepares. A full
    batch that would take long is left to them."""
    if batching.fill is None:
        return
    with contextlib.suppress(InferError):
        begin = time.perf_counter()
        session.run(sample(session.inputs, batching.fill, 1 if batching.batchable else None, 0))
        if batching.batchable and (time.perf_counter() - begin) * gather_rows < _WARM_UP_SECONDS:
            session.run(sample(session.inputs, batching.fill, gather_rows, 0))


def _max_running(session: OrtSession, options: LoadOptions) -> int:
    return 1 if session.providers[0][0] in _DEVICE_PROVIDERS else options.max_running


def _properties(source: ModelSource, session: OrtSession, batching: Batchability, options: LoadOptions,
                steps: dict[str, float]) -> dict[str, str]:
    """What model metadata and the start-up table say beside the tensors."""
    named = {key: str(session.metadata[key]) for key in ("producer", "domain", "description") if session.metadata[key]}
    return {
        "file": source.path.name,
        "batching": f"up to {options.gather_rows} rows" if batching.batchable else f"no: {batching.reason}",
        "providers": ", ".join(name.removesuffix("ExecutionProvider") for name, _ in session.providers),
        "load_ms": ", ".join(f"{step} {value:.1f}" for step, value in steps.items()),
        **named,
    }


@contextlib.contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    steps[name] = (time.perf_counter() - begin) * 1e3
