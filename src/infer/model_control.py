"""The manager as the RPCs of the repository see it, and what it keeps over a restart. Loop thread, no I/O.

An override travels through the manager as a text of its own, which the record keeps: its configuration, and where the
files are that were sent with it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from infer.errors import FailedPrecondition, InferError, InvalidArgument
from infer.models.config_pbtxt import parse_config
from infer.models.harness import State
from infer.models.intents import Mode
from infer.models.loading import Event
from infer.models.problems import described, errors_of
from infer.models.settings import ModelSettings
from infer.models.snapshot import ModelSeen, VersionFiles
from infer.models.status import ModelReport, VersionReport
from infer.security.audit import AuditLog
from infer.services.control import LOADING, READY, UNAVAILABLE, IndexRow, Overrides
from infer.state.store import Store

RECORD = "models"
PLACE = "parameter 'config'"
MODEL_FILE = "model.onnx"
UNLOADING = "UNLOADING"
# The protocol's name of a state, those that tell most of a version first.
STATES = {State.READY: READY, State.LOADING: LOADING, State.LOADED: LOADING, State.NEW: LOADING,
          State.FAILED: UNAVAILABLE, State.DRAINING: UNLOADING}
_ORDER = list(STATES)

Answer = Callable[[InferError | None], None]
# Sees what the repositories hold of a model by now.
Look = Callable[[str], Awaitable[object]]


async def no_look(name: str) -> None:
    """What was seen last will do."""


class AskedManager(Protocol):
    """What is asked of models.manager."""

    def ask_load(self, name: str, done: Answer, who: str, override: str = "") -> None: ...

    def ask_unload(self, name: str, done: Answer, who: str) -> None: ...

    def ask_label(self, name: str, label: str, version: int | None, done: Answer, who: str) -> None: ...

    def reports(self) -> list[ModelReport]: ...


class KeptRecord:
    """The manager's record in the store; `keep` is the manager's."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.record: Mapping[str, Any] = store.records().get(RECORD, {})
        self._last: Future[bool] | None = None

    def keep(self, record: dict[str, Any]) -> None:
        self.record = record
        self._last = self._store.save(RECORD, record)

    def directories(self) -> dict[str, Path]:
        """Of the files that models were loaded with, by model."""
        written = {name: json.loads(override)["directory"] for name, override in self.record.get("loaded", {}).items()
                   if override}
        return {name: Path(directory) for name, directory in written.items() if directory is not None}

    async def settled(self) -> None:
        """Once the last one is on the disk, or could not be written: then it is tried again, and calls go on."""
        if self._last is not None:
            await asyncio.wrap_future(self._last)


class ManagerControl:
    """The ModelControl over a manager, which whoever owns it steps when it asks to be."""

    def __init__(self, manager: AskedManager, mode: Mode, kept: KeptRecord, look: Look = no_look) -> None:
        self.mode = mode
        self._manager = manager
        self._kept = kept
        self._look = look

    async def load(self, name: str, overrides: Overrides | None, who: str) -> None:
        await self._look(name)
        override = "" if overrides is None else override_text(overrides)
        await self._asked(lambda done: self._manager.ask_load(name, done, who, override))

    async def unload(self, name: str, dependents: bool, who: str) -> None:
        # No model depends on another.
        await self._asked(lambda done: self._manager.ask_unload(name, done, who))

    async def label(self, name: str, label: str, version: int, who: str) -> None:
        await self._asked(lambda done: self._manager.ask_label(name, label, version or None, done, who))

    async def _asked(self, ask: Callable[[Answer], None]) -> None:
        """What the manager answers, once a restart would find it so."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: InferError | None) -> None:
            if ended.done():
                return
            if error is None:
                ended.set_result(None)
            else:
                ended.set_exception(error)

        ask(done)
        await ended
        await self._kept.settled()

    def index(self) -> Sequence[IndexRow]:
        return [row for report in self._manager.reports() for row in rows_of(report)]


def rows_of(report: ModelReport) -> list[IndexRow]:
    """A model's versions as the index has them: one row a number, whatever is being loaded and unloaded behind it."""
    chosen: dict[int, list[VersionReport]] = {}
    for each in sorted(report.versions, key=lambda each: _ORDER.index(each.state)):
        chosen.setdefault(each.version, []).append(each)
    if not chosen:
        reason = report.refusal or report.failure or report.reason or "not loaded"
        return [IndexRow(report.name, "", UNAVAILABLE, reason)]
    return [_row(report, versions) for _, versions in sorted(chosen.items())]


def _row(report: ModelReport, versions: Sequence[VersionReport]) -> IndexRow:
    shown = versions[0]
    ready = shown.state is State.READY
    labels = tuple(sorted(label for label, version in report.labels.items() if ready and version == shown.version))
    reasons = [each.reason for each in versions if each.reason]
    reason = reasons[0] if reasons else report.refusal if ready else ""
    return IndexRow(report.name, str(shown.version), STATES[shown.state], reason, labels)


def audit_event(audit: AuditLog, event: Event) -> None:
    """The manager's `tell`: everything that it did and why."""
    audit.record(event.kind, outcome=event.outcome, who=event.who, model=event.model,
                 version="" if event.version is None else str(event.version), detail=event.detail)


def override_text(overrides: Overrides) -> str:
    directory = None if overrides.directory is None else str(overrides.directory)
    return json.dumps({"config": overrides.config, "directory": directory}, sort_keys=True)


def overlay(seen: ModelSeen, override: str) -> ModelSeen:
    """The manager's: the model under what a load brought with it. Raises InferError."""
    name = seen.settings.name
    written = json.loads(override)
    found = parse_config(written["config"], PLACE, name, seen.settings.base)
    if found.settings is None:
        raise InvalidArgument(described(errors_of(found.problems), f"model {name!r}"))
    # Where labels point, and which directories may go, is the operator's word and no part of a ModelConfig.
    settings = replace(found.settings, labels=seen.settings.labels, keep_versions=None, keep_age_s=None)
    if written["directory"] is None:
        return replace(seen, settings=settings, refusal="")
    return ModelSeen(settings, _versions(Path(written["directory"]), settings))


def _versions(directory: Path, settings: ModelSettings) -> dict[int, VersionFiles]:
    try:
        names = [path.name for path in directory.iterdir()]
    except OSError:
        raise FailedPrecondition(f"model {settings.name!r}: the files that it was loaded with are gone; send "
                                 "them again, or load it from the repository") from None
    # The directory is of one load alone, so its name is as good as its content.
    return {int(name): VersionFiles(
        int(name), directory / name / (settings.filename or MODEL_FILE), directory / name,
        fingerprint=f"{directory.parent.name}/{name}", root=directory) for name in names}
