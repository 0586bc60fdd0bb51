"""What the index, readiness, the command line and the status page show of the models. Pure; it returns copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infer._core.router import ModelRoute
from infer.models.harness import State
from infer.models.labels import default_version
from infer.models.served_model import ServedModel
from infer.models.snapshot import ModelSeen


@dataclass(frozen=True)
class VersionReport:
    version: int
    state: State
    aspired: bool
    fingerprint: str
    in_memory_only: bool        # its files are gone or have changed: it cannot be loaded again
    reason: str                 # of the last failed load, while none has succeeded
    attempts: int               # failed loads in a row
    retry_at_ns: int            # of FAILED
    entry: Any


@dataclass(frozen=True)
class ModelReport:
    name: str
    wanted: ModelSeen | None    # None: it is known and not loaded
    versions: tuple[VersionReport, ...]
    labels: Mapping[str, int]   # those that can be called by
    deferred: Mapping[str, int]
    default: int | None
    code: int                   # why there is no default, and what to do; 0 and "" where there is one
    reason: str
    failure: str                # of the last load that was asked for and taken back
    refusal: str                # why what is written for it now is not taken up
    who: str                    # whose word it follows


def report_of(model: ServedModel) -> ModelReport:
    ready = model.table.ready()
    code, reason = model.route().reason or (0, "")
    versions = tuple(
        VersionReport(row.version, row.state, row.key in model.aspired and row.state is not State.DRAINING,
                      row.key.fingerprint, model.aspired.get(row.key, row.files) is None, row.reason, row.attempts,
                      row.retry_at_ns if row.state is State.FAILED else 0, row.entry)
        for row in sorted(model.table, key=lambda row: row.key))
    return ModelReport(model.name, model.seen, versions, model.labels.effective(ready), dict(model.labels.deferred),
                       default_version(model.labels.held, ready), code, reason, model.failure, model.refusal, model.who)


def unready_reason(model: ServedModel, route: ModelRoute) -> str:
    """Why the model, if it shall be served, is not; else "". `route`: as it was made last."""
    if route.reason is None or (model.seen is None and not model.refusal):
        return ""
    return route.reason[1]


def missing_reason(name: str) -> str:
    """Of a model that is nowhere to be found."""
    return f"model {name!r} is to be loaded at the start and is in none of the repositories; copy it there"
