"""Threads that load, warm and release versions while others serve; the Loader that a manager asks.

Loop thread, but for what runs on the threads, of which there is a fixed number: a load of each at once. What waits for
them is bounded by who asks (`Bounds.loading`); closes wait as well, each for a version that was loaded. A version is
attached to the pipeline before its `done`, and detached, its session released and its memory given back, after its last
call and before that of its close.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from infer._core.fallback import set_guard
from infer._core.model_version import VersionEntry
from infer._core.ort_runtime import Runtime, give_back_memory
from infer._core.ort_session import OrtSession, take_session
from infer._core.pipeline import Pipeline
from infer.errors import InferError, ModelLoadError, Unavailable
from infer.models.cache_part import cache_part
from infer.models.effective import (
    LoadOptions,
    applied,
    changed_options,
    guard_of,
    limits_of,
    run_timeout_ns,
)
from infer.models.loading import Loaded, LoadSpec
from infer.models.memory import Reservations
from infer.models.settings import ModelSettings
from infer.models.version_load import load_version

log = logging.getLogger("infer.models")


class Loader:
    """`runtime` is called once, on one of the `threads`, before the first load; where it fails every load does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pipeline: Pipeline, runtime: Callable[[], Runtime],
                 options: LoadOptions, *, threads: int,
                 on_breaker: Callable[[VersionEntry], None] | None = None,
                 attached: Callable[[VersionEntry], None] = lambda entry: None) -> None:
        """`on_breaker` is called when the breaker of a version has changed its state, `attached` when it is about to be
        served."""
        self._loop, self._pipeline, self._options = loop, pipeline, options
        self._make_runtime, self._on_breaker, self._when_attached = runtime, on_breaker, attached
        self._runtime: Runtime | None = None
        self._making = threading.Lock()
        self._reservations = Reservations(options.memory_bytes, options.memory_factor)
        self._threads = ThreadPoolExecutor(threads, "infer-load")
        self._loads: dict[int, tuple[LoadSpec, Loaded, Future[None]]] = {}
        self._closing = 0
        self._stopping = False

    @property
    def loading(self) -> int:
        """Loads under way or waiting for a thread."""
        return len(self._loads)

    @property
    def closing(self) -> int:
        """Versions that drain or give their memory back."""
        return self._closing

    def load(self, spec: LoadSpec, done: Loaded) -> None:
        if self._stopping:
            done(spec, _stopped(spec))
            return
        self._loads[spec.serial] = spec, done, self._threads.submit(self._load, spec)

    def close(self, entry: VersionEntry, done: Callable[[], None]) -> None:
        self._closing += 1
        # Its last call is still being answered where this is called from.
        entry.close(lambda: self._loop.call_soon(self._drained, entry, done))

    def apply(self, entry: VersionEntry, settings: ModelSettings) -> None:
        entry.settings = applied(entry.settings, settings)
        self._pipeline.set_limits(entry, **limits_of(entry.settings, self._options))
        try:
            self._watch(entry)
        except InferError as error:
            log.error("model %r version %s keeps its breaker as it was: %s", settings.name, entry.version, error)

    def set_option(self, name: str, value: Any, served: Iterable[VersionEntry]) -> None:
        """Another value of one of effective.LIVE_SETTINGS: for versions to come, and for those that serve."""
        self._options = changed_options(self._options, name, value)
        for entry in served:
            self.apply(entry, entry.settings)

    def _watch(self, entry: VersionEntry) -> None:
        """Its breaker, and how long its runs may take. Raises InferError where the one does not fit the model."""
        self._pipeline.set_run_timeout(entry, run_timeout_ns(entry.settings, self._options))
        set_guard(entry, guard_of(entry.settings, self._options), self._on_breaker)

    async def stop(self) -> None:
        """Refuses the loads that wait and waits for those under way, which are refused too."""
        self._stopping = True
        for spec, done, future in list(self._loads.values()):
            if future.cancel():
                del self._loads[spec.serial]
                done(spec, _stopped(spec))
        # Their ends were handed to the loop before this one.
        await self._loop.run_in_executor(None, self._threads.shutdown)

    # On one of the threads.

    def _load(self, spec: LoadSpec) -> None:
        result: VersionEntry | InferError
        try:
            result = load_version(spec, self._runtime_made(), self._options, self._reservations)
        except InferError as error:
            # Anew: its traceback would keep the session, which is not to be released by the loop.
            result = type(error)(error.message, error.code)
        except Exception as error:
            log.exception("loading model %r version %s", spec.name, spec.version)
            result = ModelLoadError(f"model {spec.name!r} version {spec.version} is not served: {error!r}; the "
                                    "server's log says where")
        if len(self._loads) <= 1:
            give_back_memory()
        self._loop.call_soon_threadsafe(self._loaded, spec, result)

    def _runtime_made(self) -> Runtime:
        with self._making:
            if self._runtime is None:
                self._runtime = self._make_runtime()
            return self._runtime

    def _release(self, session: OrtSession, done: Callable[[], None]) -> None:
        session.close()
        give_back_memory()
        self._loop.call_soon_threadsafe(self._closed, done)

    # On the loop thread, once they are done.

    def _loaded(self, spec: LoadSpec, result: VersionEntry | InferError) -> None:
        _, done, _ = self._loads.pop(spec.serial)
        if isinstance(result, VersionEntry):
            result = _stopped(spec) if self._stopping else self._attached(spec, result)
        done(spec, result)

    def _attached(self, spec: LoadSpec, entry: VersionEntry) -> VersionEntry | InferError:
        try:
            self._watch(entry)
            self._pipeline.attach(entry, cache_part(entry, self._options))
        except (InferError, MemoryError) as error:
            return ModelLoadError(f"model {spec.name!r} version {spec.version} is not served: {error}")
        self._when_attached(entry)
        return entry

    def _drained(self, entry: VersionEntry, done: Callable[[], None]) -> None:
        self._pipeline.detach(entry)
        session = take_session(entry)
        if self._stopping:
            session.close()
            self._closed(done)
        else:
            self._threads.submit(self._release, session, done)

    def _closed(self, done: Callable[[], None]) -> None:
        self._closing -= 1
        done()


def _stopped(spec: LoadSpec) -> Unavailable:
    return Unavailable(f"model {spec.name!r} version {spec.version} is not loaded: the server stops")
