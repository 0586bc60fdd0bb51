"""Breakers, failed and stopped runs as an operator sees them: a log line for each, and the metrics' numbers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from infer._core.model_version import VersionEntry

log = logging.getLogger("infer.models")

RUN_FAILURE_SECONDS = 1.0


class BreakerLog:
    """Called with a version whose breaker has changed its state. Loop thread.

    `changed` hears of it, and once more when an open one may be tried again: from then on it counts as ready.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._loop, self._changed = loop, changed

    def __call__(self, entry: VersionEntry) -> None:
        guard, model = entry.guard, entry.name.decode()
        said = {"model": model, "version": entry.version, "breaker": guard.state}
        if guard.state == "open":
            wait_ns = guard.wait_ns
            self._loop.call_later(wait_ns / 1e9, self._changed)
            log.warning("model %r version %s is not called for now: %s; it is tried again in %d ms", model,
                        entry.version, guard.why, wait_ns // 1_000_000, extra=said)
        elif guard.state == "half-open":
            log.info("model %r version %s is tried again", model, entry.version, extra=said)
        else:
            log.warning("model %r version %s is called again: it went well", model, entry.version, extra=said)
        self._changed()


class RunFailures:
    """Logs what the runtime said about failed runs: one line per version and second, with how many were left out."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def __call__(self, entry: VersionEntry, text: str) -> None:
        key = entry.name.decode(), entry.version
        now = time.monotonic()
        if now - self._last.get(key, -RUN_FAILURE_SECONDS) < RUN_FAILURE_SECONDS:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        self._last[key] = now
        log.warning("a run of model %r failed: %s", key[0], text, extra={
            "model": key[0], "version": key[1], "left_out": self._left_out.pop(key, 0)})

    def forget(self, model: str, version: str) -> None:
        """It is unloaded."""
        self._last.pop((model, version), None)
        self._left_out.pop((model, version), None)


def log_stopped_run(entry: VersionEntry, ran_ns: int, stuck: bool) -> None:
    """A run was told to end, or has not ended in spite of it."""
    said = {"model": entry.name.decode(), "version": entry.version, "milliseconds": ran_ns // 1_000_000}
    if stuck:
        log.error("the stopped run of model %r version %s does not end: its executor is lost until it does, since one "
                  "operator of it takes that long", said["model"], entry.version, extra=said)
    else:
        log.warning("a run of model %r version %s was stopped after %d ms", said["model"], entry.version,
                    said["milliseconds"], extra=said)


def failure_gauges(versions: Iterable[VersionEntry]) -> dict[str, Any]:
    """By key of SERVER_METRICS, of versions that have a breaker. Any thread."""
    states: dict[tuple[str, str], int] = {}
    opened: dict[tuple[str, str], int] = {}
    answered: dict[tuple[str, str, str], int] = {}
    for entry in versions:
        guard = entry.guard
        if guard is None:
            continue
        key = entry.name.decode(), entry.version
        states[key], opened[key] = guard.state_number, guard.opened
        answered.update({(*key, kind): count for kind, count in guard.answered_by().items()})
    return {"breaker_state": states, "breaker_opened": opened, "fallbacks": answered}
