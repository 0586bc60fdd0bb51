"""What calls are told of a model: the versions and labels they reach, and why the others cannot be. Pure.

Equal routes answer every call alike, so that a table is published only when one has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from infer._core.router import ModelRoute
from infer.models.harness import Incarnation, State
from infer.models.labels import STABLE, Labels, default_version
from infer.models.snapshot import ModelSeen
from infer.models.version_policy import described

NOT_FOUND, FAILED_PRECONDITION, UNAVAILABLE = 5, 9, 14

Refusal = tuple[int, str]   # gRPC code and text

@dataclass(frozen=True)
class ModelView:
    """What a route is made of."""

    name: str
    rows: Iterable[Incarnation]
    labels: Labels
    seen: ModelSeen | None              # None: it shall not be served
    refusal: str = ""                   # of what is written for it now
    failure: str = ""                   # of a load that was asked for and taken back


def route_of(view: ModelView) -> ModelRoute:
    # Of one version, what drains comes before what is to follow it.
    rows = sorted(view.rows, key=lambda row: (row.version, row.state is not State.DRAINING, row.key))
    ready = {row.version: row.entry for row in rows if row.state is State.READY}
    unready = {str(row.version): _of_version(view.name, row) for row in rows if row.version not in ready}
    effective = view.labels.effective(ready)
    for label, version in {**view.labels.deferred, **view.labels.held}.items():
        if view.seen is not None and label not in effective:
            unready[label] = _of_label(view.name, label, version, unready)
    default = default_version(view.labels.held, ready)
    return ModelRoute(
        versions=tuple(ready[version] for version in sorted(ready, reverse=True)),
        labels={label: ready[version] for label, version in effective.items()},
        default=None if default is None else ready[default],
        unready=unready,
        reason=None if default is not None else _of_model(view, rows, unready))


def _of_version(name: str, row: Incarnation) -> Refusal:
    if row.reason:
        return FAILED_PRECONDITION, row.reason
    if row.state is State.DRAINING:
        return UNAVAILABLE, f"model {name!r} version {row.version} is being unloaded; name another version, or none"
    return UNAVAILABLE, f"model {name!r} version {row.version} is loading; try again"


def _of_label(name: str, label: str, version: int, unready: Mapping[str, Refusal]) -> Refusal:
    absent = UNAVAILABLE, f"model {name!r} has no version {version}; copy it into the repository, or move the label"
    code, text = unready.get(str(version), absent)
    return code, f"label {label!r} of model {name!r} names version {version}, which is not ready: {text}"


def _of_model(view: ModelView, rows: Iterable[Incarnation], unready: Mapping[str, Refusal]) -> Refusal:
    """Why there is no default."""
    if STABLE in unready:
        return unready[STABLE]
    coming = [row for row in rows if row.state is not State.DRAINING]
    if coming:
        # One that may still become ready says more than one that has failed.
        return unready[str(max(coming, key=lambda row: (not row.reason, row.version)).version)]
    if view.failure:
        return FAILED_PRECONDITION, view.failure
    if view.refusal:
        return FAILED_PRECONDITION, view.refusal
    if any(row.state is State.DRAINING for row in rows):
        return UNAVAILABLE, f"model {view.name!r} is being unloaded"
    if view.seen is None:
        return NOT_FOUND, f"model {view.name!r} is not loaded; load it with RepositoryModelLoad or `infer load`"
    return _of_versions(view.name, view.seen)


def _of_versions(name: str, seen: ModelSeen) -> Refusal:
    """Why its policy picks nothing."""
    listed = ", ".join(str(version) for version in sorted(seen.versions)) or "none"
    faults = [files.fault for _, files in sorted(seen.versions.items()) if files.fault]
    if faults:
        return FAILED_PRECONDITION, f"model {name!r} has no version that can be loaded: {faults[-1]}"
    if any(not files.whole for files in seen.versions.values()):
        return UNAVAILABLE, f"model {name!r} has no whole version yet; still being written, of {listed}; try again"
    return FAILED_PRECONDITION, (f"model {name!r} has no version to serve: expected {described(seen.settings.policy)}, "
                                 f"found {listed}; copy it there, or change the version policy")
